"""Settings: one YAML file, checked whole before anything runs. This is the only reader of configs."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Set
from datetime import timedelta
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    model_validator,
)

from features.contract import COLUMNS
from features.custom import Custom
from features.declare import FeatureSet, Wanted, declared, declared_by_family
from features.errors import ConfigError, did_you_mean, listed
from features.expressions import columns_of, literals_of, typed_condition
from features.families import FAMILIES
from features.families.outcomes import outcomes
from features.families.values import in_names
from features.labels import Target
from features.occasions import LAPSED_AFTER
from features.sources import Source
from features.windows import LONGEST, label
from models.band_names import NAMES
from pipeline.columns import MADE, RULE_COLUMNS, STAGE, TARGET_COLUMNS, TIER, WORKING, segments_schema
from pipeline.engine_settings import DuckDBSettings, EngineSettings
from pipeline.rules import both_met
from pipeline.segment_settings import PREFERRED, PlaysSettings, SegmentSettings, StageSettings, is_quiet
from pipeline.strict import Duration, Name, Strict, as_value_error
from pipeline.target_settings import PURCHASES, EventCondition, TargetSettings
from pipeline.training_settings import GateSettings, TrainingSettings
from pipeline.wrong_settings import wrong_lines

if TYPE_CHECKING:
    from models.bands import Bands


def _zone(name: str) -> str:
    # The machine's own zone is a different one on every machine.
    zones = available_timezones() - {"localtime"}
    if name not in zones:
        raise ConfigError(f"{name!r} is not a time zone: {did_you_mean(name, zones)}")
    return ZoneInfo(name).key


def _folder(path: Path) -> Path:
    # Delta takes some for a pattern or for no place at all; the store's address has % and ? for something else.
    if odd := sorted(set("[]^|\\%?\n") & set(str(path.resolve()))):
        raise ValueError(f"{str(path.resolve())!r} holds {listed(odd)!r}, which tables cannot have in their path: choose another")
    return path


# Where a rule names such a column that is not there, it may mean one that can be had.
_OF_EVENTS = re.compile(r"unknown column '(\w+?)_(?:recency_days|first_days|count(?:_\d+[hdw])?)'")
ATTRIBUTES = "attributes"
PERSONAS = "personas"

Folder = Annotated[Path, AfterValidator(_folder)]
Zone = Annotated[str, AfterValidator(as_value_error(_zone))]


class SourceSettings(Strict):
    """One input: files and the SQL that turns them into events."""

    name: Name = Field(description="Names the source in messages and in the quarantine table.")
    tables: dict[Name, str] = Field(
        min_length=1,
        description="Alias to file: .parquet, .csv or .csv.gz, a glob, or package://<package>/<path>. "
        "Relative paths start at the working directory. The first line of a CSV file names its columns; its times are ISO 8601, "
        "or text for the SQL to turn into time.",
    )
    sql: str = Field(description="One SELECT (DuckDB dialect) from the aliases that gives event columns.")

    def spec(self) -> Source:
        """Give the source that `features` reads."""
        return Source(self.name, self.tables, self.sql)


class ContractSettings(Strict):
    """What input is accepted."""

    max_bad_share: float = Field(
        0.01, ge=0, le=1, description="Share of rejected rows, of all or of one source, above which nothing is written."
    )
    max_future: Duration = Field(
        timedelta(days=1096),
        description="Events later than this after as_of are rejected. Events between the two have not happened yet on that night "
        "and are left alone, so that a night can be run for a past date.",
    )
    max_staleness: Duration = Field(
        timedelta(days=7), description="How long before as_of the newest event may lie, before the log counts as cut off."
    )


def _family(name: str) -> str:
    if name not in FAMILIES:
        raise ConfigError(f"{name!r} is not a family of features: {did_you_mean(name, FAMILIES)}")
    return name


def _phrase(text: str) -> str:
    if re.findall(r"[{}][^{}]*[{}]?", text) != ["{value}"]:
        raise ConfigError(f"{text!r} must hold {{value}} once, and no other braces: it is where the user's value goes")
    return text


class CustomSettings(Strict):
    """A feature of your own: one SQL expression over event columns, with aggregates, or over other features, without."""

    name: Name = Field(description="Names the feature; its windows are added to the name.")
    sql: str = Field(
        description="For example sum(amount) filter (where category = 'DELI'), or purchase_amount_sum_28d / purchase_count_28d. "
        "Sums and means of events are exact to a millionth."
    )
    windows: tuple[Duration, ...] = Field(
        (), description="Look-back windows of an expression over events; none is the whole history."
    )
    unit: str = Field("times", min_length=1, description="days, money, share, times, or the noun that is counted.")
    meaning: str = Field(min_length=1, description="What it is, for the documentation.")
    phrase: Annotated[str, AfterValidator(as_value_error(_phrase))] = Field(
        description="How a reason says it, with {value}, such as: spent {value} on deli."
    )
    group: Name = Field("custom", description="Features of one group tell one story: reasons name a group once.")

    def spec(self) -> Custom:
        """Give the custom feature that `features` declares."""
        return Custom(**{name: getattr(self, name) for name in type(self).model_fields})


class AttributeSettings(Strict):
    """What is known of users besides events, with the instant from which it was known: a tier, a consent."""

    tables: dict[Name, str] = Field(min_length=1, description="Alias to file, as for a source.")
    sql: str = Field(description="One SELECT that gives user_id, known_from (UTC) and the columns below.")
    columns: dict[Name, Literal["text", "number"]] = Field(
        min_length=1, description="Attribute to text or number. Models tell texts apart by their most frequent values."
    )
    aside: tuple[Name, ...] = Field((), description="Attributes for rules and plays alone: models leave them alone.")

    @model_validator(mode="after")
    def _aside_are_columns(self) -> "AttributeSettings":
        for name in self.aside:
            if name not in self.columns:
                raise ValueError(f"aside names {name!r}, which is not among the columns: {did_you_mean(name, self.columns)}")
        return self

    def source(self) -> Source:
        """Give the source that `features` reads."""
        return Source(ATTRIBUTES, self.tables, self.sql)

    def numbers(self) -> dict[str, bool]:
        """Give each attribute and whether it is a number."""
        return {name: kind == "number" for name, kind in self.columns.items()}


# Baselines, personas and plays read features of these, whatever else is built.
_READ_BY_OTHERS = ("stage", "habits")


class FeatureSettings(Strict):
    """Which features are built."""

    windows: tuple[Duration, ...] = Field(
        tuple(timedelta(days=days) for days in (7, 14, 28, 56, 84, 168)),
        min_length=3,
        description="Look-back windows; at least three different ones.",
    )

    families: tuple[Annotated[str, AfterValidator(as_value_error(_family))], ...] = Field(
        tuple(FAMILIES),
        min_length=1,
        description="Families that are built, stage and habits among them; docs/features.md lists all.",
    )
    values: dict[Literal["category", "channel", "device", "source"], tuple[str, ...]] = Field(
        {}, description="Values that get a share and a recency of their own, such as channel: [web, app]; of purchases by category."
    )
    events: tuple[EventCondition, ...] = Field(
        (),
        description="Conditions whose events get counts and dates that models and rules read, as what targets ask about does: "
        "event_type = 'lesson'.",
    )
    custom: tuple[CustomSettings, ...] = Field((), description="Features of your own.")
    lapsed_after: Duration | None = Field(
        None,
        description="The pause after which a user has lapsed: journey stages, runs and silent channels go by it. Without one "
        "it is `active_within` of the first target of the kind `absence`, else 56d.",
    )

    @model_validator(mode="after")
    def _possible(self) -> "FeatureSettings":
        if len(set(self.windows)) != len(self.windows):
            raise ValueError(f"windows repeat: {', '.join(map(label, self.windows))}; name each once")
        if missing := [name for name in _READ_BY_OTHERS if name not in self.families]:
            raise ValueError(f"families leaves out {listed(missing)}, which models, personas and plays read: add it")
        for what, values in self.values.items():
            words = [in_names(value) for value in values]
            for value, word in zip(values, words, strict=True):
                if not word or words.count(word) > 1:
                    raise ValueError(f"values.{what}: {value!r} gives no feature name of its own: name one value of each spelling")
        return self


class PersonaSettings(Strict):
    """How many personas there may be, and what they are called."""

    fewest: int = Field(4, ge=2, le=20, description="Smallest number of personas tried.")
    most: int = Field(8, ge=2, le=20, description="Largest number of personas tried.")
    smallest_share: float = Field(0.05, ge=0, lt=0.5, description="Share of users that the smallest persona must hold.")
    stability: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Share of users whom fits on resampled users must leave in their persona; fewer are tried until they do.",
    )
    names: dict[Annotated[int, Field(ge=0)], Annotated[str, Field(min_length=1, max_length=60)]] = Field(
        {}, description="Names of your own, by persona id, which stays with the people when personas are trained again."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "PersonaSettings":
        if self.fewest > self.most:
            raise ValueError(f"fewest is {self.fewest} and most is {self.most}: fewest may not be above most")
        if len(set(self.names.values())) != len(self.names):
            raise ValueError("names repeat: two personas of one name could not be told apart")
        return self


class Settings(Strict):
    """One whole configuration."""

    name: Name = Field(description="Names the experiment and the registered models.")
    output: Folder = Field(
        description="Folder for tables, the MLflow store and temporary files, of this config alone; made when needed."
    )
    time_zone: Zone = Field("UTC", description="Local hours and weekdays, where an event has no utc_offset_minutes.")
    currency: str = Field("", max_length=5, description="Written before amounts in reasons.")
    sources: tuple[SourceSettings, ...] = Field(min_length=1, description="Where events come from.")
    attributes: AttributeSettings | None = Field(None, description="What is known of users besides events.")
    contract: ContractSettings = Field(ContractSettings(), description="What input is accepted.")
    features: FeatureSettings = Field(FeatureSettings(), description="Which features are built.")
    targets: tuple[TargetSettings, ...] = Field(min_length=1, description="What is predicted.")
    training: TrainingSettings = Field(TrainingSettings(), description="Which past cutoffs models learn from and are tested on.")
    gates: GateSettings = Field(GateSettings(), description="What a new model must pass to be put in charge.")
    shadow: bool = Field(False, description="Score the newest challengers too, into the table `shadow`, which nobody acts on.")
    personas: PersonaSettings = Field(PersonaSettings(), description="How many personas there may be, and what they are called.")
    journey_stages: tuple[StageSettings, ...] = Field(
        (), description="Rules of the column journey_stage, in order; without them, those of docs/features.md."
    )
    loyalty_tiers: tuple[StageSettings, ...] = Field((), description="Rules of the column loyalty_tier, in order.")
    plays: PlaysSettings = Field(PlaysSettings(), description="How users are contacted, whatever the segment.")
    segments: tuple[SegmentSettings, ...] = Field((), description="Named groups, in order of priority.")
    engine: EngineSettings = Field(DuckDBSettings(), description="The engine that reads events.")

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        wrong_features = list(self._wrong_features())
        # Without the features, a rule's columns are not known.
        problems = [*self._repeated(), *wrong_features, *([] if wrong_features else self._wrong_rules()), *self._wrong_plays()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _repeated(self) -> Iterator[str]:
        for key in ("sources", "targets", "segments", "journey_stages", "loyalty_tiers", "plays.channels"):
            counts = Counter(item.name for item in attrgetter(key)(self))
            if key == "targets" and PERSONAS in counts:
                yield f"targets: the name {PERSONAS!r} is taken by the personas' own model: choose another"
            yield from (f"{key}: the name {name!r} is used {count} times" for name, count in counts.items() if count > 1)

    def _wrong_features(self) -> Iterator[str]:
        if any(source.name == ATTRIBUTES for source in self.sources):
            yield f"sources: the name {ATTRIBUTES!r} is taken by the attributes: choose another"
        reserved = WORKING | set(segments_schema(self.specs()).names)
        clashes = {f"features.custom.{at} ({told.name})" for at, told in enumerate(self.features.custom) if told.name in reserved}
        if self.attributes:
            try:
                families = declared_by_family(self.wanted())
            except ConfigError as error:
                yield str(error)
                return
            built_in = {feature.name for name, family in families.items() if name != ATTRIBUTES for feature in family}
            clashes |= {f"attributes.columns.{name}" for name in self.attributes.columns if name in reserved | built_in}
        for place in sorted(clashes):
            yield f"{place}: the name is taken: choose another{', in the SQL as well' if place.startswith(ATTRIBUTES) else ''}"
        if not clashes:
            try:
                built = [feature.name for feature in self._everything.features]
            except ConfigError as error:
                yield from str(error).split("\n")
                return
            for at, name in enumerate(self.training.slices):
                if name not in (*built, STAGE, *([TIER] if self.loyalty_tiers else [])):
                    yield f"training.slices.{at}: {name!r} is not a feature: {did_you_mean(name, built)}"

    def _wrong_rules(self) -> Iterator[str]:
        known = self.rule_columns()
        wrong = set()
        for place, rule in self.rules().items():
            try:
                typed_condition(rule, known)
            except ConfigError as error:
                wrong.add(place)
                said = str(error)
                other = _OF_EVENTS.search(said)
                is_new = other and not any(name.startswith(f"{other[1]}_") for name in known)
                hint = "; features.events gives other event types such columns" if is_new else ""
                yield f"{place}: {said}{hint}"
                continue
            yield from (f"{place}: {never}" for never in self._never_so(rule))
        yield from self._cycles(wrong)
        for at, told in enumerate(self.segments):
            if told.leave is not None and not wrong & {f"segments.{at}.enter", f"segments.{at}.leave"}:
                met = both_met(told.enter, told.leave, known, self._most)
                if met is not None:
                    yield (
                        f"segments.{at}.leave: {told.leave!r} is stricter than enter ({told.enter}): {met} meets both, so that "
                        "whoever enters would leave; let members leave only where they could not enter"
                    )

    def _never_so(self, rule: str) -> Iterator[str]:
        """Tell what a rule compares with a value that its column never has, whatever the data."""
        names: dict[str, tuple[str, ...]] = {f"{target.name}_band": NAMES for target in self.targets}
        names |= {MADE[key]: tuple(rung.name for rung in ladder) for key, ladder in self._ladders.items() if ladder}
        for column, value in literals_of(rule):
            if isinstance(value, str) and value not in names.get(column, (value,)):
                yield f"no {column} is {value!r}: {did_you_mean(value, names[column])}"
            elif isinstance(value, float) and value > self._most.get(column, value):
                what = "is a probability, from 0 to 1, and" if self._most[column] == 1 else "goes from 0 to 100, and is"
                yield f"{column} {what} never {value:g}"
            elif isinstance(value, float) and self._most.get(column) == 100 and 0 < value < 1:
                yield f"{column} goes from 0 to 100, and {value:g} is less than the lowest hundredth: write {100 * value:g}"

    @cached_property
    def _most(self) -> dict[str, float]:
        """The most that columns can hold that begin at 0: chances and percentiles."""
        chances = {f"{target.name}_score": 1.0 for target in self.targets if target.kind != "value"}
        return chances | {f"{target.name}_percentile": 100.0 for target in self.targets}

    def rules(self) -> dict[str, str]:
        """Give every rule over the columns of a night, by its key path."""
        stages = {f"{key}.{at}.when": stage.when for key, stages in self._ladders.items() for at, stage in enumerate(stages)}
        segments = {f"segments.{at}.{key}": rule for at, told in enumerate(self.segments) for key, rule in told.rules().items()}
        return stages | segments | {f"plays.channels.{at}.consent": told.consent for at, told in enumerate(self.plays.channels)}

    @property
    def _ladders(self) -> dict[str, tuple[StageSettings, ...]]:
        return {"journey_stages": self.journey_stages, "loyalty_tiers": self.loyalty_tiers}

    def _cycles(self, wrong: Set[str]) -> Iterator[str]:
        read = {
            key: frozenset().union(*(columns_of(stage.when) for at, stage in enumerate(stages) if f"{key}.{at}.when" not in wrong))
            for key, stages in self._ladders.items()
        }
        yield from (f"{key}: its rules read {MADE[key]}, which they make: take that out" for key in MADE if MADE[key] in read[key])
        if STAGE in read["loyalty_tiers"] and TIER in read["journey_stages"]:
            yield "journey_stages, loyalty_tiers: the rules of each read the other, a cycle: let one of them do without"

    def _wrong_plays(self) -> Iterator[str]:
        channels = [channel.name for channel in self.plays.channels]
        for at, segment in enumerate(self.segments):
            if segment.play is None:
                continue
            named = (segment.play.channel,) if isinstance(segment.play.channel, str) else segment.play.channel
            if not channels:
                yield f"segments.{at}.play: plays.channels names no channel by which anybody could be contacted"
            possible = [*channels, *([PREFERRED] if len(named) == 1 else [])]
            for name in named if channels else ():
                if name not in possible:
                    yield f"segments.{at}.play.channel: {name!r} is not in plays.channels: {did_you_mean(name, possible)}"
            quiet = self.plays.quiet_hours
            if quiet and isinstance(segment.play.moment, int) and is_quiet(segment.play.moment, quiet.start, quiet.stop):
                yield f"segments.{at}.play.moment: {segment.play.moment} lies in plays.quiet_hours ({quiet.start} to {quiet.stop})"
        if self.plays.quiet_hours and self.plays.quiet_hours.start == self.plays.quiet_hours.stop:
            yield "plays.quiet_hours: start and stop are the same hour, which leaves none to contact anybody in"

    def rule_columns(self) -> dict[str, str]:
        """Give every column that a segment's rule may name, with its DuckDB type."""
        scores = {column.format(target=target.name): kind for target in self.targets for column, kind in TARGET_COLUMNS.items()}
        built = {feature.name: feature.sql_type for feature in self._everything.features}
        stages = {STAGE: "VARCHAR"} if self.journey_stages else {}
        tiers = {TIER: "VARCHAR"} if self.loyalty_tiers else {}
        return scores | built | stages | tiers | dict(RULE_COLUMNS)

    def wanted(self) -> Wanted:
        """Give which features are asked for."""
        told = self.features
        attributes = self.attributes.numbers() if self.attributes else {}
        values = {str(column): values for column, values in told.values.items()}
        caps = {segment.play.cap.per for segment in self.segments if segment.play and segment.play.cap}
        return Wanted(
            told.windows,
            told.families,
            values,
            tuple(custom.spec() for custom in told.custom),
            attributes,
            aside=frozenset(self.attributes.aside) if self.attributes else frozenset(),
            contacts=tuple(sorted(caps)) if any(segment.play for segment in self.segments) else None,
            outcomes=outcomes(self.specs(), told.events),
            # The column of the config's rules takes the place of the feature.
            left_out=frozenset({STAGE, f"{STAGE}_days"}) if self.journey_stages else frozenset(),
            lapsed_after=told.lapsed_after or self._active_within,
        )

    @property
    def _active_within(self) -> timedelta:
        """How long users count as active where it is asked whether they go: who was not seen for longer is asked no more."""
        asked = (target.eligible.active_within for target in self.targets if target.kind == "absence")
        return next((within for within in asked if within != LONGEST), LAPSED_AFTER)

    @cached_property
    def _everything(self) -> FeatureSet:
        return declared(self.wanted(), COLUMNS)

    def specs(self) -> tuple[Target, ...]:
        """Give the targets that `features` labels."""
        return tuple(target.spec() for target in self.targets)

    def activities(self) -> tuple[str, ...]:
        """Give the conditions of events that make a user's habits known: purchases, and what targets take for activity."""
        return tuple(dict.fromkeys([PURCHASES, *(target.eligible.events for target in self.targets)]))

    def bands(self) -> dict[str, "Bands"]:
        """Give what the bands of each target mean."""
        return {target.name: target.banded() for target in self.targets}

    def digest(self) -> str:
        """Give a digest of everything that shapes the night's rows: all but where it is written and how fast."""
        aside: Any = {"output": True, "engine": True, "shadow": True, "training": {"jobs"}}
        shaping = self.model_dump(mode="json", exclude=aside)
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]


