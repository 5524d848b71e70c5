"""Reasons: which features moved a user's score, from exact Shapley values."""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
import pandas as pd
from joblib import cpu_count

from features.catalogue import EVERYBODY
from models.propensity import Floats
from models.shapley import explainer

# Users at a time: their values, features first, fit in the cache.
_ROWS = 8_192
# Weaker than whatever moves a score, and still in order.
_TOLD_ALREADY = 1e-9


@dataclass(frozen=True)
class Reasons:
    """The strongest features per user: `feature` (index into the features) and `contribution`, both users × `most`.

    A contribution is in the model's own units before calibration (log-odds, or log of the amount); above zero it raises the
    score. Where there are fewer groups than `most`, there are fewer columns.
    """

    feature: np.ndarray
    contribution: Floats


def contributions(booster: lightgbm.Booster, x: pd.DataFrame, *, threads: int | None = None) -> Floats:
    """Give the path-dependent Tree SHAP values of every user and feature: users × the booster's features, in their order.

    `x` has those features as floats, null allowed; an infinity is larger or smaller than every threshold, as it is for LightGBM.
    They are LightGBM's `pred_contrib` without its last column, in log-odds or log of the amount; a booster that never split gives
    zeros. Memory beside the values is bounded; `threads` are as many as there are cores, unless given.

    Raises ValueError for a booster with categorical splits or several classes, and KeyError when `x` lacks a feature.
    """
    explain = explainer(booster, booster.num_trees())
    return explain(x[booster.feature_name()], threads=threads or cpu_count())


def strongest(values: Floats, groups: Sequence[str], *, most: int = 3, dates: Floats | None = None) -> Reasons:
    """Pick each user's `most` strongest groups by their summed contributions, and one feature to tell each.

    `values` are contributions, users × features, of whatever model. `groups` names the group of each column: ten windows of one
    thing are one reason, and what is the same for everybody is none. `dates` are, users × features, the days since a last event,
    and NaN where a feature is something else: what is told by the same instant as a stronger reason comes after all others, since
    it is the same event once more. Of equals the group that comes first in the alphabet is picked, and the feature that comes
    first.
    A model without features has no reasons: then there are no columns.
    """
    names = sorted(set(groups) - {EVERYBODY})
    members = [np.flatnonzero(np.asarray(groups) == name) for name in names]
    shape = (len(values), min(most, len(names)))
    feature, contribution = np.empty(shape, dtype=np.intp), np.empty(shape)
    for start in range(0, len(values) if names else 0, _ROWS):
        part = slice(start, start + _ROWS)
        # Features first: sums over a group's features, and comparisons of groups, run along users.
        columns = np.ascontiguousarray(values[part].T)
        # Added one after another, so that a user's sum does not depend on who else is in the batch.
        net = np.stack([sum((columns[at] for at in own[1:]), start=columns[own[0]]) for own in members])
        told = np.stack([_told_by(columns, own, total) for own, total in zip(members, net, strict=True)])
        weight, users = np.abs(net), np.arange(columns.shape[1])
        instant = None if dates is None else dates[part][users, told]
        for rank in range(shape[1]):
            picked = weight.argmax(axis=0)
            if instant is not None:
                weight[instant == instant[picked, users]] *= _TOLD_ALREADY
            weight[picked, users] = -1.0
            feature[part, rank] = told[picked, users]
            contribution[part, rank] = columns[feature[part, rank], users]
    return Reasons(feature, contribution)


def _told_by(columns: Floats, own: np.ndarray, net: Floats) -> np.ndarray:
    """Give for each user the member of a group that pulls hardest the way the whole group pulls.

    So no arrow contradicts its group.
    """
    pull = columns[own] * np.where(net < 0, -1, 1)
    found: np.ndarray = own[pull.argmax(axis=0)]
    return found
