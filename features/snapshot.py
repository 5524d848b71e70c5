"""Snapshots: what was known of every user just before each cutoff, as the tables that features aggregate."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import ibis
import ibis.expr.types as ir
from ibis import _

from features.catalogue import Base
from features.contract import PURCHASE
from features.moments import Moments

KEYS = ["user_id", "cutoff"]


def snapshots(moments: Moments, cutoffs: Sequence[datetime]) -> Mapping[Base, ir.Table]:
    """Give the base tables of the cutoffs (UTC). `known` is the only door through which events reach features.

    `events`      user × type × instant × order (see `Moments`)
    `purchases`   those whose type is `purchase`
    `orders`      user × order, with its first and last instant and spend; purchases of one instant without an order id are one
    `days`        user × local day with a purchase, with its first instant and the days since the day before it
    `categories`  user × category bought, with the last instant
    `brands`      user × brand bought, with the last instant and the spend of the last half year

    Every row belongs to one `user_id` and one `cutoff`. Windows all end at the cutoff, so an order, category or brand was seen
    in a window exactly when its last instant was: distinct counts of nested windows need one pass and stay exact.
    """
    at = instants(cutoffs)

    def known(table: ir.Table) -> ir.Table:
        return table.inner_join(at, table.event_ts < at.cutoff)

    events = known(moments.events)
    purchases = events.filter(_.event_type == PURCHASE)
    orders = purchases.group_by(*KEYS, order=ibis.coalesce(_.order_id, _.event_ts.cast("string"))).agg(
        first_at=_.event_ts.min(), last_at=_.event_ts.max(), local_at=_.local_ts.max(), amount=_.amount.sum()
    )
    days = purchases.group_by(*KEYS, day=_.local_ts.date()).agg(at=_.event_ts.min())
    previous = days.day.lag().over(ibis.window(group_by=[days.user_id, days.cutoff], order_by=days.day))
    return {
        "events": events,
        "purchases": purchases,
        "orders": orders,
        "days": days.mutate(gap=days.day.delta(previous, unit="day")),
        "categories": _last_seen(known(moments.categories), "category"),
        "brands": _last_seen(known(moments.brands), "brand"),
    }


def _last_seen(table: ir.Table, what: str) -> ir.Table:
    recent = _.event_ts >= _.cutoff - ibis.interval(days=182)
    return table.group_by(*KEYS, what).agg(last_at=_.event_ts.max(), amount=_.amount.sum(where=recent))


def instants(cutoffs: Sequence[datetime]) -> ir.Table:
    """Make a table of the cutoffs: one column `cutoff` (UTC)."""
    return ibis.array([ibis.literal(cutoff) for cutoff in dict.fromkeys(cutoffs)]).unnest().name("cutoff").as_table()
