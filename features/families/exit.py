"""Exit and refusal: returns, unsubscriptions, contacts with support, idle visits, decline, and channels fallen silent."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import reduce
from operator import add

from ibis import _

from features.catalogue import Feature, coarse, feature_name
from features.event_types import RETURN, RETURN_ORDER, SUPPORT, UNSUBSCRIBE, VISIT, VISIT_ACTED
from features.snapshot import total
from features.windows import DAY, words

_RETURNS = frozenset({RETURN})


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """What speaks of leaving, by window."""
    longest = windows[-1]
    for window in coarse(windows):
        for event_type, what, unit, called, group in (
            (RETURN, "return", "return", "returns", "returns"),
            (SUPPORT, "support", "contact", "contacts with support", "support"),
        ):
            yield Feature(
                name=feature_name(what, "count", window),
                base="service",
                expr=total("n", event_type, window),
                unit=unit,
                meaning=f"{called} in the last {words(window)}",
                phrase=f"{{value}} {'with support ' if event_type == SUPPORT else ''}in the last {words(window)}",
                group=group,
                types=frozenset({event_type}),
                empty=0,
            )
        visits, acted = total("n", VISIT, window), total("n", VISIT_ACTED, window)
        yield Feature(
            name=feature_name("idle_visit", "share", window),
            base="browsing",
            expr=(1.0 - acted / visits.nullif(0.0)).clip(lower=0.0),
            unit="share",
            meaning=f"share of visits in the last {words(window)} without cart, checkout, purchase, return or question",
            phrase=f"{{value}} of visits in the last {words(window)} led to nothing",
            group="visits",
            unknown=f"no visit in the last {words(window)}",
            needs=frozenset({"session_id"}),
            types=frozenset({VISIT, VISIT_ACTED}),
        )
    returned, spent = (feature_name(what, "sum", longest) for what in ("return_amount", "purchase_amount"))
    yield Feature(
        name=returned,
        base="service",
        expr=total("amount", RETURN, longest),
        unit="money",
        meaning=f"value returned in the last {words(longest)}",
        phrase=f"returned {{value}} in the last {words(longest)}",
        group="returns",
        needs=frozenset({"amount"}),
        types=_RETURNS,
        empty=0,
    )
    yield Feature(
        name=feature_name("return_amount", "share", longest),
        base="row",
        expr=getattr(_, returned) / getattr(_, spent).nullif(0.0),
        unit="share",
        meaning=f"value returned over value bought in the last {words(longest)}",
        phrase="returned {value} of the value bought",
        group="returns",
        unknown=f"no purchases in the last {words(longest)}",
        high="return-prone",
    )
    yield Feature(
        name="return_order_count",
        base="service",
        expr=total("n", RETURN_ORDER),
        unit="return order",
        meaning="return orders so far",
        phrase="{value} so far",
        group="returns",
        types=frozenset({RETURN_ORDER}),
        empty=0,
    )
    yield Feature(
        name="unsubscribe_count",
        base="contacts",
        expr=total("n", UNSUBSCRIBE),
        unit="unsubscription",
        meaning="unsubscriptions so far",
        phrase="{value} so far",
        group="refusal",
        types=frozenset({UNSUBSCRIBE}),
        empty=0,
    )
    if len(windows) > 1:
        pace = [getattr(_, feature_name("purchase", "count", window)) / (window / longest) for window in windows]
        yield Feature(
            name="purchase_decline_count",
            base="row",
            expr=reduce(add, ((short < long).ifelse(1.0, 0.0) for short, long in zip(pace, pace[1:], strict=False))),
            unit="window",
            meaning="windows whose pace of buying is below that of the next longer one",
            phrase="{value} with a slower pace of buying than the next longer one",
            group="trend",
        )


def paced_features(lapsed_after: timedelta) -> Iterator[Feature]:
    """Channels and devices fallen silent, by the pause after which a user has lapsed."""
    for what, base in (("channel", "channels"), ("device", "devices")):
        yield Feature(
            name=f"{what}_silent_count",
            base=base,  # type: ignore[arg-type]
            expr=(_.since_last > lapsed_after / DAY).ifelse(1.0, 0.0).sum(),
            unit=what,
            meaning=f"{what}s used before, but not in the last {words(lapsed_after)}",
            phrase="{value} fallen silent",
            group=f"{what}s",
            needs=frozenset({what}),
            empty=0,
        )