def read_settings(path: Path) -> Settings:
    """Read and check a config file.

    Raises ConfigError naming every wrong key at once, with its path, or the place where the YAML does not parse.
    """
    if not path.is_file():
        nearby = sorted(str(found) for found in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise ConfigError(
            f"there is no config {str(path)!r}: {did_you_mean(str(path), nearby) if nearby else 'no YAML file is there'}"
        )
    try:
        told = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "an unknown place"
        raise ConfigError(f"{path} is not YAML at {place}: {getattr(error, 'problem', error)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file in UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply to be a config") from None
    try:
        return Settings.model_validate(told)
    except ValidationError as error:
        lines = wrong_lines(told, error, Settings.model_validate)
        raise ConfigError(f"{path} has {len(lines)} problem{'s' if len(lines) > 1 else ''}:\n  " + "\n  ".join(lines)) from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a key be given twice and keeps the last; a config that does so is a mistake. Values that are none have a place."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            # What a merge brings in is no key of its own.
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                at = (key.tag, key.value)
                if at in first:
                    told = f"the key {key.value!r} is given a second time, first on line {first[at]}"
                    raise yaml.composer.ComposerError(None, None, told, key.start_mark)
                first[at] = key.start_mark.line + 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            told = f"{str(node.value)[:40]!r} cannot be read ({error})"
            raise yaml.constructor.ConstructorError(None, None, told, node.start_mark) from None
