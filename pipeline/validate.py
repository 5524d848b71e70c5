"""Validate: all that is wrong with a config and its data, what targets ask and rules say tonight, without writing anything."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, partial
from typing import Any

from features.catalogue import how_many
from features.errors import BeforehandError, ConfigError, GateError
from features.labels import active_users, eligible_users
from models.personas import refuse_few
from pipeline.columns import segments_schema
from pipeline.events import EventLog, midnight
from pipeline.progress import Narrator
from pipeline.questions import Question, labels_of, plan_of, question_of, training_cutoffs, with_history
from pipeline.rule_checks import RuleCheck, check_rules, needing_models
from pipeline.sample import sample_of
from pipeline.score import NightRun, answer, compute_features, load_champions, load_events, recorded_nights, refuse_other_features
from pipeline.segment_settings import BEST_HOUR
from pipeline.segments import refuse_unknown
from pipeline.settings import Settings
from pipeline.tracking import Tracker

# A share of copies that is more than people doing the same on the same day.
_MANY_COPIES = 0.2


@dataclass(frozen=True)
class Asked:
    """What a training would learn of a target, how many it asks `tonight`, and at how many origins it is tested.

    `untested` says why there is not even one; None where there is.
    """

    question: Question
    tonight: int
    tests: int
    untested: str | None

    @property
    def doubt(self) -> str | None:
        """Say why nothing, or not much, could be learned."""
        return self.question.refusal or self.question.flat or self.untested or self.question.few

    def told(self) -> dict[str, Any]:
        """Give it in plain values."""
        question = self.question
        dates = [cutoff.date().isoformat() for cutoff in question.cutoffs.index]
        cutoffs = {"cutoffs": len(dates), "first_cutoff": min(dates, default=None), "last_cutoff": max(dates, default=None)}
        labels = {"labels": question.rows, "above_zero": question.some, "mean": question.mean}
        return {"is_amount": question.target.is_amount, "asked_tonight": self.tonight, **cutoffs, "tests": self.tests, **labels}


@dataclass(frozen=True)
class Validation:
    """What the night of a date would read, and what the rules say of it.

    `targets` are what a training would learn from, in the config's order, and `sampled` says of how many users, where not of all.
    `few` says that users are too few to train personas, `short` that history is too short to train (then there are those targets
    alone that it is long enough for), `unscored` why nobody could be scored; None where all is well. `doubts` say of conditions
    that no event meets them, of targets why they cannot be learned or tested, and of plays that their moment is not known.
    """

    as_of: date
    log: EventLog
    rules: RuleCheck
    targets: tuple[Asked, ...]
    sampled: int | None
    few: str | None
    short: str | None
    doubts: tuple[str, ...]
    unscored: str | None

    def told(self) -> dict[str, Any]:
        """Give it in plain values."""
        log = self.log
        counts = {"events": log.count, "users": log.users, "rejected": len(log.rejected), "later": log.later}
        dates = {"first_event": log.first.isoformat(), "history_from": log.since.isoformat(), "last_event": log.last.isoformat()}
        read = {**counts, **dates, "features": len(log.features.features)}
        targets = {"targets": {asked.question.target.name: asked.told() for asked in self.targets}, "sampled_users": self.sampled}
        warnings = [*self.doubts, *(said for said in (self.few, self.short) if said), *self.rules.warnings]
        rules = {"rules": dict(self.rules.met), "members": dict(self.rules.members), "warnings": warnings}
        unchecked = {"unchecked": self.rules.unchecked, "unchecked_because": self.unscored if self.rules.unchecked else None}
        return {"as_of": self.as_of.isoformat(), **read, **targets, **rules, **unchecked}


def validate(settings: Settings, as_of: date, tracker: Tracker, narrator: Narrator) -> Validation:
    """Read the events of a night, score everybody where there are champions, and see what the rules say.

    Raises what reading events raises, and ConfigError: before any work where the salt of holdouts is not that of recorded nights,
    and naming together, once events are read, rules over columns that they cannot give and fewer users than personas.
    """
    # Nothing is stamped, so that no clock is asked.
    clock = partial(midnight, as_of)
    night = NightRun(settings, as_of, tracker, narrator, clock, clock(), recorded_nights(settings))
    night, unscored = _with_champions(night)
    night = load_events(night)
    few = _few(night)
    _refuse(night, few)
    if unscored is None:
        try:
            refuse_other_features(night)
        except GateError as error:
            night, unscored = replace(night, champions={}), str(error)
    night = compute_features(night)
    if unscored is None:
        night = answer(night, with_reasons=False)
    with narrator.step("checking rules") as step:
        if unscored is None:
            checked = check_rules(night.answers, settings, night.forming, night.places)
        else:
            # Without models there are neither scores nor personas, and a row of features is all that is known of a user.
            forming = replace(night.forming, targets=())
            checked = check_rules(night.users, settings, forming, {}, left_out=needing_models(settings))
        left = f", {len(checked.unchecked)} not checked" if checked.unchecked else ""
        step.note(f"{how_many(len(checked.met), 'rule')}{left}, {how_many(len(checked.warnings), 'warning')}")
    targets, sample, short = _asked(night)
    doubts = tuple(_doubts(night, targets, sample))
    return Validation(as_of, night.events, checked, targets, sample.sampled, few.said if few else None, short, doubts, unscored)


def _with_champions(night: NightRun) -> tuple[NightRun, str | None]:
    """Load the champions; where there are none, or none for the config's questions, say why."""
    # Challengers are asked nothing here.
    quiet = replace(night, settings=night.settings.model_copy(update={"shadow": False}))
    try:
        return replace(load_champions(quiet), settings=night.settings), None
    except BeforehandError as error:
        return night, str(error)


