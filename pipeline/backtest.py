"""Backtests: past origins of every target, predicted from what was known before each; alone, or inside a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial

import numpy as np
import pandas as pd

from features.errors import GateError, StoreError, listed
from features.families.outcomes import on_trial_for
from features.labels import Target, definition
from models.backtest import (
    CHAMPION,
    DISJOINT,
    Backtest,
    Compared,
    Origin,
    Predicted,
    assemble,
    beside_champion,
    best,
    calibrated,
    compare,
    predict_disjoint,
    predict_origin,
    surely_less_wrong,
)
from models.bundle import AS_OF, TargetBundle, inventory_of
from models.ladder import Recipe, Rung
from models.metrics import Contact
from models.report import STAGE, TENURE, Report, importances, report
from models.season import NO_SEASON, Season
from pipeline.past import Past, gather, settings_of, settled_recipes
from pipeline.past_segments import with_segments
from pipeline.progress import Narrator, side_by_side
from pipeline.settings import Settings
from pipeline.tracking import Tracker


@dataclass(frozen=True)
class Tested:
    """One target's backtest: the recipe it would be made by from now on, and what is told of it.

    Its scores go by the `season`, where there is one that made the tests better. `incomparable` says why the champion could not be
    tested beside it; it is null where it was, or where there is none.
    """

    target: Target
    recipe: Recipe
    backtest: Backtest
    report: Report
    season: Season = NO_SEASON
    incomparable: str | None = None


def run_backtest(settings: Settings, as_of: date, tracker: Tracker, narrator: Narrator) -> tuple[Tested, ...]:
    """Test every target on past origins, beside the champions where there are any; nothing is registered and nothing changes.

    Raises what `gather` raises.
    """
    champions = champions_in_charge(tracker, settings.specs(), narrator)
    past = gather(settings, as_of, narrator, inventory_of(champions.values()))
    return test(past, settled_recipes(past, champions, narrator), champions, narrator)


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
            champion = tracker.in_charge([target.name]).get(target.name)
        except StoreError as error:
            narrator.say(f"  {error}")
            found[target.name] = None
            continue
        if champion is not None:
            found[target.name] = champion.bundle if isinstance(champion.bundle, TargetBundle) else None
    if found:
        narrator.say(f"  {len(found)} of {len(targets)} targets have a champion to be held against")
    return found


def contact_of(settings: Settings, target: Target, *, share: float) -> Contact | None:
    """Give what a contact may bring and costs, as the config says; of a `share` of the users no more than that can be contacted."""
    told = settings_of(settings, target).contact
    if told is None:
        return None
    capacity = None if told.capacity is None else max(1, round(told.capacity * share))
    return Contact(capacity=capacity, value=told.value, cost=told.cost)


def test(
    past: Past, recipes: Mapping[str, Recipe], champions: Mapping[str, TargetBundle | None], narrator: Narrator
) -> tuple[Tested, ...]:
    """Predict every origin of every target with every rung, choose the rungs, and measure; champions beside them.

    A champion predicts those origins that lie after all it was trained on itself; at the others its recipe is made anew.
    """
    settings = past.settings
    there = [target for target in past.targets if target.name in champions]
    incomparable = {target.name: why for target in there if (why := _why_incomparable(target, champions[target.name], past))}
    beside = {name: bundle.recipe for name, bundle in champions.items() if bundle is not None and name not in incomparable}
    bolder = _bolder(past, recipes)
    asked = [
        _Asked(target, origin, recipes[target.name], beside.get(target.name))
        for target in past.targets
        for origin in past.plans[target.name]
    ]
    # Every rung where rungs are compared; then the chosen one at the origins before, to calibrate it.
    first = [job for job in asked if job.origin.is_test or job.target.is_amount]
    again = [replace(job, recipe=bolder[job.target.name], champion=None) for job in first if job.target.name in bolder]
    then = [job for job in asked if not (job.origin.is_test or job.target.is_amount)]
    with narrator.step("testing on past origins", total=len(first) + len(again) + len(then)) as step:
        found = list(side_by_side((partial(_predicted, past, job) for job in [*first, *again]), step, jobs=settings.training.jobs))
        usual, bold = _by_target(first, found[: len(first)]), _by_target(again, found[len(first) :])
        compared = {target.name: _compared(past, target, usual[target.name]) for target in past.targets}
        chosen = dict(recipes)
        for target in (target for target in past.targets if target.name in bold):
            own = [beside_champion(*parts) for parts in zip(bold[target.name], usual[target.name], strict=True)]
            tried = _compared(past, target, own)
            if surely_less_wrong(tried, compared[target.name], seed=settings.training.seed):
                compared[target.name], chosen[target.name] = tried, bolder[target.name]
        then = [replace(job, recipe=chosen[job.target.name], only=best(compared[job.target.name].by_rung)) for job in then]
        found = list(side_by_side((partial(_predicted, past, job) for job in then), step, jobs=settings.training.jobs))
        for name, parts in _by_target(then, found).items():
            compared[name] = compared[name].beside(parts, is_amount=False)
        origins = sorted({sum(origin.is_test for origin in past.plans[target.name]) for target in past.targets})
        step.note(f"{len(past.targets)} targets at {listed(origins)} test origins")
    tested = []
    with narrator.step("measuring", total=len(past.targets)) as step:
        for target in past.targets:
            tested.append(_measured(past, target, chosen[target.name], compared[target.name], champions.get(target.name)))
            step.advance()
        step.note(", ".join(f"{made.target.name}: {made.backtest.rung}" for made in tested))
    for name in (target.name for target in past.targets if chosen[target.name] != recipes[target.name]):
        narrator.say(f"  {name}: reads what was on trial after all, within dates: the test origins were surely less wrong by it")
    for made in tested:
        if past.seasons[made.target.name].levels:
            told = ("scores go by", "less") if made.season.levels else ("scores leave aside", "no less")
            narrator.say(f"  {made.target.name}: {told[0]} the season: those of the test origins were {told[1]} wrong by it")
        for said in made.report.warnings:
            narrator.say(f"  {made.target.name}: {said}")
    return with_segments(past, [replace(made, incomparable=incomparable.get(made.target.name)) for made in tested])


@dataclass(frozen=True)
class _Asked:
    """One origin of a target, to be predicted by a recipe: with every rung, or the `only` one; and by the champion's, if any."""

    target: Target
    origin: Origin
    recipe: Recipe
    champion: Recipe | None
    only: Rung | None = None


