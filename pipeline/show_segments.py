"""Show segments: who is in each tonight, who came and left, what is to be done about them, and how long members stay."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from pipeline.columns import PLAY
from pipeline.flow import IN_NONE
from pipeline.settings import Settings
from pipeline.show import (
    UNKNOWN,
    Column,
    asked_targets,
    count_text,
    mean_scores,
    night_dates,
    print_wide,
    score_columns,
    shown_night,
)
from pipeline.show_flow import print_stays, stays_until, tell_stays
from pipeline.tables import read

# Why somebody is not contacted: a column of the night and how it is told. Several may hold for one user.
_WHY_NOT = {"holdout": "held out", "no_consent": "no consent", "capped": "capped", "contacted_recently": "contacted recently"}


def tell_segments(settings: Settings, as_of: date | None) -> dict[str, Any]:
    """Gather what `show segments` tells of a night, in plain values and without users: a row per segment in order of priority.

    Who entered and left is against the recorded night before. Raises DataError when there is no such night.
    """
    day = shown_night(settings, as_of)
    before_day = max((when for when in night_dates(settings) if when < day), default=None)
    wanted = {"user_id", "primary_segment", "segments", "segments_since", *(spec.name for spec in PLAY)}
    scores = {f"{target.name}_score" for target in settings.targets}
    night = read(settings.output, "segments", day, columns=wanted | scores)
    before = None if before_day is None else read(settings.output, "segments", before_day, columns={"user_id", "segments"})
    targets = asked_targets(settings, night.column_names)
    in_none = night.filter(night["primary_segment"].is_null()).drop_columns(["segments"]).to_pandas()
    return {
        "as_of": day.isoformat(),
        "before": None if before_day is None else before_day.isoformat(),
        "users": len(night),
        "targets": targets,
        "segments": _segments(settings, night, before, day, targets),
        "in_none": {"users": len(in_none), "mean_scores": mean_scores(in_none, targets)},
        "stays": tell_stays(stays_until(settings, day)),
    }


def members(night: pa.Table) -> pa.Table:
    """Give a row per member of each segment: `place` (the row in `night`), `user_id`, `segment`, and `since` or null.

    >>> members(pa.table({"user_id": ["a", "b"], "segments": [["s", "t"], []]})).to_pylist()[1]
    {'place': 0, 'user_id': 'a', 'segment': 't', 'since': None}
    """
    lists = night["segments"].combine_chunks()
    places, named = pc.list_parent_indices(lists), pc.list_flatten(lists)
    since = pc.list_flatten(night["segments_since"].combine_chunks()) if "segments_since" in night.column_names else None
    # A night recorded before there were dates of entering has none.
    dates = since if since is not None and len(since) == len(named) else pa.nulls(len(named), pa.date32())
    users = night["user_id"].combine_chunks().take(places)
    return pa.table({"place": places, "user_id": users, "segment": named.cast(pa.string()), "since": dates})


def print_segments(told: Mapping[str, Any], console: Console, *, currency: str) -> None:
    """Print what `tell_segments` gathered."""
    rows = told["segments"]
    against = f"against the night of {told['before']}" if told["before"] else "the first night"
    console.print(f"\nSegments on the night of {told['as_of']}: {told['users']:,} users, {against}\n", highlight=False)
    names = [*(row["segment"] for row in rows), IN_NONE]
    days = [UNKNOWN if row["mean_days_in"] is None else f"{row['mean_days_in']:,.1f}" for row in rows]
    print_wide(
        console,
        "Members, in order of priority: a user's first segment is the primary one; days in begin with the first recorded night",
        ("segment", names),
        [
            ("members", [*(f"{row['members']:,}" for row in rows), UNKNOWN]),
            ("primary", [*(f"{row['primary']:,}" for row in rows), f"{told['in_none']['users']:,}"]),
            *((name, [*(count_text(row[name]) for row in rows), UNKNOWN]) for name in ("entered", "left")),
            ("mean days in", [*days, UNKNOWN]),
        ],
        notes=("purpose", [*(row["purpose"] for row in rows), "in no segment"]),
    )
    means = score_columns(told["targets"], [*(row["mean_scores"] for row in rows), told["in_none"]["mean_scores"]], currency)
    print_wide(console, "Mean score of members, and of how many", ("segment", names), means)
    _print_plays(rows, console)
    print_stays(told["stays"], console)


def _segments(
    settings: Settings, night: pa.Table, before: pa.Table | None, day: date, targets: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    own = members(night)
    frame = own.to_pandas()
    counts = frame.segment.value_counts()
    days = (pd.Timestamp(day) - pd.to_datetime(frame.since)).dt.days.groupby(frame.segment).mean()
    moved = None if before is None else _moved(own, members(before))
    users = night.drop_columns([name for name in ("segments", "segments_since") if name in night.column_names]).to_pandas()
    known = {segment.name: segment for segment in settings.segments}
    # A night may have segments that the config has no more.
    left_behind = sorted({*counts.index, *(moved or {})} - set(known))
    found = []
    for name in (*known, *left_behind):
        play = known[name].play if name in known else None
        primary = users[users.primary_segment == name]
        entered, left = (None, None) if moved is None else moved.get(name, (0, 0))
        mean_days = days.get(name, float("nan"))
        found.append(
            {
                "segment": name,
                "purpose": known[name].purpose if name in known else "no longer in the config",
                "members": int(counts.get(name, 0)),
                "primary": len(primary),
                "entered": entered,
                "left": left,
                "mean_days_in": None if pd.isna(mean_days) else float(mean_days),
                "mean_scores": mean_scores(users.iloc[frame.place[frame.segment == name]], targets),
                "play": _play(primary, day, None if play is None else play.offer),
            }
        )
    return found


def _moved(now: pa.Table, before: pa.Table) -> dict[str, tuple[int, int]]:
    """Count per segment who is in now and was not before, and who was in and is not."""
    keys = ["user_id", "segment"]
    entered, left = (
        one.select(keys).join(other.select(keys), keys, join_type="left anti")["segment"].to_pandas().value_counts()
        for one, other in ((now, before), (before, now))
    )
    return {str(name): (int(entered.get(name, 0)), int(left.get(name, 0))) for name in {*entered.index, *left.index}}


def _play(rows: pd.DataFrame, day: date, offer: str | None) -> dict[str, Any] | None:
    """Tell what is to be done for those of whom a segment is the primary one; null where nothing is."""
    if "actionable" not in rows or "play" not in rows:
        return None
    planned = rows[rows.play.notna()]
    if len(planned):
        offer = str(planned.play.mode().iloc[0])
    if offer is None:
        return None
    return {
        "offer": offer,
        "channels": {str(name): int(users) for name, users in planned.contact_channel.dropna().value_counts().items()},
        **{name: int(planned[name].eq(True).sum()) for name in ("actionable", *_WHY_NOT)},
        "waiting": int((pd.to_datetime(planned.contact_on) > pd.Timestamp(day)).sum()),
    }


def _print_plays(segments: Sequence[Mapping[str, Any]], console: Console) -> None:
    planned = [row for row in segments if row["play"] is not None]
    if not planned:
        return
    plays = [row["play"] for row in planned]
    channels = dict.fromkeys(name for play in plays for name in play["channels"])
    columns: list[Column] = [
        ("users", [f"{row['primary']:,}" for row in planned]),
        *((f"by {name}", [f"{play['channels'].get(name, 0):,}" for play in plays]) for name in channels),
        *((_WHY_NOT.get(name, name), [f"{play[name]:,}" for play in plays]) for name in ("actionable", *_WHY_NOT, "waiting")),
    ]
    title = (
        "What to do for those of whom it is the primary segment, how many may be contacted tonight (actionable), and why others not"
    )
    offers = ("offer", [play["offer"] for play in plays])
    print_wide(
        console, f"{title} (several reasons may hold)", ("segment", [row["segment"] for row in planned]), columns, notes=offers
    )
