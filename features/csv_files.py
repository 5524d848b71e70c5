"""CSV files, of which the types are guessed: the same guesses for every engine, and none that would lose or change a cell."""

import glob
import gzip
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import duckdb

from features.errors import DataError
from features.expressions import quoted, quoted_name

# Above, a float no longer tells whole numbers apart.
MOST_EXACT = 2**53
# What whole numbers beyond 64 bits are taken for; Parquet and other engines have none of these.
_WIDE = ("HUGEINT", "UHUGEINT", "BIGNUM")
_NUMBERS = ("BIGINT", "DOUBLE")

# No header is longer; what is none may have no end.
_LONGEST = 1_000_000
_DELIMITERS = ",;\t|"
# How whole numbers are written that are no other id as text, by the type that holds them; programs write floats with zeros behind.
_PLAIN = {"DOUBLE": r"(0|-?[1-9]\d{0,14})(\.0+)?", "BIGINT": r"0|-?[1-9]\d*"}
# As many as DuckDB looks at unless it is told otherwise.
_SOME = 20_480
_LIKE_A_TIME = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?!\d)")

Run = Callable[[str], Any]


def named(files: Sequence[str]) -> str:
    """Write a list of files as DuckDB's SQL has it: those that are named, also where a name has letters of a pattern."""
    return quoted([glob.escape(file) for file in files])


def csv_call(files: Sequence[str], as_text: Collection[str] = (), *, rows: int = -1) -> str:
    """Write the call that reads CSV files with a header into one table, some columns `as_text`.

    Types are guessed from every row, unless it is told how many: from the first ones, an odd cell further down would stop the
    night. What a guess could get wrong without anyone seeing it is not left to one: the first line is the header, whatever lines
    look more alike; no line is a comment; and dates are read as ISO 8601 has them, since 03/01/2024 is in January in some files and
    in March in others.

    Raises DataError where the first lines of the files have different delimiters, or are in UTF-16.
    """
    kinds = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in as_text)
    types = f", types = {{{kinds}}}" if kinds else ""
    return (
        f"read_csv({named(files)}, header = true, skip = 0, delim = {quoted(_delimiter(files))}, comment = '', "
        f"dateformat = '%Y-%m-%d', union_by_name = true, sample_size = {rows}{types})"
    )


def types_of(run: Run, table: str) -> dict[str, str]:
    """Give the columns of a table (or a reading call, which guesses them from every row) with their types."""
    return {name: kind for name, kind, *_ in run(f"DESCRIBE FROM {table}").fetchall()}


def refuse_no_header(files: Sequence[str], types: Mapping[str, str]) -> None:
    """Raise DataError where the first line of a file, which names the columns, holds a time as the other lines do.

    A column of numbers may be named by a day: that is how spreadsheets are turned around.
    """
    for name in (name for name, kind in types.items() if _LIKE_A_TIME.match(name) and kind not in _NUMBERS):
        file = next((file for file in files if name in _first_line(file)), files[0])
        raise DataError(f"{file} has no header: its first line holds a time; write a line with the names of the columns above it")


def texts_of(run: Run, files: Sequence[str], ids: Collection[str]) -> list[str]:
    """Name the columns of the files that are among `ids` (lower case), whose cells must stay as they are written."""
    # Some rows tell the names.
    return [name for name in types_of(run, csv_call(files, rows=_SOME)) if name.lower() in ids]


def other_types(run: Run, table: str, types: Mapping[str, str], texts: Collection[str]) -> dict[str, str]:
    """Give the columns of a table (or a reading call) that have to be of another type than they are read as (`types`).

    Whole numbers too long for a float or for 64 bits are ids: as text they stay apart. Of the columns that were read as `texts`,
    those are numbers that hold nothing but whole ones in the one way of writing them: 10.10 and 10.1, or 0x1a and 26, are two ids
    and one number. `run` executes SQL and gives a cursor.
    """
    found = {name: "VARCHAR" for name, kind in types.items() if kind in _WIDE}
    checks: dict[tuple[str, str], str] = {}
    for name, kind in types.items():
        column = quoted_name(name)
        if kind == "DOUBLE":
            size = f"isfinite({column}) AND abs({column})"
            checks[name, "VARCHAR"] = f"bool_or({size} >= {MOST_EXACT}) AND bool_and({column} = floor({column}))"
        elif name in texts:
            # The last that holds decides.
            for number, form in _PLAIN.items():
                fits = f"count(TRY_CAST({column} AS {number})) = count({column})"
                checks[name, number] = f"bool_and(regexp_full_match({column}, '{form}')) AND {fits}"
    if checks:
        asked = ", ".join(f"coalesce({check}, false)" for check in checks.values())
        (met,) = run(f"SELECT {asked} FROM {table}").fetchall()  # noqa: S608 - quoted
        found |= dict(told for told, is_met in zip(checks, met, strict=True) if is_met)
    return found


def odd_line(files: Sequence[str]) -> str | None:
    """Say which line of which file cannot be a row under its first line, or None where no line alone is at fault."""
    delimiter = _delimiter(files)
    with duckdb.connect() as reader:
        for file in files:
            cells = 1 + _outside_quotes(file).count(delimiter)
            columns = ", ".join(f"c{place}: 'VARCHAR'" for place in range(cells))
            form = f"header = true, delim = {quoted(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}}"
            try:
                reader.execute(f"SELECT count(*) FROM read_csv({named([file])}, auto_detect = false, {form})")  # noqa: S608 - quoted
            except duckdb.Error as error:
                said = str(error)
                line = re.search(r"on Line: (\d+)", said)
                if line and "unterminated quote" in said:
                    return f"{file}: line {line[1]} opens a quote that is not closed"
                if line and "Number of Columns" in said:
                    are = "is one column" if cells == 1 else f"are {cells} columns"
                    return f"{file}: line {line[1]} has fewer or more cells than there {are} in its first line"
    return None


def _delimiter(files: Sequence[str]) -> str:
    """Give what stands most often between the names in the first lines, outside quotes."""
    found: dict[str, str] = {}
    for file in files:
        bare = _outside_quotes(file)
        if any(letter in bare for letter in _DELIMITERS):
            found.setdefault(max(_DELIMITERS, key=bare.count), file)
    if len(found) > 1:
        (one, file), (other, another), *_ = found.items()
        raise DataError(f"{file} has {one!r} between its columns, {another} {other!r}: give each kind of file an alias of its own")
    return next(iter(found), ",")


def _outside_quotes(file: str) -> str:
    return re.sub(r'"[^"]*"', "", _first_line(file))


def _first_line(file: str) -> str:
    opened = gzip.open if file.endswith(".gz") else open
    try:
        with opened(file, "rt", encoding="utf-8", errors="replace") as lines:
            line = str(lines.readline(_LONGEST)).rstrip("\r\n")
    except (OSError, EOFError):
        # Whoever reads the whole file says what is wrong with it.
        return ""
    if "\0" in line:
        raise DataError(f"{file} is no text in UTF-8; if it is in UTF-16, convert it, as `iconv -f utf-16 -t utf-8` does")
    return line
