"""Carts and unfinished sessions: what was put into carts and left there, and checkouts that were begun and not finished.

A cart's item is abandoned when no purchase of the same item follows within a day, or where purchases have no item, of the same
order, else session; a checkout likewise when no purchase of its order or session does. Until that day is over it is neither
abandoned nor bought.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from features.catalogue import Feature, coarse, feature_name
from features.event_types import CART, CART_ABANDONED, CART_SETTLED, CHECKOUT, CHECKOUT_ABANDONED
from features.snapshot import days_since_last, total
from features.windows import words

_LEFT = frozenset({CART_ABANDONED})
_UNFINISHED = frozenset({CHECKOUT_ABANDONED})


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Items put into carts and left, their value and share, and checkouts not finished."""
    for window in coarse(windows):
        left, settled = (total("n", kind, window) for kind in (CART_ABANDONED, CART_SETTLED))
        yield Feature(
            name=feature_name("cart", "count", window),
            base="carts",
            expr=total("n", CART, window),
            unit="item",
            meaning=f"items put into the cart in the last {words(window)}",
            phrase=f"put {{value}} into the cart in the last {words(window)}",
            group="carts",
            types=frozenset({CART}),
            empty=0,
        )
        yield Feature(
            name=feature_name("cart_abandoned", "count", window),
            base="carts",
            expr=left,
            unit="item",
            meaning=f"items left in the cart that were given up in the last {words(window)}",
            phrase=f"left {{value}} in the cart in the last {words(window)}",
            group="carts",
            types=_LEFT,
            empty=0,
        )
        yield Feature(
            name=feature_name("cart_abandoned", "share", window),
            base="carts",
            expr=left / settled.nullif(0.0),
            unit="share",
            meaning=f"share of the items in carts settled in the last {words(window)} that were left there",
            phrase=f"left {{value}} of what was in the cart in the last {words(window)}",
            group="carts",
            unknown=f"no cart bought or given up in the last {words(window)}",
            types=_LEFT | {CART_SETTLED},
            high="hesitant" if window == windows[-1] else None,
        )
        yield Feature(
            name=feature_name("cart_abandoned_amount", "sum", window),
            base="carts",
            expr=total("amount", CART_ABANDONED, window),
            unit="money",
            meaning=f"value of the items left in the cart in the last {words(window)}",
            phrase=f"left {{value}} in the cart in the last {words(window)}",
            group="carts",
            needs=frozenset({"amount"}),
            types=_LEFT,
            empty=0,
        )
        yield Feature(
            name=feature_name("checkout", "count", window),
            base="carts",
            expr=total("n", CHECKOUT, window),
            unit="checkout",
            meaning=f"checkouts begun in the last {words(window)}",
            phrase=f"began {{value}} in the last {words(window)}",
            group="carts",
            types=frozenset({CHECKOUT}),
            empty=0,
        )
        yield Feature(
            name=feature_name("checkout_abandoned", "count", window),
            base="carts",
            expr=total("n", CHECKOUT_ABANDONED, window),
            unit="checkout",
            meaning=f"checkouts begun and given up in the last {words(window)}",
            phrase=f"left {{value}} unfinished in the last {words(window)}",
            group="carts",
            types=_UNFINISHED,
            empty=0,
        )
    for event_type, what, called in (
        (CART_ABANDONED, "cart_abandoned", "item left in the cart"),
        (CHECKOUT_ABANDONED, "checkout_abandoned", "unfinished checkout"),
    ):
        yield Feature(
            name=f"{what}_recency_days",
            base="carts",
            expr=days_since_last(event_type),
            unit="days",
            meaning=f"days since the last {called} was given up (a day after it was begun)",
            phrase=f"last gave up an {called} {{value}} ago",
            group="carts",
            unknown=f"no {called} so far",
            types=frozenset({event_type}),
        )
    yield Feature(
        name="cart_amount_mean",
        base="carts",
        expr=total("amount", CART) / total("valued", CART).nullif(0.0),
        unit="money",
        meaning="mean value of an item put into the cart",
        phrase="puts items of {value} into the cart",
        group="carts",
        unknown="no item with a value put into the cart so far",
        needs=frozenset({"amount"}),
        types=frozenset({CART}),
    )
