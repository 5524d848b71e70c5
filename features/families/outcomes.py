"""Outcomes: how often, how lately and how long ago the events that a target asks about happened before.

Built for the event types of the log that the other families do not know (the 20 most frequent) and the conditions of
`features.events`, which all models read; and for the conditions `events` and `eligible.events` of the targets that no family
describes, with sums where a target asks for them, which the models of that target read. Near misses are like the events of a
condition in all but their type. A feature of your own takes the place of one with its name.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
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
    """Events that features are built for: a condition (see `canonical`), the columns summed, whether they make a user active."""

    condition: str
    measures: frozenset[str] = frozenset()
    is_activity: bool = False
    for_all: bool = False
    suffix: str = ""

    @property
    def name(self) -> str:
        """What the names of its features begin with."""
        return _name(self.condition) + self.suffix

    @property
    def told(self) -> str:
        """The condition in words."""
        return _told(self.condition)


@dataclass(frozen=True, kw_only=True)
class _NearMiss(Outcome):
    """What holds for the events of `missed` but their type."""

    missed: Outcome

    @property
    def name(self) -> str:
        return f"near_{self.missed.name}"

    @property
    def told(self) -> str:
        return f"near misses of {self.missed.told}"


def outcomes(targets: Sequence[Target], more: Sequence[str] = ()) -> tuple[Outcome, ...]:
    """Give what targets ask about, and `more` conditions for all, beyond what the other families describe, each once."""
    found: dict[str, Outcome] = {}
    for target in targets:
        events, active = canonical(target.events), canonical(target.eligible.events)
        for new in (Outcome(events, frozenset(_summed(target))), Outcome(active, is_activity=True)):
            old = found.get(new.condition, new)
            is_activity = old.is_activity or new.is_activity
            found[new.condition] = Outcome(new.condition, old.measures | new.measures, is_activity)
    for condition in map(canonical, more):
        found[condition] = replace(found.get(condition, Outcome(condition)), for_all=True)
    return tuple(outcome for outcome in found.values() if _described(outcome.condition) is None)


def of_types(asked: Sequence[Outcome], event_types: Sequence[str]) -> tuple[Outcome, ...]:
    """Add outcomes for whole event types, which every model may read; those that targets ask about become such."""
    conditions = {f"{_TYPE} = {exp.Literal.string(name).sql(DIALECT)}" for name in event_types}
    there = {outcome.condition for outcome in asked}
    own = [replace(outcome, for_all=outcome.for_all or outcome.condition in conditions) for outcome in asked]
    return (*own, *(Outcome(condition, for_all=True) for condition in sorted(conditions - there)))


def read_for(target: Target) -> set[str | None]:
    """Give the `outcome` of the features that a target's models read: of none, and of what it asks about itself."""
    events = canonical(target.events)
    return {None, events, canonical(target.eligible.events), *(_sum_of(measure, events) for measure in _summed(target))}


@dataclass(frozen=True)
class Described:
    """Outcomes by the names that they have at last, their features, and what these add up."""

    outcomes: tuple[Outcome, ...]
    features: tuple[Feature, ...]
    measures: tuple[Measure, ...]


def outcome_features(
    asked: Sequence[Outcome], windows: Sequence[timedelta], *, taken: Collection[str] = (), names_personas: bool = False
) -> Described:
    """Count, date and sum the events of each outcome; none for a condition that a custom feature could not have.

    An outcome whose features would have a name that is `taken` gets a name of its own. With `names_personas` the first activity has
    words for personas, as purchases have where there are any.
    """
    # Two may have one name, such as of a category and of a brand: then neither has it, so that none is taken for the other.
    names = Counter(outcome.name for outcome in asked)
    named = next((outcome for outcome in asked if outcome.is_activity), None) if names_personas else None
    resolved: list[Outcome] = []
    features: dict[str, Feature] = {}
    measures: list[Measure] = []
    for told in asked:
        apart = replace(told, suffix=f"_{_digest(told.condition)}")
        for outcome in (told, apart) if names[told.name] == 1 else (apart,):
            try:
                found, needed = _with_near_misses(outcome, sorted(windows), is_named=told is named)
            except ConfigError:
                break
            if not any(feature.name in taken or feature.name in features for feature in found):
                resolved.append(outcome)
                features |= {feature.name: feature for feature in found}
                measures += needed
                break
    return Described(tuple(resolved), tuple(features.values()), tuple(measures))


