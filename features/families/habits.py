"""Habits and browsing: how often, how much, which categories and brands, at what price, and how much is only looked at."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import ibis
from ibis import _

from features.catalogue import NAME, Feature, coarse, feature_name
from features.event_types import NEW_ITEM, PURCHASE, VIEW, VISIT
from features.families.values import entropy, favourite, favourite_features, share_of_value
from features.snapshot import MILLION, total
from features.windows import within, words

_AMOUNT, _QUANTITY = frozenset({"amount"}), frozenset({"quantity"})
_CATEGORY, _BRAND = frozenset({"category"}), frozenset({"brand"})
HEAVY, LIGHT = 0.8, 0.5


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """What is bought and looked at, by window, and how it spreads."""
    yield from _buying(windows)
    yield from _baskets(windows)
    yield from _items(windows)
    yield from _categories(windows)
    yield from _brands(windows)
    yield from _browsing(windows)
    yield from _usage(windows)


def value_features(values: Mapping[str, Sequence[str]], windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Share and recency of the categories that the config names."""
    for value in values.get("category", ()):
        yield from share_of_value("category", "categories", value, windows[-1])


def _buying(windows: Sequence[timedelta]) -> Iterator[Feature]:
    for window in windows:
        is_longest = window == windows[-1]
        yield Feature(
            name=feature_name("purchase", "count", window),
            base="orders",
            expr=within(window).ifelse(1.0, 0.0).sum(),
            unit="purchase",
            meaning=f"orders in the last {words(window)}",
            phrase=f"{{value}} in the last {words(window)}",
            group="frequency",
            empty=0,
            high="frequent" if is_longest else None,
            low="occasional" if is_longest else None,
        )
        yield Feature(
            name=feature_name("purchase_amount", "sum", window),
            base="purchases",
            expr=total("amount", PURCHASE, window),
            unit="money",
            meaning=f"spend in the last {words(window)}",
            phrase=f"spent {{value}} in the last {words(window)}",
            group="spend",
            needs=_AMOUNT,
            empty=0,
            high="high-spending" if is_longest else None,
            low="low-spending" if is_longest else None,
        )
        yield Feature(
            name=feature_name("purchase_line", "count", window),
            base="purchases",
            expr=total("n", PURCHASE, window),
            unit="item",
            meaning=f"purchase lines in the last {words(window)}",
            phrase=f"bought {{value}} in the last {words(window)}",
            group="items",
            empty=0,
        )
        yield Feature(
            name=feature_name("purchase_day", "count", window),
            base="days",
            expr=within(window).ifelse(1.0, 0.0).sum(),
            unit="day",
            meaning=f"local days with a purchase in the last {words(window)}",
            phrase=f"bought on {{value}} of the last {words(window)}",
            group="frequency",
            empty=0,
        )


def _baskets(windows: Sequence[timedelta]) -> Iterator[Feature]:
    for window in windows[1::2]:
        recent = within(window).ifelse(_.amount, ibis.null("float64"))
        for measure, expr, called, said in (
            ("mean", recent.mean(), "mean spend per order in", "spent {value} per order in"),
            ("max", recent.max(), "largest order of", "{value} in the largest order of"),
        ):
            yield Feature(
                name=feature_name("purchase_order_amount", measure, window),
                base="orders",
                expr=expr,
                unit="money",
                meaning=f"{called} the last {words(window)}",
                phrase=f"{said} the last {words(window)}",
                group="basket",
                unknown=f"no purchases in the last {words(window)}",
                needs=_AMOUNT,
            )
        yield Feature(
            name=feature_name("purchase_quantity", "mean", window),
            base="purchases",
            expr=total("quantity", PURCHASE, window) / MILLION / total("measured", PURCHASE, window).nullif(0.0),
            unit="number",
            meaning=f"mean quantity per purchase line in the last {words(window)}",
            phrase=f"bought {{value}} of an item at once in the last {words(window)}",
            group="quantity",
            unknown=f"no quantity known in the last {words(window)}",
            needs=_QUANTITY,
        )


