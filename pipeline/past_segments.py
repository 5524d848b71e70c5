"""Segments at past origins: who would have been in them, by the scores of then, and what happened to them."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from features.expressions import columns_of
from features.snapshot import KEYS
from models.slices import slices
from pipeline.columns import ARROW_TYPES, RULE_COLUMNS, STAGE, TIER
from pipeline.rules import first_met
from pipeline.segments import with_stages

if TYPE_CHECKING:
    from pipeline.backtest import Tested
    from pipeline.past import Past

_SEGMENT = "segment"


def with_segments(past: "Past", tested: Sequence["Tested"]) -> "tuple[Tested, ...]":
    """Add to each target's slices its rows by what rules of the config say at the test origins: segment, journey stage, tier.

    Personas are of tonight and were not known then, so a rule that reads them is not met.
    """
    settings = past.settings
    stages, tiers = settings.journey_stages, settings.loyalty_tiers
    if not (settings.segments or stages or tiers):
        return tuple(tested)
    told, types = [(segment.name, segment.enter) for segment in settings.segments], settings.rule_columns()
    rules = [rule for _, rule in told] + [stage.when for stage in (*stages, *tiers)]
    read = set().union(*map(columns_of, rules), {"known_days"})
    night = _nights(past, tested, read)
    rows = pa.table(
        {name: pa.array(night[name], ARROW_TYPES[types[name]], from_pandas=True) for name in sorted(read) if name in night}
    )
    staged = with_stages(rows, stages, tiers)
    found = {STAGE: staged[STAGE]} if stages else {}
    found |= {TIER: staged[TIER]} if tiers else {}
    found |= {_SEGMENT: first_met(staged, told).fill_null("in none")} if told else {}
    groups = night[KEYS].assign(**{name: values.to_numpy(zero_copy_only=False) for name, values in found.items()})
    sliced = []
    for made in tested:
        rows = made.backtest.tested.merge(groups, on=KEYS, how="left", validate="one_to_one")
        by = {name: rows[name] for name in found}
        more = slices(rows, "score", by, is_amount=made.target.is_amount, seed=settings.training.seed)
        sliced.append(replace(made, report=replace(made.report, slices=(*made.report.slices, *more))))
    return tuple(sliced)


def _nights(past: "Past", tested: Sequence["Tested"], read: Collection[str]) -> pd.DataFrame:
    """Give every user whom a target asks about at a test origin, as a night would have: `read` of the features; scores, bands."""
    asked = pd.concat([made.backtest.tested[KEYS] for made in tested]).drop_duplicates()
    night = past.features.loc[:, past.features.columns.isin({*KEYS, *read})].merge(asked, on=KEYS, validate="one_to_one")
    bands = past.settings.bands()
    for made in tested:
        name = made.target.name
        placed = []
        for _, rows in made.backtest.tested.groupby("cutoff"):
            score = rows.score.to_numpy(dtype=np.float64)
            percentile, band = bands[name].place(score, np.sort(score[~np.isnan(score)]))
            placed.append(rows[KEYS].assign(**{f"{name}_score": score, f"{name}_percentile": percentile, f"{name}_band": band}))
        night = night.merge(pd.concat(placed), on=KEYS, how="left")
    unknown = pd.DataFrame({name: None for name in RULE_COLUMNS if name not in night}, index=night.index)
    return pd.concat([night, unknown], axis=1)