def _with_near_misses(outcome: Outcome, windows: Sequence[timedelta], *, is_named: bool) -> tuple[list[Feature], list[Measure]]:
    features: list[Feature] = []
    measures: list[Measure] = []
    for told in (outcome, *_near_misses(outcome)):
        found, needed = _features_of(told, windows, is_named=is_named and told is outcome)
        # Sums have an outcome of their own.
        features += [feature for feature in found if feature.outcome]
        counted = (feature for feature in found if not feature.outcome)
        features += [replace(feature, outcome=outcome.condition, for_all=outcome.for_all) for feature in counted]
        measures += needed
    return features, measures


def simple_rules(
    target: Target, asked: Sequence[Outcome], built: Sequence[Feature], longest: timedelta
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the features of the recency rule and of the RFM rule that a target's model has to beat, of those that are `built`.

    How lately what is asked about happened, or for what has not happened yet, how lately the user was active. RFM is of purchases,
    of activity, and of what is asked about.
    """
    names = {feature.name: feature.outcome for feature in built}
    bought = [name for name in RFM if name in names]

    def rfm(condition: str, sums: Sequence[str] = ()) -> list[str]:
        """How lately, how often, since when and for how much events happened, recency first."""
        key, word = canonical(condition), _described(condition)
        if word == PURCHASE:
            return bought
        if word is not None:
            by_word = (f"{word}_recency_days", feature_name(word, "count", longest), f"{word}_first_days")
            return [name for name in by_word if name in names]
        name = next((outcome.name for outcome in asked if outcome.condition == key), "")
        told = (*(f"{name}_{what}" for what in ("recency_days", "count", "first_days")), *(f"{name}_{sum_}_sum" for sum_ in sums))
        # One of that name may be a feature of the config, or of another family.
        return [name for name in told if names.get(name) in (key, *(_sum_of(sum_, key) for sum_ in sums))]

    own, active = rfm(target.events, _summed(target)), rfm(target.eligible.events)
    recency = [name for name in (active if target.kind == "first" else own)[:1] if name.endswith("_recency_days")]
    return tuple(recency), tuple(dict.fromkeys([*bought, *active, *own]))


def canonical(condition: str) -> str:
    """Write a checked condition so that one that says the same in another order is equal, where that is easily seen.

    >>> canonical("category = 'italian' AND event_type = 'lesson'")
    "event_type = 'lesson' AND category = 'italian'"
    """
    values = _values(condition)
    told = sorted(values, key=lambda column: (column != _TYPE, column))
    return " AND ".join(f"{column} = {exp.Literal.string(values[column]).sql(DIALECT)}" for column in told) or condition


def _summed(target: Target) -> list[str]:
    return [target.measure] if target.kind in ("growth", "value") else []


def _sum_of(measure: str, condition: str) -> str:
    """Tell sums from the rest: only targets that ask for one read it, so that another's coming and going leaves them alone."""
    return f"{measure} of {condition}"


def _features_of(outcome: Outcome, windows: Sequence[timedelta], *, is_named: bool) -> tuple[list[Feature], list[Measure]]:
    name, told = outcome.name, outcome.told
    said = told.replace("{", "{{").replace("}", "}}")
    where = f"filter (where {outcome.condition})"
    counts: list[Feature] = []
    sums: list[Feature] = []
    measures: list[Measure] = []
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
        found, needed = custom_features(count, {})
        counts += found
        measures += needed
        for measure in sorted(outcome.measures):
            summed = replace(
                count,
                name=f"{name}_{measure}_sum",
                sql=f"sum({measure}) {where}",
                unit=_UNITS[measure],
                meaning=f"{measure} of {told}{when}",
                phrase=f"{said}: {measure} of {{value}}{when}",
            )
            found, needed = custom_features(summed, {})
            sums += [replace(feature, outcome=_sum_of(measure, outcome.condition)) for feature in found]
            measures += needed
    dates, instants = _dates(outcome.condition, name, told, said)
    features = [*dates, *counts, *sums]
    if is_named:
        longest = feature_name(name, "count", windows[-1])
        features = [replace(one, high="keen", low="occasional") if one.name == longest else one for one in features]
    return features, [*instants, *measures]


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
    if not any(PURCHASE in _choices(part).get(_TYPE, ()) for part in _parts(condition)):
        later = stage.since_purchase(name, f"event of {told}", name)
        phrase, unknown = f"{said}: last {{value}} after the last purchase", f"{said}: none since the last purchase, if any"
        features.append(replace(later, phrase=phrase, unknown=unknown, needs=needs))
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
        yield _NearMiss(but_type, missed=outcome)


def _described(condition: str) -> str | None:
    """Give the word by which other families name exactly these events; None where none does."""
    values = _values(condition)
    return _DESCRIBED.get(values[_TYPE]) if values.keys() == {_TYPE} else None


def _values(condition: str) -> dict[str, str]:
    """Give the text that each column must have, for a condition that asks for nothing else; empty for any other."""
    choices = _choices(condition)
    return {column: values[0] for column, values in choices.items()} if all(len(told) == 1 for told in choices.values()) else {}


def _choices(condition: str) -> dict[str, list[str]]:
    """Give the texts of which each column must have one, for a condition that asks for nothing else; empty for any other."""
    found: dict[str, list[str]] = {}
    for part in map(parse, _parts(condition)):
        match part:
            case exp.EQ(this=exp.Column() as column, expression=value):
                values = [value]
            case exp.In(this=exp.Column() as column, expressions=[_, *_] as values):
                pass
            case _:
                return {}
        if column.name in found or not all(isinstance(value, exp.Literal) and value.is_string for value in values):
            return {}
        found[column.name] = [value.name for value in values]
    return found


def _parts(condition: str) -> list[str]:
    tree = parse(condition).unnest()
    parts = tree.flatten() if isinstance(tree, exp.And) else [tree]
    return [f"({part.sql(DIALECT)})" if isinstance(part, exp.Or) else part.sql(DIALECT) for part in parts]


def _name(condition: str) -> str:
    """Name a condition by its values, or by its words and some of its digest.

    >>> _name("event_type IN ('lesson', 'quiz') AND category = 'Ancient Greek'"), _name("amount > 50")
    ('lesson_or_quiz_ancient_greek', 'amount_50_9b52')
    """
    choices = _choices(condition)
    words = [list(map(in_names, choices[column])) for column in sorted(choices, key=lambda column: column != _TYPE)]
    name = "_".join("_or_".join(told) for told in words)
    if not name or len(name) > _LONGEST_NAME or not all(all(told) for told in words):
        name = f"{in_names(condition)[:_LONGEST_NAME].strip('_')}_{_digest(condition)}"
    return name if name[0].isalpha() else f"events_{name}"


def _digest(condition: str) -> str:
    return sha256(condition.encode()).hexdigest()[:4]


def _told(condition: str) -> str:
    """Say a condition in words.

    >>> _told("event_type IN ('lesson_done', 'quiz') AND category = 'Ancient Greek'"), _told("amount > 50")
    ('lesson done or quiz, category Ancient Greek', 'amount > 50')
    """
    choices = {column: " or ".join(values) for column, values in _choices(condition).items()}
    kind = [choices[_TYPE].replace("_", " ")] if _TYPE in choices else []
    return ", ".join([*kind, *(f"{column} {value}" for column, value in choices.items() if column != _TYPE)]) or condition
