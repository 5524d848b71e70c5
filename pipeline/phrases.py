"""Phrases: the reasons of many users in words, each distinct wording made once; the words are the catalogue's."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.catalogue import Feature, phrase
from models.propensity import Floats
from models.reasons import Reasons
from pipeline.columns import REASON, REASONS, with_arrow

# How many stretches of 1 `catalogue.amount` may tell apart: twice its decimals, since rounding changes at halves.
_STRETCHES = {"number": 200, "score": 200, "mixture": 20}
_OF_CENTS, _OF_WHOLE, _BELOW_ONE = 200, 2, 20
# Small shares and ratios have a decimal more: below what, how many stretches there and above.
_FINER = {"share": (0.005, 2000, 200), "times": (0.05, 200, 20)}
# Below a day hours are told, whose halves, and 0.95 of one, are 10 and 19 of these.
_OF_HOURS = 480
# Nearer to the end of a stretch than this, binary fractions may fall on either side.
_NEAR = 1e-6


def reasons_column(
    frame: pd.DataFrame,
    found: Reasons,
    names: Sequence[str],
    by_name: Mapping[str, Feature],
    *,
    currency: str = "",
    typical: Mapping[str, float] | None = None,
) -> pa.ListArray:
    """Give a list of REASON per user, strongest first; `found` holds places in `names`, and its users are the rows of `frame`.

    `frame` has the features' values, and where it can those that they are compared with; infinities are told as nulls, as models
    take them. `typical` are the population's values by feature, for features that a user has no usual value of.
    """
    users, most = found.feature.shape
    flat = found.feature.ravel()
    values, codes = np.full(len(flat), np.nan), np.zeros(len(flat), dtype=np.int64)
    texts: list[str] = []
    for column in np.unique(flat):
        feature = by_name[names[column]]
        places = np.flatnonzero(flat == column)
        compared = [name for name in (feature.name, feature.usual) if name and name in frame.columns]
        told = {name: _finite(frame[name].to_numpy(dtype=np.float64)[places // most]) for name in compared}
        values[places] = told[feature.name]
        kinds, examples = _alike([alike(by_name[name].unit, own) for name, own in told.items()])
        codes[places] = kinds + len(texts)
        common = (typical or {}).get(feature.name)
        for row in zip(*(own[examples].tolist() for own in told.values()), strict=True):
            texts.append(phrase(feature, dict(zip(told, row, strict=True)), by_name, currency=currency, typical=common))
    columns = [
        pa.array(names, pa.string()).take(pa.array(flat)),
        pa.array(values, mask=np.isnan(values)),
        pa.array(found.contribution.ravel(), pa.float64()),
        pa.array(texts, pa.string()).take(pa.array(codes)),
    ]
    offsets = pa.array(np.arange(users + 1, dtype=np.int32) * most)
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=list(REASON)), type=REASONS)


def among_all(told: pa.Array, asked: np.ndarray) -> pa.Array:
    """Spread what is told of the users who were `asked` (booleans) over all users; the others have nulls."""
    return told.take(pa.array(np.cumsum(asked) - 1, mask=~asked))


def reason_columns(told: Mapping[str, pa.ListArray], target: Sequence[str | None], *, most: int = 3) -> list[pa.Array]:
    """Write each user's reasons for a reader, as `with_arrow` does: `most` columns of text, null where there are fewer reasons.

    `told` are the lists of REASON by target. They are those of the user's own `target`, else of the first that has any.
    """
    names = list(told)
    named = np.array([names.index(name) if name is not None else -1 for name in target], dtype=np.int64)
    lengths = np.stack([pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False) for lists in told.values()])
    first = np.where(lengths.any(axis=0), (lengths > 0).argmax(axis=0), 0)
    users = np.arange(len(named))
    chosen = np.where((named >= 0) & (lengths[named, users] > 0), named, first)
    # Where each target's reasons begin in all of them, one target after another.
    ends = np.cumsum(lengths.ravel()).reshape(lengths.shape)
    start, count = (ends - lengths)[chosen, users], lengths[chosen, users]
    texts = pa.concat_arrays([_arrows(lists) for lists in told.values()])
    return [texts.take(pa.array(np.where(rank < count, start + rank, 0), mask=rank >= count)) for rank in range(most)]


def alike(unit: str, values: Floats) -> Floats:
    """Give a key per value, so that values with one key have one text in `catalogue.amount`.

    Every value between two ends of a stretch has the key of its middle; one at an end, as whole numbers are, is its own key.
    """
    size = np.abs(values)
    if unit == "money":
        stretches = np.where(size < 100, _OF_CENTS, _OF_WHOLE)
    elif unit in _FINER:
        least, finer, usual = _FINER[unit]
        stretches = np.where(size < least, finer, usual)
    elif unit in _STRETCHES:
        stretches = np.full(values.shape, _STRETCHES[unit])
    else:
        stretches = np.where(size < 1, _OF_HOURS if unit == "days" else _BELOW_ONE, _OF_WHOLE)
    at = values * stretches
    whole = np.floor(at)
    near = _NEAR + np.abs(at) * 1e-15
    ends = (at - whole < near) | (whole + 1 - at < near)
    return np.where(ends, values, (whole + 0.5) / stretches)


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


def _alike(keys: Sequence[Floats]) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct combinations of keys, and give an example of each: its first place."""
    kinds = np.zeros(len(keys[0]), dtype=np.int64)
    for own in keys:
        codes, distinct = pd.factorize(own, use_na_sentinel=False)
        kinds = pd.factorize(kinds * len(distinct) + codes)[0]
    examples = np.zeros(kinds.max(initial=-1) + 1, dtype=np.int64)
    places = np.arange(len(kinds))[::-1]
    examples[kinds[places]] = places
    return kinds, examples


def _arrows(lists: pa.ListArray) -> pa.Array:
    reasons = pc.list_flatten(lists)
    up, down = (with_arrow({"contribution": sign, "phrase": ""}) for sign in (1, -1))
    arrow = pc.if_else(pc.greater(pc.struct_field(reasons, "contribution"), 0), up, down)
    return pc.binary_join_element_wise(arrow, pc.struct_field(reasons, "phrase"), "")
