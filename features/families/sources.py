"""Sources: where a user's visits come from, the first and the last touch, and the mix."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from ibis import _
from ibis.common.deferred import Deferred

from features.catalogue import NAME, Feature, feature_name
from features.families.values import SORTABLE, entropy, favourite, favourite_features, share_of_value, sortable
from features.windows import DAY_MICROSECONDS, within, words

_SOURCE = frozenset({"source"})


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """First and last touch, favourite source, number of sources and how mixed they are."""
    longest = windows[-1]
    for place, since in (("first", _.since_first), ("last", _.since_last)):
        yield Feature(
            name=f"{place}_source",
            base="sources",
            expr=_touch(since, is_first=place == "first"),
            unit=NAME,
            meaning=f"source of the {place} known visit",
            phrase=f"{place} came through {{value}}",
            group="sources",
            unknown="no source known",
            needs=_SOURCE,
        )
    yield favourite("source", "sources", longest, name="favourite_source", needs=_SOURCE)
    yield from favourite_features("source", "sources", longest, needs=_SOURCE)
    yield Feature(
        name=feature_name("source", "count", longest),
        base="sources",
        expr=within(longest).ifelse(1.0, 0.0).sum(),
        unit="source",
        meaning=f"sources that visits came from in the last {words(longest)}",
        phrase=f"came through {{value}} in the last {words(longest)}",
        group="sources",
        needs=_SOURCE,
        empty=0,
    )
    yield Feature(
        name=feature_name("source", "entropy", longest),
        base="sources",
        expr=entropy(_.recent_n),
        unit="mixture",
        meaning=f"how mixed the sources of the last {words(longest)} are (entropy; 0 is one source)",
        phrase="mix of sources at {value} (0 is only one)",
        group="sources",
        unknown=f"no source known in the last {words(longest)}",
        needs=_SOURCE,
    )


def value_features(values: Mapping[str, Sequence[str]], windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Share and recency of the sources that the config names."""
    for value in values.get("source", ()):
        yield from share_of_value("source", "sources", value, windows[-1])


def _touch(since: Deferred, *, is_first: bool) -> Deferred:
    """Give the value of the oldest first event, or of the newest last one; of equals the last, or the first, in the alphabet."""
    key = sortable((since * DAY_MICROSECONDS).round()) + _.value
    return (key.max() if is_first else key.min()).substr(SORTABLE)
