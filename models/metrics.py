"""Measures of a score against what happened, of one table of rows or of many bootstrap draws of it at once.

A measure that is not defined (one class only, nothing bought) is left out. None depends on the order of rows: where a cut runs
through tied scores, the tied rows count by their share above it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import xlogy

from models.propensity import Floats
from models.ranking import CHUNK, Drawn, Ranking, rank

PERCENTS = (1, 5, 10, 20)
# Sums of distances, which noise makes too large.
DISTANCES = ("expected_calibration_error", "decile_total_error")
_TENTHS = 10
_LEAST = 1e-6

Measure = Callable[[Drawn], Floats]


# What amounts are judged by is small for means: the absolute error is smallest for the median, which may be nothing at all, and a
# squared error asks the few who spend most.
AMOUNT_MEASURE = "poisson_deviance"


def main_measure(*, is_amount: bool) -> str:
    """Name the measure that rungs are chosen by and that is told first."""
    return AMOUNT_MEASURE if is_amount else "average_precision"


@dataclass(frozen=True)
class Contact:
    """How many users can be contacted, what it is worth to contact one whose label is 1, and what one contact costs."""

    capacity: int | None = None
    value: float | None = None
    cost: float = 0.0


def measures(label: Floats, score: Floats, *, is_amount: bool, contact: Contact | None = None) -> dict[str, float]:
    """Give every measure that is defined for the kind of target, with `users` (rows) first.

    `label` is 0 or 1, or an amount; the measures of a probability's size are given only where all scores lie within 0 and 1.
    With a `contact` of a probability, `precision_at_capacity` and `expected_profit` are given too, of one class as well.

    Raises DataError when a label or a score is null or infinite.
    """
    found = {"users": float(len(label))} | ({} if is_amount else {"positives": float(np.sum(label))})
    if len(label) == 0:
        return found
    drawn = measures_drawn(rank(label, score), np.ones((1, len(label))), is_amount=is_amount, contact=contact)
    return found | {name: float(values[0]) for name, values in drawn.items() if not np.isnan(values[0])}


def measures_drawn(
    ranking: Ranking,
    weights: Floats,
    *,
    is_amount: bool,
    contact: Contact | None = None,
    only: Collection[str] | None = None,
    in_parts: bool = False,
) -> dict[str, Floats]:
    """Give the measures (or only those named) of each draw: an array of draws, null where not defined.

    `weights` are draws × rows, in the order of the ranking, and not negative; a draw of ones gives what `measures` gives. With
    `in_parts`, a measure that adds up distances comes as these, signed: draws × tenths.
    """
    table = _of_amounts() if is_amount else _of_probabilities(ranking, contact)
    wanted = {name: measure for name, measure in table.items() if only is None or name in only}
    step = max(CHUNK // len(ranking.label), 1)
    chunks = [np.asarray(weights[start : start + step], dtype=np.float64) for start in range(0, len(weights), step)]
    parts = [_measured(Drawn(ranking, chunk), wanted) for chunk in chunks]
    found = {name: np.concatenate([part[name] for part in parts]) for name in wanted}
    return found if in_parts else {name: added_up(values) if name in DISTANCES else values for name, values in found.items()}


def added_up(parts: Floats) -> Floats:
    """Give the measure that signed distances (the last axis) are the parts of."""
    return np.asarray(np.abs(parts).sum(axis=-1))


def _measured(drawn: Drawn, wanted: Mapping[str, Measure]) -> dict[str, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {name: measure(drawn) for name, measure in wanted.items()}
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}


def _of_probabilities(ranking: Ranking, contact: Contact | None) -> dict[str, Measure]:
    table: dict[str, Measure] = {"auc": auc, "average_precision": average_precision}
    if ranking.is_probable:
        table |= {
            "log_loss": lambda drawn: drawn.mean(drawn.ranking.log_loss),
            "brier": lambda drawn: drawn.mean((drawn.ranking.label - drawn.ranking.score) ** 2),
            "expected_calibration_error": calibration_error,
            "calibration_slope": calibration_slope,
            "calibration_intercept": calibration_intercept,
        }
    table |= {f"lift_{percent}pct": partial(top_lift, share=percent / 100) for percent in PERCENTS}
    table |= {f"captured_{percent}pct": partial(top_captured, share=percent / 100) for percent in PERCENTS}
    table["base_rate"] = mean_label
    table = {name: _of_two_classes(measure) for name, measure in table.items()}
    if contact is not None and contact.capacity is not None:
        table["precision_at_capacity"] = partial(precision_at, capacity=contact.capacity)
    if contact is not None and contact.value is not None:
        table["expected_profit"] = partial(profit, value=contact.value, cost=contact.cost, capacity=contact.capacity)
    return table


def _of_amounts() -> dict[str, Measure]:
    return {
        AMOUNT_MEASURE: lambda drawn: drawn.mean(poisson_deviance(drawn.ranking.label, drawn.ranking.score)),
        "mean_absolute_error": lambda drawn: drawn.mean(np.abs(drawn.ranking.label - drawn.ranking.score)),
        "root_mean_squared_error": lambda drawn: np.sqrt(drawn.mean((drawn.ranking.label - drawn.ranking.score) ** 2)),
        "mean_label": mean_label,
        "total_error": lambda drawn: drawn.scores[:, -1] / _bought(drawn) - 1,
        "gini": normalised_gini,
        "rmsle": rmsle,
        "decile_total_error": lambda drawn: _tenths_off(drawn) / _bought(drawn)[:, None],
    }


def _of_two_classes(measure: Measure) -> Measure:
    def defined(drawn: Drawn) -> Floats:
        positives, values = drawn.labels[:, -1], measure(drawn)
        has_both = (positives > 0) & (positives < drawn.total)
        return np.where(has_both if values.ndim == 1 else has_both[:, None], values, np.nan)

    return defined


def auc(drawn: Drawn) -> Floats:
    """Chance that a positive has a higher score than a negative, a tie counting half (Hanley and McNeil, 1982)."""
    negatives = drawn.rows - drawn.labels
    below = negatives[:, -1:] - (negatives[:, 1:] + negatives[:, :-1]) / 2
    won = _products(np.diff(drawn.labels, axis=1), below)
    return won / (drawn.labels[:, -1] * negatives[:, -1])


def average_precision(drawn: Drawn) -> Floats:
    """Mean, over positives, of the precision down to each one's score, ties included."""
    rows = drawn.rows[:, 1:]
    precision = np.divide(drawn.labels[:, 1:], rows, out=np.zeros_like(rows), where=rows > 0)
    return _products(np.diff(drawn.labels, axis=1), precision) / drawn.labels[:, -1]


