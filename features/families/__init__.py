"""Families of features, one behaviour a file; each file's `features` declares them for the configured windows."""

from collections.abc import Collection, Sequence
from datetime import timedelta

from features.catalogue import Feature, unique_by_name
from features.families import loyalty, promotion, purchases, rhythm, timing, trend, variety

FAMILIES = (loyalty, purchases, trend, rhythm, variety, promotion, timing)


def declared(windows: Sequence[timedelta], columns: Collection[str]) -> tuple[Feature, ...]:
    """Give every feature that the event columns present allow, in a fixed order."""
    everything = (feature for family in FAMILIES for feature in family.features(sorted(windows)))
    return unique_by_name(feature for feature in everything if feature.needs <= set(columns))


def switched_off(windows: Sequence[timedelta], columns: Collection[str]) -> dict[str, int]:
    """Count the features that each missing event column switches off."""
    missing = [feature.needs - set(columns) for family in FAMILIES for feature in family.features(sorted(windows))]
    return {name: sum(name in names for names in missing) for name in sorted(set().union(*missing))}
