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
    """Pick each user's `most` strongest groups by their summed contributions, and one feature to tell each.

    `groups` names the group of each column: ten windows of one thing are one reason.
    """
    members = [np.flatnonzero(np.asarray(groups) == name) for name in sorted(set(groups))]
    net = np.stack([values[:, columns].sum(axis=1) for columns in members], axis=1)
    # Told by the member that pulls hardest the way the whole group pulls, so that no arrow contradicts its group.
    pulls = [values[:, columns] * np.where(net[:, [at]] < 0, -1, 1) for at, columns in enumerate(members)]
    best = np.stack([columns[pull.argmax(axis=1)] for columns, pull in zip(members, pulls, strict=True)], axis=1)
    order = np.argsort(-np.abs(net), axis=1, kind="stable")[:, :most]
    chosen = np.take_along_axis(best, order, axis=1)
    return Reasons(chosen, np.take_along_axis(values, chosen, axis=1))
