"""Shapley values of a LightGBM booster's trees, exact and by looking up instead of walking.

A tree asks a row few questions. So the Shapley values of every combination of answers are computed once per booster, and a row
takes as many comparisons as a tree has splits, and as many look-ups as it has features. Large trees are cut into groups of leaves,
since values add up over leaves and trees.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd

from models.parts import in_parts
from models.propensity import Floats

# Questions answered together: 2 ** 8 combinations fit in a byte, and their values in the processor's cache.
_TOGETHER = 8
# Features on the way to one leaf whose combinations are still worth a table; beyond, rows are computed one by one.
_DEEP = 12
# Rows at a time: their features and sums fit in the cache, and work in numpy outweighs calling it.
_ROWS = 8_192

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Condition:
    """Whether a row goes left at a split."""

    feature: int
    threshold: float
    null_goes_left: bool

    def holds(self, columns: Floats) -> Bools:
        """Answer for every row of `columns` (features × rows)."""
        if self.null_goes_left:
            return np.asarray(~(columns[self.feature] > self.threshold))
        return np.asarray(columns[self.feature] <= self.threshold)


@dataclass(frozen=True)
class Step:
    """A split on the way to a leaf: its condition, the side taken, and the share of its training rows that took it."""

    condition: Condition
    left: bool
    share: float

    def taken(self, columns: Floats) -> Bools:
        """Say which rows of `columns` (features × rows) take this side."""
        holds = self.condition.holds(columns)
        return holds if self.left else ~holds


@dataclass(frozen=True)
class Leaf:
    """A leaf's value, and the steps to it from the root, by feature."""

    value: float
    steps: Mapping[int, Sequence[Step]]

    @property
    def shares(self) -> Floats:
        """The share that each feature lets pass when it is unknown."""
        return np.array([np.prod([step.share for step in steps]) for steps in self.steps.values()])

    @property
    def conditions(self) -> set[Condition]:
        """What is asked on the way to it."""
        return {step.condition for steps in self.steps.values() for step in steps}


@dataclass(frozen=True)
class Block:
    """Leaves that share a few questions: Shapley values of `features` (rows) for every combination of answers (columns).

    The answer to a question is yes when a row takes all its steps; the first question is the highest bit of a combination.
    """

    questions: tuple[Sequence[Step], ...]
    features: tuple[int, ...]
    values: Floats


@dataclass(frozen=True)
class Explainer:
    """All trees of a booster of `width` features: blocks, and the leaves that lie too deep for one."""

    width: int
    blocks: tuple[Block, ...]
    deep: tuple[Leaf, ...]

    def __call__(self, x: pd.DataFrame, *, threads: int) -> Floats:
        """Give the Shapley values of every row and feature of `x` (rows × features); beside them, memory is bounded."""
        found = np.empty(x.shape)

        def fill(part: slice) -> None:
            found[part] = self._sums(np.ascontiguousarray(x.iloc[part].to_numpy(dtype=np.float64).T)).T

        in_parts(fill, len(x), size=_ROWS, threads=threads)
        return found

    def _sums(self, columns: Floats) -> Floats:
        sums = np.zeros(columns.shape)
        looked_up = np.empty(columns.shape[1])
        for block in self.blocks:
            answers = np.zeros(columns.shape[1], dtype=np.uint8 if len(block.questions) <= _TOGETHER else np.uint16)
            for question in block.questions:
                # Doubling is faster than shifting, which numpy does not do many at a time.
                np.add(answers, answers, out=answers)
                np.bitwise_or(answers, _all_taken(question, columns).view(np.uint8), out=answers)
            place = answers.astype(np.intp)
            for feature, values in zip(block.features, block.values, strict=True):
                np.take(values, place, out=looked_up, mode="clip")
                sums[feature] += looked_up
        for leaf in self.deep:
            passed = np.stack([_all_taken(steps, columns) for steps in leaf.steps.values()])
            sums[list(leaf.steps)] += leaf.value * _shapley(passed, leaf.shares)
        return sums


