"""Sources: files and one SQL query that turns them into events."""

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import duckdb
import ibis.expr.types as ir
import sqlglot
from ibis.backends.duckdb import Backend
from ibis.backends.sql import SQLBackend

from features.contract import COLUMNS
from features.csv_files import csv_call, named, odd_line, other_types, refuse_no_header, texts_of, types_of
from features.engines import confine, engine_errors
from features.errors import BeforehandError, ConfigError, DataError, did_you_mean, first_line, listed
from features.expressions import DIALECT, passed_as, query, quoted_name, renamed
from features.spark_files import open_on_spark

PACKAGE = "package://"
_SUFFIXES = (".parquet", ".csv", ".csv.gz")
_TEXTS = frozenset(name for name, kind in COLUMNS.items() if kind == "string")


@dataclass(frozen=True)
class Source:
    """Named input: `tables` maps an alias to a path, glob or `package://` path; `sql` selects event columns from the aliases."""

    name: str
    tables: Mapping[str, str]
    sql: str


def read_sources(engine: SQLBackend, sources: Iterable[Source]) -> dict[str, ir.Table]:
    """Open every source and give its query's result as an expression, by source name.

    Nothing is read yet but CSV files, whose types every row may change, the headers of others, and for Spark what has to be copied
    (see `features.spark_files`). Every problem of every source is collected and raised at once: ConfigError when any SQL or pattern
    is wrong, else DataError when any file is missing, empty or not what its name says.
    """
    sources = list(sources)
    problems: list[BeforehandError] = []
    opened: dict[str, dict[str, list[str]]] = {}
    for source in sources:
        opened[source.name] = {}
        for alias, pattern in source.tables.items():
            try:
                opened[source.name][alias] = _files(pattern)
            except BeforehandError as error:
                problems.append(type(error)(f"sources.{source.name}.tables.{alias}: {error}"))
    queries: dict[str, str] = {}
    for source in sources:
        try:
            queries[source.name] = query(source.sql, source.tables)
        except ConfigError as error:
            problems.append(ConfigError(f"sources.{source.name}.sql: {error}"))
    results: dict[str, ir.Table] = {}
    if not problems:
        if isinstance(engine, Backend):
            confine(engine, [file for tables in opened.values() for files in tables.values() for file in files])
        for source in sources:
            try:
                # The aliases of two sources may be the same word for different files, so each becomes a view of its own.
                ids = passed_as(queries[source.name], _TEXTS)
                views = {alias: _open(engine, source, alias, files, ids) for alias, files in opened[source.name].items()}
                results[source.name] = _run(engine, source, renamed(queries[source.name], views), list(views.values()))
            except BeforehandError as error:
                problems.append(error)
    if problems:
        kind = ConfigError if any(isinstance(problem, ConfigError) for problem in problems) else DataError
        raise kind("\n".join(str(problem) for problem in problems))
    return results


def _run(engine: SQLBackend, source: Source, sql: str, views: Sequence[str]) -> ir.Table:
    try:
        columns = _columns(engine, sql)
        if repeated := sorted({name for name in columns if columns.count(name) > 1}):
            raise ConfigError(f"sources.{source.name}.sql gives {listed(repeated)} more than once: name each column once")
        return _result(engine, f"result of {source.name}", sql)
    except engine_errors() as error:
        said = first_line(error)
        # DuckDB lists near columns in lines of their own, Spark in the first one.
        unknown = re.search(r'(?:Referenced column|column named) "([^"]+)"', said)
        there = [column for view in views for column in engine.table(view).columns] if unknown else []
        told = f"{said.removesuffix('!')}: {did_you_mean(unknown[1], there)}" if unknown else said
        raise ConfigError(f"sources.{source.name}.sql: {told}") from None


def _result(engine: SQLBackend, view: str, sql: str) -> ir.Table:
    if not isinstance(engine, Backend):
        return engine.sql(sql, dialect=DIALECT)
    # Not `engine.sql`: Ibis 12.0 asks DuckDB for the types of a query by a method that DuckDB 2 took away.
    engine.raw_sql(f"CREATE OR REPLACE TEMP VIEW {quoted_name(view)} AS {sql}")
    return engine.table(view)


