"""Segments: named groups with a purpose, by rules over all that is known of a user tonight and by who was in them before.

answers ── placed ── stages ── rules ── step ──▶ memberships ──┬─ reasons ──▶ `segments`
                                  state before ──┘             ├─ plays ────┘
                                                               └─ turns ──▶ ledger
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import ConfigError, did_you_mean
from features.expressions import columns_of
from features.families.contacts import RECENCY, counted
from features.windows import DAY
from models.bands import Bands
from pipeline.columns import ARROW_TYPES, STAGE, TIER
from pipeline.ledger import NEVER, TURN, Dates, lists, state, step
from pipeline.phrases import reason_columns
from pipeline.plays import play_columns
from pipeline.rules import FALSE, TRUE, first_met, truths, why_entered, why_left
from pipeline.segment_settings import PlaysSettings, SegmentSettings, StageSettings

# Every score of the night by target, in order.
Places = Mapping[str, np.ndarray]
# Goes before the name of a column as it was on the recorded night before; no column has a name with blanks.
BEFORE = "before "
_STATE = ("segments", "segments_since")
_BEHIND = "; behind the score: "
_REMOVED = "the segment is no longer in the config"
TURNS = pa.field("turns", pa.list_(TURN))


@dataclass(frozen=True)
class Forming:
    """What segments are formed with; it is sent to every executor. `rule_columns` are DuckDB types by name, `bands` by target."""

    as_of: date
    run_id: str
    model_version: str
    targets: tuple[str, ...]
    segments: tuple[SegmentSettings, ...]
    rule_columns: Mapping[str, str]
    plays: PlaysSettings = PlaysSettings()
    stages: tuple[StageSettings, ...] = ()
    tiers: tuple[StageSettings, ...] = ()
    bands: Mapping[str, Bands] = field(default_factory=dict)
    # Whether a night was recorded before.
    has_before: bool = False

    @cached_property
    def in_rules(self) -> frozenset[str]:
        """The columns that rules of segments read."""
        return frozenset().union(*(columns_of(rule) for segment in self.segments for rule in segment.rules().values()))

    @cached_property
    def read(self) -> frozenset[str]:
        """Every column that the segment stage reads, beside scores and personas."""
        stages = [columns_of(stage.when) for stage in (*self.stages, *self.tiers)]
        consents = [columns_of(channel.consent) for channel in self.plays.channels]
        caps = {counted(segment.play.cap.per) for segment in self.segments if segment.play and segment.play.cap}
        return frozenset({STAGE, "preferred_channel", "best_hour", RECENCY} | caps).union(self.in_rules, *stages, *consents)

    @property
    def remembered(self) -> dict[str, pa.DataType]:
        """The columns of a night that the next one looks at, with their types."""
        rules = {name: ARROW_TYPES[self.rule_columns[name]] for name in sorted(self.in_rules)}
        return rules | {"segments": pa.list_(pa.string()), "segments_since": pa.list_(pa.date32())}


def before_schema(forming: Forming) -> pa.Schema:
    """Give the columns that say how a user stood on the recorded night before."""
    return pa.schema([pa.field(BEFORE + name, kind) for name, kind in forming.remembered.items()])


def refuse_unknown(rules: Mapping[str, str], columns: Collection[str]) -> None:
    """Raise ConfigError naming every rule, by its key path, that reads a column that tonight's data do not have."""
    read = {place: sorted(columns_of(rule) - set(columns)) for place, rule in rules.items()}
    problems = [
        f"{place} reads {missing[0]!r}, which tonight's events cannot give: {did_you_mean(missing[0], columns)}"
        for place, missing in read.items()
        if missing
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def told_rows(answers: pa.Table, forming: Forming, places: Places) -> pa.Table:
    """Give what rules are asked of: answers without reasons, with percentiles, bands, journey stage and loyalty tier."""
    rows = answers.drop_columns([f"{name}_reasons" for name in forming.targets])
    for name in forming.targets:
        score = rows[f"{name}_score"].to_numpy()
        asked = ~np.isnan(score)
        percentile, band = forming.bands.get(name, Bands()).place(score[asked], places[name])
        spread = pa.array(np.cumsum(asked) - 1, mask=~asked)
        rows = rows.append_column(f"{name}_percentile", pa.array(percentile, pa.float64()).take(spread))
        rows = rows.append_column(f"{name}_band", pa.array(band, pa.string()).take(spread))
    return with_stages(rows, forming.stages, forming.tiers)


def with_stages(rows: pa.Table, stages: Sequence[StageSettings], tiers: Sequence[StageSettings]) -> pa.Table:
    """Add the columns journey_stage, unless it is there and has no rules, and loyalty_tier; rules of one may read the other."""
    ladders = [(STAGE, stages), (TIER, tiers)]
    if any(TIER in columns_of(stage.when) for stage in stages):
        ladders.reverse()
    for name, rules in ladders:
        if rules or name not in rows.column_names:
            rows = rows.append_column(name, first_met(rows, [(stage.name, stage.when) for stage in rules]))
    return rows


def segments_rows(answers: pa.Table, forming: Forming, places: Places, schema: pa.Schema) -> pa.Table:
    """Give the rows of `segments`, whose `schema` is given, and their TURNS: one per user, with three reasons in words.

    `answers` have `before_schema` where a night was recorded before. A rule that is null for a user, because a score is unknown, is
    not met.
    """
    rows = told_rows(answers, forming, places)
    before = rows.select(before_schema(forming).names).rename_columns(list(forming.remembered)) if forming.has_before else None
    names = [segment.name for segment in forming.segments]
    was = _state(before, names) if before is not None else np.full((len(rows), len(names)), NEVER)
    now = _now(rows, forming, was)
    said, since = lists(now, names)
    is_in = ~np.isnat(now)
    # One column more, of nobody, so that a night without segments is no case of its own.
    everywhere = np.column_stack([is_in, ~is_in.any(axis=1)])
    primary = everywhere.argmax(axis=1)
    entered_on = np.column_stack([now, np.full(len(rows), NEVER)])[np.arange(len(rows)), primary]
    primary = np.where(primary < len(names), primary, -1)
    reasons = _reasons(answers, forming, [names[place] if place >= 0 else None for place in primary])
    made = {
        "primary_segment": pa.array(names, pa.string()).take(pa.array(primary, mask=primary < 0)),
        "segments": said,
        "segments_since": since,
        **{f"reason_{at}": column for at, column in enumerate(reasons, start=1)},
        **play_columns(rows, primary, entered_on, forming.segments, forming.plays, forming.as_of),
        "model_version": pa.array([forming.model_version] * len(rows), pa.string()),
        "run_id": pa.array([forming.run_id] * len(rows), pa.string()),
        TURNS.name: _turns(answers, rows, before, forming, was, now),
    }
    columns = []
    for spec in (*schema, TURNS):
        column = made.get(spec.name) if spec.name in made else rows[spec.name] if spec.name in rows.column_names else None
        columns.append(pa.nulls(len(rows), spec.type) if column is None else column.cast(spec.type))
    return pa.table(columns, schema=pa.schema([*schema, TURNS]))


def rule_truths(rows: pa.Table, forming: Forming) -> tuple[np.ndarray, np.ndarray]:
    """Ask every row every rule: whether each segment's `enter` and `leave` are true, false or unknown (users × segments).

    Where a segment has no rule to leave by, whoever does not meet `enter` leaves.
    """
    rules = [segment.enter for segment in forming.segments]
    leaving = [segment.leave for segment in forming.segments if segment.leave is not None]
    told = truths(rows, [*rules, *leaving])
    enter = told[:, : len(rules)]
    leave = np.where(enter == TRUE, FALSE, TRUE).astype(np.int8)
    leave[:, [segment.leave is not None for segment in forming.segments]] = told[:, len(rules) :]
    return enter, leave


def _now(rows: pa.Table, forming: Forming, was: Dates) -> Dates:
    enter, leave = rule_truths(rows, forming)
    return step(was, enter == TRUE, leave == FALSE, forming.as_of, min_stays(forming))


def min_stays(forming: Forming) -> np.ndarray:
    """Give how long a member of each segment stays at least, in whole days."""
    return np.array([-(-segment.min_stay // DAY) for segment in forming.segments], dtype="timedelta64[D]")


def places_of(answers: pa.Table, targets: Sequence[str]) -> Places:
    """Give every score by target, in order."""
    return {name: np.sort(answers[f"{name}_score"].drop_null().to_numpy()) for name in targets}


def _state(before: pa.Table, names: Sequence[str]) -> Dates:
    said, since = (before[name].combine_chunks() for name in _STATE)
    return state(said, since, names)


def _reasons(answers: pa.Table, forming: Forming, primary: Sequence[str | None]) -> list[pa.Array]:
    """Take the reasons of the first target that the primary segment's rule reads, else of the first that scored the user.

    An arrow says whether a reason raises or lowers that score. Who has no score has no reasons.
    """
    told = {name: answers[f"{name}_reasons"].combine_chunks() for name in forming.targets}
    target_of = {segment.name: segment.target(forming.targets) for segment in forming.segments}
    return reason_columns(told, [None if name is None else target_of[name] for name in primary])


def _turns(answers: pa.Table, rows: pa.Table, before: pa.Table | None, forming: Forming, was: Dates, now: Dates) -> pa.ListArray:
    """Give each user's TURNs of tonight: which part of which rule turned, and the strongest reason of the score behind it."""
    users: list[np.ndarray] = []
    turned: list[pa.StructArray] = []
    for at, segment in enumerate(forming.segments):
        target = segment.target(forming.targets)
        for is_in in (True, False):
            there, here = np.isnat(was[:, at]), np.isnat(now[:, at])
            places = np.flatnonzero(there & ~here if is_in else ~there & here)
            if not len(places):
                continue
            told = rows.take(places)
            stood = None if before is None else before.take(places)
            why = why_entered(told, stood, segment.enter) if is_in else why_left(told, stood, segment.enter, segment.leave)
            if target is not None:
                behind = reason_columns(
                    {target: answers[f"{target}_reasons"].take(places).combine_chunks()}, [target] * len(places), most=1
                )[0]
                why = pc.if_else(behind.is_valid(), pc.binary_join_element_wise(why, pc.fill_null(behind, ""), _BEHIND), why)
            dates = (now if is_in else was)[places, at].astype("datetime64[D]")
            users.append(places)
            turned.append(_turn(segment.name, is_in=is_in, entered_on=pa.array(dates, pa.date32()), reason=why))
    if before is not None:
        for places, name, dates in _removed(before, [segment.name for segment in forming.segments]):
            users.append(places)
            turned.append(_turn(name, is_in=False, entered_on=dates, reason=pa.array([_REMOVED] * len(places), pa.string())))
    if not users:
        return pa.array([[]] * len(rows), TURNS.type)
    found = np.concatenate(users)
    order = np.argsort(found, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(found, minlength=len(rows)))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.concat_arrays(turned).take(pa.array(order)), type=TURNS.type)


def _turn(segment: str, *, is_in: bool, entered_on: pa.Array, reason: pa.Array) -> pa.StructArray:
    size = len(entered_on)
    columns = [pa.array([segment] * size, pa.string()), pa.array([is_in] * size, pa.bool_()), entered_on, reason]
    return pa.StructArray.from_arrays([_whole(column) for column in columns], fields=list(TURN))


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _removed(before: pa.Table, names: Sequence[str]) -> list[tuple[np.ndarray, str, pa.Array]]:
    """Give who was in segments that the config no longer has: places of users, the segment, and since when."""
    said, since = (before[name].combine_chunks() for name in _STATE)
    held = pc.list_flatten(said)
    known = {name for name in held.unique().to_pylist() if name is not None} - set(names)
    users, dates = pc.list_parent_indices(said).to_numpy(), pc.list_flatten(since)
    if not known or len(dates) != len(users):
        return []
    found = []
    for name in sorted(known):
        here = pc.equal(held, name)
        found.append((users[here.to_numpy(zero_copy_only=False)], name, dates.filter(here)))
    return found
