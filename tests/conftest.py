"""Fixtures that every test file shares."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from ibis.backends.sql import SQLBackend

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
