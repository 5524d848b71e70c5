"""Channels: where and with what a user acts, how settled that is, and who changes between them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from ibis import _

from features.catalogue import Base, Feature, feature_name
from features.families.values import favourite, favourite_features, share_of_value
from features.windows import within, words

_BASES: Mapping[str, Base] = {"channel": "channels", "device": "devices"}


def features(windows: Sequence[timedelta]) -> Iterator[Feature]:
    """The preferred channel and device with the confidence in them, their number, and changes of channel between orders."""
    longest = windows[-1]
    for what, base in _BASES.items():
        needs = frozenset({what})
        yield favourite(what, base, longest, name=f"preferred_{what}", needs=needs)
        yield from favourite_features(what, base, longest, needs=needs)
        yield Feature(
            name=feature_name(what, "count", longest),
            base=base,
            expr=within(longest).ifelse(1.0, 0.0).sum(),
            unit=what,
            meaning=f"{what}s used in the last {words(longest)}",
            phrase=f"used {{value}} in the last {words(longest)}",
            group=f"{what}s",
            needs=needs,
            empty=0,
            high="multichannel" if what == "channel" else None,
            low="single-channel" if what == "channel" else None,
        )
    yield Feature(
        name=feature_name("channel_switch", "share", longest),
        base="orders",
        expr=within(longest).ifelse(_.switched, None).mean(),
        unit="share",
        meaning=f"share of orders in the last {words(longest)} that came through another channel than the order before",
        phrase="{value} of orders through another channel than the one before",
        group="channels",
        unknown="too few purchases to see changes of channel",
        needs=frozenset({"channel"}),
    )


def value_features(values: Mapping[str, Sequence[str]], windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Share and recency of the channels and devices that the config names."""
    for what, base in _BASES.items():
        for value in values.get(what, ()):
            yield from share_of_value(what, base, value, windows[-1], high=value if what == "channel" else None)
