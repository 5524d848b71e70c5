"""One chunk of users as the shop's raw tables."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.shop.baskets import ACTIONS as CLICKS
from pipeline.shop.baskets import NOTHING, Clicks, Lines, Returns, draw_baskets, draw_returns
from pipeline.shop.contacts import ACTIONS as MESSAGES
from pipeline.shop.contacts import Contacts, draw_contacts
from pipeline.shop.personas import CATEGORIES, DEVICES, PERSONAS, SOURCES, Flags, Ints
from pipeline.shop.service import MEANS, TIERS, draw_members, draw_support
from pipeline.shop.users import NEVER, Users, draw_users
from pipeline.shop.visits import CHANNELS, STORE, UNKNOWN, Visits, draw_visits
from pipeline.shop.world import BRANDS, RANKS, SLOTS, ZONES, World, campaign_id

CHUNK = 10_000
_DIGITS = 11


def draw_chunk(world: World, seed: int, chunk: int, users: int) -> dict[str, pa.Table]:
    """Simulate `users` users, those numbered from `chunk * CHUNK`, and give the shop's tables and `users`, the truth about them.

    What comes out depends on the arguments only, never on another chunk.
    """
    streams = [np.random.default_rng(part) for part in np.random.SeedSequence(seed, spawn_key=(1, chunk)).spawn(6)]
    people = draw_users(users, world, streams[0])
    contacts = draw_contacts(people, world, streams[1])
    visits = draw_visits(people, contacts, world, streams[2])
    clicks, lines = draw_baskets(people, visits, contacts, world, streams[3])
    returns = draw_returns(people, visits, lines, world, streams[4])
    members = draw_members(people, visits, lines, contacts, world)
    support = draw_support(people, visits, lines, returns, world, streams[5])
    shop = _Columns(world, people, visits, chunk)
    return {
        "clicks": shop.clicks(clicks),
        "orders": shop.orders(lines),
        "returns": shop.returns(lines, returns),
        "messages": shop.messages(contacts),
        "support": pa.table(
            {"user_id": shop.user(support.user), "at": shop.time(support.at), "channel": coded(support.means, MEANS)}
        ),
        "members": pa.table(
            {
                "user_id": shop.user(members.user),
                "valid_from": shop.time(members.valid_from),
                "tier": coded(members.tier, TIERS),
                "accepts_email": members.accepts,
            }
        ),
        "users": shop.truth(),
    }


class _Columns:
    """Turns the arrays of one chunk into columns with the shop's names, ids and times."""

    def __init__(self, world: World, people: Users, visits: Visits, chunk: int) -> None:
        self._world, self._people, self._visits, self._chunk = world, people, visits, chunk
        self._epoch = int(datetime(world.start.year, world.start.month, world.start.day, tzinfo=UTC).timestamp()) * 1000
        self._user_ids = numbered("u", chunk * CHUNK + np.arange(len(people)), 7)
        self._sessions = numbered("s", self._running(len(visits.user)), _DIGITS)
        self._orders = numbered("o", self._running(len(visits.user)), _DIGITS)
        items = np.arange(len(world.brand))
        self._items, self._item_category = numbered("i", items, 5), items // (SLOTS * RANKS)
        self._campaigns = [campaign_id(number) for number in range(len(world.sent_at))]

    def user(self, users: Ints) -> pa.Array:
        return coded(users, self._user_ids)

    def time(self, at: Ints) -> pa.Array:
        return pa.array((self._epoch + at) * 1000, pa.timestamp("us"))

    def clicks(self, clicks: Clicks) -> pa.Table:
        visit, action = clicks.visit, clicks.action
        return pa.table(
            {
                "user_id": self.user(self._visits.user[visit]),
                "session_id": coded(visit, self._sessions),
                "clicked_at": self.time(clicks.at),
                "action": coded(action, CLICKS),
                **self._item(clicks.item),
                "price": _money(clicks.price, clicks.item == NOTHING),
                **self._circumstances(visit),
            }
        )

    def orders(self, lines: Lines) -> pa.Table:
        visit = lines.visit
        online = np.where(self._visits.channel[visit] == STORE, NOTHING, visit)
        return pa.table(
            {
                "user_id": self.user(self._visits.user[visit]),
                "order_id": coded(visit, self._orders),
                "session_id": coded(online, self._sessions),
                "ordered_at": self.time(lines.at),
                **self._item(lines.item),
                "quantity": lines.quantity.astype(np.int32),
                "amount": _money(lines.amount),
                "discount": _money(lines.discount),
                "coupon": coded(lines.coupon, self._campaigns),
                **self._circumstances(visit),
            }
        )

    def returns(self, lines: Lines, returns: Returns) -> pa.Table:
        visit = lines.visit[returns.line]
        zone = self._people.zone[self._visits.user[visit]]
        where = self._circumstances(visit)
        return pa.table(
            {
                "user_id": self.user(self._visits.user[visit]),
                "order_id": coded(visit, self._orders),
                **self._item(lines.item[returns.line]),
                "returned_at": self.time(returns.at),
                "amount": _money(lines.amount[returns.line]),
                "channel": where["channel"],
                "region": where["region"],
                "utc_offset_minutes": self._world.offset_at(zone, returns.at).astype(np.int16),
            }
        )

    def messages(self, contacts: Contacts) -> pa.Table:
        return pa.table(
            {
                "user_id": self.user(contacts.user),
                "campaign": coded(contacts.campaign, self._campaigns),
                "sent_at": self.time(contacts.sent_at),
                "channel": coded(self._world.push[contacts.campaign].astype(np.int64), ("email", "push")),
                "action": coded(contacts.action, MESSAGES),
                "at": self.time(contacts.at),
            }
        )

    def truth(self) -> pa.Table:
        people = self._people
        gone = people.left < NEVER
        return pa.table(
            {
                "user_id": self._user_ids,
                "persona": coded(people.persona, [persona.name for persona in PERSONAS]),
                "churn_hazard_per_day": people.hazard,
                "left_at": pa.array((self._epoch + np.where(gone, people.left, 0)) * 1000, pa.timestamp("us"), mask=~gone),
                "promotion_sensitivity": people.sensitivity,
                "contact_response": people.response,
                "mean_gap_days": people.mean_gap,
                "gap_shape": people.gap_shape,
                "joined_at": self.time(people.joined),
                "slows_before_leaving": people.slows,
            }
        )

    def _running(self, count: int) -> Ints:
        # Every visit has a number of its own, of all chunks; a chunk has fewer than ten million.
        return self._chunk * 10_000_000 + np.arange(count)

    def _item(self, item: Ints) -> Mapping[str, pa.Array]:
        return {
            "item_id": coded(item, self._items),
            "category": coded(np.where(item == NOTHING, NOTHING, self._item_category[item]), CATEGORIES),
            "brand": coded(np.where(item == NOTHING, NOTHING, self._world.brand[item]), BRANDS),
        }

    def _circumstances(self, visit: Ints) -> Mapping[str, pa.Array]:
        visits, user = self._visits, self._visits.user[visit]
        zone = np.where(self._people.region_known[user], self._people.zone[user], UNKNOWN)
        return {
            "channel": coded(visits.channel[visit], CHANNELS),
            "device": coded(visits.device[visit], DEVICES),
            "source": coded(visits.source[visit], SOURCES),
            "region": coded(zone, tuple(ZONES)),
            "utc_offset_minutes": visits.offset[visit].astype(np.int16),
        }


def numbered(prefix: str, numbers: Ints, digits: int) -> pa.Array:
    """Give ids of one length.

    >>> numbered("u", np.array([7, 123]), 4).to_pylist()
    ['u0007', 'u0123']
    """
    width = digits + 1
    text = np.empty((len(numbers), width), dtype=np.uint8)
    text[:, 0] = ord(prefix)
    rest = numbers.astype(np.int64)
    for place in range(digits, 0, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, place] = digit + ord("0")
    starts = np.arange(len(numbers) + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(starts), pa.py_buffer(text))


def coded(codes: Ints, names: Sequence[str] | pa.Array) -> pa.Array:
    """Give a column of names by their places; a negative place is null."""
    places = codes.astype(np.int32)
    missing = places < 0
    indices = pa.array(places, mask=missing) if missing.any() else pa.array(places)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def _money(cents: Ints, missing: Flags | None = None) -> pa.Array:
    amounts: npt.NDArray[np.float64] = cents / 100
    return pa.array(amounts, mask=missing)
