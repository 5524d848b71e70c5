"""One LightGBM model per target: a probability, or an expected amount."""

from collections.abc import Mapping
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

# Leaves grow with the root of how much of the rarer answer there is to learn from, up to the most.
LEAVES, _MOST_LEAVES, _FEW = 8, 31, 20_000
# Few leaves and few features a tree: snapshots of one user resemble each other, so rows count for less than they seem.
PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": LEAVES,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 63,
    "force_col_wise": True,
    "deterministic": True,
    "verbose": -1,
}
# Between Poisson's deviance, which a few large amounts lead, and those of higher powers, which leave totals low (decision 70).
_POWER = 1.2
_AMOUNT: dict[str, Any] = {"objective": "tweedie", "tweedie_variance_power": _POWER}
ROUNDS = 150


def leaves_for(label: pd.Series, *, is_amount: bool) -> int:
    """Give how many leaves a tree may have: 8 up to 20,000 labels of the rarer kind, or amounts that are not zero; 31 from 300,000.

    >>> leaves_for(pd.Series([0.0, 1.0] * 80_000), is_amount=False)
    16
    """
    some = int((label > 0).sum())
    rarer = some if is_amount else min(some, len(label) - some)
    return int(np.clip(LEAVES * np.sqrt(rarer / _FEW), LEAVES, _MOST_LEAVES))


def fit_booster(
    x: pd.DataFrame,
    y: pd.Series,
    *,
    is_amount: bool,
    seed: int,
    rounds: int = ROUNDS,
    parameters: Mapping[str, Any] | None = None,
    monotone: Mapping[str, int] | None = None,
    threads: int = 1,
) -> lightgbm.Booster:
    """Fit `y` (0/1, or a non-negative amount) on `x` (float features, null allowed); one row a user and cutoff.

    `parameters` replace some of `PARAMETERS`; `monotone` gives features with which the score may only rise (1) or fall (-1).
    No class weights: they would move probabilities. Amounts are fitted with a Tweedie deviance; a negative one (more refunded
    than bought) is learned as zero. `seed` and one thread count give one model.
    """
    told = {
        **PARAMETERS,
        **(_AMOUNT if is_amount else {"objective": "binary"}),
        "min_data_in_leaf": int(np.clip(len(x) // 100, 5, 100)),
        **(parameters or {}),
        "seed": seed,
        "num_threads": threads,
    }
    if monotone:
        told["monotone_constraints"] = [monotone.get(name, 0) for name in x.columns]
    label = y.clip(lower=0)
    # Equal weights that divide the mean out: regularisation means the same for pence and for thousands.
    weight = np.full(len(label), (float(label.mean()) or 1.0) ** (_POWER - 2)) if is_amount else None
    return lightgbm.train(told, lightgbm.Dataset(x, label, weight=weight), num_boost_round=rounds)


def raw_scores(booster: lightgbm.Booster, x: pd.DataFrame, *, threads: int = 0) -> Floats:
    """Predict what the booster says of `x`, before calibration: a probability or an amount. No threads are as many as cores."""
    return np.asarray(booster.predict(x[booster.feature_name()], num_threads=threads), dtype=np.float64)
