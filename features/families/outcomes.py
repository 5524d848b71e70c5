"""Outcomes: how often, how lately and since when the events happened that a target asks about, or that no family knows.

Built for the event types of the log that the other families do not know (the 20 most frequent) and the conditions of
`features.events`, which all models read; and for the conditions `events` and `eligible.events` of the targets, which the models of
that target read: what no family describes of them, and all in steps of the horizon (see `features.families.steps`). Sums that a
target asks for are told where no family does, of a growth target also over its trailing window and against the usual. All are told
with their rhythm, and what is paid for by quantity with how long the last one is enough; what makes users active
(`eligible.events`), described by a family or not, also with its runs. Near misses are like the events of a condition in all but
their type.
Event types that no family knows are told with their trend, with sums and means of the columns that tell their events apart, and by
the 8 categories of each type that most users have, 20 users at least. Purchases whose quantities differ are told by category as
well, without counts. What a probability is asked about, described by a family or not, is also told by its level among all users.
A feature of your own takes the place of one with its name.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

import ibis
from ibis import _
from ibis.common.deferred import Deferred

from features.catalogue import EVERYBODY, Feature, coarse, feature_name, verbatim
from features.conditions import TYPE, asking, canonical, choices_of, digest_of, name_of, parts_of, told_of, values_of
from features.custom import Custom, Measure, condition_met, custom_features
from features.errors import ConfigError
from features.event_types import PURCHASE
from features.expressions import columns_of
from features.families import stage
from features.families.steps import IN_TILES, UNITS, Steps, in_steps, last_days
from features.inventory import Inventory
from features.labels import Target
from features.occasions import LAPSED_AFTER, Occasion, days_of_run, days_of_supply, lapsing, last_quantity, mean_gap, runs
from features.windows import DAY, DAY_MICROSECONDS, label, pace, words

RFM = ("purchase_recency_days", "purchase_frequency", "purchase_tenure_days", "purchase_monetary_value")
# Event types that other families describe, and their words in the names of features.
_DESCRIBED = {PURCHASE: PURCHASE, **{event_type: word for event_type, (word, _, _) in stage.EVENTS.items()}}
_EPOCH = datetime(1970, 1, 1)
# What features may be on trial for.
_SUPPLY, _LEVEL = "supply", "level"


@dataclass(frozen=True)
class Outcome:
    """Events that features are built for: a condition (see `canonical`), the columns summed, whether they make a user active.

    Where it is asked whether a sum grows, that of the `trailing` window is told. Of what a probability is asked about (`has_level`)
    its level among all users is told, and of what targets ask about the steps of their `horizons`. What is `for_all` is read by the
    models of all targets, with sums and means of the columns that are `carried`; of a part of an event type only how often and how
    lately, and where events have a quantity, their rhythm and whether that is used up. What is `on_trial` may be of no use to them
    (see `Feature`), and is not counted. Where others than its own target read less of it, as of a part, that is `shared`.
    Its runs end with a pause after which users have `lapsed_after`.
    """

    condition: str
    measures: frozenset[str] = frozenset()
    trailing: frozenset[timedelta] = frozenset()
    is_activity: bool = False
    has_level: bool = False
    horizons: frozenset[timedelta] = frozenset()
    for_all: bool = False
    carried: frozenset[str] = frozenset()
    has_quantity: bool = True
    is_part: bool = False
    on_trial: bool = False
    shared: "Outcome | None" = None
    suffix: str = ""
    lapsed_after: timedelta = LAPSED_AFTER

    @property
    def name(self) -> str:
        """What the names of its features begin with."""
        return self.word or name_of(self.condition) + self.suffix

    @property
    def word(self) -> str | None:
        """The word by which other families name exactly these events, and describe them; None where none does."""
        return _described(self.condition)

    @property
    def is_habit(self) -> bool:
        """Whether it makes users active and no family tells its rhythm, as purchases have one that does."""
        return self.is_activity and self.word != PURCHASE

    @property
    def occasion(self) -> Occasion | None:
        """What is looked at day by day: all that targets ask about, else what no family does, but for parts without quantities."""
        is_looked_at = self.looks_at_supply or self.is_habit if self.word else self.has_quantity or not self.is_part
        return Occasion(self.name, condition_met(self.condition)) if self.horizons or is_looked_at else None

    @property
    def types(self) -> frozenset[str]:
        """The event types that it is about, where it asks for some."""
        return frozenset(choices_of(self.condition).get(TYPE, ()))

    @property
    def looks_at_supply(self) -> bool:
        """Whether how long a quantity lasts is told of what another family describes: of purchases on trial."""
        return self.on_trial or self.shared is not None

    @property
    def told(self) -> str:
        """The condition in words."""
        return told_of(self.condition)

    @property
    def said(self) -> str:
        """The condition in the words of a phrase."""
        return verbatim(self.told)

    @property
    def needs(self) -> frozenset[str]:
        """The optional columns that the condition reads."""
        return frozenset(columns_of(self.condition) - {TYPE})


@dataclass(frozen=True, kw_only=True)
class _NearMiss(Outcome):
    """What holds for the events of `missed` but their type."""

    missed: Outcome

    @property
    def occasion(self) -> None:
        """Not looked at day by day."""

    @property
    def name(self) -> str:
        return f"near_{self.missed.name}"

    @property
    def told(self) -> str:
        return f"near misses of {self.missed.told}"


def outcomes(targets: Sequence[Target], more: Sequence[str] = ()) -> tuple[Outcome, ...]:
    """Give what targets ask about, and `more` for all, each condition once; what other families describe only if asked about."""
    found: dict[str, Outcome] = {}
    for target in targets:
        events, active = canonical(target.events), canonical(target.eligible.events)
        trailing = frozenset([target.trailing] if target.kind == "growth" else [])
        horizons = frozenset([target.horizon])
        asked = Outcome(events, frozenset(_summed(target)), trailing, has_level=not target.is_amount, horizons=horizons)
        for new in (asked, Outcome(active, is_activity=True, horizons=horizons)):
            old = found.get(new.condition, new)
            found[new.condition] = replace(
                old,
                measures=old.measures | new.measures,
                trailing=old.trailing | new.trailing,
                is_activity=old.is_activity or new.is_activity,
                has_level=old.has_level or new.has_level,
                horizons=old.horizons | new.horizons,
            )
    for condition in map(canonical, more):
        found[condition] = replace(found.get(condition, Outcome(condition)), for_all=True)
    return tuple(told for told in found.values() if told.word is None or told.horizons)


def habits_of(told: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Give what else than purchases makes users active: without purchases, journey stages are of the first."""
    return tuple(outcome for outcome in told if outcome.is_habit)


