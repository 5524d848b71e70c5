"""Worlds in which the nights between two are lived through again, with one thing changed at a time.

    members on the first night
      └ time passes      events before the first night only, its models, its config
         └ behaviour     the features that each night recorded
            └ models     the scores and personas that each night recorded, where another model made them
               └ rules   as recorded

Every world takes the memberships of the first night through every later one, as `pipeline.ledger` does, so hysteresis and shortest
stays are part of it. A night sees what was before it and no more. An event of before the first night that came to the sources later
counts as having been there: sources do not say when they learnt of something.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _

from features.build import BUILT, steps
from features.engines import released_at_the_end
from features.expressions import columns_of
from features.inventory import Inventory
from features.labels import definition
from models.bundle import inventory_of
from pipeline import tables
from pipeline.answers import ACTIVE, Known, answered, answers_schema, asked_column
from pipeline.batches import HELD, Batches, Here, batches
from pipeline.columns import PERSONA
from pipeline.events import EventLog, midnight, read_events
from pipeline.frames import features_table, shards
from pipeline.known import known_of, with_asked
from pipeline.ledger import NEVER, Dates, step
from pipeline.progress import Narrator, Step
from pipeline.recorded import forming_of, recorded_answers
from pipeline.rules import FALSE, TRUE
from pipeline.segments import Forming, min_stays, places_of, rule_truths, told_rows
from pipeline.settings import PERSONAS, Settings
from pipeline.tracking import Champion


@dataclass(frozen=True)
class Story:
    """What worlds are made from: the settings and models of the first night, and of every later one its settings and versions.

    `everybody` are the users whom both the first and the last night know, `began` when they entered the segment, NaT if they are
    not in it on the first night.
    """

    segment: str
    first: date
    settings: Settings
    champions: Mapping[str, Champion]
    nights: Mapping[date, Settings]
    versions: Mapping[date, Mapping[str, str]]
    everybody: pa.Array
    began: np.ndarray

    @property
    def root(self) -> Path:
        """Where the nights are recorded."""
        return self.settings.output

    @cached_property
    def told(self) -> Forming:
        """What the first night formed the segment with."""
        told = forming_of(self.settings, self.first, has_before=False)
        return replace(told, segments=tuple(segment for segment in told.segments if segment.name == self.segment))

    @cached_property
    def rule_columns(self) -> frozenset[str]:
        """The columns that the rules read, those of stages and tiers too."""
        return self.told.in_rules.union(*(columns_of(stage.when) for stage in (*self.told.stages, *self.told.tiers)))

    def asks_alike(self, day: date, target: str) -> bool:
        """Whether a night asked what the first one did with a target."""
        then, now = ({spec.name: definition(spec) for spec in told.specs()} for told in (self.settings, self.nights[day]))
        return now.get(target) == then[target]

    def builds_alike(self, day: date) -> bool:
        """Whether a night's features, as far as the rules and models of the first read them, are those of its config."""
        then, now = (
            (told.sources, told.attributes, told.time_zone, replace(told.wanted(), contacts=None, outcomes=()))
            for told in (self.settings, self.nights[day])
        )
        # What plays and targets add has names that say what it is.
        read = self.rule_columns.union(*(champion.bundle.features for champion in self.champions.values()))
        return then == now and read & self.settings.rule_columns().keys() <= self.nights[day].rule_columns().keys()


def sizes(story: Story, narrator: Narrator) -> tuple[int, int, int]:
    """Give how many of the users are members at the end of each world but the last: time, behaviour, models."""
    early = read_events(story.settings, story.first, narrator, _remembered(story), looks=False)
    if early.attributes is not None:
        # What became known of a user since is part of what happened.
        early = replace(early, attributes=early.attributes.filter(_.known_from < midnight(story.first)))
    known = known_of(story.settings, story.champions, early.features.features, story.told)
    idle = story.began
    for day in story.nights:
        with narrator.step(f"{day} if nobody acts", total=_steps(early, story)) as said:
            answers = _built(early, day, known, story, said)
            idle = _stepped(idle, answers, day, story)
            said.note(f"{_members(idle)} members")
    # A second log beside it would take its memory twice.
    del early
    late = _late(story, narrator)
    behaved = modelled = story.began
    for day in story.nights:
        with narrator.step(
            f"{day} as they act", total=_steps(late, story) if late and not _is_recorded(day, story) else None
        ) as said:
            if late is None or _is_recorded(day, story):
                answers = _scored(_recorded_users(day, known, story), known, day)
            else:
                answers = _built(late, day, known, story, said)
            behaved = _stepped(behaved, answers, day, story)
            modelled = _stepped(modelled, _with_models(answers, day, story), day, story)
            said.note(f"{_members(behaved)} by the models of {story.first}, {_members(modelled)} by its own")
    return _members(idle), _members(behaved), _members(modelled)


