"""Tuning: try settings of LightGBM on origins before every reported one, keep what was tried, and go on where it stopped."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from alembic.util import CommandError
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from features.errors import StoreError, first_line
from features.labels import Target
from models.backtest import Origin, at_cutoffs, first_test
from models.ladder import Recipe
from models.rounds import rounds_for
from models.tuning import Choice, Judged, Range, Space, judged, judging_origins, measure_of, place_in, space_of
from pipeline.progress import Step
from pipeline.settings import Settings
from pipeline.tracking import Tracker

# Marks the trial of the recipe as it was given.
_AS_GIVEN, _RUN = "as_given", "run_id"


@dataclass(frozen=True)
class _Tuning:
    """One target's tuning: the rows known before its first test origin, and what they are used for."""

    known: pd.DataFrame
    recipe: Recipe
    origins: tuple[Origin, ...]
    target: Target
    seed: int
    jobs: int

    @property
    def count(self) -> int:
        """How many rows the model of the latest origin learns from."""
        return int(self.known.cutoff.isin(self.origins[-1].train_cutoffs).sum())

    @property
    def space(self) -> Space:
        """What may be tried."""
        return space_of(self.count)

    def study(self, digest: str) -> str:
        """Name the study that holds the trials of the same question: on other data, or by other versions, they say nothing."""
        versions = {name: version(name) for name in ("beforehand", "lightgbm", "optuna")}
        asked = [digest, asdict(self.recipe), self.origins, self.space, self.seed, versions]
        return f"{self.target.name}-{hashlib.sha256(json.dumps(asked, default=str, sort_keys=True).encode()).hexdigest()[:16]}"

    def recipe_of(self, trial: Trial | FrozenTrial) -> Recipe:
        """Give the recipe that a trial stands for."""
        is_as_given = _AS_GIVEN in trial.user_attrs
        return self.recipe if is_as_given else replace(self.recipe, parameters={**self.recipe.parameters, **trial.params})


def tuned(
    rows: pd.DataFrame,
    recipe: Recipe,
    plan: Sequence[Origin],
    target: Target,
    settings: Settings,
    tracker: Tracker,
    *,
    trials: int,
    digest: str,
    step: Step,
) -> Recipe:
    """Give the recipe with the best of `trials` settings of LightGBM (at least one), and the rounds that they need.

    `rows` has one row per eligible user and cutoff: `user_id`, `cutoff`, `label` and the features; those at test origins are not
    looked at. The first trial is the recipe as it is, so that on its own measure tuning never does worse. What was tried is kept in
    `tuning.db` below `output`: a second call with the same `digest` of data and config runs only the trials that are missing.
    Each trial draws from a seed of its own, so that a tuning that was interrupted tries the same as one that was not; by other
    versions of LightGBM or Optuna it begins anew, and another machine may find another best. Each becomes a child of the open run.

    Where history is too short to judge by, the recipe comes back as it is. Raises StoreError when `tuning.db` or MLflow fails.
    """
    known = at_cutoffs(rows, first_test(plan).known)
    origins = judging_origins(known, plan, recipe, target.horizon, is_amount=target.is_amount)
    if not origins:
        step.note("not tuned: too little is known before the test origins")
        return recipe
    tuning = _Tuning(known, recipe, origins, target, settings.training.seed, settings.training.jobs)
    with _study(settings.output / "tuning.db", tuning.study(digest)) as study:
        found = _completed(study)[:trials]
        for _ in found:
            step.advance()
        for number in range(len(found), trials):
            _try(study, tuning, tracker, number)
            step.advance()
        done = _completed(study)[:trials]
    best = min(done, key=_value)
    chosen = tuning.recipe_of(best)
    measure = measure_of(is_amount=target.is_amount)
    step.note(f"{measure} {_value(best):.4f}, {_value(done[0]):.4f} before; {len(found)} of {trials} trials were there")
    rounds = rounds_for(known, plan, chosen, target.horizon, is_amount=target.is_amount, seed=tuning.seed)
    return replace(chosen, rounds=rounds)


