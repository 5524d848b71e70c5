"""Timing: the gaps between purchases, when in the day, the week and the month a user acts, and the same weeks a year before.

The hour of what happened at midnight sharp, local time, is not known: that is how a date without a time is written.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import ibis
from ibis import _
from ibis.common.deferred import Deferred

from features.catalogue import Feature, feature_name
from features.event_types import PURCHASE
from features.families.values import favourite_features, top
from features.local_time import hour_of
from features.snapshot import total
from features.windows import DAY, within, words

# 52 weeks, so that weekdays meet weekdays.
YEAR, MONTH = 364 * DAY, 28 * DAY
FIXED = (MONTH, YEAR, YEAR + MONTH)

_DAY_PARTS = (("morning", 5, 12), ("afternoon", 12, 17), ("evening", 17, 22))
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NO_RHYTHM = "too few purchases to see a rhythm"


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Rhythm over the whole history, profile over the longest window, season against the year before."""
    yield from _rhythm()
    yield from _profile(windows[-1])
    yield from _season()


def _rhythm() -> Iterator[Feature]:
    """Mean, spread, longest gap and regularity of the gaps; how overdue the next purchase is."""
    for measure, expr, meaning, phrase in (
        ("mean", _.gap.mean(), "mean days between days with a purchase", "buys every {value}"),
        ("std", _spread(_.gap), "spread (standard deviation) of the days between purchases", "gaps vary by {value}"),
        ("max", _.gap.max(), "longest gap between purchases", "longest break so far: {value}"),
    ):
        yield Feature(
            name=f"purchase_gap_days_{measure}",
            base="days",
            expr=expr,
            unit="days",
            meaning=meaning,
            phrase=phrase,
            group="rhythm",
            unknown=_NO_RHYTHM,
        )
    yield Feature(
        name="purchase_gap_shape",
        base="days",
        expr=_gamma_shape(_.gap),
        unit="times",
        meaning="regularity of the gaps: shape of their Gamma distribution (1 is chance, above is regular), at most 100",
        phrase="gaps between purchases {value} as regular as chance",
        group="rhythm",
        unknown=_NO_RHYTHM,
    )
    # One gap is no habit. It says to models what the mean and its spread say together.
    yield Feature(
        name="purchase_gap_days_usual",
        base="row",
        expr=_.purchase_gap_days_std.notnull().ifelse(_.purchase_gap_days_mean, ibis.null("float64")),
        unit="days",
        meaning="mean days between days with a purchase, where there are two such gaps or more",
        phrase="usually buys every {value}",
        group="rhythm",
        unknown=_NO_RHYTHM,
        is_aside=True,
    )
    for name, of, meaning, phrase, group, high, low in (
        (
            "purchase_gap_variation",
            _.purchase_gap_days_std / _.purchase_gap_days_mean,
            "spread of the gaps between purchases over their mean (0 is clockwork, 1 is chance)",
            "gaps between purchases vary by {value} their mean",
            "rhythm",
            "irregular",
            "regular",
        ),
        (
            "purchase_overdue_ratio",
            _.purchase_recency_days / _.purchase_gap_days_mean,
            "current gap over the mean gap (above 1 is overdue)",
            "no purchase for {value} the usual gap",
            "recency",
            None,
            None,
        ),
        (
            "purchase_overdue_against_longest",
            _.purchase_recency_days / _.purchase_gap_days_max,
            "current gap over the longest one so far",
            "no purchase for {value} the longest gap so far",
            "recency",
            None,
            None,
        ),
    ):
        yield Feature(
            name=name,
            base="row",
            expr=of,
            unit="times",
            meaning=meaning,
            phrase=phrase,
            group=group,
            unknown=_NO_RHYTHM,
            high=high,
            low=low,
        )


