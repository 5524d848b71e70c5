"""MLflow: runs, figures and the model registry. The only module that talks to its tracking client."""

import logging
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.figure
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from features.errors import GateError, StoreError, first_line
from models import bundle
from models.bundle import PersonaBundle, TargetBundle
from pipeline.progress import Narrator
from pipeline.settings import Settings

CHAMPION = "champion"
# Opens the experiment among trainings; without it MLflow's pages open on traces and prompts.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_VARIABLE = "MLFLOW_TRACKING_URI"
_REQUIREMENTS = ["beforehand"]


@dataclass(frozen=True)
class Champion:
    """A registered model that is in charge, with its version in the registry."""

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
        if self.is_local:
            self._folder.mkdir(parents=True, exist_ok=True)
        _use(self.uri)
        try:
            client = MlflowClient(self.uri)
            if client.get_experiment_by_name(self._experiment) is None:
                artifacts = (self._folder / "artifacts").as_uri() if self.is_local else None
                client.create_experiment(self._experiment, artifact_location=artifacts, tags=_KIND)
        except Exception as error:  # every kind of store fails in its own way: SQLAlchemy, HTTP, files
            raise StoreError(
                f"the MLflow store {_without_password(self.uri)} does not answer: {first_line(error)[:200]}; check "
                f"{'`output` in the config' if self.is_local else _VARIABLE}"
            ) from None
        return client

    def exists(self) -> bool:
        """Whether there is a store to ask: the local one is made by the first training."""
        return not self.is_local or (self._folder / "mlflow.db").is_file()

    @contextmanager
    def run(self, name: str, *, tags: Mapping[str, str], nested: bool = False) -> Iterator[str]:
        """Open a run (a child of the open one when `nested`) and give its id; it ends as failed when the body raises."""
        self.open()
        mlflow.set_experiment(self._experiment)
        with mlflow.start_run(run_name=name, nested=nested, tags=dict(tags)) as run:
            yield run.info.run_id

    def log(self, run_id: str, *, params: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        """Log parameters and single metrics of a run in one request."""
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
        MlflowClient(self.uri).log_batch(run_id, metrics=metrics)

    def log_figures(self, figures: Mapping[str, matplotlib.figure.Figure]) -> None:
        """Log figures to the open run as PNG files."""
        for name, figure in figures.items():
            mlflow.log_figure(figure, f"figures/{name}.png", save_kwargs={"dpi": 110})

    def register(self, model: str, fitted: TargetBundle | PersonaBundle, outputs: Mapping[str, str]) -> str:
        """Log a bundle to the open run as a pyfunc model with a signature, register it, and give its new version.

        `outputs` maps the columns of a prediction to MLflow types. No alias moves: see `promote`.
        """
        signature = ModelSignature(
            inputs=Schema([ColSpec("double", name, required=True) for name in fitted.features]),
            outputs=Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
        )
        with tempfile.TemporaryDirectory() as temporary:
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
        if not _is_registered(client, name):
            client.create_registered_model(name)
        made = client.create_model_version(name, logged.model_uri, run_id=logged.run_id, model_id=logged.model_id)
        return str(made.version)

    def promote(self, versions: Mapping[str, str]) -> None:
        """Make these versions champions, all after the last model is safely registered."""
        client = MlflowClient(self.uri)
        for model, version in versions.items():
            client.set_registered_model_alias(self.registered(model), CHAMPION, version)

    def champions(self, models: Sequence[str]) -> dict[str, Champion]:
        """Load the champions of the models from the registry.

        Raises GateError naming every model without one, and StoreError when a model's files cannot be read.
        """
        # A store that was never made has no champions, and asking is no reason to make it.
        client = self.open() if self.exists() else None
        versions = {model: _champion_version(client, self.registered(model)) if client else None for model in models}
        missing = [model for model, version in versions.items() if version is None]
        if missing:
            raise GateError(
                f"no champion in the registry for {', '.join(self.registered(model) for model in missing)}: "
                "run `beforehand train` first, or set the alias `champion` on a version in the MLflow UI"
            )
        return {model: self._load(model, str(version)) for model, version in versions.items()}

    def registered(self, model: str) -> str:
        """Give the name under which a model of this experiment is registered."""
        return f"{self._experiment}.{model}"

    def _load(self, model: str, version: str) -> Champion:
        try:
            folder = mlflow.artifacts.download_artifacts(f"models:/{self.registered(model)}/{version}", tracking_uri=self.uri)
        except (MlflowException, OSError) as error:
            raise StoreError(
                f"version {version} of {self.registered(model)} cannot be read: {first_line(error)}; "
                "train again, or point the champion alias at another version"
            ) from None
        return Champion(model, version, bundle.load(Path(folder) / "data" / "bundle"))


def serve_ui(settings: Settings, port: int, narrator: Narrator) -> None:
    """Run the MLflow UI on this machine until it is interrupted.

    Raises StoreError when the port is taken or the server does not start.
    """
    tracker = Tracker(settings)
    tracker.open()
    if not tracker.is_local:
        raise StoreError(f"MLFLOW_TRACKING_URI is set: the models are in {_without_password(tracker.uri)}, open its own page")
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


def _champion_version(client: MlflowClient, name: str) -> str | None:
    try:
        return str(client.get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException:
        return None


def _use(uri: str) -> None:
    """Make MLflow's fluent calls go to `uri`, without leaving it in the environment as if the user had set it there."""
    theirs = os.environ.get(_VARIABLE)
    mlflow.set_tracking_uri(uri)
    if theirs is None:
        os.environ.pop(_VARIABLE, None)


def _is_registered(client: MlflowClient, name: str) -> bool:
    return bool(client.search_registered_models(f"name = '{name}'"))


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


# Single metrics carry no time of their own, and the clock is not asked for one.
_NO_TIME = 0
