"""Tiles: `[cutoff - window, cutoff)` in exact hours whatever the calendar does, and no event is counted twice or lost."""

from datetime import datetime

import ibis
import pandas as pd
import pytest
from ibis import _
from ibis.backends.sql import SQLBackend

from builders import DAY, HOUR, TICK, arrow, at, events, load
from features.snapshot import KEYS
from features.tiles import Grid
from features.windows import days_until, within

WINDOWS = [12 * HOUR, DAY, 28 * DAY]
CUTOFFS = [
    pytest.param(at("2024-03-01"), id="the day after leap day"),
    pytest.param(at("2024-02-29"), id="leap day"),
    pytest.param(at("2024-04-01"), id="the day after clocks went forward in Paris"),
    pytest.param(at("2024-11-04"), id="the day after clocks went back in New York"),
    pytest.param(at("2024-11-04 07:30:00.000001"), id="no whole hour"),
]


def counted(engine: SQLBackend, instants: list[datetime], cutoffs: list[datetime]) -> pd.DataFrame:
    """Count the events of one user per cutoff, ever and in each window."""
    grid = Grid.of(cutoffs, WINDOWS)
    log = load(engine, arrow(events(*(("ann", instant) for instant in instants))))
    tiles = grid.before(log).group_by("user_id", "tile").agg(n=_.count())
    windows = {str(window): within(window).ifelse(_.n, 0).sum() for window in WINDOWS}
    return (
        engine.execute(grid.seen(tiles, grid.views()).group_by(KEYS).agg(ever=_.n.sum(), **windows))
        .set_index("cutoff")
        .sort_index()
    )


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_a_window_holds_its_start_and_not_its_end(engine: SQLBackend, cutoff: datetime) -> None:
    starts = [cutoff - window for window in WINDOWS]
    on_the_edges = [*starts, *(start - TICK for start in starts), cutoff - TICK, cutoff, cutoff + TICK]
    found = counted(engine, on_the_edges, [cutoff]).loc[cutoff]
    assert found["ever"] == 7
    assert [found[str(window)] for window in WINDOWS] == [2, 4, 6]


def test_cutoffs_share_tiles_and_each_sees_its_own_windows(engine: SQLBackend) -> None:
    hourly = [at("2024-01-01") + hour * HOUR for hour in range(24 * 60)]
    cutoffs = [at("2024-02-01"), at("2024-02-01 06:00"), at("2024-02-20")]
    found = counted(engine, hourly, cutoffs)
    assert found.index.tolist() == cutoffs
    assert found.ever.tolist() == [31 * 24, 31 * 24 + 6, 50 * 24]
    assert [found[str(window)].unique().tolist() for window in WINDOWS] == [[12], [24], [28 * 24]]


def test_days_until_a_cutoff_keep_their_fraction(engine: SQLBackend) -> None:
    log = load(engine, arrow(events(("ann", "2024-02-27 18:00"))))
    told = log.select(days=days_until(log.event_ts + ibis.interval(hours=54), log.event_ts))
    assert engine.execute(told).days.tolist() == [2.25]
