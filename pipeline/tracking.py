"""MLflow: runs, figures and the model registry. The only module that talks to its tracking client."""

import logging
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import matplotlib.figure
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from features.errors import GateError, StoreError, first_line
from models import bundle
from models.bundle import PersonaBundle, TargetBundle
from pipeline import registry
from pipeline.progress import Narrator
from pipeline.registry import CHALLENGER, CHAMPION, UNTIL, Change, few_retries, without_password
from pipeline.settings import Settings

# Opens the experiment among trainings; without it MLflow's pages open on traces and prompts.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_VARIABLE = "MLFLOW_TRACKING_URI"
# Of this version: an index may have another package of that name, or a later one that reads other files.
_REQUIREMENTS = [f"beforehand=={version('beforehand')}"]
# What MLflow's registry keeps of a description.
_LONGEST = 5_000


@dataclass(frozen=True)
class Champion:
    """A registered model that is in charge, or a challenger in shadow, with its version in the registry."""

    name: str
    version: str
    bundle: TargetBundle | PersonaBundle


class Tracker:
    """One MLflow store: `MLFLOW_TRACKING_URI` where it is set, else SQLite and local artifacts below `output`."""

    def __init__(self, settings: Settings) -> None:
        """Name the store of a config; nothing is opened or made before the first use."""
        self._folder, self._experiment = (settings.output / "mlflow").resolve(), settings.name
        given = os.environ.get(_VARIABLE)
        self.uri = given or f"sqlite:///{self._folder / 'mlflow.db'}"
        self.is_local = not given

    def open(self) -> MlflowClient:
        """Connect, making the local store when it is not there; raises StoreError when the store does not answer."""
        # MLflow and Alembic report every migration of a new store; what goes wrong is raised, and told by the command line.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            if self.is_local:
                self._folder.mkdir(parents=True, exist_ok=True)
            _use(self.uri)
            client = MlflowClient(self.uri)
            with few_retries():
                there = client.get_experiment_by_name(self._experiment)
            if there is None:
                artifacts = (self._folder / "artifacts").as_uri() if self.is_local else None
                client.create_experiment(self._experiment, artifact_location=artifacts, tags=_KIND)
        except Exception as error:  # every kind of store fails in its own way: SQLAlchemy, HTTP, files
            raise StoreError(
                f"the MLflow store {without_password(self.uri)} does not answer: {without_password(first_line(error))[:200]}; "
                f"check {'`output` in the config' if self.is_local else _VARIABLE}"
            ) from None
        return client

    def exists(self) -> bool:
        """Whether there is a store to ask: the local one is made by the first training."""
        return not self.is_local or (self._folder / "mlflow.db").is_file()

    @contextmanager
    def run(self, name: str, *, tags: Mapping[str, str], nested: bool = False) -> Iterator[str]:
        """Open a run (a child of the open one when `nested`) and give its id; it ends as failed when the body raises."""
        self.open()
        with self._asking(f"open the run {name!r}"):
            mlflow.set_experiment(self._experiment)
            run_id = mlflow.start_run(run_name=name, nested=nested, tags=dict(tags)).info.run_id
        try:
            yield run_id
        except BaseException:
            # What went wrong must not be hidden by a store that cannot note it.
            with suppress(Exception):
                mlflow.end_run("FAILED")
            raise
        with self._asking(f"close the run {name!r}"):
            mlflow.end_run()

    def log(self, run_id: str, *, params: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        """Log parameters and single metrics of a run in one request."""
        with self._asking("log parameters and metrics"):
            MlflowClient(self.uri).log_batch(
                run_id,
                params=[Param(key, str(value)) for key, value in params.items()],
                metrics=[Metric(key, value, _NO_TIME, 0) for key, value in metrics.items()],
            )

    def log_origins(self, run_id: str, measures: Mapping[datetime, Mapping[str, float]]) -> None:
        """Log measures per test origin: one step an origin, stamped with the origin's own time."""
        metrics = [
            Metric(name, value, int(origin.replace(tzinfo=UTC).timestamp() * 1000), step)
            for step, (origin, found) in enumerate(measures.items())
            for name, value in found.items()
        ]
        with self._asking("log the measures of origins"):
            MlflowClient(self.uri).log_batch(run_id, metrics=metrics)

    def log_figures(self, figures: Mapping[str, matplotlib.figure.Figure]) -> None:
        """Log figures to the open run as PNG files."""
        with self._asking("log figures"):
            for name, figure in figures.items():
                mlflow.log_figure(figure, f"figures/{name}.png", save_kwargs={"dpi": 110})

    def log_text(self, name: str, text: str) -> None:
        """Log a text to the open run as a file of that name, such as `model_card.md`."""
        with self._asking(f"log {name}"):
            mlflow.log_text(text, name)

    def register(self, model: str, fitted: TargetBundle | PersonaBundle, outputs: Mapping[str, str]) -> str:
        """Log a bundle to the open run as a pyfunc model with a signature, register it as challenger, and give its new version.

        `outputs` maps the columns of a prediction to MLflow types. It is in charge of nothing before `promote`.
        """
        signature = ModelSignature(
            # A base rate reads nothing, and takes any row.
            inputs=Schema([ColSpec("double", name, required=True) for name in fitted.features]) if fitted.features else None,
            outputs=Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
            # Of which date the rows are, for the season.
            params=ParamSchema(
                [ParamSpec(bundle.AS_OF, "string", fitted.trained_until)] if isinstance(fitted, TargetBundle) else []
            ),
        )
        with tempfile.TemporaryDirectory() as temporary, self._asking(f"register {model}"):
            folder = Path(temporary) / "bundle"
            fitted.save(folder)
            with warnings.catch_warnings():
                # An input example would put users' rows into the store; the signature is written by hand instead.
                warnings.filterwarnings("ignore", message=".*An input example was not provided.*")
                logged = mlflow.pyfunc.log_model(
                    name=model,
                    loader_module=bundle.__name__,
                    data_path=str(folder),
                    signature=signature,
                    pip_requirements=_REQUIREMENTS,
                )
            client, name = MlflowClient(self.uri), self.registered(model)
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            tags = {UNTIL: fitted.trained_until} if isinstance(fitted, TargetBundle) else {}
            made = client.create_model_version(name, logged.model_uri, run_id=logged.run_id, model_id=logged.model_id, tags=tags)
            client.set_registered_model_alias(name, CHALLENGER, str(made.version))
        return str(made.version)

    def describe(self, model: str, version: str, text: str) -> None:
        """Set what the registry shows of a version, in Markdown; a text too long for it ends with the last line that fits."""
        if len(text) > _LONGEST:
            more = "\n\n… the rest is in the artifacts of its run."
            text = text[: _LONGEST - len(more)].rpartition("\n")[0] + more
        with self._asking(f"describe version {version} of {model}"):
            MlflowClient(self.uri).update_model_version(self.registered(model), version, text)

    def promote(self, versions: Mapping[str, str], *, reason: str) -> dict[str, Change]:
        """Make these versions champions, all after the last model is safely registered; `reason` stays with each as a tag.

        Raises ConfigError naming the versions there are when one is not there, and StoreError when one cannot be read; then no
        champion has changed.
        """
        client = self.open()
        with self._asking("move the champions"):
            changes = [registry.planned(client, self.registered(model), version) for model, version in versions.items()]
            for model, version in versions.items():
                self._load(model, version)
            registry.promote(client, changes, reason=reason)
        return {model: replace(change, model=model) for model, change in zip(versions, changes, strict=True)}

    def rollback(self, model: str, *, reason: str) -> Change:
        """Put the version in charge that the champion replaced; `reason` stays with the one that goes, as a tag.

        Raises GateError when there is no champion or no version to go back to, and StoreError when that one cannot be read.
        """
        client = self.open()
        with self._asking("move the champion"):
            change = registry.way_back(client, self.registered(model))
            self._load(model, change.version)
            registry.roll_back(client, change, reason=reason)
        return replace(change, model=model)

    def no_champion(self, models: Sequence[str]) -> GateError:
        """Make the error that names models without a champion."""
        return GateError(
            f"no champion in the registry for {', '.join(self.registered(model) for model in models)}: "
            "run `beforehand train` first, or put a version that the gates refused in charge with `beforehand promote`"
        )

    def in_charge(self, models: Sequence[str]) -> dict[str, Champion]:
        """Load the champions of those models that have one.

        Raises StoreError when the registry or a model's files cannot be read.
        """
        found = self._aliases(models)
        return {model: self._load(model, found[model][CHAMPION]) for model in models if CHAMPION in found[model]}

    def of_versions(self, versions: Mapping[str, str]) -> dict[str, Champion]:
        """Load these versions of models, as they were once in charge; raises StoreError as `in_charge` does."""
        self.open()
        do = "put its files back, or start from a night whose models are all there"
        return {model: self._load(model, version, do=do) for model, version in versions.items()}

    def challengers(self, models: Sequence[str]) -> dict[str, Champion]:
        """Load the newest challengers of the models; a model whose newest version is in charge has none.

        Raises StoreError when the registry or a model's files cannot be read.
        """
        found = self._aliases(models)
        waiting = {model: told[CHALLENGER] for model, told in found.items() if CHALLENGER in told}
        return {model: self._load(model, version) for model, version in waiting.items() if version != found[model].get(CHAMPION)}

    def trained_until(self, models: Sequence[str]) -> str | None:
        """Give until when the newest versions of these models knew the events, refused ones too; the oldest date of them.

        None when a model has no version that says so.
        """
        client = self.open() if self.exists() else None
        if client is None:
            return None
        with self._asking("tell its versions"):
            dates = [registry.newest_tag(client, self.registered(model), UNTIL) for model in models]
        return None if None in dates else min(str(date) for date in dates)

    def registered(self, model: str) -> str:
        """Give the name under which a model of this experiment is registered."""
        return f"{self._experiment}.{model}"

    def _load(
        self, model: str, version: str, *, do: str = "train again, or put another version in charge with `beforehand promote`"
    ) -> Champion:
        try:
            folder = mlflow.artifacts.download_artifacts(f"models:/{self.registered(model)}/{version}", tracking_uri=self.uri)
        except (MlflowException, OSError) as error:
            raise StoreError(
                f"version {version} of {self.registered(model)} cannot be read: {without_password(first_line(error))}; {do}"
            ) from None
        return Champion(model, version, bundle.load(Path(folder) / "data" / "bundle"))

    def _aliases(self, models: Sequence[str]) -> dict[str, dict[str, str]]:
        # A store that was never made has no models, and asking is no reason to make it.
        if not self.exists():
            return {model: {} for model in models}
        client = self.open()
        with self._asking("tell its champions"):
            return {model: registry.aliases(client, self.registered(model)) for model in models}

    def _asking(self, to: str) -> AbstractContextManager[None]:
        return registry.asking(self.uri, to)


def serve_ui(settings: Settings, port: int, narrator: Narrator) -> None:
    """Run the MLflow UI on this machine until it is interrupted.

    Raises StoreError when the port is taken or the server does not start.
    """
    tracker = Tracker(settings)
    tracker.open()
    if not tracker.is_local:
        raise StoreError(f"MLFLOW_TRACKING_URI is set: the models are in {without_password(tracker.uri)}, open its own page")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise StoreError(f"port {port} is taken: choose another with --port")
    narrator.say(f"MLflow UI of {settings.name}: http://127.0.0.1:{port} (stop with Ctrl-C)")
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        tracker.uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    done = subprocess.run(command, check=False)  # noqa: S603 - our own interpreter, no user input but a checked port
    if done.returncode not in (0, -2, -15):
        raise StoreError(f"the MLflow UI ended with exit code {done.returncode}: see its messages above")


def _use(uri: str) -> None:
    """Make MLflow's fluent calls go to `uri`, without leaving it in the environment as if the user had set it there."""
    theirs = os.environ.get(_VARIABLE)
    mlflow.set_tracking_uri(uri)
    if theirs is None:
        os.environ.pop(_VARIABLE, None)


# Single metrics carry no time of their own, and the clock is not asked for one.
_NO_TIME = 0
