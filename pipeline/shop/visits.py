"""Visits: when each user comes, from where, and with what."""

from dataclasses import dataclass

import numpy as np

from pipeline.shop.contacts import Contacts
from pipeline.shop.personas import DEVICES, PERSONAS, SOURCES, Floats, Ints, choose, chooser, values
from pipeline.shop.users import NEVER, Users
from pipeline.shop.world import DAY, MINUTE, World

WEB, APP, STORE = range(3)
CHANNELS = ("web", "app", "store")
UNKNOWN = -1
LONGEST = 55 * MINUTE
_SLOWING_DAYS, _SLOWEST = 42, 0.2
_QUANTILES = 512


@dataclass(frozen=True)
class Visits:
    """One entry per visit, in order of user and time; `day` is the local day, `device` and `source` may be UNKNOWN."""

    user: Ints
    day: Ints
    at: Ints
    offset: Ints
    channel: Ints
    device: Ints
    source: Ints


def draw_visits(users: Users, contacts: Contacts, world: World, random: np.random.Generator) -> Visits:
    """Draw every visit of every user.

    Visits are a Gamma renewal process (Pareto/GGG: Platzer & Reutterer, 2016) in each user's own operational time, the integral of
    the visit intensity over local days and hours: regular users stay regular, and weekdays, seasons, promotions, contacts and the
    slowdown before leaving stretch and squeeze the calendar. New users pay their first visit when they join.
    """
    rates = intensity(users, contacts, world)
    user, day, part = _renewals(rates, users, random)
    local = day * DAY + _time_of_day(users.persona[user], world.weekday[day], part)
    joiner = np.flatnonzero(users.new)
    user = np.concatenate([user, joiner])
    at = np.concatenate([world.to_utc(users.zone[user[: len(local)]], local), users.joined[joiner]])
    order = np.lexsort((at, user))
    user, at = user[order], at[order]
    kept = (at >= np.maximum(users.joined, 0)[user]) & (at < np.minimum(users.left, world.end)[user] - LONGEST)
    user, at = user[kept], at[kept]
    # A visit that begins during another is the same visit.
    apart = np.ones(len(user), dtype=np.bool_)
    apart[1:] = (user[1:] != user[:-1]) | (np.diff(at) > LONGEST + MINUTE)
    user, at = user[apart], at[apart]
    offset = world.offset_at(users.zone[user], at)
    day = np.clip((at + offset * MINUTE) // DAY, 0, world.days - 1)
    return _described(user, day, at, offset, users, contacts, random)


def intensity(users: Users, contacts: Contacts, world: World) -> Floats:
    """Give expected visits per local day, users x days: zero before joining and after leaving."""
    rates = world.visiting[users.persona]
    rates *= (1 / users.mean_gap).astype(np.float32)[:, None]
    rates *= contacts.lift
    rates *= 1 + np.outer(users.sensitivity.astype(np.float32), 1.5 * world.depth.max(axis=1))
    days = np.arange(world.days, dtype=np.int32)
    slowing = np.flatnonzero(users.slows & (users.left < NEVER))
    ahead = (users.left[slowing] / DAY)[:, None] - days
    rates[slowing] *= np.clip(ahead / _SLOWING_DAYS, _SLOWEST, 1).astype(np.float32)
    # A day more on both sides, since local days and UTC days are not the same; visits are cut to the lifetime afterwards.
    rates *= (days >= (users.joined // DAY - 1)[:, None]) & (days <= (np.minimum(users.left, world.end) // DAY + 1)[:, None])
    return rates


def _renewals(rates: Floats, users: Users, random: np.random.Generator) -> tuple[Ints, Ints, Floats]:
    """Give user, local day and the part of the day's intensity that has passed, for each point of the Gamma renewal processes."""
    days = rates.shape[1]
    clock = np.cumsum(rates, axis=None, dtype=np.float64)
    until = clock[days - 1 :: days]
    since = np.concatenate([[0.0], until[:-1]])
    length, shape = until - since, users.gap_shape
    # Enough gaps to pass the end in all but one of many thousand draws.
    draws = np.ceil(length + 5 * np.sqrt(length / shape) + 4 + 4 / shape).astype(np.int64)
    user = np.repeat(np.arange(len(users)), draws)
    gaps = random.standard_gamma(shape[user]) / shape[user]
    first = np.concatenate([[0], np.cumsum(draws)[:-1]])
    # Whoever was there before the start is somewhere between two visits.
    gaps[first] *= np.where(users.new, 1.0, random.random(len(users)))
    total = np.cumsum(gaps)
    passed = total - (total[first] - gaps[first])[user]
    kept = passed < length[user]
    user, position = user[kept], since[user[kept]] + passed[kept]
    cell = np.minimum(np.searchsorted(clock, position, side="right"), user * days + days - 1)
    spent = 1 - (clock[cell] - position) / np.maximum(rates.ravel()[cell], 1e-12)
    return user, cell - user * days, np.clip(spent, 0, np.nextafter(1, 0))


def _time_of_day(persona: Ints, weekday: Ints, part: Floats) -> Ints:
    table = _hour_quantiles()
    place = part * _QUANTILES
    low = place.astype(np.int64)
    row = persona * 2 + (weekday >= 5)
    start, end = table[row, low], table[row, low + 1]
    return (start + (place - low) * (end - start)).astype(np.int64)


def _hour_quantiles() -> Floats:
    minutes = np.arange(1441)
    peaks = np.array([persona.hours for persona in PERSONAS], dtype=np.float64).reshape(-1, 1) * 60
    away = np.abs(minutes[:-1] - peaks)
    away = np.minimum(away, 1440 - away)
    density = np.exp(-0.5 * (away / 130) ** 2) + 0.12 * ((minutes[:-1] >= 420) & (minutes[:-1] < 1380)) + 0.005
    reached = np.concatenate([np.zeros((len(peaks), 1)), np.cumsum(density, axis=1)], axis=1) / density.sum(axis=1, keepdims=True)
    steps = np.linspace(0, 1, _QUANTILES + 1)
    return np.array([np.interp(steps, row, minutes * MINUTE) for row in reached])


def _described(
    user: Ints, day: Ints, at: Ints, offset: Ints, users: Users, contacts: Contacts, random: np.random.Generator
) -> Visits:
    drawn = random.random((7, len(user)))
    persona = users.persona[user]
    in_store = drawn[0] < users.store[user]
    device = np.where(drawn[1] < 0.8, users.device[user], (drawn[2] * len(DEVICES)).astype(np.int64))
    in_app = users.app[user] & (device != DEVICES.index("desktop")) & (drawn[3] < 0.8)
    source = choose(chooser(values("sources")), persona, drawn[4])
    source = np.where(contacts.mailed[user, day] & (drawn[5] < 0.3), SOURCES.index("email"), source)
    channel = np.where(in_store, STORE, np.where(in_app, APP, WEB))
    return Visits(
        user=user,
        day=day,
        at=at,
        offset=offset,
        channel=channel,
        device=np.where(in_store | (drawn[6] < 0.03), UNKNOWN, device),
        source=np.where(in_store | (drawn[6] > 0.95), UNKNOWN, source),
    )
