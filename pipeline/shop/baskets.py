"""Baskets: what a visit looks at, puts into the cart, buys, and sends back."""

from dataclasses import dataclass

import numpy as np

from pipeline.shop.contacts import NO_COUPON, Contacts
from pipeline.shop.personas import Flags, Floats, Ints, choose, chooser, values
from pipeline.shop.users import Users
from pipeline.shop.visits import LONGEST, STORE, Visits
from pipeline.shop.world import DAY, MINUTE, RANKS, SLOTS, World

VIEW, CART, CHECKOUT = range(3)
ACTIONS = ("view", "cart", "checkout")
NOTHING = -1
_COUPON_DISCOUNT = 0.1
_MOST_VIEWS = 30
_SENT_BACK = np.array([0.2, 0.6, 0.7, 2.5, 1.5, 1.0, 0.5, 0.4, 1.6, 0.1])


@dataclass(frozen=True)
class Clicks:
    """One entry per click, in order of visit and time; `price` is in cents; a checkout has no item (NOTHING)."""

    visit: Ints
    action: Ints
    at: Ints
    item: Ints
    price: Ints


@dataclass(frozen=True)
class Lines:
    """One entry per order line, in order of visit; amounts in cents; `coupon` is a campaign or NO_COUPON."""

    visit: Ints
    at: Ints
    item: Ints
    quantity: Ints
    amount: Ints
    discount: Ints
    coupon: Ints


@dataclass(frozen=True)
class Returns:
    """One entry per line that came back: which line, and when."""

    line: Ints
    at: Ints


