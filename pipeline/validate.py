"""Validate: everything that is wrong with a config and its data, and what its rules say tonight, without writing anything."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, partial
from typing import Any

from features.catalogue import how_many
from features.errors import BeforehandError, ConfigError, GateError
from features.labels import active_users
from models.personas import refuse_few
from pipeline.columns import segments_schema
from pipeline.events import EventLog, midnight
from pipeline.past import training_cutoffs
from pipeline.progress import Narrator
from pipeline.rule_checks import RuleCheck, check_rules, needing_models
from pipeline.score import NightRun, answer, compute_features, load_champions, load_events, recorded_nights, refuse_missing
from pipeline.segments import refuse_unknown
from pipeline.settings import Settings
from pipeline.tracking import Tracker


@dataclass(frozen=True)
class Validation:
    """What the night of a date would read, and what the rules say of it.

    `few` says that users are too few to train personas, `short` that history is too short to train at all, `unscored` why nobody
    could be scored; None where all is well. `unseen` says of conditions of targets and features that no event meets them.
    """

    as_of: date
    log: EventLog
    rules: RuleCheck
    few: str | None
    short: str | None
    unseen: tuple[str, ...]
    unscored: str | None

    def told(self) -> dict[str, Any]:
        """Give it in plain values."""
        log = self.log
        counts = {"events": log.count, "users": log.users, "rejected": len(log.rejected), "later": log.later}
        dates = {"first_event": log.first.isoformat(), "history_from": log.since.isoformat(), "last_event": log.last.isoformat()}
        warnings = [*self.unseen, *(said for said in (self.few, self.short) if said), *self.rules.warnings]
        rules = {"rules": dict(self.rules.met), "members": dict(self.rules.members), "warnings": warnings}
        unchecked = {"unchecked": self.rules.unchecked, "unchecked_because": self.unscored if self.rules.unchecked else None}
        return {"as_of": self.as_of.isoformat(), **counts, **dates, "features": len(log.features.features), **rules, **unchecked}


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
            refuse_missing(night, night.events.features.names)
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
    return Validation(as_of, night.events, checked, few.said if few else None, _short(night), tuple(_unseen(night)), unscored)


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
    users = int(active.count().execute())
    try:
        refuse_few(users, fewest=night.settings.personas.fewest)
    except GateError as error:
        return _Few(users, str(error))
    return None


def _short(night: NightRun) -> str | None:
    """Say what training would say of a history that leaves no date to test on; a night with champions does without."""
    try:
        training_cutoffs(night.events, night.settings, night.settings.specs())
    except GateError as error:
        return str(error)
    return None


def _unseen(night: NightRun) -> Iterator[str]:
    """Say which conditions of targets and features no event meets, as a misspelt event type does not."""
    # Most targets share a condition, and each is a look at every event.
    why_unmet = cache(night.events.why_unmet)
    for at, target in enumerate(night.settings.targets):
        for key, condition in target.conditions().items():
            if why := why_unmet(condition):
                yield f"targets.{at}.{key}: {why}"
    for at, condition in enumerate(night.settings.features.events):
        if why := why_unmet(condition):
            yield f"features.events.{at}: {why}"


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
