"""The event contract: which columns an event may have, and which rows break it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
from ibis import _

from features.cells import exact, is_day, read_instant, read_number, read_text, refuse_no_time, written
from features.csv_files import MOST_EXACT
from features.errors import ConfigError, did_you_mean, listed
from features.local_time import local_time

REQUIRED: Mapping[str, str] = {"user_id": "string", "event_ts": "timestamp(6)", "event_type": "string"}
OPTIONAL: Mapping[str, str] = {
    "event_id": "string",
    "session_id": "string",
    "order_id": "string",
    "amount": "float64",
    "quantity": "float64",
    "discount": "float64",
    "item_id": "string",
    "category": "string",
    "brand": "string",
    "channel": "string",
    "device": "string",
    "source": "string",
    "campaign": "string",
    "region": "string",
    "utc_offset_minutes": "int64",
}
COLUMNS: Mapping[str, str] = {**REQUIRED, **OPTIONAL}

LARGEST = 1e11
# ISO 8601 readers take offsets up to 18 hours; no place on Earth needs more than 14.
LARGEST_OFFSET = 18 * 60

SQL_TYPES: Mapping[str, str] = {"string": "VARCHAR", "timestamp(6)": "TIMESTAMP", "float64": "DOUBLE", "int64": "BIGINT"}

PURCHASE = "purchase"
EARLIEST = datetime(1990, 1, 1)
# What programs write where there is nothing: taken for an id, it would be one user who does what all strangers do.
_NOBODY = ("nan", "none", "null", "nat", "<na>")


@dataclass(frozen=True)
class Bounds:
    """What times are possible on one night.

    Events before 1990 are never real. Events at or after `as_of` have not happened yet on that night and are left alone; beyond
    `as_of + max_future` they are wrong whichever night reads them.
    """

    as_of: datetime
    max_future: timedelta


def conform(raw: ir.Table, source: str) -> ir.Table:
    """Cast a source's rows to the contract's columns; rows that cannot be cast keep what came (JSON) and what is wrong with it.

    Gives every column of the contract (null where the source has none), `source_name`, `broken` (a reason, or null) and `came_as`.
    Time: strings and zoned timestamps become UTC; a timestamp without a zone is taken as UTC. A date, also one in text, is midnight
    UTC of that day, and that day in local time: in no zone is it known earlier.

    Raises ConfigError when a required column is missing, a column is not an event column, or a type cannot be meant.
    """
    missing = [name for name in REQUIRED if name not in raw.columns]
    if missing:
        raise ConfigError(
            f"sources.{source}.sql gives no column {listed(missing)}: an event needs {listed(REQUIRED)}; "
            f"the query gives {listed(raw.columns, most=20)}"
        )
    for name in raw.columns:
        if name not in COLUMNS:
            raise ConfigError(f"sources.{source}.sql gives {name!r}, which is not an event column: {did_you_mean(name, COLUMNS)}")
    refuse_no_time(raw.event_ts, f"sources.{source}.sql gives event_ts")
    cast = {name: _cast(raw[name], kind) if name in raw.columns else ibis.null(kind) for name, kind in COLUMNS.items()}
    if raw.event_ts.type().is_date():
        cast["utc_offset_minutes"] = ibis.coalesce(cast["utc_offset_minutes"], 0)
    elif raw.event_ts.type().is_string():
        offset = cast["utc_offset_minutes"]
        cast["utc_offset_minutes"] = (offset.isnull() & is_day(raw.event_ts)).ifelse(0, offset)
    unreadable = [
        (_is_given(raw[name]) & cast[name].isnull(), f"{name} is not a number")
        for name, kind in OPTIONAL.items()
        if name in raw.columns and dt.dtype(kind).is_numeric()
    ]
    endless = [
        (cast[name].isnan() | (cast[name].abs() >= LARGEST), f"{name} is not a finite number below {LARGEST:.0e}")
        for name, kind in OPTIONAL.items()
        if name in raw.columns and kind == "float64"
    ]
    broken = ibis.cases(
        (cast["user_id"].isnull(), "user_id is missing"),
        (cast["user_id"].lower().isin(_NOBODY), "user_id is the text of a missing value, such as nan"),
        (raw["event_ts"].isnull(), "event_ts is missing"),
        (cast["event_ts"].isnull(), "event_ts is not a time"),
        (cast["event_type"].isnull(), "event_type is missing"),
        # In this order, since Ibis lets Spark take a NaN for a null.
        *endless,
        *inexact(raw, [name for name in raw.columns if name.endswith("_id")]),
        *unreadable,
        (cast["utc_offset_minutes"].abs() > LARGEST_OFFSET, "utc_offset_minutes is beyond 18 hours"),
        else_=ibis.null("string"),
    )
    typed = raw.select(**cast, source_name=ibis.literal(source), came_as=as_json(raw, raw.columns), broken=broken)
    return typed.mutate(came_as=typed.broken.notnull().ifelse(typed.came_as, ibis.null("string")))


def judge(conformed: ir.Table, bounds: Bounds, *, has_ids: bool) -> ir.Table:
    """Complete `broken` with what only all sources together and the night's date can tell: impossible times, repeated ids.

    Gives the contract's columns, `source_name`, `broken`, and for broken rows `row`, the row as it came (JSON).
    `has_ids` says whether any source gives `event_id`.
    """
    latest = bounds.as_of + bounds.max_future
    impossible = ibis.cases(
        (conformed.event_ts < ibis.literal(EARLIEST), "event_ts is before 1990"),
        (conformed.event_ts >= ibis.literal(latest), "event_ts is after as_of + contract.max_future"),
        else_=ibis.null("string"),
    )
    judged = conformed.mutate(broken=ibis.coalesce(conformed.broken, impossible))
    if has_ids:
        judged = judged.mutate(broken=_repeated(judged).ifelse(ibis.literal("event_id was seen before"), judged.broken))
    row = judged.broken.notnull().ifelse(ibis.coalesce(judged.came_as, as_json(judged, COLUMNS)), ibis.null("string"))
    return judged.select(*COLUMNS, "source_name", "broken", row=row)


def inexact(raw: ir.Table, ids: Iterable[str]) -> Iterator[tuple[ir.BooleanValue, str]]:
    """Give the cases in which an id is a float of so many digits that it may be that of several."""
    for name in ids:
        if raw[name].type().is_floating():
            is_long = ~raw[name].isnan() & (raw[name].abs() >= MOST_EXACT)
            yield is_long, f"{name} is a number of too many digits to be exact; let the source give text"


def _repeated(judged: ir.Table) -> ir.BooleanValue:
    # Of the rows that share an event_id the earliest stays; the other columns settle ties, so input order never matters.
    order = [judged[name] for name in ("event_ts", "source_name", *COLUMNS) if name != "event_id"]
    # Rows without an id would be one huge group for one worker.
    spread = judged.event_id.isnull().ifelse(judged.event_ts, ibis.null("timestamp"))
    turn = ibis.row_number().over(ibis.window(group_by=[judged.event_id, judged.broken.isnull(), spread], order_by=order))
    return judged.event_id.notnull() & judged.broken.isnull() & (turn > 0)


def as_json(table: ir.Table, names: Iterable[str]) -> ir.StringValue:
    """Write some columns of each row as one JSON object, alike on every engine."""
    return ibis.struct({name: _in_json(table[name]) for name in names}).cast("json").cast("string")


def _in_json(column: ir.Column) -> ir.Value:
    # Floats go in as text: JSON has no way to write the NaN or infinity that a row may be rejected for.
    if column.type().is_floating():
        return written(column)
    # Engines differ in how they write times in JSON, and not in how they cast them.
    if column.type().is_timestamp():
        return column.cast(REQUIRED["event_ts"]).cast("string")
    return column.cast("string") if column.type().is_temporal() else column


def accepted(judged: ir.Table, bounds: Bounds, *, zone: str, since: datetime) -> ir.Table:
    """Give the good events before `as_of`, amounts as exact decimals, with `local_ts`: the wall-clock time of the user.

    That is event_ts moved by the event's own utc_offset_minutes, else to `zone`; `since` is an instant before all events.
    """
    events = judged.filter(_.broken.isnull(), _.event_ts < ibis.literal(bounds.as_of))
    by_zone = local_time(events.event_ts, zone, since=since, until=bounds.as_of)
    by_offset = events.event_ts + events.utc_offset_minutes.as_interval("m")
    columns = [exact(events[name]).name(name) if kind == "float64" else events[name] for name, kind in COLUMNS.items()]
    return events.select(*columns, local_ts=ibis.coalesce(by_offset, by_zone))


def _is_given(column: ir.Column) -> ir.BooleanValue:
    return column.notnull() | column.isnan() if column.type().is_floating() else column.notnull()


def _cast(column: ir.Column, kind: str) -> ir.Value:
    if kind == "string":
        return read_text(column)
    if kind == REQUIRED["event_ts"]:
        return read_instant(column) if column.type().is_string() else column.cast(kind)
    number = read_number(column)
    return number if kind == "float64" else (number.abs() < LARGEST).ifelse(number, ibis.null("float64")).round()
