"""Cells as they came, read in one way on every engine: what is a number, what is a time, and how a value is written as text.

Each engine's own cast takes more than what is meant: `5d` and `0x10` as numbers, `10:00` as a time of today. What is taken here
is written down as a pattern, and only what matches is cast.
"""

import sys

import ibis
import ibis.expr.types as ir

from features.errors import ConfigError

# Inside, amounts are decimals: a sum of floats depends on the order of the rows, and a rerun must give the same to the last digit.
EXACT = "decimal(18, 6)"
# Named where tables are united, since engines differ in the scale that they give their times.
INSTANT = "timestamp(6)"

_LARGEST = sys.float_info.max
_BLANK = "[ \t\r\n]*"
_NUMBER = f"^{_BLANK}[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?{_BLANK}$"
_ENDLESS = f"^{_BLANK}([nN][aA][nN]|[+-]?[iI][nN][fF]([iI][nN][iI][tT][yY])?){_BLANK}$"

_DATE = "[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
_DATE_OR_SLASHED = "[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"
_MINUTE = "([01]?[0-9]|2[0-3]):[0-5]?[0-9]"
_SECOND = ":[0-5]?[0-9]([.][0-9]{1,9})?"
# ISO 8601 readers take offsets up to 18 hours.
_OFFSET = "Z|[+-]((0[0-9]|1[0-7])(:?[0-5][0-9])?|18(:?00)?)"
_PLACE = " (UTC|GMT|[A-Z][A-Za-z_]+(/[A-Za-z0-9_+-]+)+)"
_PLAIN = f"^{_DATE_OR_SLASHED}([T ]{_MINUTE}({_SECOND})?)?$"
_ZONED = f"^{_DATE}[T ]{_MINUTE}{_SECOND}({_OFFSET}|{_PLACE})$"
_ZONED_MINUTE = f"^({_DATE}[T ]{_MINUTE})({_OFFSET})$"


def read_number(column: ir.Column) -> ir.FloatingValue:
    """Read numbers, or text that holds one, as float64; null for all else. `nan` and `inf` are read as such."""
    kind = column.type()
    if kind.is_string():
        return (column.re_search(_NUMBER) | column.re_search(_ENDLESS)).ifelse(column.try_cast("float64"), ibis.null("float64"))
    return column.try_cast("float64") if kind.is_numeric() or kind.is_boolean() else ibis.null("float64")


def read_text(column: ir.Column) -> ir.StringValue:
    """Read a value as text, and what says nothing as null: a blank, and a number that is none.

    As an order or an event id, such a text would tie strangers together.
    """
    text = written(column)
    says_nothing = text.strip() == ""
    if column.type().is_floating():
        says_nothing |= column.isnan()
    return says_nothing.ifelse(ibis.null("string"), text)


def read_instant(text: ir.StringColumn) -> ir.TimestampValue:
    """Read ISO 8601 text as a UTC instant (no zone): with an offset or the name of a zone as the instant it is, else as UTC.

    Null for all else. Each text is cast alone with those of its form: DuckDB carries the zone that one row names over to the
    following rows without one.
    """
    given = text.strip()
    zoned = "timestamp('UTC')"
    # An offset is only read after seconds.
    seconds = given.re_extract(_ZONED_MINUTE, 1) + ":00" + given.re_extract(_ZONED_MINUTE, 3)
    return ibis.cases(
        (given.re_search(_PLAIN), given.replace("/", "-").try_cast("timestamp(6)")),
        (given.re_search(_ZONED), given.try_cast(zoned).cast("timestamp(6)")),
        (given.re_search(_ZONED_MINUTE), seconds.try_cast(zoned).cast("timestamp(6)")),
        else_=ibis.null("timestamp(6)"),
    )


def is_day(text: ir.StringColumn) -> ir.BooleanValue:
    """Whether a text that `read_instant` reads is a date without a time."""
    return text.strip().re_search(f"^{_DATE_OR_SLASHED}$")


def refuse_no_time(column: ir.Column, gives: str) -> None:
    """Raise ConfigError for a column whose type cannot be meant as time: a number would be read as seconds since 1970."""
    kind = column.type()
    if not (kind.is_timestamp() or kind.is_date() or kind.is_string()):
        raise ConfigError(
            f"{gives} as {kind}: turn numbers into time in the SQL, for example with to_timestamp(seconds), "
            "epoch_ms(milliseconds) or strptime(cast(day as varchar), '%Y%m%d')"
        )


def exact(amount: ir.FloatingColumn) -> ir.DecimalValue:
    """Turn a float below 1e12 into a decimal with six places."""
    # Engines turn a float into a decimal in different ways; whole numbers, and millionths below one, all turn alike.
    whole = amount.floor()
    millionths = ((amount - whole) * 1e6).round()
    return (whole.cast("int64").cast(EXACT) + (millionths / 1e6).cast(EXACT)).cast(EXACT)


def written(column: ir.Column) -> ir.StringValue:
    """Write a value as text; floats, such as ids that a file holds as numbers, in the same way on every engine.

    A whole number is written as one, whatever its type: the ids of a column with gaps are floats in many files. Where engines
    differ in when they write an exponent, a fraction is written with six places.
    """
    if not column.type().is_floating():
        return column.cast("string")
    size = column.abs()
    told = column.cast("string")
    return ibis.cases(
        (column.isnan(), "nan"),
        # Not isinf(): what Ibis makes of it for Spark is never true.
        (size > _LARGEST, (column > 0).ifelse("inf", "-inf")),
        ((size < 1e18) & (column == column.floor()), column.try_cast("int64").cast("string")),
        (size.between(1e7, 1e11) | size.between(1e-4, 1e-3), exact(column).cast("string")),
        (size.between(1e-3, 1e7), told),
        else_=told.lower().replace("+", "").replace(".0e", "e").replace("e-0", "e-"),
    )
