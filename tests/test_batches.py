"""What a night's rows become before they are written: a table in memory, of a large one a file."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import batches
from pipeline.batches import Here
from pipeline.columns import AS_OF
from pipeline.tables import Files

DAY = date(2024, 3, 1)
SCHEMA = pa.schema([AS_OF, ("user_id", pa.string()), ("spent", pa.float64())])
ROWS = pa.table({"spent": pa.array([1, None, 3], pa.float32()), "asked": [True] * 3, "user_id": ["ann", "bea", "cy"]})
PLAIN = {"user_id": ["ann", "bea", "cy"], "spent": [1.0, None, 3.0]}


def test_a_small_table_is_written_from_memory(tmp_path: Path) -> None:
    found = Here(ROWS).staged(SCHEMA, DAY, tmp_path / "rows")
    assert isinstance(found, pa.Table) and found.schema == SCHEMA
    assert found.to_pydict() == {"as_of": [DAY] * 3, **PLAIN}
    assert list(tmp_path.iterdir()) == []


def test_a_large_one_is_a_file_that_waits_for_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LARGE", 1)
    monkeypatch.setattr(batches, "CHUNK", 2)
    found = Here(ROWS).staged(SCHEMA, DAY, tmp_path / ".staged" / "rows")
    assert isinstance(found, Files) and found.schema == SCHEMA and len(found) == 3
    (path,) = found.paths
    assert pq.read_table(path).to_pydict() == PLAIN and pq.read_metadata(path).num_row_groups == 2