def _predicted(past: Past, asked: _Asked) -> Predicted:
    # Here, in the thread that reads them: each target's rows for all origins at once would be most of the memory.
    read = {*asked.recipe.features, *(asked.champion.features if asked.champion else ())}
    rows = past.rows(asked.target, {asked.origin.cutoff, *asked.origin.train_cutoffs}, read)
    seed, is_amount = past.settings.training.seed, asked.target.is_amount
    return predict_origin(
        rows, asked.recipe, asked.origin, is_amount=is_amount, seed=seed, only=asked.only, champion=asked.champion
    )


def _by_target(jobs: Sequence[_Asked], found: Sequence[Predicted]) -> dict[str, list[Predicted]]:
    """Group what was predicted, one for each of the jobs, in their order."""
    by_name: dict[str, list[Predicted]] = {job.target.name: [] for job in jobs}
    for job, part in zip(jobs, found, strict=True):
        by_name[job.target.name].append(part)
    return by_name


def _bolder(past: Past, recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Give the recipes that read all that was on trial, within dates; of probabilities, and where that is another one."""
    found = {}
    for target in (target for target in past.targets if not target.is_amount):
        read = {*recipes[target.name].features, *on_trial_for(target, past.log.features.numbers)}
        features = tuple(name for name in past.features_of(target) if name in read)
        found[target.name] = replace(recipes[target.name], features=features, within_dates=True)
    return {name: recipe for name, recipe in found.items() if recipe != recipes[name]}


def _measured(
    past: Past,
    target: Target,
    recipe: Recipe,
    compared: Compared,
    champion: TargetBundle | None,
) -> Tested:
    settings, seed = past.settings, past.settings.training.seed
    contact = contact_of(settings, target, share=past.log.share)
    recipe = replace(recipe, rung=best(compared.by_rung))
    by = [STAGE, TENURE, *settings.training.slices]
    read = {*recipe.features, *by, *(champion.recipe.features if champion else ())}
    rows = past.rows(target, {origin.cutoff for origin in past.plans[target.name]}, read)
    calibrations = settings.training.calibration_origins
    backtest = assemble(
        compared.predicted,
        compared.by_rung,
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
        importance=importances(compared.predicted, rows, backtest, past.groups, seed=seed),
        horizon=target.horizon,
        seed=seed,
    )
    return Tested(target, recipe, backtest, told, compared.season)


def _compared(past: Past, target: Target, predicted: Sequence[Predicted]) -> Compared:
    season, calibrations = past.seasons[target.name], past.settings.training.calibration_origins
    try:
        return compare(predicted, season, target.horizon, is_amount=target.is_amount, calibrations=calibrations)
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
        told = [champion.predict(at, {AS_OF: f"{cutoff.date()}"}).score for cutoff, at in own.groupby("cutoff")]
        score = score.copy()
        score[news] = pd.concat(told).reindex(own.index).to_numpy()
    return replace(backtest, predictions=predictions.assign(**{CHAMPION: score}))


def _with_disjoint(backtest: Backtest, past: Past, target: Target, recipe: Recipe) -> Backtest:
    """Add what models that never saw the user say at the test origins, raw: what is compared is the ranking."""
    rows, seed = past.rows(target, None, recipe.features), past.settings.training.seed
    score = np.full(len(backtest.predictions), np.nan)
    for origin in past.plans[target.name]:
        if origin.is_test:
            raw = predict_disjoint(rows, recipe, origin, is_amount=target.is_amount, seed=seed)
            here = (backtest.predictions.cutoff == origin.cutoff).to_numpy()
            score[here] = backtest.predictions.user_id[here].map(raw).to_numpy()
    return replace(backtest, predictions=backtest.predictions.assign(**{DISJOINT: score}))


def _why_incomparable(target: Target, champion: TargetBundle | None, past: Past) -> str | None:
    """Say why no night could be scored by the champion as the config is now, or None where one could."""
    if champion is None:
        return "its files cannot be read"
    if was := champion.other_question(definition(target)):
        return f"it answers another question, {was}"
    if missing := [name for name in champion.recipe.features if name not in past.names]:
        return f"it reads {len(missing)} features that are not built now: {listed(missing)}"
    if changed := champion.other_features(past.log.features.definitions):
        return f"it learned from features that the config has changed since: {listed(changed)}"
    return None
