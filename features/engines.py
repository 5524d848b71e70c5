"""The engine that runs the expressions: DuckDB, embedded; see `features.spark` for the other one."""

import glob
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from mmap import ACCESS_READ, mmap
from pathlib import Path
from secrets import token_hex
from shutil import rmtree
from tempfile import TemporaryFile
from typing import IO
from weakref import finalize

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
from ibis.backends.duckdb import Backend
from ibis.backends.sql import SQLBackend

from features.errors import RoomError, first_line
from features.expressions import quoted
from features.scratch import claim, leave
from features.spark_files import keep_on_spark, release_on_spark

# What removes the folders that engines keep files in; whoever is first does it, once.
_removals: list[Callable[[], object]] = []
# What is in a message where a disk is full: the system's words, and those of DuckDB, which does not let it come to that.
_DISK_IS_FULL, _JAVA_IS_FULL = ("No space left on device", "max_temp_directory_size"), "java.lang.OutOfMemoryError"
_KIND = re.compile(r"([A-Z][A-Za-z ]+ Error|\[[A-Z_.]+\])")
# The words of the engine's own that stand around a cell. Whatever else is in a message may be one.
_NAMED = "BOOL|U?INT[0-9]+|U?BIGINT|INTEGER|FLOAT|DOUBLE|DECIMAL\\([0-9]+,[0-9]+\\)|DATE|TIMESTAMP|TIME|INTERVAL|UUID|JSON"
_TYPE = re.compile(rf"(?:\bto |destination type |\bto \")({_NAMED})(?!\w)")
_COLUMN = re.compile(r"when casting from source column (\w+)$")
_FORMAT = re.compile(r'according to format specifier ("[^"]*%[^"]*")$')


def connect(*, memory: str, threads: int, spill: Path) -> Backend:
    """Open an in-memory DuckDB that reads and computes in UTC.

    `memory` (for example `2GB`) is what the engine may take, about: DuckDB bounds its buffers, so a quarter is left for the rest.
    What does not fit is spilled into a folder of this engine alone, called like `spill` and a number, made only when needed and
    removed at the end; what a killed run has left goes when the next one keeps something in a file.
    """
    # Engines that share a folder write over each other's files, whose names DuckDB numbers anew in every process.
    own = spill.with_name(f"{spill.name}-{token_hex(4)}")
    engine = ibis.duckdb.connect(memory_limit=f"{bytes_of(memory) * 3 // 4}B", threads=threads, temp_directory=str(own))
    engine.raw_sql("SET TimeZone = 'UTC'")
    # One odd row of a source is no reason to read none.
    engine.raw_sql("SET error_on_division_by_zero = false")
    # DuckDB draws its progress bar on stdout, which belongs to results.
    engine.raw_sql("SET enable_progress_bar = false")
    return engine


def bytes_of(memory: str) -> int:
    """Read an amount of memory.

    >>> bytes_of("2GB"), bytes_of("512MB")
    (2000000000, 512000000)
    """
    return int(memory[:-2]) * {"MB": 10**6, "GB": 10**9}[memory[-2:]]


def keep(engine: SQLBackend, table: ir.Table, name: str) -> ir.Table:
    """Compute `table` now and keep its rows under `name` until the engine is closed: a temporary table, on Spark Parquet files."""
    if isinstance(engine, Backend):
        return engine.create_table(name, table, temp=True)
    return keep_on_spark(engine, table, name)


def keep_in_file(engine: SQLBackend, table: ir.Table, name: str) -> ir.Table:
    """Compute `table` now and keep its rows under `name` in a Parquet file until the engine is gone.

    A file holds large tables better than what an engine spills: an eighth of the size, and only the columns that are read.
    """
    if not isinstance(engine, Backend):
        return keep_on_spark(engine, table, name)
    file = _file(engine, name)
    _copy(engine, table, file)
    return engine.read_parquet(file, table_name=name, hive_partitioning=False)