def _late(story: Story, narrator: Narrator) -> EventLog | None:
    """Read the events of the last night that has to be built anew, None where the tables recorded all that is needed."""
    unlike = [day for day in story.nights if not _is_recorded(day, story)]
    return read_events(story.settings, unlike[-1], narrator, _remembered(story), looks=False) if unlike else None


def _remembered(story: Story) -> Inventory:
    return inventory_of(champion.bundle for champion in story.champions.values())


def _is_recorded(day: date, story: Story) -> bool:
    return story.builds_alike(day) and all(story.asks_alike(day, name) for name in story.told.targets)


def _recorded_users(day: date, known: Known, story: Story) -> Batches:
    """Give the features that a night recorded, and whom its targets asked about."""
    needed = {feature.name for feature in known.read}.union(*(champion.bundle.features for champion in story.champions.values()))
    users = tables.read(story.root, "features", day, columns={"user_id", *needed}).sort_by("user_id")
    scores = tables.read(story.root, "scores", day, columns={"user_id", "target"})
    for name in known.models:
        asked = scores.filter(pc.equal(scores["target"], name))["user_id"]
        users = users.append_column(asked_column(name), pc.is_in(users["user_id"], value_set=asked.combine_chunks()))
    # Who has a persona was active.
    segments = tables.read(story.root, "segments", day, columns={"user_id", "persona"})
    active = segments.filter(segments["persona"].is_valid())["user_id"].combine_chunks()
    return Here(users.append_column(ACTIVE, pc.is_in(users["user_id"], value_set=active)))


def _steps(log: EventLog, story: Story) -> int:
    return steps(log.features, shards(log, 1, story.settings))


def _built(log: EventLog, day: date, known: Known, story: Story, said: Step) -> pa.Table:
    """Score what a log says of a night; the models, the features and whom targets ask about are those of the first night."""
    cutoff, engine = midnight(day), log.engine
    # There may be many nights.
    with released_at_the_end(engine, BUILT, HELD):
        users: ir.Table = features_table(log, [cutoff], story.settings, said).drop("cutoff")
        return _scored(batches(engine, with_asked(users, log, story.settings, cutoff)), known, day)


def _scored(users: Batches, known: Known, day: date) -> pa.Table:
    tonight, schema = replace(known, forming=replace(known.forming, as_of=day)), answers_schema(known)
    return users.map(partial(answered, known=tonight, with_reasons=False), schema).here(schema.names)


def _with_models(answers: pa.Table, day: date, story: Story) -> pa.Table:
    """Put in what a night recorded where another version was in charge, for the same question."""
    was, now = {name: champion.version for name, champion in story.champions.items()}, story.versions[day]
    other = {name for name in (*story.told.targets, PERSONAS) if was.get(name) != now.get(name)}
    columns = [f"{name}_score" for name in story.told.targets if name in other and story.asks_alike(day, name)]
    columns += [spec.name for spec in PERSONA] if PERSONAS in other else []
    if not columns:
        return answers
    recorded, _places = recorded_answers(story.root, day, story.told, None)
    at = pc.index_in(answers["user_id"].combine_chunks(), recorded["user_id"].combine_chunks())
    for name in columns:
        answers = answers.set_column(answers.column_names.index(name), answers.schema.field(name), recorded[name].take(at))
    return answers


def _stepped(entered_on: Dates, answers: pa.Table, day: date, story: Story) -> Dates:
    """Take the memberships of one world a night on; who is not known on a night is out."""
    told = replace(story.told, as_of=day)
    rows = told_rows(answers, told, places_of(answers, told.targets))
    enter, leave = rule_truths(rows, told)
    at = pc.index_in(story.everybody, rows["user_id"].combine_chunks())
    found, missing = at.fill_null(0).to_numpy(), at.is_null().to_numpy(zero_copy_only=False)[:, None]
    after = step(entered_on, enter[found] == TRUE, leave[found] == FALSE, day, min_stays(told))
    return np.where(missing, NEVER, after)


def _members(entered_on: Dates) -> int:
    return int((~np.isnat(entered_on)).sum())
