"""Tiny literal builders: events as terse rows, an engine that holds them, the tables built from them, a CSV to read them from."""

import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
from ibis.backends.duckdb import Backend

from features.build import build_features
from features.contract import COLUMNS, EARLIEST, PURCHASE, Bounds, accepted
from features.engines import connect
from features.families import declared
from features.moments import merge_moments
from features.snapshot import KEYS

FAR = datetime(2030, 1, 1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TICK = timedelta(microseconds=1)
WINDOWS = (7 * DAY, 14 * DAY, 28 * DAY)

_SHORT = ("user_id", "event_ts", "amount", "event_type")
_SCHEMA = ibis.schema(dict(COLUMNS)).to_pyarrow()

Row = tuple[object, ...] | Mapping[str, object]


def at(text: str) -> datetime:
    """Read a UTC instant: `at("2024-03-01 10:00")`."""
    return datetime.fromisoformat(text)


def events(*rows: Row) -> pd.DataFrame:
    """Give a row per event, a purchase unless it says otherwise: `("ann", "2024-03-01", 5.0, "visit")` or a dict of columns."""
    filled = [row if isinstance(row, Mapping) else dict(zip(_SHORT, row, strict=False)) for row in rows]
    frame = pd.DataFrame([{"event_type": PURCHASE, **row} for row in filled], columns=list(COLUMNS), dtype=object)
    return frame.assign(event_ts=pd.to_datetime(frame.event_ts, format="ISO8601").astype("datetime64[us]"))


def arrow(frame: pd.DataFrame) -> pa.Table:
    """Give a frame of events the types of the contract."""
    return pa.Table.from_pandas(frame, schema=_SCHEMA, preserve_index=False)


def open_engine(spill: Path | None = None) -> Backend:
    """Open an engine of a test's size; the fixture `engine` closes its own."""
    return connect(memory="512MB", threads=1, spill=spill or Path(tempfile.gettempdir(), "spill"))


def load_events(engine: Backend, frame: pd.DataFrame, *, zone: str = "UTC", as_of: datetime = FAR) -> ir.Table:
    """Make the frame the engine's accepted `events` table: those before `as_of`, with `local_ts` in `zone`."""
    judged = ibis.memtable(arrow(frame)).mutate(broken=ibis.null("string"))
    since = frame.event_ts.min().to_pydatetime() if len(frame) else EARLIEST
    good = accepted(judged, Bounds(as_of, timedelta(0)), zone=zone, since=since)
    return engine.create_table("events", good, temp=True)


def feature_table(
    frame: pd.DataFrame,
    *cutoffs: datetime,
    zone: str = "UTC",
    windows: Sequence[timedelta] = WINDOWS,
    only: Sequence[str] = (),
) -> pd.DataFrame:
    """Build every declared feature (`only` some is faster) in an engine of its own, indexed by user and cutoff, in order."""
    features = declared(windows, COLUMNS)
    asked = [feature for feature in features if feature.name in only]
    alone = asked and all(feature.base != "row" for feature in asked)  # the base `row` reads other features
    engine = open_engine()
    try:
        moments = merge_moments(engine, load_events(engine, frame, zone=zone))
        built = build_features(moments, asked if alone else features, cutoffs).execute()
    finally:
        engine.disconnect()
    return built.set_index(KEYS).sort_index()


def write_csv(path: Path, frame: pd.DataFrame) -> Path:
    """Write a frame as CSV, without the columns that hold nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.dropna(axis="columns", how="all").to_csv(path, index=False)
    return path