def with_inventory(asked: Sequence[Outcome], inventory: Inventory) -> tuple[Outcome, ...]:
    """Add outcomes for what a log holds, which every model may read; those that targets ask about become such."""
    held = {}
    # What is paid for by number is used up one day; marks, clicks or minutes are not.
    lasting = {name for name, measures in inventory.measures.items() if {"amount", "quantity"} <= set(measures)} | {PURCHASE}
    for name, measures in inventory.measures.items():
        condition = asking(event_type=name)
        held[condition] = Outcome(condition, for_all=True, carried=frozenset(measures), has_quantity=name in lasting)
    for name, values in inventory.categories.items():
        # Purchases are told by category for their quantities (see `features.inventory`).
        is_bought = name == PURCHASE
        if is_bought:
            condition = asking(event_type=name)
            held[condition] = Outcome(condition, for_all=True, is_part=True, on_trial=True)
        for condition in (asking(event_type=name, category=value) for value in values):
            held[condition] = Outcome(condition, for_all=True, has_quantity=name in lasting, is_part=True, on_trial=is_bought)
    asked = [replace(told, has_quantity=not told.types or bool(told.types & lasting)) for told in asked]
    own = [_also_held(told, held.pop(told.condition, None)) for told in asked]
    return (*own, *held.values())


def _also_held(told: Outcome, held: Outcome | None) -> Outcome:
    """Let all models read as much of what a target asks about as they would if it were gone."""
    if held is None:
        return told
    if held.is_part:
        return replace(told, shared=held)
    return replace(told, for_all=True, carried=held.carried, has_quantity=held.has_quantity)


