"""Who is the score wrong for? The same predictions told apart by tenure, journey stage or any other column."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from models.intervals import Interval, mean_interval, pooled, rate_interval
from models.propensity import Floats

UNKNOWN, OTHER = "unknown", "other"
_TENURE_WEEKS = (4, 12, 26)
# Numbers of so few values stand for themselves; quartiles of them would hide what they say.
_FEW = 4
_MOST = 20


@dataclass(frozen=True)
class Slice:
    """The tested rows whose `column` has one value (or lies in one part of its range).

    `users` and `positives` (amounts above zero) count rows, one a user and origin. The score is right for them as a whole when
    `mean_score` lies within the interval of `rate`, their realised rate or mean amount. `measures` tell how well it ranks them (AUC
    and average precision) or how far off it is (mean absolute error), over all origins together; none of too few rows or one class.
    """

    column: str
    value: str
    users: int
    positives: int
    mean_score: float
    rate: Interval
    measures: Mapping[str, Interval]


def slices(
    tested: pd.DataFrame,
    column: str,
    by: Mapping[str, pd.Series | npt.NDArray[np.generic]],
    *,
    is_amount: bool,
    seed: int,
    smallest: int = 50,
    fewest: int = 20,
    confidence: float = 0.95,
) -> list[Slice]:
    """Tell the tested rows apart by each grouping: `user_id`, `cutoff`, `label` and the scores in `column` of each row.

    `by` has a value of each row, in the order of the rows. Numbers of more than four values are cut into quartiles. Text keeps its
    twenty most frequent values that at least `fewest` users have (one of fewer may say who they are), and the rest are `other`;
    null is `unknown`. Slices come as a reader looks for them, not the worst first: groupings as given, numbers and ordered
    categories as they rise, other values by their rows, `other` and `unknown` last. Measures are left out below `smallest` rows.

    Raises DataError when a grouping has more or fewer values than there are rows.
    """
    found: list[Slice] = []
    for name, values in by.items():
        if len(values) != len(tested):
            raise DataError(f"slices by {name}: {len(values)} values for {len(tested)} tested rows; give one a row, in their order")
        groups = _grouped(pd.Series(values).reset_index(drop=True), tested.user_id.reset_index(drop=True), fewest)
        for value in groups.cat.categories:
            rows = tested[(groups == value).to_numpy()]
            if len(rows):
                found.append(
                    _slice(rows, column, name, str(value), is_amount=is_amount, seed=seed, smallest=smallest, confidence=confidence)
                )
    return found


def tenure_bands(days: pd.Series | npt.NDArray[np.floating]) -> pd.Series:
    """Put days since a user was first seen into bands of weeks, an ordered category; null and negative are `unknown`.

    >>> tenure_bands(np.array([3.0, 28.0, 400.0, np.nan])).tolist()
    ['under 4 weeks', '4 to 12 weeks', '26 weeks and more', 'unknown']
    """
    known = pd.Series(days).astype(float)
    cuts = [7.0 * weeks for weeks in _TENURE_WEEKS]
    names = [
        f"under {_TENURE_WEEKS[0]} weeks",
        *(f"{low} to {high} weeks" for low, high in pairwise(_TENURE_WEEKS)),
        f"{_TENURE_WEEKS[-1]} weeks and more",
    ]
    return _cut(known.where(known >= 0), cuts, names)


def _slice(
    rows: pd.DataFrame, column: str, name: str, value: str, *, is_amount: bool, seed: int, smallest: int, confidence: float
) -> Slice:
    label = rows.label.to_numpy(dtype=np.float64)
    only = ["mean_absolute_error"] if is_amount else ["auc", "average_precision"]
    return Slice(
        column=name,
        value=value,
        users=len(rows),
        positives=int((label > 0).sum()),
        mean_score=float(rows[column].mean()),
        rate=mean_interval(label, rows.user_id, seed=seed, confidence=confidence)
        if is_amount
        else rate_interval(label, rows.user_id, confidence=confidence),
        measures=pooled(rows, column, is_amount=is_amount, seed=seed, confidence=confidence, only=only)
        if len(rows) >= smallest
        else {},
    )


def _grouped(values: pd.Series, users: pd.Series, fewest: int) -> pd.Series:
    """Give the group of each row, as categories in the order to be shown."""
    if isinstance(values.dtype, pd.CategoricalDtype) and values.cat.ordered:
        return _in_order(values.astype(object), [str(name) for name in values.cat.categories])
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return _of_numbers(values.astype(float))
    texts = values.dropna().astype(str)
    counts, own = texts.value_counts(), users[texts.index].groupby(texts).nunique()
    names = [str(name) for name in sorted(counts.index, key=lambda name: (-counts[name], name)) if own[name] >= fewest][:_MOST]
    return _in_order(values.where(values.isna() | values.astype(str).isin(names), OTHER), [*names, OTHER])


def _of_numbers(values: pd.Series) -> pd.Series:
    known = np.sort(values[np.isfinite(values)].to_numpy(dtype=np.float64))
    distinct = np.unique(known)
    if len(distinct) <= _FEW:
        return _in_order(values.where(np.isfinite(values)).map(_said, na_action="ignore"), [_said(value) for value in distinct])
    # Cut where the label says, at rounded numbers; where most values are the lowest one, cut above it.
    quartiles = np.unique([float(f"{cut:.3g}") for cut in np.quantile(known, [0.25, 0.5, 0.75])])
    cuts = [float(cut) for cut in quartiles if distinct[0] < cut <= distinct[-1]] or [float(distinct[1])]
    names = [
        f"below {_said(cuts[0])}",
        *(f"{_said(low)} to {_said(high)}" for low, high in pairwise(cuts)),
        f"{_said(cuts[-1])} and more",
    ]
    return _cut(values.where(np.isfinite(values)), cuts, names)


def _cut(values: pd.Series, cuts: list[float], names: list[str]) -> pd.Series:
    """Name the part of each value between rising cuts, of which the lower one belongs to it."""
    part: Floats = np.searchsorted(cuts, values.to_numpy(dtype=np.float64), side="right").astype(np.float64)
    told = pd.Series([names[int(at)] for at in part], index=values.index, dtype=object)
    return _in_order(told.where(values.notna()), names)


def _in_order(values: pd.Series, names: list[str]) -> pd.Series:
    """Make an ordered category of texts, null last as `unknown`."""
    names = [*(name for name in names if name != UNKNOWN), UNKNOWN]
    texts = values.astype(object).where(values.notna(), UNKNOWN).astype(str)
    return pd.Series(pd.Categorical(texts, categories=list(dict.fromkeys(names)), ordered=True), index=values.index)


def _said(value: float) -> str:
    """Write a number as short as it can be told.

    >>> _said(12300.0), _said(3.5), _said(0.0)
    ('12,300', '3.5', '0')
    """
    return f"{value:,.6g}"
