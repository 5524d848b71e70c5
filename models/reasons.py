"""Reasons: which features moved a user's score, from exact Tree SHAP."""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
import pandas as pd
from woodelf import WoodelfExplainer

from models.propensity import Floats

CHUNK = 50_000


@dataclass(frozen=True)
class Reasons:
    """The strongest features per user: `feature` (index into the features) and `contribution`, both users × `most`.

    A contribution is in the booster's own units before calibration (log-odds, or log of the amount); above zero it raises the
    score.
    """

    feature: np.ndarray
    contribution: Floats


def contributions(booster: lightgbm.Booster, x: pd.DataFrame) -> Floats:
    """Give the path-dependent Tree SHAP values of every user and feature (Lundberg et al., 2020; Nadel & Wettenstein, 2026).

    Computed in chunks of users, so memory is bounded by the chunk.
    """
    explainer = WoodelfExplainer(booster)
    names = booster.feature_name()
    parts = [
        np.asarray(explainer.shap_values(x[names].iloc[start : start + CHUNK], verbose=False), dtype=np.float64)
        for start in range(0, len(x), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(names)))


def strongest(values: Floats, groups: Sequence[str], *, most: int = 3) -> Reasons:
    """Pick each user's `most` strongest features by size of contribution, at most one of a group.

    `groups` names the group of each column: ten windows of one thing are one reason, told by the strongest of them.
    """
    names = sorted(set(groups))
    members = [np.flatnonzero(np.asarray(groups) == name) for name in names]
    best = np.stack([columns[np.abs(values[:, columns]).argmax(axis=1)] for columns in members], axis=1)
    size = np.take_along_axis(values, best, axis=1)
    order = np.argsort(-np.abs(size), axis=1, kind="stable")[:, :most]
    return Reasons(np.take_along_axis(best, order, axis=1), np.take_along_axis(size, order, axis=1))
