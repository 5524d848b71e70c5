"""Plays: what to do tonight about each user's primary segment, by which channel, on which date, at which hour, and why not."""

from collections.abc import Sequence
from datetime import date
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import ConfigError
from features.families.contacts import RECENCY, counted
from features.windows import DAY
from pipeline.columns import PLAY
from pipeline.rules import TRUE, truths
from pipeline.segment_settings import (
    BEST_HOUR,
    PREFERRED,
    ChannelSettings,
    PlaySettings,
    PlaysSettings,
    QuietSettings,
    SegmentSettings,
    is_quiet,
)

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]
HOURS = 24
# The group that is held out of all plays; no segment has a blank name.
EVERYBODY = ""


def play_columns(
    rows: pa.Table,
    primary: npt.NDArray[np.integer[Any]],
    entered_on: npt.NDArray[np.datetime64],
    segments: Sequence[SegmentSettings],
    plays: PlaysSettings,
    as_of: date,
) -> dict[str, pa.Array]:
    """Give the columns PLAY of every row: null where the primary segment has no play, or there is none.

    `rows` have one row per user: `user_id`, the columns that the rules of consent read and, where known, `preferred_channel`,
    `best_hour` (local), and how often and how lately the user was contacted (see `features.families.contacts`); what is absent or
    null of that did not happen. `primary` is the place in `segments`, -1 for none; `entered_on` the date of entering it.
    Unknown consent is none. Of a play's channels the first with consent is taken; `preferred` puts those first that serve where
    the user acts most. A best hour that is quiet moves to the nearest that is not, of two equally near to the one before.
    """
    told = [segment.play for segment in segments]
    # The last place is for -1.
    has_play = np.array([*(play is not None for play in told), False])[primary]
    if not has_play.any():
        return {spec.name: pa.nulls(len(rows), spec.type) for spec in PLAY}

    channel = _channels(rows, primary, told, plays.channels)
    wait = np.array([0 if play is None else -(-play.delay // DAY) for play in told] + [0], dtype="timedelta64[D]")
    due_on = entered_on.astype("datetime64[D]") + wait[primary]
    contacts, most = _contacts(rows, primary, told)
    held = _held(rows, primary, segments, plays, has_play)
    no_consent = channel < 0
    capped = contacts >= most
    recent = _numbers(rows, RECENCY) < plays.rest / DAY
    hour = _hours(rows, primary, told, plays.quiet_hours)
    tonight = np.datetime64(as_of, "D")

    offers = [*(None if play is None else play.offer for play in told), None]
    made = {
        "play": pa.array(offers, pa.string()).take(pa.array(primary % len(offers))),
        "contact_channel": _named([channel.name for channel in plays.channels], np.where(has_play, channel, -1)),
        "contact_on": pa.array(np.maximum(due_on, tonight), mask=~has_play | np.isnat(due_on)),
        "contact_hour": pa.array(hour, mask=~has_play | (hour < 0)),
        "contacts": pa.array(contacts.astype(np.int32), mask=~has_play | np.isinf(most)),
        "holdout": pa.array(held, mask=~has_play),
        "no_consent": pa.array(no_consent, mask=~has_play),
        "capped": pa.array(capped, mask=~has_play),
        "contacted_recently": pa.array(recent, mask=~has_play),
        # An unknown date is never due.
        "actionable": pa.array(~no_consent & ~held & ~capped & ~recent & (due_on <= tonight), mask=~has_play),
    }
    return {spec.name: made[spec.name].cast(spec.type) for spec in PLAY}


def held_out(users: Sequence[str] | pa.Array | pa.ChunkedArray, group: str, *, salt: str, share: float) -> Mask:
    """Say which users are held out of a group: the same on every night and machine, drawn anew for every group.

    A user's draw is a keyed BLAKE2b (Aumasson et al., 2013) of group and user, as a number from 0 to 1. A larger share keeps all
    who were held out.

    >>> held_out(["ann", "bob", "cem", "dan"], "win_back", salt="beforehand", share=0.5).tolist()
    [True, True, False, False]
    """
    if share <= 0:
        return np.zeros(len(users), dtype=bool)
    told = users if isinstance(users, pa.Array | pa.ChunkedArray) else pa.array(users, pa.string())
    # The group's part is hashed once. No group holds the blank between it and the user, so that no two pairs are one text.
    begun = blake2b(group.encode() + b"\0", key=_key(salt), digest_size=8)

    def draw(user: bytes) -> bytes:
        hashed = begun.copy()
        hashed.update(user)
        return hashed.digest()

    drawn = b"".join([draw(user) for user in told.cast(pa.binary()).to_pylist()])
    # 53 bits are what a float holds exactly.
    return np.asarray((np.frombuffer(drawn, dtype="<u8") >> np.uint64(11)) * 2.0**-53 < share)


def salt_digest(salt: str) -> str:
    """Give what is recorded of a salt with each night: enough to see that it changed, and not the salt.

    >>> salt_digest("beforehand") == salt_digest("beforehand"), len(salt_digest("beforehand"))
    (True, 16)
    """
    return blake2b(salt.encode(), digest_size=8, person=b"recorded").hexdigest()


def refuse_new_salt(plays: PlaysSettings, recorded: Sequence[str | None]) -> None:
    """Raise ConfigError when nights were recorded with another salt; `recorded` are their digests, None of nights without one."""
    now = salt_digest(plays.salt)
    others = [digest for digest in recorded if digest is not None and digest != now]
    if others:
        nights = "a recorded night was" if len(others) == 1 else f"{len(others)} recorded nights were"
        raise ConfigError(
            f"plays.salt: {nights} drawn with another one (its digest is {others[-1]}, that of this one {now}): holdouts would be "
            "drawn anew, and who was held out so far would be contacted; put the old salt back, or start another output"
        )


def _key(salt: str) -> bytes:
    # A key is at most 64 bytes long, and a salt of 64 characters may be longer.
    return blake2b(salt.encode(), digest_size=32, person=b"holdout").digest()


def _channels(
    rows: pa.Table, primary: Numbers, told: Sequence[PlaySettings | None], channels: Sequence[ChannelSettings]
) -> npt.NDArray[np.int64]:
    """Choose each row's channel by the play of its segment: its place, -1 where none has consent."""
    chosen = np.full(len(rows), -1)
    if not channels:
        return chosen
    names = [channel.name for channel in channels]
    consent = truths(rows, [channel.consent for channel in channels]) == TRUE
    for at, play in enumerate(told):
        here = np.flatnonzero(primary == at)
        if play is None or not len(here):
            continue
        if play.channel == PREFERRED:
            order = list(range(len(names)))
            first = consent[here] & _serving(rows, here, channels)
        else:
            order = [names.index(name) for name in ((play.channel,) if isinstance(play.channel, str) else play.channel)]
            first = np.zeros((len(here), len(order)), dtype=bool)
        possible = np.hstack([first, consent[here][:, order]])
        chosen[here] = np.where(possible.any(axis=1), np.array([*order, *order])[possible.argmax(axis=1)], -1)
    return chosen


def _serving(rows: pa.Table, here: Numbers, channels: Sequence[ChannelSettings]) -> Mask:
    if "preferred_channel" not in rows.column_names:
        return np.zeros((len(here), len(channels)), dtype=bool)
    acts = rows["preferred_channel"].take(pa.array(here)).cast(pa.string())
    return np.stack([pc.is_in(acts, value_set=pa.array(told.serves, pa.string())).to_numpy() for told in channels], axis=1)


def _contacts(rows: pa.Table, primary: Numbers, told: Sequence[PlaySettings | None]) -> tuple[Numbers, Numbers]:
    """Give each row's contacts in the time that its cap looks back, and the cap: 0 and infinity without one."""
    caps = [None if play is None else play.cap for play in told]
    most = np.array([*(np.inf if cap is None else cap.contacts for cap in caps), np.inf])[primary]
    contacts = np.zeros(len(rows))
    for per in {cap.per for cap in caps if cap is not None}:
        looks = np.array([*(cap is not None and cap.per == per for cap in caps), False])[primary]
        contacts = np.where(looks, np.nan_to_num(_numbers(rows, counted(per))), contacts)
    return contacts, most


def _hours(
    rows: pa.Table, primary: Numbers, told: Sequence[PlaySettings | None], quiet: QuietSettings | None
) -> npt.NDArray[np.int32]:
    """Give each row's local hour outside quiet hours, -1 where it is not known."""
    best = _numbers(rows, "best_hour")
    is_hour = (best >= 0) & (best < HOURS)
    # -1 is the user's best hour, -2 none.
    fixed = np.array([-2 if play is None else -1 if play.moment == BEST_HOUR else play.moment for play in told] + [-2])[primary]
    wanted = np.where(fixed == -1, np.where(is_hour, best, -1), np.maximum(fixed, -1)).astype(np.int64)
    allowed = np.array([*(_allowed(hour, quiet) for hour in range(HOURS)), -1], dtype=np.int32)
    return allowed[wanted]


def _allowed(hour: int, quiet: QuietSettings | None) -> int:
    """Move an hour out of quiet hours: to the last before them or the first after them, whichever is nearer on the clock."""
    if quiet is None or not is_quiet(hour, quiet.start, quiet.stop):
        return hour
    before = (quiet.start - 1) % HOURS
    return before if (hour - before) % HOURS <= (quiet.stop - hour) % HOURS else quiet.stop


def _held(rows: pa.Table, primary: Numbers, segments: Sequence[SegmentSettings], plays: PlaysSettings, has_play: Mask) -> Mask:
    """Say whose play is held out, of the segment or of all; nobody is drawn of whom that is not asked."""
    held = np.zeros(len(rows), dtype=bool)
    groups = [(EVERYBODY, plays.holdout, has_play)]
    groups += [(told.name, told.play.holdout, primary == at) for at, told in enumerate(segments) if told.play is not None]
    for group, share, members in groups:
        asked = np.flatnonzero(members & ~held) if share > 0 else ()
        if len(asked):
            held[asked] = held_out(rows["user_id"].take(pa.array(asked)), group, salt=plays.salt, share=share)
    return held


def _numbers(rows: pa.Table, name: str) -> Numbers:
    """Give a column as floats: NaN where it is null, or absent."""
    if name not in rows.column_names:
        return np.full(len(rows), np.nan)
    return np.asarray(rows[name].cast(pa.float64()).to_numpy())


def _named(names: Sequence[str], places: Numbers) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(places, mask=places < 0))
