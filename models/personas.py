"""Personas: behavioural clusters with names a person would use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from features.catalogue import Feature
from features.errors import GateError
from models.propensity import Floats

SAMPLE = 5_000
_USERS_EACH = 10
_SKEWED = 1.0
_CLIP = 3.0
_NOTABLE = 0.3


@dataclass(frozen=True)
class Trait:
    """One feature that personas are told apart by, how it is put on a common scale, and its words for much and little."""

    feature: str
    high: str | None
    low: str | None
    is_logged: bool
    fill: float
    centre: float
    spread: float


@dataclass(frozen=True)
class Personas:
    """Fitted personas: `centroids` is personas × traits on the common scale; persona ids are its row numbers, largest first."""

    traits: tuple[Trait, ...]
    centroids: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]
    shares: tuple[float, ...]
    silhouettes: Mapping[int, float]

    @property
    def features(self) -> tuple[str, ...]:
        """The features that an assignment reads."""
        return tuple(trait.feature for trait in self.traits)

    def assign(self, frame: pd.DataFrame) -> np.ndarray:
        """Give each row's persona id: the nearest centroid."""
        scaled = scale(frame, self.traits)
        centroids = np.asarray(self.centroids)
        distances = (scaled**2).sum(1)[:, None] - 2 * scaled @ centroids.T + (centroids**2).sum(1)[None, :]
        return np.asarray(distances.argmin(axis=1))


def fit_personas(
    frame: pd.DataFrame, features: Sequence[Feature], *, fewest: int, most: int, smallest_share: float, seed: int
) -> Personas:
    """Cluster users by the features that have a persona's words; `frame` has one row per user.

    Skewed counts are taken as logarithms and everything is centred, scaled and clipped at three spreads. k is the one with the best
    silhouette among those from `fewest` to `most` whose smallest persona holds at least `smallest_share` of the users; where none
    does, the one with the largest smallest persona.

    No k is tried that leaves fewer than ten users a persona. Raises GateError when even the fewest would, or nobody differs.
    """
    if len(frame) < _USERS_EACH * fewest:
        raise GateError(
            f"{len(frame)} users who bought within the longest window are too few for {fewest} personas: "
            f"at least {_USERS_EACH * fewest} are needed; lower personas.fewest, or wait for more"
        )
    traits = tuple(_trait(frame[feature.name], feature) for feature in features if feature.high or feature.low)
    traits = tuple(trait for trait in traits if trait.spread > 0)
    if not traits:
        raise GateError("no feature tells the users apart, so there are no personas: are all rows alike?")
    most = min(most, len(frame) // _USERS_EACH)
    scaled = scale(frame, traits)
    sample = np.random.default_rng(seed).permutation(len(scaled))[:SAMPLE]
    fits = {k: KMeans(k, n_init=5, random_state=seed).fit(scaled) for k in range(fewest, most + 1)}
    silhouettes = {
        k: float(silhouette_score(scaled[sample], fit.labels_[sample])) if len(set(fit.labels_[sample])) > 1 else -1.0
        for k, fit in fits.items()
    }
    smallest = {k: float(np.bincount(fit.labels_, minlength=k).min()) / len(scaled) for k, fit in fits.items()}
    large = [k for k in fits if smallest[k] >= smallest_share]
    best = max(large, key=lambda k: silhouettes[k]) if large else max(fits, key=lambda k: smallest[k])
    counts = np.bincount(fits[best].labels_, minlength=best)
    order = np.argsort(-counts, kind="stable")
    centroids = fits[best].cluster_centers_[order]
    return Personas(
        traits=traits,
        centroids=tuple(tuple(float(value) for value in row) for row in centroids),
        names=_names(centroids, traits),
        shares=tuple(float(share) for share in counts[order] / len(scaled)),
        silhouettes=silhouettes,
    )


def scale(frame: pd.DataFrame, traits: Sequence[Trait]) -> Floats:
    """Put the traits' features on a common scale, users × traits; a null is taken as the population's median."""
    columns = []
    for trait in traits:
        values = frame[trait.feature].fillna(trait.fill).to_numpy(dtype=np.float64)
        values = np.log1p(np.clip(values, 0, None)) if trait.is_logged else values
        columns.append(np.clip((values - trait.centre) / trait.spread, -_CLIP, _CLIP))
    return np.stack(columns, axis=1)


def _trait(values: pd.Series, feature: Feature) -> Trait:
    known = values.dropna()
    is_logged = bool(len(known) > 2 and known.min() >= 0 and known.skew() > _SKEWED)
    fill = float(known.median()) if len(known) else 0.0
    scaled = np.log1p(known) if is_logged else known
    spread = float(scaled.std()) if len(known) > 1 else 0.0
    return Trait(feature.name, feature.high, feature.low, is_logged, fill, float(scaled.mean()) if len(known) else 0.0, spread)


def _names(centroids: Floats, traits: Sequence[Trait]) -> tuple[str, ...]:
    """Name each persona after what sets it apart most from the whole, with more words where two would share a name."""
    said = [_words(row, traits) for row in centroids]
    names = []
    for index, words in enumerate(said):
        others = [other for number, other in enumerate(said) if number != index]
        length = next((n for n in range(2, len(words) + 1) if words[:n] not in [other[:n] for other in others]), len(words))
        names.append(f"{', '.join(words[:length])} buyers" if words else "typical buyers")
    return tuple(name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names))


def _words(row: Floats, traits: Sequence[Trait]) -> list[str]:
    words: list[str] = []
    for index in np.argsort(-np.abs(row), kind="stable"):
        word = traits[index].high if row[index] > 0 else traits[index].low
        if word and abs(row[index]) >= _NOTABLE and word not in words:
            words.append(word)
    return words
