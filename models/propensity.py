"""One LightGBM model per target: a probability, or an expected amount."""

from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

# Few leaves and few features a tree: snapshots of one user resemble each other, so rows count for less than they seem.
PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 8,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 63,
    "force_col_wise": True,
    "deterministic": True,
    "verbose": -1,
}
ROUNDS = 150


def fit_booster(x: pd.DataFrame, y: pd.Series, *, is_amount: bool, seed: int, threads: int = 1) -> lightgbm.Booster:
    """Fit `y` (0/1, or a non-negative amount) on `x` (float features, null allowed); one row a user and cutoff.

    No class weights: they would move probabilities. Amounts are fitted with a Tweedie deviance, since many are exactly zero;
    a negative one (more refunded than bought) is learned as zero.
    The number of rounds is fixed, so no block of time is spent on early stopping. `seed` and one thread count give one model.
    """
    parameters = {
        **PARAMETERS,
        "objective": "tweedie" if is_amount else "binary",
        "min_data_in_leaf": int(np.clip(len(x) // 100, 5, 100)),
        "seed": seed,
        "num_threads": threads,
    }
    return lightgbm.train(parameters, lightgbm.Dataset(x, y.clip(lower=0)), num_boost_round=ROUNDS)


def raw_scores(booster: lightgbm.Booster, x: pd.DataFrame) -> Floats:
    """Predict what the booster says of `x`, before calibration: a probability or an amount."""
    return np.asarray(booster.predict(x[booster.feature_name()]), dtype=np.float64)
