"""Windows: `[cutoff - window, cutoff)`, in exact hours whatever the calendar does."""

from datetime import datetime, timedelta

import ibis
import pandas as pd
import pytest
from ibis.backends.duckdb import Backend

from builders import DAY, HOUR, TICK, at
from features.errors import ConfigError
from features.windows import days_before_cutoff, duration, label, within, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [("28d", 28 * DAY), ("12h", 12 * HOUR), ("4w", 28 * DAY), (" 1d ", DAY), ("36h", 36 * HOUR), ("876600h", 876_600 * HOUR)],
)
def test_duration_reads_hours_days_and_weeks(text: str, expected: timedelta) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "28", "d", "0d", "-3d", "1.5d", "28 d", "28D", "1m", "28d 2h", "1234567d", 28, None])
def test_duration_refuses_anything_else_and_says_what_to_write(text: object) -> None:
    with pytest.raises(ConfigError, match=r"is not a duration: write a positive whole number and h, d or w, such as 28d"):
        duration(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "short", "long"),
    [
        (HOUR, "1h", "1 hour"),
        (36 * HOUR, "36h", "36 hours"),
        (24 * HOUR, "1d", "1 day"),
        (28 * DAY, "28d", "28 days"),
        (timedelta(weeks=1), "7d", "7 days"),
    ],
)
def test_window_has_one_label_and_one_wording(window: timedelta, short: str, long: str) -> None:
    assert (label(window), words(window)) == (short, long)


@pytest.mark.parametrize("text", ["1h", "36h", "1d", "84d"])
def test_label_reads_back_as_the_same_duration(text: str) -> None:
    assert label(duration(text)) == text


def inside(engine: Backend, instant: datetime, cutoff: datetime, window: timedelta) -> bool:
    table = ibis.memtable(pd.DataFrame({"event_ts": [instant], "cutoff": [cutoff]}))
    return bool(engine.execute(table.select(inside=within(window))).inside[0])


CUTOFFS = [
    pytest.param(at("2024-03-01"), id="the day after leap day"),
    pytest.param(at("2024-02-29"), id="leap day"),
    pytest.param(at("2024-04-01"), id="the day after clocks went forward in Paris"),
    pytest.param(at("2024-11-04"), id="the day after clocks went back in New York"),
]


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("window", [12 * HOUR, DAY, 28 * DAY])
def test_event_exactly_at_the_start_is_inside(engine: Backend, cutoff: datetime, window: timedelta) -> None:
    assert inside(engine, cutoff - window, cutoff, window)


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("window", [12 * HOUR, DAY, 28 * DAY])
def test_event_a_microsecond_before_the_start_is_outside(engine: Backend, cutoff: datetime, window: timedelta) -> None:
    assert not inside(engine, cutoff - window - TICK, cutoff, window)


def test_window_looks_at_the_named_column(engine: Backend) -> None:
    table = ibis.memtable(pd.DataFrame({"last_at": [at("2024-03-01")], "cutoff": [at("2024-03-02")]}))
    assert engine.execute(table.select(inside=within(DAY, at="last_at"))).inside.tolist() == [True]


def test_days_before_cutoff_keep_their_fraction(engine: Backend) -> None:
    table = ibis.memtable(pd.DataFrame({"event_ts": [at("2024-02-27 18:00")], "cutoff": [at("2024-03-01")]}))
    found = engine.execute(table.agg(days=days_before_cutoff(ibis._.event_ts.max())))
    assert found.days.tolist() == [2.25]


def test_duration_beyond_a_century_is_refused() -> None:
    with pytest.raises(ConfigError, match="'876601h' is longer than 36525 days"):
        duration("876601h")
