"""Snapshots: what was known of every user just before each cutoff, as the tables that features aggregate."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from features.catalogue import Base
from features.custom import MILLION as MILLION
from features.custom import Measure, in_millionths
from features.derived import order_of, with_derived
from features.event_types import CONTACTS, PURCHASE, TOGETHER
from features.local_time import hour_of
from features.occasions import LAPSED_AFTER, LAST, Occasion, occasions
from features.tiles import Grid
from features.windows import days_until, only_where, within

KEYS = ["user_id", "cutoff"]

_CONTEXTS = {"channels": "channel", "devices": "device", "sources": "source", "regions": "region", "hours": "hour"}
_LINE = [
    *("user_id", "event_type", "event_ts", "local_ts", "tile", "order_id"),
    *("amount", "quantity", "discount", "category", "brand", "channel"),
]
_PURCHASED = {"categories": "category", "brands": "brand"}


class Snapshot:
    """The base tables of some cutoffs (UTC), each made once, when first asked for. Every row has a `user_id` and a `cutoff`.

    `tiles`       user × event type × tile: `n, discounted, valued, measured, amount, quantity, discount, since_first, since_last`;
                  `discounted`, `valued` and `measured` count the events with a discount, an amount and a quantity
    `orders`      user × order: `since_first, since_last, local_at, amount, discount, channel, switched` (not the channel before)
    `days`        user × local day with a purchase: `since` (its first instant), `gap` (days since the day before it)
    `weeks`       user × week with such a day: `week`, counted back from the cutoff, and `turn`, its place among them
    `categories`, `brands`                                 user × value bought
    `channels`, `devices`, `sources`, `regions`, `hours`   user × value of what the user did, an hour is local; `within` knows
                  the longest window alone
    `attributes`  user: the attributes known, and `since`
    `custom`      user × tile of any event: the measures of custom features
    `occasions`   user × occasion × tile: see `features.occasions`, with `since_began, since_first, since_last` and `since_2`
                  to `since_4`

    Tables of values have `value, n, since_first, since_last`; `recent_n`, and of what is bought `recent_amount` and
    `recent_quantity`, are the part in the longest window, and `first_age` the age of its first tile. `since_…` are days before the
    cutoff with their fraction, amounts whole millionths, and `age` is for `features.windows.within`. An order, a category or a
    brand was seen in a window exactly when its last tile was: distinct counts of nested windows need one pass and stay exact.
    """

    def __init__(
        self,
        events: ir.Table,
        grid: Grid,
        longest: timedelta,
        *,
        keep: Callable[[ir.Table, str], ir.Table],
        bases: Collection[Base] = (),
        derived: Collection[str] = (),
        measures: Sequence[Measure] = (),
        occasions: Sequence[Occasion] = (),
        lapsed_after: timedelta = LAPSED_AFTER,
        attributes: ir.Table | None = None,
        everybody: ir.Table | None = None,
    ) -> None:
        """Look at `events` (see `features.contract`) through `grid`.

        `bases` are those that will be asked for; `keep` computes a table that several of them read. `derived` are the derived
        event types, `measures` the custom ones and `occasions` those that are asked for; `attributes` has a row per user and
        `known_from`. Where `events` are those of some users, `everybody` has those of all: prices are everybody's.
        """
        self._events, self._grid, self._longest, self._derived = events, grid, longest, derived
        # Where nobody asks for shorter windows, fewer tiles are fewer rows.
        self._long_grid = Grid.of(grid.cutoffs, [longest])
        self._measures, self._occasions, self._attributes = measures, occasions, attributes
        self._lapsed_after = lapsed_after
        self._everybody = events if everybody is None else everybody
        self._keep, self._bases = keep, bases
        self._made: dict[str, ir.Table] = {}

    def __getitem__(self, base: Base) -> ir.Table:
        """Give a base table."""
        return self._once(base, lambda: self._make(base))

    def _once(self, name: str, make: Callable[[], ir.Table]) -> ir.Table:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _make(self, base: Base) -> ir.Table:
        own: Mapping[str, Callable[[], ir.Table]] = {
            "everything": self._everything,
            "orders": self._orders,
            "days": self._days,
            "weeks": self._weeks,
            "attributes": self._as_of,
            "custom": self._custom,
            "occasions": self._of_occasions,
        }
        if base in own:
            return own[base]()
        if base in TOGETHER:
            return self._tiles(TOGETHER[base])
        if base in _PURCHASED:
            return self._bought(_PURCHASED[base])
        return self._values(self._contexts().rename(value=_CONTEXTS[base]), self._long_grid)

    def _seen(self, tiles: ir.Table, grid: Grid | None = None) -> ir.Table:
        return Grid.seen(tiles, self._views(grid or self._grid))

    def _views(self, grid: Grid) -> ir.Table:
        edges = len(grid.edges)
        return self._once(f"views of {edges} edges", lambda: self._keep(grid.views(), f"views_{edges}"))

    def _latest(self, tiled: ir.Table, what: str, **measures: str) -> ir.Table:
        """Give each thing of a user once for every cutoff that knows it, as it was known there, with the `age` of its last tile.

        Nearly all lie in one tile: what has come together by each of its tiles is told before it is repeated for every cutoff.
        """
        by_tile = ibis.window(group_by=[tiled.user_id, tiled[what]], order_by=tiled.tile)
        so_far = ibis.cumulative_window(group_by=[tiled.user_id, tiled[what]], order_by=tiled.tile)
        told = {name: getattr(tiled[name], how)().over(so_far) for name, how in measures.items()}
        known = tiled.select("user_id", what, "tile", **told, next_tile=tiled.tile.lead().over(by_tile))
        return Grid.latest(known, self._views(self._grid))

    def _everything(self) -> ir.Table:
        """Whoever had any event before a cutoff is known there: the first event tells, without tiles."""
        known = self._grid.before(self._events).group_by("user_id").agg(first_at=_.event_ts.min())
        at = instants(self._grid.cutoffs)
        seen = known.inner_join(at, known.first_at < at.cutoff)
        return seen.select(*KEYS, since_first=days_until(seen.cutoff, seen.first_at))

    def _tiles(self, types: Sequence[str]) -> ir.Table:
        only_bought = tuple(types) == (PURCHASE,)
        facts = self._purchases() if only_bought else self._grid.before(with_derived(self._events, types, self._derived))
        return _since(self._seen(facts.group_by("user_id", "event_type", "tile").agg(**_measures(facts))))

    def _purchases(self) -> ir.Table:
        bought = self._events.filter(_.event_type == PURCHASE)
        return self._once("lines", lambda: self._keep(self._grid.before(bought).select(*_LINE), "lines"))

    def _contexts(self) -> ir.Table:
        """What the users did themselves, by where and when: a contact says when and how the company acts."""
        own = self._long_grid.before(self._events.filter(_.event_type.notin(CONTACTS)))
        by = [_CONTEXTS[base] for base in _CONTEXTS if base in self._bases]
        tiled = own.mutate(hour=hour_of(_.local_ts)).group_by("user_id", "tile", *by)
        counts = {"n": _.count().cast("float64"), "first_at": _.event_ts.min(), "last_at": _.event_ts.max()}
        return self._once("contexts", lambda: self._keep(tiled.agg(**counts), "contexts"))

    def _orders(self) -> ir.Table:
        lines = self._purchases()
        named = lines.mutate(order=order_of(lines))
        tiled = named.group_by("user_id", "order", "tile").agg(
            **_measures(named), local_at=named.local_ts.max(), channel=named.channel.min()
        )
        sums = {"amount": "sum", "discount": "sum"}
        orders = _since(self._latest(tiled, "order", first_at="min", last_at="max", local_at="max", channel="min", **sums))
        before = orders.channel.lag().over(
            ibis.window(group_by=[orders.user_id, orders.cutoff], order_by=[orders.since_last.desc(), orders.order])
        )
        return orders.mutate(switched=(orders.channel != before).cast("float64"))

    def _days(self) -> ir.Table:
        lines = self._purchases()
        tiled = lines.group_by("user_id", "tile", day=lines.local_ts.date()).agg(
            first_at=lines.event_ts.min(), last_at=lines.event_ts.max()
        )
        # A day belongs to the window if any purchase of it does, as an order does: it may have begun before.
        days = self._latest(tiled, "day", first_at="min", last_at="max")
        previous = days.day.lag().over(ibis.window(group_by=[days.user_id, days.cutoff], order_by=days.day))
        gap = days.day.delta(previous, unit="day").cast("float64")
        since, since_last = (days_until(days.cutoff, days[at]) for at in ("first_at", "last_at"))
        table = days.select(*KEYS, "age", "day", since=since, since_last=since_last, gap=gap)
        return self._keep(table, "days") if "weeks" in self._bases else table

    def _weeks(self) -> ir.Table:
        # Seven days ago sharp is still within the last seven days.
        first, last = ((_[since] / 7).ceil().cast("int64") - 1 for since in ("since", "since_last"))
        days = self["days"]
        # A local day is in two weeks where one ends within it.
        weeks = days.select(*KEYS, week=first).union(days.filter(first != last).select(*KEYS, week=last)).distinct()
        turn = ibis.row_number().over(ibis.window(group_by=[weeks.user_id, weeks.cutoff], order_by=weeks.week))
        return weeks.mutate(turn=turn)

    def _bought(self, what: str) -> ir.Table:
        lines = self._purchases()
        lines = _priceable(lines) if what == "category" else lines
        tiled = lines.group_by("user_id", "tile", value=lines[what]).agg(**_measures(lines))
        values = self._values(tiled, self._grid, "amount", "quantity")
        return self._priced(values) if what == "category" else values

    def _values(self, tiled: ir.Table, grid: Grid, *amounts: str) -> ir.Table:
        known, recent = _since(self._seen(tiled.filter(_.value.notnull()), grid)), within(self._longest)
        return known.group_by(*KEYS, "value").agg(
            age=_.age.min(),
            first_age=_.age.max(),
            since_first=_.since_first.max(),
            since_last=_.since_last.min(),
            n=_.n.sum(),
            recent_n=recent.ifelse(_.n, 0.0).sum(),
            **{f"recent_{name}": recent.ifelse(getattr(_, name), ibis.null("float64")).sum() for name in amounts},
        )

    def _priced(self, categories: ir.Table) -> ir.Table:
        """Add `usual_amount`: what the recent quantity would have cost at the category's mean price over all users."""
        lines = self._grid.before(_priceable(self._everybody.filter(_.event_type == PURCHASE)))
        tiled = lines.group_by("tile", value=lines.category).agg(**_measures(lines))
        known = self._seen(tiled).filter(within(self._longest))
        prices = known.group_by("cutoff", "value").agg(price=_.amount.sum() / _.quantity.sum().nullif(0))
        joined = categories.left_join(prices, ["cutoff", "value"]).drop("cutoff_right", "value_right")
        return joined.mutate(usual_amount=(joined.recent_quantity * joined.price).round().cast("float64")).drop("price")

    def _custom(self) -> ir.Table:
        rows = self._grid.before(self._events)
        # Values first, once each: inside the branches of a case they are computed over and over.
        valued = rows.mutate(**{f"value of {measure.name}": measure.value for measure in self._measures})
        added = {
            measure.name: getattr(measure.met.ifelse(getattr(_, f"value of {measure.name}"), None), measure.how)().cast("float64")
            for measure in self._measures
        }
        return self._seen(valued.group_by("user_id", "tile").agg(**added))

    def _of_occasions(self) -> ir.Table:
        known = self._seen(occasions(self._grid.before(self._events), self._occasions, self._lapsed_after))
        earlier = {f"since_{place}": days_until(known.cutoff, known[f"before_{place}"]) for place in LAST}
        return _since(known.mutate(since_began=days_until(known.cutoff, known.began_at), **earlier))

    def _as_of(self) -> ir.Table:
        assert self._attributes is not None
        table, at = self._attributes, instants(self._grid.cutoffs)
        until = table.known_from.lead().over(ibis.window(group_by=table.user_id, order_by=table.known_from))
        held = table.mutate(until=until)
        known = held.inner_join(at, [held.known_from < at.cutoff, (held.until >= at.cutoff) | held.until.isnull()])
        return known.mutate(since=days_until(known.cutoff, known.known_from))


