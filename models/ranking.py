"""A ranking under many draws of weights: sorted once, then three curves that run down it (rows, labels and scores so far).

The curves bend only where the score changes, and a cut through tied scores takes its share of each: nothing that is read off them
depends on the order in which tied rows came.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from features.errors import DataError
from models.propensity import Floats

# Weights measured at once, of as many draws as fit, but at least one. Arrays of 2 MB stay in the processor's cache: twice as fast
# as arrays of 16 MB.
CHUNK = 250_000
_EDGE = 1e-6
# Newton's steps, in standard deviations of the log-odds: after one shorter than `_NEAR`, what is left is about its square.
_STEPS, _NEAR, _LONGEST = 40, 1e-3, 2.0


@dataclass(frozen=True)
class Ranking:
    """Rows from the highest score to the lowest: `order` are their places before, `ends` where each group of tied scores ends."""

    order: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]
    label: Floats
    score: Floats

    @property
    def is_probable(self) -> bool:
        """Whether the scores can be probabilities at all."""
        return bool(self.score[0] <= 1 and self.score[-1] >= 0)

    @cached_property
    def log_loss(self) -> Floats:
        """Minus the logarithm of the probability given to what happened, of each row."""
        score = np.clip(self.score, _EDGE, 1 - _EDGE)
        return np.asarray(-np.log(np.where(self.label > 0, score, 1 - score)))

    @cached_property
    def log_odds(self) -> Floats:
        """Log-odds of the scores."""
        return np.asarray(logit(np.clip(self.score, _EDGE, 1 - _EDGE)))

    @cached_property
    def recalibration(self) -> Floats:
        """Intercept and slope of all rows, where draws begin their search."""
        start = np.array([logit(np.clip(self.label.mean(), _EDGE, 1 - _EDGE)), 0.0])
        found = recalibrated(self.log_odds, self.label, np.ones((1, len(self.label))), start=start)
        return found.reshape(2)

    @cached_property
    def by_label(self) -> "Ranking":
        """The best ranking there could have been, of this one's rows."""
        return rank(self.label, self.label)


def rank(label: Floats, score: Floats) -> Ranking:
    """Sort rows (at least one) by falling score.

    Raises DataError when the two differ in length, or hold nulls or infinities.
    """
    label, score = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if label.shape != score.shape:
        raise DataError(f"{len(label)} labels were met with {len(score)} scores: give one of each a row")
    for what, values in (("labels", label), ("scores", score)):
        if bad := int(np.sum(~np.isfinite(values))):
            raise DataError(f"{bad} of {len(values)} {what} are null or infinite: leave out the rows that cannot be measured")
    order = np.argsort(-score, kind="stable")
    down = score[order]
    ends = np.append(np.flatnonzero(down[1:] != down[:-1]) + 1, len(down))
    return Ranking(order, ends, label[order], down)


@dataclass(frozen=True)
class Drawn:
    """A ranking under draws of weights: `weights` has one row a draw and one column a row of the ranking, in its order."""

    ranking: Ranking
    weights: Floats

    @cached_property
    def rows(self) -> Floats:
        """Weight down to the end of each group of ties, from 0 to all: draws × (groups + 1), as are the other curves."""
        return self._curve(self.weights)

    @cached_property
    def labels(self) -> Floats:
        """Labels down to the end of each group."""
        return self._curve(self.weights * self.ranking.label)

    @cached_property
    def scores(self) -> Floats:
        """Scores down to the end of each group."""
        return self._curve(self.weights * self.ranking.score)

    @cached_property
    def recalibration(self) -> Floats:
        """Intercept and slope of each draw."""
        return recalibrated(self.ranking.log_odds, self.ranking.label, self.weights, start=self.ranking.recalibration)

    @property
    def best(self) -> "Drawn":
        """The same draws of the best ranking there could have been."""
        return Drawn(self.ranking.by_label, self.weights[:, self.ranking.by_label.order])

    @property
    def total(self) -> Floats:
        """Weight of each draw."""
        return self.rows[:, -1]

    def mean(self, values: Floats) -> Floats:
        """Mean over a draw of what each row of the ranking has."""
        return np.asarray(np.einsum("dr,r->d", self.weights, values)) / self.total

    def at(self, curve: Floats, cut: Floats) -> Floats:
        """Height of a curve where the weight down to there is `cut` (draws × cuts)."""
        return np.stack([np.interp(*draw) for draw in zip(cut, self.rows, curve, strict=True)])

    def _curve(self, values: Floats) -> Floats:
        curve = np.zeros((len(values), len(self.ranking.ends) + 1))
        if len(self.ranking.ends) == values.shape[1]:
            np.cumsum(values, axis=1, out=curve[:, 1:])
        else:
            curve[:, 1:] = np.cumsum(values, axis=1)[:, self.ranking.ends - 1]
        return curve


def recalibrated(log_odds: Floats, label: Floats, weights: Floats, *, start: Floats) -> Floats:
    """Fit, for each draw of weights, a logistic curve of the label on the log-odds: draws × (intercept, slope).

    Newton's method from `start` (intercept, slope). Null where the likelihood has no highest point: one class, one score, or
    classes that do not overlap.
    """
    spread = float(log_odds.std())
    if spread < _EDGE or not np.isfinite(start).all():
        return np.full((len(weights), 2), np.nan)
    middle = float(log_odds.mean())
    x = (log_odds - middle) / spread
    powers = np.column_stack([np.ones(len(x)), x, x**2])
    found = np.tile([start[0] + start[1] * middle, start[1] * spread], (len(weights), 1))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for step in range(_STEPS):
            # All draws begin at one place, so that the first step needs one curve for all.
            rate = expit(found[0, 0] + found[0, 1] * x) if step == 0 else expit(found[:, :1] + found[:, 1:] * x)
            g0, g1 = _sums(weights, label - rate, powers[:, :2])
            h0, h1, h2 = _sums(weights, rate * (1 - rate), powers)
            moved = np.column_stack([h2 * g0 - h1 * g1, h0 * g1 - h1 * g0]) / (h0 * h2 - h1**2)[:, None]
            length = np.abs(moved).max(axis=1, keepdims=True)
            # From far away Newton's own step may overshoot, and go back and forth for ever.
            found = found + moved * np.minimum(1.0, _LONGEST / length)
            if np.all((length < _NEAR) | np.isnan(length)):
                break
    found[~(length[:, 0] < _NEAR)] = np.nan
    return np.column_stack([found[:, 0] - found[:, 1] * middle / spread, found[:, 1] / spread])


def _sums(weights: Floats, values: Floats, powers: Floats) -> Floats:
    """Sum values (of each row, or of each draw and row) times each power: powers × draws."""
    return (weights @ (values[:, None] * powers) if values.ndim == 1 else (weights * values) @ powers).T
