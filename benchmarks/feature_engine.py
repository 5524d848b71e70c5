"""Measure the feature engine on simulated logs: `python benchmarks/feature_engine.py`; writes below output/benchmarks.

Every figure is taken in a process of its own, so that its peak memory is its own; what is compared runs in turns.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from rich.console import Console

from features.build import build_features
from features.contract import COLUMNS, SQL_TYPES
from features.custom import Custom
from features.declare import FeatureSet, Wanted, declared
from features.engines import bytes_of, connect, keep
from features.expressions import query, renamed
from pipeline.frames import shards_of
from pipeline.progress import Narrator
from pipeline.settings import FeatureSettings, read_settings
from pipeline.simulate import simulate

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "output" / "benchmarks"
START, DAYS = date(2024, 1, 1), 365
CUTOFF = datetime(2024, 12, 28)
USERS_PER_MILLION_EVENTS = 22_300
THREADS = 2
DAY = timedelta(days=1)
EIGHT = tuple(days * DAY for days in (7, 14, 28, 56, 84, 112, 168, 336))
TYPES = ("view", "cart", "checkout", "purchase", "return")


def shop_of(million: int, narrator: Narrator) -> Path:
    """Simulate a shop of so many million events, once."""
    shop = OUTPUT / f"shop_{million}m"
    if not shop.exists():
        simulate(shop, narrator, users=million * USERS_PER_MILLION_EVENTS, days=DAYS, seed=7, start=START, jobs=THREADS)
    return shop


def log_of(million: int) -> Path:
    """Bring the log of a shop of so many million events into the contract's columns, in the order the shop wrote it."""
    path = OUTPUT / f"events_{million}m.parquet"
    if path.exists():
        return path
    narrator = Narrator(Console(stderr=True))
    shop = shop_of(million, narrator)
    types = {**SQL_TYPES, "float64": "DECIMAL(18, 6)"}
    parts = []
    bounds = {"threads": THREADS, "memory_limit": "6GB"}
    with narrator.step("writing the log"), duckdb.connect(config=bounds) as engine:
        engine.execute("SET enable_progress_bar = false")
        engine.execute(f"SET temp_directory = '{OUTPUT / 'spill'}'")
        for source in read_settings(ROOT / "configs" / "clickstream.yaml").sources:
            for alias, pattern in source.tables.items():
                files = pattern.replace("data/clickstream", str(shop))
                engine.execute(f"CREATE VIEW \"{source.name}.{alias}\" AS FROM read_parquet('{files}')")
            sql = renamed(query(source.sql, source.tables), {alias: f"{source.name}.{alias}" for alias in source.tables})
            given = {row[0] for row in engine.execute(f"DESCRIBE {sql}").fetchall()}
            columns = (f"{name if name in given else 'NULL'}::{types[kind]} AS {name}" for name, kind in COLUMNS.items())
            parts.append(f"SELECT {', '.join(columns)} FROM ({sql})")
        local = "event_ts + to_minutes(coalesce(utc_offset_minutes, 0)) AS local_ts"
        unfinished = path.with_suffix(".unfinished")
        engine.execute(f"COPY (SELECT *, {local} FROM ({' UNION ALL '.join(parts)})) TO '{unfinished}' (FORMAT parquet)")
        unfinished.rename(path)
    return path


def by_time(path: Path) -> Path:
    """Give the log in order of time, as one that grows day by day; the shop writes some thousand users after another."""
    ordered = path.with_stem(f"{path.stem}_by_time")
    if not ordered.exists():
        with duckdb.connect(config={"threads": THREADS, "memory_limit": "8GB"}) as engine:
            engine.execute(f"SET temp_directory = '{OUTPUT / 'spill'}'")
            unfinished = ordered.with_suffix(".unfinished")
            engine.execute(f"COPY (FROM '{path}' ORDER BY event_ts) TO '{unfinished}' (FORMAT parquet)")
            unfinished.rename(ordered)
    return ordered


def eighty() -> FeatureSet:
    """Eighty features: the count and the amount of five event types in eight windows."""
    told = {"unit": "times", "meaning": "measured", "phrase": "{value}", "group": "measured", "windows": EIGHT}
    custom = [Custom(name=f"{kind}_n", sql=f"count(*) filter (where event_type = '{kind}')", **told) for kind in TYPES]
    custom += [Custom(name=f"{kind}_sum", sql=f"sum(amount) filter (where event_type = '{kind}')", **told) for kind in TYPES]
    return declared(Wanted(EIGHT, families=(), custom=tuple(custom)), COLUMNS)


