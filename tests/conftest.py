"""Fixtures that every test file shares."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from ibis.backends.duckdb import Backend

from builders import open_engine

# The same examples on every run. No shrinking: with a real engine in every example it takes minutes; keep the examples small.
settings.register_profile("beforehand", deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("beforehand")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Backend]:
    """An empty engine of its own for each test."""
    opened = open_engine(tmp_path / "spill")
    yield opened
    opened.disconnect()
