"""Rules that sort nobody tonight: met by everybody or by nobody, or two segments of the same people; told with their key paths.

answers ── counted, a batch at a time ──▶ a row per batch ── added up ──▶ RuleCheck, with its warnings
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.expressions import columns_of
from pipeline.batches import Batches
from pipeline.columns import MADE, RULE_COLUMNS, TARGET_COLUMNS
from pipeline.ledger import NEVER, Dates, state, step
from pipeline.rules import FALSE, TRUE, truths
from pipeline.segments import BEFORE, Forming, Places, min_stays, rule_truths, told_rows
from pipeline.settings import Settings

_COUNTS = pa.schema([pa.field(name, pa.list_(pa.int64())) for name in ("users", "met", "named", "shared")])


@dataclass(frozen=True)
class RuleCheck:
    """How many of the `users` meet each rule tonight, by key path, and what is to be told of rules that sort nobody.

    `members` are by the key path of a segment, stage or tier: of a segment whoever meets its rule, or met it before and stays; a
    stage or tier whoever meets its rule and none before it. What could not be asked is None.
    """

    users: int
    met: Mapping[str, int | None]
    members: Mapping[str, int | None]
    warnings: tuple[str, ...]

    @property
    def unchecked(self) -> list[str]:
        """The key paths of the rules that could not be asked."""
        return [place for place, count in self.met.items() if count is None]


@dataclass(frozen=True)
class _Asked:
    """What is asked of every batch; it is sent to every executor.

    `forming` has the `segments`, by key path, and the ladders of which every rule can be asked; `places` are the key paths of the
    segments' rules in the order in which they are counted, `rungs` those of stages and tiers, with their column and name. `others`
    are the remaining rules.
    """

    forming: Forming
    scores: Places
    segments: tuple[str, ...]
    places: tuple[str, ...]
    rungs: Mapping[str, tuple[str, str]]
    others: Mapping[str, str]


def check_rules(
    answers: Batches, settings: Settings, forming: Forming, scores: Places, *, left_out: Collection[str] = ()
) -> RuleCheck:
    """Count who meets each rule of the config, and see which rules sort nobody.

    `answers` are those that segments are formed from. Rules of which the key paths are `left_out` are not asked, nor what is made
    with them; nobody's rows leave their batch, only counts do.
    """
    rules = settings.rules()
    if not rules:
        return RuleCheck(len(answers.here(["user_id"])), {}, {}, ())
    asked = _asked(settings, forming, scores, left_out)
    parts = answers.map(partial(counted, asked=asked), _COUNTS).here(_COUNTS.names).to_pylist()
    sums = {name: [sum(counts) for counts in zip(*(row[name] for row in parts), strict=True)] for name in _COUNTS.names}
    users = sums["users"][0]
    met: dict[str, int | None] = dict.fromkeys(rules)
    met |= zip([*asked.places, *asked.others], sums["met"], strict=True)
    members: dict[str, int | None] = {place.rsplit(".", 1)[0]: None for place in rules if not place.startswith("plays.")}
    shared = np.array(sums["shared"], dtype=np.int64).reshape(len(asked.segments), len(asked.segments))
    members |= zip(asked.rungs, sums["named"], strict=True)
    members |= zip(asked.segments, map(int, np.diag(shared)), strict=True)
    named = [f"{place} ({segment.name})" for place, segment in zip(asked.segments, asked.forming.segments, strict=True)]
    told = (*_one_sided(rules, met, users), *_unreached(settings, met, members, users), *_alike(named, shared))
    return RuleCheck(users, met, members, told)


def needing_models(settings: Settings) -> list[str]:
    """Give the key paths of the rules that read scores or personas, also through the stages and tiers that they read."""
    unknown = set(RULE_COLUMNS) | {column.format(target=target.name) for target in settings.targets for column in TARGET_COLUMNS}
    return _reading(settings.rules(), unknown)


def counted(answers: pa.Table, asked: _Asked) -> pa.Table:
    """Count in a batch, as one row of lists: users, who meets each rule, is on each rung, and is in each two segments."""
    forming = asked.forming
    rows = told_rows(answers, forming, asked.scores)
    enter, leave = rule_truths(rows, forming)
    own = leave[:, [segment.leave is not None for segment in forming.segments]]
    met = np.column_stack([enter, own, truths(rows, list(asked.others.values()))]) == TRUE
    names = [segment.name for segment in forming.segments]
    was: Dates = np.full(enter.shape, NEVER)
    if forming.has_before:
        said, since = (rows[f"{BEFORE}{name}"].combine_chunks() for name in ("segments", "segments_since"))
        was = state(said, since, names)
    # Floats are multiplied fast, and whole numbers as small as these exactly.
    is_in = (~np.isnat(step(was, enter == TRUE, leave == FALSE, forming.as_of, min_stays(forming)))).astype(np.float64)
    named = [pc.sum(pc.equal(rows[column], name)).as_py() or 0 for column, name in asked.rungs.values()]
    lists = [[len(rows)], met.sum(axis=0), named, (is_in.T @ is_in).ravel()]
    columns = [pa.array([np.asarray(told, dtype=np.int64)], spec.type) for told, spec in zip(lists, _COUNTS, strict=True)]
    return pa.table(columns, schema=_COUNTS)


def _asked(settings: Settings, forming: Forming, scores: Places, left_out: Collection[str]) -> _Asked:
    rules = {place: rule for place, rule in settings.rules().items() if place not in left_out}
    out = {place.split(".")[0] for place in left_out}
    stages = () if "journey_stages" in out else forming.stages
    tiers = () if "loyalty_tiers" in out else forming.tiers
    own = {at: {f"segments.{at}.{key}": key for key in segment.rules()} for at, segment in enumerate(settings.segments)}
    formed = [at for at, places in own.items() if set(places) <= set(rules)]
    places = tuple(f"segments.{at}.{key}" for key in ("enter", "leave") for at in formed if f"segments.{at}.{key}" in own[at])
    told = replace(forming, segments=tuple(settings.segments[at] for at in formed), stages=stages, tiers=tiers)
    ladders = {"journey_stages": stages, "loyalty_tiers": tiers}
    rungs = {f"{key}.{at}": (MADE[key], rung.name) for key, ladder in ladders.items() for at, rung in enumerate(ladder)}
    others = {place: rule for place, rule in rules.items() if place not in places}
    return _Asked(told, scores, tuple(f"segments.{at}" for at in formed), places, rungs, others)


def _reading(rules: Mapping[str, str], unknown: Collection[str]) -> list[str]:
    """Give the key paths of the rules that read an unknown column, or one that such a rule makes."""
    found = [place for place, rule in rules.items() if columns_of(rule) & set(unknown)]
    more = {MADE[key] for key in {place.split(".")[0] for place in found} & set(MADE)} - set(unknown)
    return _reading(rules, {*unknown, *more}) if more else found


def _one_sided(rules: Mapping[str, str], met: Mapping[str, int | None], users: int) -> Iterator[str]:
    """Tell rules that nobody meets, and of segments also those that everybody meets: a rung or consent may well hold for all."""
    for place, rule in rules.items():
        what = f"({' '.join(rule.split())})"
        if met[place] == 0:
            yield f"{place}: nobody of {users:,} users meets it tonight {what}"
        elif met[place] == users and place.startswith("segments."):
            yield f"{place}: everybody, all {users:,} users, meets it tonight {what}"


def _unreached(settings: Settings, met: Mapping[str, int | None], members: Mapping[str, int | None], users: int) -> Iterator[str]:
    """Tell stages and tiers whose rule is met, but only by users who meet one before it; `true` may take nobody."""
    for key, ladder in (("journey_stages", settings.journey_stages), ("loyalty_tiers", settings.loyalty_tiers)):
        for at, rung in enumerate(ladder):
            place = f"{key}.{at}"
            met_by = met[f"{place}.when"]
            if columns_of(rung.when) and met_by and members[place] == 0:
                whoever = f"whoever meets it, {met_by:,} of {users:,} users, also meets a rule before it"
                yield f"{place}.when: nobody is {rung.name!r} tonight: {whoever}"


def _alike(segments: Sequence[str], shared: np.ndarray) -> Iterator[str]:
    """Tell segments that have the same members, each group of them once; segments of nobody are told by their rules."""
    told: set[int] = set()
    for at in range(len(segments)):
        size = shared[at, at]
        same = [other for other in range(at, len(segments)) if shared[at, other] == shared[other, other] == size]
        if size and len(same) > 1 and at not in told:
            told |= set(same)
            named = " and ".join(segments[other] for other in same)
            yield f"{named}: their members tonight are the same {size:,} users"