def _since(known: ir.Table) -> ir.Table:
    """Turn the instants of tiles into days before the cutoff that sees them."""
    return known.mutate(
        since_first=days_until(known.cutoff, known.first_at), since_last=days_until(known.cutoff, known.last_at)
    ).drop("first_at", "last_at")


def _measures(rows: ir.Table) -> Mapping[str, ir.Value]:
    """Count and add up rows; unused ones cost nothing, since engines leave out what nobody reads."""
    return {
        "n": rows.count().cast("float64"),
        "discounted": (rows.discount > 0).ifelse(1.0, 0.0).sum(),
        "valued": rows.amount.notnull().ifelse(1.0, 0.0).sum(),
        "measured": rows.quantity.notnull().ifelse(1.0, 0.0).sum(),
        **{name: in_millionths(rows[name]).sum() for name in ("amount", "quantity", "discount")},
        "first_at": rows.event_ts.min(),
        "last_at": rows.event_ts.max(),
    }


def _priceable(lines: ir.Table) -> ir.Table:
    """Forget the amount of a line without quantity, and the quantity of one without amount: together they make a price."""
    both = lines.amount.notnull() & lines.quantity.notnull()
    return lines.mutate(**{name: both.ifelse(lines[name], ibis.null(lines[name].type())) for name in ("amount", "quantity")})


def instants(cutoffs: Sequence[datetime]) -> ir.Table:
    """Make a table of the cutoffs: one column `cutoff` (UTC)."""
    return ibis.array([ibis.literal(cutoff) for cutoff in dict.fromkeys(cutoffs)]).unnest().name("cutoff").as_table()


def total(column: str, event_type: str | Sequence[str], window: timedelta | None = None) -> Deferred:
    """Add up a column over events of some types, in a window or over the whole history; 0 when there is nothing."""
    return only_where(_is(event_type, window), getattr(_, column)).sum().fill_null(0.0)


def days_since_last(event_type: str | Sequence[str]) -> Deferred:
    """Days since the last event of some types."""
    return _is(event_type, None).ifelse(_.since_last, ibis.null("float64")).min()


def days_since_first(event_type: str | Sequence[str]) -> Deferred:
    """Days since the first event of some types."""
    return _is(event_type, None).ifelse(_.since_first, ibis.null("float64")).max()


def _is(event_type: str | Sequence[str], window: timedelta | None) -> Deferred:
    hit = _.event_type == event_type if isinstance(event_type, str) else _.event_type.isin(list(event_type))
    return hit if window is None else hit & within(window)