def read_for(target: Target) -> set[str | None]:
    """Give the `outcome` of the features that a target's models read: of none, and of what it asks about itself."""
    events = canonical(target.events)
    sums = (_sum_of(measure, events) for measure in _summed(target))
    levels = [] if target.is_amount else [_level_of(events)]
    steps = (_steps_of(condition, target.horizon) for condition in _conditions(target))
    return {None, *_conditions(target), *levels, *sums, *steps}


def on_trial_for(target: Target, built: Sequence[Feature]) -> dict[str, str]:
    """Give the features that are on trial for a target's models, and what each is on trial for: none of what it asks about."""
    own = _conditions(target)
    return {feature.name: feature.on_trial for feature in built if feature.on_trial and feature.outcome not in own}


def _conditions(target: Target) -> set[str]:
    return {canonical(target.events), canonical(target.eligible.events)}


@dataclass(frozen=True)
class Described:
    """Outcomes by the names that they have at last, their features, and what these add up."""

    outcomes: tuple[Outcome, ...]
    features: tuple[Feature, ...]
    measures: tuple[Measure, ...]

    @property
    def occasions(self) -> tuple[Occasion, ...]:
        """What their features look at day by day."""
        found = (outcome.occasion for outcome in self.outcomes)
        return tuple(occasion for occasion in found if occasion)


def outcome_features(
    asked: Sequence[Outcome],
    windows: Sequence[timedelta],
    *,
    taken: Collection[str] = (),
    names_personas: bool = False,
    has_amounts: bool = True,
) -> Described:
    """Count, date and sum the events of each outcome; none for a condition that a custom feature could not have.

    An outcome whose features would have a name that is `taken` gets a name of its own. With `names_personas` the first activity has
    words for personas, as purchases have where there are any. Steps count events where the log has no amounts to add up.
    """
    # Two may have one name, such as of a category and of a brand: then neither has it, so that none is taken for the other.
    names = Counter(outcome.name for outcome in asked)
    named = next((outcome for outcome in asked if outcome.is_activity and not outcome.word), None) if names_personas else None
    resolved: list[Outcome] = []
    features: dict[str, Feature] = {}
    measures: list[Measure] = []
    for told in asked:
        apart = replace(told, suffix=f"_{digest_of(told.condition)}")
        for outcome in (told, apart) if names[told.name] == 1 else (apart,):
            try:
                found, needed = _with_near_misses(outcome, sorted(windows), taken, is_named=told is named)
                steps, added = _steps(outcome, windows, {*taken, *(feature.name for feature in found)}, has_amounts=has_amounts)
                found, needed = [*found, *steps], [*needed, *added]
            except ConfigError:
                break
            if not any(feature.name in taken or feature.name in features for feature in found):
                resolved.append(outcome)
                features |= {feature.name: feature for feature in found}
                measures += needed
                break
    return Described(tuple(resolved), tuple(features.values()), tuple(measures))


def _steps(
    outcome: Outcome, windows: Sequence[timedelta], taken: Collection[str], *, has_amounts: bool
) -> tuple[list[Feature], list[Measure]]:
    """Tell what targets ask about step by step; of what another family describes it is part of the same stories."""
    if not outcome.horizons:
        return [], []
    is_bought = outcome.word == PURCHASE
    columns = sorted({*outcome.measures, *(["amount"] if has_amounts else [])}) or ["count"]
    # What other features of the outcome add up as well is added up once, by their measures.
    tallies = {column: _count(outcome) if column == "count" else _sum(outcome, column) for column in columns}
    sums = {
        column: None if is_bought and column in IN_TILES else custom_features(tally, {})[1][0] for column, tally in tallies.items()
    }
    types = outcome.types if outcome.word else frozenset[str]()
    groups = ("recency", "frequency", "spend") if is_bought else (outcome.name,) * 3
    said = "purchases" if is_bought else outcome.said
    steps = Steps(outcome.name, outcome.told, said, outcome.needs, types, sums, groups, taken)
    features = [replace(feature, outcome=outcome.condition) for feature in last_days(steps)]
    for horizon in sorted(outcome.horizons):
        tag = _steps_of(outcome.condition, horizon)
        features += [replace(feature, outcome=tag) for feature in in_steps(steps, horizon, max(windows))]
    return features, [measure for measure in sums.values() if measure]


