"""What tuning may try of LightGBM, and the one number by which it is judged: the error at origins before every reported one.

train cutoffs ──▶│ watched for rounds │──▶│ judged origins │──horizon──▶│ first test origin
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from models.backtest import Origin, at_cutoffs, elapsed, first_test
from models.ladder import Recipe, fit_recipe, possible
from models.metrics import AMOUNT_MEASURE, measures_drawn
from models.ranking import rank
from models.rounds import rounds_for

_MOST_JUDGED = 4
# What LightGBM takes where a recipe says nothing.
_UNSAID: Mapping[str, Any] = {"min_gain_to_split": 0.0, "extra_trees": False}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; tried evenly by their logarithm when `is_log`, whole ones when `is_whole`."""

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class Choice:
    """One of a few values without an order."""

    values: tuple[Any, ...]


Space = Mapping[str, Range | Choice]


@dataclass(frozen=True)
class Judged:
    """How wrong a recipe was: the mean of `by_origin`, each the error at one origin; and the rounds it was fitted with."""

    loss: float
    rounds: int
    by_origin: Mapping[datetime, float]


def measure_of(*, is_amount: bool) -> str:
    """Name the measure that tuning makes small: of a probability a proper one, which both its order and its size enter."""
    return AMOUNT_MEASURE if is_amount else "log_loss"


def space_of(rows: int) -> Space:
    """Give what may be tried of each parameter when a model learns from so many rows.

    A leaf never needs more than a tenth of them: such a tree could not be told from a constant.
    """
    return {
        "learning_rate": Range(0.02, 0.1, is_log=True),
        "num_leaves": Range(4, 32, is_log=True, is_whole=True),
        "min_data_in_leaf": Range(5, int(np.clip(rows // 10, 10, 500)), is_log=True, is_whole=True),
        "feature_fraction": Range(0.1, 0.8),
        "bagging_fraction": Range(0.5, 1.0),
        "lambda_l2": Range(0.1, 100.0, is_log=True),
        "min_gain_to_split": Range(0.0, 1.0),
        "extra_trees": Choice((False, True)),
    }


def place_in(space: Space, recipe: Recipe, rows: int) -> dict[str, Any]:
    """Give the point of the space that is nearest to what the recipe says already, learned from so many rows.

    >>> place_in(space_of(9_000), Recipe("lightgbm", ("recency",), parameters={"num_leaves": 99}), 9_000)["num_leaves"]
    32
    """
    told = {**_UNSAID, "min_data_in_leaf": int(np.clip(rows // 100, 5, 100)), **recipe.settings}
    return {
        name: told[name] if isinstance(allowed, Choice) else type(told[name])(np.clip(told[name], allowed.low, allowed.high))
        for name, allowed in space.items()
    }


def judging_origins(
    rows: pd.DataFrame, plan: Sequence[Origin], recipe: Recipe, horizon: timedelta, *, is_amount: bool
) -> tuple[Origin, ...]:
    """Choose the origins to judge by, oldest first: up to four, and up to half of those that there are.

    They are the latest cutoffs whose horizon had elapsed at the first test origin: not those calibration origins whose label still
    looks into its horizon. Each is purged of what it is predicted from, as in a backtest. One that LightGBM cannot be fitted for
    or, of a probability, that has one label only, is left out; there may be no origin at all. The older half of the past is left to
    choose rounds by.
    """
    known = first_test(plan).known
    candidates = [Origin(cutoff, elapsed(known, horizon, cutoff), True, horizon) for cutoff in known]
    usable = [origin for origin in candidates if _is_usable(rows, origin, recipe, is_amount=is_amount)]
    return tuple(usable[-min(_MOST_JUDGED, (len(usable) + 1) // 2) :]) if usable else ()


def _is_usable(rows: pd.DataFrame, origin: Origin, recipe: Recipe, *, is_amount: bool) -> bool:
    learned, here = rows.label[rows.cutoff.isin(origin.train_cutoffs)], rows.label[rows.cutoff == origin.cutoff]
    is_told_apart = len(here) > 0 if is_amount else here.nunique() == 2
    return is_told_apart and "lightgbm" in possible(learned, recipe, is_amount=is_amount)


def judged(
    rows: pd.DataFrame,
    recipe: Recipe,
    origins: Sequence[Origin],
    horizon: timedelta,
    *,
    is_amount: bool,
    seed: int,
    jobs: int = 1,
) -> Judged:
    """Fit a recipe's trees for each origin and give their mean log loss there, or Poisson deviance of an amount.

    `rows` has one row per eligible user and cutoff: `user_id`, `cutoff`, `label` and the features; only those at the origins and
    at their train cutoffs are read. Rounds are chosen by stopping on blocks of time before the first of the origins, so that no
    origin judges what was chosen on it. Origins are fitted `jobs` at a time, each in one thread, and give the same in any number.
    """
    # Features were settled with the recipe, and are the same for all that is tried.
    rounds = rounds_for(rows, origins, recipe, horizon, is_amount=is_amount, seed=seed)
    fitted = replace(recipe, rung="lightgbm", rounds=rounds)
    found = Parallel(n_jobs=jobs, prefer="threads")(
        delayed(_loss)(rows, fitted, origin, is_amount=is_amount, seed=seed) for origin in origins
    )
    by_origin = {origin.cutoff: loss for origin, loss in zip(origins, found, strict=True)}
    return Judged(float(np.mean(list(by_origin.values()))), rounds, by_origin)


def _loss(rows: pd.DataFrame, recipe: Recipe, origin: Origin, *, is_amount: bool, seed: int) -> float:
    learned, here = at_cutoffs(rows, origin.train_cutoffs), at_cutoffs(rows, [origin.cutoff])
    raw = fit_recipe(learned, learned.label, recipe, is_amount=is_amount, seed=seed).raw(here)
    name = measure_of(is_amount=is_amount)
    ranking = rank(here.label.to_numpy(dtype=np.float64), raw)
    return float(measures_drawn(ranking, np.ones((1, len(here))), is_amount=is_amount, only={name})[name][0])