@lru_cache(maxsize=16)
def explainer(booster: lightgbm.Booster, trees: int) -> Explainer:  # noqa: ARG001 - a booster that has grown is another
    """Prepare a booster of so many trees; it is kept, since a night asks for it batch after batch.

    Of a booster that was stopped early, the trees that it predicts with. Raises ValueError when it has splits on categories, zeros
    taken for null, or several classes: then it is none of ours.
    """
    told = booster.dump_model()
    if told["num_tree_per_iteration"] != 1:
        raise ValueError(f"reasons need one tree per round, got {told['num_tree_per_iteration']}")
    blocks, deep = [], []
    for tree in told["tree_info"]:
        for leaves in _together(_leaves(tree["tree_structure"], ())):
            conditions = tuple(dict.fromkeys(condition for leaf in leaves for condition in sorted(leaf.conditions, key=repr)))
            if len(conditions) <= _TOGETHER:
                blocks.append(_block(leaves, conditions))
            elif len(leaves[0].steps) <= _DEEP:
                blocks.append(_block_of_one(leaves[0]))
            else:
                deep.append(leaves[0])
    return Explainer(booster.num_feature(), tuple(blocks), tuple(deep))


def _leaves(node: Mapping[str, Any], way: tuple[Step, ...]) -> Iterator[Leaf]:
    """Give the leaves below a node, from left to right; a tree without a split has none that matters."""
    if "split_feature" not in node:
        features = dict.fromkeys(step.condition.feature for step in way)
        if way:
            yield Leaf(node["leaf_value"], {name: [step for step in way if step.condition.feature == name] for name in features})
        return
    if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
        raise ValueError(f"reasons need numbers, got a split {node['decision_type']!r}, missing {node['missing_type']!r}")
    # A booster that met no null in a feature takes one for zero.
    left_takes_null = node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0
    condition = Condition(node["split_feature"], node["threshold"], left_takes_null)
    for side in ("left", "right"):
        child = node[f"{side}_child"]
        share = child.get("internal_count", child.get("leaf_count")) / node["internal_count"]
        yield from _leaves(child, (*way, Step(condition, side == "left", share)))


def _together(leaves: Iterable[Leaf]) -> Iterator[list[Leaf]]:
    """Group neighbouring leaves as long as few conditions lead to them; who needs more alone is alone."""
    group: list[Leaf] = []
    conditions: set[Condition] = set()
    for leaf in leaves:
        if group and len(conditions | leaf.conditions) > _TOGETHER:
            yield group
            group, conditions = [], set()
        group.append(leaf)
        conditions |= leaf.conditions
    if group:
        yield group


def _block(leaves: Sequence[Leaf], conditions: Sequence[Condition]) -> Block:
    holds = dict(zip(conditions, _combinations(len(conditions)), strict=True))
    features = tuple(dict.fromkeys(condition.feature for condition in conditions))
    values = np.zeros((len(features), 2 ** len(conditions)))
    for leaf in leaves:
        passed = [np.logical_and.reduce([holds[s.condition] == s.left for s in steps]) for steps in leaf.steps.values()]
        values[[features.index(name) for name in leaf.steps]] += leaf.value * _shapley(np.stack(passed), leaf.shares)
    return Block(tuple((Step(condition, True, 1.0),) for condition in conditions), features, values)


def _block_of_one(leaf: Leaf) -> Block:
    """Ask of each feature whether it lets a row pass to the leaf, however often the way to it asks the feature."""
    values = leaf.value * _shapley(_combinations(len(leaf.steps)), leaf.shares)
    return Block(tuple(leaf.steps.values()), tuple(leaf.steps), values)


def _all_taken(steps: Sequence[Step], columns: Floats) -> Bools:
    taken = steps[0].taken(columns)
    for step in steps[1:]:
        taken &= step.taken(columns)
    return taken


@cache
def _combinations(count: int) -> Bools:
    """Give every combination of so many answers, in columns; the first row is the highest bit of a column's number."""
    return np.stack([(np.arange(2**count) >> at & 1).astype(bool) for at in reversed(range(count))])


@cache
def _rule(count: int) -> tuple[tuple[float, float], ...]:
    """Give points and weights that integrate a polynomial of degree `count - 1` over 0 to 1 exactly (Gauss and Legendre)."""
    points, weights = np.polynomial.legendre.leggauss((count + 1) // 2)
    return tuple(zip((points + 1) / 2, weights / 2, strict=True))


def _shapley(passed: Bools, shares: Floats) -> Floats:
    """Give the Shapley values (features × cases) of the game whose worth is a product over features.

    A known feature gives 1 or 0 (`passed`), an unknown one its share, as in path-dependent Tree SHAP (Lundberg et al., 2020).
    Owen's integral of the multilinear extension (1972) is one of a polynomial here, so a sum over few points is exact.
    """
    known, unknown = passed.astype(np.float64), shares[:, None]
    found = np.zeros(known.shape)
    for point, weight in _rule(len(shares)):
        factor = point * known + (1 - point) * unknown
        found += weight * factor.prod(axis=0) / factor
    return np.asarray((known - unknown) * found)
