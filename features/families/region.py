"""Region: where a user is, and how lively that region is."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import ibis
from ibis import _

from features.catalogue import NAME, Feature, feature_name
from features.families.values import top
from features.windows import DAY, words

_REGION = frozenset({"region"})
_RECENT = 28 * DAY


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """The region with most events lately, the number of regions, and the share of its users who bought lately."""
    longest = windows[-1]
    yield Feature(
        name="region",
        base="regions",
        expr=ibis.coalesce(top(_.recent_n, _.value), top(_.n, _.value)),
        unit=NAME,
        meaning=f"region with most events in the last {words(longest)}, else in the whole history",
        phrase="from {value}",
        group="region",
        unknown="no region known",
        needs=_REGION,
    )
    yield Feature(
        name="region_count",
        base="regions",
        expr=_.count(),
        unit="region",
        meaning="regions seen so far",
        phrase="seen in {value}",
        group="region",
        needs=_REGION,
        empty=0,
    )
    bought = (_.purchase_recency_days <= _RECENT / DAY).ifelse(1.0, 0.0)
    neighbours = ibis.window(group_by=[_.cutoff, _.region])
    yield Feature(
        name=feature_name("region_buyer", "share", _RECENT),
        base="population",
        expr=_.region.notnull().ifelse(bought.sum().over(neighbours) / _.count().over(neighbours), None),
        unit="share",
        meaning=f"share of the region's known users who bought in the last {words(_RECENT)}",
        phrase="{value} of the region's users bought lately",
        group="region",
        unknown="no region known",
    )
