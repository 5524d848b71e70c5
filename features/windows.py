"""Durations and windows: `[cutoff - window, cutoff)`, closed on the left, open on the right."""

import re
from datetime import timedelta

import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from features.errors import ConfigError

EVER = "ever"
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LONGEST = timedelta(days=36_525)
DAY_MICROSECONDS = 86_400_000_000


def duration(text: str) -> timedelta:
    """Read a duration such as `28d`, `12h` or `4w`; a day is always 24 hours.

    >>> duration("28d")
    datetime.timedelta(days=28)

    Raises ConfigError when the text is not a positive whole number followed by h, d or w.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})([hdw])", text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f"{text!r} is not a duration: write a positive whole number and h, d or w, such as 28d")
    found = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if found > LONGEST:
        raise ConfigError(f"{text!r} is longer than {words(LONGEST)}: no log reaches that far")
    return found


def lookback(text: str) -> timedelta:
    """Read how far to look back: a duration, or `ever`. Raises ConfigError like `duration`."""
    return LONGEST if text == EVER else duration(text)


def label(window: timedelta) -> str:
    """Write a duration the way feature names and configs carry it.

    >>> label(timedelta(days=28)), label(timedelta(hours=36))
    ('28d', '36h')
    """
    if window == LONGEST:
        return EVER
    hours = int(window.total_seconds() // 3600)
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"


def words(window: timedelta) -> str:
    """Write a duration for a reader.

    >>> words(timedelta(days=1)), words(timedelta(hours=36))
    ('1 day', '36 hours')
    """
    hours = int(window.total_seconds() // 3600)
    number, unit = (hours // 24, "day") if hours % 24 == 0 else (hours, "hour")
    return f"{number} {unit}{'' if number == 1 else 's'}"


def before(window: timedelta) -> str:
    """Say how far back something lies.

    >>> before(timedelta(days=28)), before(lookback("ever"))
    ('in the 28 days before', 'at any time before')
    """
    return "at any time before" if window == LONGEST else f"in the {words(window)} before"


def hours(window: timedelta) -> int:
    """Give a duration in hours; every window is a whole number of them.

    >>> hours(timedelta(days=7))
    168
    """
    return int(window / HOUR)


def within(window: timedelta) -> Deferred:
    """Whether a row of a base table lies in the window before its `cutoff`, by its `age` in hours (see `features.tiles`)."""
    return _.age <= hours(window)


def between(start: timedelta, end: timedelta) -> Deferred:
    """Whether a row of a base table lies in `[cutoff - end, cutoff - start)`, by its `age` in hours."""
    return within(end) & (_.age > hours(start)) if start else within(end)


def only_where(hit: Deferred, value: Deferred) -> Deferred:
    """A value where something is true and 0 elsewhere, to be added up: engines add products faster than cases."""
    return value * hit.cast("float64")


def days_until(cutoff: ir.TimestampValue, instant: ir.TimestampValue) -> ir.FloatingValue:
    """Days, with their fraction, from an instant to a cutoff."""
    return cutoff.delta(instant, unit="microsecond") / DAY_MICROSECONDS


def pace(now: Deferred, around: Deferred, short: timedelta, long: timedelta) -> Deferred:
    """Set what there is per day of the last `short` against that of the last `long`, or since when a user is known.

    Null where nothing is around, and where a user is known for no longer than `short`: both are the same then.
    """
    known = _.known_days.clip(upper=long / DAY)
    return (_.known_days > short / DAY).ifelse(now / around.nullif(0) * known / (short / DAY), None)
