"""How many rounds LightGBM makes: those that were best on blocks of time known before the first test origin."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
from scipy.special import expit

from models.backtest import Origin
from models.calibration import calibrated_loss
from models.ladder import Recipe, Trees, fit_recipe, possible
from models.propensity import ROUNDS

# Blocks of time that are looked at together: one alone says little.
_WATCHED = 3
_FEWEST, _MOST, _STEP = 50, 400, 10
# Of each part. A few large amounts, such as yearly renewals that no earlier block has seen, would stop them at once, and 200 to
# 400 are much the same.
OF_AMOUNTS = 300


def rounds_for(
    rows: pd.DataFrame, plan: Sequence[Origin], recipe: Recipe, horizon: timedelta, *, is_amount: bool, seed: int
) -> int:
    """Choose LightGBM's rounds by the last blocks of time that were known before the first test origin; 300 for amounts.

    Those blocks are purged of what they are learned from, like an origin. Where history is too short for that, or holds one label
    only, the usual number.
    """
    if is_amount:
        return OF_AMOUNTS
    known = next(origin for origin in plan if origin.is_test).train_cutoffs
    watched = known[-_WATCHED:]
    earlier = [cutoff for cutoff in known if cutoff + horizon <= watched[0]]
    learned, later = rows[rows.cutoff.isin(earlier)], rows[rows.cutoff.isin(watched)]
    if min(learned.label.nunique(), later.label.nunique()) < 2 or "lightgbm" not in possible(
        learned.label, recipe, is_amount=False
    ):
        return ROUNDS
    return rounds_needed(learned, later, recipe, seed=seed)


def rounds_needed(earlier: pd.DataFrame, later: pd.DataFrame, recipe: Recipe, *, seed: int) -> int:
    """Give after how many rounds, by tens, a recipe's trees of `earlier` rows are best on `later` ones (`label` is 0/1).

    That is by what is left wrong when they are calibrated on them: scores are calibrated later, and a block of another level would
    stop trees that still learn the order. Bounded to 50 to 400: one block of time says little about the last few rounds.
    """
    most = replace(recipe, rung="lightgbm", rounds=_MOST)
    trees = fit_recipe(earlier, earlier.label, most, is_amount=False, seed=seed)
    assert isinstance(trees, Trees)
    x, label = later[list(recipe.features)].to_numpy(), later.label.to_numpy(dtype=np.float64)
    raw, losses = np.zeros(len(later)), {}
    for done in range(0, _MOST, _STEP):
        # One thread, as everywhere in a training (see `models.ladder`).
        more = trees.booster.predict(x, raw_score=True, start_iteration=done, num_iteration=_STEP, num_threads=1)
        raw += np.asarray(more)
        losses[done + _STEP] = calibrated_loss(np.asarray(expit(raw)), label)
    return min(range(_FEWEST, _MOST + 1, _STEP), key=losses.__getitem__)
