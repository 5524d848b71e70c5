"""Outcomes: how often, how lately and how long ago the events that a target asks about happened before.

Built for the conditions `events` and `eligible.events` of the targets, but for purchases and for known event types by themselves,
which the other families describe. Near misses are like the events of a condition in all but their type. Models read those of
their own target; a feature of your own takes the place of one with its name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256

import ibis
from ibis import _
from ibis.common.deferred import Deferred
from sqlglot import exp

from features.catalogue import Feature, coarse, feature_name
from features.custom import Custom, Measure, condition_met, custom_features
from features.errors import ConfigError
from features.event_types import PURCHASE
from features.expressions import DIALECT, columns_of, parse
from features.families import stage
from features.families.values import in_names
from features.labels import Target
from features.windows import DAY_MICROSECONDS

RFM = ("purchase_recency_days", "purchase_frequency", "purchase_tenure_days", "purchase_monetary_value")
_UNITS = {"amount": "money", "discount": "money", "quantity": "number"}
# Event types that other families describe, and their words in the names of features.
_DESCRIBED = {PURCHASE: PURCHASE, **{event_type: word for event_type, (word, _, _) in stage.EVENTS.items()}}
_LONGEST_NAME = 40
_TYPE = "event_type"
_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Outcome:
    """Events that features are built for: a checked condition, the column that is summed, whether they make a user active."""

    condition: str
    measure: str | None = None
    is_activity: bool = False

    @property
    def name(self) -> str:
        """What the names of its features begin with."""
        return _name(self.condition)

    @property
    def told(self) -> str:
        """The condition in words."""
        return _told(self.condition)


@dataclass(frozen=True)
class _NearMiss(Outcome):
    """What holds for the events of `missed` but their type."""

    missed: str = ""

    @property
    def name(self) -> str:
        return f"near_{_name(self.missed)}"

    @property
    def told(self) -> str:
        return f"near misses of {_told(self.missed)}"


def outcomes(targets: Sequence[Target]) -> tuple[Outcome, ...]:
    """Give what targets ask about beyond what the other families describe, each condition once."""
    found: dict[str, Outcome] = {}
    for target in targets:
        measure = target.measure if target.kind in ("growth", "value") else None
        for new in (Outcome(target.events, measure), Outcome(target.eligible.events, is_activity=True)):
            old = found.get(new.condition, new)
            found[new.condition] = Outcome(new.condition, old.measure or new.measure, old.is_activity or new.is_activity)
    return tuple(outcome for outcome in found.values() if _described(outcome.condition) is None)


def outcome_features(asked: Sequence[Outcome], windows: Sequence[timedelta]) -> tuple[list[Feature], list[Measure]]:
    """Count, date and sum the events of each outcome; none for a condition that a custom feature could not have."""
    features: dict[str, Feature] = {}
    measures: list[Measure] = []
    # One activity is what personas are called after.
    named = next((outcome for outcome in asked if outcome.is_activity), None)
    for outcome in asked:
        for told in (outcome, *_near_misses(outcome)):
            try:
                found, needed = _features_of(told, sorted(windows), is_named=told is named)
            except ConfigError:
                continue
            # Two spellings may give one name: the first has it.
            if not features.keys() & {feature.name for feature in found}:
                features |= {feature.name: replace(feature, outcome=outcome.condition) for feature in found}
                measures += needed
    return list(features.values()), measures


def simple_rules(target: Target, longest: timedelta) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the features of the recency rule and of the RFM rule that a target's model has to beat.

    How lately what is asked about happened, or for what has not happened yet, how lately the user was active; RFM is of both.
    """
    own, active = (rfm_names(condition, longest) for condition in (target.events, target.eligible.events))
    return (active if target.kind == "first" else own)[:1], tuple(dict.fromkeys([*active, *own]))


def rfm_names(condition: str, longest: timedelta) -> tuple[str, ...]:
    """Name the features that say how lately, how often, since when and for how much events happened, recency first.

    >>> rfm_names("event_type = 'lesson' AND category = 'italian'", timedelta(days=168))
    ('lesson_italian_recency_days', 'lesson_italian_count', 'lesson_italian_first_days', 'lesson_italian_amount_sum')
    """
    word = _described(condition)
    if word == PURCHASE:
        return RFM
    if word is not None:
        return f"{word}_recency_days", feature_name(word, "count", longest), f"{word}_first_days"
    name = _name(condition)
    return tuple(f"{name}_{what}" for what in ("recency_days", "count", "first_days", "amount_sum"))


def count_name(condition: str, longest: timedelta) -> str:
    """Name the feature that counts events of a condition in the longest window."""
    return feature_name(_described(condition) or _name(condition), "count", longest)


