"""Traits: the behaviour that personas are told apart by, brought to a common scale on which no story outvotes another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from features.catalogue import Feature
from models.propensity import Floats

_SKEWED = 1.0
_CLIP = 3.0
# What fewer users than this do sets them so far apart from all others that they take a persona for themselves.
_RARE = 0.01
# A user's shares weigh as much as their purchases against four of everybody's: one purchase on a Saturday is no habit yet.
_PRIOR = 4.0
# The range between the quartiles of a normal distribution, in standard deviations.
_QUARTILES = 1.349
# Of these, a share is of few events, as many as there are purchases.
_COUNTED = frozenset({"orders", "purchases", "brands", "categories"})


@dataclass(frozen=True)
class Trait:
    """One feature that personas are told apart by, how it is put on a common scale, and its words for much and little.

    On the way to the scale: a null is `fill`; a share counts by its `evidence`, a feature with the number of purchases, against
    `usual`; a skewed value is the logarithm of 1 plus itself over `unit`; then it is centred, divided by `spread`, clipped at
    `limit`, and multiplied by `weight`.
    """

    feature: str
    high: str | None
    low: str | None
    is_logged: bool
    fill: float
    centre: float
    spread: float
    group: str = ""
    weight: float = 1.0
    limit: float = _CLIP
    unit: float = 1.0
    evidence: str | None = None
    usual: float = 0.0


def is_trait(feature: Feature) -> bool:
    """Whether personas are told apart by it: behaviour that there is a word for, and nothing that users are or are called."""
    return bool(feature.high or feature.low) and feature.base != "attributes" and not (feature.is_text or feature.is_aside)


def fit_traits(frame: pd.DataFrame, features: Sequence[Feature], *, purchases: str | None = None) -> tuple[Trait, ...]:
    """Learn the scales of the features that have a persona's words; `frame` has one row per user.

    `purchases` names the feature that says how many purchases a share is of. Features in which fewer than one user in a hundred
    differs from the others are left out. A trait's weight is 1 over the root of the sum of its squared correlations with all
    traits, itself included, so that ten that say the same weigh as much as one, and one that nothing repeats keeps its weight
    whole.
    """
    traits = [_trait(frame, feature, purchases) for feature in features if is_trait(feature)]
    traits = [trait for trait in traits if trait.spread > 0]
    if len(traits) < 2:
        return tuple(traits)
    correlation = np.corrcoef(scale(frame, traits), rowvar=False)
    weights = 1.0 / np.sqrt((np.nan_to_num(correlation) ** 2).sum(axis=0))
    return tuple(replace(trait, weight=float(weight)) for trait, weight in zip(traits, weights, strict=True))


def scale(frame: pd.DataFrame, traits: Sequence[Trait]) -> Floats:
    """Put the traits' features on the common scale: users × traits."""
    columns = [np.clip((_tamed(frame, trait) - trait.centre) / trait.spread, -trait.limit, trait.limit) for trait in traits]
    return np.stack([column * trait.weight for column, trait in zip(columns, traits, strict=True)], axis=1)


def _trait(frame: pd.DataFrame, feature: Feature, purchases: str | None) -> Trait:
    known = frame[feature.name].dropna().astype("float64")
    fill = float(known.median()) if len(known) else 0.0
    trait = Trait(feature.name, feature.high, feature.low, False, fill, 0.0, 0.0, group=feature.group)
    if len(known) < 2:
        return trait
    if purchases is not None and feature.unit == "share" and feature.base in _COUNTED:
        trait = replace(trait, evidence=purchases, usual=float(known.mean()))
    values = pd.Series(_tamed(frame, trait))
    if values.min() >= 0 and values.skew() > _SKEWED:
        trait = replace(trait, is_logged=True, unit=float(values[values > 0].median()))
    tamed = _tamed(frame, trait)
    low, centre, high = np.percentile(tamed, [25, 50, 75])
    # Where more than half are alike, the quartiles say nothing of the others.
    spread = (high - low) / _QUARTILES or float(tamed.std())
    if not spread > 0 or np.mean(tamed != centre) < _RARE:
        return trait
    deviation = float(np.clip((tamed - centre) / spread, -_CLIP, _CLIP).std())
    return replace(trait, centre=float(centre), spread=float(spread * deviation), limit=_CLIP / deviation)


def _tamed(frame: pd.DataFrame, trait: Trait) -> Floats:
    values = frame[trait.feature].astype("float64")
    if trait.evidence is not None:
        count = frame[trait.evidence].fillna(0.0).to_numpy(dtype=np.float64) * values.notna().to_numpy()
        share = values.fillna(0.0).to_numpy(dtype=np.float64)
        tamed = (share * count + trait.usual * _PRIOR) / (count + _PRIOR)
    else:
        tamed = values.fillna(trait.fill).to_numpy(dtype=np.float64)
    logged: Floats = np.log1p(np.clip(tamed, 0, None) / trait.unit) if trait.is_logged else tamed
    return logged