def draw_baskets(
    users: Users, visits: Visits, contacts: Contacts, world: World, random: np.random.Generator
) -> tuple[Clicks, Lines]:
    """Draw what happens during every visit.

    A visit has a geometric number of views; each view may end in the cart, each cart in a checkout, each checkout in a purchase.
    What is on promotion draws views and carts by `sensitivity`. A visit to the store leaves no clicks, and all it takes is bought.
    """
    persona, in_store = users.persona[visits.user], visits.channel == STORE
    drawn = random.random((6, len(visits.user)))
    views = np.ceil(np.log1p(-drawn[0]) / np.log1p(-1 / values("views")[persona])).astype(np.int64)
    views = np.where(in_store, 1 + (views - 1) // 2, views).clip(1, _MOST_VIEWS)
    visit = np.repeat(np.arange(len(views)), views)
    item = _items(visit, users, visits, world, drawn[1:3], random)
    depth = world.depth[visits.day[visit], item // (SLOTS * RANKS)]
    at = visits.at[visit] + _pauses(views, random)
    eager = (values("cart")[persona] * users.eagerness[visits.user])[visit]
    chance = np.minimum(eager * (1 + 3 * users.sensitivity[visits.user][visit] * depth), 0.9)
    carted = _once((random.random(len(visit)) < chance) | in_store[visit], visit, item)
    filled = np.bincount(visit[carted], minlength=len(views)) > 0
    started = filled & (in_store | (drawn[3] < values("checkout")[persona]))
    bought = started & (in_store | (drawn[4] < values("purchase")[persona]))
    last = at[np.cumsum(views) - 1]
    clicks = _clicks(visit, item, at, carted, started & ~in_store, last, in_store, world)
    coupon = contacts.coupon[visits.user, visits.day].astype(np.int64)
    coupon[drawn[5] >= 0.2 + 0.7 * users.sensitivity[visits.user]] = NO_COUPON
    taken = carted[bought[visit[carted]]]
    return clicks, _lines(visit[taken], item[taken], depth[taken], last + 3 * MINUTE, coupon, world, random)


def draw_returns(users: Users, visits: Visits, lines: Lines, world: World, random: np.random.Generator) -> Returns:
    """Send lines back 3 to 30 days after the purchase, by persona and category, while the user is still a customer."""
    user = visits.user[lines.visit]
    chance = values("returns")[users.persona[user]] * _SENT_BACK[lines.item // (SLOTS * RANKS)]
    at = lines.at + 3 * DAY + np.minimum(random.gamma(2, 4 * DAY, len(user)), 27 * DAY).astype(np.int64)
    gone = np.minimum(users.left, world.end)[user]
    line = np.flatnonzero((random.random(len(user)) < chance) & (at < gone) & (lines.amount > 0))
    return Returns(line, at[line])


def _items(visit: Ints, users: Users, visits: Visits, world: World, drawn: Floats, random: np.random.Generator) -> Ints:
    user = visits.user
    table = chooser(values("categories"))
    main = np.where(drawn[0] < 0.45, users.category[user], choose(table, users.persona[user], random.random(len(user))))
    promoted = world.depth.argmax(axis=1)[visits.day]
    lured = drawn[1] < 2 * users.sensitivity[user] * world.depth.max(axis=1)[visits.day]
    main = np.where(lured, promoted, main)
    each = random.random((4, len(visit)), dtype=np.float32)
    category = np.where(each[0] < 0.65, main[visit], choose(table, users.persona[user][visit], each[1]))
    fond = users.loyalty[user][visit]
    scaled = (each[2] - fond) / np.maximum(1 - fond, 1e-6)
    slot = np.where(
        each[2] < fond, (users.slot[user][visit] + category) % (SLOTS - 1), (scaled * SLOTS).astype(np.int64).clip(0, SLOTS - 1)
    )
    # Few items are looked at often, most rarely.
    rank = (RANKS * each[3] ** 2).astype(np.int64).clip(0, RANKS - 1)
    item: Ints = (category * SLOTS + slot) * RANKS + rank
    return item


def _pauses(views: Ints, random: np.random.Generator) -> Ints:
    first = np.cumsum(views) - views
    pauses = (2_000 + random.standard_exponential(views.sum()) * 45_000).astype(np.int64)
    pauses[first] = 0
    total = np.cumsum(pauses)
    since: Ints = np.minimum(total - np.repeat(total[first], views), LONGEST - 6 * MINUTE)
    return since


def _once(carted: Flags, visit: Ints, item: Ints) -> Ints:
    """Give the places of carted views, the first of each item of a visit."""
    places = np.flatnonzero(carted)
    _, first = np.unique(visit[places] * 4096 + item[places], return_index=True)
    return np.sort(places[first])


def _clicks(visit: Ints, item: Ints, at: Ints, carted: Ints, started: Flags, last: Ints, in_store: Flags, world: World) -> Clicks:
    seen = np.flatnonzero(~in_store[visit])
    added = carted[~in_store[visit[carted]]]
    out = np.flatnonzero(started)
    whose = np.concatenate([visit[seen], visit[added], out])
    action = np.repeat([VIEW, CART, CHECKOUT], [len(seen), len(added), len(out)])
    when = np.concatenate([at[seen], at[added] + 1500, last[out] + MINUTE])
    what = np.concatenate([item[seen], item[added], np.full(len(out), NOTHING)])
    order = np.lexsort((when, whose))
    return Clicks(whose[order], action[order], when[order], what[order], np.where(what == NOTHING, 0, world.price[what])[order])


def _lines(visit: Ints, item: Ints, depth: Floats, at: Ints, coupon: Ints, world: World, random: np.random.Generator) -> Lines:
    many = np.where(item // (SLOTS * RANKS) < 2, 0.35, 0.08)
    quantity = 1 + (random.random(len(visit)) < many) + (random.random(len(visit)) < many / 2)
    full = quantity * world.price[item]
    promotion = np.round(full * depth.astype(np.float64)).astype(np.int64)
    by_coupon = np.where(coupon[visit] == NO_COUPON, 0, np.round((full - promotion) * _COUPON_DISCOUNT)).astype(np.int64)
    discount = promotion + by_coupon
    return Lines(visit, at[visit], item, quantity, full - discount, discount, coupon[visit])
