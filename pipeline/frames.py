"""Features as frames or tables: built by the engine, in as many shares of the users as its memory asks for."""

from collections.abc import Sequence
from datetime import datetime
from math import ceil

import ibis.expr.types as ir
import pandas as pd

from features.build import build_features
from features.snapshot import KEYS
from pipeline.events import EventLog
from pipeline.progress import Step
from pipeline.settings import Settings

# What a feature of a user takes at a cutoff while it is built, about: the value, its aggregate's state, and a copy.
BYTES_PER_FEATURE = 24


def features_frame(log: EventLog, cutoffs: Sequence[datetime], settings: Settings, step: Step) -> pd.DataFrame:
    """Build the features of everybody known at the cutoffs (UTC): one row per user and cutoff, sorted by cutoff and user."""
    table = features_table(log, cutoffs, settings, step)
    return log.engine.execute(table).sort_values(KEYS[::-1], ignore_index=True)


def features_table(log: EventLog, cutoffs: Sequence[datetime], settings: Settings, step: Step) -> ir.Table:
    """Build the features of everybody known at the cutoffs (UTC), in the engine: one row per user and cutoff."""
    return build_features(
        log.engine,
        log.events,
        log.features,
        cutoffs,
        attributes=log.attributes,
        shards=shards(log, len(cutoffs), settings),
        advance=step.advance,
    )


def shards(log: EventLog, cutoffs: int, settings: Settings) -> int:
    """Give into how many shares of the users the engine's memory cuts the work; a cluster shares it out by itself."""
    memory = settings.engine.bytes
    return 1 if memory is None else shards_of(log.users, cutoffs, len(log.features.built), memory)


def shards_of(users: int, cutoffs: int, features: int, memory: int) -> int:
    """Give the shares of the users of whom one fits into the memory (bytes)."""
    return max(1, ceil(users * cutoffs * features * BYTES_PER_FEATURE / memory))