def calibration_error(drawn: Drawn) -> Floats:
    """Expected calibration error, in parts: by how much a tenth's realised rate is above its mean score, over tenths of the rows.

    Guo et al. (2017), with bins of equal size, since most scores of a rare target fall into one bin of equal width.
    """
    return _tenths_off(drawn) / drawn.total[:, None]


def calibration_slope(drawn: Drawn) -> Floats:
    """Slope of a logistic regression of the label on the log-odds of the score; 1 is right, less is overconfident (Cox, 1958)."""
    return drawn.recalibration[:, 1]


def calibration_intercept(drawn: Drawn) -> Floats:
    """Intercept of the same regression; 0 is right where the slope is 1 (Cox, 1958; Steyerberg, 2009)."""
    return drawn.recalibration[:, 0]


def top_captured(drawn: Drawn, *, share: float) -> Floats:
    """Share of the positives that is found in the top share of rows: whole rows, but at least one."""
    return drawn.at(drawn.labels, _top(drawn, share)[:, None])[:, 0] / drawn.labels[:, -1]


def top_lift(drawn: Drawn, *, share: float) -> Floats:
    """Rate in the top share of rows over the overall rate."""
    return top_captured(drawn, share=share) * drawn.total / _top(drawn, share)


def precision_at(drawn: Drawn, *, capacity: int) -> Floats:
    """Rate among the `capacity` rows of the highest scores, or all when there are fewer."""
    cut = np.minimum(float(capacity), drawn.total)
    return drawn.at(drawn.labels, cut[:, None])[:, 0] / cut


def profit(drawn: Drawn, *, value: float, cost: float, capacity: int | None) -> Floats:
    """Mean profit a row, when those are contacted whose score × value exceeds the cost, the highest first, up to `capacity`.

    Each one contacted costs `cost` and brings `value` where the label is 1; the others bring and cost nothing.
    """
    worth = drawn.rows[:, np.searchsorted(drawn.ranking.ends, np.sum(drawn.ranking.score * value > cost), side="right")]
    contacted = worth if capacity is None else np.minimum(worth, float(capacity))
    return (value * drawn.at(drawn.labels, contacted[:, None])[:, 0] - cost * contacted) / drawn.total


def mean_label(drawn: Drawn) -> Floats:
    """Realised rate, or mean amount."""
    return drawn.labels[:, -1] / drawn.total


def rmsle(drawn: Drawn) -> Floats:
    """Root mean squared error of log(1 + amount), amounts below zero counting as zero."""
    label, score = (np.log1p(np.maximum(values, 0.0)) for values in (drawn.ranking.label, drawn.ranking.score))
    return np.sqrt(drawn.mean((label - score) ** 2))


def normalised_gini(drawn: Drawn) -> Floats:
    """Gini of the amounts captured in order of score, over that of the best order; not defined where all amounts are equal."""
    best = _captured_early(drawn.best)
    return np.where(best > 1e-12, _captured_early(drawn) / best, np.nan)


def poisson_deviance(label: Floats, score: Floats) -> Floats:
    """Give the deviance of each row, amounts below zero counting as zero: over rows, means make it small, not medians."""
    spent, said = np.maximum(label, 0.0), np.maximum(score, _LEAST)
    return np.asarray(2 * (xlogy(spent, spent / said) - spent + said))


def _top(drawn: Drawn, share: float) -> Floats:
    return np.minimum(np.maximum(np.round(drawn.total * share), 1.0), drawn.total)


def _tenths_off(drawn: Drawn) -> Floats:
    cuts = drawn.total[:, None] * np.linspace(0, 1, _TENTHS + 1)
    return np.asarray(np.diff(drawn.at(drawn.labels, cuts) - drawn.at(drawn.scores, cuts), axis=1))


def _bought(drawn: Drawn) -> Floats:
    bought = drawn.labels[:, -1]
    return np.where(bought > 0, bought, np.nan)


def _captured_early(drawn: Drawn) -> Floats:
    captured = (drawn.labels[:, 1:] + drawn.labels[:, :-1]) / 2
    return _products(captured, np.diff(drawn.rows, axis=1)) / (drawn.total * _bought(drawn)) - 0.5


def _products(left: Floats, right: Floats) -> Floats:
    """Sum the products of each draw."""
    return np.asarray(np.einsum("dg,dg->d", left, right))
