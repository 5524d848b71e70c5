"""What is made from a night's rows, and what they become before they are written: tables in memory, large ones in files."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


@pytest.mark.parametrize("count", [0, 1, batches.CHUNK, 4 * batches.CHUNK + 1])
def test_what_is_made_from_many_rows_is_in_a_file_without_a_name(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "VALUES", 1)
    schema = pa.schema([("user_id", pa.string()), ("said", pa.list_(pa.string()))])

    def said(rows: pa.Table) -> pa.Table:
        assert len(rows) <= batches.CHUNK
        words = pa.ListArray.from_arrays(pa.array(range(len(rows) + 1), pa.int32()), rows["user_id"].combine_chunks())
        return pa.table([rows["user_id"], pc.if_else(rows["asked"], words, None)], schema=schema)

    rows = pa.table({"user_id": pa.array(np.arange(count)).cast(pa.string()), "asked": np.arange(count) % 3 > 0})
    expected = Here(rows).map(said, schema).rows
    before = pa.total_allocated_bytes()
    made = Here(rows, tmp_path).map(said, schema)
    assert made.rows.equals(expected) and made.rows.schema == schema
    assert made.folder == tmp_path and list(tmp_path.iterdir()) == []
    assert count <= batches.CHUNK or pa.total_allocated_bytes() - before < made.rows.nbytes / 10
