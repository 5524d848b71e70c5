"""Figures of a target's test origins: whether it is right, whether it is honest, and what moves it."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import shap
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from sklearn.metrics import precision_recall_curve, roc_curve

from models.intervals import Interval, wilson
from models.ladder import Rung
from models.propensity import Floats

_MODEL, _BASE, _QUIET = "#1f5fa8", "#c2571a", "#9a9a9a"
_Z95 = 1.96
# Dots beyond these hide each other.
_DOTS = 2_000


def target_figures(
    tested: pd.DataFrame,
    measures: Mapping[str, float],
    baseline: Mapping[str, float],
    *,
    title: str,
    is_amount: bool,
    method: str = "model",
    against: str = "baseline",
) -> dict[str, Figure]:
    """Draw the figures of pooled test origins (`label`, `score`, `baseline`); `measures` are the means over origins.

    Curves are left out where they are not defined: of one label only, or where nothing was bought. `method` names what scored,
    `against` the simple rule beside it.
    """
    label, score, base = (tested[name].to_numpy(dtype=np.float64) for name in ("label", "score", "baseline"))
    where = f"{title}\n{tested.cutoff.nunique()} test origins, {len(tested):,} rows"
    both = [_Curve(method, score, measures, _MODEL), _Curve(against, base, baseline, _BASE)]
    if is_amount:
        gain = {"gain": _gain(label, both, where)} if label.sum() > 0 else {}
        return {"deciles": _deciles(label, score, where), **gain}
    where += f", {int(label.sum()):,} positive"
    reliability = {"reliability": _reliability(label, score, where)}
    if label.min() == label.max():
        return reliability
    ranked = {"roc": _roc(label, both, where), "precision_recall": _precision_recall(label, both, where)}
    return {**ranked, **reliability, "gain": _gain(label, both, where)}


def beeswarm(values: Floats, x: pd.DataFrame, *, title: str) -> Figure:
    """Draw SHAP values (users × features, before calibration) of a sample of users."""
    # The plot draws on pyplot's current figure, so the backend is set here, where it is needed.
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")
    explanation = shap.Explanation(values=values, data=x.to_numpy(), feature_names=list(x.columns))
    # It moves dots aside by numpy's global generator, and knows no other.
    before = np.random.get_state()
    np.random.seed(0)
    with warnings.catch_warnings():
        # What is not known of anybody tonight has no range to be coloured by.
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        shap.plots.beeswarm(explanation, max_display=15, show=False, plot_size=(10, 7))
    np.random.set_state(before)
    figure = pyplot.gcf()
    figure.axes[0].set_title(f"{title}\nwhat moves the score, {len(x):,} users", fontsize=11)
    figure.tight_layout()
    return figure


def dependence(values: Floats, x: pd.DataFrame, *, title: str, most: int = 6) -> Figure:
    """Draw what the features that move most add to the score (`values`, users × features), against their values in `x`.

    Drawn are at most 2,000 users. Long tails are drawn in log; a dashed line tells the mean of users whose value is not known.
    """
    shown = values[:: max(1, -(-len(values) // _DOTS))]
    read = x.iloc[:: max(1, -(-len(x) // _DOTS))]
    strength = np.abs(values).mean(axis=0)
    picked = [at for at in np.argsort(-strength, kind="stable")[:most] if strength[at] > 0]
    columns = min(3, max(1, len(picked)))
    rows = max(1, -(-len(picked) // columns))
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.7), layout="constrained")
    figure.suptitle(f"{title}\nwhat a feature's value adds to the score, {len(read):,} of {len(x):,} users", fontsize=11)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(picked) :]:
        axes.set_axis_off()
    for axes, at in zip(panels, picked, strict=False):
        _plain(axes)
        own, moved = read.iloc[:, at].to_numpy(dtype=np.float64), shown[:, at]
        known = np.isfinite(own)
        axes.axhline(0, color=_QUIET, linewidth=0.8)
        axes.scatter(own[known], moved[known], s=7, alpha=0.35, color=_MODEL, linewidths=0)
        if (~known).any():
            label = f"not known ({(~known).mean():.0%})"
            axes.axhline(moved[~known].mean(), color=_BASE, linestyle="--", linewidth=1.2, label=label)
            axes.legend(frameon=False, fontsize=8)
        if _is_skewed(own[known]):
            axes.set_xscale("symlog", linthresh=np.quantile(own[known & (own > 0)], 0.1))
            axes.set_xlim(left=min(0, own[known].min()))
        axes.set_xlabel(str(x.columns[at]), fontsize=9)
        axes.tick_params(labelsize=8)
    return figure


def group_importance(values: Floats, groups: Sequence[str], *, title: str, most: int = 15) -> Figure:
    """Draw how far each group of features moves a user's score on average: the mean absolute sum of its contributions.

    `values` are users × features, `groups` names the group of each. Intervals are of the mean over users (95 %).
    """
    names = sorted(set(groups))
    of = np.asarray(groups, dtype=object)
    sums = {name: np.abs(values[:, of == name].sum(axis=1)) for name in names}
    largest = sorted(names, key=lambda name: -sums[name].mean())[:most][::-1]
    where = f"how far a group of features moves a score, {len(values):,} users, 95 % interval"
    figure, axes = _wide(f"{title}\n{where}", 1.6 + 0.3 * len(largest))
    error = [_Z95 * sums[name].std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0 for name in largest]
    axes.barh(largest, [sums[name].mean() for name in largest], xerr=error, capsize=2, color=_MODEL, ecolor=_BASE)
    axes.set(xlabel="mean absolute contribution, before calibration")
    axes.grid(False, axis="y")
    return figure


def importance_stability(by_origin: Mapping[datetime, Mapping[str, float]], *, title: str, most: int = 12) -> Figure:
    """Draw each origin's importance of feature groups, as shares of their sum, largest first.

    The title tells how alike the ranks of all groups are from one origin to the next (mean Spearman correlation).
    """
    origins = sorted(by_origin)
    told = pd.DataFrame({at: pd.Series(by_origin[at], dtype=np.float64) for at in origins}).fillna(0.0)
    shares = told / told.sum().where(told.sum() > 0, 1.0)
    largest = shares.loc[shares.mean(axis=1).sort_values(ascending=False, kind="stable").index[:most]]
    varying = [(one, other) for one, other in pairwise(origins) if told[one].nunique() > 1 < told[other].nunique()]
    alike = [float(spearmanr(told[one], told[other]).statistic) for one, other in varying]
    ranks = (
        f"ranks from one origin to the next: mean Spearman correlation {np.mean(alike):.2f}" if alike else "ranks: not comparable"
    )
    where = f"importance of feature groups at {len(origins)} origins, as shares\n{ranks}"
    figure, axes = _wide(f"{title}\n{where}", 2.1 + 0.32 * len(largest), width=max(7.2, 2.6 + 0.9 * len(origins)))
    axes.grid(False)
    axes.imshow(largest.to_numpy(), aspect="auto", cmap="Blues", vmin=0)
    dark = largest.to_numpy().max(initial=0.0) * 0.6
    for row, name in enumerate(largest.index):
        for column, at in enumerate(origins):
            share = largest.loc[name, at]
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color="white" if share > dark else "black")
    axes.set_xticks(range(len(origins)), [f"{at:%Y-%m-%d}" for at in origins], rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(largest)), list(largest.index), fontsize=9)
    return figure


def ladder_figure(
    by_rung: Mapping[Rung, Interval], *, chosen: str, measure: str = "average_precision", title: str, origins: int | None = None
) -> Figure:
    """Draw each rung's measure, a mean over so many `origins`, with its interval: simplest on top, the chosen one in colour."""
    over = "test origins" if origins is None else f"{origins} test origins"
    where = f"what each rung of the ladder reaches, mean over {over}, 95 % interval"
    figure, axes = _wide(f"{title}\n{where}", 1.6 + 0.42 * len(by_rung))
    for place, (rung, found) in enumerate(by_rung.items()):
        colour = _MODEL if rung == chosen else _QUIET
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=2)
        axes.plot(found.value, place, marker="o", color=colour, markersize=8 if rung == chosen else 6)
        axes.annotate(
            f"{found.value:.3f}", (found.value, place), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8
        )
        if rung == chosen:
            axes.axvline(found.value, color=_MODEL, linestyle=":", linewidth=1)
    named = [f"{rung} (in use)" if rung == chosen else rung for rung in by_rung]
    axes.set_yticks(range(len(by_rung)), named)
    axes.set(xlabel=measure.replace("_", " "), ylim=(len(by_rung) - 0.5, -0.7))
    axes.margins(x=0.08)
    return figure


