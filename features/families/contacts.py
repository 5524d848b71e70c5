"""Contacts: how often and how lately the company wrote to a user, for the caps of plays; models leave them alone."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from features.catalogue import Feature, feature_name
from features.event_types import CAMPAIGN
from features.snapshot import days_since_last, total
from features.windows import words

# Beside `contact_count_*` of the promotion family, which models read.
COUNTED = "contacted"
RECENCY = "contacted_recency_days"


def contact_features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Contacts in each window, and the days since the last."""
    for window in windows:
        yield Feature(
            name=counted(window),
            base="contacts",
            expr=total("n", CAMPAIGN, window),
            unit="contact",
            meaning=f"contacts by the company in the last {words(window)}, as the caps of plays count them",
            phrase=f"{{value}} by the company in the last {words(window)}",
            group="fatigue",
            types=frozenset({CAMPAIGN}),
            empty=0,
            is_aside=True,
        )
    yield Feature(
        name=RECENCY,
        base="contacts",
        expr=days_since_last(CAMPAIGN),
        unit="days",
        meaning="days since the last contact by the company, as plays see it",
        phrase="last contact by the company {value} ago",
        group="fatigue",
        unknown="never contacted so far",
        types=frozenset({CAMPAIGN}),
        is_aside=True,
    )


def counted(window: timedelta) -> str:
    """Name the count of contacts in a window.

    >>> counted(timedelta(days=14))
    'contacted_count_14d'
    """
    return feature_name(COUNTED, "count", window)
