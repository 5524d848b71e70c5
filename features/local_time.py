"""Local time: what clock and calendar a person saw when an event happened."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir
from ibis.common.deferred import Deferred


def local_time(instant: ir.TimestampValue, zone: str, *, since: datetime, until: datetime) -> ir.TimestampValue:
    """Turn UTC instants between `since` and `until` into the wall-clock time of `zone`, daylight saving included.

    The zone's changes of offset become one `case`, so every engine gives the same answer, whatever zone data it carries.
    """
    changes = list(offset_changes(zone, since, until))
    (_, first), *later = changes
    minutes: ir.Value = ibis.literal(first)
    if later:
        bounds = [at for at, _ in later]
        offsets = [offset for _, offset in changes]
        branches = [(instant < ibis.literal(at), offset) for at, offset in zip(bounds, offsets, strict=False)]
        minutes = ibis.cases(*branches, else_=offsets[-1])
    return instant + minutes.cast("int64").as_interval("m")


def hour_of(local: Deferred) -> Deferred:
    """Give the hour of a local time, null where it is midnight sharp: that is how a date without a time is written."""
    return (local == local.truncate("D")).ifelse(ibis.null("int32"), local.hour())


def offset_changes(zone: str, since: datetime, until: datetime) -> Iterator[tuple[datetime, int]]:
    """Give (UTC instant, new offset in minutes) for `since` and for every later change of offset before `until`.

    >>> [(at.isoformat(), m) for at, m in offset_changes("Europe/Paris", datetime(2024, 3, 1), datetime(2024, 5, 1))]
    [('2024-03-01T00:00:00', 60), ('2024-03-31T01:00:00', 120)]
    """
    place = ZoneInfo(zone)

    def offset(at: datetime) -> int:
        shift = at.replace(tzinfo=UTC).astimezone(place).utcoffset()
        assert shift is not None
        return round(shift.total_seconds() / 60)

    at, known = since, offset(since)
    yield since, known
    while at < until:
        step = min(at + timedelta(days=1), until)
        if offset(step) != known:
            low, high = at, step
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) / 2
                low, high = (middle, high) if offset(middle) == known else (low, middle)
            known = offset(high)
            yield high.replace(second=0, microsecond=0), known
        at = step
