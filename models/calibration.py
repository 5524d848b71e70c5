"""Calibration: make a score of 0.2 mean that it happens to 20 of 100, fitted on predictions out of time only.

none < shrunk < platt < beta < isotonic: the simplest that does as well as the best on a block of time left out of its fit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from math import isfinite
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq, isotonic_regression
from scipy.special import expit, logit, xlog1py, xlogy

from models.metrics import poisson_deviance
from models.propensity import Floats

_EDGE = 1e-6
# How far an isotonic curve goes on past its outer points, as a share of what is left to 0 or 1: it keeps the ranking there.
_TAIL = 0.05
_MOST_STEPS = 100
# In log-odds; a level never lies further off.
_FURTHEST = 20.0
_MOST_SCORES = 10_000
# Standard errors by which a map must be better than a simpler one: blocks are few and near each other. Amounts are moved by one
# number alone.
_ERRORS, _ERRORS_OF_AMOUNTS = 2.0, 1.0

MINIMUM_OF_EACH_CLASS = 30
# One alone cannot say what helps on another.
FEWEST_BLOCKS = 2


@dataclass(frozen=True)
class Calibrator:
    """A monotone map from raw scores to calibrated ones, in plain numbers: `Calibrator(**asdict(map))` is the same map.

    `shrunk` is a `platt` that makes scores less bold: its slope is below 1.
    `platt` is a logistic curve on the log-odds (Platt, 1999): logit p = slope * logit s + intercept.
    `beta` bends both ends on their own (Kull, Silva Filho and Flach, 2017):
    logit p = slope * ln s - upper_slope * ln(1 - s) + intercept.
    `isotonic` joins the points (x, y) by straight lines; both rise.
    `scale` multiplies amounts by slope; `none` changes nothing.

    Raises ValueError when the map would fall, or its numbers are no map of that method.
    """

    method: Literal["none", "shrunk", "platt", "beta", "isotonic", "scale"] = "none"
    slope: float = 1.0
    intercept: float = 0.0
    upper_slope: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        # JSON has lists only.
        object.__setattr__(self, "x", tuple(self.x))
        object.__setattr__(self, "y", tuple(self.y))
        if not self._rises():
            raise ValueError(f"no rising {self.method} map: {self}. Slopes are above 0, points rise in x and never fall in y")

    def __call__(self, raw: Floats) -> Floats:
        """Give calibrated scores of the same shape as `raw`; what is unknown (NaN) stays unknown."""
        match self.method:
            case "shrunk" | "platt":
                return np.asarray(expit(self.slope * logit(_inside(raw)) + self.intercept))
            case "beta":
                low, high = _beta_columns(_inside(raw))
                return np.asarray(expit(self.slope * low + self.upper_slope * high + self.intercept))
            case "isotonic":
                return self._between(raw)
            case "scale":
                return raw * self.slope
            case "none":
                return raw

    @property
    def bends(self) -> bool:
        """Whether it is a curve, which is set around the scores that it is used for."""
        return self.method not in ("none", "scale")

    def around(self, raw: Floats, weights: Floats | None = None, *, mean: float | None = None) -> "Calibrator":
        """Give this curve as it bends those raw scores and leaves their mean: it is moved up or down on the scale of log-odds.

        With a `mean`, it gives them that one. What scales or changes nothing is the same for all, and so is a curve where no score
        is known.
        """
        known = np.isfinite(raw)
        if not self.bends or not known.any():
            return self
        raw, weights = raw[known], None if weights is None else weights[known]

        def moved(step: float) -> Calibrator:
            if self.method == "isotonic":
                return replace(self, y=tuple(expit(logit(np.array(self.y)) + step).tolist()))
            return replace(self, intercept=self.intercept + step)

        wanted = raw if mean is None else mean

        def above(step: float) -> float:
            return float(np.average(moved(step)(raw) - wanted, weights=weights))

        return moved(brentq(above, -_FURTHEST, _FURTHEST)) if above(-_FURTHEST) < 0 < above(_FURTHEST) else self

    def _between(self, raw: Floats) -> Floats:
        x, y = np.array(self.x), np.array(self.y)
        within = np.clip(raw, x[0], x[-1])
        right = np.clip(np.searchsorted(x, within, "right"), 1, len(x) - 1)
        left = right - 1
        found = y[left] + (within - x[left]) / (x[right] - x[left]) * (y[right] - y[left])
        # Rounding may overshoot the next point by one digit, and the curve would fall there; np.interp does not care.
        return np.asarray(np.minimum(found, y[right]))

    def _rises(self) -> bool:
        finite = all(isfinite(value) for value in (self.slope, self.intercept, self.upper_slope, *self.x, *self.y))
        match self.method:
            case "none":
                return finite
            case "shrunk" | "platt" | "scale":
                return finite and self.slope > 0
            case "beta":
                return finite and min(self.slope, self.upper_slope) >= 0 and max(self.slope, self.upper_slope) > 0
            case "isotonic":
                rising = all(a < b for a, b in pairwise(self.x)) and all(a <= b for a, b in pairwise(self.y))
                return finite and rising and len(self.x) == len(self.y) >= 2 and self.y[0] >= 0 and self.y[-1] <= 1
            case _:
                return False


def fit_calibrator(
    raw: Floats, label: Floats, *, is_amount: bool, blocks: npt.NDArray[Any] | None = None, horizon: timedelta = timedelta(0)
) -> Calibrator:
    """Fit on pairs of an out-of-time raw score and what happened; `blocks` tells the cutoff that each pair is of.

    Pairs with an unknown score or label are left out. Amounts are scaled to the total that was seen where that helps on blocks
    left out, by more than one standard error of Poisson's deviance. A probability is left as it is (`none`) with fewer than 30 of
    either class, where all raw scores are equal, and where higher scores do not mean more. One block cannot say whether its level
    is that of another, and blocks whose `horizon` overlaps are one: they may only shrink. Else `none`, `shrunk`, `platt`, `beta`
    (from 100 of each class: one more number to learn) and `isotonic` (from 500 of each: below about 1,000 pairs it learns noise,
    Niculescu-Mizil and Caruana, 2005) are each fitted without one block and those that overlap it, and measured by log loss on it,
    block by block. The simplest wins that is within two standard errors of the best (Breiman et al., 1984, took one); the error is
    that of the paired differences, since blocks differ more than maps do. Of a curve half is used: how bold scores should be holds
    for later dates in part. Their level does not: it leaves the mean of what it bends as it was (see `Calibrator.around`, and
    decisions 105 and 106).
    """
    raw, label = np.asarray(raw, dtype=float), np.asarray(label, dtype=float)
    known = np.isfinite(raw) & np.isfinite(label)
    raw, label = raw[known], label[known]
    names = np.zeros(len(raw)) if blocks is None else np.asarray(blocks)[known]
    numbers, cutoffs = pd.factorize(names, use_na_sentinel=False)
    apart = [[at for at, other in enumerate(cutoffs) if _are_apart(cutoff, other, horizon)] for cutoff in cutoffs]
    if is_amount:
        return _scaled(raw, label, numbers, apart)
    if min(label.sum(), (1 - label).sum()) < MINIMUM_OF_EACH_CLASS:
        return Calibrator()
    told = _gathered(raw, label, numbers)
    everything = _joined(told)
    if _platt(everything).method == "none":
        return Calibrator()
    others = {at: _joined([told[other] for other in rest]) for at, rest in enumerate(apart) if rest}
    if len(others) < FEWEST_BLOCKS:
        return everything.level(_halfway(_shrunk(everything)))
    candidates = [fit for fewest, fit in _LADDER if everything.fewest >= fewest]
    losses = [[_log_loss(told[at], told[at].level(fit(rest))) for fit in candidates] for at, rest in others.items()]
    return everything.level(_halfway(candidates[_simplest(np.array(losses), errors=_ERRORS)](everything)))


def _are_apart(one: Any, other: Any, horizon: timedelta) -> bool:
    """Whether what is seen of two blocks shares no time; a block is not apart from itself."""
    return bool(one != other and (not horizon or abs(pd.Timestamp(one) - pd.Timestamp(other)) >= horizon))


def _scaled(raw: Floats, label: Floats, block: npt.NDArray[np.intp], apart: list[list[int]]) -> Calibrator:
    def scale(rows: npt.NDArray[np.bool_]) -> float:
        total, spent = float(raw[rows].sum()), float(label[rows].sum())
        return spent / total if total > 0 and spent > 0 else 1.0

    def loss(rows: npt.NDArray[np.bool_], slope: float) -> float:
        return float(poisson_deviance(label[rows], slope * raw[rows]).mean())

    parts = {at: (block == at, np.isin(block, rest)) for at, rest in enumerate(apart) if rest}
    if len(parts) < FEWEST_BLOCKS:
        return Calibrator()
    losses = np.array([[loss(part, 1.0), loss(part, scale(rest))] for part, rest in parts.values()])
    everything = np.ones(len(raw), dtype=bool)
    return Calibrator("scale", slope=scale(everything)) if _simplest(losses, errors=_ERRORS_OF_AMOUNTS) == 1 else Calibrator()


def mended(raw: Floats, label: Floats) -> Floats:
    """Give scores by Platt's curve as fitted on these very pairs: what is left is neither level nor slope."""
    return _platt(_in_one_block(raw, label))(raw)