def default() -> FeatureSet:
    """Every feature of the families, with the default windows."""
    return declared(Wanted(FeatureSettings().windows), COLUMNS)


def build(
    path: Path,
    asked: FeatureSet,
    *,
    memory: str,
    cutoffs: int = 1,
    shards: int = 1,
    identify: bool = False,
    trains: bool = False,
) -> dict[str, Any]:
    """Build features with our engine, as a table in it or, to train, here as 32-bit floats; `digest` identifies the rows."""
    engine = connect(memory=memory, threads=THREADS, spill=OUTPUT / "spill")
    instants = [CUTOFF - number * 14 * DAY for number in range(cutoffs)]
    started = time.monotonic()
    table = build_features(engine, engine.read_parquet(path), asked, instants, shards=shards)
    if trains:
        engine.to_pyarrow(table.cast({feature.name: "float32" for feature in asked.numbers}))
    # What one base alone tells is a table already.
    elif len({feature.base for feature in asked.built}) > 1:
        table = keep(engine, table, "built")
    found = {"seconds": time.monotonic() - started, "gigabytes": peak(), "features": len(asked.features), "shards": shards}
    if identify:
        # A hash of every row, added up, whatever the order of the rows.
        text = " || '|' || ".join(f"coalesce(CAST({name} AS VARCHAR), '')" for name in ["user_id", *asked.names])
        rows, digest = engine.raw_sql(f"SELECT count(*), sum(hash({text})) FROM ({engine.compile(table)})").fetchone()
        found |= {"rows": rows, "digest": str(digest)}
    return found


def peak() -> float:
    """Give the most memory that this process has held, in GB, from Linux: getrusage counts what its parent had held as well."""
    told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert told is not None
    return round(int(told[1]) / 1e6, 3)


def by_polars(path: Path) -> dict[str, Any]:
    """The eighty by hand in Polars, the fastest of four ways that were tried: the same tiles, plain sums, streaming."""
    started = time.monotonic()
    tile = pl.lit(len(EIGHT), dtype=pl.Int8)
    for place, window in reversed(list(enumerate(EIGHT))):
        tile = pl.when(pl.col("event_ts") >= CUTOFF - window).then(pl.lit(place, dtype=pl.Int8)).otherwise(tile)
    amount = pl.col("amount").cast(pl.Float64).fill_null(0.0)
    measures = {}
    for kind in TYPES:
        hit = pl.col("event_type") == kind
        measures |= {f"{kind}_n": hit.cast(pl.Float64), f"{kind}_sum": pl.when(hit).then(amount).otherwise(0.0)}
    log = pl.scan_parquet(path).filter(pl.col("event_ts") < CUTOFF).select("user_id", tile=tile, **measures)
    tiles = log.group_by("user_id", "tile").agg(pl.col(list(measures)).sum())
    windows = {
        f"{name}_{window.days}d": pl.when(pl.col("tile") <= place).then(pl.col(name)).otherwise(0.0)
        for name in measures
        for place, window in enumerate(EIGHT)
    }
    found = tiles.select("user_id", **windows).group_by("user_id").agg(pl.all().sum()).collect(engine="streaming")
    seconds = time.monotonic() - started
    return {"seconds": seconds, "gigabytes": peak(), "rows": found.height, "features": found.width - 1}


def bare(path: Path) -> dict[str, Any]:
    """One plain group by user in DuckDB: count, sum and max."""
    engine = duckdb.connect(config={"threads": THREADS})
    started = time.monotonic()
    sql = f"SELECT user_id, count(*), sum(amount), max(event_ts) FROM '{path}' GROUP BY user_id"
    engine.execute(f"CREATE TABLE found AS {sql}")
    return {"seconds": time.monotonic() - started, "gigabytes": peak()}


def shards_for(path: Path, memory: str, cutoffs: int = 1) -> int:
    """Give the shards that the pipeline would take for this log and memory."""
    users = duckdb.sql(f"SELECT count(DISTINCT user_id) FROM '{path}'").fetchall()[0][0]
    return shards_of(users, cutoffs, len(default().built), bytes_of(memory))


