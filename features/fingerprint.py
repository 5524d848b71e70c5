"""Fingerprint: one text that says what rows a table holds, whatever their order and whichever engine computes it."""

import hashlib
from datetime import datetime

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend
from ibis.backends.sql import SQLBackend

from features.cells import written

_EPOCH = datetime(1970, 1, 1)
_NULL, _NEXT = "\x1f", "\x1e"


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def md5_number_lower(text: str) -> int:  # type: ignore[empty-body]
    """Give the last eight bytes of the MD5 sum as a number (DuckDB's name; the lowest byte comes first)."""


@ibis.udf.scalar.builtin(name="conv")  # type: ignore[untyped-decorator]
def _converted(digits: str, base: int, to: int) -> str:  # type: ignore[empty-body]
    """Write a number in another base (Spark's name)."""


def fingerprint(engine: SQLBackend, table: ir.Table) -> str:
    """Give a digest of the rows of `table`, whose columns are text, numbers and instants.

    Every row becomes a number by MD5, which DuckDB and Spark both have; what does not depend on their order is kept of the numbers.
    """
    text = ibis.literal(_NEXT).join([ibis.coalesce(_plain(table[name]), ibis.literal(_NULL)) for name in table.columns])
    rows = table.select(key=md5_number(engine, text))
    # As text, since the sum is larger than any machine's integer.
    found = rows.agg(n=rows.count(), total=rows.key.sum(), low=rows.key.min(), high=rows.key.max())
    told = engine.execute(found.select([found[name].cast("string") for name in found.columns])).iloc[0]
    return hashlib.sha256("-".join(map(str, told)).encode()).hexdigest()[:32]


def _plain(column: ir.Column) -> ir.StringValue:
    if column.type().is_timestamp():
        return column.delta(ibis.literal(_EPOCH), unit="microsecond").cast("string")
    return written(column) if column.type().is_floating() else column.cast("string")


def md5_number(engine: SQLBackend, text: ir.StringValue) -> ir.Value:
    """Give the last eight bytes of a text's MD5 sum as a number from 0 to 2**64 - 1, on either engine."""
    if isinstance(engine, Backend):
        return md5_number_lower(text)
    digits = text.hexdigest("md5")
    lowest_first = ibis.literal("").join([digits.substr(place, 2) for place in range(30, 14, -2)])
    return _converted(lowest_first, 16, 10).cast("decimal(20, 0)")
