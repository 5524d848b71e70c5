"""Names of personas, and a line about each: what sets it apart from everybody, in the words of the features."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from features.catalogue import Feature, phrase
from models.persona_traits import Trait
from models.propensity import Floats

NOUN = "buyers"
_NOTABLE, _SLIGHT = 0.4, 0.2
_WORDS, _MOST_WORDS = 2, 4
_TOLD = 3
# Stories that contradict each other when both are told, or sound as if: a premium bargain, a small basket of a high spender.
_SAME_STORY = {"promotion": "price", "basket": "spend", "rhythm": "frequency", "carts": "browsing", "visits": "browsing"}
# Words stand as in speech: new frequent app weekend bargain buyers; stories that are not here stand before these last.
_FIRST = ("tenure", "frequency", "spend")
_LAST = ("channels", "devices", "sources", "timing", "price")


def name_personas(centroids: Floats, traits: Sequence[Trait], *, given: Mapping[int, str], taken: set[str]) -> tuple[str, ...]:
    """Name each persona (row of `centroids`, on the traits' scale) after what sets it apart most; rows in `given` keep theirs.

    No new name is one of those `taken`. A name has two words, and more where two personas would share it; one word a story, so that
    it does not contradict itself.
    """
    named = dict(given)
    taken = taken | set(given.values())
    for row in range(len(centroids)):
        if row not in named:
            named[row] = _name(centroids[row], traits, taken)
            taken.add(named[row])
    return tuple(named[row] for row in range(len(centroids)))


def describe(
    frame: pd.DataFrame,
    labels: np.ndarray,
    centroids: Floats,
    traits: Sequence[Trait],
    features: Sequence[Feature],
    *,
    currency: str,
) -> tuple[str, ...]:
    """Say in one line what sets each persona apart: its median beside everybody's, of the three traits that differ most."""
    by_name = {feature.name: replace(feature, usual=None) for feature in features}
    names = [trait.feature for trait in traits]
    # A feature may be read twice, and pandas gives a column for each time.
    values = frame[list(dict.fromkeys(names))].astype("float64")
    everybody = values.median()
    said = []
    for row in range(len(centroids)):
        own = values[labels == row].median().to_dict()
        told = []
        for at in _strongest(centroids[row], traits, _SLIGHT)[:_TOLD]:
            feature = by_name[names[at]]
            told.append(phrase(feature, own, by_name, currency=currency, typical=float(everybody[feature.name])))
        said.append("; ".join(told) if told else "like everybody in every trait")
    return tuple(said)


def _name(centroid: Floats, traits: Sequence[Trait], taken: set[str]) -> str:
    strong = _strongest(centroid, traits, _NOTABLE)
    slight = _strongest(centroid, traits, _SLIGHT)
    for chosen in (strong[:_WORDS], *(slight[:count] for count in range(_WORDS, _MOST_WORDS + 1))):
        name = " ".join([*(str(_word(at, centroid, traits)) for at in _in_order(chosen, traits)), NOUN])
        name = name if chosen else f"typical {NOUN}"
        if name not in taken:
            return name
    return next(numbered for number in range(2, len(taken) + 3) if (numbered := f"{name} ({number})") not in taken)


def _strongest(centroid: Floats, traits: Sequence[Trait], least: float) -> list[int]:
    """Give the places of the traits that have a word for where the centroid lies, strongest first, one a story."""
    apart = apart_from_all(centroid, traits)
    found: dict[str, int] = {}
    for at in np.argsort(-np.abs(apart), kind="stable"):
        if abs(apart[at]) >= least and _word(int(at), centroid, traits):
            found.setdefault(_story(traits[at]), int(at))
    return list(found.values())


def apart_from_all(centroids: Floats, traits: Sequence[Trait]) -> Floats:
    """Take the weights off: standard deviations by which each centroid lies above everybody's median."""
    apart: Floats = centroids / np.array([trait.weight for trait in traits])
    return apart


def _word(at: int, centroid: Floats, traits: Sequence[Trait]) -> str | None:
    return traits[at].high if centroid[at] > 0 else traits[at].low


def _story(trait: Trait) -> str:
    return _SAME_STORY.get(trait.group, trait.group or trait.feature)


def _in_order(chosen: Sequence[int], traits: Sequence[Trait]) -> list[int]:
    def place(at: int) -> int:
        story = _story(traits[at])
        if story in _FIRST:
            return _FIRST.index(story) - len(_FIRST)
        return _LAST.index(story) + 1 if story in _LAST else 0

    return sorted(chosen, key=place)
