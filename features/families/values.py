"""What families say alike about any value a user may have several of: a channel, a device, a source, a category, an hour."""

import re
from collections.abc import Iterator
from datetime import timedelta

import ibis
from ibis import _
from ibis.common.deferred import Deferred

from features.catalogue import NAME, Base, Feature, feature_name, plural, verbatim
from features.windows import words

# Bounds the share that a favourite would keep in the long run with 97.5 % confidence (Wilson, 1927).
_Z = 1.96
# How one speaks of what is done with a value, and of where most is done.
_DONE = {
    "channel": ("activity through", "mostly active through"),
    "device": ("activity on", "mostly active on"),
    "source": ("activity from", "comes mostly from"),
    "category": ("purchases in", "buys most from"),
    "hour": ("activity in", "mostly active in"),
}
# What is done only once, where that is another word.
_DONE_ONCE = {"category": "purchase in"}
# The digits of `sortable` numbers, and what makes them as many.
SORTABLE, _ABOVE_ALL = 19, 10**18


def favourite(
    what: str, base: Base, window: timedelta, *, name: str, needs: frozenset[str], types: frozenset[str] = frozenset()
) -> Feature:
    """The value with most events in the window; of equals the last in the alphabet. Null when there is none."""
    return Feature(
        name=name,
        base=base,
        expr=top(_.recent_n, _.value),
        unit=NAME,
        meaning=f"{what} with most {_counted(what)} in the last {words(window)}",
        phrase=f"{_DONE.get(what, ('', what + ' used most:'))[1]} {{value}}",
        group=plural(what),
        unknown=f"no {what} known in the last {words(window)}",
        needs=needs,
        types=types,
    )


def favourite_features(
    what: str, base: Base, window: timedelta, *, needs: frozenset[str], high: str | None = None, low: str | None = None
) -> Iterator[Feature]:
    """The share of the favourite value, and what share it has with confidence, few events being little evidence."""
    share = feature_name(f"{what}_favourite", "share", window)
    most, all_ = _.recent_n.max(), _.recent_n.sum().nullif(0.0)
    unknown = f"no {what} known in the last {words(window)}"
    yield Feature(
        name=share,
        base=base,
        expr=most / all_,
        unit="share",
        meaning=f"share of the {_counted(what)} in the last {words(window)} that fell to the favourite {what}",
        phrase=f"{{value}} of {_DONE[what][0]} the favourite {what}",
        group=plural(what),
        unknown=unknown,
        needs=needs,
        high=high,
        low=low,
    )
    yield Feature(
        name=feature_name(f"{what}_favourite", "confidence", window),
        base=base,
        expr=wilson(most / all_, all_),
        unit="share",
        meaning=f"share that the favourite {what} has with confidence (lower bound at 95 %, by number of {_counted(what)})",
        phrase=f"chance aside, at least {{value}} of {_DONE[what][0]} the favourite {what}",
        group=plural(what),
        unknown=unknown,
        needs=needs,
    )


def share_of_value(what: str, base: Base, value: str, window: timedelta, *, high: str | None = None) -> Iterator[Feature]:
    """Share and recency of one named value."""
    word = f"{what}_{in_names(value)}"
    hit, needs = _.value == value, frozenset({what})
    said = verbatim(value)
    done = _DONE[what][0]
    yield Feature(
        name=feature_name(word, "share", window),
        base=base,
        expr=hit.ifelse(_.recent_n, 0.0).sum() / _.recent_n.sum().nullif(0.0),
        unit="share",
        meaning=f"share of the {_counted(what)} in the last {words(window)} with {what} {value}",
        phrase=f"{{value}} of {done} {said}",
        group=plural(what),
        unknown=f"no {what} known in the last {words(window)}",
        needs=needs,
        high=high,
    )
    yield Feature(
        name=f"{word}_recency_days",
        base=base,
        expr=hit.ifelse(_.since_last, ibis.null("float64")).min(),
        unit="days",
        meaning=f"days since the last {'purchase' if what == 'category' else 'event'} with {what} {value}",
        phrase=f"last {_DONE_ONCE.get(what, done)} {said} {{value}} ago",
        group=plural(what),
        unknown=f"no {done} {said} so far",
        needs=needs,
    )


def in_names(value: str) -> str:
    """Write a value the way feature names carry it.

    >>> in_names("In-store (pickup)")
    'in_store_pickup'
    """
    return re.sub(r"[\W_]+", "_", value.lower()).strip("_")


def _counted(what: str) -> str:
    return "items bought" if what == "category" else "events"


def top(count: Deferred, value: Deferred) -> Deferred:
    """Give the value with the highest count above zero, as text, of equals the last in the alphabet.

    The two are put into one text, so that the maximum is the same whatever the order of the rows.
    """
    key = sortable(count.round()) + value.cast("string")
    return (count > 0).ifelse(key, ibis.null("string")).max().substr(SORTABLE)


def sortable(number: Deferred) -> Deferred:
    """Write a whole number from 0 to 1e18 as SORTABLE digits, so that texts are in its order; padding takes twice as long."""
    return (number.cast("int64") + _ABOVE_ALL).cast("string")


def wilson(share: Deferred, n: Deferred) -> Deferred:
    """Give the lower bound of a share seen in n events (Wilson, 1927)."""
    z2 = _Z * _Z
    spread = (share * (1 - share) / n + z2 / (n * n * 4)).clip(lower=0.0).sqrt()
    return (share + z2 / (n * 2) - spread * _Z) / (1 + z2 / n)


def entropy(counts: Deferred) -> Deferred:
    """Give the entropy (natural logarithm) of the shares that counts have in their sum; null when they are all zero.

    Each term is rounded to 1e-10 and added up as a whole number, so that the order of the rows does not matter.
    """
    total = counts.sum().nullif(0.0)
    terms = (counts > 0).ifelse((counts * counts.clip(lower=1.0).ln() * 1e10).round().cast("float64"), 0.0)
    return total.ln() - terms.sum() / 1e10 / total
