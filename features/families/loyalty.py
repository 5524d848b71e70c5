"""Loyalty and membership: recency, frequency, T and monetary value (RFM, BTYD; Fader & Hardie, 2005), their scores, and streaks.

What a membership programme knows (tier, since when) comes from the config's `attributes`, as it was at the cutoff.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import ibis
from ibis import _
from ibis.common.deferred import Deferred

from features.catalogue import Feature, feature_name
from features.event_types import PURCHASE
from features.snapshot import days_since_first, days_since_last, total
from features.windows import words

_AMOUNT = frozenset({"amount"})


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Recency, T, frequency, monetary value, mean rate, quantile scores and streaks of active weeks."""
    yield Feature(
        name="purchase_recency_days",
        base="purchases",
        expr=days_since_last(PURCHASE),
        unit="days",
        meaning="days since the last purchase (RFM recency)",
        phrase="no purchase for {value}",
        group="recency",
        unknown="no purchase so far",
        usual="purchase_gap_days_usual",
        usual_phrase="usually every {value}",
    )
    yield Feature(
        name="purchase_tenure_days",
        base="purchases",
        expr=days_since_first(PURCHASE),
        unit="days",
        meaning="days since the first known purchase (BTYD T)",
        phrase="first known purchase {value} ago",
        group="tenure",
        unknown="no purchase so far",
    )
    yield Feature(
        name="purchase_frequency",
        base="days",
        expr=_.count() - 1,
        unit="day",
        meaning="days with a repeat purchase (BTYD frequency)",
        phrase="{value} with a repeat purchase",
        group="frequency",
        empty=0,
    )
    yield Feature(
        name="purchase_monetary_value",
        base="orders",
        expr=_.amount.mean(),
        unit="money",
        meaning="mean spend per order over the whole history (monetary value)",
        phrase="spends {value} per order",
        group="basket",
        unknown="no purchase with an amount so far",
        needs=_AMOUNT,
        high="big-basket",
        low="small-basket",
    )
    yield Feature(
        name="purchase_amount_sum",
        base="purchases",
        expr=total("amount", PURCHASE),
        unit="money",
        meaning="spend over the whole history",
        phrase="spent {value} so far",
        group="spend",
        needs=_AMOUNT,
        empty=0,
    )
    yield Feature(
        name="purchase_day_rate",
        base="row",
        expr=(_.purchase_frequency + 1) / _.purchase_tenure_days.clip(lower=7.0),
        unit="share",
        meaning="days with a purchase per day since the first one (at least seven days)",
        phrase="buys on {value} of days",
        group="frequency",
        unknown="no purchase so far",
    )
    yield from _streaks(windows[-1])
    yield from _scores(windows[-1])


def _streaks(longest: timedelta) -> Iterator[Feature]:
    yield Feature(
        name="purchase_week_streak",
        base="weeks",
        expr=(_.week == _.turn).ifelse(1.0, 0.0).sum(),
        unit="week",
        meaning="weeks in a row with a purchase, counted back from the last seven days",
        phrase="streak of weeks with a purchase: {value}",
        group="streak",
        empty=0,
    )
    if longest < timedelta(weeks=1):
        return
    yield Feature(
        name=feature_name("purchase_week", "count", longest),
        base="weeks",
        expr=(_.week < longest.days // 7).ifelse(1.0, 0.0).sum(),
        unit="week",
        meaning=f"weeks with a purchase among the last {longest.days // 7}",
        phrase=f"bought in {{value}} of the last {longest.days // 7}",
        group="streak",
        empty=0,
    )


def _scores(longest: timedelta) -> Iterator[Feature]:
    orders, spend = (getattr(_, feature_name(*what, longest)) for what in (("purchase", "count"), ("purchase_amount", "sum")))
    for letter, called, value, upwards in (
        ("r", "recency", _.purchase_recency_days, False),
        ("f", "frequency", orders, True),
        ("m", "spend", spend, True),
    ):
        yield Feature(
            name=f"rfm_{letter}_score",
            base="population",
            expr=_fifth(value, upwards=upwards),
            unit="score",
            meaning=f"fifth of the buyers by {called} (5 is best)" + ("" if letter == "r" else f", last {words(longest)}"),
            phrase=f"{{value}} of 5 by {called}",
            group="rfm",
            unknown="no purchase so far",
        )


def _fifth(value: Deferred, *, upwards: bool) -> Deferred:
    """Give the fifth (1 to 5) of a value among all who ever bought; equal values share the lower one."""
    bought = _.purchase_recency_days.notnull()
    group = [_.cutoff, bought]
    worse = ibis.rank().over(ibis.window(group_by=group, order_by=value if upwards else value.desc()))
    return bought.ifelse((worse * 5.0 / _.count().over(ibis.window(group_by=group))).floor() + 1.0, None)
