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
        """Make the table of which cutoff sees which tile: `tile`, `cutoff`, and `age`, the hours from its start to the cutoff."""
        rows = [
            (tile, cutoff, ceil((cutoff - self.edges[tile - 1]) / HOUR) if tile else ANCIENT)
            for cutoff in self.cutoffs
            for tile in range(bisect_right(self.edges, cutoff))
        ]
        frame = pd.DataFrame(rows, columns=["tile", "cutoff", "age"])
        return ibis.memtable(frame, schema=ibis.schema({"tile": "int16", "cutoff": "timestamp(6)", "age": "int32"}))

    @staticmethod
    def seen(tiles: ir.Table, views: ir.Table) -> ir.Table:
        """Repeat tiles for every cutoff that sees them: the door through which events reach features.

        `views` is what `views()` makes, best kept as a table: then an engine knows how small it is. Two more have the same rule:
        the first event of a user and the attributes are held against the cutoff itself (see `features.snapshot`).
        """
        return tiles.inner_join(views, "tile").drop("tile")

    def before(self, events: ir.Table) -> ir.Table:
        """Leave out what no cutoff sees, and give the rest its `tile`."""
        known = events.filter(_.event_ts < ibis.literal(self.cutoffs[-1]))
        return known.mutate(tile=self.tile(known.event_ts))
