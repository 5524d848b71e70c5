"""Tiles: time cut into disjoint stretches, so that one pass over the events serves every window of every cutoff.

    edges     ──┬────────┬──────┬───┬──▶ time      every cutoff, and every cutoff minus every window
    tiles      0│   1    │  2   │ 3 │
    cutoff                          c              sees tiles 0 to 3, each with its age: hours from its start to c

No tile straddles a cutoff or the start of a window. What is counted per user and tile adds up to any window exactly.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

import ibis
import ibis.expr.types as ir
import pandas as pd
from ibis import _

from features.windows import HOUR

# Older than any window: the age of what happened before the first edge.
ANCIENT = 2**31 - 1


@dataclass(frozen=True)
class Grid:
    """The tiles of some cutoffs (UTC) and windows; `edges` are their bounds, oldest first."""

    cutoffs: tuple[datetime, ...]
    edges: tuple[datetime, ...]

    @classmethod
    def of(cls, cutoffs: Sequence[datetime], windows: Sequence[timedelta]) -> "Grid":
        """Cut time at every cutoff and at the start of every window before it."""
        starts = {cutoff - window for cutoff in cutoffs for window in windows}
        return cls(tuple(sorted(set(cutoffs))), tuple(sorted({*cutoffs, *starts})))

    def tile(self, instant: ir.TimestampValue) -> ir.IntegerValue:
        """Give the number of the tile that an instant lies in: the edges at or before it, by bisection."""

        def below(low: int, high: int) -> ir.IntegerValue:
            if low == high:
                return ibis.literal(low, "int16")
            middle = (low + high) // 2
            return (instant < ibis.literal(self.edges[middle])).ifelse(below(low, middle), below(middle + 1, high))

        return below(0, len(self.edges))

    def views(self) -> ir.Table:
        """Make the table of which cutoff sees which tile: `tile`, `cutoff`, `age` and `last_tile`.

        `age` is the hours from the start of the tile to the cutoff, `last_tile` the last one that the cutoff sees.
        """
        rows = [
            (tile, cutoff, ceil((cutoff - self.edges[tile - 1]) / HOUR) if tile else ANCIENT, last)
            for cutoff in self.cutoffs
            for last in [bisect_right(self.edges, cutoff) - 1]
            for tile in range(last + 1)
        ]
        kinds = {"tile": "int16", "cutoff": "timestamp(6)", "age": "int32", "last_tile": "int16"}
        return ibis.memtable(pd.DataFrame(rows, columns=list(kinds)), schema=ibis.schema(kinds))

    @staticmethod
    def seen(tiles: ir.Table, views: ir.Table) -> ir.Table:
        """Repeat tiles for every cutoff that sees them: the door through which events reach features.

        `views` is what `views()` makes, best kept as a table: then an engine knows how small it is. `latest` is a door like it, and
        two more have the same rule: the first event of a user and the attributes are held against the cutoff itself (see
        `features.snapshot`).
        """
        return tiles.inner_join(views, "tile").drop("tile", "last_tile")

    @staticmethod
    def latest(tiles: ir.Table, views: ir.Table) -> ir.Table:
        """Repeat what has come together by each tile for every cutoff that sees the tile, but not the `next_tile` of the same."""
        seen = tiles.inner_join(views, "tile")
        return seen.filter(_.next_tile.isnull() | (_.next_tile > _.last_tile)).drop("tile", "next_tile", "last_tile")

    def before(self, events: ir.Table) -> ir.Table:
        """Leave out what no cutoff sees, and give the rest its `tile`."""
        known = events.filter(_.event_ts < ibis.literal(self.cutoffs[-1]))
        return known.mutate(tile=self.tile(known.event_ts))
