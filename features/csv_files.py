"""CSV files, of which the types are guessed: the same guesses for every engine, and none that would lose or change a cell."""

import csv
import glob
import gzip
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import duckdb
from sqlglot import exp

from features.errors import DataError
from features.expressions import DIALECT, quoted

# Above, a float no longer tells whole numbers apart.
MOST_EXACT = 2**53
# What whole numbers beyond 64 bits are taken for; Parquet and other engines have none of these.
_WIDE = ("HUGEINT", "UHUGEINT", "BIGNUM")
_NUMBERS = ("BIGINT", "DOUBLE")

_DELIMITERS = ",;\t|"
# Whole numbers that a float holds, with the zeros that a program may write behind them: as text they would be other ids elsewhere.
_PLAIN_ID = r"(0|-?[1-9]\d{0,14})(\.0+)?"
_LIKE_A_TIME = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?!\d)")

Run = Callable[[str], Any]


def named(files: Sequence[str]) -> str:
    """Write a list of files as DuckDB's SQL has it: those that are named, also where a name has letters of a pattern."""
    return quoted([glob.escape(file) for file in files])


def csv_call(files: Sequence[str], as_text: Collection[str] = ()) -> str:
    """Write the call that reads CSV files with a header into one table, some columns `as_text`.

    Types are guessed from every row: from the first ones, an odd cell further down would stop the night. What a guess could get
    wrong without anyone seeing it is not left to one: the first line is the header, whatever lines look more alike; no line is
    a comment; and dates are read as ISO 8601 has them, since 03/01/2024 is in January in some files and in March in others.

    Raises DataError where the first lines of the files have different delimiters.
    """
    kinds = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in as_text)
    types = f", types = {{{kinds}}}" if kinds else ""
    return (
        f"read_csv({named(files)}, header = true, skip = 0, delim = {quoted(_delimiter(files))}, comment = '', "
        f"dateformat = '%Y-%m-%d', union_by_name = true, sample_size = -1{types})"
    )


def types_of(run: Run, table: str) -> dict[str, str]:
    """Give the columns of a table (or a reading call, which guesses them from every row) with their types."""
    return {name: kind for name, kind, *_ in run(f"DESCRIBE FROM {table}").fetchall()}


def refuse_no_header(file: str, types: Mapping[str, str]) -> None:
    """Raise DataError where the first line, which names the columns, holds a time as the other lines do.

    A column of numbers may be named by a day: that is how spreadsheets are turned around.
    """
    if any(_LIKE_A_TIME.match(name) and kind not in _NUMBERS for name, kind in types.items()):
        raise DataError(f"{file} has no header: its first line holds a time; write a line with the names of the columns above it")


def long_ids(run: Run, table: str, types: Mapping[str, str]) -> list[str]:
    """Name the columns of a table (or a reading call) that hold whole numbers too long for a float or for 64 bits.

    They are ids: read as text they stay apart. `run` executes SQL and gives a cursor.
    """
    floats, wide = ([name for name, kind in types.items() if kind in kinds] for kinds in (("DOUBLE",), _WIDE))
    known = {name: f"isfinite({_column(name)}) AND abs({_column(name)})" for name in floats}
    checks = {
        name: f"bool_or({size} >= {MOST_EXACT}) AND bool_and({_column(name)} = floor({_column(name)}))"
        for name, size in known.items()
    }
    return wide + _found(run, table, checks)


def rewritten_ids(run: Run, files: Sequence[str], types: Mapping[str, str], ids: Collection[str]) -> list[str]:
    """Name those of the columns `ids` (lower case) that are numbers of which a cell is written in another way than the number is.

    10.10 and 10.1, or 0x1a and 26, are two ids and one number: read as text they stay apart, and are found again elsewhere.
    """
    checks = {
        name: f"bool_or(trim({_column(name)}) <> TRY_CAST({_column(name)} AS {kind})::VARCHAR "
        f"AND NOT regexp_full_match(trim({_column(name)}), '{_PLAIN_ID}'))"
        for name, kind in types.items()
        if name.lower() in ids and kind in _NUMBERS
    }
    return _found(run, csv_call(files).removesuffix(")") + ", all_varchar = true)", checks)


def odd_line(files: Sequence[str]) -> str | None:
    """Say which line of which file cannot be a row under its first line, or None where no line alone is at fault."""
    delimiter = quoted(_delimiter(files))
    with duckdb.connect() as reader:
        for file in files:
            (names,) = csv.reader([_first_line(file)], delimiter=_delimiter([file]))
            columns = ", ".join(f"c{place}: 'VARCHAR'" for place in range(len(names)))
            form = f"header = true, delim = {delimiter}, quote = '\"', escape = '\"', columns = {{{columns}}}"
            try:
                reader.execute(f"SELECT count(*) FROM read_csv({named([file])}, auto_detect = false, {form})")  # noqa: S608 - quoted
            except duckdb.Error as error:
                said = str(error)
                line = re.search(r"on Line: (\d+)", said)
                if line and "unterminated quote" in said:
                    return f"{file}: line {line[1]} opens a quote that is not closed"
                if line and "Number of Columns" in said:
                    are = "is one column" if len(names) == 1 else f"are {len(names)} columns"
                    return f"{file}: line {line[1]} has fewer or more cells than there {are} in its first line"
    return None


def _delimiter(files: Sequence[str]) -> str:
    """Give what stands most often between the names in the first lines, outside quotes."""
    found: dict[str, str] = {}
    for file in files:
        bare = re.sub(r'"[^"]*"', "", _first_line(file))
        if any(letter in bare for letter in _DELIMITERS):
            found.setdefault(max(_DELIMITERS, key=bare.count), file)
    if len(found) > 1:
        (one, file), (other, another), *_ = found.items()
        raise DataError(f"{file} has {one!r} between its columns, {another} {other!r}: give each kind of file an alias of its own")
    return next(iter(found), ",")


def _first_line(file: str) -> str:
    opened = gzip.open if file.endswith(".gz") else open
    try:
        with opened(file, "rt", encoding="utf-8", errors="replace") as lines:
            return str(lines.readline()).rstrip("\r\n")
    except (OSError, EOFError):
        # Whoever reads the whole file says what is wrong with it.
        return ""


def _found(run: Run, table: str, checks: Mapping[str, str]) -> list[str]:
    if not checks:
        return []
    asked = ", ".join(f"coalesce({check}, false)" for check in checks.values())
    (met,) = run(f"SELECT {asked} FROM {table}").fetchall()  # noqa: S608 - quoted
    return [name for name, is_met in zip(checks, met, strict=True) if is_met]


def _column(name: str) -> str:
    return exp.to_identifier(name, quoted=True).sql(DIALECT)
