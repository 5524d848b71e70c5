"""Personas: behavioural clusters with names a person would use, that stay with the people when they are found again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from features.catalogue import Feature
from features.errors import ConfigError, GateError, listed
from models.persona_choice import Tried, choose, distances, nearest
from models.persona_matching import Change, Matching, centres, match
from models.persona_names import describe, is_true, name_personas, set_apart
from models.persona_traits import Trait, fit_traits, scale
from models.propensity import Floats

_USERS_EACH = 10
_FITTED_USERS = 50_000
_QUANTILES = 100
# Distances that differ by less are equal.
_DIGITS = 6


@dataclass(frozen=True)
class Personas:
    """Fitted personas, largest first: each has an id, a centroid (personas × traits on the common scale), a name and a line.

    `shares` are of the users they were fitted to, and `quantiles` the 0th to 100th percentiles of the distances of each persona's
    users from its centroid, empty where an earlier release did not keep them. `next_id` was never used by a persona before.
    """

    traits: tuple[Trait, ...]
    ids: tuple[int, ...]
    centroids: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    shares: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]
    tried: tuple[Tried, ...]
    why: str
    next_id: int

    @property
    def features(self) -> tuple[str, ...]:
        """The features that an assignment reads."""
        read = [*(trait.feature for trait in self.traits), *(trait.evidence for trait in self.traits if trait.evidence)]
        return tuple(dict.fromkeys(read))

    def place(self, frame: pd.DataFrame) -> tuple[np.ndarray, Floats]:
        """Give each row's persona as a place among `ids`, and how typical of it the row is (see `typicality`)."""
        apart = distances(scale(frame, self.traits), np.asarray(self.centroids))
        places = apart.argmin(axis=1)
        return places, self._typicality(places, apart.min(axis=1))

    def assign(self, frame: pd.DataFrame) -> np.ndarray:
        """Give each row's persona id: that of the nearest centroid."""
        ids: np.ndarray = np.asarray(self.ids)[self.place(frame)[0]]
        return ids

    def _typicality(self, places: np.ndarray, apart: Floats) -> Floats:
        if not self.quantiles:
            return np.full(len(places), np.nan)
        told, rounded = np.empty(len(places)), np.round(apart, _DIGITS)
        for place, quantiles in enumerate(self.quantiles):
            # Of users at one distance, all lie no nearer than the others.
            at, first = np.unique(np.round(quantiles, _DIGITS), return_index=True)
            own = places == place
            told[own] = 1.0 - np.interp(rounded[own], at, first / (len(quantiles) - 1), right=1.0)
        return told


