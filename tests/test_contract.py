"""The event contract: what is refused, why, and that no row is lost on the way."""

import json
import math
from collections import Counter
from datetime import datetime
from random import Random

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
import pytest
from conftest import KINDS
from hypothesis import given, settings
from hypothesis import strategies as st
from ibis.backends.sql import SQLBackend

from builders import DAY, TICK, at, close_engine, load, open_engine
from features.contract import COLUMNS, OPTIONAL, REQUIRED, Bounds, accepted, conform, judge
from features.engines import keep
from features.errors import ConfigError

AS_OF = at("2024-06-01")
BOUNDS = Bounds(AS_OF, 30 * DAY)
GOOD = {"user_id": "ann", "event_ts": "2024-03-01 10:00:00", "event_type": "purchase"}


def raw(*rows: dict[str, object], engine: SQLBackend | None = None) -> ir.Table:
    """Give rows as a source's query would: only the columns that they name."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    return load(engine, table) if engine else ibis.memtable(table)


def judged(engine: SQLBackend, *rows: dict[str, object], source: str = "orders") -> pd.DataFrame:
    has_ids = any("event_id" in row for row in rows)
    return engine.execute(judge(conform(raw(*rows, engine=engine), source), BOUNDS, has_ids=has_ids))


def reason(engine: SQLBackend, row: dict[str, object]) -> str | None:
    found = judged(engine, row).broken[0]
    return None if pd.isna(found) else found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"user_id": None}, "user_id is missing"),
        ({"user_id": ""}, "user_id is missing"),
        ({"user_id": " \t"}, "user_id is missing"),
        ({"user_id": "NaN"}, "user_id is the text of a missing value, such as nan"),
        ({"user_id": "NULL"}, "user_id is the text of a missing value, such as nan"),
        ({"event_ts": None}, "event_ts is missing"),
        ({"event_ts": "yesterday"}, "event_ts is not a time"),
        ({"event_ts": "2024-02-30"}, "event_ts is not a time"),
        ({"event_ts": "1989-12-31 23:59:59.999999"}, "event_ts is before 1990"),
        ({"event_ts": "2024-07-01"}, "event_ts is after as_of + contract.max_future"),
        ({"event_type": None}, "event_type is missing"),
        ({"event_type": "  "}, "event_type is missing"),
        ({"amount": "12,50"}, "amount is not a number"),
        ({"amount": ""}, "amount is not a number"),
        ({"quantity": "two"}, "quantity is not a number"),
        ({"discount": "10%"}, "discount is not a number"),
        ({"utc_offset_minutes": "+01:00"}, "utc_offset_minutes is not a number"),
        ({"amount": math.nan}, "amount is not a finite number below 1e+11"),
        ({"quantity": math.inf}, "quantity is not a finite number below 1e+11"),
        ({"discount": -math.inf}, "discount is not a finite number below 1e+11"),
        ({"amount": 1e11}, "amount is not a finite number below 1e+11"),
        ({"amount": "inf"}, "amount is not a finite number below 1e+11"),
    ],
)
def test_row_that_breaks_the_contract_has_its_reason(engine: SQLBackend, changes: dict[str, object], expected: str) -> None:
    # A whole column of nulls has no type; the good row beside it gives it one, and must stay good.
    found = judged(engine, GOOD, {**GOOD, **changes})
    assert Counter(found.broken.dropna()) == {expected: 1}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"event_ts": "1990-01-01"},
        {"event_ts": "2024-06-30 23:59:59.999999"},
        {"amount": "12.50"},
        {"amount": -3},
        {"amount": 99_999_999_999.0},
        {"amount": None},
        {"event_id": None},
        {"utc_offset_minutes": "-300"},
        {"user_id": 17},
    ],
)
def test_row_that_keeps_the_contract_has_none(engine: SQLBackend, changes: dict[str, object]) -> None:
    assert reason(engine, {**GOOD, **changes}) is None


@pytest.mark.parametrize("given", [17, 17.0, "17"])
def test_an_id_is_the_same_whatever_type_a_file_gives_it(engine: SQLBackend, given: object) -> None:
    found = judged(engine, {**GOOD, "user_id": given, "category": given})
    assert (found.user_id[0], found.category[0]) == ("17", "17")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"user_id": math.nan}, "user_id is missing"),
        ({"user_id": 2.0**53}, "user_id is a number of too many digits to be exact; let the source give text"),
        ({"order_id": -(2.0**60)}, "order_id is a number of too many digits to be exact; let the source give text"),
    ],
)
def test_an_id_that_may_be_that_of_several_is_rejected(engine: SQLBackend, changes: dict[str, object], expected: str) -> None:
    good = {**GOOD, "user_id": 17.0, "order_id": 3.0}
    found = judged(engine, good, {**good, **changes})
    assert Counter(found.broken.dropna()) == {expected: 1}


def test_a_name_that_is_no_number_says_nothing(engine: SQLBackend) -> None:
    found = judged(engine, {**GOOD, "category": math.nan}, {**GOOD, "category": 1.5})
    assert found.broken.isna().all()
    assert found.category.isna().tolist() == [True, False]


def test_conformed_rows_have_every_column_in_its_type(engine: SQLBackend) -> None:
    found = judge(
        conform(raw({**GOOD, "user_id": 17, "amount": "5", "quantity": 2}, engine=engine), "orders"), BOUNDS, has_ids=False
    )
    types = {name: kind.copy(nullable=True) for name, kind in found.schema().items()}
    assert types == {
        name: ibis.dtype(kind) for name, kind in {**COLUMNS, **dict.fromkeys(("source_name", "broken", "row"), "string")}.items()
    }
    row = engine.execute(found).iloc[0]
    assert (row.user_id, row.event_ts, row.amount, row.quantity, row.source_name) == (
        "17",
        at("2024-03-01 10:00"),
        5.0,
        2.0,
        "orders",
    )
    assert row[[name for name in OPTIONAL if name not in ("amount", "quantity")]].isna().all()


def test_row_that_cannot_be_read_is_kept_as_it_came(engine: SQLBackend) -> None:
    row = {**GOOD, "event_ts": "31/12/2024", "amount": "12,50"}
    assert json.loads(judged(engine, row).row[0]) == row


def test_row_with_an_impossible_time_is_kept_in_the_contracts_columns(engine: SQLBackend) -> None:
    found = judged(engine, {**GOOD, "event_ts": "1970-01-01 10:00", "amount": "5"})
    assert json.loads(found.row[0]) == {**dict.fromkeys(COLUMNS), **GOOD, "event_ts": "1970-01-01 10:00:00", "amount": "5"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_row_with_a_number_without_end_is_kept_as_strict_json(engine: SQLBackend, value: float) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(judged(engine, {**GOOD, "amount": value}).row[0], parse_constant=refuse)


def test_good_row_is_not_kept_twice(engine: SQLBackend) -> None:
    assert judged(engine, GOOD).row.isna().all()


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-03-01 10:00:00+02", at("2024-03-01 08:00")),
        ("2024-03-01T10:00:00-05:30", at("2024-03-01 15:30")),
        ("2024-03-01T10:00:00Z", at("2024-03-01 10:00")),
        ("2024-07-01 10:00:00 Europe/Paris", at("2024-07-01 08:00")),
        ("2024-03-01 10:00:00.123456", at("2024-03-01 10:00:00.123456")),
        ("2024-03-01 10:00", at("2024-03-01 10:00")),
        ("2024-03-01", at("2024-03-01")),
    ],
)
def test_text_becomes_the_utc_instant_it_names(engine: SQLBackend, text: str, instant: datetime) -> None:
    assert judged(engine, {**GOOD, "event_ts": text}).event_ts.tolist() == [instant]


@pytest.mark.parametrize("text", ["2024-03-01 10:00+02", "2024-03-01T08:00Z"])
def test_text_with_a_zone_and_without_seconds_is_a_time(engine: SQLBackend, text: str) -> None:
    assert judged(engine, {**GOOD, "event_ts": text}).event_ts.tolist() == [at("2024-03-01 08:00")]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([at("2024-03-01 08:00")], pa.timestamp("us")),
        pa.array([at("2024-03-01 08:00")], pa.timestamp("us", tz="UTC")),
        pa.array([pd.Timestamp("2024-03-01 03:00", tz="America/New_York")], pa.timestamp("us", tz="America/New_York")),
        pa.array([at("2024-03-01 08:00")], pa.timestamp("ns")),
        pa.array([at("2024-03-01 08:00")], pa.timestamp("s")),
    ],
    ids=lambda column: str(column.type),
)
def test_timestamp_becomes_the_utc_instant_it_names(engine: SQLBackend, column: pa.Array) -> None:
    table = ibis.memtable(pa.table({"user_id": ["ann"], "event_ts": column, "event_type": ["purchase"]}))
    assert engine.execute(conform(table, "orders")).event_ts.tolist() == [at("2024-03-01 08:00")]


@pytest.mark.parametrize("seconds", [1709280000, 1709280000.5])
def test_number_as_a_time_is_refused(seconds: float) -> None:
    with pytest.raises(
        ConfigError, match=r"sources\.orders\.sql gives event_ts as (int|float)64: turn numbers into time in the SQL"
    ):
        conform(raw({**GOOD, "event_ts": seconds}), "orders")


@pytest.mark.parametrize("value", [True, [1], at("2024-03-01").time()])
def test_type_that_cannot_be_a_time_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="event_ts"):
        conform(raw({**GOOD, "event_ts": value}), "orders")


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_required_column_is_named(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^sources\.orders\.sql gives no column {name}: an event needs user_id, event_ts, event_type"
    ):
        conform(raw({key: value for key, value in GOOD.items() if key != name}), "orders")


def test_all_missing_required_columns_are_named_with_what_is_there() -> None:
    with pytest.raises(ConfigError, match=r"gives no column user_id, event_ts: .*; the query gives customer, event_type$"):
        conform(raw({"customer": "ann", "event_type": "purchase"}), "orders")


def test_unknown_column_suggests_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"^sources\.orders\.sql gives 'amout', which is not an event column: did you mean amount\?$"
    ):
        conform(raw({**GOOD, "amout": 5.0}), "orders")


def test_unknown_column_far_from_any_lists_them() -> None:
    with pytest.raises(ConfigError, match="gives 'zzz', which is not an event column: known: amount, brand, campaign"):
        conform(raw({**GOOD, "zzz": 5.0}), "orders")


def test_earliest_of_a_repeated_id_stays(engine: SQLBackend) -> None:
    rows = [{**GOOD, "event_id": "e1", "event_ts": f"2024-03-0{day} 10:00:00"} for day in (3, 1, 2)]
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        found = judged(engine, *(rows[place] for place in order)).sort_values("event_ts")
        assert found.broken.isna().tolist() == [True, False, False]
        assert set(found.broken.dropna()) == {"event_id was seen before"}


def test_ties_of_a_repeated_id_are_settled_by_the_columns(engine: SQLBackend) -> None:
    rows = [{**GOOD, "event_id": "e1", "amount": amount} for amount in (7.0, 5.0, 6.0)]
    for order in (rows, rows[::-1]):
        found = judged(engine, *order)
        assert found[found.broken.isna()].amount.tolist() == [5.0]


def test_id_repeated_across_sources_is_seen(engine: SQLBackend) -> None:
    first = conform(raw({**GOOD, "event_id": "e1", "event_ts": "2024-03-02"}, engine=engine), "app")
    second = conform(raw({**GOOD, "event_id": "e1", "event_ts": "2024-03-01"}, engine=engine), "web")
    found = engine.execute(judge(first.union(second), BOUNDS, has_ids=True)).set_index("source_name").broken
    assert (found["app"], pd.isna(found["web"])) == ("event_id was seen before", True)


def test_broken_row_does_not_use_up_its_id(engine: SQLBackend) -> None:
    found = judged(engine, {**GOOD, "event_id": "e1", "event_ts": "1970-01-01"}, {**GOOD, "event_id": "e1"})
    assert sorted(found.broken.fillna("good")) == ["event_ts is before 1990", "good"]


def test_rows_without_an_id_are_never_repeats(engine: SQLBackend) -> None:
    assert judged(engine, {**GOOD, "event_id": None}, {**GOOD, "event_id": None}, {**GOOD, "event_id": "e1"}).broken.isna().all()


def test_rows_with_a_blank_id_are_never_repeats(engine: SQLBackend) -> None:
    assert judged(engine, {**GOOD, "event_id": ""}, {**GOOD, "event_id": ""}).broken.isna().all()


@pytest.mark.parametrize("minutes", [10**15, 1e300, 100_000])
def test_impossible_offset_is_rejected(engine: SQLBackend, minutes: float) -> None:
    assert "utc_offset_minutes" in (reason(engine, {**GOOD, "utc_offset_minutes": minutes}) or "")


def split(engine: SQLBackend, table: ir.Table) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give what is accepted on the night and what is rejected."""
    good = accepted(table, BOUNDS, zone="UTC", since=at("1990-01-01"))
    return engine.execute(good), engine.execute(table.filter(table.broken.notnull()))


