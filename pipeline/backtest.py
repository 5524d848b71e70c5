"""Backtests: past origins of every target, predicted from what was known before each; alone, or inside a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from features.build import steps
from features.errors import GateError, StoreError, listed
from features.families.outcomes import read_for, simple_rules
from features.inventory import NOTHING, Inventory
from features.labels import Target, active_users, build_labels, definition
from features.windows import label as window_label
from features.windows import words
from models.backtest import (
    CHAMPION,
    DISJOINT,
    Backtest,
    Origin,
    Predicted,
    assemble,
    best,
    calibrated,
    plan_origins,
    predict_disjoint,
    predict_origin,
    worth,
)
from models.bundle import TargetBundle, inventory_of
from models.ladder import Recipe, Rung, finite
from models.metrics import Contact
from models.propensity import leaves_for
from models.report import Report, importances, report
from models.rounds import rounds_for
from pipeline.events import EventLog, midnight, read_events
from pipeline.frames import features_frame, shards
from pipeline.past_segments import with_segments
from pipeline.progress import Narrator
from pipeline.settings import Settings
from pipeline.target_settings import TargetSettings
from pipeline.tracking import Tracker


@dataclass(frozen=True)
class Past:
    """What can be learned from on a date: features at past cutoffs and on the night itself, and what happened after the cutoffs.

    `active` has the features, on the night itself, of the users whose habits are known. `rows` has per target one row per eligible
    user and cutoff whose horizon has elapsed; `plans` its origins.
    """

    settings: Settings
    log: EventLog
    targets: tuple[Target, ...]
    cutoffs: tuple[datetime, ...]
    active: pd.DataFrame
    rows: Mapping[str, pd.DataFrame]
    plans: Mapping[str, tuple[Origin, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The features that models may read, in order."""
        return tuple(feature.name for feature in self.log.features.numbers)

    def features_of(self, target: Target) -> tuple[str, ...]:
        """Give the features that a target's models read: of what targets ask about, its own."""
        own = read_for(target)
        asked = (feature.name for feature in self.log.features.numbers if feature.outcome in own or feature.for_all)
        return tuple(name for name in asked if name in self.log.own)

    def asked_by(self, target: Target) -> set[str]:
        """Give the features that describe what a target itself asks about."""
        return {feature.name for feature in self.log.features.numbers if feature.outcome in read_for(target) - {None}}

    @property
    def groups(self) -> dict[str, str]:
        """Which story each of them tells in reasons."""
        return {feature.name: feature.group for feature in self.log.features.numbers}


@dataclass(frozen=True)
class Tested:
    """One target's backtest: the recipe it would be made by from now on, and what is told of it.

    `incomparable` says why the champion could not be tested beside it; it is null where it was, or where there is none.
    """

    target: Target
    recipe: Recipe
    backtest: Backtest
    report: Report
    incomparable: str | None = None


def run_backtest(settings: Settings, as_of: date, tracker: Tracker, narrator: Narrator) -> tuple[Tested, ...]:
    """Test every target on past origins, beside the champions where there are any; nothing is registered and nothing changes.

    Raises what `gather` raises.
    """
    champions = champions_in_charge(tracker, settings.specs(), narrator)
    past = gather(settings, as_of, narrator, inventory_of(champions.values()))
    recipes = {target.name: recipe_for(past, target, champions.get(target.name)) for target in past.targets}
    return test(past, recipes, champions, narrator)


def champions_in_charge(tracker: Tracker, targets: Sequence[Target], narrator: Narrator) -> dict[str, TargetBundle | None]:
    """Load those champions that there are; None stands for one that cannot be read, which a new model may then replace.

    Raises StoreError when the registry does not answer.
    """
    found: dict[str, TargetBundle | None] = {}
    if not tracker.exists():
        return found
    tracker.open()
    for target in targets:
        try:
            bundle = tracker.champions([target.name])[target.name].bundle
        except GateError:
            continue
        except StoreError as error:
            narrator.say(f"  {error}")
            bundle = None
        found[target.name] = bundle if isinstance(bundle, TargetBundle) else None
    if found:
        narrator.say(f"  {len(found)} of {len(targets)} targets have a champion to be held against")
    return found


