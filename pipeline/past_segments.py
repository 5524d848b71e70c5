"""Segments at past origins: who would have been in them, by the scores of then, and what happened to them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from features.expressions import columns_of
from features.snapshot import KEYS
from models.slices import slices
from pipeline.columns import ARROW_TYPES, RULE_COLUMNS
from pipeline.rules import first_met
from pipeline.segments import with_stages

if TYPE_CHECKING:
    from pipeline.backtest import Past, Tested

_SEGMENT = "segment"


def with_segments(past: "Past", tested: Sequence["Tested"]) -> "tuple[Tested, ...]":
    """Add to each target's slices its rows by primary segment at the test origins; without segments nothing is added.

    Personas are of tonight and were not known then, so a rule that reads them is not met.
    """
    settings = past.settings
    if not settings.segments:
        return tuple(tested)
    night = _nights(past, tested)
    told, types = [(segment.name, segment.enter) for segment in settings.segments], settings.rule_columns()
    rules = [rule for _, rule in told] + [stage.when for stage in (*settings.journey_stages, *settings.loyalty_tiers)]
    read = [name for name in set().union(*map(columns_of, rules)) if name in night]
    rows = pa.table(
        {name: pa.array(night[name], ARROW_TYPES[types[name]], from_pandas=True) for name in sorted({*read, "known_days"})}
    )
    primary = first_met(with_stages(rows, settings.journey_stages, settings.loyalty_tiers), told)
    segment = night[KEYS].assign(**{_SEGMENT: primary.fill_null("in none").to_numpy(zero_copy_only=False)})
    found = []
    for made in tested:
        rows = made.backtest.tested.merge(segment, on=KEYS, how="left", validate="one_to_one")
        by = {_SEGMENT: rows[_SEGMENT]}
        more = slices(rows, "score", by, is_amount=made.target.is_amount, seed=settings.training.seed)
        found.append(replace(made, report=replace(made.report, slices=(*made.report.slices, *more))))
    return tuple(found)


def _nights(past: "Past", tested: Sequence["Tested"]) -> pd.DataFrame:
    """Give every user whom a target asks about at a test origin, as a night would have: features, scores, percentiles, bands."""
    parts = [past.rows[made.target.name].drop(columns="label").merge(made.backtest.tested[KEYS], on=KEYS) for made in tested]
    night = pd.concat(parts, ignore_index=True).drop_duplicates(KEYS, ignore_index=True)
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
