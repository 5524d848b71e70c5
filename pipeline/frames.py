"""Features as frames or tables: built by the engine, in as many shares of the users as its memory asks for."""

from collections.abc import Sequence
from datetime import datetime
from math import ceil

import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow.compute as pc

from features.build import BUILT, build_features
from features.engines import released_at_the_end
from features.snapshot import KEYS
from pipeline.events import EventLog
from pipeline.progress import Step
from pipeline.settings import Settings

# What a feature of a user takes at a cutoff while it is built, about: the value, its aggregate's state, and a copy.
BYTES_PER_FEATURE = 24


def features_frame(log: EventLog, cutoffs: Sequence[datetime], spine: ir.Table, settings: Settings, step: Step) -> pd.DataFrame:
    """Build the features of the `user_id` and `cutoff` (UTC) in `spine`: one row each, sorted by cutoff and user.

    Numbers are 32-bit floats, unknown where they are not finite: half the memory, and as much as trees can use.
    """
    numbers = [feature.name for feature in log.features.numbers]
    # Models take the memory that the engine holds.
    with released_at_the_end(log.engine, BUILT):
        table = features_table(log, cutoffs, settings, step, spine)
        rows = log.engine.to_pyarrow(table.cast(dict.fromkeys(numbers, "float32")))
    order = pc.sort_indices(rows, sort_keys=[(key, "ascending") for key in KEYS[::-1]])
    # Column by column into its place: there are only these two copies, however wide it is.
    values = np.empty((len(rows), len(numbers)), dtype=np.float32, order="F")
    for at, name in enumerate(numbers):
        values[:, at] = rows[name].to_numpy()[order]
        np.putmask(values[:, at], np.isinf(values[:, at]), np.nan)
    others = rows.drop_columns(numbers).take(order).to_pandas()
    return pd.concat([others, pd.DataFrame(values, columns=numbers)], axis=1)


def features_table(
    log: EventLog, cutoffs: Sequence[datetime], settings: Settings, step: Step, spine: ir.Table | None = None
) -> ir.Table:
    """Build the features of everybody known at the cutoffs (UTC), or in `spine`, in the engine: one row per user and cutoff."""
    return build_features(
        log.engine,
        log.events,
        log.features,
        cutoffs,
        attributes=log.attributes,
        spine=spine,
        shards=shards(log, len(cutoffs), settings),
        advance=step.advance,
    )


def shards(log: EventLog, cutoffs: int, settings: Settings) -> int:
    """Give into how many shares of the users the engine's memory cuts the work; a cluster shares it out by itself."""
    memory = settings.engine.bytes
    return 1 if memory is None else shards_of(log.users_there, cutoffs, len(log.features.built), memory)


def shards_of(users: int, cutoffs: int, features: int, memory: int) -> int:
    """Give the shares of the users of whom one fits into the memory (bytes)."""
    return max(1, ceil(users * cutoffs * features * BYTES_PER_FEATURE / memory))
