"""Purchases: how often, how much and how many things, by window."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ibis import _

from features.catalogue import Feature, feature_name
from features.windows import within, words

AMOUNT = frozenset({"amount"})


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Orders, spend and lines per window, and the mean order over the longer ones."""
    for window in windows:
        yield Feature(
            name=feature_name("purchase", "count", window),
            base="orders",
            expr=_.count(where=within(window, at="last_at")),
            unit="purchase",
            meaning=f"orders in the last {words(window)}",
            phrase=f"{{value}} in the last {words(window)}",
            group="frequency",
            empty=0,
            high="frequent" if window == windows[-1] else None,
            low="occasional" if window == windows[-1] else None,
        )
        yield Feature(
            name=feature_name("purchase_amount", "sum", window),
            base="purchases",
            expr=_.amount.sum(where=within(window)),
            unit="money",
            meaning=f"spend in the last {words(window)}",
            phrase=f"spent {{value}} in the last {words(window)}",
            group="spend",
            needs=AMOUNT,
            empty=0,
            high="high-spending" if window == windows[-1] else None,
            low="low-spending" if window == windows[-1] else None,
        )
        yield Feature(
            name=feature_name("purchase_line", "count", window),
            base="purchases",
            expr=_.lines.sum(where=within(window)),
            unit="item",
            meaning=f"purchase lines in the last {words(window)}",
            phrase=f"bought {{value}} in the last {words(window)}",
            group="items",
            empty=0,
        )
        yield Feature(
            name=feature_name("purchase_day", "count", window),
            base="days",
            expr=_.count(where=within(window, at="at")),
            unit="day",
            meaning=f"local days with a purchase that began in the last {words(window)}",
            phrase=f"bought on {{value}} of the last {words(window)}",
            group="frequency",
            empty=0,
        )
    for window in windows[1::2]:
        yield Feature(
            name=feature_name("purchase_order_amount", "mean", window),
            base="orders",
            expr=_.amount.mean(where=within(window, at="last_at")),
            unit="money",
            meaning=f"mean spend per order in the last {words(window)}",
            phrase=f"spent {{value}} per order in the last {words(window)}",
            group="basket",
            unknown=f"no purchases in the last {words(window)}",
            needs=AMOUNT,
        )
        yield Feature(
            name=feature_name("purchase_order_amount", "max", window),
            base="orders",
            expr=_.amount.max(where=within(window, at="last_at")),
            unit="money",
            meaning=f"largest order of the last {words(window)}",
            phrase=f"largest order of the last {words(window)}: {{value}}",
            group="basket",
            unknown=f"no purchases in the last {words(window)}",
            needs=AMOUNT,
        )