@dataclass(frozen=True)
class _Curve:
    """Who scored, its scores, the means of its measures, and its colour."""

    name: str
    scores: Floats
    measures: Mapping[str, float]
    colour: str


def _figure(title: str) -> tuple[Figure, matplotlib.axes.Axes]:
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    _plain(axes)
    return figure, axes


def _wide(title: str, height: float, *, width: float = 7.2) -> tuple[Figure, matplotlib.axes.Axes]:
    """Begin a figure of rows with names of any length, whose title is set over all of it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.add_subplot()
    _plain(axes)
    return figure, axes


def _plain(axes: matplotlib.axes.Axes) -> None:
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _is_skewed(values: Floats) -> bool:
    """Whether most of the values would lie at one end of the axis."""
    above = values[values > 0]
    return len(above) > 0 and values.min() >= 0 and above.max() > 20 * np.median(above)


def _roc(label: Floats, curves: Sequence[_Curve], title: str) -> Figure:
    figure, axes = _figure(title)
    for curve in curves:
        false_rate, true_rate, _ = roc_curve(label, curve.scores)
        mean = curve.measures.get("auc", float("nan"))
        axes.plot(false_rate, true_rate, color=curve.colour, label=f"{curve.name}: mean AUC {mean:.3f}")
    axes.plot([0, 1], [0, 1], color=_QUIET, linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _precision_recall(label: Floats, curves: Sequence[_Curve], title: str) -> Figure:
    figure, axes = _figure(title)
    for curve in curves:
        precision, recall, _ = precision_recall_curve(label, curve.scores)
        mean = curve.measures.get("average_precision", float("nan"))
        # The first few points jump between 0 and 1; a curve from 1 % recall on can be read.
        shown = recall >= 0.01
        label_of = f"{curve.name}: mean average precision {mean:.3f}"
        axes.plot(recall[shown], precision[shown], color=curve.colour, label=label_of)
    axes.axhline(label.mean(), color=_QUIET, linestyle=":", label=f"base rate {label.mean():.3f}")
    axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    axes.legend(frameon=False)
    return figure


def _reliability(label: Floats, score: Floats, title: str) -> Figure:
    figure, axes = _figure(title)
    known = ~np.isnan(score)
    label, score = label[known], score[known]
    parts = [part for part in np.array_split(np.argsort(score, kind="stable"), 10) if len(part)]
    said = np.array([score[part].mean() for part in parts])
    rate = np.array([label[part].mean() for part in parts])
    # The intervals are drawn around the realised rate; Wald's would reach zero width at rates of 0 and 1, Wilson's does not.
    low, high = wilson(rate, np.array([len(part) for part in parts], dtype=np.float64), z=_Z95)
    top = max(said.max(), high.max()) * 1.05
    axes.plot([0, top], [0, top], color=_QUIET, linestyle=":", label="perfect")
    axes.errorbar(
        said, rate, yerr=[np.maximum(rate - low, 0), np.maximum(high - rate, 0)], color=_MODEL, marker="o", capsize=3,
        label=f"tenths of rows ({len(label) // 10:,} each), 95 % interval",
    )  # fmt: skip
    axes.set(xlabel="score", ylabel="what happened (rate)", xlim=(0, top), ylim=(0, top))
    axes.legend(frameon=False, loc="upper left")
    return figure


def _gain(label: Floats, curves: Sequence[_Curve], title: str) -> Figure:
    figure, axes = _figure(title)
    share = np.arange(1, len(label) + 1) / len(label)
    for curve in curves:
        captured = np.cumsum(label[np.argsort(-curve.scores, kind="stable")]) / label.sum()
        tenth = captured[max(round(len(label) * 0.1) - 1, 0)]
        axes.plot(share, captured, color=curve.colour, label=f"{curve.name}: {tenth:.0%} in the top tenth")
    axes.plot([0, 1], [0, 1], color=_QUIET, linestyle=":")
    axes.set(xlabel="share of users, highest scores first", ylabel="share captured")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _deciles(label: Floats, score: Floats, title: str) -> Figure:
    figure, axes = _figure(title)
    parts = np.array_split(np.argsort(score, kind="stable"), 10)
    places = np.arange(1, 11)
    happened = np.array([label[part].mean() for part in parts])
    error = [_Z95 * label[part].std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else 0.0 for part in parts]
    axes.bar(places - 0.2, [score[part].mean() for part in parts], width=0.4, color=_QUIET, label="mean score")
    axes.bar(places + 0.2, happened, yerr=error, capsize=3, width=0.4, color=_MODEL, label="what happened, 95 % interval")
    axes.set(xlabel="tenth of rows by score", ylabel="amount", xticks=places)
    axes.legend(frameon=False)
    return figure
