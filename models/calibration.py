"""Calibration: make a score of 0.2 mean that it happens to 20 of 100, fitted on predictions out of time only."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from models.propensity import Floats

_EDGE = 1e-6
MINIMUM_OF_EACH_CLASS = 30


@dataclass(frozen=True)
class Calibrator:
    """A monotone map from raw scores to calibrated ones.

    `platt` is a logistic curve on the log-odds (Platt, 1999); `scale` multiplies amounts; `none` changes nothing, because there
    was too little to learn from.
    """

    method: Literal["none", "platt", "scale"] = "none"
    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, raw: Floats) -> Floats:
        """Give calibrated scores of the same shape as `raw`."""
        match self.method:
            case "platt":
                return np.asarray(expit(self.slope * _log_odds(raw) + self.intercept))
            case "scale":
                return raw * self.slope
            case "none":
                return raw


def fit_calibrator(raw: Floats, label: Floats, *, is_amount: bool) -> Calibrator:
    """Fit on pairs of an out-of-time raw score and what happened.

    With fewer than 30 of either class, or nothing at all, the answer is `none`.
    """
    if is_amount:
        total = float(raw.sum())
        return Calibrator("scale", slope=float(label.sum()) / total) if total > 0 and label.sum() > 0 else Calibrator()
    positives = int(label.sum())
    if min(positives, len(label) - positives) < MINIMUM_OF_EACH_CLASS:
        return Calibrator()
    fitted = LogisticRegression(C=1e6).fit(_log_odds(raw).reshape(-1, 1), label)
    slope = float(fitted.coef_[0, 0])
    # A curve that falls would turn the ranking around: the scores are then no better than chance, and stay as they are.
    return Calibrator("platt", slope=slope, intercept=float(fitted.intercept_[0])) if slope > 0 else Calibrator()


def _log_odds(raw: Floats) -> Floats:
    return np.asarray(logit(np.clip(raw, _EDGE, 1 - _EDGE)))
