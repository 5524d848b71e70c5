"""What the company keeps about its members: the tier by past spend, the mailing list, and calls for help."""

from dataclasses import dataclass
from datetime import date

import numpy as np

from pipeline.shop.baskets import Lines, Returns
from pipeline.shop.contacts import Contacts
from pipeline.shop.personas import Flags, Floats, Ints, values
from pipeline.shop.users import NEVER, Users
from pipeline.shop.visits import Visits
from pipeline.shop.world import DAY, World

TIERS = ("none", "silver", "gold")
MEANS = ("phone", "chat", "email")
# Spend in cents over the last six calendar months from which a tier is given.
SILVER, GOLD = 15_000, 50_000
TIER_MONTHS = 6
_FAREWELL_DAYS = 30


@dataclass(frozen=True)
class Members:
    """What was true of a user from an instant on; in order of user and time."""

    user: Ints
    valid_from: Ints
    tier: Ints
    accepts: Flags


@dataclass(frozen=True)
class Support:
    """One entry per contact with support, in order of user and time."""

    user: Ints
    at: Ints
    means: Ints


def draw_members(users: Users, visits: Visits, lines: Lines, contacts: Contacts, world: World) -> Members:
    """Give the history of tier and mailing list.

    Tiers change at midnight UTC of the first of a month, by what was paid in the six calendar months before it.
    """
    months = _months(world)
    month = np.searchsorted(months, lines.at, side="right")
    cell = visits.user[lines.visit] * (len(months) + 1) + month
    spend = np.bincount(cell, lines.amount, minlength=len(users) * (len(months) + 1)).reshape(len(users), -1)
    reached = np.concatenate([np.zeros((len(users), 1)), np.cumsum(spend, axis=1)], axis=1)
    ends = np.arange(1, len(months) + 1)
    recent = reached[:, ends] - reached[:, np.maximum(ends - TIER_MONTHS, 0)]
    tier = np.concatenate(
        [np.zeros((len(users), 1), dtype=np.int64), np.searchsorted([SILVER, GOLD], recent, side="right")], axis=1
    )
    who, when = np.nonzero(np.diff(tier, axis=1))
    left_list = np.flatnonzero(contacts.unsubscribed < NEVER)
    everybody = np.arange(len(users))
    stopped = contacts.unsubscribed[left_list]
    user = np.concatenate([everybody, who, left_list])
    valid_from = np.concatenate([users.joined, months[when], stopped])
    tiers = np.concatenate(
        [np.zeros(len(users), dtype=np.int64), tier[who, when + 1], tier[left_list, np.searchsorted(months, stopped, side="right")]]
    )
    accepts = users.accepts[user] & (valid_from < contacts.unsubscribed[user])
    order = np.lexsort((valid_from, user))
    return Members(user[order], valid_from[order], tiers[order], accepts[order])


def draw_support(
    users: Users, visits: Visits, lines: Lines, returns: Returns, world: World, random: np.random.Generator
) -> Support:
    """Draw contacts with support: now and then, after orders and returns, and more in the last month of those who leave annoyed."""
    begin, gone = np.maximum(users.joined, 0), np.minimum(users.left, world.end)
    weight = values("support")[users.persona]
    leaving = np.flatnonzero((users.left < NEVER) & users.slows)
    final = np.maximum(users.left[leaving] - _FAREWELL_DAYS * DAY, begin[leaving])
    calls = [
        _spread(np.arange(len(users)), begin, gone, 0.5 / 365 * weight, random),
        _spread(leaving, final, users.left[leaving], 0.6 / _FAREWELL_DAYS * weight[leaving], random),
        _after(visits.user[lines.visit], lines.at, 0.02, weight, random),
        _after(visits.user[lines.visit[returns.line]], returns.at, 0.15, weight, random),
    ]
    user, at = np.concatenate([call[0] for call in calls]), np.concatenate([call[1] for call in calls])
    user, at = user[at < gone[user]], at[at < gone[user]]
    order = np.lexsort((at, user))
    return Support(user[order], at[order], random.choice(len(MEANS), len(order), p=(0.3, 0.45, 0.25)))


def _months(world: World) -> Ints:
    first = world.start.year * 12 + world.start.month - 1
    firsts = [date((first + month) // 12, (first + month) % 12 + 1, 1) for month in range(1, world.days // 28 + 2)]
    since = np.array([(day - world.start).days for day in firsts], dtype=np.int64)
    return since[since < world.days] * DAY


def _spread(user: Ints, begin: Ints, end: Ints, a_day: Floats, random: np.random.Generator) -> tuple[Ints, Ints]:
    calls = random.poisson(a_day * (end - begin) / DAY)
    user, begin, end = (np.repeat(column, calls) for column in (user, begin, end))
    return user, begin + (random.random(len(user)) * (end - begin)).astype(np.int64)


def _after(user: Ints, at: Ints, chance: float, weight: Floats, random: np.random.Generator) -> tuple[Ints, Ints]:
    chosen = np.flatnonzero(random.random(len(user)) < chance * weight[user])
    return user[chosen], at[chosen] + random.integers(DAY // 24, 3 * DAY, len(chosen))
