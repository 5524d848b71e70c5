"""Names of personas, and a line about each: what sets it apart from everybody, in the words of the features."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from features.catalogue import Feature, phrase
from models.persona_traits import Trait
from models.propensity import Floats

# In standard deviations: what a name starts with, what it may add, and what it must still be to stay.
_NOTABLE, _SLIGHT, _STILL = 0.4, 0.2, 0.1
_TENTH = 0.1
_WORDS, _MOST_WORDS = 2, 4
_TOLD = 3
# Stories that contradict each other when both are told, or sound as if: a premium bargain, a small basket of a high spender.
_SAME_STORY = {"promotion": "price", "basket": "spend", "rhythm": "frequency", "carts": "browsing", "visits": "browsing"}
# Words stand as in speech: new frequent app weekend bargain buyers; stories that are not here stand before these last.
_FIRST = ("tenure", "frequency", "spend")
_LAST = ("channels", "devices", "sources", "timing", "price")


def set_apart(frame: pd.DataFrame, scaled: Floats, labels: np.ndarray, traits: Sequence[Trait]) -> Floats:
    """Say how far the mean of each persona lies from everybody's, personas × traits, in standard deviations of the trait.

    What is told of a persona must hold for its median user too: it is 0 where the medians of the feature itself say otherwise, or
    are within a tenth of each other. `labels` are the users' personas.
    """
    values = scaled / np.array([trait.weight for trait in traits])
    raw = frame[[trait.feature for trait in traits]].astype("float64")
    mean, typical = values.mean(axis=0), raw.median().to_numpy()
    apart = np.zeros((int(labels.max()) + 1, len(traits)))
    for row in range(len(apart)):
        own, above = raw[labels == row].median().to_numpy(), values[labels == row].mean(axis=0) - mean
        told = np.abs(own - typical) >= _TENTH * np.maximum(np.abs(own), np.abs(typical))
        apart[row] = np.where(told & (above * (own - typical) > 0), above, 0.0)
    return apart


def name_personas(
    apart: Floats, traits: Sequence[Trait], *, given: Mapping[int, str], taken: set[str], noun: str
) -> tuple[str, ...]:
    """Name each persona (row of `apart`, as `set_apart` gives it) after what is strongest; rows in `given` keep theirs.

    No new name is one of those `taken`. `noun` is what all of them are. A name has two words, and more where two personas would
    share it; one word a story, so that it does not contradict itself.
    """
    named = dict(given)
    taken = taken | set(given.values())
    for row in range(len(apart)):
        if row not in named:
            named[row] = _name(apart[row], traits, taken, noun)
            taken.add(named[row])
    return tuple(named[row] for row in range(len(apart)))


def is_true(name: str, apart: Floats, traits: Sequence[Trait]) -> bool:
    """Whether every word for a trait in a persona's `name` still holds, `apart` being its row; other words are not judged."""
    words = {word for trait in traits for word in (trait.high, trait.low) if word}
    held = {_word(at, apart, traits) for at in range(len(traits)) if abs(apart[at]) >= _STILL}
    return not (words & set(name.split())) - held


def describe(
    frame: pd.DataFrame, labels: np.ndarray, apart: Floats, traits: Sequence[Trait], features: Sequence[Feature], *, currency: str
) -> tuple[str, ...]:
    """Say in one line what sets each persona apart: its median beside everybody's, of the three traits that differ most."""
    by_name = {feature.name: replace(feature, usual=None) for feature in features}
    values = frame[[trait.feature for trait in traits]].astype("float64")
    everybody = values.median()
    said = []
    for row in range(len(apart)):
        own = values[labels == row].median().to_dict()
        told = [by_name[traits[at].feature] for at in _strongest(apart[row], traits, _SLIGHT)[:_TOLD]]
        lines = [phrase(one, own, by_name, currency=currency, typical=float(everybody[one.name])) for one in told]
        said.append("; ".join(lines) or "much like everybody")
    return tuple(said)


def words_towards(side: Floats, traits: Sequence[Trait]) -> list[str]:
    """Give the words of users who lie far out along `side` (a direction, one number per trait): the strongest, one a story."""
    return [str(_word(at, side, traits)) for at in _strongest(side, traits, _SLIGHT * float(np.abs(side).max()))[:_WORDS]]


def _name(apart: Floats, traits: Sequence[Trait], taken: set[str], noun: str) -> str:
    strong = _strongest(apart, traits, _NOTABLE)
    slight = _strongest(apart, traits, _SLIGHT)
    for chosen in (strong[:_WORDS], *(slight[:count] for count in range(_WORDS, _MOST_WORDS + 1))):
        name = " ".join([*(str(_word(at, apart, traits)) for at in _in_order(chosen, traits)), noun])
        name = name if chosen else f"typical {noun}"
        if name not in taken:
            return name
    return next(numbered for number in range(2, len(taken) + 3) if (numbered := f"{name} ({number})") not in taken)


def _strongest(apart: Floats, traits: Sequence[Trait], least: float) -> list[int]:
    """Give the places of the traits that have a word for which side it is on, strongest first, one a story."""
    found: dict[str, int] = {}
    for at in np.argsort(-np.abs(apart), kind="stable"):
        if abs(apart[at]) >= least and _word(int(at), apart, traits):
            found.setdefault(_story(traits[at]), int(at))
    return list(found.values())


def _word(at: int, apart: Floats, traits: Sequence[Trait]) -> str | None:
    return traits[at].high if apart[at] > 0 else traits[at].low


def _story(trait: Trait) -> str:
    return _SAME_STORY.get(trait.group, trait.group or trait.feature)


def _in_order(chosen: Sequence[int], traits: Sequence[Trait]) -> list[int]:
    def place(at: int) -> int:
        story = _story(traits[at])
        if story in _FIRST:
            return _FIRST.index(story) - len(_FIRST)
        return _LAST.index(story) + 1 if story in _LAST else 0

    return sorted(chosen, key=place)
