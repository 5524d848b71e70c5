"""Linear models on the log-odds of a probability or the logarithm of an amount: plain numbers, exact contributions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from threadpoolctl import threadpool_limits

from models.parts import in_parts
from models.propensity import Floats

# A linear model of some hundred features has learned almost all it can from so many rows: on the Complete Journey the average
# precision from 20,000 rows is at most 0.004 below that from 40,000, in half the time.
MOST_ROWS = 30_000
# Of the rarer answer so many are wanted among them; where a plain draw has fewer, it is drawn more densely.
_FEWEST_RARE = 1_000
_SKEWED = 1.0
_CLIP = 4.0
_LARGEST_LINK = 30.0
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Column:
    """One feature on a common scale: logarithm where it is skewed, then centred, divided by its spread and clipped.

    `low` and `high` bound it on that scale, where the model stays within what it was learned from: a straight line says nothing of
    what lies outside, such as a time known that no user of a young log had before. `unknown` is the weight of not knowing the
    feature, which counts as its mean otherwise.
    """

    feature: str
    is_logged: bool
    centre: float
    spread: float
    weight: float
    unknown: float = 0.0
    low: float = -_CLIP
    high: float = _CLIP

    def contribution(self, values: Floats) -> Floats:
        """Give what values of the feature (null allowed) add to the link."""
        added = _scaled(values, self.is_logged, self.centre, self.spread, self.weight)
        low, high = sorted((self.low * self.weight, self.high * self.weight))
        # Twice as fast as `np.clip`, and as setting what a mask says.
        np.maximum(added, low, out=added)
        np.minimum(added, high, out=added)
        np.putmask(added, np.isnan(values), self.unknown)
        return added


@dataclass(frozen=True)
class Linear:
    """A logistic regression (a probability) or a Poisson regression (an amount) of standardised features."""

    columns: tuple[Column, ...]
    intercept: float
    is_amount: bool

    @property
    def features(self) -> tuple[str, ...]:
        """The features that it reads, in order."""
        return tuple(column.feature for column in self.columns)

    def link(self, frame: pd.DataFrame, *, threads: int = 1) -> Floats:
        """Give the log-odds, or the logarithm of the amount, of each row."""
        link = np.full(len(frame), self.intercept)
        values = [frame[column.feature].to_numpy(dtype=np.float64) for column in self.columns]

        def add(part: slice) -> None:
            for column, of_all in zip(self.columns, values, strict=True):
                link[part] += column.contribution(of_all[part])

        in_parts(add, len(frame), size=_ROWS_AT_ONCE, threads=threads)
        return link

    def raw(self, frame: pd.DataFrame, *, threads: int = 1) -> Floats:
        """Give the probability or amount of each row, before calibration."""
        link = self.link(frame, threads=threads)
        return np.asarray(np.exp(np.clip(link, None, _LARGEST_LINK)) if self.is_amount else expit(link))

    def contributions(self, frame: pd.DataFrame) -> Floats:
        """Give rows × features: what each feature adds to `link`, against a user for whom it has its mean."""
        parts = [column.contribution(frame[column.feature].to_numpy(dtype=np.float64)) for column in self.columns]
        return np.stack(parts, axis=1) if parts else np.zeros((len(frame), 0))


def fit_linear(
    x: pd.DataFrame,
    y: pd.Series,
    *,
    is_amount: bool,
    strength: float,
    seed: int,
    monotone: Mapping[str, int] | None = None,
    stays_within: bool = False,
    levels: Floats | None = None,
) -> Linear:
    """Fit `y` (0/1, or an amount) on every column of `x` (null allowed) with a ridge penalty of `strength` per row.

    A feature whose weight would go against `monotone` (1: only up, -1: only down) is left out, and the rest fitted anew. Not
    knowing a feature gets a weight of its own where that is so for 1 % to 99 % of the rows. Constant and empty columns are left
    out. With `stays_within` no column goes further than what it was learned from, which takes weights that are held small: two
    large ones that cancel each other would no longer do so. What the `levels` of the rows' cutoffs (log-odds) tell is not put down
    to features, and everybody is scored at the mean level. Of more than 30,000 rows so many are drawn, of a rare answer (of
    amounts: of those who have one, or none) all that fit, and each row then stands for as many as it was drawn from.
    """
    weight = np.ones(len(x))
    if len(x) > MOST_ROWS:
        chosen, weight = _drawn(y.to_numpy(dtype=np.float64), seed=seed)
        x, y, levels = x.iloc[chosen], y.iloc[chosen], None if levels is None else levels[chosen]
    while True:
        linear = _of_all(x, y, weight, levels, is_amount=is_amount, strength=strength, stays_within=stays_within)
        against = [column.feature for column in linear.columns if column.weight * (monotone or {}).get(column.feature, 0) < 0]
        if not against:
            return linear
        x = x.drop(columns=against)


def _of_all(
    x: pd.DataFrame, y: pd.Series, weight: Floats, levels: Floats | None, *, is_amount: bool, strength: float, stays_within: bool
) -> Linear:
    """Fit the drawn rows on every column of `x`."""
    scales, parts = [], []
    for name in x.columns:
        values = x[name].to_numpy(dtype=np.float64)
        known = values[~np.isnan(values)]
        if len(known) < 2 or known.min() == known.max():
            continue
        is_logged = bool(known.min() >= 0 and _skew(known) > _SKEWED)
        told = np.log1p(known) if is_logged else known
        scale = (is_logged, float(told.mean()), float(told.std()) or 1.0)
        scaled = np.clip(_scaled(values, *scale), -_CLIP, _CLIP)
        has_unknown = bool(0.01 <= 1 - len(known) / len(values) <= 0.99)
        limits = (float(np.nanmin(scaled)), float(np.nanmax(scaled))) if stays_within else (-_CLIP, _CLIP)
        scales.append((str(name), *scale, has_unknown, *limits))
        parts.append(np.nan_to_num(scaled))
        if has_unknown:
            # Centred, so that the intercept stays what the mean user has.
            missing = np.isnan(values).astype(np.float64)
            parts.append(missing - missing.mean())
    if not parts:
        mean = float(np.average(y.clip(lower=0), weights=weight))
        return Linear((), float(np.log(max(mean, 1e-9)) if is_amount else np.log(max(mean, 1e-9) / max(1 - mean, 1e-9))), is_amount)
    if levels is not None:
        parts.append((levels - np.average(levels, weights=weight)) / (levels.std() or 1.0))
    weights, intercept = _fitted(np.stack(parts, axis=1), y, weight, is_amount=is_amount, strength=strength)
    columns, at = [], 0
    for name, is_logged, centre, spread, has_unknown, low, high in scales:
        unknown = 0.0
        if has_unknown:
            share = float(x[name].isna().mean())
            unknown = float(weights[at + 1])
            intercept -= unknown * share
        columns.append(Column(name, is_logged, centre, spread, float(weights[at]), unknown, low, high))
        at += 2 if has_unknown else 1
    return Linear(tuple(columns), intercept, is_amount)


def _drawn(y: Floats, *, seed: int) -> tuple[np.ndarray, Floats]:
    """Draw rows, and give their places and for how many rows each stands; their weights have a mean of 1."""
    order = np.random.default_rng(seed).permutation(len(y))
    some = y > 0
    rare = ~some if some.mean() > 0.5 else some
    if not rare.any() or rare.sum() * MOST_ROWS >= _FEWEST_RARE * len(y):
        chosen = np.sort(order[:MOST_ROWS])
        return chosen, np.ones(MOST_ROWS)
    kept = order[rare[order]][: MOST_ROWS // 2]
    others = order[~rare[order]][: MOST_ROWS - len(kept)]
    chosen = np.sort(np.concatenate([kept, others]))
    weight = np.where(rare[chosen], rare.sum() / len(kept), (~rare).sum() / len(others))
    return chosen, weight / weight.mean()


def _fitted(x: Floats, y: pd.Series, weight: Floats, *, is_amount: bool, strength: float) -> tuple[Floats, float]:
    # Fits run side by side already; on small matrices more threads wait for each other five times as long as they work.
    with threadpool_limits(limits=1, user_api="blas"):
        return _solved(x, y, weight, is_amount=is_amount, strength=strength)


def _solved(x: Floats, y: pd.Series, weight: Floats, *, is_amount: bool, strength: float) -> tuple[Floats, float]:
    if is_amount:
        # The mean is divided out, so that one strength means the same for pence and for thousands.
        mean = float(np.average(y.clip(lower=0), weights=weight)) or 1.0
        poisson = PoissonRegressor(alpha=strength, solver="newton-cholesky", max_iter=100)
        poisson.fit(x, y.clip(lower=0) / mean, weight)
        return np.asarray(poisson.coef_), float(poisson.intercept_) + float(np.log(mean))
    # The usual tolerance, of the mean gradient, is coarser than a rare answer itself.
    share = float(np.average(y, weights=weight))
    tolerance = min(1e-4, share / 100, (1 - share) / 100)
    logistic = LogisticRegression(C=1 / (strength * len(x)), solver="newton-cholesky", max_iter=100, tol=tolerance)
    logistic.fit(x, y, weight)
    return np.asarray(logistic.coef_[0]), float(logistic.intercept_[0])


def _scaled(values: Floats, is_logged: bool, centre: float, spread: float, weight: float = 1.0) -> Floats:
    """Give `weight` times the distance from the centre, in spreads."""
    # Into one new array, in few steps, and by the fastest of the logarithms: that is what takes the time.
    slope = weight / spread
    if is_logged:
        told = np.maximum(values, 0.0)
        told += 1.0
        np.log2(told, out=told)
        told *= slope * math.log(2.0)
    else:
        told = values * slope
    told -= centre * slope
    return np.asarray(told)


def _skew(known: Floats) -> float:
    spread = known.std()
    return float(((known - known.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0


def linear_of(told: dict[str, object]) -> Linear:
    """Read a linear model from plain values, as `dataclasses.asdict` gives them."""
    columns: Sequence[dict[str, object]] = told["columns"]  # type: ignore[assignment]
    made = tuple(Column(**column) for column in columns)  # type: ignore[arg-type]
    return Linear(made, float(told["intercept"]), bool(told["is_amount"]))  # type: ignore[arg-type]
