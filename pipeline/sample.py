"""Of a large log, models learn from a sample of its users: training takes as long, and as much memory, however many there are."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import reduce

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.backends.sql import SQLBackend

from features.engines import keep, release
from features.fingerprint import md5_number
from features.labels import eligible_users
from features.snapshot import KEYS
from pipeline.events import EventLog, midnight
from pipeline.progress import Narrator
from pipeline.settings import Settings

# Users who tell how many rows all of them have: within a hundredth or so.
_ASKED = 20_000
# Finer than any share of users that anybody could tell apart.
_PLACES = 1_000_000


def sample_of(log: EventLog, cutoffs: Sequence[datetime], settings: Settings, narrator: Narrator) -> EventLog:
    """Give the log itself, or of a large one the events and attributes of a sample of its users.

    A row is a user whom a target asks about at one of the `cutoffs` (UTC), or on the night itself. A sample has all rows of its
    users, about `training.most_rows` together. Who is in it is told by a hash of `training.seed` and the user alone, so that it is
    the same on either engine and at every rerun, and a smaller one is part of a larger one.
    """
    most, engine = settings.training.most_rows, log.engine
    at = [*cutoffs, midnight(log.as_of)]
    if log.users * len(at) <= most:
        return log
    with narrator.step("drawing a sample of users") as step:
        drawn = _drawn(engine, log.events, settings.training.seed)
        part = min(1.0, _ASKED / log.users)
        few = keep(engine, _of_share(log.events, drawn, part), "users_asked")
        rows = engine.execute(_asked(few, at, settings).count()) / part
        release(engine, [few])
        if rows <= most:
            step.note(f"not needed: {log.users:,} users have about {rows:,.0f} rows, {most:,} may be learned from")
            return log
        events = keep(engine, _of_share(log.events, drawn, most / rows), "sample")
        users = int(engine.execute(events.user_id.nunique()))
        step.note(f"{users:,} of {log.users:,} users, who have about {most:,} of {rows:,.0f} rows (training.most_rows)")
    attributes = None if log.attributes is None else _of_share(log.attributes, drawn, most / rows)
    return replace(log, events=events, attributes=attributes, sampled=users)


def _drawn(engine: SQLBackend, events: ir.Table, seed: int) -> ir.Table:
    """Give every user a `place`, drawn by a hash."""
    users = events.select("user_id").distinct()
    return keep(engine, users.mutate(place=md5_number(engine, ibis.literal(f"{seed}:") + users.user_id) % _PLACES), "drawn")


def _of_share(table: ir.Table, drawn: ir.Table, share: float) -> ir.Table:
    return table.semi_join(drawn.filter(_.place < round(share * _PLACES)), "user_id")


def _asked(events: ir.Table, cutoffs: Sequence[datetime], settings: Settings) -> ir.Table:
    asked = [eligible_users(events, target, cutoffs).select(*KEYS) for target in settings.specs()]
    return reduce(ir.Table.union, asked).distinct()
