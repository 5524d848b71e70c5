"""A night: read events, score everybody, say why, form segments, write."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.build import BUILT, steps
from features.catalogue import how_many
from features.declare import FeatureSet
from features.engines import released_at_the_end
from features.errors import ConfigError, GateError, StoreError, listed
from features.labels import definition
from models.bundle import PersonaBundle, TargetBundle, inventory_of
from pipeline.answers import Known, answered, answers_schema, scores_rows
from pipeline.batches import Batches, Here, batches, load
from pipeline.columns import SCORES, features_schema, segments_schema, without_date
from pipeline.events import EventLog, midnight, read_events
from pipeline.frames import features_table, shards
from pipeline.known import known_of, target_models, with_asked
from pipeline.ledger import NO_STAYS, Stays, reopened, settled, turns_of
from pipeline.plays import refuse_new_salt, salt_digest
from pipeline.progress import Narrator
from pipeline.recorded import forming_of, recorded_answers, recorded_runs, settings_then, settings_told, stood, stood_from
from pipeline.rule_checks import RuleCheck, check_rules
from pipeline.segments import BEFORE, TURNS, Forming, Places, refuse_unknown, segments_rows
from pipeline.settings import PERSONAS, Settings
from pipeline.tables import STAGED, Files, Night, exclusive, memberships, recover, write_night
from pipeline.tables import read as tables_read
from pipeline.tracking import Champion, Tracker

# What a stage has not made yet.
NOBODY = Here(pa.table({}))
UNCHECKED = RuleCheck(0, {}, {}, ())


@dataclass(frozen=True)
class NightRun:
    """A night under way; each stage gives the next one more of it."""

    settings: Settings
    as_of: date
    tracker: Tracker
    narrator: Narrator
    clock: Callable[[], datetime]
    started_at: datetime
    # The nights that the tables hold, by date.
    recorded: Mapping[date, Mapping[str, Any]] = field(default_factory=dict)
    champions: Mapping[str, Champion] = field(default_factory=dict)
    challengers: Mapping[str, Champion] = field(default_factory=dict)
    log: EventLog | None = None
    users: Batches = NOBODY
    answers: Batches = NOBODY
    places: Places = field(default_factory=dict)
    scores: Batches = NOBODY
    shadow: Batches = NOBODY
    segments: Batches = NOBODY
    rules: RuleCheck = UNCHECKED
    stays: Stays = NO_STAYS
    later: Mapping[date, pa.Table | Files] = field(default_factory=dict)

    @property
    def events(self) -> EventLog:
        """The events of the night, once read."""
        assert self.log is not None
        return self.log

    @property
    def run_id(self) -> str:
        """Identify what the night was made of: its date, events, config, models and our version. Same inputs, same id."""
        # A version says little by itself: another registry has another first version.
        told = sorted(self.champions.items())
        versions = ",".join(f"{name}={champion.version}:{champion.bundle.digest}" for name, champion in told)
        made_of = f"{version('beforehand')}|{self.as_of}|{self.events.digest}|{self.settings.digest()}|{versions}"
        return sha256(made_of.encode()).hexdigest()[:16]

    @property
    def known(self) -> Known:
        """What the rows are made with, once the champions are loaded and the events read."""
        return known_of(self.settings, self.champions, self.events.features.features, self.forming)

    @property
    def forming(self) -> Forming:
        """What segments are formed with."""
        versions = {name: champion.version for name, champion in self.champions.items()}
        told = forming_of(self.settings, self.as_of, has_before=self.previous is not None)
        return replace(
            told, run_id=self.run_id, model_version=" ".join(f"{name}={version}" for name, version in sorted(versions.items()))
        )

    @property
    def previous(self) -> date | None:
        """The recorded night before this one."""
        return max((day for day in self.recorded if day < self.as_of), default=None)

    @property
    def shadowed(self) -> Known:
        """What the challengers' rows are made with."""
        return known_of(
            self.settings, {PERSONAS: self.champions[PERSONAS], **self.challengers}, self.events.features.features, self.forming
        )


