"""Promotion response: discounts taken, campaigns received, opened, clicked and redeemed, how fast, and how tired of them."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ibis import _

from features.catalogue import Feature, feature_name
from features.event_types import ANSWERED, CAMPAIGN, CLICKED, COUPON, OPENED, PURCHASE
from features.snapshot import MILLION, total
from features.windows import DAY, within, words

DISCOUNT = frozenset({"discount"})
WEEK, MONTH = 7 * DAY, 28 * DAY
FIXED = (WEEK, MONTH)

_ACTS = {
    COUPON: ("coupon", "coupon", "coupons redeemed", "redeemed {value}", "coupons"),
    CAMPAIGN: ("campaign", "campaign", "campaigns received", "received {value}", "campaigns"),
    OPENED: ("campaign_open", "campaign", "campaigns opened", "opened {value}", "answers"),
    CLICKED: ("campaign_click", "campaign", "campaigns clicked", "clicked {value}", "answers"),
}


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Discounts by window, share of purchases on promotion, and the answer to campaigns."""
    yield from _discounts(windows)
    yield from _acts(windows)
    yield from _answers()
    yield from _fatigue()


def _discounts(windows: Sequence[timedelta]) -> Iterator[Feature]:
    longest = windows[-1]
    for window in windows[1:]:
        yield Feature(
            name=feature_name("discount", "sum", window),
            base="purchases",
            expr=total("discount", PURCHASE, window),
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
            expr=total("discounted", PURCHASE, window) / total("n", PURCHASE, window).nullif(0.0),
            unit="share",
            meaning=f"share of purchase lines with a discount in the last {words(window)}",
            phrase=f"{{value}} of purchases in the last {words(window)} on promotion",
            group="promotion",
            unknown=f"no purchases in the last {words(window)}",
            needs=DISCOUNT,
            high="bargain" if window == longest else None,
            low="full-price" if window == longest else None,
        )
    saved, paid = total("discount", PURCHASE, longest), total("amount", PURCHASE, longest)
    yield Feature(
        name=feature_name("discount", "share", longest),
        base="purchases",
        expr=saved / (saved + paid).nullif(0.0),
        unit="share",
        meaning=f"share of the undiscounted price saved in the last {words(longest)}",
        phrase="saves {value} of the price",
        group="promotion",
        unknown=f"no purchases in the last {words(longest)}",
        needs=DISCOUNT | {"amount"},
    )
    yield Feature(
        name=feature_name("promoted_order", "share", longest),
        base="orders",
        expr=(within(longest) & (_.discount > 0)).ifelse(1.0, 0.0).sum() / within(longest).ifelse(1.0, 0.0).sum().nullif(0.0),
        unit="share",
        meaning=f"share of orders in the last {words(longest)} with any discount (1 buys only on promotion)",
        phrase="{value} of orders with a discount",
        group="promotion",
        unknown=f"no purchases in the last {words(longest)}",
        needs=DISCOUNT,
    )


def _acts(windows: Sequence[timedelta]) -> Iterator[Feature]:
    for event_type, (what, unit, called, said, group) in _ACTS.items():
        for window in [*windows[2:], None]:
            when = "so far" if window is None else f"in the last {words(window)}"
            yield Feature(
                name=feature_name(what, "count", window),
                base="contacts",
                expr=total("n", event_type, window),
                unit=unit,
                meaning=f"{called} {when}",
                phrase=f"{said} {when}",
                group=group,
                types=frozenset({event_type}),
                empty=0,
            )


def _answers() -> Iterator[Feature]:
    sent = total("n", CAMPAIGN).nullif(0.0)
    for event_type, what, done in (
        (COUPON, "coupon", "redeemed"),
        (OPENED, "campaign_open", "opened"),
        (CLICKED, "campaign_click", "clicked"),
    ):
        yield Feature(
            name=f"{what}_per_campaign",
            base="contacts",
            expr=total("n", event_type) / sent,
            unit="times",
            meaning=f"{'coupons redeemed' if event_type == COUPON else f'campaigns {done}'} per campaign received so far",
            phrase=f"{done} {'coupons' if event_type == COUPON else 'campaigns'} {{value}} as often as campaigns came",
            group="coupons" if event_type == COUPON else "answers",
            unknown="no campaign received so far",
            types=frozenset({event_type, CAMPAIGN}),
        )
    yield Feature(
        name="campaign_answer_hours_mean",
        base="contacts",
        expr=total("quantity", ANSWERED) / MILLION / total("n", ANSWERED).nullif(0.0),
        unit="hour",
        meaning="mean hours from a campaign to its first answer (opened, clicked, redeemed or unsubscribed)",
        phrase="answers campaigns after {value}",
        group="answers",
        unknown="no campaign answered so far",
        needs=frozenset({"campaign"}),
        types=frozenset({ANSWERED}),
    )


def _fatigue() -> Iterator[Feature]:
    """Contacts of the last days, and the share answered lately against the share answered ever."""
    needs, types = frozenset({"campaign"}), frozenset({ANSWERED})
    for window in FIXED:
        yield Feature(
            name=feature_name("contact", "count", window),
            base="contacts",
            expr=total("n", CAMPAIGN, window),
            unit="contact",
            meaning=f"contacts by the company in the last {words(window)}",
            phrase=f"{{value}} by the company in the last {words(window)}",
            group="fatigue",
            types=frozenset({CAMPAIGN}),
            empty=0,
        )
    recent = total("n", ANSWERED, MONTH) / total("n", CAMPAIGN, MONTH).nullif(0.0)
    ever = total("n", ANSWERED) / total("n", CAMPAIGN).nullif(0.0)
    yield Feature(
        name="campaign_answer_share",
        base="contacts",
        expr=ever,
        unit="share",
        meaning="campaigns answered per campaign received so far",
        phrase="answers {value} of campaigns",
        group="answers",
        unknown="no campaign received so far",
        needs=needs,
        types=types,
        high="responsive",
        low="unresponsive",
    )
    yield Feature(
        name=f"{feature_name('campaign_answer', 'share', MONTH)}_vs_history",
        base="contacts",
        expr=recent / ever.nullif(0.0),
        unit="times",
        meaning=f"share of campaigns answered in the last {words(MONTH)} against the whole history (below 1 is fatigue)",
        phrase=f"answered campaigns {{value}} as often in the last {words(MONTH)} as ever",
        group="fatigue",
        unknown=f"no campaign in the last {words(MONTH)}, or none ever answered",
        needs=needs,
        types=types,
    )