def _with_near_misses(
    outcome: Outcome, windows: Sequence[timedelta], taken: Collection[str], *, is_named: bool
) -> tuple[list[Feature], list[Measure]]:
    features: list[Feature] = []
    measures: list[Measure] = []
    for told in (outcome, *_near_misses(outcome)):
        found, needed = _features_of(told, windows, taken, is_named=is_named and told is outcome)
        # Sums have an outcome of their own.
        features += [feature for feature in found if feature.outcome]
        counted = (feature for feature in found if not feature.outcome)
        features += [
            replace(feature, outcome=outcome.condition, for_all=outcome.for_all, on_trial=_SUPPLY if outcome.on_trial else None)
            for feature in counted
        ]
        measures += needed
    if outcome.shared and not outcome.for_all:
        part = replace(outcome.shared, suffix=outcome.suffix)
        shared = {feature.name for feature in _features_of(part, windows, taken, is_named=False)[0]}
        features = [
            replace(feature, for_all=True, on_trial=_SUPPLY if part.on_trial else None) if feature.name in shared else feature
            for feature in features
        ]
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
            added = (feature_name(word, f"{sum_}_sum", longest) for sum_ in sums)
            by_word = (f"{word}_recency_days", feature_name(word, "count", longest), f"{word}_first_days", *added)
            return [name for name in by_word if name in names]
        name = next((outcome.name for outcome in asked if outcome.condition == key), "")
        told = (*(f"{name}_{what}" for what in ("recency_days", "count", "first_days")), *(f"{name}_{sum_}_sum" for sum_ in sums))
        # One of that name may be a feature of the config, or of another family.
        return [name for name in told if names.get(name) in (key, *(_sum_of(sum_, key) for sum_ in sums))]

    own, active = rfm(target.events, _summed(target)), rfm(target.eligible.events)
    recency = [name for name in (active if target.kind == "first" else own)[:1] if name.endswith("_recency_days")]
    return tuple(recency), tuple(dict.fromkeys([*bought, *active, *own]))


def _summed(target: Target) -> list[str]:
    return [target.measure] if target.kind in ("growth", "value") else []


def _sum_of(measure: str, condition: str) -> str:
    """Tell sums from the rest: only targets that ask for one read it, so that another's coming and going leaves them alone."""
    return f"{measure} of {condition}"


def _level_of(condition: str) -> str:
    """Tell levels from the rest: only a target that asks about the events reads it, not one that asks who was active by them."""
    return f"level of {condition}"


def _steps_of(condition: str, horizon: timedelta) -> str:
    """Tell steps from the rest: only targets with that horizon read them."""
    return f"steps of {label(horizon)} of {condition}"


def _features_of(
    outcome: Outcome, windows: Sequence[timedelta], taken: Collection[str], *, is_named: bool
) -> tuple[list[Feature], list[Measure]]:
    """Date, count and add up an outcome's events; of a part of an event type only how lately and how often they happened.

    Of what another family describes only what that does not tell, whose features are `taken`.
    """
    recent, few = tuple(coarse(windows)), _few(windows)
    levels = _levels(outcome, recent) if outcome.has_level else []
    regular = _runs(outcome) if outcome.is_habit else []
    sums, measures = _sums(outcome, recent, few, taken)
    if outcome.word:
        supply = _supply(outcome) if outcome.looks_at_supply else []
        # On trial for those that ask about it, too.
        tag = f"supply of {outcome.condition}"
        own = [replace(one, types=outcome.types) for one in (*_rhythm(outcome), *regular)] if outcome.is_habit else []
        return [*own, *levels, *(replace(one, outcome=tag, for_all=True, on_trial=_SUPPLY) for one in supply), *sums], measures
    features, dated = _dates(outcome)
    features += [*regular, *levels, *sums]
    measures = [*dated, *measures]
    if not outcome.on_trial:
        counts, counted = _over(_count(outcome), (few,) if outcome.is_part else (recent, ()))
        features += counts
        measures += counted
    if outcome.occasion:
        features += [*_rhythm(outcome), *(_supply(outcome) if outcome.has_quantity else [])]
    if outcome.for_all and not outcome.is_part:
        features += _trend(outcome, "count", "events per day", recent)
    longest = feature_name(outcome.name, "count", windows[-1])
    high, low = ("keen", "occasional") if is_named else (None, None)
    if outcome.for_all and outcome.types and not is_named:
        # Personas are told apart by what a log holds besides, and named after it: comment-heavy users.
        high = f"{outcome.name.replace('_', '-')}-heavy"
    return [replace(one, high=high, low=low) if one.name == longest else one for one in features], measures


