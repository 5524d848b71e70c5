"""Loyalty: recency, frequency, T and monetary value, in the words of RFM and BTYD (Fader & Hardie, 2005)."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ibis import _

from features.catalogue import Feature
from features.windows import days_before_cutoff


def features(_windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Recency, T, frequency, monetary value and mean rate over the whole history."""
    yield Feature(
        name="purchase_recency_days",
        base="orders",
        expr=days_before_cutoff(_.last_at.max()),
        unit="days",
        meaning="days since the last purchase (RFM recency)",
        phrase="no purchase for {value}",
        group="recency",
        usual="purchase_gap_days_mean",
        usual_phrase="usually every {value}",
    )
    yield Feature(
        name="purchase_tenure_days",
        base="orders",
        expr=days_before_cutoff(_.first_at.min()),
        unit="days",
        meaning="days since the first known purchase (BTYD T)",
        phrase="first seen buying {value} ago",
        group="tenure",
        high="long-standing",
        low="new",
    )
    yield Feature(
        name="purchase_frequency",
        base="days",
        expr=_.count() - 1,
        unit="day",
        meaning="days with a repeat purchase (BTYD frequency)",
        phrase="came back to buy on {value}",
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
        needs=frozenset({"amount"}),
        high="big-basket",
        low="small-basket",
    )
    yield Feature(
        name="purchase_amount_sum",
        base="purchases",
        expr=_.amount.sum(),
        unit="money",
        meaning="spend over the whole history",
        phrase="spent {value} so far",
        group="spend",
        needs=frozenset({"amount"}),
        empty=0,
    )
    yield Feature(
        name="purchase_day_rate",
        base="row",
        expr=(_.purchase_frequency + 1) / _.purchase_tenure_days.clip(lower=7.0),
        unit="share",
        meaning="days with a purchase per day since the first one",
        phrase="buys on {value} of days",
        group="frequency",
    )