def _features_of(outcome: Outcome, windows: Sequence[timedelta], *, is_named: bool) -> tuple[list[Feature], list[Measure]]:
    name, told = outcome.name, outcome.told
    said = told.replace("{", "{{").replace("}", "}}")
    where = f"filter (where {outcome.condition})"
    asked = []
    for span, when in ((tuple(coarse(windows)), ""), ((), " so far")):
        count = Custom(
            name=f"{name}_count",
            sql=f"count(*) {where}",
            unit="event",
            meaning=f"events of {told}{when}",
            phrase=f"{said}: {{value}}{when}",
            group=name,
            windows=span,
        )
        asked.append(count)
        if (measure := outcome.measure) is not None:
            asked.append(
                replace(
                    count,
                    name=f"{name}_{measure}_sum",
                    sql=f"sum({measure}) {where}",
                    unit=_UNITS[measure],
                    meaning=f"{measure} of {told}{when}",
                    phrase=f"{said}: {measure} of {{value}}{when}",
                )
            )
    made = [custom_features(custom, {}) for custom in asked]
    dates, instants = _dates(outcome.condition, name, told, said)
    features = [*dates, *(feature for found, _ in made for feature in found)]
    if is_named:
        longest = feature_name(name, "count", windows[-1])
        features = [replace(one, high="keen", low="occasional") if one.name == longest else one for one in features]
    return features, [*instants, *(measure for _, needed in made for measure in needed)]


def _dates(condition: str, name: str, told: str, said: str) -> tuple[list[Feature], list[Measure]]:
    met, instant = condition_met(condition), _microseconds(_.event_ts)
    # No other measure has a name with blanks.
    last, first = f"last {name}", f"first {name}"
    needs = frozenset(columns_of(condition) - {_TYPE})

    def days(what: str, expr: Deferred, meaning: str, phrase: str) -> Feature:
        return Feature(
            name=f"{name}_{what}_days",
            base="custom",
            expr=expr / DAY_MICROSECONDS,
            unit="days",
            meaning=f"days since the {meaning} of {told}",
            phrase=f"{said}: {phrase} {{value}} ago",
            group=name,
            unknown=f"{said}: never so far",
            needs=needs,
        )

    until = _microseconds(_.cutoff)
    features = [
        days("recency", (until - getattr(_, last)).min(), "last event", "last"),
        days("first", (until - getattr(_, first)).max(), "first event", "first"),
    ]
    return features, [Measure(last, "max", instant, met), Measure(first, "min", instant, met)]


def _microseconds(instant: Deferred) -> Deferred:
    return instant.delta(ibis.literal(_EPOCH), unit="microsecond").cast("float64")


def _near_misses(outcome: Outcome) -> Iterator[Outcome]:
    """Give what holds for a condition's events but their type, where it says more than that."""
    parts = _parts(outcome.condition)
    kinds = [part for part in parts if columns_of(part) == {_TYPE}]
    others = [part for part in parts if part not in kinds]
    if kinds and others:
        but_type = " AND ".join([*(f"NOT ({kind})" for kind in kinds), *others])
        yield _NearMiss(but_type, missed=outcome.condition)


def _described(condition: str) -> str | None:
    """Give the word by which other families name exactly these events; None where none does."""
    values = _values(condition)
    return _DESCRIBED.get(values[_TYPE]) if values.keys() == {_TYPE} else None


def _values(condition: str) -> dict[str, str]:
    """Give the text that each column must have, for a condition that asks for nothing else; empty for any other."""
    found: dict[str, str] = {}
    for part in map(parse, _parts(condition)):
        match part:
            case exp.EQ(this=exp.Column() as column, expression=exp.Literal(is_string=True) as value) if column.name not in found:
                found[column.name] = value.name
            case _:
                return {}
    return found


def _parts(condition: str) -> list[str]:
    tree = parse(condition).unnest()
    parts = tree.flatten() if isinstance(tree, exp.And) else [tree]
    return [f"({part.sql(DIALECT)})" if isinstance(part, exp.Or) else part.sql(DIALECT) for part in parts]


def _name(condition: str) -> str:
    """Name a condition by its values, or by its words and some of its digest; a near miss by what it misses.

    >>> _name("event_type = 'lesson' AND category = 'Ancient Greek'"), _name("amount > 50")
    ('lesson_ancient_greek', 'amount_50_97e1')
    """
    values = _values(condition)
    words = [
        in_names(value) for value in ([values[_TYPE]] if _TYPE in values else []) + [v for k, v in values.items() if k != _TYPE]
    ]
    if words and all(words):
        name = "_".join(words)
    else:
        name = f"{in_names(condition)[:_LONGEST_NAME].strip('_')}_{sha256(condition.encode()).hexdigest()[:4]}"
    return name if name[0].isalpha() else f"events_{name}"


def _told(condition: str) -> str:
    """Say a condition in words.

    >>> _told("event_type = 'lesson_done' AND category = 'Ancient Greek'"), _told("amount > 50")
    ('lesson done, category Ancient Greek', 'amount > 50')
    """
    values = _values(condition)
    kind = [values[_TYPE].replace("_", " ")] if _TYPE in values else []
    return ", ".join([*kind, *(f"{column} {value}" for column, value in values.items() if column != _TYPE)]) or condition
