"""What can be learned from on a date: features at past cutoffs, and what happened after them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, partial, reduce
from typing import Any

import ibis
import ibis.expr.types as ir
import pandas as pd
from ibis import _

from features.build import steps
from features.engines import keep
from features.errors import GateError, listed
from features.families.outcomes import on_trial_for, read_for, simple_rules
from features.inventory import NOTHING, Inventory
from features.labels import Target, active_users, build_labels, definition, eligible_users
from features.snapshot import KEYS
from models.backtest import Origin, apart, first_test
from models.bundle import TargetBundle
from models.ladder import Recipe
from models.propensity import leaves_for, rate_for
from models.rounds import settled
from models.season import NO_SEASON, YEARS, Season, in_words, levels_of, season_of, years_before
from pipeline.events import EventLog, midnight, read_events
from pipeline.frames import features_frame, shards
from pipeline.progress import Made, Narrator, Step, side_by_side
from pipeline.questions import Question, labels_of, plan_of, question_of, training_cutoffs
from pipeline.sample import sample_of
from pipeline.settings import Settings
from pipeline.target_settings import TargetSettings


@dataclass(frozen=True)
class Past:
    """What can be learned from on a date: features at past cutoffs and on the night itself, and what happened after the cutoffs.

    `features` has a row for every user that a target asks about at a cutoff or on the night itself, and then for those whose habits
    are known as well. `labels` has per target `user_id`, `cutoff` and `label` of each eligible user and cutoff whose horizon has
    elapsed; its index says which row of `features` that is. `plans` are its origins, and `seasons` how scores would move with the
    date.
    """

    settings: Settings
    log: EventLog
    targets: tuple[Target, ...]
    cutoffs: tuple[datetime, ...]
    features: pd.DataFrame
    labels: Mapping[str, pd.DataFrame]
    plans: Mapping[str, tuple[Origin, ...]]
    seasons: Mapping[str, Season]

    def rows(self, target: Target, cutoffs: Collection[datetime] | None, features: Collection[str]) -> pd.DataFrame:
        """Copy what is known of a target at some cutoffs, or at all: `user_id`, `cutoff`, `features` and `label`, sorted by cutoff.

        Of the features those that are there. Models mostly read a hundred of five hundred: copies of all of them, one for each fit
        under way, would be most of the memory of a training.
        """
        asked = self.labels[target.name]
        if cutoffs is not None:
            asked = asked[asked.cutoff.isin(list(cutoffs))]
        read = self.features.columns.isin({*KEYS, *features})
        return self.features.loc[:, read].take(asked.index).assign(label=asked.label).reset_index(drop=True)

    def final_labels(self, target: Target) -> pd.DataFrame:
        """Give the labels that the final model of a target learns from."""
        told = self.labels[target.name]
        return told[told.cutoff.isin(apart(told.cutoff.unique().tolist(), target.horizon))]

    @property
    def largest_first(self) -> tuple[Target, ...]:
        """The targets by their rows, for work side by side: a large one that began last would go on alone."""
        return tuple(sorted(self.targets, key=lambda target: -len(self.labels[target.name])))

    @property
    def active(self) -> pd.DataFrame:
        """The features, on the night itself, of the users whose habits are known."""
        return self._tonight(self._active)

    def asked_tonight(self, target: Target) -> pd.DataFrame:
        """Give the features of whom a target asks about on the night itself."""
        return self._tonight(self.log.engine.execute(eligible_users(self.log.events, target, [midnight(self.log.as_of)])).user_id)

    @cached_property
    def _active(self) -> pd.Series:
        return self.log.engine.execute(_active(self.log, self.settings)).user_id

    def _tonight(self, users: pd.Series) -> pd.DataFrame:
        found = self.features[self.features.cutoff == midnight(self.log.as_of)]
        return found[found.user_id.isin(users)]

    @property
    def names(self) -> tuple[str, ...]:
        """The features that models may read, in order."""
        return tuple(feature.name for feature in self.log.features.numbers)

    def features_of(self, target: Target) -> tuple[str, ...]:
        """Give the features that a target's models read: of those that are there for it what is not the same for all."""
        return tuple(name for name in self.there_for(target) if name not in self._constant)

    def there_for(self, target: Target) -> tuple[str, ...]:
        """Give the features that a target's models may read: of what targets ask about, its own."""
        own = read_for(target)
        asked = (feature.name for feature in self.log.features.numbers if feature.outcome in own or feature.for_all)
        return tuple(name for name in asked if name in self.log.own)

    @cached_property
    def _constant(self) -> frozenset[str]:
        """The features that are the same in all rows, such as of hours in a log of dates: no label is looked at for that."""
        columns = ((name, self.features[name]) for name in self.names)
        return frozenset(name for name, told in columns if told.isna().all() or told.notna().all() and told.min() == told.max())

    def asked_by(self, target: Target) -> set[str]:
        """Give the features that describe what a target itself asks about."""
        own = read_for(target) - {None}
        return {feature.name for feature in self.log.features.numbers if feature.outcome in own}

    @property
    def groups(self) -> dict[str, str]:
        """Which story each of them tells in reasons."""
        return {feature.name: feature.group for feature in self.log.features.numbers}


