"""Show groups: who is in each segment and persona tonight, who came and left, what is to be done, and how long members stay."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from pipeline.columns import PLAY, STAGE
from pipeline.flow import as_of_night, retention
from pipeline.settings import Settings
from pipeline.show import night_dates, plain_table, score_text, shown_night
from pipeline.show_flow import print_stays, tell_stays
from pipeline.tables import memberships, read

# Why somebody is not contacted: a column of the night and how it is told. Several may hold for one user.
WHY_NOT = {"holdout": "held out", "no_consent": "no consent", "capped": "capped", "contacted_recently": "contacted recently"}
_SHOWN_STAGES = 4
_SCORE_WIDTH, _NAMES_WIDTH = 17, 28


def tell_segments(settings: Settings, as_of: date | None) -> dict[str, Any]:
    """Gather what `show segments` tells of a night, in plain values and without users: a row per segment in order of priority.

    Who entered and left is against the recorded night before. Raises DataError when there is no such night.
    """
    day = shown_night(settings, as_of)
    before_day = max((when for when in night_dates(settings) if when < day), default=None)
    targets = [target.name for target in settings.targets]
    wanted = {"user_id", "primary_segment", "segments", "segments_since", *(spec.name for spec in PLAY)}
    night = read(settings.output, "segments", day, columns=wanted | {f"{name}_score" for name in targets})
    before = None if before_day is None else read(settings.output, "segments", before_day, columns={"user_id", "segments"})
    ledger = as_of_night(memberships(settings.output), day)
    return {
        "as_of": day.isoformat(),
        "before": None if before_day is None else before_day.isoformat(),
        "users": len(night),
        "targets": _targets(settings, night),
        "segments": _segments(settings, night, before, day),
        "in_none": {"users": night["primary_segment"].null_count, "mean_scores": _in_none(night, targets)},
        "stays": tell_stays(retention(ledger, day, without_first=True)),
    }


def tell_personas(settings: Settings, as_of: date | None) -> dict[str, Any]:
    """Gather what `show personas` tells of a night, in plain values and without users: a row per persona, by number.

    The last row, of persona null, is of whoever has none. Raises DataError when there is no such night.
    """
    day = shown_night(settings, as_of)
    targets = [target.name for target in settings.targets]
    wanted = {"persona", "persona_name", "persona_typicality", STAGE, *(f"{name}_score" for name in targets)}
    night = read(settings.output, "segments", day, columns=wanted)
    frame = night.to_pandas()
    shown = [name for name in targets if f"{name}_score" in frame]
    found = []
    for number, rows in frame.groupby("persona", dropna=False):
        typicality = rows.persona_typicality.mean() if "persona_typicality" in rows else float("nan")
        found.append(
            {
                "persona": None if pd.isna(number) else int(number),
                "name": None if pd.isna(number) else str(rows.persona_name.iloc[0]),
                "users": len(rows),
                "share": len(rows) / len(frame),
                "mean_typicality": _known(typicality),
                "mean_scores": _means(rows, shown),
                "journey_stages": _mix(rows[STAGE]) if STAGE in rows else {},
            }
        )
    return {"as_of": day.isoformat(), "users": len(frame), "targets": _targets(settings, night), "personas": found}


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
    against = f", against the night of {told['before']}" if told["before"] else ", the first night"
    console.print(f"\nSegments on the night of {told['as_of']}: {told['users']:,} users{against}\n", highlight=False)
    table = plain_table("Members, in order of priority: a user's first segment is the primary one")
    table.add_column("segment", no_wrap=True)
    table.add_column("purpose", min_width=18)
    for name in ("members", "primary", "entered", "left", "mean stay"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in told["segments"]:
        stay = None if row["mean_stay_days"] is None else f"{row['mean_stay_days']:,.1f} d"
        counts = [_count(row[name]) for name in ("members", "primary", "entered", "left")]
        table.add_row(row["segment"], row["purpose"], *counts, stay or "–")
    table.add_row("–", "in no segment", "–", _count(told["in_none"]["users"]), "–", "–", "–")
    console.print(table)
    groups = [(row["segment"], row["mean_scores"]) for row in told["segments"]]
    print_scores(told["targets"], [*groups, ("in no segment", told["in_none"]["mean_scores"])], console, currency=currency)
    _print_plays(told["segments"], console)
    print_stays(told["stays"], console)


def print_personas(told: Mapping[str, Any], console: Console, *, currency: str) -> None:
    """Print what `tell_personas` gathered."""
    console.print(f"\nPersonas on the night of {told['as_of']}: {told['users']:,} users\n", highlight=False)
    table = plain_table("Personas: who behaves alike; typicality is 100% for the most typical")
    table.add_column("persona", justify="right", no_wrap=True)
    table.add_column("name", min_width=20)
    for name in ("users", "share", "typicality"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("journey stages", min_width=24)
    for row in told["personas"]:
        number, name = ("–", "not known") if row["persona"] is None else (str(row["persona"]), row["name"])
        typical = "–" if row["mean_typicality"] is None else f"{row['mean_typicality']:.0%}"
        table.add_row(number, name, f"{row['users']:,}", f"{row['share']:.1%}", typical, _mix_text(row["journey_stages"]))
    console.print(table)
    groups = [("not known" if row["persona"] is None else row["name"], row["mean_scores"]) for row in told["personas"]]
    print_scores(told["targets"], groups, console, currency=currency)


def print_scores(
    targets: Sequence[Mapping[str, Any]],
    groups: Sequence[tuple[str, Mapping[str, Any]]],
    console: Console,
    *,
    currency: str,
) -> None:
    """Print the mean scores of named groups, in as many tables as the terminal's width asks for."""
    most = max(1, (console.width - _NAMES_WIDTH) // _SCORE_WIDTH)
    for at in range(0, len(targets), most):
        table = plain_table("Mean score, and of how many users" if at == 0 else "Mean score, continued")
        table.add_column("", min_width=14)
        shown = targets[at : at + most]
        for target in shown:
            table.add_column(target["target"], justify="right", no_wrap=True)
        for name, means in groups:
            table.add_row(name, *(_mean_text(means[target["target"]], target, currency) for target in shown))
        console.print(table)


def _segments(settings: Settings, night: pa.Table, before: pa.Table | None, day: date) -> list[dict[str, Any]]:
    own = members(night)
    frame = own.to_pandas()
    counts = frame.segment.value_counts()
    days = (pd.Timestamp(day) - pd.to_datetime(frame.since)).dt.days
    stay = days.groupby(frame.segment).mean()
    moved = None if before is None else _moved(own, members(before))
    plays = night.drop_columns([name for name in ("segments", "segments_since") if name in night.column_names]).to_pandas()
    targets = [target.name for target in settings.targets if f"{target.name}_score" in plays]
    known = {segment.name: segment for segment in settings.segments}
    # A night may have segments that the config has no more.
    left_behind = sorted({*counts.index, *(moved or {})} - set(known))
    found = []
    for name in (*known, *left_behind):
        offer = known[name].play if name in known else None
        told = known[name].purpose if name in known else "no longer in the config"
        inside = plays.iloc[frame.place[frame.segment == name]]
        entered, left = (None, None) if moved is None else moved.get(name, (0, 0))
        found.append(
            {
                "segment": name,
                "purpose": told,
                "members": int(counts.get(name, 0)),
                "primary": int((plays.primary_segment == name).sum()),
                "entered": entered,
                "left": left,
                "mean_stay_days": _known(stay.get(name, float("nan"))),
                "mean_scores": _means(inside, targets),
                "play": _play(plays[plays.primary_segment == name], day, None if offer is None else offer.offer),
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
    later = pd.to_datetime(planned.contact_on) > pd.Timestamp(day)
    return {
        "offer": offer,
        "channels": {str(name): int(users) for name, users in planned.contact_channel.dropna().value_counts().items()},
        "actionable": _held(planned.actionable),
        **{name: _held(planned[name]) for name in WHY_NOT},
        "waiting": int(later.sum()),
    }


def _held(flags: pd.Series) -> int:
    return int(flags.eq(True).sum())


def _in_none(night: pa.Table, targets: Sequence[str]) -> dict[str, Any]:
    shown = [name for name in targets if f"{name}_score" in night.column_names]
    rows = night.filter(night["primary_segment"].is_null()).select([f"{name}_score" for name in shown])
    return _means(rows.to_pandas(), shown)


def _targets(settings: Settings, night: pa.Table) -> list[dict[str, Any]]:
    """Name the targets that the night has scores of; one that came into the config later was not asked then."""
    return [
        {"target": target.name, "meaning": target.meaning, "is_amount": target.kind == "value"}
        for target in settings.targets
        if f"{target.name}_score" in night.column_names
    ]


def _means(rows: pd.DataFrame, targets: Sequence[str]) -> dict[str, dict[str, Any]]:
    scores = {name: rows[f"{name}_score"] for name in targets}
    return {name: {"mean": _known(own.mean()), "users": int(own.count())} for name, own in scores.items()}


def _mix(values: pd.Series) -> dict[str, float]:
    return {str(name): float(share) for name, share in values.value_counts(normalize=True).items()}


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _mean_text(found: Mapping[str, Any], target: Mapping[str, Any], currency: str) -> str:
    if found["mean"] is None:
        return "–"
    return f"{score_text(found['mean'], currency if target['is_amount'] else None)} of {found['users']:,}"


def _mix_text(shares: Mapping[str, float]) -> str:
    shown = list(shares.items())[:_SHOWN_STAGES]
    rest = sum(list(shares.values())[_SHOWN_STAGES:])
    return ", ".join([*(f"{name} {share:.0%}" for name, share in shown), *([f"others {rest:.0%}"] if rest else [])]) or "–"


def _print_plays(segments: Sequence[Mapping[str, Any]], console: Console) -> None:
    planned = [row for row in segments if row["play"] is not None]
    if not planned:
        return
    table = plain_table("What to do for those of whom it is the primary segment, and why not (several may hold for one user)")
    table.add_column("segment", no_wrap=True)
    table.add_column("offer", no_wrap=True)
    table.add_column("channels", min_width=14)
    counted = ("actionable", *WHY_NOT, "waiting")
    for name in counted:
        table.add_column(WHY_NOT.get(name, name), justify="right", min_width=max(map(len, WHY_NOT.get(name, name).split())))
    for row in planned:
        play = row["play"]
        table.add_row(row["segment"], play["offer"], ", ".join(_channels(play)) or "–", *(_count(play[name]) for name in counted))
    console.print(table)


def _channels(play: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name} {users:,}" for name, users in play["channels"].items())