def load_champions(night: NightRun) -> NightRun:
    """Load every model from the registry, and refuse those that were trained for another question."""
    names = [target.name for target in night.settings.targets]
    with night.narrator.step("loading champions") as step:
        champions = night.tracker.in_charge([*names, PERSONAS])
        if PERSONAS not in champions or champions.keys() == {PERSONAS}:
            raise night.tracker.no_champion([name for name in (*names, PERSONAS) if name not in champions])
        challengers = _challengers(night, names) if night.settings.shadow else {}
        step.note(f"{len(champions)} models" + (f", and {len(challengers)} challengers in shadow" if challengers else ""))
    changed = []
    for target in night.settings.specs():
        if target.name not in champions:
            night.narrator.say(
                f"  {target.name}: no champion in the registry, so that its scores are unknown tonight, and rules that read them "
                "hold for nobody; train when more is known, or put a version in charge with `beforehand promote`"
            )
            continue
        bundle = champions[target.name].bundle
        assert isinstance(bundle, TargetBundle)
        for warning in bundle.warnings:
            night.narrator.say(f"  {target.name}, when tested: {warning}")
        if was := bundle.other_question(definition(target)):
            changed.append(f"targets.{target.name} ({was})")
    until = {bundle.trained_until for bundle in target_models(champions).values()}
    later = sorted(day for day in until if day > night.as_of.isoformat())
    if later:
        night.narrator.say(
            f"  the champions were trained on what was known until {later[-1]}: they have seen what came after {night.as_of}"
        )
    if changed:
        raise ConfigError(f"changed since their champions were trained: {'; '.join(changed)}. Run `beforehand train` again")
    # A challenger for another question is left out: nobody acts on it.
    asked_now = {target.name: definition(target) for target in night.settings.specs()}
    kept = {
        name: challenger
        for name, challenger in challengers.items()
        if isinstance(challenger.bundle, TargetBundle) and not challenger.bundle.other_question(asked_now[name])
    }
    return replace(night, champions=champions, challengers=kept)


def load_events(night: NightRun) -> NightRun:
    """Read the events known on the night; without models, with the features that training would name after them."""
    models = [told.bundle for told in (*night.champions.values(), *night.challengers.values())]
    log = read_events(night.settings, night.as_of, night.narrator, inventory_of(models), looks=not models)
    return replace(night, log=log)


def compute_features(night: NightRun) -> NightRun:
    """Build the features of everybody known, and refuse models and rules that need others."""
    log, specs = night.events, night.settings.specs()
    refuse_other_features(night)
    with night.narrator.step("building features", total=steps(log.features, shards(log, 1, night.settings))) as step:
        # What is said of everybody takes the memory that the engine holds.
        with released_at_the_end(log.engine, BUILT):
            table = features_table(log, [midnight(night.as_of)], night.settings, step).drop("cutoff")
            asked = with_asked(table, log, night.settings, midnight(night.as_of))
            users = batches(log.engine, _with_before(asked, night))
        step.note(f"{len(log.features.features)} features of {log.users:,} users")
    refuse_unknown(night.settings.rules(), [*users.names(), *segments_schema(specs).names])
    challengers = {name: told for name, told in night.challengers.items() if not _unlike(told.bundle, log.features)}
    return replace(night, users=users, challengers=challengers)


def refuse_other_features(night: NightRun) -> None:
    """Raise GateError when a champion needs a feature that is not built tonight, or that the config has changed since."""
    for champion in night.champions.values():
        if unlike := _unlike(champion.bundle, night.events.features):
            raise GateError(f"the champion {night.tracker.registered(champion.name)} (version {champion.version}) {unlike}")


def _unlike(bundle: TargetBundle | PersonaBundle, features: FeatureSet) -> str | None:
    """Say which features of a model are not built or are others now, and what to do; None where all are as they were."""
    built = set(features.names)
    if missing := [name for name in bundle.features if name not in built]:
        return (
            f"needs features that are not built tonight: {listed(missing)}. Bring back their columns, windows or targets, or run "
            "`beforehand train` again"
        )
    if isinstance(bundle, TargetBundle) and (changed := bundle.other_features(features.definitions)):
        return (
            f"learned from features that the config has changed since: {listed(changed)}. Take that back, give them another name, "
            "or run `beforehand train` again"
        )
    return None