def gather(settings: Settings, as_of: date, narrator: Narrator, remembered: Inventory = NOTHING) -> Past:
    """Read the events, build features at the training cutoffs and tonight, and label what can be labelled.

    Champions are compared on features of what they `remembered`.

    Raises GateError when history is too short for one origin, nobody is eligible, or no event is what a target asks about.
    """
    whole, targets = read_events(settings, as_of, narrator, remembered), settings.specs()
    cutoffs = training_cutoffs(whole, settings, targets)
    log = sample_of(whole, cutoffs, settings, narrator)
    kept = {target.name: keep(log.engine, labels_of(log, target, cutoffs), f"labels_{target.name}") for target in targets}
    questions = [question_of(log, target, kept[target.name]) for target in targets]
    _refuse_unanswerable(whole, questions, narrator)
    plans = {asked.target.name: plan_of(asked, settings) for asked in questions}
    labels = {name: log.engine.execute(table).sort_values(KEYS[::-1], ignore_index=True) for name, table in kept.items()}
    seasons = {
        target.name: _season(log, target, labels[target.name], cutoffs[-1], plans[target.name], settings, narrator)
        for target in targets
    }
    features = _features(log, cutoffs, _spine(log, kept.values(), targets, settings), settings, narrator)
    places = features[KEYS].reset_index(names="place")
    placed = {name: told.merge(places, on=KEYS, validate="one_to_one").set_index("place") for name, told in labels.items()}
    return Past(settings, log, targets, tuple(cutoffs), features, placed, plans, seasons)


def settled_recipes(past: Past, champions: Mapping[str, TargetBundle | None], narrator: Narrator) -> dict[str, Recipe]:
    """Give the recipe that each target is tested with before its rung is known: rounds and leaves are those of the past.

    LightGBM's settings are those that the champion was tuned to, if it answers the same question.

    Raises GateError when the config's `monotone` names a feature that is not built.
    """
    with narrator.step("choosing features", total=len(past.targets)) as step:
        found = of_each_target(past, lambda target: _recipe(past, target, champions.get(target.name)), step)
        within = {True: ", within dates", False: ""}
        step.note("; ".join(f"{name}: {len(told.features)}{within[told.within_dates]}" for name, told in found.items()))
    for name, recipe in found.items():
        if recipe.parameters:
            narrator.say(f"  {name}: LightGBM's settings are those that the champion was tuned to")
    return found


def of_each_target(past: Past, make: Callable[[Target], Made], step: Step) -> dict[str, Made]:
    """Make something of every target, side by side, and give it by their names, in their order."""
    asked = past.largest_first
    made = side_by_side((partial(make, target) for target in asked), step, jobs=past.settings.training.jobs)
    by_name = {target.name: one for target, one in zip(asked, made, strict=True)}
    return {target.name: by_name[target.name] for target in past.targets}


def _recipe(past: Past, target: Target, champion: TargetBundle | None) -> Recipe:
    told = settings_of(past.settings, target).monotone
    unknown = sorted(set(told) - set(past.there_for(target)))
    if unknown:
        raise GateError(
            f"targets.{target.name}.monotone names {listed(unknown)}, which is not a number among the features it reads"
        )
    monotone = {name: 1 if way == "up" else -1 for name, way in told.items()}
    labels, plan, seed = past.labels[target.name], past.plans[target.name], past.settings.training.seed
    test = first_test(plan)
    parameters: Mapping[str, Any] = {}
    # What was tuned on what came later could not be known.
    if champion is not None and champion.definition == definition(target):
        parameters = champion.recipe.parameters if champion.trained_until <= past.log.as_of.isoformat() else {}
    built, learned = past.log.features, labels.label[labels.cutoff.isin(test.train_cutoffs)]
    recency, rfm = simple_rules(target, built.outcomes, built.numbers, built.longest)
    recipe = Recipe(
        "lightgbm",
        past.features_of(target),
        leaves=leaves_for(learned, is_amount=target.is_amount),
        rate=rate_for(learned, is_amount=target.is_amount),
        parameters=parameters,
        monotone=monotone,
        recency=recency,
        rfm=rfm,
    )
    on_trial = on_trial_for(target, built.numbers)
    known = past.rows(target, test.known, recipe.features)
    return settled(known, plan, recipe, target.horizon, on_trial=on_trial, is_amount=target.is_amount, seed=seed)


