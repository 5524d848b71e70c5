"""Occasions: the local days on which events of a kind happened, with the days between them, and how long what was taken lasts.

Both are told of each event by what came before it, so that they are known when it happens, and add up over tiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from features.cells import INSTANT
from features.custom import MILLION, in_millionths
from features.windows import DAY, between, label, only_where

# The pause after which a user has lapsed, and a run of occasions is over, where a config does not say it.
LAPSED_AFTER = 56 * DAY
# The last of these days but one, but two, and but three.
LAST = (2, 3, 4)
_OWNER = ["user_id", "occasion"]
_NO_NUMBER, _NO_TIME = ibis.null("float64"), ibis.null(INSTANT)


@dataclass(frozen=True)
class Occasion:
    """A kind of events: its name, and what holds for them."""

    name: str
    met: Deferred


def occasions(events: ir.Table, asked: Sequence[Occasion], lapsed_after: timedelta) -> ir.Table:
    """Give per user, occasion and tile what happened there: `days, gap, gaps, runs, began_at, taken, used, first_at, last_at`.

    `days` are the local days with such an event that began there. `gap` is the days between each and the one before, summed, and
    `gaps` their number. A run begins on the first such day and after a break of `lapsed_after` or more; `began_at` is when the last
    one did. `before_2`, `before_3` and `before_4` are when the last day but one, two and three began. `taken` is the quantity of
    the events that have one above zero, `used` what had been taken before the last of them; both are whole millionths. `first_at`
    and `last_at` are of what was taken. `events` have their `tile`.
    """
    told = reduce(ir.Table.union, (_of(events, one) for one in asked))
    return _paused(told, lapsed_after).union(_taken(told))


def lapsing(lapsed_after: timedelta) -> str:
    """Say in the words of a config when a user has lapsed, for the definition of features that go by it."""
    return f"lapsed_after: {label(lapsed_after)}"


def days_between(name: str, start: timedelta, end: timedelta) -> Deferred:
    """Local days with an event of an occasion that began in `[cutoff - end, cutoff - start)`."""
    return only_where((_.occasion == name) & between(start, end), _.days).sum()


def day_from_last(name: str, place: int) -> Deferred:
    """Days since the last local day with an event of an occasion but `place - 1` began; null with fewer such days."""
    return _own(name, _[f"since_{place}"]).min()


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


def _paused(told: ir.Table, lapsed_after: timedelta) -> ir.Table:
    days = told.group_by(*_OWNER, "day").agg(event_ts=told.event_ts.min(), tile=told.tile.min())
    in_order = ibis.window(group_by=[days[name] for name in _OWNER], order_by=[days.event_ts, days.day])
    before = days.day.lag().over(in_order)
    earlier = {f"before_{place}": days.event_ts.lag(place - 1).over(in_order) for place in LAST}
    # Where the clock of each event is known, a day may come after a later one.
    gap = days.day.delta(before, unit="day").cast("float64")
    begins = before.isnull() | (gap >= lapsed_after / DAY)
    spaced = days.mutate(gap=(gap > 0).ifelse(gap, _NO_NUMBER), begins=begins, **earlier)
    return spaced.group_by(*_OWNER, "tile").agg(
        days=_.count().cast("float64"),
        gap=_.gap.sum(),
        gaps=_.gap.count().cast("float64"),
        runs=_.begins.ifelse(1.0, 0.0).sum(),
        began_at=_.begins.ifelse(_.event_ts, _NO_TIME).max().cast(INSTANT),
        # Of days in their order the last one's is the latest, so that tiles add up.
        **{name: _[name].max().cast(INSTANT) for name in earlier},
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
        days=_NO_NUMBER,
        gap=_NO_NUMBER,
        gaps=_NO_NUMBER,
        runs=_NO_NUMBER,
        began_at=_NO_TIME,
        **{f"before_{place}": _NO_TIME for place in LAST},
        taken=_.quantity.sum(),
        used=_.used.max(),
        first_at=_.event_ts.min().cast(INSTANT),
        last_at=_.event_ts.max().cast(INSTANT),
    )