def keep_in_parts(engine: SQLBackend, table: ir.Table, name: str, part: ir.IntegerColumn, parts: int) -> list[ir.Table]:
    """Keep the rows of `table` as `keep_in_file` does, in files of their own for each `part` they are in, from 0 on.

    Whoever reads one part reads its files alone. On Spark, which reads in parallel, parts are looked for when they are read.
    """
    if not isinstance(engine, Backend):
        return [table.filter(part == number) for number in range(parts)]
    whole = _file(engine, name)
    _copy(engine, table.mutate(part=part), whole, by="part")
    found = []
    for number in range(parts):
        own = _file(engine, f"{name}_{number}")
        if not (written := whole / f"part={number}").exists():
            found.append(table.limit(0))
            continue
        files = sorted(written.rename(own).iterdir())
        found.append(engine.read_parquet(files, table_name=f"{name}_{number}", hive_partitioning=False))
    whole.rmdir()
    return found


def _copy(engine: Backend, table: ir.Table, file: Path, *, by: str | None = None) -> None:
    """Write rows to a Parquet file of the engine's own, or `by` a column to a folder of such."""
    # DuckDB removes the folder only where it has made it.
    _removals.append(finalize(engine, leave, claim(file.parent)))
    told = "FORMAT parquet" if by is None else f"FORMAT parquet, PARTITION_BY ({by})"
    with _view_of(engine, table) as view:
        engine.raw_sql(f"COPY (FROM {view}) TO {quoted(str(file))} ({told})")


@contextmanager
def removed_at_the_end() -> Iterator[None]:
    """Remove at the end what engines have kept in files since, also where an error that is told holds one of them still."""
    before = len(_removals)
    try:
        yield
    finally:
        for remove in _removals[before:]:
            remove()
        del _removals[before:]


@contextmanager
def _view_of(engine: Backend, table: ir.Table) -> Iterator[str]:
    """Name a table for SQL of our own for a while; it may read what is in this process."""
    view = f"streamed_{token_hex(4)}"
    engine.create_view(view, table)
    yield view
    # Not after an error: it goes with the engine, and what is under way would stand in the place of what went wrong.
    engine.raw_sql(f"DROP VIEW {view}")


def _spilled(engine: Backend) -> Path:
    """Give the folder that an engine alone spills into."""
    ((folder,),) = engine.raw_sql("SELECT current_setting('temp_directory')").fetchall()
    return Path(folder).absolute()


def _file(engine: Backend, name: str) -> Path:
    """Give the file, or the folder of files, in which rows are kept under a name, where they are."""
    return _spilled(engine) / f"{name}.parquet"


def _kept(engine: SQLBackend) -> set[str]:
    """Give the names of the tables that are kept."""
    if isinstance(engine, Backend):
        # Not `list_tables`: Ibis 12.0 asks DuckDB for it by a method that DuckDB 2 took away.
        names = {name for (name,) in engine.raw_sql("SELECT table_name FROM duckdb_tables()").fetchall()}
        return names | {file.stem for file in _spilled(engine).glob("*.parquet")}
    return set(engine.list_tables())


def release(engine: SQLBackend, kept: Iterable[ir.Table]) -> None:
    """Let go of tables that were kept; they can no longer be read."""
    for table in kept:
        name = table.op().name
        if not isinstance(engine, Backend):
            release_on_spark(engine, name)
        elif (file := _file(engine, name)).exists():
            engine.raw_sql(f'DROP VIEW "{name}"')
            rmtree(file) if file.is_dir() else file.unlink()
        else:
            engine.raw_sql(f'DROP TABLE "{name}"')


@contextmanager
def released_at_the_end(engine: SQLBackend, *beginnings: str) -> Iterator[None]:
    """Let go at the end of the tables that were kept since, as far as their names begin so."""
    before = _kept(engine)
    yield
    # Not after an error (see `_view_of`).
    made = sorted(name for name in _kept(engine) - before if name.startswith(beginnings))
    release(engine, [engine.table(name) for name in made])


