"""A report: every number that is shown of a target's backtest, with its interval, beside the simple rules on the same rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from features.errors import GateError
from features.windows import words
from models.backtest import CHAMPION, DISJOINT, Backtest, Predicted
from models.bands import ScoreBand, amount_bands, coverage, score_bands
from models.gates import turned
from models.intervals import Interval, intervals, paired, pooled
from models.ladder import Rung
from models.metrics import main_measure
from models.propensity import Floats
from models.slices import Slice, slices, tenure_bands
from models.suspicion import suspicions

TENURE, STAGE = "known_days", "journey_stage"
# Users per origin whose contributions are looked at: the mean of so many is known well enough.
_EXPLAINED = 500
# Scores that are further from what happened at an origin, as a factor, are worth a word.
_LEVEL_OFF = 1.2
# With fewer at an origin, a bootstrap knows too little of how few there might have been.
_FEWEST_POSITIVES = 10
# By how much calibration has to have moved scores to be worth a word.
_CALIBRATED = 0.05
# Share of the bands that are as stated below which it is told; chance alone leaves nine of ten or more.
_AS_STATED = 0.6
# By how much the chances that scores tell may lie too near to each other, or too far apart, for sure.
_STEEP = 1.3


@dataclass(frozen=True)
class Report:
    """What is told of one target's test origins.

    `measures` and those of `baselines` are means over the origins, `at_origins` and `rules_at_origins` the same at each, `pooled`
    are of all their rows together; intervals are over users. `by_origin` has the bare values, with `users` and `positives`.
    `ahead` is by how much the score is better in `measure` than the best-known simple rule (`baseline`), and `memory` what it
    loses on users whom its training never saw; both are null where they cannot be told, or where the rule itself is used.
    `importance` has per origin the mean absolute contribution of each group of features.
    """

    measure: str
    baseline: Rung
    measures: Mapping[str, Interval]
    pooled: Mapping[str, Interval]
    baselines: Mapping[Rung, Mapping[str, Interval]]
    ladder: Mapping[Rung, Interval]
    ahead: Interval | None
    memory: Interval | None
    by_origin: Mapping[datetime, Mapping[str, float]]
    at_origins: Mapping[datetime, Mapping[str, Interval]]
    rules_at_origins: Mapping[Rung, Mapping[datetime, Mapping[str, Interval]]]
    bands: tuple[ScoreBand, ...]
    coverage: float
    slices: tuple[Slice, ...]
    warnings: tuple[str, ...]
    importance: Mapping[datetime, Mapping[str, float]]
    rows: int
    positives: int | None

    @property
    def over_origins(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest value of each measure at an origin, where several define it.

        Intervals tell how sure a mean is had other users come; how far the next weeks may lie from it shows from date to date.
        """
        found = pd.DataFrame(list(self.by_origin.values())).reindex(columns=list(self.measures)).dropna(axis="columns", thresh=2)
        return {str(name): (float(values.min()), float(values.max())) for name, values in found.items()}


