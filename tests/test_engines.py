"""Rows that an engine keeps in files: those that it reads again, and those that it streams to whoever asks."""

import gc
from collections.abc import Callable
from errno import ENOENT, ENOSPC
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
import pytest
from ibis.backends.sql import SQLBackend

from features.engines import (
    confine,
    connect,
    engine_errors,
    keep,
    keep_in_file,
    keep_in_parts,
    no_room,
    release,
    released_at_the_end,
    removed_at_the_end,
    streamed,
)

Keep = Callable[[SQLBackend, ir.Table, str], ir.Table]
ROWS = 25_000
USERS = 3 * ROWS - 1


def users(count: int) -> ir.Table:
    frame = pd.DataFrame({"user_id": [f"u{(user * 7_919) % count:06}" for user in range(count)], "spent": range(count)})
    table = ibis.memtable(frame)
    return table.mutate(
        spent=(table.spent % 5 > 0).ifelse(table.spent / 4, None), asked=table.spent % 2 == 0, at=ibis.timestamp("2024-03-01 10:00")
    )


def test_rows_are_streamed_in_order_and_memory_is_left_alone(tmp_path: Path) -> None:
    engine = connect(memory="512MB", threads=2, spill=tmp_path / "spill")
    table = users(USERS)
    expected = engine.to_pyarrow(table.order_by("user_id"))
    before = pa.total_allocated_bytes()
    rows = streamed(engine, table, "user_id", ROWS)
    assert pa.total_allocated_bytes() - before < rows.nbytes / 10
    assert rows.schema == table.schema().to_pyarrow()
    assert rows.equals(expected)
    assert all([len(chunk) for chunk in rows[name].chunks] == [ROWS, ROWS, ROWS - 1] for name in rows.column_names)
    # A file with a name would be there still after a crash.
    assert list(tmp_path.iterdir()) == []
    assert engine.raw_sql("FROM duckdb_views() WHERE view_name LIKE 'streamed%'").fetchall() == []
    engine.disconnect()
    assert rows.column("spent").null_count == USERS // 5 + 1


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows_are_streamed_too_where_no_folder_is_yet(count: int, tmp_path: Path) -> None:
    engine = connect(memory="512MB", threads=1, spill=tmp_path / "not" / "yet" / "spill")
    rows = streamed(engine, users(1).limit(count), "user_id", ROWS)
    assert len(rows) == count and rows.column_names == ["user_id", "spent", "asked", "at"]
    assert list(tmp_path.iterdir()) == []
    engine.disconnect()


def test_what_is_kept_in_a_file_is_there_until_the_engine_is_gone(tmp_path: Path) -> None:
    place = tmp_path / "it's here"
    place.mkdir()
    engine = connect(memory="512MB", threads=1, spill=place / "spill")
    confine(engine, [])
    table = users(100)
    rows = keep_in_file(engine, table, "kept")
    assert engine.to_pyarrow(rows.order_by("user_id")).equals(engine.to_pyarrow(table.order_by("user_id")))
    ((folder,),) = [list(place.iterdir())]
    release(engine, [keep_in_file(engine, table, "released")])
    assert sorted(file.name for file in folder.iterdir()) == ["held", "kept.parquet"]
    with pytest.raises(duckdb.PermissionException):
        engine.raw_sql(f"COPY (SELECT 1) TO '{tmp_path / 'elsewhere.parquet'}'")
    del rows, engine
    gc.collect()
    assert list(place.iterdir()) == []


def test_rows_kept_in_parts_are_those_of_each_part(engine: SQLBackend) -> None:
    table = users(100)
    with released_at_the_end(engine, "parted"):
        # Nobody is in the second part.
        parts = keep_in_parts(engine, table, "parted", (table.spent.fill_null(0.0) > 12).ifelse(2, 0), 3)
        found = [set(engine.to_pyarrow(part)["user_id"].to_pylist()) for part in parts]
        assert [len(some) for some in found] == [59, 0, 41] and len(found[0] | found[2]) == 100
        assert all(part.columns == table.columns for part in parts)


def test_parts_are_files_that_go_when_they_are_released(tmp_path: Path) -> None:
    engine = connect(memory="512MB", threads=1, spill=tmp_path / "a=b" / "spill")
    (tmp_path / "a=b").mkdir()
    confine(engine, [])
    table = users(100)
    with released_at_the_end(engine, "parted"):
        keep_in_parts(engine, table, "parted", table.asked.ifelse(1, 0), 2)
        (folder,) = (tmp_path / "a=b").iterdir()
        assert sorted(file.name for file in folder.iterdir()) == ["held", "parted_0.parquet", "parted_1.parquet"]
    assert [file.name for file in folder.iterdir()] == ["held"]


def test_what_was_kept_goes_at_the_end_of_a_command_also_where_somebody_holds_the_engine(tmp_path: Path) -> None:
    earlier = connect(memory="512MB", threads=1, spill=tmp_path / "earlier")
    keep_in_file(earlier, users(1), "kept")
    with removed_at_the_end():
        later = connect(memory="512MB", threads=1, spill=tmp_path / "later")
        keep_in_file(later, users(1), "kept")
        assert len(list(tmp_path.iterdir())) == 2
    assert [folder.name.split("-")[0] for folder in tmp_path.iterdir()] == ["earlier"]
    assert earlier.table("kept").count().execute() == 1


@pytest.mark.parametrize("kept", [keep, keep_in_file])
def test_what_was_kept_is_released_at_the_end_by_its_name(engine: SQLBackend, kept: Keep) -> None:
    earlier = kept(engine, users(3), "part_0")
    with released_at_the_end(engine, "part_", "whole_"):
        parts = [kept(engine, users(3), name) for name in ("part_1", "whole_1")]
        other = kept(engine, users(3), "another")
        assert all(int(engine.execute(part.count())) == 3 for part in parts)
    assert all(int(engine.execute(table.count())) == 3 for table in (earlier, other))
    for part in parts:
        with pytest.raises(engine_errors()):
            engine.execute(part.count())


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ("SET max_temp_directory_size = '1KB'", "the disk is full: "),
        ("SET temp_directory = ''", "there is too little memory: Out of Memory Error: "),
    ],
)
def test_want_of_room_is_told_as_such(bound: str, said: str, tmp_path: Path) -> None:
    engine = connect(memory="100MB", threads=1, spill=tmp_path / "spill")
    engine.raw_sql(bound)
    with pytest.raises(duckdb.OutOfMemoryException) as failed:
        engine.raw_sql("CREATE TABLE large AS SELECT range, md5(range::VARCHAR) FROM range(5_000_000)")
    assert str(no_room(failed.value)).startswith(said)


@pytest.mark.parametrize(
    ("error", "is_for_want_of_room"),
    [
        (OSError(ENOSPC, "No space left on device"), True),
        (duckdb.IOException('IO Error: Could not write file "a.parquet": No space left on device'), True),
        (pa.ArrowMemoryError("malloc of size 64 failed"), True),
        (OSError(ENOENT, "No such file or directory"), False),
        (duckdb.IOException('IO Error: Could not read file "a.parquet"'), False),
    ],
)
def test_want_of_room_is_told_from_other_errors(error: Exception, is_for_want_of_room: bool) -> None:
    assert (no_room(error) is not None) == is_for_want_of_room