def test_event_at_as_of_is_left_alone(engine: SQLBackend) -> None:
    instants = [AS_OF - TICK, AS_OF, AS_OF + 30 * DAY - TICK, AS_OF + 30 * DAY]
    table = judge(
        conform(raw(*({**GOOD, "event_ts": str(instant)} for instant in instants), engine=engine), "orders"), BOUNDS, has_ids=False
    )
    good, rejected = split(engine, table)
    assert (good.event_ts.tolist(), rejected.event_ts.tolist()) == (instants[:1], instants[3:])


def test_accepted_events_have_the_contracts_columns_and_local_time(engine: SQLBackend) -> None:
    good, _ = split(engine, judge(conform(raw(GOOD, engine=engine), "orders"), BOUNDS, has_ids=False))
    assert good.columns.tolist() == [*COLUMNS, "local_ts"]


def mostly(good: list[object], bad: list[object]) -> st.SearchStrategy[object]:
    return st.sampled_from(good) | st.sampled_from(good) | st.sampled_from(good) | st.sampled_from(bad)


INSTANTS = ["2024-03-01", "2024-03-01 10:00:00+02", "2024-05-31 23:59:59.999999", "2024-06-01", "2024-06-15"]
ROWS = st.fixed_dictionaries(
    {
        "user_id": mostly(["ann", "bob"], ["", "  ", None]),
        "event_ts": mostly([*INSTANTS], ["1969-07-20", "2031-01-01", "soon", "", None]),
        "event_type": mostly(["purchase", "visit"], [" ", None]),
        "event_id": st.sampled_from(["e1", "e2", "e3", "e4", None]),
        "amount": mostly(["5", "6.5", None], ["nan", "inf", "five", ""]),
        "quantity": mostly([1.0, 0.0, None], [math.nan, math.inf, 1e12]),
    }
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(rows=st.lists(ROWS, min_size=15, max_size=40), order=st.randoms(use_true_random=False))
def test_no_row_is_lost_whatever_comes_in_whatever_order(kind: str, rows: list[dict[str, object]], order: Random) -> None:
    engine = open_engine(kind=kind)
    table = keep(engine, judge(conform(raw(*rows, engine=engine), "orders"), BOUNDS, has_ids=True), "judged")
    found, (kept, rejected) = table.execute(), split(engine, table)
    good = found[found.broken.isna()]
    assert sorted(kept.event_ts) == sorted(good.event_ts[good.event_ts < AS_OF])
    assert len(kept) + (good.event_ts >= AS_OF).sum() + len(rejected) == len(rows)
    assert rejected.row.notna().all()
    assert good.row.isna().all()
    assert good.event_id.dropna().is_unique
    order.shuffle(rows)
    assert counted(judged(engine, *rows)) == counted(found)
    close_engine(engine)


def counted(frame: pd.DataFrame) -> Counter[tuple[str, ...]]:
    return Counter(tuple(map(str, row)) for row in frame.drop(columns="row").itertuples(index=False))


@pytest.mark.parametrize("kind", ["date", "text"])
def test_a_date_is_that_day_in_every_zone(engine: SQLBackend, kind: str) -> None:
    column = pa.array([at("2024-03-01").date()], pa.date32()) if kind == "date" else pa.array(["2024-03-01"])
    table = load(engine, pa.table({"user_id": ["ann"], "event_ts": column, "event_type": ["purchase"]}))
    told = judge(conform(table, "orders"), BOUNDS, has_ids=False)
    events = engine.execute(accepted(told, BOUNDS, zone="America/Lima", since=at("2024-01-01")))
    assert events.event_ts.tolist() == events.local_ts.tolist() == [at("2024-03-01")]
