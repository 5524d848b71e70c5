"""How sure a measure is: a bootstrap over users, so that all that is known of one user comes and goes together.

Rows of one user at several origins resemble each other; drawn one by one, they would make every interval too narrow.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import GateError
from models.metrics import DISTANCES, Contact, added_up, measures_drawn
from models.propensity import Floats
from models.ranking import CHUNK, rank

DRAWS = 200
# Of more rows than these, fewer draws are made, in proportion and down to the fewest: their intervals are narrow anyway.
FULL_ROWS, FEWEST_DRAWS = 200_000, 100
# Of the true distance to the estimated one, tried from none to four times.
_SHARES = np.linspace(0, 4, 161)

Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Interval:
    """A value, and the bounds it lies between with the confidence that was asked for."""

    value: float
    low: float
    high: float

    def __neg__(self) -> "Interval":
        """Give the interval of the difference the other way round."""
        return Interval(-self.value, -self.high, -self.low)


@dataclass(frozen=True)
class Measured:
    """Measures by name: their means over origins, and at each origin where they are defined."""

    mean: dict[str, Interval]
    by_origin: dict[datetime, dict[str, Interval]]


def intervals(
    tested: pd.DataFrame,
    column: str,
    *,
    is_amount: bool,
    contact: Contact | None = None,
    seed: int,
    draws: int = DRAWS,
    confidence: float = 0.95,
    only: Collection[str] | None = None,
) -> Measured:
    """Give each measure (or only those named) with its percentile interval: its mean over the origins, and at each of them.

    `tested` has one row a user and origin: `user_id`, `cutoff`, `label` and the scores in `column`. Above 200,000 rows fewer draws
    are made, down to 100. The calibration error and the decile error, which noise makes too high, have the interval of those
    true errors, shaped as the one that is seen, under which a value so low and one so high could both be seen, though never without
    the value (Davison and Hinkley, 1997, 5.4). A mean is over the origins that define the measure; one that none defines is left
    out.

    Raises DataError when a score is null.
    """
    origins = tested.groupby("cutoff").indices
    groups = list(origins.values())
    table = _resampled(tested, [column], groups, is_amount=is_amount, contact=contact, seed=seed, draws=draws, only=only)[0]
    by_origin = {
        cutoff.to_pydatetime(): _summed_up({name: values[:, [at]] for name, values in table.items()}, confidence=confidence)
        for at, cutoff in enumerate(origins)
    }
    return Measured(_summed_up(table, confidence=confidence), by_origin)


def pooled(
    tested: pd.DataFrame,
    column: str,
    *,
    is_amount: bool,
    seed: int,
    draws: int = DRAWS,
    confidence: float = 0.95,
    only: Collection[str] | None = None,
) -> dict[str, Interval]:
    """Give the same measures of the rows of all origins taken together, as calibration is judged.

    Of contacts it says nothing: how many users can be reached is said of one night.
    """
    everything = [np.arange(len(tested))] if len(tested) else []
    table = _resampled(tested, [column], everything, is_amount=is_amount, contact=None, seed=seed, draws=draws, only=only)[0]
    return _summed_up(table, confidence=confidence)


def paired(
    tested: pd.DataFrame,
    column: str,
    against: str,
    *,
    is_amount: bool,
    measure: str,
    contact: Contact | None = None,
    seed: int,
    draws: int = DRAWS,
    confidence: float = 0.95,
) -> Interval:
    """Give a measure of `column` minus that of `against`, on the same rows and under the same draws; a mean over origins.

    Raises GateError when no origin defines the measure for both.
    """
    origins = list(tested.groupby("cutoff").indices.values())
    found = _resampled(
        tested, [column, against], origins, is_amount=is_amount, contact=contact, seed=seed, draws=draws, only=[measure]
    )
    if all(measure in table for table in found):
        one, other = (added_up(table[measure]) if measure in DISTANCES else table[measure] for table in found)
        difference = _mean(one - other)
        if np.isfinite(difference[0]):
            return _interval(difference, confidence=confidence)
    raise GateError(
        f"{measure} of {column} and {against} is defined at none of {len(origins)} test origins: they hold one class only, or a "
        "score is no probability. Compare by auc or average_precision, or test on more origins"
    )


def rate_interval(label: Floats, users: npt.ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Give the realised rate of rows (labels 0 or 1, at least one), in Wilson's interval for as many rows as they are worth.

    Rows of one user say less than rows of as many users: they are worth what independent rows of the same variance would be, at
    most as many as there are and at least as many as users, and as many as users when all labels are equal. Wilson (1927); the
    effective size after Korn and Graubard (1998). Unlike a bootstrap, it has a width where nothing happened.

    >>> round(rate_interval(np.zeros(10), np.arange(10)).high, 3)
    0.278
    """
    codes, count = _coded(users)
    rate = float(np.mean(label))
    variance = float(np.sum(np.bincount(codes, label - rate, minlength=count) ** 2)) / len(label) ** 2
    worth = float(np.clip(rate * (1 - rate) / variance, count, len(label))) if variance > 0 else float(count)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    low, high = wilson(np.array(rate), np.array(worth), z=z)
    return Interval(rate, min(max(float(low), 0.0), rate), max(min(float(high), 1.0), rate))


