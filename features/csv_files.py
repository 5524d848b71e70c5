"""CSV files, of which the types are guessed: the same guesses for every engine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlglot import exp

from features.expressions import DIALECT, quoted

# Above, a float no longer tells whole numbers apart.
MOST_EXACT = 2**53
# What whole numbers beyond 64 bits are taken for; Parquet and other engines have none of these.
_WIDE = ("HUGEINT", "UHUGEINT", "BIGNUM")

Run = Callable[[str], Any]


def csv_call(files: Sequence[str], as_text: Sequence[str] = ()) -> str:
    """Write the call that reads CSV files with a header into one table, some columns `as_text`.

    Types are guessed from every row: from the first ones, an odd cell further down would stop the night.
    """
    kinds = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in as_text)
    types = f", types = {{{kinds}}}" if kinds else ""
    return f"read_csv({quoted(list(files))}, header = true, union_by_name = true, sample_size = -1{types})"


def types_of(run: Run, table: str) -> dict[str, str]:
    """Give the columns of a table (or a reading call, which guesses them from every row) with their types."""
    return {name: kind for name, kind, *_ in run(f"DESCRIBE FROM {table}").fetchall()}


def long_ids(run: Run, table: str, types: Mapping[str, str]) -> list[str]:
    """Name the columns of a table (or a reading call) that hold whole numbers too long for a float or for 64 bits.

    They are ids: read as text they stay apart. `run` executes SQL and gives a cursor.
    """
    floats, wide = ([name for name, kind in types.items() if kind in kinds] for kinds in (("DOUBLE",), _WIDE))
    if not floats:
        return wide
    columns = [exp.to_identifier(name, quoted=True).sql(DIALECT) for name in floats]
    known = [f"isfinite({column}) AND abs({column})" for column in columns]
    checks = [
        f"coalesce(bool_or({size} >= {MOST_EXACT}) AND bool_and({column} = floor({column})), false)"
        for column, size in zip(columns, known, strict=True)
    ]
    (found,) = run(f"SELECT {', '.join(checks)} FROM {table}").fetchall()  # noqa: S608 - quoted
    return wide + [name for name, is_long in zip(floats, found, strict=True) if is_long]