def answer(night: NightRun, *, with_reasons: bool = True) -> NightRun:
    """Score whom each target asks about and say why, give personas, and bring every score here: who ranks needs no more."""
    known = night.known
    with night.narrator.step("scoring") as step:
        answers = night.users.map(partial(answered, known=known, with_reasons=with_reasons), answers_schema(known)).kept()
        places = {name: np.sort(answers.known(f"{name}_score")) for name in known.forming.targets}
        step.note(f"{sum(len(scores) for scores in places.values()):,} scores{' with reasons' if with_reasons else ''}")
    scores = answers.map(partial(scores_rows, known=known, places=places), without_date(SCORES))
    return replace(night, answers=answers, places=places, scores=scores)


def shadow(night: NightRun) -> NightRun:
    """Score with the challengers too, where the config asks for it; nobody acts on that."""
    if not night.challengers:
        return replace(night, shadow=Here(without_date(SCORES).empty_table()))
    known = night.shadowed
    with night.narrator.step("scoring in shadow") as step:
        answers = night.users.map(partial(answered, known=known), answers_schema(known)).kept()
        places = {name: np.sort(answers.known(f"{name}_score")) for name in known.models}
        step.note(f"{len(known.models)} challengers")
    return replace(night, shadow=answers.map(partial(scores_rows, known=known, places=places), without_date(SCORES)))


def join_segments(night: NightRun) -> NightRun:
    """Form the segments from all that is known of each user tonight and of who was in them, say why, and what to do."""
    with night.narrator.step("forming segments") as step:
        schema = without_date(segments_schema(night.settings.specs()))
        told = partial(segments_rows, forming=night.forming, places=night.places, schema=schema)
        segments = night.answers.map(told, pa.schema([*schema, TURNS])).kept()
        named = segments.filled("primary_segment")
        step.note(f"{named:,} of {night.events.users:,} users in {len(night.settings.segments)} segments")
    return replace(night, segments=segments)


def judge_rules(night: NightRun) -> NightRun:
    """Count who meets each rule, and tell the rules that sort nobody tonight."""
    with night.narrator.step("checking rules") as step:
        rules = check_rules(night.answers, night.settings, night.forming, night.places)
        step.note(f"{how_many(len(rules.met), 'rule')}, {how_many(len(rules.warnings), 'warning')}")
    for warning in rules.warnings:
        night.narrator.say(f"  {warning}")
    return replace(night, rules=rules)


def remember(night: NightRun) -> NightRun:
    """Bring the ledger up to date, and form the segments of later nights anew, which remember this one."""
    with night.narrator.step("keeping the ledger") as step:
        turned = turns_of(night.segments.here(["user_id", TURNS.name]))
        stays = reopened(memberships(night.settings.output, since=night.as_of), night.as_of)
        stays = settled(stays, turned, night.segments.here(["user_id"])["user_id"], night.as_of)
        came = int(pc.sum(turned["is_in"]).as_py() or 0)
        after = [day for day in night.recorded if day > night.as_of]
        anew, later = formed_anew(night, after, stays) if after else (stays, {})
        said = f", {len(later)} later nights formed anew" if later else ""
        step.note(f"{came:,} came, {len(turned) - came:,} left{said}")
    return replace(night, stays=anew, later=later)


