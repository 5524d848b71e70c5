"""Trend: the pace of one window against the longer window around it."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ibis import _

from features.catalogue import Feature, feature_name
from features.windows import words

_MEASURES = (
    ("purchase", "count", "buying", frozenset[str]()),
    ("purchase_amount", "sum", "spending", frozenset({"amount"})),
)


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Ratios of daily rates between each window and the next but one, which is two to four times as long by default."""
    for short, long in zip(windows, windows[2:], strict=False):
        for what, measure, doing, needs in _MEASURES:
            yield Feature(
                name=feature_name(what, measure, short, against=long),
                base="row",
                expr=getattr(_, feature_name(what, measure, short))
                / getattr(_, feature_name(what, measure, long)).nullif(0)
                * (long / short),
                unit="times",
                meaning=f"{doing} per day in the last {words(short)} against the last {words(long)} (1 is unchanged)",
                phrase=f"{doing} in the last {words(short)} at {{value}} the pace of the last {words(long)}",
                group="trend",
                needs=needs,
            )