def fit_personas(
    frame: pd.DataFrame,
    features: Sequence[Feature],
    *,
    fewest: int,
    most: int,
    smallest_share: float,
    seed: int,
    stability: float = 0.0,
    names: Mapping[int, str] | None = None,
    former: Personas | None = None,
    purchases: str | None = None,
    currency: str = "",
) -> tuple[Personas, Matching | None]:
    """Cluster users by the features that have a persona's words; `frame` has one row per user.

    How many is chosen between `fewest` and `most` (see `models.persona_choice.choose`); no number is tried that leaves fewer than
    ten users a persona. Where there are `former` personas, the clusters that continue them keep their ids, and their names as long
    as these are true, and what changed is given beside; else the largest has id 0. `names` are given by id, and win. `purchases`
    names the feature that says how many purchases a share is of; it is not there where nobody buys.

    Raises GateError when even the fewest would leave too few users a persona, or nobody differs, and ConfigError for a name of an
    id that no persona has or had.
    """
    refuse_few(len(frame), fewest=fewest)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(frame))[:_FITTED_USERS])
    traits = fit_traits(frame.iloc[drawn], features, purchases=purchases)
    if not traits:
        raise GateError("no feature tells the users apart, so there are no personas: are all rows alike?")
    scaled = scale(frame, traits)
    places = None if former is None else _former_places(frame, former)
    start = None if former is None or places is None else centres(scaled, places, len(former.ids))
    # In the order of their values, so that the order in which users come does not matter.
    fitted = scaled[drawn][np.lexsort(scaled[drawn].T)]
    # There cannot be more personas than users who differ.
    differ = len(np.unique(fitted, axis=0))
    choice = choose(
        fitted,
        range(min(fewest, differ), min(most, len(frame) // _USERS_EACH, differ) + 1),
        smallest_share=smallest_share,
        stability=stability,
        seed=seed,
        start=start,
    )
    centroids, labels = _largest_first(scaled, choice.centroids)
    apart = set_apart(frame, scaled, labels, traits)
    ids: tuple[int, ...] = tuple(range(len(centroids)))
    matching = None
    if former is not None:
        matching = match(places, labels, scaled, former_ids=former.ids, count=len(centroids), next_id=former.next_id)
        ids = matching.ids
    # Where they are not all buyers, they are called what they all are.
    noun = "buyers" if purchases is None or (purchases in frame and (frame[purchases] > 0).all()) else "users"
    called = _named(apart, traits, ids, names or {}, former, noun)
    if former is not None and matching is not None:
        renamed = _renamed(dict(zip(ids, called, strict=True)), former, names or {})
        matching = replace(matching, changes=(*matching.changes, *renamed))
    personas = Personas(
        traits=traits,
        ids=ids,
        centroids=tuple(tuple(float(value) for value in row) for row in centroids),
        names=called,
        descriptions=describe(frame, labels, apart, traits, features, currency=currency),
        shares=tuple(float(share) for share in np.bincount(labels) / len(labels)),
        quantiles=_quantiles(scaled, labels, centroids),
        tried=choice.tried,
        why=choice.why,
        next_id=max([number + 1 for number in ids] + [former.next_id if former else 0]),
    )
    _check_names(names or {}, personas)
    return personas, matching


def refuse_few(users: int, *, fewest: int) -> None:
    """Raise GateError when so many users, whose habits are known, are too few for the fewest personas."""
    if users < _USERS_EACH * fewest:
        raise GateError(
            f"personas.fewest: {users} users who bought, or did what targets take for activity, within the longest window "
            f"are too few for {fewest} personas: "
            f"at least {_USERS_EACH * fewest} are needed. Lower personas.fewest, wait for more, "
            "or say in eligible.events of a target what makes a user active"
        )


def _check_names(names: Mapping[int, str], personas: Personas) -> None:
    unknown = sorted(number for number in names if number >= personas.next_id)
    if unknown:
        there = listed(sorted(personas.ids), most=20)
        raise ConfigError(
            "\n".join(f"personas.names.{number}: there is no persona {number}; there are {there}" for number in unknown)
        )


def _former_places(frame: pd.DataFrame, former: Personas) -> np.ndarray | None:
    """Give each user's place among the former personas, by those of their traits that there still are; None when there are none."""
    known = set(frame.columns)
    there = [at for at, trait in enumerate(former.traits) if {trait.feature, trait.evidence or trait.feature} <= known]
    if not there:
        return None
    return nearest(scale(frame, [former.traits[at] for at in there]), np.asarray(former.centroids)[:, there])


def _largest_first(scaled: Floats, centroids: Floats) -> tuple[Floats, np.ndarray]:
    """Order the centroids by their users, and give each user's place among them."""
    labels = nearest(scaled, centroids)
    counts = np.bincount(labels, minlength=len(centroids))
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    place = np.empty(len(centroids), dtype=np.int64)
    place[order] = np.arange(len(order))
    return centroids[order], place[labels]


def _named(
    apart: Floats, traits: Sequence[Trait], ids: Sequence[int], names: Mapping[int, str], former: Personas | None, noun: str
) -> tuple[str, ...]:
    """Take the names of the config, then those that personas had before where they are still true, and make up the others."""
    before = {} if former is None else dict(zip(former.ids, former.names, strict=True))
    given = {row: names[number] for row, number in enumerate(ids) if number in names}
    kept = {
        row: before[number]
        for row, number in enumerate(ids)
        if number in before
        and before[number] not in given.values()
        and noun in before[number].split()
        and is_true(before[number], apart[row], traits)
    }
    return name_personas(apart, traits, given=kept | given, taken=set(before.values()), noun=noun)


def _renamed(called: Mapping[int, str], former: Personas, names: Mapping[int, str]) -> list[Change]:
    """Tell which personas have another name than before, the config's own aside."""
    before = zip(former.ids, former.names, strict=True)
    return [Change("renamed", number) for number, name in before if number not in names and called.get(number, name) != name]


def _quantiles(scaled: Floats, labels: np.ndarray, centroids: Floats) -> tuple[tuple[float, ...], ...]:
    at = np.linspace(0, 100, _QUANTILES + 1)
    own = np.sqrt(((scaled - centroids[labels]) ** 2).sum(axis=1))
    return tuple(tuple(float(value) for value in np.percentile(own[labels == row], at)) for row in range(len(centroids)))
