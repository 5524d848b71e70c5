"""Build the features of every user known at each cutoff."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import reduce
from itertools import count

import ibis.expr.types as ir
from ibis import _
from ibis.backends.sql import SQLBackend
from ibis.common.deferred import Deferred

from features.catalogue import Base, Feature
from features.declare import FeatureSet, reads
from features.engines import keep, keep_in_file, keep_in_parts, release
from features.event_types import DERIVED_FROM
from features.snapshot import KEYS, MILLION, Snapshot
from features.tiles import Grid

_builds = count()
# What is kept while features are built is called so, and a number.
BUILT = "features_"
# Features aggregated in one statement.
AT_ONCE = 96
_DERIVED: tuple[Base, ...] = ("row", "population")


def build_features(
    engine: SQLBackend,
    events: ir.Table,
    asked: FeatureSet,
    cutoffs: Sequence[datetime],
    *,
    attributes: ir.Table | None = None,
    spine: ir.Table | None = None,
    shards: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> ir.Table:
    """Give one row per cutoff (UTC) and user with any event before it: `user_id`, `cutoff` and every feature.

    Each base table of the snapshot is aggregated once and kept in the engine, which spills what does not fit; features that read
    other features come last, when the table is read. With several `shards`, one share of the users (by hash) is computed after
    another: the same rows in less memory. Only the `user_id` and `cutoff` of a `spine` are given where there is one; whoever is set
    against the others still is against all. `advance` is called after each of `steps(asked, shards)`. Numbers are float64, names
    are text.
    """
    build, population = f"{BUILT}{next(_builds)}", _of(asked, "population")
    read = reads(asked)
    needed = frozenset[str]().union(*(read[feature.name] for feature in population))
    set_against = [feature for feature in asked.built if feature.name in needed]
    parts, compared = [], []
    # With a share in files of its own, no other's events are read to find it: some forty times a share.
    shared = [events] if shards == 1 else keep_in_parts(engine, events, f"{build}_events", _share_of(events, shards), shards)
    for shard, own in enumerate(shared):
        name = f"{build}_{shard}"
        held = attributes if attributes is None or shards == 1 else attributes.filter(_share_of(attributes, shards) == shard)
        aggregates = _aggregates(engine, own, asked, cutoffs, held, events, name, advance)
        first, *others = aggregates
        # Before the rows grow wide: engines may hold one side of a join in memory whole.
        first = first if spine is None else first.semi_join(spine, KEYS)
        part = _joined([first, *others], [feature for feature in asked.built if feature.base not in _DERIVED])
        everybody = _compared(aggregates, set_against)
        if shards > 1:
            # Side by side the aggregates of all shares would be as much as without any, and what they are joined to nearly so.
            part, everybody = keep_in_file(engine, part, f"{name}_part"), keep(engine, everybody, f"{name}_compared")
            release(engine, aggregates)
        parts.append(part)
        compared.append(everybody)
        advance()
    whole = reduce(ir.Table.union, parts)
    if population:
        places = keep(engine, _places(reduce(ir.Table.union, compared), population), f"{build}_places")
        whole = _beside(whole, places, population)
    if shards > 1:
        release(engine, compared)
    return _derived(whole, asked, read).select(*KEYS, *asked.names)


def steps(asked: FeatureSet, shards: int) -> int:
    """Give how many steps a build takes, for whoever shows its progress."""
    return shards * (len(_bases(asked)) + 1)


def _aggregates(
    engine: SQLBackend,
    events: ir.Table,
    asked: FeatureSet,
    cutoffs: Sequence[datetime],
    attributes: ir.Table | None,
    everybody: ir.Table,
    name: str,
    advance: Callable[[], None],
) -> list[ir.Table]:
    """Aggregate every base for the users that `events` and `attributes` are of, who may be a share; the first table has all."""
    shared: list[ir.Table] = []

    def kept(table: ir.Table, what: str) -> ir.Table:
        shared.append(keep(engine, table, f"{name}_{what}_read"))
        return shared[-1]

    snapshot = Snapshot(
        events,
        Grid.of(cutoffs, asked.windows),
        asked.longest,
        keep=kept,
        bases=_bases(asked),
        derived={name for feature in asked.built for name in feature.types if name in DERIVED_FROM},
        measures=asked.measures,
        occasions=asked.occasions,
        lapsed_after=asked.lapsed_after,
        attributes=attributes,
        everybody=everybody,
    )
    found: list[ir.Table] = []
    for base in _bases(asked):
        found += _aggregated(engine, snapshot[base], _of(asked, base), f"{name}_{base}")
        advance()
    release(engine, shared)
    return found


def _share_of(table: ir.Table, shards: int) -> ir.IntegerColumn:
    """Say in which share of the users each row is."""
    return (table.user_id.hash() & 0xFFFF) % shards


def _bases(asked: FeatureSet) -> list[Base]:
    """Give the bases that are aggregated; the first has a row for everybody known."""
    own = dict.fromkeys(feature.base for feature in asked.built if feature.base not in _DERIVED)
    first: Base = "custom" if "custom" in own and "everything" not in own else "everything"
    return list(dict.fromkeys([first, *own]))


def _of(asked: FeatureSet, base: Base) -> list[Feature]:
    return [feature for feature in asked.built if feature.base == base]


def _aggregated(engine: SQLBackend, base: ir.Table, features: Sequence[Feature], name: str) -> list[ir.Table]:
    """Aggregate a base per user, some features at a time: with hundreds at once the state of every user outgrows memory."""
    some = [features[start : start + AT_ONCE] for start in range(0, len(features), AT_ONCE)] or [[]]
    source = keep(engine, base, f"{name}_rows") if len(some) > 1 else base
    found = [
        keep(engine, source.group_by(KEYS).agg(**{feature.name: feature.expr for feature in part}), f"{name}_{number}")
        for number, part in enumerate(some)
    ]
    if len(some) > 1:
        release(engine, [source])
    return found


def _joined(tables: Sequence[ir.Table], features: Sequence[Feature]) -> ir.Table:
    """Join tables of users, of whom the first has all, and give those of the features that they hold."""
    joined = tables[0]
    # In one chain: dropping the other keys after each join makes every join a query of its own, with all columns before it.
    for number, other in enumerate(tables[1:]):
        joined = joined.left_join(other, KEYS, rname=f"{{name}} of {number}")
    return joined.select(*KEYS, *(_filled(feature) for feature in features if feature.name in joined.columns))


def _beside(table: ir.Table, other: ir.Table, features: Sequence[Feature]) -> ir.Table:
    """Give the features that another table of the same users holds."""
    joined = table.left_join(other, KEYS, rname="{name} of the other")
    return joined.select(*table.columns, *(_filled(feature) for feature in features))


def _compared(aggregates: Sequence[ir.Table], features: Sequence[Feature]) -> ir.Table:
    """Give of every user what is set against the others, and no more: it is moved and sorted."""
    names = {feature.name for feature in features}
    holding = [table for at, table in enumerate(aggregates) if at == 0 or names & set(table.columns)]
    return _joined(holding, features)


def _places(users: ir.Table, population: Sequence[Feature]) -> ir.Table:
    """Set every user against the others known at the same cutoff."""
    return users.select(*KEYS, **{feature.name: _typed(feature, feature.expr) for feature in population})


def _derived(table: ir.Table, asked: FeatureSet, read: Mapping[str, frozenset[str]]) -> ir.Table:
    """Add the features that read others, those first whose features are there."""
    waiting = [feature for feature in asked.built if feature.base == "row"]
    while waiting:
        ready = [feature for feature in waiting if read[feature.name] <= set(table.columns)]
        table = table.mutate(**{feature.name: _typed(feature, feature.expr) for feature in ready})
        waiting = [feature for feature in waiting if feature not in ready]
    return table


def _filled(feature: Feature) -> Deferred:
    value = _typed(feature, getattr(_, feature.name))
    if feature.unit == "money" and feature.base not in ("custom", "attributes"):
        value = value / MILLION
    return (value if feature.empty is None else value.fill_null(feature.empty)).name(feature.name)


def _typed(feature: Feature, value: Deferred) -> Deferred:
    return value.cast("string" if feature.is_text else "float64")
