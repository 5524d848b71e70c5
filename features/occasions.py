"""Occasions: the local days on which events of a kind happened, with the days between them, and how long what was taken lasts.

Both are told of each event by what came before it, so that they are known when it happens, and add up over tiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from features.cells import INSTANT
from features.custom import MILLION, in_millionths

# Days without an event after which a run of occasions is over.
BREAK_DAYS = 56.0
_OWNER = ["user_id", "occasion"]
_NO_NUMBER, _NO_TIME = ibis.null("float64"), ibis.null(INSTANT)


@dataclass(frozen=True)
class Occasion:
    """A kind of events: its name, and what holds for them."""

    name: str
    met: Deferred


def occasions(events: ir.Table, asked: Sequence[Occasion]) -> ir.Table:
    """Give per user, occasion and tile what happened there: `gap, gaps, runs, began_at, taken, used, first_at, last_at`.

    `gap` is the days between local days with such an event and the one before, summed, and `gaps` their number. A run begins on
    the first such day and after a break of 56 days or more; `began_at` is when the last one did. `taken` is the quantity of the
    events that have one above zero, `used` what had been taken before the last of them; both are whole millionths. `first_at` and
    `last_at` are of what was taken. `events` have their `tile`.
    """
    told = reduce(ir.Table.union, (_of(events, one) for one in asked))
    return _paused(told).union(_taken(told))


def mean_gap(name: str) -> Deferred:
    """Mean days between local days with an event of an occasion; null with fewer than two such days."""
    return _own(name, _.gap).sum() / _own(name, _.gaps).sum().nullif(0.0)


def days_of_run(name: str) -> Deferred:
    """Days since the present run of an occasion began; null with none."""
    return _own(name, _.since_began).min()


def runs(name: str) -> Deferred:
    """How many runs of an occasion there were."""
    return _own(name, _.runs).sum().fill_null(0.0)


def last_quantity(name: str) -> Deferred:
    """Quantity of the last event of an occasion that has one above zero."""
    return _last_millionths(name) / MILLION


def days_of_supply(name: str) -> Deferred:
    """Days for which the last quantity is enough, at the rate at which all before it was used up; null when all came in a day."""
    span = _own(name, _.since_first).max() - _own(name, _.since_last).min()
    return (span >= 1).ifelse(_last_millionths(name) * span / _own(name, _.used).max(), _NO_NUMBER)


def _last_millionths(name: str) -> Deferred:
    return _own(name, _.taken).sum() - _own(name, _.used).max()


def _own(name: str, value: Deferred) -> Deferred:
    return (_.occasion == name).ifelse(value, _NO_NUMBER)


def _of(events: ir.Table, one: Occasion) -> ir.Table:
    own = events.filter(one.met)
    quantity = (own.quantity > 0).ifelse(in_millionths(own.quantity), _NO_NUMBER)
    return own.select("user_id", "event_ts", "tile", occasion=ibis.literal(one.name), day=own.local_ts.date(), quantity=quantity)


def _paused(told: ir.Table) -> ir.Table:
    days = told.group_by(*_OWNER, "day").agg(event_ts=told.event_ts.min(), tile=told.tile.min())
    before = days.day.lag().over(ibis.window(group_by=[days[name] for name in _OWNER], order_by=[days.event_ts, days.day]))
    # Where the clock of each event is known, a day may come after a later one.
    gap = days.day.delta(before, unit="day").cast("float64")
    spaced = days.mutate(gap=(gap > 0).ifelse(gap, _NO_NUMBER), begins=before.isnull() | (gap >= BREAK_DAYS))
    return spaced.group_by(*_OWNER, "tile").agg(
        gap=_.gap.sum(),
        gaps=_.gap.count().cast("float64"),
        runs=_.begins.ifelse(1.0, 0.0).sum(),
        began_at=_.begins.ifelse(_.event_ts, _NO_TIME).max().cast(INSTANT),
        taken=_NO_NUMBER,
        used=_NO_NUMBER,
        first_at=_NO_TIME,
        last_at=_NO_TIME,
    )


def _taken(told: ir.Table) -> ir.Table:
    """What is taken at one instant counts as one."""
    known = told.filter(_.quantity.notnull())
    lots = known.group_by(*_OWNER, "tile", "event_ts").agg(quantity=known.quantity.sum())
    earlier = ibis.window(group_by=[lots[name] for name in _OWNER], order_by=lots.event_ts, preceding=(None, 1))
    used = lots.mutate(used=lots.quantity.sum().over(earlier).fill_null(0.0))
    return used.group_by(*_OWNER, "tile").agg(
        gap=_NO_NUMBER,
        gaps=_NO_NUMBER,
        runs=_NO_NUMBER,
        began_at=_NO_TIME,
        taken=_.quantity.sum(),
        used=_.used.max(),
        first_at=_.event_ts.min().cast(INSTANT),
        last_at=_.event_ts.max().cast(INSTANT),
    )