def calibrated_loss(raw: Floats, label: Floats) -> float:
    """Give the log loss that Platt's curve leaves when it is fitted on these very pairs: what no level and no slope can mend."""
    pairs = _in_one_block(raw, label)
    return _log_loss(pairs, _platt(pairs))


def delivered_loss(raw: Floats, label: Floats) -> float:
    """Give the log loss that half of Platt's curve leaves, as it is used, at the level of these very pairs.

    What is too timid or too bold by itself is so in part when it is delivered, where the level of a date is luck.
    """
    pairs = _in_one_block(raw, label)
    half = _halfway(_platt(pairs))
    return _log_loss(pairs, half.around(pairs.raw, pairs.count, mean=float(label.mean())))


@dataclass(frozen=True)
class _Pairs:
    """Raw scores in rising order, none twice, and how often each was followed by a label of 1 (`hits`) and of 0 (`misses`)."""

    raw: Floats
    hits: Floats
    misses: Floats

    @property
    def count(self) -> Floats:
        return self.hits + self.misses

    @property
    def fewest(self) -> int:
        return int(min(self.hits.sum(), self.misses.sum()))

    @property
    def says_nothing(self) -> bool:
        return self.fewest == 0 or len(self.raw) < 2

    def level(self, curve: Calibrator) -> Calibrator:
        return curve.around(self.raw, self.count)


