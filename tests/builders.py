"""Tiny literal builders: events as terse rows, an engine that holds them, the tables built from them, a CSV to read them from."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from ibis.backends.sql import SQLBackend

from features.build import build_features
from features.contract import COLUMNS, EARLIEST, PURCHASE, Bounds, accepted
from features.declare import FeatureSet, Wanted, declared, reads
from features.engines import connect, keep
from features.snapshot import KEYS
from features.spark import connect_spark

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


def open_engine(spill: Path | None = None, *, kind: Literal["duckdb", "spark"] = "duckdb") -> SQLBackend:
    """Open an engine of a test's size; close it with `close_engine`. On Spark it is a session of one application per process."""
    if kind == "duckdb":
        return connect(memory="512MB", threads=1, spill=spill or Path(tempfile.gettempdir(), "spill"))
    assert kind == "spark", kind
    # Two workers in processes of their own, as on a cluster: what cannot be sent to an executor fails here.
    # Tests ask many small questions: Java compiles each of them fast rather than well.
    java = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    small = {
        "spark.sql.shuffle.partitions": "2",
        "spark.default.parallelism": "2",
        "spark.driver.extraJavaOptions": java,
        "spark.executor.extraJavaOptions": java,
    }
    folder = Path(tempfile.gettempdir(), "beforehand-tests")
    return connect_spark(master="local-cluster[2,1,1024]", memory="1GB", options=small, spill=folder)


def close_engine(engine: SQLBackend) -> None:
    """Close an engine; of Spark only what it keeps, since the application serves all tests."""
    if isinstance(engine, Backend):
        engine.disconnect()
    else:
        engine.raw_sql("CLEAR CACHE")


def load(engine: SQLBackend, table: pa.Table) -> ir.Table:
    """Give a table as the engine reads it from a file, nulls, NaN and types as they are."""
    if isinstance(engine, Backend):
        return ibis.memtable(table)
    path = Path(tempfile.mkdtemp(), "table.parquet")
    pq.write_table(table, path)
    return engine.read_parquet(path)


def load_events(engine: SQLBackend, frame: pd.DataFrame, *, zone: str = "UTC", as_of: datetime = FAR) -> ir.Table:
    """Make the frame the engine's accepted `events` table: those before `as_of`, with `local_ts` in `zone`."""
    judged = load(engine, arrow(frame)).mutate(broken=ibis.null("string"))
    since = frame.event_ts.min().to_pydatetime() if len(frame) else EARLIEST
    return keep(engine, accepted(judged, Bounds(as_of, timedelta(0)), zone=zone, since=since), "events")


def feature_table(
    frame: pd.DataFrame,
    *cutoffs: datetime,
    zone: str = "UTC",
    windows: Sequence[timedelta] = WINDOWS,
    only: Sequence[str] = (),
    kind: Literal["duckdb", "spark"] = "duckdb",
) -> pd.DataFrame:
    """Build every declared feature (`only` some is faster) in an engine of its own, indexed by user and cutoff, in order."""
    asked = declared(Wanted(tuple(windows)), COLUMNS)
    if only:
        asked = _narrowed(asked, only)
    engine = open_engine(kind=kind)
    try:
        built = engine.execute(build_features(engine, load_events(engine, frame, zone=zone), asked, cutoffs))
    finally:
        close_engine(engine)
    return built.set_index(KEYS).sort_index()


def _narrowed(asked: FeatureSet, only: Sequence[str]) -> FeatureSet:
    """Leave out every feature but these and, hidden, what they read."""
    read_by = reads(asked)
    needed = set(only)
    while more := {name for known in needed for name in read_by.get(known, ())} - needed:
        needed |= more
    features = tuple(feature for feature in asked.built if feature.name in only)
    hidden = tuple(feature for feature in asked.built if feature.name in needed - set(only))
    return replace(asked, features=features, hidden=hidden)


def write_csv(path: Path, frame: pd.DataFrame) -> Path:
    """Write a frame as CSV, without the columns that hold nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.dropna(axis="columns", how="all").to_csv(path, index=False)
    return path
