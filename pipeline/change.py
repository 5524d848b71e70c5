"""Why a segment changed its size between two nights: the nights between are lived through again, with one thing changed at a time.

    members on the first night, and the users that both nights know
      └ time passes      events before the first night only, its models, its rules
         └ behaviour     all events
            └ models     the models of each night
               └ rules   the rules of each night: as recorded

Each world starts from the memberships of the first night and takes them through every recorded night up to the last, as
`pipeline.ledger` does, so hysteresis and minimum stays are part of every world and the differences add up to the whole.
"""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _

from features.build import steps
from features.errors import ConfigError, DataError, did_you_mean, listed
from features.labels import Target
from pipeline import tables
from pipeline.answers import Known, answered, answers_schema
from pipeline.batches import batches, load
from pipeline.events import EventLog, midnight, read_events
from pipeline.frames import features_table, shards
from pipeline.ledger import state, step
from pipeline.progress import Narrator, Step
from pipeline.recorded import forming_of, latest, recorded_answers, settings_then
from pipeline.rules import FALSE, TRUE
from pipeline.score import known_of, with_asked
from pipeline.segments import Forming, min_stays, places_of, rule_truths, told_rows
from pipeline.settings import Settings
from pipeline.tables import nights
from pipeline.tracking import Champion, Tracker

PARTS = ("new users", "gone users", "time passing", "new behaviour", "models", "rules or config")


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
    models: Mapping[str, tuple[str, str]]

    def told(self) -> dict[str, Any]:
        """Give it in plain values."""
        days = {"from": self.first.isoformat(), "to": self.last.isoformat(), "nights": self.nights}
        sizes = {"members_before": self.before, "members_after": self.after, "change": self.after - self.before}
        models = {name: {"from": was, "to": now} for name, (was, now) in self.models.items()}
        return {"segment": self.segment, **days, **sizes, "parts": dict(self.parts), "changed_models": models}


@dataclass(frozen=True)
class _Story:
    """Everything that the worlds are made from; `everybody` are the users whom both nights know, in order."""

    settings: Settings
    segment: str
    first: date
    days: Sequence[date]
    champions: Mapping[str, Champion]
    everybody: pa.Array
    began: np.ndarray

    @property
    def root(self) -> Path:
        return self.settings.output


def explain_change(settings: Settings, segment: str, first: date, last: date, tracker: Tracker, narrator: Narrator) -> Change:
    """Say why a segment is larger or smaller on a night than on an earlier one, by scoring and forming it again.

    Raises DataError where a night is not recorded, ConfigError where neither night knows the segment, StoreError where the models
    or the settings of the first night cannot be read.
    """
    recorded = latest(nights(settings.output))
    days = _nights_between(recorded, first, last)
    then, now = (settings_then(recorded[day], settings) for day in (first, last))
    names = [told.name for known in (then, now) for told in known.segments]
    if segment not in names:
        raise ConfigError(f"--segment {segment!r} is no segment of these nights: {did_you_mean(segment, names)}")
    columns = {"user_id", "segments", "segments_since", "model_version"}
    start, end = (tables.read(settings.output, "segments", day, columns=columns).sort_by("user_id") for day in (first, last))
    (was_in, versions), (is_in, spoke) = ((_members(rows, segment), _versions(rows)) for rows in (start, end))
    users = [rows["user_id"].combine_chunks() for rows in (start, end)]
    stays, came = pc.is_in(users[0], users[1]), pc.invert(pc.is_in(users[1], users[0]))
    kept, new = (mask.to_numpy(zero_copy_only=False) for mask in (stays, came))
    if segment in [told.name for told in then.segments]:
        story = _Story(then, segment, first, days, tracker.of_versions(versions), users[0].filter(stays), was_in[kept])
        sizes = _sizes(story, narrator)
    else:
        # By the rules of then nobody was ever a member.
        sizes = [0, 0, 0]
    whole = [int((~np.isnat(was_in[kept])).sum()), *sizes, int((~np.isnat(is_in[~new])).sum())]
    parts = {
        "new users": int((~np.isnat(is_in[new])).sum()),
        "gone users": -int((~np.isnat(was_in[~kept])).sum()),
        **{name: after - before for name, before, after in zip(PARTS[2:], whole, whole[1:], strict=False)},
    }
    changed = {name: (version, spoke[name]) for name, version in versions.items() if spoke.get(name, version) != version}
    sizes_told = (int((~np.isnat(was_in)).sum()), int((~np.isnat(is_in)).sum()))
    return Change(segment, first, last, *sizes_told, parts, len(days), changed)


