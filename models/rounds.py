"""How many rounds LightGBM makes: those that were best on blocks of time known before the first test origin."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
from scipy.special import expit

from models.backtest import Origin
from models.calibration import amount_loss, calibrated_loss
from models.ladder import Recipe, Trees, fit_recipe, possible
from models.propensity import ROUNDS, Floats

# Blocks of time that are looked at together: one alone says little.
_WATCHED = 3
_FEWEST, _MOST, _STEP = 50, 400, 10
# A few large amounts, such as yearly renewals that no earlier block has seen, would stop them at once.
_FEWEST_OF_AMOUNTS = 200


def rounds_for(
    rows: pd.DataFrame, plan: Sequence[Origin], recipe: Recipe, horizon: timedelta, *, is_amount: bool, seed: int
) -> int:
    """Choose LightGBM's rounds by the last blocks of time that were known before the first test origin.

    Those blocks are purged of what they are learned from, like an origin. Where history is too short for that, or holds one label
    only, the usual number.
    """
    known = next(origin for origin in plan if origin.is_test).train_cutoffs
    watched = known[-_WATCHED:]
    earlier = [cutoff for cutoff in known if cutoff + horizon <= watched[0]]
    learned, later = rows[rows.cutoff.isin(earlier)], rows[rows.cutoff.isin(watched)]
    if min(learned.label.nunique(), later.label.nunique()) < 2 or "lightgbm" not in possible(
        learned.label, recipe, is_amount=is_amount
    ):
        return ROUNDS
    return rounds_needed(learned, later, recipe, is_amount=is_amount, seed=seed)


def rounds_needed(earlier: pd.DataFrame, later: pd.DataFrame, recipe: Recipe, *, is_amount: bool, seed: int) -> int:
    """Give after how many rounds, by tens, a recipe's trees of `earlier` rows are best on `later` ones (both with `label`).

    Of a probability that is what is left wrong when it is calibrated on them: scores are calibrated later, and a block of another
    level would stop trees that still learn the order. Bounded to 50 (of amounts 200) to 400: one block of time says little about
    the last few rounds.
    """
    names = list(recipe.features)
    most = replace(recipe, rung="lightgbm", rounds=_MOST)
    trees = fit_recipe(earlier, earlier.label, most, is_amount=is_amount, seed=seed)
    assert isinstance(trees, Trees)
    x, label = later[names].to_numpy(dtype=np.float64), later.label.to_numpy(dtype=np.float64)
    fewest = _FEWEST_OF_AMOUNTS if is_amount else _FEWEST
    raw, losses = np.zeros(len(later)), {}
    for done in range(0, _MOST, _STEP):
        # One thread, as everywhere in a training (see `models.ladder`).
        more = trees.booster.predict(x, raw_score=True, start_iteration=done, num_iteration=_STEP, num_threads=1)
        raw += np.asarray(more)
        losses[done + _STEP] = _loss(raw, label, is_amount=is_amount)
    return min(range(fewest, _MOST + 1, _STEP), key=losses.__getitem__)


def _loss(raw: Floats, label: Floats, *, is_amount: bool) -> float:
    return amount_loss(np.exp(raw), label) if is_amount else calibrated_loss(np.asarray(expit(raw)), label)