def _gathered(raw: Floats, label: Floats, block: npt.NDArray[np.intp]) -> list[_Pairs]:
    """Give the pairs of each block 0, 1, 2 …; of more than 10,000 different scores, neighbours count as the middle one of them.

    A fit of millions of pairs then takes as long as one of thousands.
    """
    values, at = np.unique(np.clip(raw, 0, 1), return_inverse=True)
    if len(values) > _MOST_SCORES:
        counts = np.bincount(at)
        group = (counts.cumsum() - counts) * _MOST_SCORES // len(raw)
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        ends = np.append(starts[1:], len(values))
        at = (np.searchsorted(starts, np.arange(len(values)), "right") - 1)[at]
        values = values[(starts + ends - 1) // 2]
    told = []
    for number in range(block.max() + 1):
        here = block == number
        hits, misses = (_sums(at[here], happened[here], len(values)) for happened in (label, 1 - label))
        seen = hits + misses > 0
        told.append(_Pairs(values[seen], hits[seen], misses[seen]))
    return told


def _in_one_block(raw: Floats, label: Floats) -> _Pairs:
    return _joined(_gathered(raw, label, np.zeros(len(raw), dtype=np.intp)))


def _joined(told: list[_Pairs]) -> _Pairs:
    raw, at = np.unique(np.concatenate([pairs.raw for pairs in told]), return_inverse=True)
    hits, misses = np.concatenate([pairs.hits for pairs in told]), np.concatenate([pairs.misses for pairs in told])
    return _Pairs(raw, _sums(at, hits, len(raw)), _sums(at, misses, len(raw)))


def _sums(at: npt.NDArray[np.intp], values: Floats, length: int) -> Floats:
    return np.asarray(np.bincount(at, weights=values, minlength=length), dtype=float)


def _log_loss(pairs: _Pairs, calibrate: Calibrator) -> float:
    score = _inside(calibrate(pairs.raw))
    return -float((xlogy(pairs.hits, score) + xlog1py(pairs.misses, -score)).sum() / pairs.count.sum())


def _simplest(losses: Floats, *, errors: float) -> int:
    """Choose a column, of those ordered from simple to flexible, that is within so many standard `errors` of the best."""
    worse = losses - losses[:, [losses.mean(axis=0).argmin()]]
    return int(np.argmax(worse.mean(axis=0) <= errors * worse.std(axis=0, ddof=1) / np.sqrt(len(losses))))


def _none(_pairs: _Pairs) -> Calibrator:
    return Calibrator()


def _shrunk(pairs: _Pairs) -> Calibrator:
    fitted = _platt(pairs)
    return replace(fitted, method="shrunk") if fitted.slope < 1 else Calibrator()


def _platt(pairs: _Pairs) -> Calibrator:
    if pairs.says_nothing:
        return Calibrator()
    slope, intercept = _logistic([logit(_inside(pairs.raw))], pairs)
    # A curve that falls would turn the ranking around: the scores are then no better than chance, and stay as they are.
    return Calibrator("platt", slope=slope, intercept=intercept) if slope > 0 else Calibrator()


def _beta(pairs: _Pairs) -> Calibrator:
    if pairs.says_nothing:
        return Calibrator()
    low, high = _beta_columns(_inside(pairs.raw))
    slope, upper, intercept = _logistic([low, high], pairs)
    # As in the paper: a side that falls is dropped, and the rest fitted again.
    if slope < 0:
        slope, (upper, intercept) = 0.0, _logistic([high], pairs)
    elif upper < 0:
        upper, (slope, intercept) = 0.0, _logistic([low], pairs)
    rises = min(slope, upper) >= 0 and max(slope, upper) > 0
    return Calibrator("beta", slope=slope, intercept=intercept, upper_slope=upper) if rises else Calibrator()


def _isotonic(pairs: _Pairs) -> Calibrator:
    """Fit steps that never fall (Ayer et al., 1955) and join their centres (Oron and Flournoy, 2017), so that few share a score.

    A step of n pairs stays within 1/(2n + 2) of 0 and 1: that it never happened to 9 users does not say that it never will.
    """
    if pairs.says_nothing:
        return Calibrator()
    x, y, count = _steps(pairs.raw, pairs.hits / pairs.count, pairs.count)
    least = 1 / (2 * count + 2)
    x, y, _ = _steps(x, np.clip(y, least, 1 - least), count)
    x = np.concatenate([[0.0], x, [1.0]])
    y = np.concatenate([[y[0] * (1 - _TAIL)], y, [1 - (1 - y[-1]) * (1 - _TAIL)]])
    # The outer steps may have their centres at 0 or 1 themselves.
    first, last = int(x[1] <= 0), len(x) - int(x[-2] >= 1)
    return Calibrator("isotonic", x=tuple(x[first:last].tolist()), y=tuple(y[first:last].tolist()))


def _steps(x: Floats, y: Floats, count: Floats) -> tuple[Floats, Floats, Floats]:
    """Pool points whose rates fall: centre, rate and count of each step."""
    fitted = isotonic_regression(y, weights=count)
    starts = fitted.blocks[:-1]
    counts = np.add.reduceat(count, starts)
    # Rounding could put a centre outside its step, and next to another's.
    centres = np.clip(np.add.reduceat(x * count, starts) / counts, x[starts], x[fitted.blocks[1:] - 1])
    return centres, fitted.x[starts], counts


def _inside(raw: Floats) -> Floats:
    return np.asarray(np.clip(raw, _EDGE, 1 - _EDGE))


def _beta_columns(inside: Floats) -> tuple[Floats, Floats]:
    return np.log(inside), -np.log1p(-inside)


def _logistic(columns: list[Floats], pairs: _Pairs) -> tuple[float, ...]:
    """Give the slopes and the intercept of greatest likelihood, by Newton's method.

    A label of 1 counts as (P + 1) / (P + 2) and one of 0 as 1 / (N + 2), with P and N of each (Platt, 1999): a perfect ranking then
    has a finite slope too.
    """
    positives, negatives = pairs.hits.sum(), pairs.misses.sum()
    count = pairs.count
    happened = pairs.hits * (positives + 1) / (positives + 2) + pairs.misses / (negatives + 2)
    design = np.column_stack([*columns, np.ones(len(count))])
    found = np.zeros(design.shape[1])
    found[-1] = logit(happened.sum() / count.sum())

    def loss(coefficients: Floats) -> float:
        odds = design @ coefficients
        return float((count * np.logaddexp(0, odds) - happened * odds).sum())

    for _ in range(_MOST_STEPS):
        score = expit(design @ found)
        gradient = design.T @ (happened - count * score)
        curvature = (design * (count * score * (1 - score))[:, None]).T @ design
        step = np.linalg.lstsq(curvature, gradient)[0]
        gain, now = gradient @ step, loss(found)
        # Far from the optimum a whole step can overshoot.
        while loss(found + step) > now and np.abs(step).max() > 1e-12:
            step = step / 2
        found = found + step
        if gain <= 1e-12 * count.sum():
            break
    return tuple(found.tolist())


_LADDER: tuple[tuple[int, Callable[[_Pairs], Calibrator]], ...] = (
    (0, _none),
    (0, _shrunk),
    (0, _platt),
    (100, _beta),
    (500, _isotonic),
)


def _halfway(curve: Calibrator) -> Calibrator:
    """Go half of the way from raw scores to those of a curve, on the scale of log-odds."""
    match curve.method:
        case "none":
            return curve
        case "isotonic":
            middle = (logit(_inside(np.array(curve.x))) + logit(_inside(np.array(curve.y)))) / 2
            return replace(curve, y=tuple(expit(middle).tolist()))
    upper_slope = (1 + curve.upper_slope) / 2 if curve.method == "beta" else 0.0
    return replace(curve, slope=(1 + curve.slope) / 2, upper_slope=upper_slope, intercept=curve.intercept / 2)
