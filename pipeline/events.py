"""Read the sources of a night: events that keep the contract, and what was rejected."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import reduce

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from ibis.backends.sql import SQLBackend

from features.attributes import held, read_attributes
from features.catalogue import how_many
from features.conditions import choices_of
from features.contract import COLUMNS, PURCHASE, REQUIRED, Bounds, accepted, conform, judge
from features.declare import FeatureSet, declared, switched_off
from features.engines import engine_errors, keep, keep_in_file, no_room, without_cells
from features.errors import ConfigError, DataError, did_you_mean, listed
from features.event_types import KNOWN
from features.expressions import columns_of
from features.families.values import in_names
from features.fingerprint import fingerprint
from features.inventory import NAMED, NOTHING, Inventory, beside, take_inventory, united
from features.labels import active_users, first_met
from features.local_time import offset_changes
from features.sources import read_sources
from features.windows import LONGEST, label, words
from pipeline.columns import QUARANTINE
from pipeline.progress import Narrator
from pipeline.settings import ATTRIBUTES, Settings
from pipeline.target_settings import GrowthSettings, ValueSettings

_YEAR = timedelta(days=366)
# Columns whose values may be told: they say of no event whose it is.
_TOLD = frozenset({"category", "brand", *NAMED})


@dataclass(frozen=True)
class EventLog:
    """The events known on one night.

    `rejected` has the columns of `quarantine`; `later` counts events at or after `as_of`, left alone; `digest` identifies the
    accepted events whatever their order. `first` and `last` are the oldest and the newest event, `since` is the first after which
    a target asks about somebody (UTC, without zone). `types` are the event types there are, `inventory` is what features are named
    after in this log, and `own` are the features that it gives by itself. `attributes` has a row per user and `known_from`, or is
    None; `beyond_history` are the windows longer than the history. Where `events` and `attributes` are those of a sample of users,
    as in `pipeline.sample`, `sampled` says of how many; whatever else is told is of all.
    """

    engine: SQLBackend
    events: ir.Table
    attributes: ir.Table | None
    features: FeatureSet
    types: frozenset[str]
    inventory: Inventory
    own: frozenset[str]
    as_of: date
    count: int
    later: int
    users: int
    rejected: pa.Table
    first: datetime
    since: datetime
    last: datetime
    digest: str
    beyond_history: tuple[str, ...]
    sampled: int | None = None

    @property
    def users_there(self) -> int:
        """How many users the events are of."""
        return self.users if self.sampled is None else self.sampled

    @property
    def share(self) -> float:
        """Of all users, the share whose events are there."""
        return self.users_there / self.users

    @property
    def bad_share(self) -> float:
        """The share of the rows of events that broke the contract; attributes are judged by themselves."""
        broken = pc.sum(pc.not_equal(self.rejected["source"], ATTRIBUTES)).as_py() or 0
        return broken / max(1, broken + self.count + self.later)

    def why_unmet(self, condition: str) -> str | None:
        """Say that no event before the night meets a condition, as none meets a misspelt type; None where one does."""
        met = active_users(self.events, [condition], midnight(self.as_of), LONGEST).limit(1).count()
        if self.engine.execute(met):
            return None
        return f"no event so far meets {condition}; {self._instead(condition)}"

    def _instead(self, condition: str) -> str:
        """Name the value of a column that is nearest to one that no event has; else the event types."""
        choices = choices_of(condition)
        for column in sorted(_TOLD & choices.keys()):
            known = set(self.engine.execute(self.events[[column]].distinct())[column].dropna())
            unknown = [value for value in choices[column] if value not in known]
            if unknown and known:
                return f"no {column} is {unknown[0]}: {did_you_mean(unknown[0], known)}"
        return f"the event types are {listed(sorted(self.types), most=20)}"


def midnight(as_of: date) -> datetime:
    """Give the cutoff of a night: the start of its date in UTC, as a timestamp without zone."""
    return datetime(as_of.year, as_of.month, as_of.day)


def read_events(
    settings: Settings, as_of: date, narrator: Narrator, remembered: Inventory = NOTHING, *, looks: bool = True
) -> EventLog:
    """Read every source and split off what breaks the contract.

    What models in charge have `remembered` gives features, whether this log holds it or not; what this log holds does so where
    somebody `looks`, to train models that read it.

    Raises ConfigError or DataError (see `features.sources` and `features.contract`), and DataError when too many rows are broken,
    there is no event before `as_of`, or the newest one is older than `contract.max_staleness`.
    """
    engine = settings.engine.open(settings.output / "spill")
    bounds = Bounds(midnight(as_of), settings.contract.max_future)
    with narrator.step("reading events") as step:
        sources = [source.spec() for source in settings.sources]
        raw = read_sources(engine, [*sources, *([settings.attributes.source()] if settings.attributes else [])])
        told = raw.pop(ATTRIBUTES, None)
        columns = {name for table in raw.values() for name in table.columns}
        conformed = reduce(ir.Table.union, (conform(table, name) for name, table in raw.items()))
        _refuse_missing_columns(settings, columns)
        try:
            attributes = None if told is None else _attributes(engine, told, settings)
            judged = keep_in_file(engine, judge(conformed, bounds, has_ids="event_id" in columns), "judged")
        except engine_errors() as error:
            raise no_room(error) or DataError(
                f"the sources {listed([*raw, *([] if told is None else [ATTRIBUTES])])} cannot be read: {without_cells(error)}; "
                "mend the file or the SQL, or use try_cast (of dates try_strptime) there so that the row can be rejected by itself"
            ) from None
        counts = _counts(judged, bounds)
        rejected = _rejected(judged, attributes, as_of)
        _check(counts, rejected, settings, as_of)
        odd = _check_sources(judged, rejected, settings, bounds)
        if attributes is not None:
            _refuse_bad_source(ATTRIBUTES, int(attributes.count().execute()), rejected, settings)
        first = counts["first"].to_pydatetime()
        events = accepted(judged, bounds, zone=settings.time_zone, since=first)
        kept = None if attributes is None else held(attributes, settings.wanted().attributes)
        # Of what was known by then: a type that comes later switches nothing on.
        types = frozenset(events.select("event_type").distinct().execute().event_type)
        inventory = beside(take_inventory(events, columns, _known_texts(kept, settings, bounds)), remembered) if looks else NOTHING
        own = declared(settings.wanted(), columns, types, inventory)
        both = united([inventory, remembered])
        log = EventLog(
            engine=engine,
            events=events,
            attributes=kept,
            features=own if both == inventory else declared(settings.wanted(), columns, types, both),
            own=frozenset(own.names),
            types=types,
            inventory=inventory,
            as_of=as_of,
            count=int(counts.known),
            later=int(counts.later),
            users=int(events.user_id.nunique().execute()),
            rejected=rejected,
            first=first,
            since=_since(engine, events, settings) or first,
            last=counts["last"].to_pydatetime(),
            digest=_digest(engine, events.select(sorted(columns & set(COLUMNS))), attributes, bounds),
            beyond_history=_beyond_history(settings, bounds, counts),
        )
        step.note(f"{log.count:,} events of {log.users:,} users before {as_of}")
    _tell(log, columns, types, settings, narrator)
    for warning in odd:
        narrator.say(f"  {warning}")
    return log


def _since(engine: SQLBackend, events: ir.Table, settings: Settings) -> datetime | None:
    """Give when history begins: a campaign announced months before the first activity says nothing about behaviour."""
    found = engine.execute(first_met(events, {target.eligible.events for target in settings.targets}))
    return None if pd.isna(found) else found.to_pydatetime()


def _known_texts(attributes: ir.Table | None, settings: Settings, bounds: Bounds) -> ir.Table | None:
    """Give the attributes that are texts, as far as they were known on the night."""
    texts = [name for name, is_number in settings.wanted().attributes.items() if not is_number]
    if attributes is None or not texts:
        return None
    return attributes.filter(_.known_from < ibis.literal(bounds.as_of)).select("user_id", *texts)


def _attributes(engine: SQLBackend, told: ir.Table, settings: Settings) -> ir.Table:
    checked = read_attributes(told, settings.wanted().attributes)
    return keep(engine, checked.mutate(source_name=ibis.literal(ATTRIBUTES)), "attributes_read")


def _digest(engine: SQLBackend, events: ir.Table, attributes: ir.Table | None, bounds: Bounds) -> str:
    parts = [events]
    if attributes is not None:
        known = attributes.filter(_.broken.isnull(), _.known_from < ibis.literal(bounds.as_of))
        parts.append(known.drop("row", "source_name", "broken"))
    return "-".join(fingerprint(engine, part) for part in parts)


def _beyond_history(settings: Settings, bounds: Bounds, counts: pd.Series) -> tuple[str, ...]:
    history = bounds.as_of - counts["first"].to_pydatetime()
    windows = {*settings.features.windows, *(window for told in settings.features.custom for window in told.windows)}
    return tuple(label(window) for window in sorted(windows) if window > history)


def _refuse_missing_columns(settings: Settings, columns: set[str]) -> None:
    problems = []
    for index, target in enumerate(settings.targets):
        read = frozenset[str]().union(*map(columns_of, target.conditions().values()))
        read |= {target.measure} if isinstance(target, GrowthSettings | ValueSettings) else set()
        if missing := sorted(read - columns):
            problems.append(f"targets.{index} ({target.name}) reads {listed(missing)}, which no source gives")
    if problems:
        raise ConfigError("\n".join(problems) + f"\nthe sources give {listed(sorted(columns), most=20)}")


def _counts(judged: ir.Table, bounds: Bounds) -> pd.Series:
    good, known = _.broken.isnull(), _.event_ts < ibis.literal(bounds.as_of)
    return (
        judged.agg(
            rows=_.count(),
            broken=_.count(where=_.broken.notnull()),
            known=_.count(where=good & known),
            later=_.count(where=good & ~known),
            first=_.event_ts.min(where=good),
            last=_.event_ts.max(where=good & known),
            newest=_.event_ts.max(where=good),
        )
        .execute()
        .iloc[0]
    )


def _check(counts: pd.Series, rejected: pa.Table, settings: Settings, as_of: date) -> None:
    if counts.rows == 0:
        raise DataError(f"the sources {listed(source.name for source in settings.sources)} give no rows at all")
    _refuse_bad_share(int(counts.broken), int(counts.rows), "rows", rejected, settings)
    if counts.known == 0:
        span = (
            f"the data cover {counts.first:%Y-%m-%d} to {counts.newest:%Y-%m-%d}" if counts.later else "no row keeps the contract"
        )
        raise DataError(f"no event lies before --as-of {as_of}: {span}; choose a date after the first event")
    age, limit = midnight(as_of) - counts["last"], settings.contract.max_staleness
    if age > limit:
        raise DataError(
            f"--as-of {as_of} is {words(_whole_days(age))} after the newest event ({counts['last']:%Y-%m-%d %H:%M} UTC), "
            f"contract.max_staleness allows {words(limit)}: everybody would look gone. Choose a date up to "
            f"{(counts['last'] + limit):%Y-%m-%d}, or bring the events up to date"
        )


def _check_sources(judged: ir.Table, rejected: pa.Table, settings: Settings, bounds: Bounds) -> list[str]:
    """Raise DataError for a source with too many broken rows; say which have no late event, or no times.

    A larger source would hide the first two.
    """
    known = _.broken.isnull() & (_.event_ts < ibis.literal(bounds.as_of))
    local = _.event_ts + _.utc_offset_minutes.fill_null(0).as_interval("m")
    found = judged.group_by("source_name").agg(
        rows=_.count(),
        newest=_.event_ts.max(where=known),
        timed=_.count(where=known & (local != local.truncate("D"))),
        zoned=_.count(where=known & _.utc_offset_minutes.isnull()),
    )
    odd = []
    for source in found.order_by("source_name").execute().itertuples():
        name, newest = source.source_name, source.newest
        if source.timed == 0 and not pd.isna(newest):
            odd.append(_without_times(name, settings.time_zone if source.zoned else "UTC", bounds))
        if len(settings.sources) < 2:
            continue
        _refuse_bad_source(name, int(source.rows), rejected, settings)
        age = bounds.as_of - newest
        # One that has been as quiet before, such as a weekly mail, need not have stopped.
        if age > settings.contract.max_staleness and age > _longest_pause(judged.filter(known, _.source_name == name)):
            odd.append(
                f"the newest event of {name} is {words(_whole_days(age))} old, longer than it was ever quiet: has it stopped?"
            )
    return odd


def _without_times(source: str, zone: str, bounds: Bounds) -> str:
    told = f"{source} gives dates without times"
    if not any(minutes for _at, minutes in offset_changes(zone, bounds.as_of - _YEAR, bounds.as_of)):
        return f"{told}: features of hours leave its events aside"
    return f"{told}, read as midnight UTC, which is another hour in {zone}: let its SQL give dates, as in `cast(… as date)`"


def _longest_pause(events: ir.Table) -> timedelta:
    """Give the longest time from one day with an event to the next, 0 of a single day."""
    days = events.select(day=events.event_ts.date()).distinct().order_by("day").execute().day
    longest = pd.to_datetime(days).diff().max()
    return timedelta(0) if pd.isna(longest) else longest.to_pytimedelta()


def _refuse_bad_source(source: str, rows: int, rejected: pa.Table, settings: Settings) -> None:
    """Raise DataError for too many broken rows of a source: among those of a larger one they would be few."""
    own = rejected.filter(pc.equal(rejected["source"], source))
    _refuse_bad_share(len(own), rows, f"rows of {source}", own, settings)


def _refuse_bad_share(broken: int, rows: int, what: str, rejected: pa.Table, settings: Settings) -> None:
    share, allowed = broken / max(rows, 1), settings.contract.max_bad_share
    if share > allowed:
        reasons = listed(_reasons(rejected))
        later = ", or contract.max_future where these are good events of later nights" if "max_future" in reasons else ""
        if "is not a time" in reasons:
            later += ". Times are read as ISO 8601 writes them: let the SQL turn others into it, as in strptime(day, '%m/%d/%Y')"
        raise DataError(
            f"{broken:,} of {rows:,} {what} ({share:.1%}) break the contract, contract.max_bad_share allows "
            f"{allowed:.1%}. Reasons: {reasons}. Mend the source, or raise the limit{later}"
        )


def _whole_days(age: timedelta) -> timedelta:
    return timedelta(days=round(age / timedelta(days=1)))


def _rejected(judged: ir.Table, attributes: ir.Table | None, as_of: date) -> pa.Table:
    tables = [judged] if attributes is None else [judged, attributes]
    parts = [table.filter(table.broken.notnull()).select(source="source_name", reason="broken", row="row") for table in tables]
    found = reduce(ir.Table.union, parts).order_by("source", "reason", "row").to_pyarrow()
    return found.add_column(0, "as_of", pa.array([as_of] * len(found), pa.date32())).cast(QUARANTINE)


def _reasons(rejected: pa.Table) -> list[str]:
    counts = rejected.to_pandas().groupby(["source", "reason"]).size().sort_values(ascending=False)
    return [f"{count:,} rows of {source}: {reason}" for (source, reason), count in counts.items()]


def _tell(log: EventLog, columns: set[str], types: frozenset[str], settings: Settings, narrator: Narrator) -> None:
    """Say once what was left out: rejected rows by reason, features without their columns, columns that no feature reads."""
    for reason in _reasons(log.rejected):
        narrator.say(f"  quarantined {reason}")
    if log.beyond_history:
        narrator.say(f"  windows longer than the history see all of it and no more: {listed(log.beyond_history)}")
    held = log.inventory
    if held.measures:
        others = listed([name + _in_brackets(held, name) for name in held.types], most=len(held.types))
        narrator.say(f"  event types that no family knows, with features of their own: {others}")
    if bought := held.categories.get(PURCHASE):
        said = listed(bought, most=len(bought))
        narrator.say(f"  categories of purchases of which models look at how long the last quantity is enough: {said}")
    if held.values:
        told = [f"{name} ({how_many(len(values), 'value')})" for name, values in held.values.items()]
        narrator.say(f"  names that models tell apart, by their most frequent values: {listed(told, most=len(told))}")
    for name in sorted(types - set(KNOWN)):
        if (alike := in_names(name)) in KNOWN:
            narrator.say(
                f"  the event type {name!r} is not {alike!r}, which features know: if that is meant, let the source say so"
            )
    if PURCHASE not in types:
        told = [habit.told for habit in log.features.habits]
        narrator.say(f"  no event is a purchase: there are {f'journey stages of {told[0]}' if told else 'no journey stages'}")
    off = switched_off(settings.wanted(), columns, types)
    for what, kind in (("columns", COLUMNS), ("event types", off.keys() - COLUMNS.keys())):
        named = {name: count for name, count in off.items() if name in kind}
        if named:
            narrator.say(f"  switched off for {what} that no source gives: {_features_each(named)}")
    if unread := sorted(columns - _told_otherwise(settings) - {name for feature in log.features.built for name in feature.needs}):
        narrator.say(f"  given, but read by no feature of this log: {listed(unread)}; `features.custom` may read them")


def _told_otherwise(settings: Settings) -> set[str]:
    """Give the event columns that say what a row is, or that targets ask by."""
    asked = [told for target in settings.specs() for told in (target.events, target.eligible.events, target.eligible.until) if told]
    return {*REQUIRED, "event_id", "order_id", "utc_offset_minutes"}.union(*map(columns_of, asked))


def _in_brackets(held: Inventory, event_type: str) -> str:
    """Say what events of a type carry, where they do."""
    categories = held.categories.get(event_type, ())
    carried = [*held.measures[event_type], *([how_many(len(categories), "category")] if categories else [])]
    return f" ({', '.join(carried)})" if carried else ""


def _features_each(named: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count} feature{'s' if count > 1 else ''})" for name, count in named.items())