def _columns(engine: SQLBackend, sql: str) -> list[str]:
    if isinstance(engine, Backend):
        return [row[0] for row in engine.raw_sql(f"DESCRIBE {sql}").fetchall()]
    return list(engine.raw_sql(sqlglot.transpile(sql, read=DIALECT, write=engine.dialect)[0]).columns)


def _open(engine: SQLBackend, source: Source, alias: str, files: list[str], ids: set[str]) -> str:
    """Make a view over the files, of CSV files a table, and give its name."""
    view = f"{source.name}.{alias}"
    try:
        open_files = _view if isinstance(engine, Backend) else open_on_spark
        columns = open_files(engine, view, files, ids)
    except duckdb.Error as error:
        raise DataError(f"sources.{source.name}.tables.{alias}: {_told(error, files)}") from None
    except DataError as error:
        raise DataError(f"sources.{source.name}.tables.{alias}: {error}") from None
    if not columns:
        raise DataError(f"sources.{source.name}.tables.{alias}: {files[0]} has no columns")
    return view


def _told(error: duckdb.Error, files: Sequence[str]) -> str:
    said = first_line(error)
    if "not utf-8" in str(error).lower():
        said = "it is not in UTF-8; convert it, as `iconv -f latin1 -t utf-8` does"
    elif not files[0].endswith(".parquet") and (odd := odd_line(files)):
        return f"{odd}; mend that line, and if the first line names no columns, take it out"
    elif "sniffing" in str(error):
        said = "its lines do not make one table (line ends of two kinds, or an open quote)"
    ending = "check that the file is whole and its ending (.parquet, .csv or .csv.gz) is right"
    return f"{files[0]} is not what its name says: {said}; {ending}"


def _view(engine: Backend, view: str, files: list[str], ids: set[str]) -> Sequence[str]:
    name = quoted_name(view)
    if files[0].endswith(".parquet"):
        engine.raw_sql(f"CREATE OR REPLACE TEMP VIEW {name} AS FROM read_parquet({named(files)}, union_by_name = true)")
        return tuple(engine.table(view).columns)
    # A view would guess their types again at each look, so the rows are taken along.
    texts = texts_of(engine.raw_sql, files, ids)
    engine.raw_sql(f"CREATE TEMP TABLE {name} AS FROM {csv_call(files, texts)}")
    types = types_of(engine.raw_sql, name)
    refuse_no_header(files, types)
    others = other_types(engine.raw_sql, name, types, texts)
    if long := [column for column, kind in others.items() if kind == "VARCHAR"]:
        engine.raw_sql(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM {csv_call(files, [*texts, *long])}")
    for column in others.keys() - set(long):
        engine.raw_sql(f"ALTER TABLE {name} ALTER {quoted_name(column)} TYPE {others[column]}")
    return tuple(engine.table(view).columns)


def _files(pattern: str) -> list[str]:
    """Find the files a pattern names, absolute and sorted; raise where there is nothing that can be read."""
    path = _package_path(pattern) if pattern.startswith(PACKAGE) else pattern
    if not path.endswith(_SUFFIXES):
        raise ConfigError(f"{pattern!r} does not end in {listed(_SUFFIXES)}: these are the formats that can be read")
    # A file may have the letters of a pattern in its name.
    found = [path] if Path(path).is_file() else glob.glob(path, recursive=True)  # noqa: PTH207 - absolute patterns
    files = sorted(str(Path(file).resolve()) for file in found)
    if not files:
        folder = Path(path).parent
        nearby = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        hint = did_you_mean(Path(path).name, nearby) if nearby else f"the folder {folder.resolve()} does not exist or is empty"
        raise DataError(f"no file matches {pattern!r} (looked in {folder.resolve()}): {hint}")
    folders = [file for file in files if Path(file).is_dir()]
    if folders:
        raise DataError(f"{listed(folders)} is a folder: name the files in it, such as {folders[0]}/*{Path(path).suffix}")
    empty = [file for file in files if Path(file).stat().st_size == 0]
    if empty:
        raise DataError(f"{listed(empty)} is empty (0 bytes): write it again or take it out of the pattern")
    return files


def _package_path(pattern: str) -> str:
    package, _, inside = pattern.removeprefix(PACKAGE).partition("/")
    # find_spec on a top-level name locates the package without running any of its code.
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{pattern!r} names the package {package!r}, which is not installed: install it, or name a file instead")
    return str(Path(spec.submodule_search_locations[0]) / inside)
