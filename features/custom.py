"""Custom features: one SQL expression of a config, checked, and turned into a feature like the built-in ones.

An expression with aggregates (`sum(amount) filter (where category = 'DELI')`) reads events, once for every window it is asked for;
one without (`purchase_amount_sum_28d / nullif(purchase_count_28d, 0)`) reads other features of the same user.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.common.annotations import ValidationError
from ibis.common.deferred import Deferred
from ibis.common.exceptions import IbisError
from sqlglot import exp

from features.catalogue import Feature, feature_name
from features.contract import COLUMNS, SQL_TYPES
from features.errors import ConfigError, did_you_mean, first_line
from features.expressions import DIALECT, columns_of, parse, refuse_clock, type_of
from features.translate import AGGREGATES, translated
from features.windows import only_where, within, words

# Amounts are added up as whole millionths in floats: exact in any order below 2**53, and several times faster than decimals.
MILLION = 1_000_000
_EXACT = 2.0**53
_IDS = ("user_id", "event_id")


def in_millionths(amount: ir.NumericColumn) -> ir.FloatingColumn:
    """Write an amount of the contract, which has six places, in whole millionths."""
    # Floats again after rounding: on Spark a whole number beside 0.0 is a decimal, and a quotient of those keeps six places.
    return (amount.cast("float64") * MILLION).round().cast("float64")


@dataclass(frozen=True, kw_only=True)
class Custom:
    """A feature of the config: `windows` are looked through one by one, none is the whole history."""

    name: str
    sql: str
    unit: str
    meaning: str
    phrase: str
    group: str
    windows: tuple[timedelta, ...] = ()


@dataclass(frozen=True)
class Measure:
    """What a custom feature adds up per user and tile: `value` over the events for which `met` holds."""

    name: str
    how: str
    value: Deferred
    met: Deferred


def custom_features(custom: Custom, known: Mapping[str, str]) -> tuple[list[Feature], list[Measure]]:
    """Turn a custom feature into features, one for each window, and the measures they read.

    `known` are the features that exist, with their SQL types.

    Raises ConfigError when the SQL does not parse, names an unknown column, looks at time itself, or does not give a number.
    """
    tree = parse(custom.sql)
    refuse_clock(tree, "a feature may only see what lies before its cutoff")
    if not any(tree.find_all(exp.AggFunc)):
        return [_from_features(custom, tree, known)], []
    return _from_events(custom, tree, known)


def custom_names(custom: Custom) -> list[str]:
    """Name the features that a custom feature turns into."""
    return [_windowed(custom, window) for window in custom.windows or (None,)]


def _windowed(custom: Custom, window: timedelta | None) -> str:
    return feature_name(custom.name, "", window).replace("__", "_").rstrip("_")


def condition_met(condition: str) -> Deferred:
    """Give a checked condition over event columns as an expression of any engine; raises ConfigError where there is none."""
    return translated(parse(condition), _column)


def _from_features(custom: Custom, tree: exp.Expr, known: Mapping[str, str]) -> Feature:
    if custom.windows:
        raise ConfigError(f"{custom.sql!r} reads features, which have windows of their own: take `windows` away")
    read = sorted(columns_of(custom.sql))
    if not read:
        raise ConfigError(f"{custom.sql!r} reads neither events (with an aggregate such as count(*)) nor features")
    for name in read:
        if name not in known:
            told = (
                "events are read by aggregates, such as count(*) filter (where …)" if name in COLUMNS else did_you_mean(name, known)
            )
            raise ConfigError(f"{custom.sql!r} names {name!r}, which is not a feature: {told}")
    types = {name: known[name] for name in read}
    _refuse_text(type_of(custom.sql, types), custom)
    value = translated(tree, lambda name: getattr(_, name))
    _refuse_unbuildable(custom, value, {name: "string" if kind == "VARCHAR" else "float64" for name, kind in types.items()})
    return Feature(
        name=custom.name,
        base="row",
        expr=value,
        unit=custom.unit,
        meaning=custom.meaning,
        phrase=custom.phrase,
        group=custom.group,
    )


def _from_events(custom: Custom, tree: exp.Expr, known: Collection[str]) -> tuple[list[Feature], list[Measure]]:
    read = columns_of(custom.sql)
    for name in sorted(read):
        if name in known and name not in COLUMNS:
            raise ConfigError(
                f"{custom.sql!r} adds up events and reads the feature {name!r}: one expression does either. Make what it adds up a "
                "custom feature of its own, and read both here"
            )
        if name not in COLUMNS:
            raise ConfigError(f"{custom.sql!r} names {name!r}, which is not an event column: {did_you_mean(name, COLUMNS)}")
        if name in _IDS:
            raise ConfigError(f"{custom.sql!r} reads {name}, which says nothing of behaviour: count(*) counts events")
        # Time is the windows' business: an instant compared with anything else could look past the cutoff.
        if name == "event_ts":
            raise ConfigError(
                f"{custom.sql!r} reads {name}: say how far to look back with `windows`; nothing else may look at time"
            )
    _refuse_text(type_of(custom.sql, {name: SQL_TYPES[kind] for name, kind in COLUMNS.items()}), custom)
    measures: list[Measure] = []

    def aggregate(node: exp.Expr) -> Callable[[timedelta | None], Deferred]:
        found, merged = _measured(node)
        measures.extend(found)
        return merged

    parts = [node for node in tree.find_all(*AGGREGATES) if not isinstance(node.parent, exp.Filter)]
    merged = {id(node): aggregate(node) for node in parts}
    for measure in measures:
        _refuse_unbuildable(custom, measure.value, COLUMNS)
        _refuse_unbuildable(custom, measure.met.ifelse(1, 0), COLUMNS)
    features = []
    for window in custom.windows or (None,):
        value = translated(tree, _no_column, lambda node, window=window: merged[id(node)](window))  # type: ignore[misc]
        when = "" if window is None else f" in the last {words(window)}"
        features.append(
            Feature(
                name=_windowed(custom, window),
                base="custom",
                expr=value,
                unit=custom.unit,
                meaning=custom.meaning + when,
                phrase=custom.phrase + when,
                group=custom.group,
                needs=frozenset(read & set(COLUMNS) - {"event_type"}),
            )
        )
    added = {measure.name: "float64" for measure in measures}
    for feature in features:
        _refuse_unbuildable(custom, feature.expr, {**added, "age": "int32"})
    return features, measures


def _measured(node: exp.Expr) -> tuple[list[Measure], Callable[[timedelta | None], Deferred]]:
    """Give the measures of one aggregate call, and how they merge over the tiles of a window."""
    call, where = (node.this, node.expression.this) if isinstance(node, exp.Filter) else (node, None)
    # By what it says: features that say the same share it, and no two that differ.
    name = f"measure_{sha256(node.sql(DIALECT).encode()).hexdigest()[:16]}"
    told = call.sql(DIALECT)
    if call.this is None:
        raise ConfigError(f"{told!r} does not say what it takes: count(*) counts events")
    if isinstance(call.this, exp.Distinct):
        raise ConfigError(f"{told!r} counts distinct values, which do not add up over windows: count events instead")
    # What is true of every event, so that counting it counts events: it has a user.
    always = _.user_id.notnull()
    value = always if isinstance(call.this, exp.Star) else translated(call.this, _column)
    met = always if where is None else translated(where, _column)

    def adding(column: str, scale: float) -> Callable[[timedelta | None], Deferred]:
        def merged(window: timedelta | None) -> Deferred:
            part = getattr(_, column)
            # Nothing adds up to 0 here, not in the whole: sum(a) + sum(b) is b where there is no a.
            return (part if window is None else only_where(within(window), part)).sum().fill_null(0.0) / scale

        return merged

    def extreme(how: str) -> Callable[[timedelta | None], Deferred]:
        def merged(window: timedelta | None) -> Deferred:
            part = getattr(_, name)
            return getattr(part if window is None else within(window).ifelse(part, ibis.null("float64")), how)()

        return merged

    number = value.cast("float64")
    count = Measure(name, "count", value, met)
    millionths = number * MILLION
    # Rounding gives a whole number of 64 bits; beyond what a float can tell to the unit there is nothing to round.
    rounded = (millionths.abs() < _EXACT).ifelse(millionths.round().cast("float64"), millionths)
    total = Measure(name, "sum", rounded, met)
    match call:
        case exp.Count():
            return [count], adding(name, 1.0)
        case exp.Sum():
            return [total], adding(name, MILLION)
        case exp.Avg():
            many = replace(count, name=f"{name}_n")
            amount, number_of = adding(name, MILLION), adding(many.name, 1.0)
            return [total, many], lambda window: amount(window) / number_of(window).nullif(0.0)
        case exp.Min():
            return [Measure(name, "min", number, met)], extreme("min")
        case exp.Max():
            return [Measure(name, "max", number, met)], extreme("max")
    raise ConfigError(f"{told!r} is not available: use count, sum, avg, min or max, with `filter (where …)` to choose events")


def _column(name: str) -> Deferred:
    # As floats: engines differ in how many places the product and the quotient of decimals keep.
    return getattr(_, name).cast("float64") if COLUMNS[name] == "float64" else getattr(_, name)


def _no_column(name: str) -> Deferred:
    raise ConfigError(f"the event column {name!r} stands outside an aggregate: write, for example, sum({name})")


def _refuse_unbuildable(custom: Custom, value: Deferred, columns: Mapping[str, str]) -> None:
    """Raise ConfigError for what DuckDB alone would take: here it is computed by any engine."""
    row = ibis.table({"user_id": "string", **columns}, name="row")
    try:
        value.resolve(row)
    except (IbisError, ValidationError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{custom.sql!r} cannot be computed on every engine: {first_line(error)}") from None


def _refuse_text(kind: str, custom: Custom) -> None:
    if kind.endswith("]") or not kind.startswith(
        ("DOUBLE", "FLOAT", "DECIMAL", "BIGINT", "INTEGER", "HUGEINT", "SMALLINT", "TINYINT", "BOOLEAN")
    ):
        raise ConfigError(f"{custom.sql!r} gives {kind}: a feature is a number")
