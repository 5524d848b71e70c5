"""Variety: how many categories and brands, and how loyal to the favourite brand."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ibis import _

from features.catalogue import Feature, feature_name
from features.windows import within, words

CATEGORY = frozenset({"category"})
BRAND = frozenset({"brand"})


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Distinct categories and brands by window; share of spend on the favourite brand."""
    for window in windows:
        yield Feature(
            name=feature_name("category", "count", window),
            base="categories",
            expr=_.count(where=within(window, at="last_at")),
            unit="category",
            meaning=f"distinct categories bought in the last {words(window)}",
            phrase=f"bought from {{value}} in the last {words(window)}",
            group="variety",
            needs=CATEGORY,
            empty=0,
            high="wide-ranging" if window == windows[-1] else None,
            low="single-minded" if window == windows[-1] else None,
        )
    yield Feature(
        name="category_count",
        base="categories",
        expr=_.count(),
        unit="category",
        meaning="distinct categories bought so far",
        phrase="bought from {value} so far",
        group="variety",
        needs=CATEGORY,
        empty=0,
    )
    yield Feature(
        name=feature_name("brand", "count", windows[-1]),
        base="brands",
        expr=_.count(where=within(windows[-1], at="last_at")),
        unit="brand",
        meaning=f"distinct brands bought in the last {words(windows[-1])}",
        phrase=f"bought {{value}} in the last {words(windows[-1])}",
        group="brands",
        needs=BRAND,
        empty=0,
    )
    yield Feature(
        name="brand_favourite_share",
        base="brands",
        expr=_.amount.max() / _.amount.sum().nullif(0),
        unit="share",
        meaning="share of the last half year's branded spend that went to the favourite brand",
        phrase="{value} of spend on the favourite brand",
        group="brands",
        unknown="no brand bought in the last half year",
        needs=BRAND | {"amount"},
        high="brand-loyal",
        low="brand-mixing",
    )
