"""The ledger of memberships: who came into which segment and who left, night after night.

    state before ── step ──▶ state after          per batch of users, on one machine or on executors
         open stays ── settled ──▶ stays          once a night, for all users together

A night's state is in its `segments` rows: the segments of a user and since when. So a night needs the night before it and nothing
else, and folding all nights in the order of their dates gives one ledger, in whatever order they were run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.columns import MEMBERSHIPS

Dates = npt.NDArray[np.datetime64]
Flags = npt.NDArray[np.bool_]
NEVER = np.datetime64("NaT", "D")
GONE = "the user is no longer known"

# What one night says: a user came into a segment (`entered_on` is the night), or left the one entered on that date.
TURN = pa.struct(
    [
        pa.field("segment", pa.string()),
        pa.field("is_in", pa.bool_()),
        pa.field("entered_on", pa.date32()),
        pa.field("reason", pa.string()),
    ]
)


def step(entered_on: Dates, enter: Flags, hold: Flags, day: date, min_stay: npt.NDArray[np.timedelta64]) -> Dates:
    """Take memberships one night on: users × segments, the date of entering or NaT for who is out.

    Who meets `enter` is in. A member stays where `hold` says so, and until `min_stay` (one per segment) is over.
    """
    was = ~np.isnat(entered_on)
    # A comparison with NaT is false.
    is_bound = np.datetime64(day, "D") - entered_on < min_stay
    is_in = enter | (was & (hold | is_bound))
    return np.where(is_in, np.where(was, entered_on, np.datetime64(day, "D")), NEVER)


def state(segments: pa.Array, since: pa.Array, names: Sequence[str]) -> Dates:
    """Read memberships from a night's columns `segments` and `segments_since`: users × `names`; others are left out."""
    found = np.full((len(segments), len(names)), NEVER)
    users = pc.list_parent_indices(segments).to_numpy()
    places = pc.index_in(pc.list_flatten(segments), pa.array(names, pa.string()))
    # A null date, of a night recorded before there was a ledger, is NaT.
    dates = pc.list_flatten(since).to_numpy(zero_copy_only=False).astype("datetime64[D]")
    if len(dates) != len(users):
        return found
    known = places.is_valid().to_numpy(zero_copy_only=False)
    found[users[known], places.drop_null().to_numpy()] = dates[known]
    return found


def lists(entered_on: Dates, names: Sequence[str]) -> tuple[pa.ListArray, pa.ListArray]:
    """Write memberships as the columns `segments` and `segments_since`."""
    is_in = ~np.isnat(entered_on)
    users, places = np.nonzero(is_in)
    offsets = pa.array(np.concatenate([[0], np.cumsum(is_in.sum(axis=1))]), pa.int32())
    named = pa.array(names, pa.string()).take(pa.array(places))
    dates = pa.array(entered_on[users, places].astype("datetime64[D]"), pa.date32())
    return pa.ListArray.from_arrays(offsets, named), pa.ListArray.from_arrays(offsets, dates)


@dataclass(frozen=True)
class Stays:
    """Stays as one night leaves them: `open` are still going on, `closed` ended on the nights since; both like MEMBERSHIPS."""

    open: pa.Table
    closed: pa.Table

    @property
    def rows(self) -> pa.Table:
        """All of them."""
        return pa.concat_tables([self.open, self.closed])


NO_STAYS = Stays(MEMBERSHIPS.empty_table(), MEMBERSHIPS.empty_table())


def reopened(ledger: pa.Table, day: date) -> Stays:
    """Give the stays that were open when a night began, as far as was known then."""
    before = ledger.filter(pc.less(ledger["entered_on"], pa.scalar(day, pa.date32())))
    left = before["left_on"]
    was_open = pc.or_(left.is_null(), pc.fill_null(pc.greater_equal(left, pa.scalar(day, pa.date32())), False))
    held = before.filter(was_open)
    for name in ("left_on", "leave_reason"):
        at = MEMBERSHIPS.get_field_index(name)
        held = held.set_column(at, MEMBERSHIPS.field(name), pa.nulls(len(held), MEMBERSHIPS.field(name).type))
    return Stays(held.cast(MEMBERSHIPS), MEMBERSHIPS.empty_table())


def settled(stays: Stays, turns: pa.Table, users: pa.Array | pa.ChunkedArray, day: date) -> Stays:
    """Take stays one night on: `turns` are the night's TURNs, each with its `user_id`; `users` are all whom the night knows."""
    given: dict[str, Any] = {"open": stays.open, "turns": turns, "users": pa.table({"user_id": users})}
    with duckdb.connect() as engine:
        for name, rows in given.items():
            engine.register(name, rows)
        engine.execute(
            """
            CREATE TEMP TABLE met AS
            SELECT o.*, t.user_id IS NOT NULL AS has_left, t.reason, u.user_id IS NULL AS is_gone
            FROM open o
            LEFT JOIN turns t ON t.user_id = o.user_id AND t.segment = o.segment AND NOT t.is_in
            LEFT JOIN users u ON u.user_id = o.user_id
            """
        )
        closed = engine.sql(
            "SELECT user_id, segment, entered_on, ?::DATE AS left_on, enter_reason, CASE WHEN is_gone THEN ? ELSE reason END "
            "AS leave_reason FROM met WHERE has_left OR is_gone ORDER BY user_id, segment",
            params=[day, GONE],
        ).to_arrow_table()
        still = engine.sql(
            "SELECT user_id, segment, entered_on, NULL::DATE AS left_on, enter_reason, NULL::VARCHAR AS leave_reason "
            "FROM (SELECT user_id, segment, entered_on, enter_reason FROM met WHERE NOT (has_left OR is_gone) UNION ALL "
            "SELECT user_id, segment, entered_on, reason FROM turns WHERE is_in) ORDER BY user_id, segment"
        ).to_arrow_table()
    return Stays(still.cast(MEMBERSHIPS), pa.concat_tables([stays.closed, closed.cast(MEMBERSHIPS)]))


def turns_of(segments: pa.Table) -> pa.Table:
    """Flatten the column `turns` of formed segments (lists of TURN): a row per turn, with its `user_id`."""
    lists_ = segments["turns"].combine_chunks()
    users = segments["user_id"].combine_chunks().take(pc.list_parent_indices(lists_))
    return pa.table([users, *pc.list_flatten(lists_).flatten()], names=["user_id", *(field.name for field in TURN)])