def _items(windows: Sequence[timedelta]) -> Iterator[Feature]:
    item, new = frozenset({"item_id"}), frozenset({NEW_ITEM})
    yield Feature(
        name="item_count",
        base="items",
        expr=total("n", NEW_ITEM),
        unit="different item",
        meaning="distinct items bought so far",
        phrase="bought {value} so far",
        group="items",
        needs=item,
        types=new,
        empty=0,
    )
    for window in coarse(windows):
        yield Feature(
            name=feature_name("item_new", "count", window),
            base="items",
            expr=total("n", NEW_ITEM, window),
            unit="item",
            meaning=f"items bought for the first time in the last {words(window)}",
            phrase=f"bought {{value}} for the first time in the last {words(window)}",
            group="items",
            needs=item,
            types=new,
            empty=0,
        )


def _categories(windows: Sequence[timedelta]) -> Iterator[Feature]:
    longest = windows[-1]
    for window in windows:
        yield Feature(
            name=feature_name("category", "count", window),
            base="categories",
            expr=within(window).ifelse(1.0, 0.0).sum(),
            unit="category",
            meaning=f"distinct categories bought in the last {words(window)}",
            phrase=f"bought from {{value}} in the last {words(window)}",
            group="variety",
            needs=_CATEGORY,
            empty=0,
            high="wide-ranging" if window == longest else None,
            low="focused" if window == longest else None,
        )
    yield Feature(
        name="category_count",
        base="categories",
        expr=_.count(),
        unit="category",
        meaning="distinct categories bought so far",
        phrase="bought from {value} so far",
        group="variety",
        needs=_CATEGORY,
        empty=0,
    )
    for window in windows[2::2]:
        first_bought = (_.first_age <= int(window.total_seconds() // 3600)).ifelse(1.0, 0.0).sum()
        yield Feature(
            name=feature_name("category_new", "share", window),
            base="categories",
            expr=first_bought / within(window).ifelse(1.0, 0.0).sum().nullif(0.0),
            unit="share",
            meaning=f"share of the categories bought in the last {words(window)} that were never bought before",
            phrase=f"{{value}} of the categories of the last {words(window)} are new",
            group="variety",
            unknown=f"no purchases in the last {words(window)}",
            needs=_CATEGORY,
        )
    yield favourite("category", "categories", longest, name="favourite_category", needs=_CATEGORY)
    yield from favourite_features("category", "categories", longest, needs=_CATEGORY)
    yield Feature(
        name=feature_name("category", "entropy", longest),
        base="categories",
        expr=entropy(_.recent_n),
        unit="mixture",
        meaning=f"how evenly the items of the last {words(longest)} spread over categories (entropy; 0 is one category)",
        phrase="mix of categories at {value} (0 is only one)",
        group="variety",
        unknown=f"no purchases in the last {words(longest)}",
        needs=_CATEGORY,
    )
    yield Feature(
        name=feature_name("category_price", "level", longest),
        base="categories",
        expr=_.usual_amount.notnull().ifelse(_.recent_amount, None).sum() / _.usual_amount.sum().nullif(0.0),
        unit="times",
        meaning=f"price paid in the last {words(longest)} against the mean price of the same categories",
        phrase="pays {value} what others pay in the same categories",
        group="price",
        unknown=f"no priced purchases in the last {words(longest)}",
        needs=_CATEGORY | _AMOUNT | _QUANTITY,
        high="premium",
        low="budget",
    )


def _brands(windows: Sequence[timedelta]) -> Iterator[Feature]:
    longest = windows[-1]
    yield Feature(
        name=feature_name("brand", "count", longest),
        base="brands",
        expr=within(longest).ifelse(1.0, 0.0).sum(),
        unit="brand",
        meaning=f"distinct brands bought in the last {words(longest)}",
        phrase=f"bought {{value}} in the last {words(longest)}",
        group="brands",
        needs=_BRAND,
        empty=0,
    )
    yield Feature(
        name=feature_name("brand_favourite", "share", longest),
        base="brands",
        expr=_.recent_amount.max() / _.recent_amount.sum().nullif(0.0),
        unit="share",
        meaning=f"share of the branded spend of the last {words(longest)} that went to the favourite brand",
        phrase="{value} of spend on the favourite brand",
        group="brands",
        unknown=f"no brand bought in the last {words(longest)}",
        needs=_BRAND | {"amount"},
        high="brand-loyal",
        low="brand-switching",
    )


def _browsing(windows: Sequence[timedelta]) -> Iterator[Feature]:
    looked = frozenset({VIEW})
    session = frozenset({"session_id"})
    for window in coarse(windows):
        views, visits = (total("n", kind, window) for kind in (VIEW, VISIT))
        yield Feature(
            name=feature_name("view", "count", window),
            base="browsing",
            expr=views,
            unit="view",
            meaning=f"items looked at in the last {words(window)}",
            phrase=f"{{value}} in the last {words(window)}",
            group="browsing",
            types=looked,
            empty=0,
            high="browsing" if window == windows[-1] else None,
        )
        yield Feature(
            name=feature_name("visit", "count", window),
            base="browsing",
            expr=visits,
            unit="visit",
            meaning=f"visits (sessions) begun in the last {words(window)}",
            phrase=f"{{value}} in the last {words(window)}",
            group="visits",
            needs=session,
            types=frozenset({VISIT}),
            empty=0,
        )
        yield Feature(
            name=feature_name("view_per_visit", "mean", window),
            base="browsing",
            expr=views / visits.nullif(0.0),
            unit="times",
            meaning=f"items looked at per visit in the last {words(window)}",
            phrase=f"looked at items {{value}} per visit in the last {words(window)}",
            group="browsing",
            unknown=f"no visit in the last {words(window)}",
            needs=session,
            types=looked | {VISIT},
        )
        yield Feature(
            name=feature_name("view_per_purchase", "mean", window),
            base="row",
            expr=getattr(_, feature_name("view", "count", window))
            / getattr(_, feature_name("purchase_line", "count", window)).nullif(0.0),
            unit="times",
            meaning=f"items looked at per item bought in the last {words(window)}",
            phrase=f"looked {{value}} per item bought in the last {words(window)}",
            group="browsing",
            unknown=f"no purchases in the last {words(window)}",
            high="choosy" if window == windows[-1] else None,
            low="decisive" if window == windows[-1] else None,
        )


def _usage(windows: Sequence[timedelta]) -> Iterator[Feature]:
    longest = windows[-1]
    orders = getattr(_, feature_name("purchase", "count", longest))
    among = ibis.window(group_by=[_.cutoff, orders > 0], order_by=orders)
    below = ibis.rank().over(among) / _.count().over(ibis.window(group_by=[_.cutoff, orders > 0]))
    yield Feature(
        name=feature_name("purchase_count", "percentile", longest),
        base="population",
        expr=(orders > 0).ifelse(below * 100.0, None),
        unit="percentile",
        meaning=f"percentage of the buyers of the last {words(longest)} who bought less often",
        phrase="buys more often than {value} of buyers",
        group="frequency",
        unknown=f"no purchases in the last {words(longest)}",
    )
    yield Feature(
        name="usage_level",
        base="population",
        expr=ibis.cases((orders <= 0, "none"), (below >= HEAVY, "heavy"), (below >= LIGHT, "medium"), else_="light"),
        unit=NAME,
        meaning=f"heavy (top fifth of the buyers of the last {words(longest)}), medium, light (lower half) or none",
        phrase="level of use: {value}",
        group="frequency",
    )