def _try(study: optuna.Study, tuning: _Tuning, tracker: Tracker, number: int) -> None:
    """Run the trial after `number` completed ones; one that does not complete counts as failed, in the study and in MLflow."""
    if number == 0 and not study.get_trials(states=(TrialState.WAITING,)):
        study.enqueue_trial(place_in(tuning.space, tuning.recipe, tuning.count), user_attrs={_AS_GIVEN: True})
    study.sampler = sampler_of(tuning.seed, number)
    trial = study.ask(distributions_of(tuning.space))
    name, is_amount = tuning.target.name, tuning.target.is_amount
    tags = {"target": name, "kind": "tuning"}
    try:
        with tracker.run(f"{name} trial {number}", tags=tags, nested=True) as run_id:
            trial.set_user_attr(_RUN, run_id)
            recipe = tuning.recipe_of(trial)
            found = judged(
                tuning.known,
                recipe,
                tuning.origins,
                tuning.target.horizon,
                is_amount=is_amount,
                seed=tuning.seed,
                jobs=tuning.jobs,
            )
            _log(tracker, run_id, recipe, found, measure_of(is_amount=is_amount))
            study.tell(trial, found.loss, state=TrialState.COMPLETE)
    except BaseException:
        # What went wrong must not be hidden by a file that cannot note it.
        with suppress(Exception):
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise


def _log(tracker: Tracker, run_id: str, recipe: Recipe, found: Judged, measure: str) -> None:
    params = {**recipe.settings, "rounds": found.rounds}
    tracker.log(run_id, params=params, metrics={f"{measure}_mean": found.loss})
    tracker.log_origins(run_id, {cutoff: {measure: loss} for cutoff, loss in found.by_origin.items()})


def _completed(study: optuna.Study) -> list[FrozenTrial]:
    """Give the completed trials in the order in which they were tried."""
    return study.get_trials(states=(TrialState.COMPLETE,))


def _value(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def sampler_of(seed: int, number: int) -> TPESampler:
    """Draw a trial from its own seed and the completed trials alone: neither a failed one nor a restart changes what comes next."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return TPESampler(seed=own, multivariate=True, constant_liar=False)


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """Say a space in Optuna's words."""
    return {name: _distribution(allowed) for name, allowed in space.items()}


def _distribution(allowed: Range | Choice) -> BaseDistribution:
    match allowed:
        case Choice():
            return CategoricalDistribution(allowed.values)
        case Range(is_whole=True):
            return IntDistribution(int(allowed.low), int(allowed.high), log=allowed.is_log)
        case Range():
            return FloatDistribution(allowed.low, allowed.high, log=allowed.is_log)


@contextmanager
def _study(path: Path, name: str) -> Iterator[optuna.Study]:
    """Open a study in an SQLite file, made where it is not there, and close it again."""
    # Optuna prints every trial to stderr; what goes wrong is raised, and told by the command line.
    logging.getLogger("optuna").setLevel(logging.ERROR)
    # Optuna takes braces in a URL for something to fill in.
    url = URL.create("sqlite", database=str(path.resolve())).render_as_string().replace("{", "{{").replace("}", "}}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = RDBStorage(url)
        study = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
    # A file of another version or half a file fails as RuntimeError, AssertionError or CommandError.
    except (SQLAlchemyError, OptunaError, CommandError, RuntimeError, AssertionError, OSError) as error:
        raise _unusable(path, error) from None
    try:
        yield study
    except (SQLAlchemyError, OptunaError) as error:
        raise _unusable(path, error) from None
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _unusable(path: Path, error: Exception) -> StoreError:
    # Optuna wraps what SQLite says in an error of its own that says nothing.
    cause = first_line(error.__cause__ or error)
    return StoreError(
        f"the trials in {path} cannot be read or written: {cause[:200]}. Check that there is room and it may be written to; "
        "if the file is damaged, delete it: tuning then begins anew, and nothing else is lost"
    )
