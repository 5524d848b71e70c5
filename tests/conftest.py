"""Fixtures that every test file shares."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from ibis.backends.sql import SQLBackend
from mlflow import MlflowClient

from builders import close_engine, open_engine
from pipeline.tracking import Tracker

# The same examples on every run. No shrinking: with a real engine in every example it takes minutes; keep the examples small.
settings.register_profile("beforehand", deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("beforehand")

KINDS = ["duckdb", pytest.param("spark", marks=pytest.mark.spark)]


# Where trainings draw their figures, of a usual shop and of one full of odd names. Elsewhere that is a fifth of their time.
DRAWN = ("test_shop", "test_odd_shop")


@pytest.fixture(scope="module", autouse=True)
def undrawn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave out the drawing of figures in other modules."""
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ not in DRAWN:
            patch.setattr(Tracker, "log_figures", lambda _tracker, _figures: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def stores_are_copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give every shop a copy of one empty store, made when the first is asked for: its tables take MLflow seconds."""
    empty, opened = tmp_path_factory.mktemp("store") / "mlflow.db", Tracker.open

    def opened_copy(tracker: Tracker) -> MlflowClient:
        if tracker.is_local and not tracker.exists():
            if not empty.exists():
                # It tells of every table.
                for name in ("mlflow", "alembic"):
                    logging.getLogger(name).setLevel(logging.ERROR)
                MlflowClient(f"sqlite:///{empty}").search_experiments()
            own = Path(tracker.uri.removeprefix("sqlite:///"))
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(empty, own)
        return opened(tracker)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "open", opened_copy)
        yield


@pytest.fixture(params=KINDS)
def engine_kind(request: pytest.FixtureRequest) -> str:
    """The kind of engine: what must hold for one must hold for the other."""
    return request.param


@pytest.fixture
def engine(engine_kind: str, tmp_path: Path) -> Iterator[SQLBackend]:
    """An empty engine of its own for each test; on Spark a session of the one application."""
    opened = open_engine(tmp_path / "spill", kind=engine_kind)
    yield opened
    close_engine(opened)


@pytest.fixture
def duckdb_engine(tmp_path: Path) -> Iterator[SQLBackend]:
    """An empty DuckDB, for what only it has."""
    opened = open_engine(tmp_path / "spill")
    yield opened
    close_engine(opened)