def gather(settings: Settings, as_of: date, narrator: Narrator, remembered: Inventory = NOTHING) -> Past:
    """Read the events, build features at the training cutoffs and tonight, and label what can be labelled.

    Champions are compared on features of what they `remembered`.

    Raises GateError when history is too short for one origin, nobody is eligible, or no event is what a target asks about.
    """
    log = read_events(settings, as_of, narrator, remembered)
    targets = settings.specs()
    cutoffs = training_cutoffs(log, settings, targets)
    frame = _features(log, cutoffs, settings, narrator)
    rows = {target.name: _labelled(log, frame, target, cutoffs) for target in targets}
    _refuse_unanswerable(log, rows, targets, narrator)
    plans = {target.name: _plan(rows[target.name], target, settings) for target in targets}
    tonight = frame[frame.cutoff == midnight(as_of)]
    known = log.engine.execute(active_users(log.events, settings.activities(), midnight(as_of), log.features.longest))
    active = tonight[tonight.user_id.isin(known.user_id)]
    return Past(settings, log, targets, tuple(cutoffs), active, rows, plans)


def training_cutoffs(log: EventLog, settings: Settings, targets: Sequence[Target]) -> list[datetime]:
    """Give the cutoffs to learn from, oldest first: the latest one's shortest horizon has just elapsed at `as_of`.

    Raises GateError when the history holds fewer than the three that training and one test need.
    """
    training, shortest = settings.training, min(target.horizon for target in targets)
    latest, earliest = midnight(log.as_of) - shortest, log.first + training.min_history
    count = int((latest - earliest) / training.step) + 1 if latest >= earliest else 0
    longest = max(target.horizon for target in targets)
    needed = training.min_history + 2 * longest + 2 * training.step
    covered = timedelta(days=(midnight(log.as_of) - log.first).days)
    if covered < needed:
        raise GateError(
            f"the events before {log.as_of} cover {words(covered)}, training needs {words(needed)}: training.min_history "
            f"({window_label(training.min_history)}), two of the longest horizon ({window_label(longest)}) and two steps "
            f"({window_label(training.step)}); shorten them in the config, or wait for more events"
        )
    return [latest - training.step * index for index in reversed(range(min(count, training.max_cutoffs)))]


def recipe_for(past: Past, target: Target, champion: TargetBundle | None = None) -> Recipe:
    """Give the recipe that a target is tested with before its rung is known: rounds and leaves are those of the past.

    LightGBM's settings are those that the champion was tuned to, if it answers the same question.

    Raises GateError when the config's `monotone` names a feature that is not built.
    """
    told = _settings_of(past.settings, target).monotone
    unknown = sorted(set(told) - set(past.features_of(target)))
    if unknown:
        raise GateError(
            f"targets.{target.name}.monotone names {listed(unknown)}, which is not a number among the features it reads"
        )
    monotone = {name: 1 if way == "up" else -1 for name, way in told.items()}
    rows, plan, seed = past.rows[target.name], past.plans[target.name], past.settings.training.seed
    known = next(origin for origin in plan if origin.is_test).train_cutoffs
    parameters: Mapping[str, Any] = {}
    # What was tuned on what came later could not be known.
    if champion is not None and champion.definition == definition(target):
        parameters = champion.recipe.parameters if champion.trained_until <= past.log.as_of.isoformat() else {}
    built = past.log.features
    recency, rfm = simple_rules(target, built.outcomes, built.numbers, built.longest)
    recipe = Recipe(
        "lightgbm",
        past.features_of(target),
        leaves=leaves_for(rows.label[rows.cutoff.isin(known)], is_amount=target.is_amount),
        parameters=parameters,
        monotone=monotone,
        recency=recency,
        rfm=rfm,
    )
    rounds = rounds_for(rows, plan, recipe, target.horizon, is_amount=target.is_amount, seed=seed)
    return replace(recipe, rounds=rounds)


def contact_of(settings: Settings, target: Target) -> Contact | None:
    """Give what a contact may bring and costs, as the config says."""
    told = _settings_of(settings, target).contact
    return None if told is None else Contact(capacity=told.capacity, value=told.value, cost=told.cost)


