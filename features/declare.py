"""Which features are built: what the families declare, what a config adds, and what the events at hand allow."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

import ibis
import ibis.expr.operations as ops

from features.catalogue import NAME, Feature, unique_by_name
from features.contract import COLUMNS
from features.custom import Custom, Measure, custom_features, custom_names
from features.errors import ConfigError, listed
from features.event_types import DERIVED_FROM, KNOWN, PURCHASE, derivable
from features.expressions import understood
from features.families import FAMILIES, FIXED_WINDOWS, stage, steps
from features.families.attributes import attribute_features
from features.families.contacts import contact_features
from features.families.names import name_features
from features.families.outcomes import Outcome, habits_of, outcome_features, with_inventory
from features.inventory import NOTHING, Inventory
from features.occasions import LAPSED_AFTER, Occasion, lapsing
from features.snapshot import KEYS

# What these hold are purchases.
_OF_PURCHASES = frozenset({"purchases", "orders", "days", "weeks", "categories", "brands"})
ATTRIBUTES = "attributes"
CONTACTS = "contacts"
OUTCOMES = "outcomes"
NAMES = "names"


@dataclass(frozen=True)
class Wanted:
    """What a config asks for: windows, families by name, named values, custom features and attributes.

    `contacts` are the windows in which contacts are counted for plays, None where there are no plays; `outcomes` are what targets
    ask about beyond the families; models leave attributes `aside` alone, and features in `left_out` are not built. Users have
    `lapsed_after` such a pause.
    """

    windows: tuple[timedelta, ...]
    families: tuple[str, ...] = tuple(FAMILIES)
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    custom: tuple[Custom, ...] = ()
    # Attribute to whether it is a number.
    attributes: Mapping[str, bool] = field(default_factory=dict)
    aside: frozenset[str] = frozenset()
    contacts: tuple[timedelta, ...] | None = None
    outcomes: tuple[Outcome, ...] = ()
    left_out: frozenset[str] = frozenset()
    lapsed_after: timedelta = LAPSED_AFTER


@dataclass(frozen=True)
class FeatureSet:
    """The features that are built, in order; `hidden` ones are only read by others.

    `measures` are what custom features add up, and `occasions` are the kinds of events that are looked at day by day.
    """

    features: tuple[Feature, ...]
    hidden: tuple[Feature, ...]
    measures: tuple[Measure, ...]
    occasions: tuple[Occasion, ...]
    windows: tuple[timedelta, ...]
    longest: timedelta
    lapsed_after: timedelta = LAPSED_AFTER
    outcomes: tuple[Outcome, ...] = ()

    @property
    def habits(self) -> tuple[Outcome, ...]:
        """What else than purchases makes users active."""
        return habits_of(self.outcomes)

    @property
    def built(self) -> tuple[Feature, ...]:
        """Everything that is computed, hidden or not."""
        return (*self.features, *self.hidden)

    @property
    def names(self) -> list[str]:
        """The names of all features, in order."""
        return [feature.name for feature in self.features]

    @property
    def numbers(self) -> tuple[Feature, ...]:
        """The features that are numbers: what models read."""
        return tuple(feature for feature in self.features if not feature.is_text and not feature.is_aside)

    @cached_property
    def definitions(self) -> dict[str, str]:
        """What the config says of each feature that its name does not tell, with what it says of those that are read for it."""
        read, own = reads(self), {feature.name: feature.definition for feature in self.built if feature.definition}
        found = {}
        for name in self.names:
            others = sorted((_closure([name], read) - {name}) & own.keys())
            if said := [*([own[name]] if name in own else []), *(f"{other}: {own[other]}" for other in others)]:
                found[name] = "; ".join(said)
        return found


def declared(
    wanted: Wanted, columns: Collection[str], types: Collection[str] = KNOWN, inventory: Inventory = NOTHING
) -> FeatureSet:
    """Give the features that the event columns and event types present allow, and those of what a log holds besides.

    Raises ConfigError for a custom feature that is wrong (see `features.custom`).
    """
    windows = tuple(sorted(wanted.windows))
    by_family = declared_by_family(wanted)
    custom: list[Feature] = []
    own = {name for told in wanted.custom for name in custom_names(told)}
    built_in = {feature.name for family in by_family.values() for feature in family}
    asked_about = [replace(told, lapsed_after=wanted.lapsed_after) for told in with_inventory(wanted.outcomes, inventory)]
    outcomes = outcome_features(
        asked_about, windows, taken=built_in, names_personas=PURCHASE not in types, has_amounts="amount" in columns
    )
    measures = list(outcomes.measures)
    by_family[OUTCOMES] = tuple(feature for feature in outcomes.features if feature.name not in own)
    habits = habits_of(outcomes.outcomes)
    if PURCHASE not in types and habits:
        by_family["stage"] = _staged(by_family["stage"], habits[0])
    texts = [feature for name in (*wanted.families, ATTRIBUTES) for feature in by_family[name] if feature.is_text]
    taken = built_in | own | {feature.name for feature in by_family[OUTCOMES]}
    by_family[NAMES] = tuple(name_features(texts, inventory.values, taken))
    known = {feature.name: feature.sql_type for family in by_family.values() for feature in family}
    problems = []
    for index, told in enumerate(wanted.custom):
        try:
            features, needed = custom_features(told, known | {feature.name: feature.sql_type for feature in custom})
        except ConfigError as error:
            problems.append(f"features.custom.{index} ({told.name}): {error}")
            continue
        taken = {*known, *(other.name for other in custom)}
        names = [feature.name for feature in features]
        if clash := [name for place, name in enumerate(names) if name in taken or name in names[:place]]:
            problems.append(f"features.custom.{index}: there is already a feature {clash[0]!r}: choose another name")
            continue
        custom += [replace(feature, definition=understood(told.sql)) for feature in features]
        measures += needed
    if problems:
        raise ConfigError("\n".join(problems))
    everything = unique_by_name([*(feature for family in by_family.values() for feature in family), *custom])
    present = set(types) | derivable(types)
    possible = [feature for feature in everything if feature.needs <= set(columns) and _types(feature) <= present]
    reads = _reads(everything)
    possible = _with_what_they_read(possible, reads)
    chosen = {feature.name for name in wanted.families for feature in by_family.get(name, ())}
    chosen |= {feature.name for always in (ATTRIBUTES, CONTACTS, OUTCOMES, NAMES) for feature in by_family[always]}
    chosen |= {feature.name for feature in custom}
    chosen -= wanted.left_out
    asked = tuple(feature for feature in possible if feature.name in chosen)
    needed_names = _closure([feature.name for feature in asked], reads)
    hidden = tuple(feature for feature in possible if feature.name in needed_names and feature not in asked)
    looked = {window for told in wanted.custom for window in told.windows} | set(wanted.contacts or ())
    looked |= {window for told in asked_about for window in told.trailing}
    looked |= {end for told in asked_about for horizon in told.horizons for end in steps.edges(horizon, windows[-1])}
    edges = tuple(sorted({*windows, *looked, *FIXED_WINDOWS}))
    return FeatureSet(
        asked, hidden, tuple(measures), outcomes.occasions, edges, windows[-1], wanted.lapsed_after, outcomes.outcomes
    )


def declared_by_family(wanted: Wanted) -> dict[str, tuple[Feature, ...]]:
    """Give what every family declares, whatever the columns; attributes are a family of their own."""
    windows, pause = sorted(wanted.windows), wanted.lapsed_after
    found = {}
    for name, family in FAMILIES.items():
        own = tuple(family.features(windows))
        more = tuple(family.value_features(wanted.values, windows) if hasattr(family, "value_features") else ())
        if taken := sorted({feature.name for feature in own} & {feature.name for feature in more}):
            raise ConfigError(f"features.values: {listed(taken)}: there is one already; name no value that makes another")
        paced = family.paced_features(pause) if hasattr(family, "paced_features") else ()
        found[name] = (*own, *more, *(replace(feature, definition=lapsing(pause)) for feature in paced))
    contacts = () if wanted.contacts is None else tuple(contact_features(wanted.contacts))
    return {**found, ATTRIBUTES: tuple(attribute_features(wanted.attributes, wanted.aside)), CONTACTS: contacts}


def switched_off(wanted: Wanted, columns: Collection[str], types: Collection[str]) -> dict[str, int]:
    """Count the features, of families and own ones, that each missing event column, or else event type, switches off."""
    present = set(types) | derivable(types)
    counts: dict[str, int] = {}
    by_family = declared_by_family(wanted)
    built_in = {feature.name for family in by_family.values() for feature in family}
    has_own = wanted.custom or wanted.outcomes
    own = [feature for feature in declared(wanted, COLUMNS).features if feature.name not in built_in] if has_own else []
    for feature in [*(feature for name in wanted.families for feature in by_family[name]), *own]:
        missing = feature.needs - set(columns) or {kind for name in _types(feature) - present for kind in _lacking(name, types)}
        for name in missing:
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def reads(feature_set: FeatureSet) -> dict[str, frozenset[str]]:
    """Give the features that each feature of the base `row` or `population` reads; none for the others."""
    return _reads(feature_set.built)


def _types(feature: Feature) -> frozenset[str]:
    """Give the event types without which a feature is switched off."""
    return feature.types | {PURCHASE} if feature.base in _OF_PURCHASES else feature.types


def _staged(family: Sequence[Feature], habit: Outcome) -> tuple[Feature, ...]:
    """Tell the stage by what makes users active instead of by purchases."""
    # Models leave the days alone: on a log that has purchases one day, they would mean something else.
    by_habit = {feature.name: replace(feature, is_aside=True) for feature in stage.stages_of(habit.name, habit.lapsed_after)}
    return tuple(by_habit.get(feature.name, feature) for feature in family)


def _lacking(event_type: str, types: Collection[str]) -> Iterator[str]:
    yield from (kind for kind in DERIVED_FROM.get(event_type, {event_type}) if kind not in types)


def _reads(features: Sequence[Feature]) -> dict[str, frozenset[str]]:
    kinds = {feature.name: "string" if feature.unit == NAME else "float64" for feature in features}
    row = ibis.table({"user_id": "string", "cutoff": "timestamp(6)", **kinds}, name="row")
    found = {}
    for feature in features:
        is_derived = feature.base in ("row", "population")
        fields = feature.expr.resolve(row).op().find(ops.Field) if is_derived else ()
        found[feature.name] = frozenset(node.name for node in fields) - set(KEYS)
    return found


def _with_what_they_read(features: Sequence[Feature], reads: Mapping[str, frozenset[str]]) -> list[Feature]:
    kept = list(features)
    while True:
        names = {feature.name for feature in kept}
        left = [feature for feature in kept if reads[feature.name] <= names]
        if len(left) == len(kept):
            return kept
        kept = left


def _closure(names: Sequence[str], reads: Mapping[str, frozenset[str]]) -> set[str]:
    found, open_ = set(names), list(names)
    while open_:
        new = reads[open_.pop()] - found
        found |= new
        open_ += new
    return found
