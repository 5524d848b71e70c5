"""Steps: what was done in each of the horizons before a cutoff, one after another, and how far back the last days of it lie.

A target asks about the next horizon, so what tells most are the ones before it, apart: windows that all end at the cutoff hold the
latest days again and again. Built for what targets ask about, `events` and `eligible.events`, and read by their own models.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from ibis import _

from features.catalogue import Feature, feature_name
from features.custom import MILLION, Measure
from features.occasions import LAST, day_from_last, days_between
from features.windows import between, label, only_where, words

_MOST = 6
_ORDINALS = {2: "2nd", 3: "3rd"}
_AT_MOST = {2: "one day", 3: "two days", 4: "three days"}
# What tiles of purchases hold (see `features.snapshot`).
IN_TILES = {"amount": "amount", "count": "n"}
UNITS: Mapping[str, str] = {"amount": "money", "discount": "money", "quantity": "number"}


@dataclass(frozen=True)
class Steps:
    """Events that are looked at step by step: their `name`, what holds for them, and how they are told and said in phrases.

    `sums` are the columns added up, or `count`, each with what adds it up; None where tiles of purchases do. `groups` are the
    stories that how lately, how often and how much belong to; `taken` are names of features that exist.
    """

    name: str
    told: str
    said: str
    needs: frozenset[str]
    types: frozenset[str]
    sums: Mapping[str, Measure | None]
    groups: tuple[str, str, str]
    taken: Collection[str]


def edges(horizon: timedelta, longest: timedelta) -> list[timedelta]:
    """Give where steps end, counted back from a cutoff: at most six horizons, no further than the longest window.

    >>> [end.days for end in edges(timedelta(days=28), timedelta(days=84))]
    [28, 56, 84]
    """
    most = min(_MOST, longest // horizon)
    return [horizon * step for step in range(1, most + 1)] if most > 1 else []


def last_days(steps: Steps) -> Iterator[Feature]:
    """How far back the last days but one, two and three lie."""
    for place in LAST:
        which = _ORDINALS.get(place, f"{place}th")
        yield Feature(
            name=f"{steps.name}_recency_days_{which}",
            base="occasions",
            expr=day_from_last(steps.name, place),
            unit="days",
            meaning=f"days since the {which} last local day with an event of {steps.told}",
            phrase=f"{steps.said}: the {which} last day with any was {{value}} ago",
            group=steps.groups[0],
            unknown=f"{steps.said}: on {_AT_MOST[place]} at most so far",
            needs=steps.needs,
            types=steps.types,
        )


def in_steps(steps: Steps, horizon: timedelta, longest: timedelta) -> Iterator[Feature]:
    """On how many days, and how much, in each step."""
    for column in ("days", *steps.sums):
        for end in edges(horizon, longest):
            feature = _in_step(steps, column, end - horizon, end)
            if feature.name not in steps.taken:
                yield feature


def _in_step(steps: Steps, column: str, start: timedelta, end: timedelta) -> Feature:
    """Look at the step that begins `end` before the cutoff and ends `start` before it."""
    horizon = end - start
    when = f"in the last {words(end)}" if not start else f"in the {words(horizon)} before the last {words(start)}"
    what = {"days": (f"{steps.name}_day", "count"), "count": (steps.name, "count")}.get(column, (f"{steps.name}_{column}", "sum"))
    name = feature_name(*what, horizon) + (f"_before_{label(start)}" if start else "")
    feature = Feature(
        name=name,
        base="occasions",
        expr=days_between(steps.name, start, end),
        unit="day",
        meaning=f"local days with an event of {steps.told} {when}",
        phrase=f"{steps.said}: on {{value}} {when}",
        group=steps.groups[1],
        needs=steps.needs,
        types=steps.types,
        empty=0,
    )
    if column == "days":
        return feature
    measure, is_number = steps.sums[column], column == "count"
    total = only_where(between(start, end), _[measure.name if measure else IN_TILES[column]]).sum().fill_null(0.0)
    return replace(
        feature,
        base="custom" if measure else "purchases",
        group=steps.groups[1 if is_number else 2],
        # Money of tiles is divided when it is given (see `features.build`).
        expr=total / MILLION if measure and not is_number else total,
        unit="event" if is_number else UNITS[column],
        meaning=f"{'events' if is_number else column} of {steps.told} {when}",
        # Money says by itself what it is.
        phrase=f"{steps.said}: {'' if is_number or column == 'amount' else f'{column} of '}{{value}} {when}",
        needs=steps.needs | (set() if is_number else {column}),
        empty=None if measure else 0,
    )
