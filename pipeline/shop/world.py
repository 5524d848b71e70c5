"""What all users share: the calendar, the time zones, the catalogue, promotions and campaigns."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from pipeline.shop.personas import CATEGORIES, Flags, Floats, Ints, values

DAY = 24 * 60 * 60 * 1000
HOUR, MINUTE = DAY // 24, DAY // 1440
ZONES: Mapping[str, str] = {
    "central": "Europe/Berlin",
    "west": "Europe/London",
    "south": "Europe/Madrid",
    "north": "Europe/Helsinki",
    "islands": "Atlantic/Azores",
    "america": "America/New_York",
    "japan": "Asia/Tokyo",
}
ZONE_SHARES = (0.34, 0.22, 0.18, 0.10, 0.03, 0.09, 0.04)
SLOTS, RANKS = 8, 20
BRANDS = (
    "Alba", "Brio", "Cedar", "Dune", "Elva", "Fable", "Gusto", "Halo", "Iris", "Juno", "Kite", "Lumen",
    "Mira", "Nova", "Orla", "Pico", "Quill", "Rune", "Sol", "Terra", "Umbra", "Vale", "Wren", "Zest",
)  # fmt: skip
_PRICES = np.array([4.0, 7.0, 14.0, 35.0, 40.0, 22.0, 25.0, 13.0, 120.0, 28.0])
_UNBRANDED = (0, 6, 9)
_MARGIN = 3


@dataclass(frozen=True)
class World:
    """The shop as all users see it. Times are milliseconds since `start`, midnight UTC of the first day.

    `weekday`, `visiting` (per persona) and `depth` (per category) have one entry per day; `offsets` has the UTC offset in minutes
    per zone and UTC hour, from three days before the start; `brand` (-1: none) and `price` (cents) are per item; `sent_at`,
    `push`, `reach` and `coupon` are per campaign, in order of time.
    """

    start: date
    days: int
    weekday: Ints
    visiting: Floats
    offsets: Ints
    brand: Ints
    price: Ints
    depth: Floats
    sent_at: Ints
    push: Flags
    reach: Floats
    coupon: Flags

    @property
    def end(self) -> int:
        """When the simulation ends, in milliseconds since the start."""
        return self.days * DAY

    def offset_at(self, zone: Ints, at: Ints) -> Ints:
        """Give the UTC offset in minutes of zones at instants."""
        found: Ints = self.offsets[zone, at // HOUR + 24 * _MARGIN].astype(np.int64)
        return found

    def to_utc(self, zone: Ints, local: Ints) -> Ints:
        """Turn wall-clock time into instants; an hour that the clocks skip becomes the one after."""
        guess = local - self.offset_at(zone, local) * MINUTE
        return local - self.offset_at(zone, guess) * MINUTE

    def told(self) -> dict[str, Any]:
        """Give what the truth file keeps of promotions and campaigns."""
        spells = [
            (int(day), CATEGORIES[category], round(float(self.depth[day, category]), 2))
            for day, category in _beginnings(self.depth)
        ]
        columns = zip(self.sent_at.tolist(), self.push.tolist(), self.reach.tolist(), self.coupon.tolist(), strict=True)
        return {
            "promotions": [{"day": day, "category": category, "depth": depth} for day, category, depth in spells],
            "campaigns": [
                {
                    "id": campaign_id(number),
                    "sent_at_ms": at,
                    "channel": "push" if push else "email",
                    "reach": reach,
                    "coupon": coupon,
                }
                for number, (at, push, reach, coupon) in enumerate(columns)
            ],
        }


def campaign_id(number: int) -> str:
    """Name a campaign.

    >>> campaign_id(0)
    'c0001'
    """
    return f"c{number + 1:04d}"


def build_world(start: date, days: int, seed: int) -> World:
    """Draw the shop's catalogue and calendar; the same arguments give the same world."""
    catalogue, promotions, campaigns = (
        np.random.default_rng(part) for part in np.random.SeedSequence(seed, spawn_key=(0,)).spawn(3)
    )
    dates = [start + timedelta(days=day) for day in range(days)]
    weekday = np.array([day.weekday() for day in dates])
    brand, price = _catalogue(catalogue)
    sent_at, push, reach, coupon = _campaigns(dates, campaigns)
    return World(
        start=start,
        days=days,
        weekday=weekday,
        visiting=_visiting(dates, weekday),
        offsets=_offsets(start, days),
        brand=brand,
        price=price,
        depth=_promotions(dates, promotions),
        sent_at=sent_at,
        push=push,
        reach=reach,
        coupon=coupon,
    )