def _sizes(story: _Story, narrator: Narrator) -> list[int]:
    """Give how many of the users are members at the end of each world but the last, which is the recorded one."""
    told = forming_of(story.settings, story.days[0], has_before=False)
    told = replace(told, segments=tuple(segment for segment in told.segments if segment.name == story.segment))
    early, late = (read_events(story.settings, day, narrator) for day in (story.first, story.days[-1]))
    if early.attributes is not None:
        # What became known of a user since is part of what happened.
        early = replace(early, attributes=early.attributes.filter(_.known_from < midnight(story.first)))
    known = known_of(story.settings, story.champions, early.features.features, told)
    specs = story.settings.specs()
    needed = {name for champion in story.champions.values() for name in champion.bundle.features} | told.read & set(
        early.features.names
    )
    worlds: dict[str, Callable[[date], pa.Table]] = {
        "time passing": lambda day: _scored(early, _built(early, day, story, narrator), day, known, specs),
        "new behaviour": lambda day: _scored(late, _behaved(late, day, story, needed, narrator), day, known, specs),
        "models": lambda day: recorded_answers(story.root, day, told, None)[0],
    }
    sizes = []
    for name, answers_of in worlds.items():
        with narrator.step(f"nights again: {name}", total=len(story.days)) as said:
            sizes.append(_lived(story, told, answers_of, said))
            said.note(f"{sizes[-1]:,} members at the end")
    return sizes


def _lived(story: _Story, told: Forming, answers_of: Callable[[date], pa.Table], said: Step) -> int:
    """Take the memberships of the first night through the later ones of one world, and count the members at the end."""
    entered_on = story.began[:, None]
    for day in story.days:
        answers, forming = answers_of(day), replace(told, as_of=day)
        rows = told_rows(answers, forming, places_of(answers, forming.targets))
        enter, leave = rule_truths(rows, forming)
        at = pc.index_in(story.everybody, rows["user_id"].combine_chunks())
        found, missing = at.fill_null(0).to_numpy(), at.is_null().to_numpy(zero_copy_only=False)[:, None]
        entered_on = step(
            entered_on, (enter[found] == TRUE) & ~missing, (leave[found] == FALSE) & ~missing, day, min_stays(forming)
        )
        said.advance()
    return int((~np.isnat(entered_on)).sum())


def _built(log: EventLog, day: date, story: _Story, narrator: Narrator) -> ir.Table:
    with narrator.step(f"building features of {day}", total=steps(log.features, shards(log, 1, story.settings))) as said:
        return features_table(log, [midnight(day)], story.settings, said).drop("cutoff")


def _behaved(log: EventLog, day: date, story: _Story, needed: Set[str], narrator: Narrator) -> ir.Table:
    """Take the features that the night recorded, or build them where it recorded others than the models of then need."""
    rows = tables.read(story.root, "features", day, columns={"user_id", *needed})
    if needed <= set(rows.column_names):
        return load(log.engine, rows, f"behaved_{day:%Y%m%d}")
    return _built(log, day, story, narrator)


def _scored(log: EventLog, users: ir.Table, day: date, known: Known, specs: Sequence[Target]) -> pa.Table:
    asked = with_asked(users, log, specs, midnight(day))
    schema = answers_schema(known)
    answers = batches(log.engine, asked).map(partial(answered, known=known, with_reasons=False), schema)
    return answers.here(schema.names)


def _nights_between(recorded: Collection[date], first: date, last: date) -> list[date]:
    if first >= last:
        raise ConfigError(f"--from {first} is not before --to {last}: name an earlier and a later night")
    for day in (first, last):
        if day not in recorded:
            raise DataError(f"there is no night of {day}: there are {listed(reversed(sorted(recorded)))}")
    return [day for day in sorted(recorded) if first < day <= last]


def _members(rows: pa.Table, segment: str) -> np.ndarray:
    said, since = (rows[name].combine_chunks() for name in ("segments", "segments_since"))
    return state(said, since, [segment])[:, 0]


def _versions(rows: pa.Table) -> dict[str, str]:
    spoke = rows["model_version"][0].as_py() if len(rows) else ""
    return dict(pair.split("=", 1) for pair in spoke.split())
