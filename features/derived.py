"""Derived events: what several events say together, dated at the instant from which it can be known.

A derived event depends only on events before its own instant, so the rules of time hold for it as for any other.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import or_

import ibis
import ibis.expr.types as ir
from ibis import _

from features.cells import EXACT, INSTANT
from features.event_types import (
    ACTIONS,
    ANSWERED,
    CAMPAIGN,
    CART,
    CART_ABANDONED,
    CART_SETTLED,
    CHECKOUT,
    CHECKOUT_ABANDONED,
    CLICKED,
    CONTACTS,
    COUPON,
    NEW_ITEM,
    OPENED,
    PURCHASE,
    RETURN,
    RETURN_ORDER,
    UNSUBSCRIBE,
    VISIT,
    VISIT_ACTED,
)

# How long a cart or a checkout may wait before it counts as left behind.
PATIENCE_HOURS = 24
COLUMNS = ("user_id", "event_type", "event_ts", "amount", "quantity", "discount")
MICROSECONDS_PER_HOUR = 3_600_000_000


def with_derived(events: ir.Table, types: Collection[str], wanted: Collection[str]) -> ir.Table:
    """Give the COLUMNS of the events of some types, and as rows of their own those of the derived `types` that are `wanted`."""
    makers = [DERIVED[name] for name in DERIVED if name in types and name in wanted]
    own = events.filter(_.event_type.isin([name for name in types if name not in DERIVED]))
    # Engines differ in how wide they make the decimals of the contract and in the scale of its times; a union wants them alike.
    told = own.select(*COLUMNS).mutate(**{name: _[name].cast(kind) for name, kind in _TYPES.items()})
    return reduce(ir.Table.union, (make(events) for make in makers), told)


def order_of(lines: ir.Table) -> ir.StringValue:
    """Say which lines are one order: those of one order_id, or without one of one instant."""
    return ibis.coalesce(lines.order_id, lines.event_ts.cast("string"))


def _dated(rows: ir.Table, event_type: str, instant: ir.TimestampValue, **measures: ir.Value) -> ir.Table:
    filled = {name: measures.get(name, ibis.null()).cast(kind) for name, kind in _MEASURES.items()}
    return rows.select(user_id=rows.user_id, event_type=ibis.literal(event_type), event_ts=instant.cast(INSTANT), **filled)


_MEASURES = {"amount": EXACT, "quantity": EXACT, "discount": EXACT}
_TYPES = {"event_ts": INSTANT, **_MEASURES}


def _visits(events: ir.Table) -> ir.Table:
    """A visit is a session of what the user did; contacts do not open one."""
    own = events.filter(events.session_id.notnull(), events.event_type.notin(CONTACTS))
    acted = own.event_type.isin(ACTIONS).ifelse(own.event_ts, ibis.null(own.event_ts.type())).min()
    return own.group_by("user_id", "session_id").agg(begun_at=own.event_ts.min(), acted_at=acted)


def _visits_begun(events: ir.Table) -> ir.Table:
    visits = _visits(events)
    return _dated(visits, VISIT, visits.begun_at)


def _visits_that_acted(events: ir.Table) -> ir.Table:
    visits = _visits(events).filter(_.acted_at.notnull())
    return _dated(visits, VISIT_ACTED, visits.acted_at)


_ITEM_KEYS = ("item_id", "order_id", "session_id")
_ORDER_KEYS = ("order_id", "session_id")


def _waiting(events: ir.Table, event_type: str, keys: Sequence[str]) -> ir.Table:
    """Give the events that wait for a purchase, those that have any of the keys: `until` says when patience ends."""
    rows = events.filter(events.event_type == event_type, reduce(or_, (events[key].notnull() for key in keys)))
    return rows.select("user_id", "event_ts", "amount", *keys, until=rows.event_ts + ibis.interval(hours=PATIENCE_HOURS))


def _given_up(events: ir.Table, event_type: str, keys: Sequence[str]) -> ir.Table:
    """Give those of them that nothing was bought of in time, by the most telling key that both they and a purchase have."""
    bought = events.filter(events.event_type == PURCHASE).select("user_id", *keys, bought_at=events.event_ts)
    waiting, parts = _waiting(events, event_type, keys), []
    for place, first in enumerate(keys):
        # Apart by their own most telling key, so that purchases that have it as well are looked through once.
        left = waiting.filter(waiting[first].notnull(), *(waiting[better].isnull() for better in keys[:place]))
        for at, key in enumerate(keys[place:], place):
            same = bought.filter(bought[key].notnull(), *([] if key == first else [bought[first].isnull()]))
            between = [left[better].isnull() | same[better].isnull() for better in keys[place + 1 : at]]
            in_time = [left.event_ts <= same.bought_at, left.until > same.bought_at]
            left = left.anti_join(same, [left.user_id == same.user_id, left[key] == same[key], *in_time, *between])
        parts.append(left)
    return reduce(ir.Table.union, parts)


def _carts_settled(events: ir.Table) -> ir.Table:
    carts = _waiting(events, CART, _ITEM_KEYS)
    return _dated(carts, CART_SETTLED, carts.until, amount=carts.amount)


def _carts_abandoned(events: ir.Table) -> ir.Table:
    left = _given_up(events, CART, _ITEM_KEYS)
    return _dated(left, CART_ABANDONED, left.until, amount=left.amount)


def _checkouts_abandoned(events: ir.Table) -> ir.Table:
    left = _given_up(events, CHECKOUT, _ORDER_KEYS)
    return _dated(left, CHECKOUT_ABANDONED, left.until, amount=left.amount)


def _campaigns_answered(events: ir.Table) -> ir.Table:
    """The first answer of a user to a campaign; its `quantity` is the hours since the campaign came."""
    keys = ["user_id", "campaign"]
    named = events.filter(_.campaign.notnull())
    sent = named.filter(_.event_type == CAMPAIGN).group_by(keys).agg(sent_at=_.event_ts.min())
    answers = named.filter(_.event_type.isin([OPENED, CLICKED, COUPON, UNSUBSCRIBE])).select(*keys, "event_ts")
    met = answers.inner_join(sent, [*keys, answers.event_ts >= sent.sent_at])
    first = met.group_by(keys).agg(answered_at=_.event_ts.min(), sent_at=_.sent_at.min())
    hours = first.answered_at.delta(first.sent_at, unit="microsecond") / MICROSECONDS_PER_HOUR
    return _dated(first, ANSWERED, first.answered_at, quantity=hours)


def _return_orders(events: ir.Table) -> ir.Table:
    """A return order begins with its first line; who sends back ten lines at once has decided so once."""
    lines = events.filter(events.event_type == RETURN)
    orders = lines.group_by("user_id", order=order_of(lines)).agg(begun_at=lines.event_ts.min())
    return _dated(orders, RETURN_ORDER, orders.begun_at)


def _new_items(events: ir.Table) -> ir.Table:
    bought = events.filter(events.event_type == PURCHASE, events.item_id.notnull())
    items = bought.group_by("user_id", "item_id").agg(first_at=bought.event_ts.min())
    return _dated(items, NEW_ITEM, items.first_at)


DERIVED: Mapping[str, Callable[[ir.Table], ir.Table]] = {
    VISIT: _visits_begun,
    VISIT_ACTED: _visits_that_acted,
    CART_SETTLED: _carts_settled,
    CART_ABANDONED: _carts_abandoned,
    CHECKOUT_ABANDONED: _checkouts_abandoned,
    ANSWERED: _campaigns_answered,
    RETURN_ORDER: _return_orders,
    NEW_ITEM: _new_items,
}