def _profile(window: timedelta) -> Iterator[Feature]:
    for part, start, stop in _DAY_PARTS:
        hour = hour_of(_.local_at)
        yield _share(
            f"{part}_purchase",
            (hour >= start) & (hour < stop),
            window,
            meaning=f"from {start}:00 to {stop}:00 local time, of those whose hour is known",
            phrase=f"in the {part}",
            unknown=f"no purchase whose hour is known in the last {words(window)}",
            among=hour.notnull(),
            high=part,
        )
    for number, weekday in enumerate(_WEEKDAYS):
        yield _share(
            f"{weekday.lower()}_purchase",
            _.local_at.day_of_week.index() == number,
            window,
            meaning=f"on a {weekday}, local time",
            phrase=f"on a {weekday}",
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
    yield _share(
        "payday_purchase",
        (_.local_at.day() >= 25) | (_.local_at.day() <= 3),
        window,
        meaning="from the 25th to the 3rd of a month, local time",
        phrase="around payday",
    )
    yield Feature(
        name="best_hour",
        base="hours",
        expr=top(_.recent_n, (_.value + 10).cast("string")).cast("float64") - 10,
        unit="o'clock",
        meaning=f"local hour of the day with most activity in the last {words(window)}",
        phrase="most active at {value}",
        group="timing",
        unknown=f"no activity in the last {words(window)}",
    )
    yield from favourite_features("hour", "hours", window, needs=frozenset())


def _season() -> Iterator[Feature]:
    now = total("amount", PURCHASE, MONTH)
    then = total("amount", PURCHASE, YEAR + MONTH) - total("amount", PURCHASE, YEAR)
    known = _.since_first.max() >= (YEAR + MONTH) / DAY
    yield Feature(
        name=f"{feature_name('purchase_amount', 'sum', MONTH)}_vs_year_before",
        base="purchases",
        expr=known.ifelse(now / then.nullif(0.0), None),
        unit="times",
        meaning=f"spend in the last {words(MONTH)} against the same weeks a year before, of users who were buying by then",
        phrase=f"spent {{value}} as much in the last {words(MONTH)} as a year before",
        group="season",
        unknown="not yet buying in the same weeks a year before, or nothing bought in them",
        needs=frozenset({"amount"}),
    )


def _share(
    what: str,
    when: Deferred,
    window: timedelta,
    *,
    meaning: str,
    phrase: str,
    unknown: str | None = None,
    among: Deferred | None = None,
    high: str | None = None,
    low: str | None = None,
) -> Feature:
    counted = within(window) if among is None else within(window) & among
    return Feature(
        name=feature_name(what, "share", window),
        base="orders",
        expr=(when & counted).ifelse(1.0, 0.0).sum() / counted.ifelse(1.0, 0.0).sum().nullif(0.0),
        unit="share",
        meaning=f"share of orders in the last {words(window)} made {meaning}",
        phrase=f"{{value}} of purchases {phrase}",
        group="timing",
        unknown=unknown or f"no purchases in the last {words(window)}",
        high=high,
        low=low,
    )


def _spread(gap: Deferred) -> Deferred:
    # From whole numbers, which add up to the same in any order; a running variance of floats does not.
    count = gap.count()
    return (((gap * gap).sum() - gap.sum() * gap.sum() / count.nullif(0)) / (count - 1).nullif(0)).clip(lower=0.0).sqrt()


def _gamma_shape(gap: Deferred) -> Deferred:
    """Give the shape of a Gamma distribution of the gaps, from at least two of them.

    Minka's (2002) closed form of the maximum likelihood; what Platzer & Reutterer (2016) call regularity in Pareto/GGG.
    """
    logs = (gap.clip(lower=1.0).ln() * 1e10).round().cast("float64")
    count = gap.count()
    distance = (gap.sum() / count.nullif(0)).clip(lower=1.0).ln() - logs.sum() / 1e10 / count.nullif(0)
    # Equal gaps are infinitely regular; a distance of 0.005 already means a shape of 100.
    s = distance.clip(lower=0.005)
    shape = (3 - s + ((s - 3) * (s - 3) + s * 24).sqrt()) / (s * 12)
    return (count >= 2).ifelse(shape.clip(upper=100.0), ibis.null("float64"))
