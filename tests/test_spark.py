"""Spark: opened fast or refused with the key that is wrong, and the same answers as DuckDB from files to fingerprint."""

import random
import re
from pathlib import Path

import ibis
import pandas as pd
import pyarrow as pa
import pytest
from ibis.backends.sql import SQLBackend

from builders import DAY, at, close_engine, load, open_engine
from features import spark
from features.cells import read_instant, read_number, written
from features.contract import Bounds, accepted, conform, judge
from features.engines import engine_errors, keep, without_cells
from features.errors import ConfigError
from features.fingerprint import fingerprint
from features.sources import Source, read_sources
from features.spark import connect_spark, java_version

TEXTS = [
    "2024-03-01 10:00:00+02", "2024-03-01T10:00:00-05:30", "2024-03-01T10:00:00Z", "2024-07-01 10:00:00 Europe/Paris",
    "2024-03-01 10:00:00.1234565", "2024-03-01 10:00", "2024-03-01", "2024-3-1", "2024/3/1 1:02", "2024-03-01 24:00:00",
    "2024-03-01 10:00:60", "2024-02-30", "2024", "2024-03", "10:00", "epoch", "infinity", "2024-03-01 10:00:00 UTC",
    "2024-03-01 10:00:00 EST", "2024-03-01 10:00:00+0200", "2024-03-01 10:00:00+2", "2024-03-01 10:00:00 +02:00",
    " 2024-03-01 10:00 ", "2024-03-01T10", "20240301", "2024-03-01 10:00:00+19", "2024-03-01 10:00:00+18:00", "0001-01-01",
    "9999-12-31", "10000-01-01", "2024-03-01T10:00+02", "2024-03-01 10:00:00 Etc/GMT+5", "2024-03-01 10:00:00 Mars/Base",
    "2024-03-01 10:0:0", "2024-03-01 10:", "now", "today", "", "2024-03-01\t10:00", "2024-03-01 10:00\n",
]  # fmt: skip
NUMBERS = [
    "5", " 5 ", "5d", "5f", "0x10", "1e3", "1_000", "1,5", "inf", "-inf", "+Infinity", "nan", "-nan", "", "+5", ".5", "5.", "1e400",
    "1e-400", "true", "٥", "--5", "1e", "0b1", "5\t", "-300", "60.0", "1.5", "2.5", "9223372036854775808", "1e18", "5L",
]  # fmt: skip
FLOATS = [
    0.0,
    -0.0,
    0.1,
    1.0,
    -7.0,
    12345678.0,
    1e14,
    0.5,
    float("nan"),
    float("inf"),
    float("-inf"),
    None,
    19.99,
    7112976613.844757,
    1e300,
    -1.5e-7,
    1.25e-4,
]


def on(kind: str, table: pa.Table, **columns: object) -> pd.DataFrame:
    """Compute columns over a table on one kind of engine, in order."""
    engine = open_engine(kind=kind)
    try:
        loaded = load(engine, table.append_column("n", pa.array(range(len(table)))))
        made = loaded.select("n", **{name: make(loaded) for name, make in columns.items()})  # type: ignore[operator]
        return engine.execute(made.order_by("n"))
    finally:
        close_engine(engine)


def test_what_cannot_be_read_is_told_without_the_cell(engine: SQLBackend, capfd: pytest.CaptureFixture[str]) -> None:
    table = load(engine, pa.table({"user_id": ["secret ann", "7"]}))
    with pytest.raises(engine_errors()) as raised:
        keep(engine, table.select(number=table.user_id.cast("float64")), "numbers")
    assert re.search(r"(Conversion Error|\[CAST_INVALID_INPUT\]): a cell that is no DOUBLE", without_cells(raised.value))
    assert "secret" in str(raised.value)
    printed = capfd.readouterr()
    assert "secret" not in printed.out + printed.err + without_cells(raised.value)


@pytest.mark.spark
def test_times_in_text_are_read_alike() -> None:
    table = pa.table({"text": TEXTS})
    found = [on(kind, table, instant=lambda rows: read_instant(rows.text).cast("string")) for kind in ("duckdb", "spark")]
    pd.testing.assert_frame_equal(*found)
    assert 15 < found[0].instant.notna().sum() < 25


@pytest.mark.spark
def test_numbers_in_text_are_read_alike() -> None:
    table = pa.table({"text": NUMBERS})
    found = [on(kind, table, number=lambda rows: read_number(rows.text)) for kind in ("duckdb", "spark")]
    pd.testing.assert_frame_equal(*found)
    assert 15 < found[0].number.notna().sum() < 25


@pytest.mark.spark
def test_floats_are_written_alike() -> None:
    table = pa.table({"number": FLOATS})
    pd.testing.assert_frame_equal(*[on(kind, table, text=lambda rows: written(rows.number)) for kind in ("duckdb", "spark")])


