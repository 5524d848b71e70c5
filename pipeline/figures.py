"""Figures of a target's test origins: whether it is right, whether it is honest, and what moves it."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
import shap
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from models.propensity import Floats

_MODEL, _BASE, _QUIET = "#1f5fa8", "#c2571a", "#9a9a9a"
_Z95 = 1.96


def target_figures(
    tested: pd.DataFrame, measures: Mapping[str, float], baseline: Mapping[str, float], *, title: str, is_amount: bool
) -> dict[str, Figure]:
    """Draw the figures of pooled test origins (`label`, `score`, `baseline`); `measures` are the means over origins."""
    label, score, base = (tested[name].to_numpy(dtype=np.float64) for name in ("label", "score", "baseline"))
    where = f"{tested.cutoff.nunique()} test origins, {len(tested):,} rows"
    if is_amount:
        return {"deciles": _deciles(label, score, f"{title}\n{where}"), "gain": _gain(label, score, base, f"{title}\n{where}")}
    where += f", {int(label.sum()):,} positive"
    return {
        "roc": _roc(label, score, base, measures, baseline, f"{title}\n{where}"),
        "precision_recall": _precision_recall(label, score, base, measures, baseline, f"{title}\n{where}"),
        "reliability": _reliability(label, score, f"{title}\n{where}"),
        "gain": _gain(label, score, base, f"{title}\n{where}"),
    }


def beeswarm(values: Floats, x: pd.DataFrame, *, title: str) -> Figure:
    """Draw SHAP values (users × features, before calibration) of a sample of users."""
    # The plot draws on pyplot's current figure, so the backend is set here, where it is needed.
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")
    explanation = shap.Explanation(values=values, data=x.to_numpy(), feature_names=list(x.columns))
    shap.plots.beeswarm(explanation, max_display=15, show=False, plot_size=(10, 7))
    figure = pyplot.gcf()
    figure.axes[0].set_title(f"{title}\nwhat moves the score, {len(x):,} users", fontsize=11)
    figure.tight_layout()
    return figure


def _figure(title: str) -> tuple[Figure, matplotlib.axes.Axes]:
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _roc(
    label: Floats, score: Floats, base: Floats, measures: Mapping[str, float], baseline: Mapping[str, float], title: str
) -> Figure:
    figure, axes = _figure(title)
    for values, found, colour, name in ((score, measures, _MODEL, "LightGBM"), (base, baseline, _BASE, "RFM baseline")):
        false_rate, true_rate, _ = roc_curve(label, values)
        axes.plot(false_rate, true_rate, color=colour, label=f"{name}: mean AUC {found.get('auc', float('nan')):.3f}")
    axes.plot([0, 1], [0, 1], color=_QUIET, linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _precision_recall(
    label: Floats, score: Floats, base: Floats, measures: Mapping[str, float], baseline: Mapping[str, float], title: str
) -> Figure:
    figure, axes = _figure(title)
    for values, found, colour, name in ((score, measures, _MODEL, "LightGBM"), (base, baseline, _BASE, "RFM baseline")):
        precision, recall, _ = precision_recall_curve(label, values)
        mean = found.get("average_precision", float("nan"))
        # The first few points jump between 0 and 1; a curve from 1 % recall on can be read.
        shown = recall >= 0.01
        axes.plot(recall[shown], precision[shown], color=colour, label=f"{name}: mean average precision {mean:.3f}")
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
    low, high = np.array([_wilson(label[part].sum(), len(part)) for part in parts]).T
    top = max(said.max(), high.max()) * 1.05
    axes.plot([0, top], [0, top], color=_QUIET, linestyle=":", label="perfect")
    axes.errorbar(
        said, rate, yerr=[np.maximum(rate - low, 0), np.maximum(high - rate, 0)], color=_MODEL, marker="o", capsize=3,
        label=f"tenths of rows ({len(label) // 10:,} each), 95 % interval",
    )  # fmt: skip
    axes.set(xlabel="score", ylabel="what happened (rate)", xlim=(0, top), ylim=(0, top))
    axes.legend(frameon=False, loc="upper left")
    return figure


def _gain(label: Floats, score: Floats, base: Floats, title: str) -> Figure:
    figure, axes = _figure(title)
    share = np.arange(1, len(label) + 1) / len(label)
    for values, colour, name in ((score, _MODEL, "LightGBM"), (base, _BASE, "RFM baseline")):
        captured = np.cumsum(label[np.argsort(-values, kind="stable")]) / label.sum()
        tenth = captured[max(round(len(label) * 0.1) - 1, 0)]
        axes.plot(share, captured, color=colour, label=f"{name}: {tenth:.0%} in the top tenth")
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


def _wilson(positives: float, total: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a rate, 95 %."""
    rate, z2 = positives / total, _Z95**2
    centre = (rate + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total) * np.sqrt(rate * (1 - rate) / total + z2 / (4 * total**2))
    return float(centre - half), float(centre + half)
