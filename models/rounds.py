"""How many rounds LightGBM makes, and which of many features are read: by what was known before the first test origin."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import expit

from features.catalogue import DATE
from models.backtest import Origin, apart, at_cutoffs, elapsed, first_test
from models.calibration import calibrated_loss
from models.ladder import Recipe, Trees, fit_trees, possible
from models.propensity import RATE, ROUNDS, Bins, rarer

# Blocks of time that are looked at together: one alone says little. They are more where the rarer label is seen less often than
# `_ENOUGH` in these; what fewer than `_TOO_FEW` ask for is chance.
_WATCHED, _ENOUGH, _TOO_FEW = 3, 100, 30
# Of trees that learn as fast as usual.
_FEWEST, _MOST, _STEP = 50, 400, 10
# Twice the leaves are tried up to here: beyond, trees have had rows enough to ask for theirs (see `models.propensity`).
_MOST_LEAVES = 32
# More of them mostly gain nothing, and every fit and every night pays for them (decisions 76 and 100).
ENOUGH_FEATURES = 100
# Of each part. A few large amounts, such as yearly renewals that no earlier block has seen, would stop them at once, and 200 to
# 400 are much the same.
OF_AMOUNTS = 300
# By how much what is on trial must lower the log loss, a mean over two seeds: another seed moves that of one by 0.1 %.
_WORTH = 0.002


def settled(
    rows: pd.DataFrame,
    plan: Sequence[Origin],
    recipe: Recipe,
    horizon: timedelta,
    *,
    on_trial: Mapping[str, str] | None = None,
    is_amount: bool,
    seed: int,
) -> Recipe:
    """Settle a recipe's rounds and features by what was known before the first test origin.

    Rounds are watched on the last blocks of time that were known then, three or as many as hold 100 of the rarer label, purged of
    what they are learned from, like an origin; the trees learned for that tell the features. Where history is too short, or holds
    fewer than 30 of the rarer label there, rounds are the usual number and all features stay but those `on_trial`; of an amount all
    stay but those that tell dates apart, and rounds are 300.
    """
    on_trial = on_trial or {}
    if is_amount:
        dates = [name for name, purpose in on_trial.items() if purpose == DATE]
        return replace(recipe, rounds=OF_AMOUNTS, features=_without(dates, recipe))
    found = _watched(rows, first_test(plan).known, horizon, recipe)
    if found is None:
        return replace(recipe, rounds=ROUNDS * _times(recipe), features=_without(on_trial, recipe))
    return settled_on(*found, recipe, on_trial=on_trial, seed=seed)


def rounds_for(
    rows: pd.DataFrame, plan: Sequence[Origin], recipe: Recipe, horizon: timedelta, *, is_amount: bool, seed: int
) -> int:
    """Choose the rounds of a recipe as it is, by what was known before the first test origin (see `settled`)."""
    if is_amount:
        return OF_AMOUNTS
    found = _watched(rows, first_test(plan).known, horizon, recipe)
    if found is None:
        return ROUNDS * _times(recipe)
    earlier, later = found
    return _Proven(replace(recipe, rung="lightgbm", rounds=_MOST * _times(recipe)), _Earlier(earlier), later, seed).rounds


def _watched(
    rows: pd.DataFrame, known: Sequence[datetime], horizon: timedelta, recipe: Recipe
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Give the rows to learn from and those of the latest blocks to watch; None where either are too few.

    Where more than three are watched, there are at least as many of the rarer label to learn from.
    """
    found = None
    for count in range(_WATCHED, len(known)):
        watched = known[-count:]
        earlier = apart(elapsed(known, horizon, watched[0]), horizon)
        learned, later = (rows.label[rows.cutoff.isin(cutoffs)] for cutoffs in (earlier, watched))
        seen = rarer(later, is_amount=False)
        is_more = count > _WATCHED and rarer(learned, is_amount=False) < seen
        if is_more or "lightgbm" not in possible(learned, recipe, is_amount=False):
            break
        found = (earlier, watched) if seen >= _TOO_FEW else None
        if seen >= _ENOUGH:
            break
    return None if found is None else (at_cutoffs(rows, found[0]), at_cutoffs(rows, found[1]))


def settled_on(
    earlier: pd.DataFrame, later: pd.DataFrame, recipe: Recipe, *, on_trial: Mapping[str, str] | None = None, seed: int
) -> Recipe:
    """Settle a recipe by its trees of `earlier` rows and how good they are on `later` ones (`label` is 0/1).

    Rounds, by tens, are those that leave least wrong when the scores are calibrated on the later rows: they are calibrated later on
    anyway, and a block of another level would stop trees that still learn the order. Bounded to 50 to 400, or at half the rate to
    twice that: one block of time says little about the last few rounds. Models are fitted within dates, trees have twice the leaves
    (up to 32), and features stay that are `on_trial` (name to what for), where that, or those for one purpose together, leave less
    with both of two seeds, and on average a fifth of a percent less. What tells dates apart is tried within dates: elsewhere it
    would learn how things went from one cutoff to the next, and go on so. Of more than 100 features those stay by which the trees
    gained most, what the simple rules read, and those that `monotone` names, unless all leave as much less than these.
    """
    on_trial = on_trial or {}
    given = replace(recipe, rung="lightgbm", rounds=_MOST * _times(recipe), features=_without(on_trial, recipe))
    best = _Proven(given, _Earlier(earlier), later, seed)
    best = best.or_better(replace(best.recipe, within_dates=True))
    if 2 * recipe.leaves <= _MOST_LEAVES and "num_leaves" not in recipe.parameters:
        best = best.or_better(replace(best.recipe, leaves=2 * recipe.leaves))
    for purpose in sorted(set(on_trial.values())):
        others = {name for name, other in on_trial.items() if other != purpose and name not in best.recipe.features}
        within_dates = best.recipe.within_dates or purpose == DATE
        best = best.or_better(replace(best.recipe, features=_without(others, recipe), within_dates=within_dates))
    fewer = replace(best.recipe, features=_features(best.trees, recipe))
    features = best.recipe.features if best.is_better_than(fewer) else fewer.features
    return replace(best.recipe, rung=recipe.rung, rounds=best.rounds, features=features)