def report(
    backtest: Backtest,
    rows: pd.DataFrame,
    *,
    by: Sequence[str],
    groups: Mapping[str, str],
    asked: Collection[str] = (),
    importance: Mapping[datetime, Mapping[str, float]],
    horizon: timedelta,
    seed: int,
) -> Report:
    """Measure a backtest, `rows` having the features of its rows (`user_id`, `cutoff`, `label`).

    `by` names columns to slice by, and `groups` says of each feature that the models read which story it tells; those in
    `asked` describe what the target itself asks about.
    """
    tested = backtest.tested.merge(rows.drop(columns="label"), on=["user_id", "cutoff"], validate="one_to_one")
    is_amount, contact = backtest.is_amount, backtest.contact
    measure = main_measure(is_amount=is_amount)
    own = intervals(tested, "score", is_amount=is_amount, contact=contact, seed=seed)
    baselines = {
        rung: intervals(tested, rung, is_amount=is_amount, contact=contact, seed=seed)
        for rung in backtest.baselines
        if rung != backtest.rung
    }
    ladder = {rung: intervals(tested, rung, is_amount=is_amount, seed=seed, only=[measure]).mean for rung in backtest.by_rung}
    groupings = {"tenure": tenure_bands(tested[TENURE])} if TENURE in tested else {}
    groupings |= {name: tested[name] for name in dict.fromkeys([STAGE, *by]) if name in tested}
    label, score, drift = (tested[name].to_numpy(dtype=np.float64) for name in ("label", "score", "drift"))
    users = tested.user_id.to_numpy()
    bands = amount_bands(label, score, users=users, seed=seed) if is_amount else score_bands(label, score, users=users, drift=drift)
    auc = own.mean.get("auc")
    together = pooled(tested, "score", is_amount=is_amount, seed=seed)
    return Report(
        measure=measure,
        baseline=backtest.baseline,
        measures=own.mean,
        pooled=together,
        baselines={rung: found.mean for rung, found in baselines.items()},
        ladder={rung: found[measure] for rung, found in ladder.items() if measure in found},
        ahead=_ahead(backtest, tested, measure, seed=seed),
        memory=_difference(backtest, tested, DISJOINT, backtest.rung, measure, seed=seed)
        if DISJOINT in tested and not is_amount
        else None,
        by_origin=backtest.by_origin(),
        at_origins=own.by_origin,
        rules_at_origins={rung: found.by_origin for rung, found in baselines.items()},
        bands=tuple(bands),
        coverage=coverage(bands),
        slices=tuple(slices(tested, "score", groupings, is_amount=is_amount, seed=seed)),
        warnings=(
            *suspicions(tested, groups, asked, auc.value if auc else None),
            *_nearly_one(tested, horizon),
            *_uncalibrated(backtest),
            *([] if is_amount else _not_as_stated(bands)),
            *_too_timid_or_bold(together.get("calibration_slope")),
            *_level_off(tested, own.by_origin, backtest),
        ),
        importance=importance,
        rows=len(tested),
        positives=None if is_amount else int(label.sum()),
    )


def _ahead(backtest: Backtest, tested: pd.DataFrame, measure: str, *, seed: int) -> Interval | None:
    if backtest.rung == backtest.baseline:
        return None
    found = _difference(backtest, tested, "score", backtest.baseline, measure, seed=seed)
    return None if found is None else turned(found, measure)


def _nearly_one(tested: pd.DataFrame, horizon: timedelta) -> list[str]:
    """Say that origins look at nearly the same weeks, where they lie much nearer to each other than they look ahead."""
    origins, span = tested.cutoff.nunique(), tested.cutoff.max() - tested.cutoff.min()
    if origins < 2 or span >= horizon / 2:
        return []
    return [
        f"its {origins} test origins lie within {words(span.to_pytimedelta())} and look {words(horizon)} ahead: nearly one test, "
        f"of {tested.user_id.nunique():,} users; how far other months may lie from it, neither intervals nor bands know"
    ]


def _uncalibrated(backtest: Backtest) -> list[str]:
    count, tests = len(backtest.uncalibrated), backtest.tested.cutoff.nunique()
    said = f"at {count} of {tests} test origins too few earlier ones had elapsed to calibrate the level of scores on"
    return [said] if count else []


def _not_as_stated(bands: Sequence[ScoreBand]) -> list[str]:
    count, stated = len(bands), round(coverage(bands) * len(bands)) if bands else 0
    said = f"in {stated} of {count} score bands what happened lies within what was stated: read scores as an order, not as chances"
    return [said] if stated < _AS_STATED * count else []


def _too_timid_or_bold(slope: Interval | None) -> list[str]:
    """Say that high and low chances are further apart than scores say, or nearer, where that is much and for sure."""
    # Where it falls there is no order to speak of.
    if slope is None or slope.value <= 0 or (slope.low <= _STEEP and slope.high >= 1 / _STEEP):
        return []
    is_timid = slope.value > 1
    return [
        f"scores are too {'timid' if is_timid else 'bold'}: what happened lies {slope.value:.2f} times as far apart, in log-odds "
        f"({slope.low:.2f} to {slope.high:.2f}); their order holds, and high chances are {'higher' if is_timid else 'lower'}"
    ]


