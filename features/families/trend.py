"""Trend: the pace of one window against the window around it, the window before it, and the whole history."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ibis import _

from features.catalogue import Feature, feature_name
from features.windows import DAY, pace, words

_AMOUNT = frozenset({"amount"})
_NO_TREND = "too few purchases so far to see a trend"
_MEASURES = (("purchase", "count", "buying", frozenset[str]()), ("purchase_amount", "sum", "spending", _AMOUNT))


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Ratios of daily rates: 1 is unchanged, null where there was nothing to compare with."""
    for short, long in zip(windows, windows[2:], strict=False):
        for what, measure, doing, needs in _MEASURES:
            yield Feature(
                name=feature_name(what, measure, short, against=long),
                base="row",
                expr=pace(_[feature_name(what, measure, short)], _[feature_name(what, measure, long)], short, long),
                unit="times",
                meaning=f"{doing} per day in the last {words(short)} against the last {words(long)}, or as long as known",
                phrase=f"{doing} in the last {words(short)} at {{value}} the pace of the last {words(long)}",
                group="trend",
                unknown=_NO_TREND,
                needs=needs,
            )
    for window in windows:
        if window * 2 in windows:
            now, both = (getattr(_, feature_name("purchase_amount", "sum", span)) for span in (window, window * 2))
            yield Feature(
                name=f"{feature_name('purchase_amount', 'sum', window)}_vs_before",
                base="row",
                expr=now / (both - now).nullif(0),
                unit="times",
                meaning=f"spend in the last {words(window)} against the {words(window)} before",
                phrase=f"spent {{value}} as much in the last {words(window)} as in the {words(window)} before",
                group="trend",
                unknown=_NO_TREND,
                needs=_AMOUNT,
            )
    for window in windows[2:]:
        yield Feature(
            name=f"{feature_name('purchase_amount', 'sum', window)}_vs_history",
            base="row",
            expr=getattr(_, feature_name("purchase_amount", "sum", window))
            / _.purchase_amount_sum.nullif(0)
            * _.purchase_tenure_days.clip(lower=window / DAY)
            / (window / DAY),
            unit="times",
            meaning=f"spend per day in the last {words(window)} against the whole history",
            phrase=f"spending in the last {words(window)} at {{value}} the usual pace",
            group="trend",
            unknown=_NO_TREND,
            needs=_AMOUNT,
        )
