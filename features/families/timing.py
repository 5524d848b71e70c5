"""Timing: when in the day and the week a user buys, in local time."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ibis import _
from ibis.common.deferred import Deferred

from features.catalogue import Feature, feature_name
from features.windows import within, words

_DAY_PARTS = (("morning", 5, 12), ("afternoon", 12, 17), ("evening", 17, 22))


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Shares of orders by part of the day and on weekends over the longest window."""
    window = windows[-1]
    for part, start, stop in _DAY_PARTS:
        yield _share(
            f"{part}_purchase",
            (_.local_at.hour() >= start) & (_.local_at.hour() < stop),
            window,
            meaning=f"from {start}:00 to {stop}:00 local time",
            phrase=f"in the {part}",
            high=part,
        )
    yield _share(
        "weekend_purchase",
        _.local_at.day_of_week.index() >= 5,
        window,
        meaning="on Saturday or Sunday, local time",
        phrase="at the weekend",
        high="weekend",
        low="weekday",
    )


def _share(
    what: str, when: Deferred, window: timedelta, *, meaning: str, phrase: str, high: str, low: str | None = None
) -> Feature:
    return Feature(
        name=feature_name(what, "share", window),
        base="orders",
        expr=when.cast("float64").mean(where=within(window, at="last_at")),
        unit="share",
        meaning=f"share of orders in the last {words(window)} made {meaning}",
        phrase=f"{{value}} of purchases {phrase}",
        group="timing",
        unknown=f"no purchases in the last {words(window)}",
        high=high,
        low=low,
    )