def test(
    past: Past, recipes: Mapping[str, Recipe], champions: Mapping[str, TargetBundle | None], narrator: Narrator
) -> tuple[Tested, ...]:
    """Predict every origin of every target with every rung, choose the rungs, and measure; champions beside them.

    A champion predicts those origins that lie after all it was trained on itself; at the others its recipe is made anew.
    """
    settings, seed = past.settings, past.settings.training.seed
    incomparable = {name: why for name, bundle in champions.items() if (why := _why_incomparable(bundle, past)) is not None}
    beside = {name: bundle.recipe for name, bundle in champions.items() if bundle is not None and name not in incomparable}
    asked = [(target, origin) for target in past.targets for origin in past.plans[target.name]]
    predicted: dict[str, list[Predicted]] = {target.name: [] for target in past.targets}
    by_rung: dict[str, dict[Rung, float]] = {}
    with narrator.step("testing on past origins", total=len(asked)) as step:
        # Every rung where rungs are compared; then the chosen one at the origins before, to calibrate it.
        for of_all in (True, False):
            jobs = [(target, origin) for target, origin in asked if (origin.is_test or target.is_amount) == of_all]
            # Threads, not processes: LightGBM lets go of the interpreter, and nothing is copied.
            found = Parallel(n_jobs=settings.training.jobs, prefer="threads", return_as="generator")(
                delayed(predict_origin)(
                    past.rows[target.name],
                    recipes[target.name],
                    origin,
                    is_amount=target.is_amount,
                    seed=seed,
                    only=None if of_all else best(by_rung[target.name]),
                    champion=beside.get(target.name),
                )
                for target, origin in jobs
            )
            for (target, _), part in zip(jobs, found, strict=True):
                predicted[target.name].append(part)
                step.advance()
            if of_all:
                by_rung = {target.name: _worth(target, predicted[target.name], settings) for target in past.targets}
        origins = sorted({sum(origin.is_test for origin in past.plans[target.name]) for target in past.targets})
        step.note(f"{len(past.targets)} targets at {listed(origins)} test origins")
    tested = []
    with narrator.step("measuring", total=len(past.targets)) as step:
        for target in past.targets:
            told = predicted[target.name], by_rung[target.name]
            tested.append(_measured(past, target, recipes[target.name], *told, champions.get(target.name)))
            step.advance()
        step.note(", ".join(f"{made.target.name}: {made.backtest.rung}" for made in tested))
    for made in tested:
        for said in made.report.warnings:
            narrator.say(f"  {made.target.name}: {said}")
    return with_segments(past, [replace(made, incomparable=incomparable.get(made.target.name)) for made in tested])


def _measured(
    past: Past,
    target: Target,
    recipe: Recipe,
    predicted: Sequence[Predicted],
    by_rung: Mapping[Rung, float],
    champion: TargetBundle | None,
) -> Tested:
    settings, rows = past.settings, past.rows[target.name]
    seed = settings.training.seed
    contact = contact_of(settings, target)
    recipe = replace(recipe, rung=best(by_rung))
    calibrations = settings.training.calibration_origins
    backtest = assemble(
        predicted,
        by_rung,
        recipe.rung,
        target.horizon,
        is_amount=target.is_amount,
        calibrations=calibrations,
        contact=contact,
    )
    if champion is not None and CHAMPION in backtest.predictions:
        backtest = _with_champion(backtest, champion, rows, target.horizon, calibrations)
    if settings.training.disjoint_users:
        backtest = _with_disjoint(backtest, past, target, recipe)
    told = report(
        backtest,
        rows,
        by=settings.training.slices,
        groups={name: past.groups[name] for name in recipe.features},
        asked=past.asked_by(target),
        importance=importances(predicted, rows, backtest, past.groups),
        seed=seed,
    )
    return Tested(target, recipe, backtest, told)


def _worth(target: Target, predicted: Sequence[Predicted], settings: Settings) -> dict[Rung, float]:
    calibrations = settings.training.calibration_origins
    try:
        return worth(predicted, target.horizon, is_amount=target.is_amount, calibrations=calibrations)
    except GateError as error:
        raise GateError(f"{target.name}: {error}") from None


def _with_champion(
    backtest: Backtest, champion: TargetBundle, rows: pd.DataFrame, horizon: timedelta, calibrations: int
) -> Backtest:
    """Calibrate the champion's recipe like the challenger, and let the champion itself speak where the origin is news to it."""
    predictions = backtest.predictions
    found = calibrated(predictions, CHAMPION, horizon, is_amount=backtest.is_amount, calibrations=calibrations)
    score = found.score.to_numpy()
    news = (predictions.cutoff >= pd.Timestamp(champion.trained_until)).to_numpy()
    if news.any():
        own = predictions.loc[news, ["user_id", "cutoff"]].merge(rows, on=["user_id", "cutoff"], how="left")
        score = score.copy()
        score[news] = champion.predict(own).score.to_numpy()
    return replace(backtest, predictions=predictions.assign(**{CHAMPION: score}))


