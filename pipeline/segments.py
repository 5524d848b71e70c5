"""Segments: named groups with a purpose, by rules over everything known of a user tonight."""

from collections.abc import Collection, Mapping, Sequence

import ibis
import pandas as pd

from features.errors import ConfigError, did_you_mean
from features.expressions import DIALECT, columns_of, condition
from pipeline.segment_settings import SegmentSettings

_IBIS_TYPES = {"DOUBLE": "float64", "VARCHAR": "string", "INTEGER": "int32"}


def refuse_unknown(segments: Sequence[SegmentSettings], columns: Collection[str]) -> None:
    """Raise ConfigError when a rule reads a column that tonight's data do not have."""
    for segment in segments:
        missing = sorted(columns_of(segment.enter) - set(columns))
        if missing:
            raise ConfigError(
                f"the segment {segment.name} reads {missing[0]!r}, which tonight's events cannot give: "
                f"{did_you_mean(missing[0], columns)}"
            )


def form_segments(night: pd.DataFrame, segments: Sequence[SegmentSettings], types: Mapping[str, str]) -> pd.DataFrame:
    """Give `primary_segment` (or null) and `segments` (a list) for every row of `night`, in its order.

    `night` has one row per user: scores, percentiles, bands, personas and features. A rule that is null for a user, because a score
    is unknown, is not met. `types` gives the DuckDB type of every column that a rule may name.

    Every column that a rule reads is there: see `refuse_unknown`.
    """
    if not segments:
        return pd.DataFrame({"primary_segment": None, "segments": [[] for _ in range(len(night))]}, index=night.index)
    columns = sorted(set().union(*(columns_of(segment.enter) for segment in segments)))
    # Typed by hand, since a column of nulls alone has no type; and named by number, since a segment may have any name.
    typed = {name: _IBIS_TYPES[types[name]] for name in columns} | {"place of row": "int64"}
    rows = ibis.memtable(night[columns].assign(**{"place of row": range(len(night))}), schema=ibis.schema(typed))
    # A frame of its own needs no cluster: rules run in DuckDB whichever engine made the features.
    engine = ibis.duckdb.connect()
    rules = ", ".join(f"({condition(segment.enter, columns)}) IS TRUE AS rule_{at}" for at, segment in enumerate(segments))
    tonight = engine.create_table("night", rows, temp=True)
    sql = f'SELECT "place of row", {rules} FROM tonight'  # noqa: S608 - every rule was parsed and checked
    members = tonight.alias("tonight").sql(sql, dialect=DIALECT).execute().sort_values("place of row").drop(columns="place of row")
    names = [segment.name for segment in segments]
    lists = [[name for name, is_in in zip(names, row, strict=True) if is_in] for row in members.itertuples(index=False)]
    return pd.DataFrame({"primary_segment": [found[0] if found else None for found in lists], "segments": lists}, index=night.index)