def _level_off(tested: pd.DataFrame, at_origins: Mapping[datetime, Mapping[str, Interval]], backtest: Backtest) -> list[str]:
    """Say at which origin scores were furthest from what happened, where that is far for sure: over origins it may cancel."""
    worst, most = "", _LEVEL_OFF
    for origin, rows in tested.groupby("cutoff"):
        found = at_origins[origin.to_pydatetime()]
        happened = found.get("base_rate") or found.get("mean_label")
        if happened is None or happened.low <= 0 or not rows.score.mean() > 0:
            continue
        if not backtest.is_amount and rows.label.sum() < _FEWEST_POSITIVES:
            continue
        ratios = [rows.score.mean() / bound for bound in (happened.value, happened.high, happened.low)]
        # By the bound that is nearer to being right.
        off = max(ratios[1], 1 / ratios[2])
        if off > most:
            most = off
            worst = f"at {origin:%Y-%m-%d} scores were {ratios[0]:.2f} times what happened ({ratios[1]:.2f} to {ratios[2]:.2f})"
            raw = rows[backtest.rung].mean() / happened.value
            worst += f", before calibration {raw:.2f} times" if abs(raw / ratios[0] - 1) > _CALIBRATED else ""
    return [f"{worst}: look for what the origins before had not shown, such as a season or an offer"] if worst else []


def against_champion(backtest: Backtest, measure: str, *, confidence: float, seed: int) -> Interval | None:
    """Give challenger less champion in a measure, on the same origins and users; None where it is not defined or not known.

    At an origin for which the champion's recipe had too little to learn from, neither is asked.
    """
    tested = backtest.tested
    both = tested[tested[CHAMPION].notna()] if CHAMPION in tested else tested
    return _difference(backtest, both, "score", CHAMPION, measure, seed=seed, confidence=confidence)


def importances(
    predicted: Sequence[Predicted], rows: pd.DataFrame, backtest: Backtest, groups: Mapping[str, str], *, seed: int
) -> dict[datetime, dict[str, float]]:
    """Give per test origin the mean absolute contribution of each group of features, by the model that was tested there.

    Of 500 rows of an origin, drawn by `seed`; none where the model reads nothing.
    """
    found = {}
    for part in predicted:
        if backtest.rung not in part.models or part.rows.empty or not part.rows.is_test.any():
            continue
        model, cutoff = part.models[backtest.rung], part.rows.cutoff.iloc[0]
        if not model.features:
            continue
        here = rows[rows.cutoff == cutoff]
        values = model.contributions(here.sample(min(len(here), _EXPLAINED), random_state=seed))
        found[cutoff.to_pydatetime()] = by_group(values, [groups[name] for name in model.features])
    return found


def by_group(values: Floats, groups: Sequence[str]) -> dict[str, float]:
    """Give the mean absolute summed contribution of each group, largest first; `values` is rows × features.

    >>> by_group(np.array([[1.0, -2.0, 0.5]]), ["spend", "spend", "gap"])
    {'spend': 1.0, 'gap': 0.5}
    """
    names = np.asarray(groups)
    found = {str(name): float(np.abs(values[:, names == name].sum(axis=1)).mean()) for name in sorted(set(groups))}
    return dict(sorted(found.items(), key=lambda told: -told[1]))


def _difference(
    backtest: Backtest, tested: pd.DataFrame, column: str, against: str, measure: str, *, seed: int, confidence: float = 0.95
) -> Interval | None:
    if column == against or against not in tested or tested[against].isna().any() or tested[column].isna().any():
        return None
    try:
        found = paired(tested, column, against, is_amount=backtest.is_amount, measure=measure, seed=seed, confidence=confidence)
    except GateError:
        return None
    return found if np.isfinite(found.value) else None
