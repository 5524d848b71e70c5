"""The tables' columns, declared once (see `Tables` in the design)."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from features.catalogue import Feature
from features.labels import Target

# What columns are called on the way from features to tables: nobody's own may be called so.
WORKING = frozenset(
    {"cutoff", "since", "until", "known_from", "row", "broken", "came_as", "source_name"}
    | {"label", "is_test", "score", "drift", "champion", "disjoint"}
    | {"base_rate", "recency", "rfm", "logistic", "lightgbm", "recency_blend", "rfm_blend", "blend"}
)
# Columns of a target and of a persona, with the types that a segment's rule meets.
TARGET_COLUMNS: Mapping[str, str] = {"{target}_score": "DOUBLE", "{target}_percentile": "DOUBLE", "{target}_band": "VARCHAR"}
RULE_COLUMNS: Mapping[str, str] = {"persona": "INTEGER", "persona_name": "VARCHAR", "persona_typicality": "DOUBLE"}
# Types of the columns that rules read: in DuckDB and in tables.
ARROW_TYPES: Mapping[str, pa.DataType] = {"DOUBLE": pa.float64(), "VARCHAR": pa.string(), "INTEGER": pa.int32()}

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
# `persona_typicality` is the share of the persona's users who lie no nearer to its centre: 1 is the most typical.
PERSONA = (
    pa.field("persona", pa.int32()),
    pa.field("persona_name", pa.string()),
    pa.field("persona_typicality", pa.float64()),
)
STAGE, TIER = "journey_stage", "loyalty_tier"
# The columns that rules make, by the key of the rules.
MADE: Mapping[str, str] = {"journey_stages": STAGE, "loyalty_tiers": TIER}
# What to do about a user tonight, and why not; null where the user's primary segment has no play. `play` is the offer's key,
# `contact_on` the first date on which the play's delay is over, `contact_hour` a local hour outside quiet hours, `contacts` how
# many there were in the time that the play's cap looks back. `actionable` users may be contacted tonight.
PLAY = (
    pa.field("play", pa.string()),
    pa.field("contact_channel", pa.string()),
    pa.field("contact_on", pa.date32()),
    pa.field("contact_hour", pa.int32()),
    pa.field("contacts", pa.int32()),
    pa.field("holdout", pa.bool_()),
    pa.field("no_consent", pa.bool_()),
    pa.field("capped", pa.bool_()),
    pa.field("contacted_recently", pa.bool_()),
    pa.field("actionable", pa.bool_()),
)
# `segments` in order of priority, and for each the night on which the user entered.
MEMBER = (
    pa.field("primary_segment", pa.string()),
    pa.field("segments", pa.list_(pa.string())),
    pa.field("segments_since", pa.list_(pa.date32())),
)

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

# One row is a stay of a user in a segment; `left_on` is the first night on which the user was out, null while the stay lasts.
MEMBERSHIPS = pa.schema(
    [
        USER,
        pa.field("segment", pa.string(), nullable=False),
        pa.field("entered_on", pa.date32(), nullable=False),
        pa.field("left_on", pa.date32()),
        pa.field("enter_reason", pa.string()),
        pa.field("leave_reason", pa.string()),
    ]
)

NIGHTS = pa.schema(
    [
        AS_OF,
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        pa.field("finished_at", pa.timestamp("us", tz="UTC")),
        *(pa.field(name, pa.string()) for name in ("status", "counts", "checks", "versions", "settings")),
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
    """Give the schema of `segments`, the table that consumers read."""
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
            pa.field(STAGE, pa.string()),
            pa.field(TIER, pa.string()),
            *PERSONA,
            *scores,
            *MEMBER,
            *(pa.field(f"reason_{number}", pa.string()) for number in (1, 2, 3)),
            pa.field("preferred_channel", pa.string()),
            pa.field("best_hour", pa.int32()),
            *PLAY,
            pa.field("model_version", pa.string()),
            pa.field("run_id", pa.string()),
        ]
    )


def features_schema(features: Sequence[Feature]) -> pa.Schema:
    """Give the schema of `features`: numbers as floats, names as text."""
    kinds = {feature.name: pa.string() if feature.is_text else pa.float64() for feature in features}
    return pa.schema([AS_OF, USER, *(pa.field(name, kind) for name, kind in kinds.items())])