@dataclass(frozen=True)
class _Few:
    """Users whose habits are known who are too few for the fewest personas, and what training says of that."""

    users: int
    said: str


def _few(night: NightRun) -> _Few | None:
    longest = max(night.settings.features.windows)
    active = active_users(night.events.events, night.settings.activities(), midnight(night.as_of), longest)
    users = int(night.events.engine.execute(active.count()))
    try:
        refuse_few(users, fewest=night.settings.personas.fewest)
    except GateError as error:
        return _Few(users, str(error))
    return None


def _asked(night: NightRun) -> tuple[tuple[Asked, ...], EventLog, str | None]:
    """Look at what a training would learn from, and give the log that it would: of a large one that of a sample of its users.

    Where history is too short for it, say what training would say; a night with champions does without.
    """
    log, settings = night.events, night.settings
    targets, short = settings.specs(), None
    try:
        cutoffs = training_cutoffs(log, settings, targets)
    except GateError as error:
        short = str(error)
        # One horizon too long for the history is no reason to tell nothing of the others.
        targets = with_history(log, settings, targets)
        if not targets:
            return (), log, short
        cutoffs = training_cutoffs(log, settings, targets)
    sample, found = sample_of(log, cutoffs, settings, night.narrator), []
    with night.narrator.step("looking at targets", total=len(targets)) as step:
        for target in targets:
            asked = question_of(sample, target, labels_of(sample, target, cutoffs))
            tonight = int(log.engine.execute(eligible_users(log.events, target, [midnight(night.as_of)]).count()))
            tests, untested = 0, None
            try:
                tests = sum(origin.is_test for origin in plan_of(asked, settings))
            except GateError as error:
                untested = str(error)
            found.append(Asked(asked, tonight, tests, untested))
            step.advance()
        step.note(how_many(len(targets), "target"))
    return tuple(found), sample, short


def _doubts(night: NightRun, targets: Sequence[Asked], sample: EventLog) -> Iterator[str]:
    """Say which conditions of targets and features no event meets, as a misspelt event type does not, and what else is wrong."""
    # Most targets share a condition, and each is a look at every event.
    why_unmet = cache(night.events.why_unmet)
    asked = {one.question.target.name: one for one in targets}
    for at, target in enumerate(night.settings.targets):
        unmet = {key: why for key, condition in target.conditions().items() if (why := why_unmet(condition))}
        for key, why in unmet.items():
            yield f"targets.{at}.{key}: {why}"
        if target.name in asked and not unmet and (doubt := asked[target.name].doubt):
            yield f"targets.{at}: {doubt}"
    for at, condition in enumerate(night.settings.features.events):
        if why := why_unmet(condition):
            yield f"features.events.{at}: {why}"
    if said := _copies(sample):
        yield said
    if keys := [f"segments.{at}.play.moment" for at in _at_best_hours(night)]:
        yield f"{', '.join(keys)}: nobody's best_hour is known: no event of late has an hour; give one from 0 to 23"


def _copies(log: EventLog) -> str | None:
    """Say that many events are exact copies of others, as where a file is loaded twice; some are in most logs."""
    events, different = (int(log.engine.execute(rows.count())) for rows in (log.events, log.events.distinct()))
    copies = events - different
    if copies <= _MANY_COPIES * events:
        return None
    whose = "" if log.sampled is None else f" of a sample of {log.sampled:,} users"
    return (
        f"{copies:,} of {events:,} events{whose} are exact copies of others: is a file loaded twice? Give an event_id, by which "
        "copies are rejected, or say distinct in the SQL"
    )


def _at_best_hours(night: NightRun) -> list[int]:
    """Give the segments whose play waits for a best hour that is known of nobody."""
    if night.users.filled(BEST_HOUR):
        return []
    plays = ((at, segment.play) for at, segment in enumerate(night.settings.segments))
    return [at for at, play in plays if play is not None and play.moment == BEST_HOUR]


def _refuse(night: NightRun, few: _Few | None) -> None:
    """Raise ConfigError naming what the events show to be wrong with the config, all at once."""
    settings, problems = night.settings, []
    try:
        refuse_unknown(settings.rules(), [*night.events.features.names, *segments_schema(settings.specs()).names])
    except ConfigError as error:
        problems.append(str(error))
    if few is not None and few.users < settings.personas.fewest:
        problems.append(few.said)
    if problems:
        raise ConfigError("\n".join(problems))