def _with_disjoint(backtest: Backtest, past: Past, target: Target, recipe: Recipe) -> Backtest:
    """Add what models that never saw the user say at the test origins, raw: what is compared is the ranking."""
    rows, seed = past.rows[target.name], past.settings.training.seed
    score = np.full(len(backtest.predictions), np.nan)
    for origin in past.plans[target.name]:
        if origin.is_test:
            raw = predict_disjoint(rows, recipe, origin, is_amount=target.is_amount, seed=seed)
            here = (backtest.predictions.cutoff == origin.cutoff).to_numpy()
            score[here] = backtest.predictions.user_id[here].map(raw).to_numpy()
    return replace(backtest, predictions=backtest.predictions.assign(**{DISJOINT: score}))


def _why_incomparable(champion: TargetBundle | None, past: Past) -> str | None:
    if champion is None:
        return "its files cannot be read"
    missing = [name for name in champion.recipe.features if name not in past.names]
    return f"it reads {len(missing)} features that are not built now: {listed(missing)}" if missing else None


def _features(log: EventLog, cutoffs: Sequence[datetime], settings: Settings, narrator: Narrator) -> pd.DataFrame:
    """Build the features of the training cutoffs and of the night itself, sorted by cutoff and user."""
    with narrator.step("building features", total=steps(log.features, shards(log, len(cutoffs) + 1, settings))) as step:
        frame = features_frame(log, [*cutoffs, midnight(log.as_of)], settings, step)
        numbers = [feature.name for feature in log.features.numbers]
        frame[numbers] = finite(frame[numbers])
        step.note(
            f"{len(log.features.features)} features at {len(cutoffs)} cutoffs, {cutoffs[0]:%Y-%m-%d} to {cutoffs[-1]:%Y-%m-%d}"
        )
    return frame.sort_values(["cutoff", "user_id"], ignore_index=True)


def _labelled(log: EventLog, frame: pd.DataFrame, target: Target, cutoffs: Sequence[datetime]) -> pd.DataFrame:
    """Join a target's labels to the features: one row per eligible user and cutoff whose horizon has elapsed."""
    legal = [cutoff for cutoff in cutoffs if cutoff + target.horizon <= midnight(log.as_of)]
    labels = log.engine.execute(build_labels(log.events, target, legal))
    return frame.merge(labels, on=["user_id", "cutoff"], validate="one_to_one").sort_values(
        ["cutoff", "user_id"], ignore_index=True
    )


def _refuse_unanswerable(log: EventLog, rows: Mapping[str, pd.DataFrame], targets: Sequence[Target], narrator: Narrator) -> None:
    """Refuse targets that ask about nobody or nothing, as misspelt ones do; say which have one label only."""
    problems = []
    for target in targets:
        label = rows[target.name].label
        if label.nunique() > 1:
            continue
        if len(label) == 0:
            problems.append(f"{target.name}: nobody is eligible; widen eligible.active_within or check eligible.events")
            continue
        told = f"{target.name}: the label is {label.iloc[0]:g} in all {len(label):,} rows"
        if why := log.why_unmet(target.events):
            problems.append(f"{told}, since {why}")
        else:
            narrator.say(f"  {told}; there is nothing to tell apart, and everybody gets the same score. A longer horizon may help")
    if problems:
        raise GateError("nothing is trained, since a night needs a model for every target:\n  " + "\n  ".join(problems))


def _plan(rows: pd.DataFrame, target: Target, settings: Settings) -> tuple[Origin, ...]:
    cutoffs = [cutoff.to_pydatetime() for cutoff in sorted(rows.cutoff.unique())]
    tests, calibrations = settings.training.test_origins, settings.training.calibration_origins
    try:
        return plan_origins(cutoffs, target.horizon, tests=tests, calibrations=calibrations, minimum=1)
    except GateError as error:
        raise GateError(f"{target.name}: {error}") from None


def _settings_of(settings: Settings, target: Target) -> TargetSettings:
    return next(told for told in settings.targets if told.name == target.name)
