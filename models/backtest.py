"""Rolling-origin backtest: predict each past origin from what was known before it, and nothing else.

train cutoffs ──horizon──▶│ origin ──horizon──▶      train_cutoff + horizon <= origin, for models and calibrators alike
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from features.errors import GateError
from features.windows import words
from models.baseline import rfm_scores
from models.calibration import Calibrator, fit_calibrator
from models.metrics import measures
from models.propensity import fit_booster, raw_scores


@dataclass(frozen=True)
class Origin:
    """One instant that a model trained on `train_cutoffs` alone predicts; only `is_test` origins are reported."""

    cutoff: datetime
    train_cutoffs: tuple[datetime, ...]
    is_test: bool


@dataclass(frozen=True)
class Backtest:
    """What was predicted at the origins, and what happened.

    `predictions` has one row per user and origin: `user_id, cutoff, is_test, label, raw, score, baseline`; `score` is calibrated on
    earlier origins only, and null where none had elapsed. `calibrator` is fitted on all origins, for use after them.
    """

    predictions: pd.DataFrame
    calibrator: Calibrator
    is_amount: bool

    @property
    def tested(self) -> pd.DataFrame:
        """The rows of the test origins."""
        return self.predictions[self.predictions.is_test]

    def by_origin(self, column: str = "score") -> dict[datetime, dict[str, float]]:
        """Give the measures of each test origin, oldest first; `column` is `score` or `baseline`."""
        return {
            cutoff.to_pydatetime(): measures(rows.label.to_numpy(), rows[column].to_numpy(), is_amount=self.is_amount)
            for cutoff, rows in self.tested.groupby("cutoff")
        }

    def mean(self, column: str = "score") -> dict[str, float]:
        """Give the mean of each measure over the test origins where it is defined; `users` is their sum."""
        found = pd.DataFrame(list(self.by_origin(column).values()))
        sums = {name: float(found[name].sum()) for name in ("users", "positives") if name in found}
        return sums | {name: float(found[name].mean()) for name in found if name not in sums}


def plan_origins(
    cutoffs: Sequence[datetime], horizon: timedelta, *, tests: int, calibrations: int, minimum: int = 2
) -> tuple[Origin, ...]:
    """Choose the latest `tests` cutoffs to report, and up to `calibrations` before them to calibrate on.

    Each origin's train cutoffs are purged: their horizon has elapsed at the origin. An origin needs at least `minimum` of them.
    Where history is short there are fewer origins.

    Raises GateError when there is not even one.
    """
    ordered = sorted(cutoffs)
    purged = {origin: tuple(cutoff for cutoff in ordered if cutoff + horizon <= origin) for origin in ordered}
    possible = [origin for origin in ordered if len(purged[origin]) >= minimum]
    if not possible:
        raise GateError(
            f"{len(ordered)} training cutoffs leave no origin to test on: one needs {minimum} cutoffs whose horizon "
            f"of {words(horizon)} has elapsed before it. Raise training.max_cutoffs, or shorten the horizon"
        )
    chosen = possible[-(tests + calibrations) :]
    first_test = max(len(chosen) - tests, 0)
    return tuple(Origin(cutoff, purged[cutoff], index >= first_test) for index, cutoff in enumerate(chosen))


def predict_origin(rows: pd.DataFrame, features: Sequence[str], origin: Origin, *, is_amount: bool, seed: int) -> pd.DataFrame:
    """Fit on the origin's train cutoffs and predict the origin: `user_id, cutoff, is_test, label, raw, baseline`.

    `rows` has one row per eligible user and cutoff: `user_id`, `cutoff`, `label` and the features. An origin whose training rows
    hold one class only gives no rows.
    """
    train, test = rows[rows.cutoff.isin(origin.train_cutoffs)], rows[rows.cutoff == origin.cutoff]
    found = test[["user_id", "cutoff", "label"]].assign(is_test=origin.is_test)
    if len(test) == 0 or train.label.nunique() < 2:
        return found.head(0).assign(raw=np.nan, baseline=np.nan)
    names = list(features)
    booster = fit_booster(train[names], train.label, is_amount=is_amount, seed=seed)
    return found.assign(
        raw=raw_scores(booster, test), baseline=rfm_scores(train[names], train.label, test[names], is_amount=is_amount)
    )


def assemble(predicted: Sequence[pd.DataFrame], horizon: timedelta, *, is_amount: bool) -> Backtest:
    """Calibrate each origin on the origins whose horizon had elapsed before it, and fit the calibrator for what comes next.

    Raises GateError when no test origin could be predicted.
    """
    pooled = pd.concat(predicted, ignore_index=True).sort_values(["cutoff", "user_id"], ignore_index=True)
    if not pooled.is_test.any():
        raise GateError("no test origin could be predicted: the training rows before each hold one class only")
    score = np.full(len(pooled), np.nan)
    for cutoff in pooled.cutoff.unique():
        rows = (pooled.cutoff == cutoff).to_numpy()
        calibrate = _fit(pooled[pooled.cutoff + horizon <= cutoff], is_amount=is_amount)
        score[rows] = calibrate(pooled.raw.to_numpy()[rows])
    return Backtest(pooled.assign(score=score), _fit(pooled, is_amount=is_amount), is_amount)


def _fit(rows: pd.DataFrame, *, is_amount: bool) -> Calibrator:
    return fit_calibrator(rows.raw.to_numpy(), rows.label.to_numpy(), is_amount=is_amount)