def streamed(engine: Backend, table: ir.Table, order: str, rows: int) -> pa.Table:
    """Give the rows of a table, by a column, from a file beside what is spilled, in chunks of so many `rows` (see `in_file`).

    The engine need not sort them: with hundreds of columns that takes more memory than it may have.
    """
    folder, schema = beside(engine), table.schema().to_pyarrow()
    with _view_of(engine, table) as view:
        found = in_file(folder, schema, (batch.cast(schema) for batch in engine.con.sql(f"FROM {view}").to_arrow_reader(rows)))
    turn = pc.sort_indices(found[order])
    with TemporaryFile(dir=folder) as file:
        starts = []
        # Column by column: there is one in memory at a time.
        for name in schema.names:
            starts.append(file.tell())
            column = found.select([name]).combine_chunks().take(turn)
            with pa.ipc.new_stream(file, column.schema) as writer:
                writer.write_table(column, rows)
        held = _mapped(file)
    return pa.table([pa.ipc.open_stream(held.slice(start)).read_all().column(0) for start in starts], schema=schema)


def beside(engine: Backend) -> Path:
    """Give the folder that there is for files beside what an engine spills."""
    return next(folder for folder in _spilled(engine).parents if folder.exists())


def in_file(folder: Path, schema: pa.Schema, parts: Iterable[pa.Table | pa.RecordBatch]) -> pa.Table:
    """Give rows from a file in a folder: memory holds as much of it as there is room for.

    The file has no name, and goes when nobody has the rows any more.
    """
    with TemporaryFile(dir=folder) as file:
        with pa.ipc.new_file(file, schema) as writer:
            for part in parts:
                writer.write(part)
        return pa.ipc.open_file(_mapped(file)).read_all()


def _mapped(file: IO[bytes]) -> pa.Buffer:
    file.flush()
    return pa.py_buffer(mmap(file.fileno(), 0, access=ACCESS_READ))


def engine_errors() -> tuple[type[Exception], ...]:
    """Give what the engines raise for a query that is wrong or cells that cannot be read."""
    try:
        from pyspark.errors import PySparkException
    except ImportError:
        return (duckdb.Error,)
    return (duckdb.Error, PySparkException)


def no_room(error: BaseException) -> RoomError | None:
    """Say what there was too little of where something failed for want of room, and what to do; None of any other error."""
    said = str(error)
    if (isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT)) or any(words in said for words in _DISK_IS_FULL):
        return RoomError(
            "the disk is full: while it works, the engine needs room below `output` for the events once more and for what does not "
            "fit into `engine.memory`. Make room there, or put `output` on another disk"
        )
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException) or _JAVA_IS_FULL in said:
        told = without_cells(error) if isinstance(error, engine_errors()) else first_line(error)
        return RoomError(
            f"there is too little memory: {told}. Raise `engine.memory` where the machine has more; else fewer `features.windows` "
            "or `features.families` need less, and so does a training with fewer `training.most_rows`"
        )
    return None


def without_cells(error: Exception) -> str:
    """Say what an engine could not read, of its message only what no cell can be part of: a cell may be a user's id.

    >>> without_cells(duckdb.ConversionException("Conversion Error: Could not convert string 'ann' to DATE"))
    'Conversion Error: a cell that is no DATE'
    """
    said = first_line(error)
    kind = _KIND.match(said)
    if kind is None:
        return type(error).__name__
    if not isinstance(error, duckdb.DataError | duckdb.InvalidInputException) and isinstance(error, duckdb.Error):
        # Of memory, files and names; what is quoted there may still come from a cell.
        return re.sub("'.*'|\".*\"", "…", said)
    types, column, written = (pattern.findall(said) for pattern in (_TYPE, _COLUMN, _FORMAT))
    told = f"{kind[1]}: a cell that is no {types[-1]}" if types else f"{kind[1]}: a cell that cannot be read"
    return told + "".join(f", in column {name}" for name in column) + "".join(f", by the format {one}" for one in written)


def confine(engine: Backend, files: list[str]) -> None:
    """Let the engine read `files`, what it keeps itself, and nothing else from now on.

    The SQL of a source is parsed and checked before it runs; this is the second lock: whatever slips through can neither read
    nor write another file, load an extension, or undo the lock.
    """
    # Also as they are named in a query, where letters of a pattern are written so that they are none.
    engine.raw_sql(f"SET allowed_paths = {quoted([*files, *map(glob.escape, files)])}")
    engine.raw_sql(f"SET allowed_directories = {quoted([str(_spilled(engine))])}")
    engine.raw_sql("SET enable_external_access = false")
    engine.raw_sql("SET lock_configuration = true")
