"""Tuning on the real Optuna and MLflow: resumed without repeating, the same each time, and blind to what is reported."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from rich.console import Console

from features.errors import StoreError
from features.labels import Eligible, Target
from models.backtest import plan_origins
from models.ladder import Recipe
from models.propensity import PARAMETERS
from models.rounds import settled
from models.tuning import judged, judging_origins, space_of
from pipeline.progress import Narrator, Step
from pipeline.settings import Settings, read_settings
from pipeline.tracking import Tracker
from pipeline.tune import distributions_of, sampler_of, tuned
from shops import shop_config

HORIZON = timedelta(days=14)
CUTOFFS = [datetime(2024, 1, 1) + HORIZON * index for index in range(6)]
FEATURES = ("strength", "noise", "other")
RECIPE = Recipe("blend", FEATURES, parameters={"max_bin": 15})
TARGET = Target(
    name="churn_14d", kind="absence", horizon=HORIZON, events="true", eligible=Eligible(timedelta(days=56)), meaning="leaves"
)
PLAN = plan_origins(CUTOFFS, HORIZON, tests=1, calibrations=1, minimum=1)
TRIED = {
    "learning_rate",
    "num_leaves",
    "min_data_in_leaf",
    "feature_fraction",
    "bagging_fraction",
    "lambda_l2",
    "min_gain_to_split",
    "extra_trees",
}


def rows(*, users: int = 220, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    count = users * len(CUTOFFS)
    frame = pd.DataFrame({name: random.normal(size=count) for name in FEATURES})
    frame["user_id"] = [f"household-{number}" for number in range(users)] * len(CUTOFFS)
    frame["cutoff"] = np.repeat(np.array(CUTOFFS, dtype="datetime64[us]"), users)
    frame["label"] = (random.random(count) < 1 / (1 + np.exp(-2 * frame.strength))).astype(float)
    return frame


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return read_settings(shop_config(tmp_path_factory.mktemp("tune")))


@pytest.fixture
def tracker(shop: Settings, request: pytest.FixtureRequest) -> Tracker:
    """An experiment of its own for each test, in one store: making a store takes seconds."""
    return Tracker(shop.model_copy(update={"name": request.node.originalname}))


@pytest.fixture
def settings(shop: Settings, tmp_path: Path) -> Settings:
    """An output of its own, without trials."""
    return shop.model_copy(update={"output": tmp_path / "out"})


@contextmanager
def step() -> Iterator[Step]:
    with Narrator(Console(file=StringIO())).step("tuning", total=3) as found:
        yield found


def tune(
    settings: Settings,
    tracker: Tracker,
    *,
    trials: int,
    frame: pd.DataFrame | None = None,
    recipe: Recipe = RECIPE,
    digest: str = "one",
) -> Recipe:
    told = rows() if frame is None else frame
    with tracker.run("train", tags={}), step() as bar:
        return tuned(told, recipe, PLAN, TARGET, settings, tracker, trials=trials, digest=digest, step=bar)


def children(tracker: Tracker) -> list[Run]:
    """Every run of the experiment that has a parent, oldest first."""
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(tracker.registered("").removesuffix("."))
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    return [run for run in found if "mlflow.parentRunId" in run.data.tags]


def study(settings: Settings) -> optuna.Study:
    storage = f"sqlite:///{settings.output / 'tuning.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage, sampler=RandomSampler(seed=0))


def tried(settings: Settings) -> list[tuple[dict[str, object], list[float]]]:
    return [(trial.params, trial.values) for trial in study(settings).trials if trial.values]


class Interrupted(Tracker):
    """A tracker that the user interrupts with Ctrl-C while it logs the third trial."""

    calls = 0

    def log(self, run_id: str, *, params: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        super().log(run_id, params=params, metrics=metrics)


def test_every_trial_is_a_child_run_with_what_it_tried_and_how_it_did(settings: Settings, tracker: Tracker) -> None:
    recipe = tune(settings, tracker, trials=3)
    runs = children(tracker)
    trials = study(settings).trials
    assert [run.info.run_name for run in runs] == [f"churn_14d trial {number}" for number in range(3)]
    assert [run.info.run_id for run in runs] == [trial.user_attrs["run_id"] for trial in trials]
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs}) == 1
    assert [run.data.metrics["log_loss_mean"] for run in runs] == [trial.value for trial in trials]
    given = {**PARAMETERS, "max_bin": 15, "rounds": 150}
    assert runs[0].data.params == {name: str(value) for name, value in given.items()}
    assert runs[1].data.params == {name: str(value) for name, value in {**given, **trials[1].params}.items()}
    assert [{**run.data.tags}["kind"] for run in runs] == ["tuning"] * 3
    best = min(trials, key=lambda trial: trial.value)
    assert best.number > 0
    assert recipe == replace(RECIPE, parameters={"max_bin": 15, **best.params}, rounds=recipe.rounds)
    assert set(best.params) == TRIED


def test_the_first_trial_is_the_recipe_as_it_is_so_that_it_can_be_kept(settings: Settings, tracker: Tracker) -> None:
    found = tune(settings, tracker, trials=1)
    origins = judging_origins(rows(), PLAN, RECIPE, HORIZON, is_amount=False)
    by_hand = judged(rows(), RECIPE, origins, HORIZON, is_amount=False, seed=settings.training.seed)
    assert [trial.value for trial in study(settings).trials] == [by_hand.loss]
    rounds = settled(rows(), PLAN, RECIPE, HORIZON, is_amount=False, seed=settings.training.seed).rounds
    assert found == replace(RECIPE, rounds=rounds)


def test_a_tuning_that_was_interrupted_goes_on_as_if_it_was_not(settings: Settings, shop: Settings, tracker: Tracker) -> None:
    whole = settings.model_copy(update={"output": settings.output / "whole"})
    expected = tune(whole, tracker, trials=4)
    before = len(children(tracker))
    with pytest.raises(KeyboardInterrupt):
        tune(settings, Interrupted(shop.model_copy(update={"name": tracker.registered("").removesuffix(".")})), trials=4)
    assert [trial.state.name for trial in study(settings).trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    # A process that is killed leaves a trial that looks as if it still ran.
    study(settings).ask({"num_leaves": optuna.distributions.IntDistribution(4, 32, log=True)})
    assert tune(settings, tracker, trials=4) == expected
    assert tried(settings) == tried(whole)
    assert [(run.info.run_name, run.info.status) for run in children(tracker)[before:]] == [
        ("churn_14d trial 0", "FINISHED"),
        ("churn_14d trial 1", "FINISHED"),
        ("churn_14d trial 2", "FAILED"),
        ("churn_14d trial 2", "FINISHED"),
        ("churn_14d trial 3", "FINISHED"),
    ]


def test_a_trial_follows_from_the_completed_ones_before_it_alone() -> None:
    def drawn(*, is_disturbed: bool) -> list[dict[str, object]]:
        opened = optuna.create_study()
        names = distributions_of(space_of(9_000))
        for number in range(30):  # Optuna learns from what was tried after ten
            opened.sampler = sampler_of(7, number)
            if is_disturbed and number % 2 == 1:
                opened.tell(opened.ask(names), state=TrialState.FAIL)
                opened.ask(names)  # of a process that was killed: it looks as if it still ran
                opened.sampler = sampler_of(7, number)
            trial = opened.ask(names)
            opened.tell(trial, (trial.params["learning_rate"] - 0.05) ** 2 + trial.params["bagging_fraction"])
        return [trial.params for trial in opened.trials if trial.values]

    expected = drawn(is_disturbed=False)
    assert len({str(params) for params in expected}) == 30
    assert drawn(is_disturbed=True) == expected


def test_what_was_tried_is_neither_tried_nor_logged_again(settings: Settings, tracker: Tracker) -> None:
    first = tune(settings, tracker, trials=2)
    assert tune(settings, tracker, trials=2) == first
    assert len(children(tracker)) == 2
    tune(settings, tracker, trials=3)
    assert len(children(tracker)) == 3
    # Of the trials that there are, those count that were asked for.
    assert tune(settings, tracker, trials=2) == first
    assert len(tried(settings)) == 3


def test_other_data_or_another_recipe_is_another_study(settings: Settings, tracker: Tracker) -> None:
    tune(settings, tracker, trials=1)
    tune(settings, tracker, trials=1, digest="two")
    tune(settings, tracker, trials=1, recipe=replace(RECIPE, monotone={"strength": 1}))
    names = optuna.get_all_study_names(f"sqlite:///{settings.output / 'tuning.db'}")
    assert len(names) == 3
    assert all(name.startswith("churn_14d-") for name in names)


def test_neither_test_origins_nor_the_number_of_threads_change_what_is_found(settings: Settings, tracker: Tracker) -> None:
    expected = tune(settings, tracker, trials=2)
    poisoned = rows()
    late = poisoned.cutoff >= CUTOFFS[5]
    poisoned.loc[late, "label"] = 1 - poisoned.loc[late, "label"]
    poisoned.loc[late, list(FEATURES)] = np.inf
    training = settings.training.model_copy(update={"jobs": settings.training.jobs + 1})
    other = settings.model_copy(update={"output": settings.output / "other", "training": training})
    assert tune(other, tracker, trials=2, frame=poisoned) == expected
    assert tried(other) == tried(settings)


def test_an_amount_is_tuned_by_its_deviance(settings: Settings, tracker: Tracker) -> None:
    target = replace(TARGET, name="value_14d", kind="value")
    spent = rows().assign(label=lambda frame: frame.label * np.exp(frame.strength))
    with tracker.run("train", tags={}), step() as bar:
        tuned(spent, RECIPE, PLAN, target, settings, tracker, trials=2, digest="one", step=bar)
    assert bar.said.startswith("poisson_deviance ")
    assert [set(run.data.metrics) for run in children(tracker)] == [{"poisson_deviance_mean", "poisson_deviance"}] * 2
    names = optuna.get_all_study_names(f"sqlite:///{settings.output / 'tuning.db'}")
    assert [name.split("-")[0] for name in names] == ["value_14d"]


def test_another_seed_tries_something_else(settings: Settings, tracker: Tracker) -> None:
    found = []
    for seed in (1, 2):
        training = settings.training.model_copy(update={"seed": seed})
        own = settings.model_copy(update={"output": settings.output / str(seed), "training": training})
        tune(own, tracker, trials=2)
        found.append([params for params, _ in tried(own)])
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_too_little_history_leaves_the_recipe_as_it_is(settings: Settings, tracker: Tracker) -> None:
    with step() as bar:
        found = tuned(rows(users=20), RECIPE, PLAN, TARGET, settings, tracker, trials=3, digest="one", step=bar)
        assert bar.said == "not tuned: too little is known before the test origins"
    assert found == RECIPE
    assert not settings.output.exists()


def test_nothing_of_users_is_kept_and_nothing_is_printed(
    settings: Settings, tracker: Tracker, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    # What Optuna logs it prints itself, and hands to nobody.
    optuna.logging.set_verbosity(optuna.logging.INFO)
    logging.getLogger("optuna").addHandler(caplog.handler)
    try:
        with tracker.run("train", tags={}), step() as bar:
            tuned(rows(), RECIPE, PLAN, TARGET, settings, tracker, trials=2, digest="one", step=bar)
    finally:
        logging.getLogger("optuna").removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if record.name.startswith(("optuna", "alembic"))] == []
    assert [str(warning.message) for warning in recwarn if "optuna" in str(warning.filename)] == []
    found = [trial.value for trial in study(settings).trials]
    assert bar.said == f"log_loss {min(found):.4f}, {found[0]:.4f} before; 0 of 2 trials were there"
    assert b"household" not in (settings.output / "tuning.db").read_bytes()
    assert [path.name for path in settings.output.iterdir()] == ["tuning.db"]


def test_a_damaged_file_of_trials_is_a_message_that_says_what_to_do(settings: Settings, tracker: Tracker) -> None:
    path = settings.output / "tuning.db"
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(StoreError, match=r"the trials in .*tuning\.db cannot be read or written: .*not a database.*delete it"):
        tune(settings, tracker, trials=1)
    path.unlink()
    tune(settings, tracker, trials=1)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    with pytest.raises(StoreError, match=r"tuning\.db cannot be read or written: .*malformed.*delete it"):
        tune(settings, tracker, trials=2)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match=r"tuning\.db cannot be read or written: .*unable to open"):
        tune(settings, tracker, trials=1)