def _times(recipe: Recipe) -> int:
    """Give how many times as many rounds as usual get as far; a rate that the parameters say is tried as if it were usual."""
    return 1 if "learning_rate" in recipe.parameters else round(RATE / recipe.rate)


class _Earlier:
    """Rows to learn from. Recipes that read the same features, one after another, share their bins."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self._rows, self._read, self._bins = rows, tuple[str, ...](), Bins()

    def grown(self, recipe: Recipe, *, seed: int) -> Trees:
        """Grow the trees of a recipe."""
        if recipe.features != self._read:
            self._read, self._bins = recipe.features, Bins()
        return fit_trees(self._rows, self._rows.label, recipe, is_amount=False, seed=seed, bins=self._bins)


@dataclass(frozen=True)
class _Proven:
    """The recipe that others are held against, and what it leaves wrong on the later rows."""

    recipe: Recipe
    earlier: _Earlier
    later: pd.DataFrame
    seed: int

    @cached_property
    def trees(self) -> Trees:
        """Trees of the most rounds."""
        return self.earlier.grown(self.recipe, seed=self.seed)

    @cached_property
    def losses(self) -> dict[int, float]:
        """What is left after each number of rounds."""
        return _losses(self.trees, self.later, _times(self.recipe))

    @property
    def rounds(self) -> int:
        """After how many rounds least is left."""
        return min(self.losses, key=self.losses.__getitem__)

    @cached_property
    def left(self) -> float:
        """What is left after so many rounds."""
        return self.losses[self.rounds]

    @cached_property
    def left_again(self) -> float:
        """What another seed leaves after as many."""
        return self._left_by(self.recipe, self.seed + 1)

    def or_better(self, tried: Recipe) -> "_Proven":
        """Give way to a recipe that leaves enough less after as many rounds as are best here."""
        is_better = tried != self.recipe and _is_enough_less((left, own) for own, left in self._beside(tried))
        return replace(self, recipe=tried) if is_better else self

    def is_better_than(self, other: Recipe) -> bool:
        """Whether another recipe leaves enough more after as many rounds."""
        return other != self.recipe and _is_enough_less(self._beside(other))

    def _beside(self, other: Recipe) -> Iterator[tuple[float, float]]:
        """Give, seed by seed, what is left and what another recipe leaves."""
        yield self.left, self._left_by(other, self.seed)
        yield self.left_again, self._left_by(other, self.seed + 1)

    def _left_by(self, recipe: Recipe, seed: int) -> float:
        raw = self.earlier.grown(replace(recipe, rounds=self.rounds), seed=seed).raw(self.later)
        return calibrated_loss(raw, self.later.label.to_numpy(dtype=np.float64))


def _is_enough_less(losses: Iterable[tuple[float, float]]) -> bool:
    """Whether the first of each two is less, and all of them by enough; what one seed denies, no other is asked."""
    found = []
    for one, other in losses:
        if one >= other:
            return False
        found.append((one, other))
    ours, others = np.mean(found, axis=0)
    return bool(ours < (1 - _WORTH) * others)


def _without(on_trial: Collection[str], recipe: Recipe) -> tuple[str, ...]:
    wanted = _wanted(recipe)
    return tuple(name for name in recipe.features if name in wanted or name not in on_trial)


def _wanted(recipe: Recipe) -> set[str]:
    """Give what is read whatever it is worth."""
    return {*recipe.recency, *recipe.rfm, *recipe.monotone}


def _losses(trees: Trees, later: pd.DataFrame, times: int) -> dict[int, float]:
    """Give the log loss that calibration leaves after each number of rounds."""
    x, label = later[list(trees.features)].to_numpy(), later.label.to_numpy(dtype=np.float64)
    raw, losses = np.zeros(len(later)), {}
    fewest, most, step = (rounds * times for rounds in (_FEWEST, _MOST, _STEP))
    for done in range(0, most, step):
        # One thread, as everywhere in a training (see `models.ladder`).
        more = trees.booster.predict(x, raw_score=True, start_iteration=done, num_iteration=step, num_threads=1)
        raw += np.asarray(more)
        losses[done + step] = calibrated_loss(np.asarray(expit(raw)), label)
    return {rounds: loss for rounds, loss in losses.items() if rounds >= fewest}


def _features(trees: Trees, recipe: Recipe) -> tuple[str, ...]:
    gains = pd.Series(trees.booster.feature_importance("gain"), index=trees.features)
    kept = {*gains.nlargest(ENOUGH_FEATURES).index, *_wanted(recipe)}
    return tuple(name for name in recipe.features if name in kept)