def formed_anew(night: NightRun, after: Sequence[date], stays: Stays) -> tuple[Stays, dict[date, pa.Table | Files]]:
    """Form the segments of later nights from what the tables recorded of them, each after the one before it.

    Raises StoreError where one was recorded by a version of the program that kept too little.
    """
    root, later = night.settings.output, {}
    features = night.answers.here([name for name in night.answers.names() if not name.startswith(BEFORE)])
    segments = night.segments.here(without_date(segments_schema(night.settings.specs())).names)
    for day in after:
        settings = settings_then(night.recorded[day], night.settings)
        schema = segments_schema(settings.specs())
        spoke = tables_read(root, "segments", day, columns={"model_version"})["model_version"]
        told = replace(
            forming_of(settings, day, has_before=True),
            run_id=night.recorded[day]["run_id"],
            model_version=spoke[0].as_py() if len(spoke) else "",
        )
        answers, places = recorded_answers(root, day, told, stood_from(features, segments, told))
        made = partial(segments_rows, forming=told, places=places, schema=without_date(schema))
        formed = Here(answers).map(made, pa.schema([*without_date(schema), TURNS]))
        stays = settled(stays, turns_of(formed.rows), formed.rows["user_id"], day)
        later[day] = formed.staged(schema, day, root / STAGED / f"segments_{day}")
        features, segments = answers, formed.rows
    return stays, later


def write(night: NightRun) -> NightRun:
    """Write every table of the night, all or none."""
    output, log = night.settings.output, night.events
    with night.narrator.step("writing tables") as step:
        made = {
            "features": (night.users, features_schema(log.features.features)),
            "scores": (night.scores, SCORES),
            "shadow": (night.shadow, SCORES),
            "segments": (night.segments, segments_schema(night.settings.specs())),
        }
        staged = {name: rows.staged(schema, night.as_of, output / STAGED / name) for name, (rows, schema) in made.items()}
        tables = {"quarantine": log.rejected, "memberships": night.stays.rows, **staged}
        counts = {name: len(table) for name, table in tables.items()} | {"events": log.count, "later": log.later}
        checks = {"bad_share": round(log.bad_share, 6), "newest_event": log.last.isoformat()}
        checks["windows_beyond_history"] = list(log.beyond_history)
        checks["models_trained_until"] = max(bundle.trained_until for bundle in target_models(night.champions).values())
        checks |= {"salt": salt_digest(night.settings.plays.salt), "formed_anew": [day.isoformat() for day in night.later]}
        checks["rules_met"] = dict(night.rules.met)
        told = settings_told(night.settings)
        finished = Night(night.as_of, night.run_id, night.started_at, night.clock(), counts, checks, told)
        write_night(output, finished, tables, later=night.later)
        step.note(f"night {night.run_id} below {output}")
    return night


STAGES: tuple[Callable[[NightRun], NightRun], ...] = (
    load_champions,
    load_events,
    compute_features,
    answer,
    shadow,
    join_segments,
    judge_rules,
    remember,
    write,
)


def run_night(settings: Settings, as_of: date, tracker: Tracker, narrator: Narrator, clock: Callable[[], datetime]) -> NightRun:
    """Run every stage of one night; nothing is written before the last, and `clock` only stamps the run.

    Raises what the stages raise, and StoreError when another night is running or the tables are not as the last one left them.
    """
    with exclusive(settings.output, "night"):
        undone = recover(settings.output)
        if undone:
            narrator.say(f"  an earlier run died while writing: {listed(undone)} rolled back to the last complete night")
        night = NightRun(settings, as_of, tracker, narrator, clock, clock(), recorded_nights(settings))
        for stage in STAGES:
            night = stage(night)
        return night


def recorded_nights(settings: Settings) -> dict[date, Mapping[str, Any]]:
    """Give the nights that the tables hold, by date; raises ConfigError when one is of another config or salt."""
    recorded = recorded_runs(settings)
    refuse_new_salt(settings.plays, [json.loads(row["checks"]).get("salt") for row in recorded.values()])
    return recorded


def _challengers(night: NightRun, names: Sequence[str]) -> dict[str, Champion]:
    try:
        return night.tracker.challengers(names)
    except StoreError as error:
        # A challenger that cannot be read is no reason to have no night.
        night.narrator.say(f"  nothing is scored in shadow: {error}")
        return {}


def _with_before(users: ir.Table, night: NightRun) -> ir.Table:
    """Say for each user how it stood on the recorded night before, where there is one."""
    if night.previous is None:
        return users
    rows = stood(night.settings.output, night.previous, night.forming)
    return users.left_join(load(night.events.engine, rows, f"before_{night.previous:%Y%m%d}"), "user_id").drop("user_id_right")