def _sums(
    outcome: Outcome, recent: tuple[timedelta, ...], few: tuple[timedelta, ...], taken: Collection[str]
) -> tuple[list[Feature], list[Measure]]:
    """Add up what targets ask for, and what tells an event type's events apart."""
    features: list[Feature] = []
    measures: list[Measure] = []
    for measure in sorted(outcome.measures | outcome.carried):
        is_asked, is_carried = measure in outcome.measures, measure in outcome.carried
        what, summed = f"{measure}_sum", _sum(outcome, measure)
        asked = sorted({*recent, *outcome.trailing}) if is_asked else few
        windows = [window for window in asked if feature_name(outcome.name, what, window) not in taken]
        spans = [tuple(windows)] if windows else []
        told = [_over(summed, spans if outcome.word else [*spans, ()])]
        for trailing in sorted(outcome.trailing.intersection(windows)):
            if trailing < recent[-1]:
                told.append((_trend(outcome, what, f"{measure} per day", (trailing, recent[-1])), []))
        # Of a target that adds them up alone: another model would miss them once that target is gone.
        asked_only = {feature.name for found, _needed in told for feature in found}
        asked_only -= {f"{outcome.name}_{what}", *(feature_name(outcome.name, what, window) for window in few)}
        told += [_over(_mean(outcome, measure, summed), (few, ()))] if is_carried else []
        told += [(_trend(outcome, f"{measure}_mean", f"mean {measure}", few), [])] if is_carried else []
        for found, needed in told:
            tag = _sum_of(measure, outcome.condition)
            features += [replace(one, outcome=tag, for_all=is_carried and one.name not in asked_only) for one in found]
            measures += needed
    return features, measures


def _over(tally: Custom, spans: Sequence[tuple[timedelta, ...]]) -> tuple[list[Feature], list[Measure]]:
    """Look through each window; through no windows is the whole history."""
    features: list[Feature] = []
    measures: list[Measure] = []
    for span in spans:
        when = "" if span else " so far"
        found, needed = custom_features(replace(tally, meaning=tally.meaning + when, phrase=tally.phrase + when, windows=span), {})
        features += found
        measures += needed
    return features, measures


def _count(outcome: Outcome) -> Custom:
    return Custom(
        name=f"{outcome.name}_count",
        sql=f"count(*) filter (where {outcome.condition})",
        unit="event",
        meaning=f"events of {outcome.told}",
        phrase=f"{outcome.said}: {{value}}",
        group=outcome.name,
    )


def _sum(outcome: Outcome, measure: str) -> Custom:
    return replace(
        _count(outcome),
        name=f"{outcome.name}_{measure}_sum",
        sql=f"sum({measure}) filter (where {outcome.condition})",
        # What an event type of one's own calls an amount need not be money.
        unit=UNITS[measure] if measure in outcome.measures else "number",
        meaning=f"{measure} of {outcome.told}",
        phrase=f"{outcome.said}: {measure} of {{value}}",
    )


def _mean(outcome: Outcome, measure: str, summed: Custom) -> Custom:
    return replace(
        summed,
        name=f"{outcome.name}_{measure}_mean",
        sql=f"avg({measure}) filter (where {outcome.condition})",
        meaning=f"mean {summed.meaning}",
        phrase=f"{outcome.said}: {measure} of {{value}} on average",
    )