def _season(
    log: EventLog,
    target: Target,
    labels: pd.DataFrame,
    latest: datetime,
    plan: Sequence[Origin],
    settings: Settings,
    narrator: Narrator,
) -> Season:
    """Look whether the level of a target returned with the year, where history is long enough to see it.

    `labels` are those of the training cutoffs, of which `latest` is the last; before these, further dates are looked at.
    """
    step, until = settings.training.step, midnight(log.as_of) - target.horizon
    year = years_before(step)
    count = min(
        (latest - log.since - settings.training.min_history) // step + 1, settings.training.max_cutoffs + (YEARS + 1) * year
    )
    dates = [date for at in reversed(range(count)) if (date := latest - step * at) <= until]
    if len(dates) <= year:
        return NO_SEASON
    told = labels.groupby("cutoff").label.agg(rows="size", total="sum")
    if earlier := [date for date in dates if date < told.index[0]]:
        before = build_labels(log.events, target, earlier).group_by("cutoff").agg(rows=_.count(), total=_.label.sum())
        told = pd.concat([log.engine.execute(before).set_index("cutoff"), told])
    levels = levels_of(told.rows, told.total, is_amount=target.is_amount).reindex(pd.DatetimeIndex(dates))
    season = season_of(levels, target.horizon, before=first_test(plan).cutoff)
    if season.levels:
        narrator.say(f"  {target.name}: the season is tried, since {in_words(season)}")
    return season


def _active(log: EventLog, settings: Settings) -> ir.Table:
    return active_users(log.events, settings.activities(), midnight(log.as_of), log.features.longest)


def _spine(log: EventLog, labels: Collection[ir.Table], targets: Sequence[Target], settings: Settings) -> ir.Table:
    """Give `user_id` and `cutoff` of all rows that somebody will read: where many users are long gone, most are read by nobody."""
    asked = reduce(ir.Table.union, [table.select(*KEYS) for table in labels])
    tonight = midnight(log.as_of)
    known = [_active(log, settings), *(eligible_users(log.events, target, [tonight]) for target in targets)]
    users = reduce(ir.Table.union, [table.select("user_id") for table in known])
    return keep(log.engine, asked.union(users.mutate(cutoff=ibis.literal(tonight).cast(asked.cutoff.type()))), "spine")


def _features(log: EventLog, cutoffs: Sequence[datetime], spine: ir.Table, settings: Settings, narrator: Narrator) -> pd.DataFrame:
    """Build the features of the training cutoffs and of the night itself, sorted by cutoff and user."""
    with narrator.step("building features", total=steps(log.features, shards(log, len(cutoffs) + 1, settings))) as step:
        frame = features_frame(log, [*cutoffs, midnight(log.as_of)], spine, settings, step)
        step.note(
            f"{len(log.features.features)} features at {len(cutoffs)} cutoffs, {cutoffs[0]:%Y-%m-%d} to {cutoffs[-1]:%Y-%m-%d}"
        )
    return frame


def _refuse_unanswerable(log: EventLog, questions: Collection[Question], narrator: Narrator) -> None:
    """Refuse targets that ask about nobody or nothing, as misspelt ones do; say which have one label only."""
    problems = []
    for asked in questions:
        name = asked.target.name
        if asked.refusal:
            problems.append(f"{name}: {asked.refusal}")
        elif asked.only and (why := log.why_unmet(asked.target.events)):
            problems.append(f"{name}: {asked.only}, since {why}")
        elif asked.flat:
            narrator.say(f"  {name}: {asked.flat}")
    if problems:
        raise GateError("nothing is trained, since a night needs a model for every target:\n  " + "\n  ".join(problems))


def settings_of(settings: Settings, target: Target) -> TargetSettings:
    """Give what the config says of a target."""
    return next(told for told in settings.targets if told.name == target.name)
