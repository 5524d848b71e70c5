"""Files on Spark: those that it reads as DuckDB does are its own to read, the others are copied once; what it computes."""

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse
from uuid import uuid4

import duckdb
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.sql import SQLBackend

from features.csv_files import csv_call, named, other_types, refuse_no_header, texts_of, types_of
from features.expressions import quoted, quoted_name
from features.spark import SCRATCH

# Types of Parquet that mean the same to both engines.
_SAME = ("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL", "VARCHAR", "DATE", "TIMESTAMP")
_WRITTEN_AS = {"TIMESTAMP_NS": "TIMESTAMP", "TIMESTAMP_MS": "TIMESTAMP", "TIMESTAMP_S": "TIMESTAMP", "TIME": "VARCHAR"}


def open_on_spark(engine: SQLBackend, view: str, files: Sequence[str], ids: Collection[str]) -> list[str]:
    """Make a view over the files (all Parquet or all CSV, at least one) and give its columns.

    `ids` names the columns, in lower case, of which a CSV file's cells must stay as they are written.

    Parquet is read by the executors. CSV, whose types are guessed, and Parquet with types that Spark lacks go through DuckDB first,
    on the driver and in bounded memory, as a Parquet copy in the session's scratch folder: both engines then see the same cells.
    Executors must see these folders where the driver does. Raises duckdb.Error where a file cannot be read,
    DataError where a CSV file has no header.

    Nothing locks Spark to the files, as `confine` does DuckDB: there it is the check of the SQL that keeps a source to its tables.
    """
    session = engine.raw_sql("SELECT 1").sparkSession
    with duckdb.connect(config={"memory_limit": "1GB", "threads": 2, "temp_directory": session.conf.get(SCRATCH)}) as reader:
        reader.execute("SET TimeZone = 'UTC'")
        names = named(files)
        is_csv = not files[0].endswith(".parquet")
        texts = texts_of(reader.execute, files, ids) if is_csv else []
        read = csv_call(files, texts) if is_csv else f"read_parquet({names}, union_by_name = true)"
        types = types_of(reader.execute, read)
        written = {name: _WRITTEN_AS[kind] for name, kind in types.items() if kind in _WRITTEN_AS}
        if is_csv:
            refuse_no_header(files, types)
            others = other_types(reader.execute, read, types, texts)
            read = csv_call(files, [*texts, *(name for name, kind in others.items() if kind == "VARCHAR")])
            written |= others
        if is_csv or not _is_plain(files, types) or _differ(reader, names):
            files = [_copy(reader, read, types, written, Path(session.conf.get(SCRATCH)))]
    # Without a scheme, a path would be looked for in the cluster's own file system.
    paths = ["file://" + file for file in files]
    session.read.option("mergeSchema", len(paths) > 1).parquet(*paths).createOrReplaceTempView(f"`{view}`")
    return list(types)


def write_for_spark(engine: SQLBackend, rows: pa.Table, name: str) -> ir.Table:
    """Write rows into the session's scratch folder, and give them as a table that executors read."""
    session = engine.raw_sql("SELECT 1").sparkSession
    path = Path(session.conf.get(SCRATCH)) / f"{name}_{uuid4().hex}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    return engine.read_parquet(f"file://{path}")


def keep_on_spark(engine: SQLBackend, table: ir.Table, name: str) -> ir.Table:
    """Compute `table` now, and give its rows as a view of that name over Parquet files in the session's scratch folder.

    Files, not Spark's cache: a cached table drags along how it was made, and with hundreds of features planning takes longer than
    computing; and files outlive an executor. Raises PySparkException when the name is taken or a cell cannot be read.
    """
    session = engine.raw_sql("SELECT 1").sparkSession
    place = f"file://{Path(session.conf.get(SCRATCH)) / f'kept_{uuid4().hex}'}"
    engine.to_parquet_dir(table, place)
    rows = session.read.parquet(place)
    # Ibis takes 0.0 for a float, Spark for a decimal.
    floats = {column for column, kind in table.schema().items() if kind.is_float64()}
    casts = {column: rows[f"`{column}`"].cast("double") for column, kind in rows.dtypes if column in floats and kind != "double"}
    rows.withColumns(casts).createTempView(f"`{name}`")
    return engine.table(name)


def release_on_spark(engine: SQLBackend, name: str) -> None:
    """Remove the files and the name of a table that was kept."""
    # Spark names its files as URLs.
    (place,) = {Path(unquote(urlparse(file).path)).parent for file in engine.raw_sql(f"TABLE `{name}`").inputFiles()}
    engine.raw_sql(f"DROP VIEW `{name}`")
    shutil.rmtree(place)


def _is_plain(files: Sequence[str], types: dict[str, str]) -> bool:
    # Spark takes [, { and * in a path as a pattern, and passes over files that begin with _ or .
    odd = any(set("[]{}*?\\%#") & set(file) or Path(file).name.startswith(("_", ".")) for file in files)
    return not odd and all(kind.removesuffix(" WITH TIME ZONE").partition("(")[0] in _SAME for kind in types.values())


def _differ(reader: duckdb.DuckDBPyConnection, names: str) -> bool:
    """Whether a column has another type in another file: DuckDB unites them, Spark refuses."""
    kind = "concat_ws(' ', type, converted_type, precision, scale, logical_type)"
    by_name = f"FROM parquet_schema({names}) WHERE num_children IS NULL GROUP BY name"
    return bool(reader.execute(f"SELECT name {by_name} HAVING count(DISTINCT {kind}) > 1").fetchall())


def _copy(reader: duckdb.DuckDBPyConnection, read: str, names: Iterable[str], written: Mapping[str, str], scratch: Path) -> str:
    """Write columns to a Parquet file, some `written` as another type, and give its path."""
    target = scratch / f"{uuid4().hex}.parquet"
    columns = ", ".join(
        quoted_name(name) + (f"::{written[name]} AS {quoted_name(name)}" if name in written else "") for name in names
    )
    reader.execute(f"COPY (FROM {read} SELECT {columns}) TO {quoted(str(target))} (FORMAT parquet)")
    return str(target)