TASKS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "eighty": lambda path: build(path, eighty(), memory="6GB"),
    "polars": by_polars,
    "bare": bare,
    "default": lambda path: build(path, default(), memory="5GB"),
    "one": lambda path: build(path, default(), memory="5GB", trains=True),
    "twelve": lambda path: build(path, default(), memory="16GB", cutoffs=12, trains=True),
    "shared": lambda path: build(path, default(), memory="5GB", cutoffs=12, shards=shards_for(path, "5GB", 12), trains=True),
    "bounded": lambda path: build(path, default(), memory="4GB", shards=shards_for(path, "4GB"), identify=True),
    "unbounded": lambda path: build(path, default(), memory="16GB", identify=True),
}


def measured(task: str, path: Path) -> dict[str, Any]:
    """Run one task in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--log", str(path)]
    bound = {**os.environ, "POLARS_MAX_THREADS": str(THREADS)}
    told = subprocess.run(command, capture_output=True, text=True, env=bound)
    if told.returncode:
        raise SystemExit(f"{task} of {path.stem} failed:\n{told.stderr}")
    found = json.loads(told.stdout.splitlines()[-1])
    print(f"{task:<10} {path.stem:<24} {found['seconds']:8.1f} s  {found['gigabytes']:5.2f} GB  {json.dumps(found)}", flush=True)
    return found


def main() -> None:
    """Measure everything, and print a table for the documentation."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--task", choices=TASKS)
    asked.add_argument("--log", type=Path)
    asked.add_argument("--events", type=int, default=41, help="millions")
    asked.add_argument("--only", nargs="*", default=["short", "default", "cutoffs", "large"])
    told = asked.parse_args()
    if told.task:
        print(json.dumps(TASKS[told.task](told.log)))
        return
    OUTPUT.mkdir(parents=True, exist_ok=True)
    log, small = log_of(told.events), log_of(10)
    rows = []
    for path, order in ((by_time(log), "in order of time"), (log, "users together")) if "short" in told.only else ():
        rounds = [{task: measured(task, path)["seconds"] for task in ("bare", "eighty", "polars")} for _ in range(5)]
        for other, reach in (("polars", "≤ 0.9 ×"), ("bare", "≤ 8 ×")):
            ratio = statistics.median(found["eighty"] / found[other] for found in rounds)
            ours, theirs = (statistics.median(found[task] for found in rounds) for task in ("eighty", other))
            what = f"80 features, 8 windows, {told.events} M events {order}, against {other}"
            rows.append((what, f"{ratio:.2f} × ({ours:.1f} s, {theirs:.1f} s)", reach))
    if "default" in told.only:
        found = measured("default", log)
        rows.append((f"{found['features']} default features, {told.events} M events", f"{found['seconds']:.0f} s", "≤ 30 s"))
        rows.append(("its peak memory", f"{found['gigabytes']:.1f} GB", "≤ 6 GB"))
    if "cutoffs" in told.only:
        rounds = [{task: measured(task, small) for task in ("one", "twelve", "shared")} for _ in range(3)]
        for task, memory in (("twelve", "16GB"), ("shared", "5GB")):
            ratio = statistics.median(found[task]["seconds"] / found["one"]["seconds"] for found in rounds)
            gigabytes, shares = rounds[0][task]["gigabytes"], rounds[0][task]["shards"]
            what = f"12 cutoffs against one, 10 M events, `memory: {memory}` (shares of the users: {shares})"
            rows.append((what, f"{ratio:.1f} × ({gigabytes:.1f} GB)", "≤ 6 ×"))
    if "large" in told.only:
        large = log_of(100)
        few, bound, free = measured("bounded", small), measured("bounded", large), measured("unbounded", large)
        few_free = measured("unbounded", small)
        same = (bound["rows"], bound["digest"]) == (free["rows"], free["digest"])
        rows.append(("100 M events in `memory: 4GB`: peak memory", f"{bound['gigabytes']:.1f} GB", "≤ 6 GB"))
        rows.append((f"its {bound['rows']:,} rows equal those of unbounded memory", "yes" if same else "NO", "yes"))
        for how, less, more in (("unbounded", few_free, free), ("with `memory: 4GB`", few, bound)):
            ratio = more["seconds"] / less["seconds"] / 10
            rows.append((f"growth from 10 M to 100 M events, {how}", f"{ratio:.2f} × linear", "≤ 1.1 ×"))
    print("\n| what | measured | reach |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
