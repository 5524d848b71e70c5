"""Matching: which persona of a new fit is which of the former one, by the people in them and by where they lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from models.propensity import Floats

# Two personas are the same when they share at least this part of the people in either (Jaccard).
SAME = 0.25
_MOSTLY = 0.5
# How much the distance of the centres says beside the members, who say most.
_CENTRES = 0.25

Kind = Literal["new", "split", "merged", "gone", "renamed"]


@dataclass(frozen=True)
class Change:
    """A persona that is new, split off from or merged into `other`, gone, or renamed since its name had become untrue.

    `share` of its users came from or went to `other`.
    """

    kind: Kind
    persona: int
    other: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Matching:
    """What became of the former personas: the id of each new cluster, the share of users who keep theirs, and what changed."""

    ids: tuple[int, ...]
    kept: float
    changes: tuple[Change, ...]


def agreement(one: np.ndarray, other: np.ndarray, *, k: int) -> float:
    """Pair two clusterings of the same users into k (Kuhn, 1955), and give the share of the users who are in one pair in both."""
    shared = contingency(one, other, rows=k, columns=k)
    return float(shared[linear_sum_assignment(-shared)].sum() / max(1, shared.sum()))


def contingency(one: np.ndarray, other: np.ndarray, *, rows: int, columns: int) -> np.ndarray:
    """Count the users in each pair of clusters: `one`'s by row, `other`'s by column."""
    return np.bincount(one * columns + other, minlength=rows * columns).reshape(rows, columns)


def centres(scaled: Floats, labels: np.ndarray, count: int) -> Floats:
    """Give the mean of each cluster's users, NaN where there are none: clusters × traits."""
    sums = np.zeros((count, scaled.shape[1]))
    np.add.at(sums, labels, scaled)
    sizes = np.bincount(labels, minlength=count)[:, None]
    return np.where(sizes > 0, sums / np.maximum(1, sizes), np.nan)


def match(
    former: np.ndarray | None, found: np.ndarray, scaled: Floats, *, former_ids: Sequence[int], count: int, next_id: int
) -> Matching:
    """Give the new clusters the ids of the former personas they continue, and ids never used before to the others.

    `former` and `found` are each user's place among `former_ids` and among the `count` new clusters, of the same users whose
    traits are `scaled` (users × traits). Pairs are assigned (Kuhn, 1955) so that the sum of what they share is largest: members,
    as their part of the people in either (Jaccard), and the closeness of their centres. A pair that shares less than a quarter of
    its members is no pair. `former` is None when nothing is left that the former personas were told by: then every cluster is new.
    """
    fresh = iter(range(next_id, next_id + count))
    if former is None:
        ids = tuple(fresh)
        return Matching(ids, 0.0, (*(Change("new", number) for number in ids), *(Change("gone", number) for number in former_ids)))
    shared = contingency(found, former, rows=count, columns=len(former_ids))
    new, old = shared.sum(axis=1), shared.sum(axis=0)
    alike = shared / np.maximum(1, new[:, None] + old[None, :] - shared)
    closeness = _closeness(centres(scaled, found, count), centres(scaled, former, len(former_ids)))
    rows, columns = linear_sum_assignment(-(alike + _CENTRES * closeness))
    pairs = {int(row): int(column) for row, column in zip(rows, columns, strict=True) if alike[row, column] >= SAME}
    ids = tuple(former_ids[pairs[row]] if row in pairs else next(fresh) for row in range(count))
    kept = sum(int(shared[pair]) for pair in pairs.items()) / max(1, int(shared.sum()))
    return Matching(ids, kept, (*_arrived(shared, ids, pairs, former_ids), *_left(shared, ids, pairs, former_ids)))


def _arrived(shared: np.ndarray, ids: Sequence[int], pairs: Mapping[int, int], former_ids: Sequence[int]) -> list[Change]:
    """Tell where the people of each cluster without a former one come from."""
    found = []
    for row in range(len(ids)):
        if row not in pairs:
            most, share = _most(shared[row])
            # Its people were mostly of one persona, which others continue: it is a part of that one.
            is_split = share > _MOSTLY and most in pairs.values()
            found.append(Change("split", ids[row], former_ids[most], share) if is_split else Change("new", ids[row]))
    return found


def _left(shared: np.ndarray, ids: Sequence[int], pairs: Mapping[int, int], former_ids: Sequence[int]) -> list[Change]:
    """Tell where the people of each former persona that no cluster continues have gone."""
    found = []
    for column in range(len(former_ids)):
        if column not in pairs.values():
            most, share = _most(shared[:, column])
            is_merged = share > _MOSTLY
            found.append(
                Change("merged", former_ids[column], ids[most], share) if is_merged else Change("gone", former_ids[column])
            )
    return found


def _most(counts: np.ndarray) -> tuple[int, float]:
    most = int(counts.argmax())
    return most, float(counts[most] / max(1, counts.sum()))


def _closeness(new: Floats, old: Floats) -> Floats:
    """Give 1 for centres at one place, and 0 for those as far from each other as the farthest, or for a centre of nobody."""
    distance = np.sqrt(((new[:, None, :] - old[None, :, :]) ** 2).sum(axis=2))
    farthest = np.nanmax(distance) if np.isfinite(distance).any() else 0.0
    closeness: Floats = np.nan_to_num(1.0 - distance / (farthest or 1.0), nan=0.0)
    return closeness
