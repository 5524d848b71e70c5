"""Drift: how far the level of scores moves from one date to another, beyond what chance alone would do."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from models.propensity import Floats

_EDGE = 1e-6
_MOST_STEPS, _LONGEST_STEP = 100, 1.0


def level_drift(score: Floats, label: Floats, blocks: npt.NDArray[Any]) -> float:
    """Give how far the level of a further block may lie from that of calibrated scores: a standard deviation of log-odds.

    `score` (a probability), `label` (0 or 1) and `blocks` (the origin) have one value a row. A block's level is the one shift of
    all its log-odds with which its scores fit its labels best. What the levels vary beyond chance is estimated as between studies
    (DerSimonian and Laird, 1986), and a further block is predicted as a further study (Higgins, Thompson and Spiegelhalter, 2009):
    few blocks say little of their mean. With fewer than two it is 0: nothing is known but chance.
    """
    numbers, names = pd.factorize(blocks)
    if len(names) < 2:
        return 0.0
    log_odds = logit(np.clip(score, _EDGE, 1 - _EDGE))
    levels, variances = np.array([_level(log_odds[numbers == at], label[numbers == at]) for at in range(len(names))]).T
    weight = 1 / variances
    mean = (weight * levels).sum() / weight.sum()
    beyond = (weight * (levels - mean) ** 2).sum() - (len(levels) - 1)
    between = max(beyond / (weight.sum() - (weight**2).sum() / weight.sum()), 0.0)
    return float(np.sqrt(between * (1 + 1 / len(levels)) + 1 / weight.sum()))


def _level(log_odds: Floats, label: Floats) -> tuple[float, float]:
    """Give the shift of greatest likelihood and its variance, by Newton's method.

    One more row, at the mean and with just the label that was expected, keeps the shift finite where nothing happened.
    """
    level, usual = 0.0, float(log_odds.mean())
    for _ in range(_MOST_STEPS):
        expected = expit(log_odds + level)
        gradient = (label - expected).sum() + expit(usual) - expit(usual + level)
        information = (expected * (1 - expected)).sum() + expit(usual + level) * (1 - expit(usual + level))
        step = float(np.clip(gradient / information, -_LONGEST_STEP, _LONGEST_STEP))
        level += step
        if abs(step) < 1e-9:
            break
    return level, 1 / float(information)
