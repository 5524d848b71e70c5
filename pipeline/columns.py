"""The tables' columns, declared once (see `Tables` in the design)."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from features.catalogue import Feature
from features.labels import Target

# Columns of a target and of a persona, with the types that a segment's rule meets.
TARGET_COLUMNS: Mapping[str, str] = {"{target}_score": "DOUBLE", "{target}_percentile": "DOUBLE", "{target}_band": "VARCHAR"}
RULE_COLUMNS: Mapping[str, str] = {"persona": "INTEGER", "persona_name": "VARCHAR"}

AS_OF = pa.field("as_of", pa.date32(), nullable=False)
USER = pa.field("user_id", pa.string(), nullable=False)

REASON = pa.struct(
    [
        pa.field("feature", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("contribution", pa.float64()),
        pa.field("phrase", pa.string()),
    ]
)
REASONS = pa.list_(REASON)
PERSONA = (pa.field("persona", pa.int32()), pa.field("persona_name", pa.string()))

SCORES = pa.schema(
    [
        AS_OF,
        USER,
        pa.field("target", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("percentile", pa.float64()),
        pa.field("band", pa.string()),
        pa.field("method", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("reasons", REASONS),
    ]
)

QUARANTINE = pa.schema([AS_OF, *(pa.field(name, pa.string()) for name in ("source", "reason", "row"))])

NIGHTS = pa.schema(
    [
        AS_OF,
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        pa.field("finished_at", pa.timestamp("us", tz="UTC")),
        *(pa.field(name, pa.string()) for name in ("status", "counts", "checks", "versions")),
    ]
)


def without_date(schema: pa.Schema) -> pa.Schema:
    """Leave out `as_of`, which is the same in all rows of a night."""
    return pa.schema([spec for spec in schema if spec.name != AS_OF.name])


def with_arrow(reason: Mapping[str, Any]) -> str:
    """Write a REASON for a reader: ↑ where it raises the score, ↓ where it lowers it.

    >>> with_arrow({"contribution": 0.4, "phrase": "no purchase for 23 days"})
    '↑ no purchase for 23 days'
    """
    return f"{'↑' if reason['contribution'] > 0 else '↓'} {reason['phrase']}"


def segments_schema(targets: Sequence[Target]) -> pa.Schema:
    """Give the schema of `segments`, the table that consumers read; columns whose logic is not built yet stay null."""
    types = (pa.float64(), pa.float64(), pa.string())
    scores = [
        pa.field(column.format(target=target.name), kind)
        for target in targets
        for column, kind in zip(TARGET_COLUMNS, types, strict=True)
    ]
    return pa.schema(
        [
            AS_OF,
            USER,
            pa.field("journey_stage", pa.string()),
            *PERSONA,
            *scores,
            pa.field("primary_segment", pa.string()),
            pa.field("segments", pa.list_(pa.string())),
            *(pa.field(f"reason_{number}", pa.string()) for number in (1, 2, 3)),
            pa.field("preferred_channel", pa.string()),
            pa.field("best_hour", pa.int32()),
            pa.field("play", pa.string()),
            pa.field("holdout", pa.bool_()),
            pa.field("model_version", pa.string()),
            pa.field("run_id", pa.string()),
        ]
    )


def features_schema(features: Sequence[Feature]) -> pa.Schema:
    """Give the schema of `features`: numbers as floats, names as text."""
    kinds = {feature.name: pa.string() if feature.is_text else pa.float64() for feature in features}
    return pa.schema([AS_OF, USER, *(pa.field(name, kind) for name, kind in kinds.items())])