def wilson(rate: Floats, rows: Floats, *, z: float) -> tuple[Floats, Floats]:
    """Give the ends of Wilson's score interval (1927) of realised rates, for a two-sided normal quantile `z`.

    It has a width at rates of 0 and 1, where its outer end is the rate itself but for the last digit.
    """
    centre = (rate + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z * np.sqrt(rate * (1 - rate) / rows + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    return centre - half, centre + half


def mean_interval(label: Floats, users: npt.ArrayLike, *, seed: int, draws: int = DRAWS, confidence: float = 0.95) -> Interval:
    """Give the mean amount of rows (at least one), in a percentile interval over draws of users."""
    codes, count = _coded(users)
    amounts, rows = np.bincount(codes, label, minlength=count), np.bincount(codes, minlength=count)
    made = _drawn_users(count, draws=draws, seed=seed, most=max(CHUNK // count, 1))
    means = [np.array([label.mean()]), *((counts @ amounts) / (counts @ rows) for counts in made)]
    return _interval(np.concatenate(means), confidence=confidence)


def _resampled(
    tested: pd.DataFrame,
    columns: Sequence[str],
    groups: Sequence[Places],
    *,
    is_amount: bool,
    contact: Contact | None,
    seed: int,
    draws: int,
    only: Collection[str] | None,
) -> list[dict[str, Floats]]:
    """Measure groups of rows: for each column and measure draws × groups, of which the first draw has every user once.

    Measures that add up distances are in parts: draws × groups × parts.
    """
    codes, count = _coded(tested.user_id)
    label = tested.label.to_numpy(dtype=np.float64)
    rankings = [[rank(label[rows], tested[name].to_numpy(dtype=np.float64)[rows]) for rows in groups] for name in columns]
    if len(tested) > FULL_ROWS:
        draws = min(draws, max(draws * FULL_ROWS // len(tested), FEWEST_DRAWS))
    most = max(CHUNK // max(count, *(len(rows) for rows in groups)), 1) if groups else draws
    parts: list[list[list[dict[str, Floats]]]] = [[[] for _ in groups] for _ in columns]
    for counts in (np.ones((1, count)), *_drawn_users(count, draws=draws, seed=seed, most=most)):
        for of_column, group_rankings in zip(parts, rankings, strict=True):
            for of_group, rows, ranking in zip(of_column, groups, group_rankings, strict=True):
                weights = counts[:, codes[rows][ranking.order]]
                of_group.append(measures_drawn(ranking, weights, is_amount=is_amount, contact=contact, only=only, in_parts=True))
    return [_joined(of_column) for of_column in parts]


def _joined(parts: Sequence[Sequence[dict[str, Floats]]]) -> dict[str, Floats]:
    """Put chunks of draws under each other and groups beside each other; a group without a measure has it null."""
    whole = [{name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]} for chunks in parts]
    draws = sum(len(next(iter(chunk.values()), ())) for chunk in parts[0]) if parts else 0
    names = dict.fromkeys(name for group in whole for name in group)
    found = {}
    for name in names:
        shape = next(group[name] for group in whole if name in group).shape
        found[name] = np.stack([group.get(name, np.full((draws, *shape[1:]), np.nan)) for group in whole], axis=1)
    return found


def _summed_up(table: dict[str, Floats], *, confidence: float) -> dict[str, Interval]:
    found = {
        name: _distance(values, confidence=confidence) if name in DISTANCES else _interval(_mean(values), confidence=confidence)
        for name, values in table.items()
    }
    return {name: interval for name, interval in found.items() if np.isfinite(interval.value)}


def _distance(parts: Floats, *, confidence: float) -> Interval:
    """Give the mean over groups of distances in parts (draws × groups × parts), and its interval.

    If the true distances were a share of those seen, the draws' noise would be added to that. The interval goes from the smallest
    share under which the value seen is none of the highest to the largest under which it is none of the lowest.
    """
    defined = np.isfinite(parts[0]).all(axis=1)
    flat = parts[:, defined].reshape(len(parts), -1) / max(int(defined.sum()), 1)
    if flat.shape[1] == 0:
        return Interval(np.nan, np.nan, np.nan)
    value = float(added_up(flat[0]))
    noise = (flat - flat[0])[1:][np.isfinite(flat[1:]).all(axis=1)]
    if len(noise) == 0:
        return Interval(value, value, value)
    drawn = [added_up(share * flat[0] + noise) for share in _SHARES]
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=1)
    # Too low a value for any share speaks for the smallest.
    lower, upper = min(_SHARES[value <= high], default=1.0), max(_SHARES[low <= value], default=1.0)
    return Interval(value, float(min(value * lower, value)), float(max(value * upper, value)))


def _mean(values: Floats) -> Floats:
    """Mean of each draw over the groups where it is defined."""
    defined = np.isfinite(values)
    count = defined.sum(axis=1)
    sums = np.where(defined, values, 0.0).sum(axis=1)
    return np.asarray(np.divide(sums, count, out=np.full(len(values), np.nan), where=count > 0))


def _interval(values: Floats, *, confidence: float) -> Interval:
    """Percentiles of the draws in which there is a value; the first of `values` is that of the rows as they are."""
    value, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if len(drawn) == 0:
        return Interval(value, value, value)
    low, high = (float(bound) for bound in np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2]))
    return Interval(value, low, high)


def _coded(users: npt.ArrayLike) -> tuple[Places, int]:
    """Number users in their own order, so that the order of rows changes no draw."""
    codes, known = pd.factorize(np.asarray(users), sort=True)
    return codes, len(known)


def _drawn_users(users: int, *, draws: int, seed: int, most: int) -> Iterator[Floats]:
    """Give how often each user is drawn, in chunks of at most `most` draws: the same draws however they are cut."""
    random = np.random.default_rng(seed)
    for start in range(0, draws, most):
        chunk = range(start, min(start + most, draws))
        yield np.stack([np.bincount(random.integers(users, size=users), minlength=users) for _ in chunk]).astype(np.float64)
