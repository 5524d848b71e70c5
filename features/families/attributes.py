"""Attributes: what is known of a user besides events, such as a membership tier, as it was at the cutoff."""

from collections.abc import Collection, Iterator, Mapping

from ibis import _

from features.catalogue import NAME, Feature


def attribute_features(attributes: Mapping[str, bool], aside: Collection[str] = ()) -> Iterator[Feature]:
    """One feature for each attribute (name to whether it is a number), and the days since any of them last changed.

    Models leave those `aside` alone.
    """
    for name, is_number in attributes.items():
        called = name.replace("_", " ")
        yield Feature(
            name=name,
            base="attributes",
            expr=getattr(_, name).max(),
            unit="number" if is_number else NAME,
            meaning=f"{called}, as known at the cutoff",
            phrase=f"{called}: {{value}}",
            group="attributes",
            unknown=f"{called} is not known",
            is_aside=name in aside,
        )
    if attributes:
        yield Feature(
            name="attributes_days",
            base="attributes",
            expr=_.since.max(),
            unit="days",
            meaning="days since the attributes last changed",
            phrase="attributes unchanged for {value}",
            group="attributes",
        )
