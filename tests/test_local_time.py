"""Local time: the clock that a person saw, judged by the zone database itself."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import ibis
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ibis.backends.sql import SQLBackend

from builders import DAY, HOUR, TICK, at, events, load_events
from features.local_time import local_time, offset_changes

SINCE, UNTIL = at("1990-01-01"), at("2030-01-01")
# Half-hour daylight saving, zones that gave it up or changed their mind, odd offsets, both hemispheres.
ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Paris",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Pacific/Apia",
]


def by_zoneinfo(instant: datetime, zone: str) -> datetime:
    return instant.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def by_engine(engine: SQLBackend, instants: list[datetime], zone: str, since: datetime = SINCE) -> list[datetime]:
    table = ibis.memtable(pd.DataFrame({"n": range(len(instants)), "event_ts": pd.Series(instants, dtype="datetime64[us]")}))
    found = engine.execute(table.select("n", local=local_time(table.event_ts, zone, since=since, until=UNTIL)).order_by("n"))
    return [local.to_pydatetime() for local in found.local]


@pytest.mark.parametrize("zone", ZONES)
def test_every_hour_of_two_years_agrees_with_the_zone_database(engine: SQLBackend, zone: str) -> None:
    instants = [at("2024-01-01") + hours * HOUR for hours in range(2 * 366 * 24)]
    assert by_engine(engine, instants, zone) == [by_zoneinfo(instant, zone) for instant in instants]


@pytest.mark.parametrize("zone", ZONES)
def test_four_decades_agree_with_the_zone_database(engine: SQLBackend, zone: str) -> None:
    instants = [SINCE + n * timedelta(hours=41, seconds=7, microseconds=11) for n in range(8_500)]
    assert by_engine(engine, instants, zone) == [by_zoneinfo(instant, zone) for instant in instants]


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        pytest.param("Europe/Paris", at("2024-03-31 01:00"), id="Paris forward"),
        pytest.param("Europe/Paris", at("2024-10-27 01:00"), id="Paris back"),
        pytest.param("America/New_York", at("2024-03-10 07:00"), id="New York forward"),
        pytest.param("America/New_York", at("2024-11-03 06:00"), id="New York back"),
        pytest.param("Australia/Lord_Howe", at("2024-04-06 15:00"), id="Lord Howe back by half an hour"),
    ],
)
def test_clock_changes_at_the_exact_microsecond(engine: SQLBackend, zone: str, change: datetime) -> None:
    instants = [change - HOUR, change - TICK, change, change + TICK, change + HOUR]
    local = by_engine(engine, instants, zone)
    assert local == [by_zoneinfo(instant, zone) for instant in instants]
    assert local[2] - local[1] != TICK


@settings(max_examples=40)
@given(zone=st.sampled_from(ZONES), since=st.datetimes(SINCE, at("2029-01-01")), span=st.timedeltas(timedelta(), 400 * DAY))
def test_changes_are_exact_wherever_the_look_begins(zone: str, since: datetime, span: timedelta) -> None:
    known = list(offset_changes(zone, since, min(since + span, UNTIL)))
    assert known[0] == (since, offset(since, zone))
    for changed, minutes in known[1:]:
        assert (offset(changed - TICK, zone) != minutes, offset(changed, zone)) == (True, minutes)
    days = [since + n * DAY for n in range(span // DAY + 1)]
    assert [max(change for change in known if change[0] <= day)[1] for day in days] == [offset(day, zone) for day in days]


def offset(instant: datetime, zone: str) -> int:
    return (by_zoneinfo(instant, zone) - instant) // timedelta(minutes=1)


def test_offset_changes_of_a_year() -> None:
    assert list(offset_changes("America/New_York", at("2024-01-01 10:13:27"), at("2025-01-01"))) == [
        (at("2024-01-01 10:13:27"), -300),
        (at("2024-03-10 07:00"), -240),
        (at("2024-11-03 06:00"), -300),
    ]


def test_zone_without_changes_has_one_offset() -> None:
    assert list(offset_changes("Asia/Kathmandu", SINCE, UNTIL)) == [(SINCE, 345)]


def test_an_events_own_offset_comes_before_the_zone(engine: SQLBackend) -> None:
    log = events(
        {"user_id": "ann", "event_ts": "2024-07-01 22:00", "utc_offset_minutes": 330},
        {"user_id": "bob", "event_ts": "2024-07-01 22:00", "utc_offset_minutes": -420},
        {"user_id": "cem", "event_ts": "2024-07-01 22:00", "utc_offset_minutes": 0},
        {"user_id": "dee", "event_ts": "2024-07-01 22:00"},
    )
    found = load_events(engine, log, zone="Europe/Paris").select("user_id", "event_ts", "local_ts").order_by("user_id").execute()
    assert [tuple(row) for row in found.itertuples(index=False)] == [
        ("ann", at("2024-07-01 22:00"), at("2024-07-02 03:30")),
        ("bob", at("2024-07-01 22:00"), at("2024-07-01 15:00")),
        ("cem", at("2024-07-01 22:00"), at("2024-07-01 22:00")),
        ("dee", at("2024-07-01 22:00"), at("2024-07-02 00:00")),
    ]
