"""Why a segment changed its size between two nights: who is new or gone, and the sizes of worlds that differ in one thing."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import ConfigError, DataError, StoreError, did_you_mean, listed
from pipeline import tables
from pipeline.ledger import state
from pipeline.progress import Narrator
from pipeline.recorded import recorded_runs, settings_then, versions_then
from pipeline.settings import Settings
from pipeline.tracking import Champion, Tracker
from pipeline.worlds import Story, sizes

PARTS = ("new users", "gone users", "time passing", "new behaviour", "models", "rules or config")
_READ = {"user_id", "segments", "segments_since"}
# What of a config decides who is in a segment; of the segments, its own.
_SHAPING = {"time_zone", "sources", "attributes", "contract", "features", "targets", "journey_stages", "loyalty_tiers", "segments"}


@dataclass(frozen=True)
class Turned:
    """What a night has otherwise than the one before: a key of the config, or `models.` and a name; None where there is none."""

    night: date
    what: str
    was: Any
    now: Any


@dataclass(frozen=True)
class Change:
    """A segment's size on two nights, and the parts of the difference, which add up to it: by name of PARTS, in users."""

    segment: str
    first: date
    last: date
    before: int
    after: int
    parts: Mapping[str, int]
    nights: int
    turned: tuple[Turned, ...]

    def told(self) -> dict[str, Any]:
        """Give it in plain values."""
        days = {"from": self.first.isoformat(), "to": self.last.isoformat(), "nights": self.nights}
        sizes = {"members_before": self.before, "members_after": self.after, "change": self.after - self.before}
        turned = [{"night": one.night.isoformat(), "what": one.what, "from": one.was, "to": one.now} for one in self.turned]
        return {"segment": self.segment, **days, **sizes, "parts": dict(self.parts), "changed": turned}


def explain_change(settings: Settings, segment: str, first: date, last: date, tracker: Tracker, narrator: Narrator) -> Change:
    """Say why a segment is larger or smaller on a night than on an earlier one, by scoring and forming the nights since again.

    Raises DataError where a night is not recorded, ConfigError where neither night knows the segment, StoreError where the models
    of the first night or the settings of any cannot be read.
    """
    recorded = recorded_runs(settings)
    days = _nights_between(recorded, first, last)
    told = {day: settings_then(recorded[day], settings) for day in (first, *days)}
    names = {one.name for day in (first, last) for one in told[day].segments}
    if segment not in names:
        raise ConfigError(f"--segment {segment!r} is no segment of these nights: {did_you_mean(segment, names)}")
    versions = {day: versions_then(settings.output, day) for day in told}
    start, end = (tables.read(settings.output, "segments", day, columns=_READ).sort_by("user_id") for day in (first, last))
    (was_in, before), (is_in, after) = (_members(rows, segment) for rows in (start, end))
    users = [rows["user_id"].combine_chunks() for rows in (start, end)]
    stays, came = pc.is_in(users[0], users[1]), pc.invert(pc.is_in(users[1], users[0]))
    kept, new = (mask.to_numpy(zero_copy_only=False) for mask in (stays, came))
    worlds = (0, 0, 0)
    # Else nobody was ever a member, by the rules of then.
    if segment in {one.name for one in told[first].segments}:
        story = Story(
            segment=segment,
            first=first,
            settings=told[first],
            champions=_champions(tracker, versions[first], first),
            nights={day: told[day] for day in days},
            versions=versions,
            everybody=users[0].filter(stays),
            began=was_in[kept][:, None],
        )
        worlds = sizes(story, narrator)
    whole = [_count(was_in[kept]), *worlds, _count(is_in[~new])]
    parts = {
        "new users": _count(is_in[new]),
        "gone users": -_count(was_in[~kept]),
        **{name: later - earlier for name, (earlier, later) in zip(PARTS[2:], pairwise(whole), strict=True)},
    }
    return Change(segment, first, last, before, after, parts, len(days), tuple(_turned(told, versions, segment)))


def _turned(told: Mapping[date, Settings], versions: Mapping[date, Mapping[str, str]], segment: str) -> Iterator[Turned]:
    """Give what turned from night to night and may have changed a segment."""
    for earlier, later in pairwise(told):
        before, after = (
            {f"models.{name}": version for name, version in versions[day].items()} | _shaping(told[day], segment)
            for day in (earlier, later)
        )
        for key in dict.fromkeys([*before, *after]):
            if before.get(key) != after.get(key):
                yield Turned(later, key, before.get(key), after.get(key))


def _shaping(settings: Settings, segment: str) -> dict[str, Any]:
    """Give what in a config decides who is in a segment, by key path; what is a list of named things goes by their names."""
    told = settings.model_dump(mode="json", include=_SHAPING)
    own = [{key: one[key] for key in ("name", "enter", "leave", "min_stay")} for one in told["segments"] if one["name"] == segment]
    return dict(_flat("", told | {"segments": own}))


def _flat(path: str, told: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(told, list) and told and all(isinstance(one, dict) and "name" in one for one in told):
        told = {one["name"]: {key: value for key, value in one.items() if key not in ("name", "meaning")} for one in told}
    if not isinstance(told, dict):
        if told != []:
            yield path, told
        return
    for key, value in told.items():
        yield from _flat(f"{path}.{key}" if path else key, value)


def _champions(tracker: Tracker, versions: Mapping[str, str], first: date) -> dict[str, Champion]:
    if not tracker.exists():
        raise StoreError(f"there is no model registry at {tracker.uri}: the night of {first} cannot be scored again")
    return tracker.of_versions(versions)


def _nights_between(recorded: Collection[date], first: date, last: date) -> list[date]:
    if first >= last:
        raise ConfigError(f"--from {first} is not before --to {last}: name an earlier and a later night")
    for day in (first, last):
        if day not in recorded:
            said = f"there are {listed(reversed(sorted(recorded)))}" if recorded else "no night has been written yet"
            raise DataError(f"there is no night of {day}: {said}")
    return [day for day in sorted(recorded) if first < day <= last]


def _members(rows: pa.Table, segment: str) -> tuple[np.ndarray, int]:
    """Give when every user of a night entered the segment, NaT for who is not in it, and how many are."""
    said, since = (rows[name].combine_chunks() for name in ("segments", "segments_since"))
    entered_on = state(said, since, [segment])[:, 0]
    return entered_on, _count(entered_on)


def _count(entered_on: np.ndarray) -> int:
    return int((~np.isnat(entered_on)).sum())