def _rhythm(outcome: Outcome) -> list[Feature]:
    """How many days pass between days with events, and how long the present pause is by that."""
    name, said = outcome.name, outcome.said
    gap = Feature(
        name=f"{name}_gap_days_mean",
        base="occasions",
        expr=mean_gap(name),
        unit="days",
        meaning=f"mean days from one day with an event of {outcome.told} to the next such day",
        phrase=f"{said}: every {{value}} on average",
        group=name,
        unknown=f"{said}: too few to see a rhythm",
        needs=outcome.needs,
    )
    overdue = replace(
        gap,
        name=f"{name}_overdue_ratio",
        base="row",
        expr=_[f"{name}_recency_days"] / _[gap.name],
        unit="times",
        meaning=f"days since the last event of {outcome.told} against the mean from one such day to the next",
        phrase=f"{said}: a pause of {{value}} the usual one",
    )
    return [gap, overdue]


def _runs(outcome: Outcome) -> list[Feature]:
    """Since when there was no long break, and how many such times there were."""
    name, said, pause = outcome.name, outcome.said, words(outcome.lapsed_after)
    days = Feature(
        name=f"{name}_run_days",
        base="occasions",
        expr=days_of_run(name),
        unit="days",
        meaning=f"days since the present run of {outcome.told} began (no break of {pause} or more)",
        phrase=f"{said}: latest run began {{value}} ago",
        group="tenure",
        unknown=f"{said}: never so far",
        needs=outcome.needs,
        definition=lapsing(outcome.lapsed_after),
    )
    count = replace(
        days,
        name=f"{name}_run_count",
        expr=runs(name),
        unit="run",
        meaning=f"runs of {outcome.told} so far (a break of {pause} or more ends one)",
        phrase=f"{said}: {{value}} so far",
        empty=0,
    )
    return [days, count]


def _supply(outcome: Outcome) -> list[Feature]:
    """How much was taken last, and when that is used up if it lasts as long as what was taken before."""
    name, said = outcome.name, outcome.said
    last = Feature(
        name=f"{name}_quantity_last",
        base="occasions",
        expr=last_quantity(name),
        unit="number",
        meaning=f"quantity of the last event of {outcome.told}",
        phrase=f"{said}: a quantity of {{value}} the last time",
        group=f"{name}_supply",
        unknown=f"{said}: no quantity known",
        needs=outcome.needs | {"quantity"},
    )
    supply = replace(
        last,
        name=f"{name}_supply_days",
        expr=days_of_supply(name),
        unit="days",
        meaning=f"days for which the last quantity of {outcome.told} is enough, used up as fast as all before",
        phrase=f"{said}: the last quantity is enough for {{value}}",
        unknown=f"{said}: too few quantities to see how fast they are used up",
    )
    passed = replace(
        supply,
        name=f"{name}_supply_used_ratio",
        base="row",
        expr=_[f"{name}_recency_days"] / _[supply.name].nullif(0.0),
        unit="times",
        meaning=f"days since the last event of {outcome.told} against those for which its quantity is enough (above 1 is used up)",
        phrase=f"{said}: {{value}} the time has passed for which the last quantity is enough",
    )
    return [last, supply, passed]


def _levels(outcome: Outcome, windows: Sequence[timedelta]) -> list[Feature]:
    """How much of it there is now among all users: a season, or a campaign of the company."""
    name, longest = outcome.name, windows[-1]
    recency = _[f"{name}_recency_days"]

    def users(window: timedelta) -> Deferred:
        return (recency <= window / DAY).ifelse(1.0, 0.0).sum().over(ibis.window(group_by=_.cutoff))

    return [
        Feature(
            name=feature_name(name, "user_share", window),
            base="population",
            expr=users(window) / users(longest).nullif(0.0),
            unit="share",
            meaning=f"share of the users with an event of {outcome.told} in the last {words(longest)} who had one in the last "
            f"{words(window)}",
            phrase=f"{outcome.said}: {{value}} of all users with one in {words(longest)} had one in the last {words(window)}",
            group=EVERYBODY,
            unknown=f"{outcome.said}: nobody in the last {words(longest)}",
            needs=outcome.needs,
            outcome=_level_of(outcome.condition),
            on_trial=_LEVEL,
        )
        for window in windows[:2]
        if window < longest
    ]


