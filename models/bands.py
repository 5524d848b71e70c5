"""Bands: where a score stands among tonight's, how often it came true in each band, and horizons that agree with each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from math import exp, isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import binom

from features.errors import ConfigError
from models.band_names import NAMES
from models.intervals import mean_interval, wilson
from models.propensity import Floats

# Two-sided 95 % of a normal distribution.
_Z = 1.959963984540054
# With fewer expected events (or non-events) than about this, a normal distribution is a poor stand-in for counts.
_SMALL = 10.0


@dataclass(frozen=True)
class Bands:
    """What very_low to very_high mean: fifths of tonight's users, four rising scores to cut at, or a capacity of contacts.

    `cuts`: a score on a cut belongs to the band above it. `capacity`: so many users with the highest scores are very_high, as many
    more high, and so on; the rest are very_low. No band but very_low holds more: users with one score stay together, and where
    they would overfill a band they are all in the next.

    Raises ConfigError when both are given, cuts are not four rising numbers, or capacity is below 1.
    """

    cuts: tuple[float, ...] | None = None
    capacity: int | None = None

    def __post_init__(self) -> None:
        if self.cuts is not None and self.capacity is not None:
            raise ConfigError(f"bands: cuts {self.cuts} and capacity {self.capacity} exclude each other; give one of them")
        if self.cuts is not None:
            # JSON has lists only.
            object.__setattr__(self, "cuts", tuple(self.cuts))
            if len(self.cuts) != 4 or not all(map(isfinite, self.cuts)) or any(low >= high for low, high in pairwise(self.cuts)):
                raise ConfigError(f"bands: {self.cuts} are not four rising scores; cut at four, such as [0.05, 0.1, 0.2, 0.4]")
        if self.capacity is not None and self.capacity < 1:
            raise ConfigError(f"bands: capacity is {self.capacity}; at least one user can be contacted")

    def place(self, score: Floats, everybody: Floats) -> tuple[Floats, npt.NDArray[np.object_]]:
        """Give the percentile (0 to 100) and the band of each score; an unknown score (NaN) has NaN and None.

        `everybody` holds every score of tonight in rising order. The percentile is the mean rank in percent: who has the same
        score has the same percentile.

        >>> Bands(capacity=1).place(np.array([0.9, 0.2]), np.array([0.1, 0.2, 0.9]))
        (array([100.        ,  66.66666667]), array(['very_high', 'high'], dtype=object))
        """
        percentile = _percentiles(score, everybody)
        if self.cuts is not None:
            number = np.searchsorted(self.cuts, score, "right")
        elif self.capacity is not None:
            number = np.searchsorted(_capacity_cuts(everybody, self.capacity), score, "right")
        else:
            number = _parts(percentile, len(NAMES))
        # NaN is searched for beyond the last cut.
        return percentile, np.array([*NAMES, None], dtype=object)[np.where(np.isnan(score), len(NAMES), number)]


@dataclass(frozen=True)
class ScoreBand:
    """What was said of some rows (user × origin), and what happened.

    Scores reach from `low` to `high`. `rate` is the realised rate or mean amount, `rate_low` to `rate_high` its 95 % interval. Were
    the scores right, and did their level move between dates as it had before, it would lie within `stated_low` to `stated_high` 95
    times of 100: `drift` is how far it had, a standard deviation of log-odds (see `models.drift`). `users` counts rows.
    """

    low: float
    high: float
    users: int
    mean_score: float
    rate: float
    rate_low: float
    rate_high: float
    stated_low: float
    stated_high: float
    drift: float = 0.0


def score_bands(
    label: Floats, score: Floats, *, users: npt.NDArray[Any] | None = None, drift: Floats | None = None, bands: int = 10
) -> list[ScoreBand]:
    """Give realised rates per tenth of the rows by score, lowest first; one a row, `users` has ids and `drift` a `level_drift`.

    Equal scores are in one band, so that there are fewer bands than asked for where many are equal. Rows whose score or label is
    unknown are left out. Intervals are Wilson's (1927) of the realised rate, and of the stated one the normal distribution with
    the variance sum p(1-p) of a Poisson binomial and half a row of continuity correction; where fewer than 10 are expected, the
    exact binomial at the mean score, which is a little wider (Hoeffding, 1956).

    Where users come back, the variance of both is multiplied by the design effect 1 + r(m - 1) (Kish, 1965): m is the mean over
    rows of how many rows of the band are of the same user, r the correlation of two rows of one user. r is estimated from all
    pairs of rows of one user, by the products of their residuals (Liang and Zeger, 1986) in standard deviations from the band's
    mean: a band that is wrong as a whole is no excuse for a wider interval. It is kept within 0 and 1.

    Drift widens the stated interval: the ends of the mean score's log-odds, moved by it, and those of chance are as far from the
    mean together as the square root of the sum of their squares (Zou and Donner, 2008). All rows of a band move together: a level
    that has moved may stay so, and the horizons of neighbouring origins overlap.
    """
    known = np.isfinite(label) & np.isfinite(score)
    label, score = label[known], score[known]
    users, drift = (None if one is None else np.asarray(one)[known] for one in (users, drift))
    part = _tenths(score, bands)
    return [ScoreBand(*numbers) for numbers in _rates(label, score, part, users, drift)]


def amount_bands(label: Floats, score: Floats, *, users: npt.NDArray[Any], seed: int, bands: int = 10) -> list[ScoreBand]:
    """Give mean amounts per tenth of the rows by score, lowest first; one a row, `users` has ids, no score or label is unknown.

    Intervals are percentiles over draws of users. Stated is by chance alone: as far from the mean score as the interval's ends are
    from what happened.
    """
    part, found = _tenths(score, bands), []
    for number in range(part.max() + 1 if len(part) else 0):
        here = part == number
        own, said = score[here], float(score[here].mean())
        mean = mean_interval(label[here], users[here], seed=seed)
        stated = (max(said - (mean.value - mean.low), 0.0), said + (mean.high - mean.value))
        found.append(ScoreBand(own.min(), own.max(), len(own), said, mean.value, mean.low, mean.high, *stated))
    return found


def odds_range(bands: Sequence[ScoreBand]) -> tuple[float, float]:
    """Give between which factors the odds move from one date to another, 95 times of 100; 1 and 1 where that is not known.

    >>> odds_range([])
    (1.0, 1.0)
    """
    most = max((band.drift for band in bands), default=0.0)
    return exp(-_Z * most), exp(_Z * most)


def coverage(bands: Sequence[ScoreBand]) -> float:
    """Give the share of bands whose realised rate lies within the stated interval; NaN when there are none."""
    inside = [band.stated_low <= band.rate <= band.stated_high for band in bands]
    return float(np.mean(inside)) if inside else float("nan")


def spaced(scores: Mapping[timedelta, Floats], *, rising: bool) -> dict[timedelta, Floats]:
    """Make the horizons of one target agree, row by row: with the horizon the score may only rise, or only fall.

    Something happens within 56 days at least as surely as within 28 (`rising`); that it does not is never surer. Gives the
    nearest such scores by least squares, with equal weight to each horizon (pooling adjacent violators, Ayer et al., 1955; here
    by the min-max formula of Robertson, Wright and Dykstra, 1988). Rows that agree stay as they are, bit for bit. NaN (the horizon
    was not asked about this user) stays, and moves nothing.

    >>> spaced({timedelta(28): np.array([0.4]), timedelta(56): np.array([0.2])}, rising=True)[timedelta(56)].round(3)
    array([0.3])
    """
    horizons = sorted(scores)
    if not horizons:
        return {}
    sign = 1.0 if rising else -1.0
    values = np.column_stack([np.asarray(scores[horizon], dtype=float) for horizon in horizons]) * sign
    falls = (values[:, 1:] < np.fmax.accumulate(values, axis=1)[:, :-1]).any(axis=1)
    values[falls] = _pooled(values[falls])
    return {horizon: values[:, horizons.index(horizon)] * sign for horizon in scores}


def _pooled(values: Floats) -> Floats:
    """Give the rising row nearest to each: the greatest over starts of the least over ends of the mean from start to end."""
    count = values.shape[1]
    asked = ~np.isnan(values)
    # A mean of nothing is NaN, which fmin and fmax pass over.
    means = np.full((count, count, len(values)), np.nan)
    for start in range(count):
        total, number = np.zeros(len(values)), np.zeros(len(values))
        for end in range(start, count):
            total = total + np.where(asked[:, end], values[:, end], 0.0)
            number = number + asked[:, end]
            np.divide(total, number, out=means[start, end], where=number > 0)
    # least[start, at] is the least mean from start to any end not before at.
    least = np.fmin.accumulate(means[:, ::-1], axis=1)[:, ::-1]
    found = np.stack([np.fmax.reduce(least[: at + 1, at], axis=0) for at in range(count)], axis=1)
    return np.where(asked, found, np.nan)


def _percentiles(score: Floats, everybody: Floats) -> Floats:
    # Neighbours in order are neighbours in memory: a million scores are found three times as fast.
    order = np.argsort(score)
    ordered = score[order]
    ranks = np.empty(len(score))
    ranks[order] = (np.searchsorted(everybody, ordered, "left") + 1 + np.searchsorted(everybody, ordered, "right")) / 2
    # A score of nobody's that is above all has no rank; it counts as the highest.
    percentile = np.minimum(ranks / max(len(everybody), 1) * 100, 100.0)
    return np.where(np.isnan(score), np.nan, percentile)


def _parts(percentile: Floats, parts: int) -> npt.NDArray[np.intp]:
    return np.asarray(np.nan_to_num(np.ceil(percentile / (100 / parts)) - 1), dtype=np.intp)


def _tenths(score: Floats, bands: int) -> npt.NDArray[np.intp]:
    part = _parts(_percentiles(score, np.sort(score)), bands)
    # Where many are equal some parts have no rows.
    return np.asarray(np.unique(part, return_inverse=True)[1])


def _capacity_cuts(everybody: Floats, capacity: int) -> Floats:
    """Give the lowest score of each band but very_low, in rising order; a band that nobody fits in has that of the one above."""
    cuts, end = [], len(everybody)
    for _ in NAMES[1:]:
        start = max(end - capacity, 0)
        if 0 < start < len(everybody) and everybody[start - 1] == everybody[start]:
            start = int(np.searchsorted(everybody, everybody[start], "right"))
        cuts.append(everybody[start] if start < len(everybody) else np.inf)
        end = start
    return np.array(cuts[::-1], dtype=float)


def _rates(
    label: Floats, score: Floats, part: npt.NDArray[np.intp], users: npt.NDArray[Any] | None, drift: Floats | None
) -> list[tuple[float, float, int, float, float, float, float, float, float, float]]:
    """Give the numbers of a ScoreBand for each part 0, 1, 2 …, none of which is empty."""
    if len(label) == 0:
        return []
    rows = np.bincount(part).astype(float)
    mean, rate = _sums(part, score) / rows, _sums(part, label) / rows
    low, high = np.full(len(rows), np.inf), np.full(len(rows), -np.inf)
    np.minimum.at(low, part, score)
    np.maximum.at(high, part, score)
    effect = np.ones(len(rows)) if users is None else _design_effects(label - score, part, users)
    rate_low, rate_high = _realised(rate, rows / effect)
    stated_low, stated_high = _stated(mean, _sums(part, score * (1 - score)), rows, effect)
    moved = np.zeros(len(rows)) if drift is None else _sums(part, drift) / rows
    if drift is not None:
        stated_low, stated_high = _moved(mean, stated_low, stated_high, moved)
    columns = (low, high, rows.astype(int), mean, rate, rate_low, rate_high, stated_low, stated_high, moved)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _design_effects(residual: Floats, part: npt.NDArray[np.intp], users: npt.NDArray[Any]) -> Floats:
    """Give 1 + r(m - 1) for each part (see `score_bands`)."""
    rows = np.bincount(part).astype(float)
    centred = residual - (_sums(part, residual) / rows)[part]
    spread = np.sqrt(_sums(part, centred**2) / rows)[part]
    standard = np.divide(centred, spread, out=np.zeros(len(part)), where=spread > 0)
    user = pd.factorize(users, use_na_sentinel=False)[0]
    each = np.bincount(user)
    pairs = float((each * (each - 1)).sum())
    # The square of a user's sum holds the product of each two of the user's rows twice, and each row's own square.
    products = float((_sums(user, standard) ** 2).sum() - (standard**2).sum())
    correlation = min(max(products / pairs, 0.0), 1.0) if pairs else 0.0
    keys, count = np.unique(part * len(each) + user, return_counts=True)
    together = _sums(keys // len(each), count.astype(float) ** 2) / rows
    return np.asarray(1 + correlation * (together - 1))


def _sums(part: npt.NDArray[np.intp], values: Floats) -> Floats:
    return np.asarray(np.bincount(part, weights=values), dtype=float)


def _realised(rate: Floats, rows: Floats) -> tuple[Floats, Floats]:
    low, high = wilson(rate, rows, z=_Z)
    # At 0 and at 1 an end is the rate itself, but for the last digit.
    return np.where(rate == 0, 0.0, low), np.where(rate == 1, 1.0, high)


def _stated(mean: Floats, variance: Floats, rows: Floats, effect: Floats) -> tuple[Floats, Floats]:
    half = _Z * np.sqrt(variance * effect) / rows + 0.5 * effect / rows
    alone = np.maximum(np.round(rows / effect), 1)
    exact = [binom.ppf(tail, alone, mean) / alone for tail in (0.025, 0.975)]
    small = alone * np.minimum(mean, 1 - mean) < _SMALL
    return np.where(small, exact[0], np.maximum(mean - half, 0)), np.where(small, exact[1], np.minimum(mean + half, 1))


def _moved(mean: Floats, low: Floats, high: Floats, drift: Floats) -> tuple[Floats, Floats]:
    down, up = (expit(logit(mean) + sign * _Z * drift) for sign in (-1, 1))
    return np.maximum(mean - np.hypot(mean - low, mean - down), 0), np.minimum(mean + np.hypot(high - mean, up - mean), 1)
