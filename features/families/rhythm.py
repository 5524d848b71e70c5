"""Rhythm: the gaps between days with a purchase, and the current gap against the usual one."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ibis import _

from features.catalogue import Feature

_NO_RHYTHM = "too few purchases to see a rhythm"


def features(_windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Mean, spread and longest gap over the whole history; how overdue the next purchase is."""
    yield Feature(
        name="purchase_gap_days_mean",
        base="days",
        expr=_.gap.mean(),
        unit="days",
        meaning="mean days between days with a purchase",
        phrase="buys every {value}",
        group="rhythm",
        unknown=_NO_RHYTHM,
    )
    yield Feature(
        name="purchase_gap_days_std",
        base="days",
        # From whole numbers, which add up to the same in any order; a running variance of floats does not.
        expr=(((_.gap * _.gap).sum() - _.gap.sum() * _.gap.sum() / _.gap.count()) / (_.gap.count() - 1).nullif(0)).sqrt(),
        unit="days",
        meaning="spread (standard deviation) of the days between purchases",
        phrase="days between purchases vary by {value}",
        group="rhythm",
        unknown=_NO_RHYTHM,
    )
    yield Feature(
        name="purchase_gap_days_max",
        base="days",
        expr=_.gap.max(),
        unit="days",
        meaning="longest gap between purchases",
        phrase="longest break so far: {value}",
        group="rhythm",
        unknown=_NO_RHYTHM,
    )
    yield Feature(
        name="purchase_gap_variation",
        base="row",
        expr=_.purchase_gap_days_std / _.purchase_gap_days_mean,
        unit="times",
        meaning="spread of the gaps over their mean (0 is clockwork, 1 is chance)",
        phrase="gaps between purchases vary by {value} their mean",
        group="rhythm",
        unknown=_NO_RHYTHM,
        high="irregular",
        low="regular",
    )
    yield Feature(
        name="purchase_overdue_ratio",
        base="row",
        expr=_.purchase_recency_days / _.purchase_gap_days_mean,
        unit="times",
        meaning="current gap over the mean gap (above 1 is overdue)",
        phrase="no purchase for {value} the usual gap",
        group="recency",
        unknown=_NO_RHYTHM,
    )
    yield Feature(
        name="purchase_overdue_against_longest",
        base="row",
        expr=_.purchase_recency_days / _.purchase_gap_days_max,
        unit="times",
        meaning="current gap over the longest one so far",
        phrase="no purchase for {value} the longest gap so far",
        group="recency",
        unknown=_NO_RHYTHM,
    )
