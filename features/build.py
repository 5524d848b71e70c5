"""Build the features of every user known at each cutoff."""

from collections.abc import Sequence
from datetime import datetime
from functools import reduce

import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from features.catalogue import Feature
from features.moments import Moments
from features.snapshot import KEYS, snapshots


def build_features(moments: Moments, features: Sequence[Feature], cutoffs: Sequence[datetime]) -> ir.Table:
    """Give one row per cutoff (UTC) and user with any event before it: `user_id`, `cutoff` and every feature as float64.

    Each base table of the snapshot is aggregated once; features of the base `row` are computed last, from the others.
    """
    bases = snapshots(moments, cutoffs)
    spine = bases["events"].select(*KEYS).distinct()
    aggregates = []
    for base, table in bases.items():
        asked = {feature.name: feature.expr for feature in features if feature.base == base}
        if asked:
            aggregates.append(table.group_by(KEYS).agg(**asked))
    joined = reduce(lambda left, right: left.left_join(right, KEYS).drop("user_id_right", "cutoff_right"), aggregates, spine)
    aggregated = joined.select(*KEYS, *(_filled(feature) for feature in features if feature.base != "row"))
    derived = {feature.name: feature.expr.cast("float64") for feature in features if feature.base == "row"}
    return aggregated.mutate(**derived).select(*KEYS, *(feature.name for feature in features))


def _filled(feature: Feature) -> Deferred:
    value = _[feature.name].cast("float64")
    return (value if feature.empty is None else value.fill_null(feature.empty)).name(feature.name)