def log(seed: int) -> pa.Table:
    """Give rows good and bad, with amounts of every size and ties at the seventh decimal."""
    draw = random.Random(seed)
    rows = [
        {
            "user_id": draw.choice(["ann", "bob", "ünal", None, " "]),
            "event_ts": draw.choice([*TEXTS, *(f"2024-0{n}-1{n} 0{n}:00:00.{n}" for n in range(1, 6))]),
            "event_type": draw.choice(["purchase", "visit", 'a "quoted" one\n']),
            "event_id": f"e{draw.randrange(150)}",
            "amount": draw.choice(
                [draw.uniform(-1, 1) * 10.0 ** draw.randrange(12), 1 / 128, -1 / 128, 0.1 + 0.2, None, 1e12, 19.99]
            ),
            "quantity": draw.choice(NUMBERS),
            "category": draw.choice(["tea", None, ""]),
        }
        for _ in range(400)
    ]
    return pa.Table.from_pylist(rows)


@pytest.mark.spark
def test_good_rows_rejected_rows_and_fingerprint_are_the_same() -> None:
    bounds = Bounds(at("2024-06-01"), 30 * DAY)
    frames, prints = [], []
    for kind in ("duckdb", "spark"):
        engine = open_engine(kind=kind)
        judged = judge(conform(load(engine, log(7)), "orders"), bounds, has_ids=True)
        good = accepted(judged, bounds, zone="Europe/Paris", since=at("1990-01-01"))
        bad = judged.filter(judged.broken.notnull()).select("broken", "row")
        frames.append([engine.execute(table.order_by(table.columns)).dropna(axis="columns", how="all") for table in (good, bad)])
        prints.append(fingerprint(engine, good))
        close_engine(engine)
    for ours, theirs in zip(*frames, strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)
        assert len(ours) > 20
    assert prints[0] == prints[1]


def test_the_fingerprint_sees_rows_and_not_their_order(engine: SQLBackend) -> None:
    table = log(3).select(["user_id", "event_ts"])
    told = fingerprint(engine, load(engine, table))
    assert fingerprint(engine, load(engine, table.take(list(reversed(range(len(table))))))) == told
    assert fingerprint(engine, load(engine, table.slice(1))) != told
    assert fingerprint(engine, load(engine, pa.concat_tables([table, table.slice(0, 2)]))) != told


@pytest.mark.spark
def test_parquet_with_types_that_spark_lacks_is_read_as_duckdb_reads_it(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": ["ann"], "event_ts": pd.to_datetime(["2024-03-01 10:00:00.123456"]).astype("datetime64[ns]")})
    frame.to_parquet(tmp_path / "o.parquet")
    frame.iloc[:, ::-1].to_parquet(tmp_path / "_hidden [1].parquet")
    found = []
    for kind in ("duckdb", "spark"):
        engine = open_engine(tmp_path / "spill", kind=kind)
        table = read_sources(engine, [Source("s", {"o": str(tmp_path / "*.parquet")}, "select user_id, event_ts from o")])["s"]
        found.append(engine.execute(table.mutate(event_ts=table.event_ts.cast("timestamp(6)"))))
        close_engine(engine)
    pd.testing.assert_frame_equal(*found, check_dtype=False)
    assert len(found[0]) == 2


@pytest.mark.spark
def test_spark_reads_no_file_by_name(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "secret.parquet")
    engine = open_engine(kind="spark")
    with pytest.raises(Exception, match="(?i)not found|cannot be found|unsupported"):
        engine.raw_sql(f"SELECT * FROM parquet.`{tmp_path}/secret.parquet`").collect()
    close_engine(engine)


def test_a_master_that_cannot_be_reached_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "_require_java", lambda: None)
    with pytest.raises(ConfigError, match=r"^engine\.master: spark://127\.0\.0\.1:1 cannot be reached \(.*refused\)"):
        connect_spark(master="spark://127.0.0.1:1", memory="1GB", options={}, spill=tmp_path / "spill")
    assert not (tmp_path / "spill").exists()


def test_missing_java_is_told_with_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java_version() is None
    with pytest.raises(ConfigError, match=r"engine\.kind is spark, which needs Java 17 or later, and none was found: install it"):
        connect_spark(master="local", memory="1GB", options={}, spill=tmp_path)


def test_missing_pyspark_is_told_with_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"engine\.kind is spark, but .* pip install -e '\.\[spark\]'"):
        connect_spark(master="local", memory="1GB", options={}, spill=tmp_path)


def test_a_named_zone_stays_with_its_own_row(engine: SQLBackend) -> None:
    texts = pa.table({"n": [1, 2], "text": ["2024-07-01 10:00:00 Asia/Tokyo", "2024-07-01 10:00:00"]})
    loaded = load(engine, texts)
    found = engine.execute(loaded.select("n", at=read_instant(loaded.text)).order_by(ibis.asc("n")))
    assert found["at"].tolist() == [at("2024-07-01 01:00"), at("2024-07-01 10:00")]