def _visiting(dates: list[date], weekday: Ints) -> Floats:
    week = values("weekday")
    week /= week.mean(axis=1, keepdims=True)
    yearly = np.array([1 + 0.1 * np.cos(2 * np.pi * (day.timetuple().tm_yday - 15) / 365.25) for day in dates])
    gifts = np.array([(day.month, day.day) >= (11, 24) and (day.month, day.day) <= (12, 24) for day in dates])
    seasons = yearly * np.where(gifts, values("december")[:, None], 1.0)
    visiting: Floats = (week[:, weekday] * seasons).astype(np.float32)
    return visiting


def _offsets(start: date, days: int) -> Ints:
    first = datetime(start.year, start.month, start.day, tzinfo=UTC) - timedelta(days=_MARGIN)
    hours = [first + timedelta(hours=hour) for hour in range(24 * (days + 2 * _MARGIN))]
    offsets = [
        [(hour.astimezone(zone).utcoffset() or timedelta()).total_seconds() // 60 for hour in hours]
        for zone in map(ZoneInfo, ZONES.values())
    ]
    return np.array(offsets, dtype=np.int16)


def _catalogue(random: np.random.Generator) -> tuple[Ints, Ints]:
    slots = np.argsort(random.random((len(CATEGORIES), len(BRANDS))), axis=1)[:, :SLOTS]
    slots[_UNBRANDED, SLOTS - 1] = -1
    level = random.lognormal(0, 0.25, (len(CATEGORIES), SLOTS, 1))
    price = _PRICES[:, None, None] * level * random.lognormal(0, 0.45, (len(CATEGORIES), SLOTS, RANKS))
    # Prices end in nine, as they do in shops; the cheapest cost 49 cents.
    cents = np.maximum(np.round(price * 10).astype(np.int64) * 10 - 1, 49)
    return np.repeat(slots.ravel(), RANKS), cents.ravel()


def _promotions(dates: list[date], random: np.random.Generator) -> Floats:
    depth = np.zeros((len(dates), len(CATEGORIES)), dtype=np.float32)
    for first in range(0, len(dates), 7):
        # A promotion in two weeks of three; drawn always, so that one more week changes nothing before it.
        happens, category, size, length = (
            random.random(),
            random.integers(len(CATEGORIES)),
            random.uniform(0.1, 0.35),
            random.integers(4, 11),
        )
        if happens < 0.65:
            depth[first : first + length, category] = np.maximum(depth[first : first + length, category], size)
    sales = [(day.month == 11 and 22 <= day.day <= 28) or (day.month == 1 and 8 <= day.day <= 18) for day in dates]
    depth[sales] = np.maximum(depth[sales], 0.25)
    return depth


def _beginnings(depth: Floats) -> Ints:
    changed = np.diff(depth, axis=0, prepend=0) != 0
    return np.argwhere(changed & (depth > 0))


def _campaigns(dates: list[date], random: np.random.Generator) -> tuple[Ints, Flags, Floats, Flags]:
    gaps = random.integers(3, 6, len(dates) // 3 + 1)
    day = np.cumsum(gaps) - 2
    day = day[day < len(dates)]
    at = day * DAY + random.integers(7, 10, len(day)) * HOUR
    return at, random.random(len(day)) < 0.25, np.round(random.uniform(0.05, 0.25, len(day)), 3), random.random(len(day)) < 0.5
