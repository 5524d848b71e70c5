"""Inventory: what a log holds that features are named after, such as event types that no family knows, and frequent values."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import ibis
import ibis.expr.types as ir
from ibis import _

from features.attributes import USER
from features.event_types import KNOWN, PURCHASE
from features.families.values import in_names

MEASURES = ("amount", "discount", "quantity")
# Columns whose values tell users apart; which category is bought most does not (decision 69).
NAMED = ("channel", "device", "region", "source")
_MOST_TYPES, _MOST_VALUES = 20, 8
# What fewer users have says nothing yet, and may say who they are.
_LEAST_USERS = 20


@dataclass(frozen=True)
class Inventory:
    """Names of event types, measures and values, each once and in the order of the alphabet.

    `measures` has the event types that get features without a family knowing them, and for each the measures that tell its events
    apart. `categories` has the frequent categories of these types, and of purchases (none, perhaps) where their quantities tell how
    long they last; `values` has those of an event column, or an attribute. Models remember the inventory that they were trained on:
    whatever a later log holds, the features that they read are built.
    """

    measures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def types(self) -> tuple[str, ...]:
        """The event types that get features without a family knowing them."""
        return tuple(sorted(self.measures))


NOTHING = Inventory()


def united(inventories: Iterable[Inventory]) -> Inventory:
    """Give what any of several hold."""
    told = list(inventories)
    return Inventory(*(_united([getattr(one, part) for one in told]) for part in ("measures", "categories", "values")))


def _united(parts: Sequence[Mapping[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    names = sorted(set().union(*parts))
    return {name: tuple(sorted({value for part in parts for value in part.get(name, ())})) for name in names}


def beside(inventory: Inventory, remembered: Inventory) -> Inventory:
    """Leave out what would be called like something else that is `remembered`: names that models read mean one thing."""

    def own(found: Mapping[str, tuple[str, ...]], before: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(value for value in values if value in _told_apart([*before.get(name, ()), value]))
            for name, values in found.items()
        }

    return Inventory(inventory.measures, own(inventory.categories, remembered.categories), own(inventory.values, remembered.values))


def take_inventory(events: ir.Table, columns: Collection[str], texts: ir.Table | None) -> Inventory:
    """Look through the `columns` of the events that sources give, and `texts`: attributes, one column each beside the user."""
    given = [name for name in MEASURES if name in columns]
    ends = [(name, what, _[name].cast("float64")) for name in given for what in ("min", "max")]
    others = events.filter(_.event_type.notin(KNOWN))
    told = others.group_by("event_type").agg(n=_.count(), **{f"{what} of {name}": getattr(end, what)() for name, what, end in ends})
    frequent = told.order_by([_.n.desc(), _.event_type]).limit(_MOST_TYPES).execute().set_index("event_type")
    measures = {
        str(event_type): tuple(name for name in given if row[f"min of {name}"] < row[f"max of {name}"])
        for event_type, row in frequent.iterrows()
    }
    lasting = _lasting(events, given)
    divided = events.filter(_.event_type.isin([*measures, *lasting])).select(USER, name=_.event_type, value=_.category)
    named = [_values(events, name) for name in NAMED if name in columns]
    named += [] if texts is None else [_values(texts, name) for name in texts.columns if name != USER]
    categories = dict.fromkeys(lasting, ()) | _frequent([divided] if "category" in columns else [])
    return united([Inventory(measures, categories, _frequent(named))])


def _lasting(events: ir.Table, given: Collection[str]) -> list[str]:
    """Give the type of purchases if they have quantities that differ: what was bought by number is used up one day."""
    if "quantity" not in given:
        return []
    bought = events.filter(_.event_type == PURCHASE)
    differ = (bought.quantity.max() > bought.quantity.min()).fill_null(False)
    return [PURCHASE] if differ.execute() else []


def _values(table: ir.Table, column: str) -> ir.Table:
    return table.select(USER, name=ibis.literal(column), value=_[column])


def _frequent(tables: Sequence[ir.Table]) -> dict[str, tuple[str, ...]]:
    """Give for each `name` the values that most users have, where there are several."""
    if not tables:
        return {}
    given = reduce(ir.Table.union, tables).filter(_.value.notnull()).distinct()
    counted = given.group_by("name", "value").agg(users=_.count()).filter(_.users >= _LEAST_USERS)
    by_name = ibis.window(group_by="name", order_by=[_.users.desc(), _.value])
    found = counted.mutate(place=ibis.row_number().over(by_name)).filter(_.place < _MOST_VALUES).execute()
    told = {str(name): _told_apart(map(str, values)) for name, values in found.sort_values("place").groupby("name").value}
    return {name: values for name, values in told.items() if len(values) > 1}


def _told_apart(values: Iterable[str]) -> tuple[str, ...]:
    """Leave out values that look like an earlier one in the names of features: `Google` beside `google`."""
    by_look: dict[str, str] = {}
    for value in values:
        by_look.setdefault(in_names(value), value)
    return tuple(by_look.values())
