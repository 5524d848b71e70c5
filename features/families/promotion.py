"""Promotion: discounts taken, coupons redeemed, campaigns received."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ibis import _

from features.catalogue import Feature, feature_name
from features.windows import days_before_cutoff, within, words

DISCOUNT = frozenset({"discount"})
COUPON = "coupon_redeemed"
CAMPAIGN = "campaign_received"


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Discounts by window, share of purchases on promotion, and the answer to campaigns."""
    longest = windows[-1]
    for window in windows[1:]:
        yield Feature(
            name=feature_name("discount", "sum", window),
            base="purchases",
            expr=_.discount.sum(where=within(window)),
            unit="money",
            meaning=f"discounts taken in the last {words(window)}",
            phrase=f"saved {{value}} through discounts in the last {words(window)}",
            group="promotion",
            needs=DISCOUNT,
            empty=0,
        )
    for window in windows[2:]:
        yield Feature(
            name=feature_name("discounted_line", "share", window),
            base="purchases",
            expr=_.discounted_lines.sum(where=within(window)) / _.lines.sum(where=within(window)).nullif(0),
            unit="share",
            meaning=f"share of purchase lines with a discount in the last {words(window)}",
            phrase=f"{{value}} of purchases in the last {words(window)} on promotion",
            group="promotion",
            unknown=f"no purchases in the last {words(window)}",
            needs=DISCOUNT,
            high="promotion-driven" if window == longest else None,
            low="full-price" if window == longest else None,
        )
        yield Feature(
            name=feature_name("coupon", "count", window),
            base="events",
            expr=_.lines.sum(where=(_.event_type == COUPON) & within(window)),
            unit="coupon",
            meaning=f"coupons redeemed in the last {words(window)}",
            phrase=f"redeemed {{value}} in the last {words(window)}",
            group="coupons",
            empty=0,
        )
        yield Feature(
            name=feature_name("campaign", "count", window),
            base="events",
            expr=_.lines.sum(where=(_.event_type == CAMPAIGN) & within(window)),
            unit="campaign",
            meaning=f"campaigns received in the last {words(window)}",
            phrase=f"received {{value}} in the last {words(window)}",
            group="campaigns",
            empty=0,
        )
    yield Feature(
        name="coupon_count",
        base="events",
        expr=_.lines.sum(where=_.event_type == COUPON),
        unit="coupon",
        meaning="coupons redeemed so far",
        phrase="redeemed {value} so far",
        group="coupons",
        empty=0,
    )
    yield Feature(
        name="campaign_count",
        base="events",
        expr=_.lines.sum(where=_.event_type == CAMPAIGN),
        unit="campaign",
        meaning="campaigns received so far",
        phrase="received {value} so far",
        group="campaigns",
        empty=0,
    )
    yield Feature(
        name="coupon_recency_days",
        base="events",
        expr=days_before_cutoff(_.event_ts.max(where=_.event_type == COUPON)),
        unit="days",
        meaning="days since the last redeemed coupon",
        phrase="last coupon redeemed {value} ago",
        group="coupons",
        unknown="no coupon redeemed so far",
    )
    yield Feature(
        name="campaign_recency_days",
        base="events",
        expr=days_before_cutoff(_.event_ts.max(where=_.event_type == CAMPAIGN)),
        unit="days",
        meaning="days since the last campaign received",
        phrase="last campaign {value} ago",
        group="campaigns",
        unknown="no campaign received so far",
    )
    yield Feature(
        name="coupon_per_campaign",
        base="row",
        expr=_.coupon_count / _.campaign_count.nullif(0),
        unit="times",
        meaning="coupons redeemed per campaign received so far",
        phrase="redeemed {value} as many coupons as campaigns received",
        group="coupons",
        unknown="no campaign received so far",
    )
