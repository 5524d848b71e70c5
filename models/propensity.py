"""One LightGBM model per target: a probability, or an expected amount."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.special import logit

Floats = npt.NDArray[np.float64]

# Leaves grow with the root of how much of the rarer answer there is to learn from, up to the most.
LEAVES, _MOST_LEAVES, _FEW = 8, 31, 20_000
# Twice as many steps of half the size are a mean over more draws of rows and features: worth it where rows are few (decision 103).
RATE, _SLOW = 0.05, 0.025
# Few leaves and few features a tree: snapshots of one user resemble each other, so rows count for less than they seem.
PARAMETERS: dict[str, Any] = {
    "learning_rate": RATE,
    "num_leaves": LEAVES,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 63,
    # Edges of 63 bins are known from so many rows to a seventh of a bin; whichever the seed, the same rows.
    "bin_construct_sample_cnt": 50_000,
    "data_random_seed": 1,
    "force_col_wise": True,
    "deterministic": True,
    "verbose": -1,
}
# Between Poisson's deviance, which a few large amounts lead, and those of higher powers, which leave totals low (decision 70).
_POWER = 1.2
_PROBABILITY: dict[str, Any] = {"objective": "binary"}
# Steps that keep to what is seen where almost everybody pays.
_WHETHER: dict[str, Any] = {"objective": "poisson", "poisson_max_delta_step": 0.1}
_HOW_MUCH: dict[str, Any] = {"objective": "tweedie", "tweedie_variance_power": _POWER}
ROUNDS = 150


def leaves_for(label: pd.Series, *, is_amount: bool) -> int:
    """Give how many leaves a tree may have: 8 up to 20,000 labels of the rarer kind, or amounts that are not zero; 31 from 300,000.

    >>> leaves_for(pd.Series([0.0, 1.0] * 80_000), is_amount=False)
    16
    """
    return int(np.clip(LEAVES * np.sqrt(rarer(label, is_amount=is_amount) / _FEW), LEAVES, _MOST_LEAVES))


def rate_for(label: pd.Series, *, is_amount: bool) -> float:
    """Give how fast trees learn: a probability half as fast as usual up to 20,000 labels of the rarer kind.

    >>> rate_for(pd.Series([0.0, 1.0] * 80), is_amount=False)
    0.025
    """
    return _SLOW if not is_amount and rarer(label, is_amount=is_amount) <= _FEW else RATE


def rarer(label: pd.Series, *, is_amount: bool) -> int:
    """Give how often the rarer answer was seen; of amounts, how many there are."""
    some = int((label > 0).sum())
    return some if is_amount else min(some, len(label) - some)


class Bins:
    """LightGBM's bins of some features of some rows: filled by the first fit, which takes as long as sixty rounds, and kept."""

    def __init__(self) -> None:
        """Begin empty."""
        self._filled: lightgbm.Dataset | None = None

    def of(
        self, x: pd.DataFrame, y: pd.Series, features: Sequence[str], told: Mapping[str, Any], levels: Floats | None
    ) -> lightgbm.Dataset:
        """Give `features` of `x`, and `y`, in bins, with the `levels` that a fit starts from: these alone may differ between calls.

        `told` are LightGBM's parameters; those that say how bins are filled are those of the first call.
        """
        if self._filled is None:
            self._filled = lightgbm.Dataset(_columns(x, features), y, params=dict(told)).construct()
        self._filled.set_field("init_score", levels)
        return self._filled


def fit_booster(
    x: pd.DataFrame,
    y: pd.Series,
    *,
    is_amount: bool,
    seed: int,
    features: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    parameters: Mapping[str, Any] | None = None,
    monotone: Mapping[str, int] | None = None,
    levels: Floats | None = None,
    bins: Bins | None = None,
    threads: int = 1,
) -> lightgbm.Booster:
    """Fit `y` (0/1, or a non-negative amount) on `features` of `x` (floats, null allowed), or all; one row a user and cutoff.

    `parameters` replace some of `PARAMETERS`; `monotone` gives features with which the score may only rise (1) or fall (-1).
    No class weights: they would move probabilities. A negative amount (more refunded than bought) is learned as zero. `seed` and
    one thread count give one model. Somebody must have an amount.

    With the `levels` of the rows' cutoffs (log-odds), a probability is learned as how far a user lies from all users of that date,
    and told at the level of all rows. Fits of probabilities to the same rows, labels and features may share their `bins`.

    An amount is whether there is any (Poisson's deviance) times how much it is then (a Tweedie deviance, of the rows with one):
    trees of the former, then of the latter, `rounds` of each. Both add up on the scale of logarithms, so that it is one booster
    with exact contributions.
    """
    names = [str(name) for name in x.columns] if features is None else list(features)
    shared: dict[str, Any] = {**(parameters or {}), "seed": seed, "num_threads": threads}
    if monotone:
        shared["monotone_constraints"] = [monotone.get(name, 0) for name in names]

    def told(objective: dict[str, Any], rows: int) -> dict[str, Any]:
        return {**PARAMETERS, **objective, "min_data_in_leaf": int(np.clip(rows // 100, 5, 100)), **shared}

    if not is_amount:
        settings = told(_PROBABILITY, len(x))
        data = (bins or Bins()).of(x, y, names, settings, levels)
        booster = lightgbm.train(settings, data, num_boost_round=rounds)
        return booster if levels is None else _raised(booster, float(log_odds(y.sum(), len(y))))
    label = y.clip(lower=0).to_numpy(dtype=np.float64)
    some = label > 0
    # Weights divide the mean out: regularisation means the same for pence and for thousands.
    mean = float(label[some].mean())
    everybody = lightgbm.Dataset(_columns(x, names), some * mean, weight=np.full(len(x), 1 / mean))
    whether = lightgbm.train(told(_WHETHER, len(x)), everybody, num_boost_round=rounds)
    # The second part goes on from what the first says of a row, so that is what its labels are multiplied by.
    payers = x.loc[some, names]
    said = np.exp(np.asarray(whether.predict(payers, raw_score=True, num_threads=threads)))
    sized = lightgbm.Dataset(_columns(payers, names), label[some] * said / mean, weight=said ** (_POWER - 2))
    return lightgbm.train(told(_HOW_MUCH, len(payers)), sized, num_boost_round=rounds, init_model=whether)


def _columns(x: pd.DataFrame, features: Sequence[str]) -> pa.Table:
    """Lay columns beside each other without a copy; LightGBM takes a third less time for them than for a frame."""
    return pa.table({name: pa.array(x[name].to_numpy()) for name in features})


def log_odds(total: pd.Series | float, rows: pd.Series | float) -> Floats:
    """Give the log-odds of `total` labels of 1 among so many rows, a little towards the middle where they are few."""
    return np.asarray(logit((total + 0.5) / (rows + 1.0)), dtype=np.float64)


def _raised(booster: lightgbm.Booster, level: float) -> lightgbm.Booster:
    """Put what training was told from outside into the first tree, as LightGBM does with a mean of its own."""
    for leaf in range(booster.dump_model(num_iteration=1)["tree_info"][0]["num_leaves"]):
        booster.set_leaf_output(0, leaf, booster.get_leaf_output(0, leaf) + level)
    return booster


def raw_scores(booster: lightgbm.Booster, x: pd.DataFrame, *, threads: int = 0) -> Floats:
    """Predict what the booster says of `x`, before calibration: a probability or an amount. No threads are as many as cores."""
    if x.empty:
        # LightGBM refuses to be asked of nobody.
        return np.empty(0)
    return np.asarray(booster.predict(x[booster.feature_name()], num_threads=threads), dtype=np.float64)