def _trend(outcome: Outcome, what: str, said: str, windows: Sequence[timedelta]) -> list[Feature]:
    """Set what is counted per day, or a mean, of each window against the next longer one."""
    found = []
    for short, long in pairwise(windows):
        now, around = (_[feature_name(outcome.name, what, window)] for window in (short, long))
        is_mean = what.endswith("_mean")
        feature = Feature(
            name=feature_name(outcome.name, what, short, against=long),
            base="row",
            expr=now / around.nullif(0) if is_mean else pace(now, around, short, long),
            unit="times",
            meaning=f"{said} of {outcome.told} in the last {words(short)} against the last {words(long)}"
            f"{'' if is_mean else ', or as long as known'}",
            phrase=f"{outcome.said}: {said} in the last {words(short)} at {{value}} the level of the last {words(long)}",
            group=outcome.name,
            unknown=f"{outcome.said}: too few so far to see a trend",
            needs=outcome.needs,
        )
        found.append(feature)
    return found


def _dates(outcome: Outcome) -> tuple[list[Feature], list[Measure]]:
    """How lately events happened, and but for a part of an event type, when first and whether after the last purchase."""
    name, said, condition = outcome.name, outcome.said, outcome.condition
    met, instant = condition_met(condition), _microseconds(_.event_ts)
    # No other measure has a name with blanks.
    last, first = f"last {name}", f"first {name}"

    def days(what: str, expr: Deferred, meaning: str, phrase: str) -> Feature:
        return Feature(
            name=f"{name}_{what}_days",
            base="custom",
            expr=expr / DAY_MICROSECONDS,
            unit="days",
            meaning=f"days since the {meaning} of {outcome.told}",
            phrase=f"{said}: {phrase} {{value}} ago",
            group=name,
            unknown=f"{said}: never so far",
            needs=outcome.needs,
        )

    until = _microseconds(_.cutoff)
    recency = days("recency", (until - _[last]).min(), "last event", "last time")
    if outcome.is_part:
        return [recency], [Measure(last, "max", instant, met)]
    features = [recency, days("first", (until - _[first]).max(), "first event", "first time")]
    if not any(PURCHASE in choices_of(part).get(TYPE, ()) for part in parts_of(condition)):
        later = stage.since_purchase(name, f"event of {outcome.told}", name)
        phrase, unknown = f"{said}: last time {{value}} after the last purchase", f"{said}: none since the last purchase, if any"
        features.append(replace(later, phrase=phrase, unknown=unknown, needs=outcome.needs))
    return features, [Measure(last, "max", instant, met), Measure(first, "min", instant, met)]


def _few(windows: Sequence[timedelta]) -> tuple[timedelta, ...]:
    """Give two windows for what there may be much of: measured, more of them made models a little worse."""
    return tuple(dict.fromkeys((coarse(windows)[1], windows[-1])))


def _microseconds(instant: Deferred) -> Deferred:
    return instant.delta(ibis.literal(_EPOCH), unit="microsecond").cast("float64")


def _near_misses(outcome: Outcome) -> Iterator[Outcome]:
    """Give what holds for a condition's events but their type, where it says more than that."""
    if outcome.is_part:
        return
    parts = parts_of(outcome.condition)
    kinds = [part for part in parts if columns_of(part) == {TYPE}]
    others = [part for part in parts if part not in kinds]
    if kinds and others:
        but_type = " AND ".join([*(f"NOT ({kind})" for kind in kinds), *others])
        yield _NearMiss(but_type, missed=outcome)


def _described(condition: str) -> str | None:
    """Give the word by which other families name exactly these events; None where none does."""
    values = values_of(condition)
    return _DESCRIBED.get(values[TYPE]) if values.keys() == {TYPE} else None
