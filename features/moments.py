"""Moments: the events of one user at one instant, merged once, so that every cutoff reads less."""

from typing import NamedTuple

import ibis.expr.types as ir
from ibis import _
from ibis.backends.duckdb import Backend

from features.contract import PURCHASE


class Moments(NamedTuple):
    """The event log as features read it.

    `events`      user × type × instant × order: `lines`, `discounted_lines`, `amount`, `discount`
    `categories`  user × category × instant of a purchase: `amount`
    `brands`      user × brand × instant of a purchase: `amount`

    Rows merge only within one exact instant, so each lies wholly before a cutoff or wholly after it.
    """

    events: ir.Table
    categories: ir.Table
    brands: ir.Table


def merge_moments(engine: Backend, events: ir.Table) -> Moments:
    """Merge `events` (see `features.contract`) into moments, kept as temporary tables of the engine."""
    merged = events.group_by("user_id", "event_type", "event_ts", "local_ts", "order_id").agg(
        lines=_.count(),
        discounted_lines=_.count(where=_.discount > 0),
        amount=_.amount.sum(),
        discount=_.discount.sum(),
    )
    purchases = events.filter(_.event_type == PURCHASE)
    return Moments(
        events=engine.create_table("moment_events", merged, temp=True),
        categories=engine.create_table("moment_categories", _by(purchases, "category"), temp=True),
        brands=engine.create_table("moment_brands", _by(purchases, "brand"), temp=True),
    )


def _by(purchases: ir.Table, what: str) -> ir.Table:
    named = purchases.filter(purchases[what].notnull())
    return named.group_by("user_id", what, "event_ts").agg(amount=_.amount.sum())
