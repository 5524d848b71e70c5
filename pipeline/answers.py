"""Answers: all that is said of a user, from the user's own row of features; the same functions on one machine and on executors.

    users ── answered ──▶ answers ─┬─ scores_rows ────▶ `scores`
                             │     └─ segments_rows ──▶ `segments`
                             └─ every score ──▶ Places

Only a percentile needs the other users, and of them no more than their scores. Tables are without `as_of`, which whoever writes
them adds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ibis import _

from features.catalogue import Feature, feature_name, phrase
from features.expressions import columns_of
from models.bundle import PersonaBundle, TargetBundle
from models.reasons import contributions, strongest
from pipeline.columns import BANDS, PERSONA, REASONS, SCORES, features_schema, segments_schema, with_arrow, without_date
from pipeline.segments import form_segments
from pipeline.settings import SegmentSettings

# Every score of the night by target, in order.
Places = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Known:
    """What the rows of a night are made with; it is sent to every executor."""

    run_id: str
    models: Mapping[str, TargetBundle]
    versions: Mapping[str, str]
    personas: PersonaBundle
    features: tuple[Feature, ...]
    longest: timedelta
    currency: str
    segments: tuple[SegmentSettings, ...]
    rule_columns: Mapping[str, str]

    @property
    def model_version(self) -> str:
        """Name the version of every model that speaks in a user's row."""
        return " ".join(f"{name}={version}" for name, version in sorted(self.versions.items()))

    @cached_property
    def read(self) -> tuple[Feature, ...]:
        """The features that rules of segments read, and those that are columns of `segments` themselves."""
        read = set(segments_schema(()).names).union(*(columns_of(segment.enter) for segment in self.segments))
        return tuple(feature for feature in self.features if feature.name in read)


def without_expressions(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Leave out how features are computed, which cannot be sent to an executor: their words remain."""
    return tuple(replace(feature, expr=_) for feature in features)


def asked_column(target: str) -> str:
    """Name the column that says whether a target asks about a user; no feature has a name with blanks."""
    return f"{target} asks"


def answers_schema(known: Known) -> pa.Schema:
    """Give the columns of answers: user, features that rules read, persona, and score and reasons for every target."""
    kinds = {"score": pa.float64(), "reasons": REASONS}
    said = [pa.field(f"{name}_{what}", kind) for name in known.models for what, kind in kinds.items()]
    return pa.schema([*without_date(features_schema(known.read)), *PERSONA, *said])


def answered(users: pa.Table, known: Known) -> pa.Table:
    """Score whom each target asks about, with the three strongest reasons, and give a persona to everybody whose habits are known.

    `users` has a row per user: every feature, and `asked_column` of every target. Who is not asked about has nulls.
    """
    frame = users.to_pandas()
    by_name = {feature.name: feature for feature in known.features}
    said = {"user_id": frame.user_id, **{feature.name: frame[feature.name] for feature in known.read}}
    for name, bundle in known.models.items():
        asked = frame[frame[asked_column(name)]]
        # LightGBM refuses an empty frame, and nobody being asked about tonight is no mistake.
        score = bundle.predict(asked).score if len(asked) else pd.Series(dtype="float64")
        reasons = pd.Series(_reasons(bundle, asked, by_name, known.currency), index=asked.index, dtype=object)
        said |= {f"{name}_score": score.reindex(frame.index), f"{name}_reasons": reasons.reindex(frame.index)}
    personas = known.personas.predict(active(frame, known.longest)).reindex(frame.index)
    return _table(pd.DataFrame({**said, **personas}, index=frame.index), answers_schema(known))


def active(frame: pd.DataFrame, longest: timedelta) -> pd.DataFrame:
    """Give the users whose habits are known: those who bought within the longest window."""
    return frame[frame[feature_name("purchase", "count", longest)] > 0]


def scores_rows(answers: pa.Table, known: Known, places: Places) -> pa.Table:
    """Give the rows of `scores`: one per user and target that asks about the user."""
    parts = []
    for name, bundle in sorted(known.models.items()):
        asked = answers.filter(answers[f"{name}_reasons"].is_valid())
        score = asked[f"{name}_score"].to_numpy()
        said = {"user_id": asked["user_id"], "score": asked[f"{name}_score"], "reasons": asked[f"{name}_reasons"]}
        same = {"target": name, "method": bundle.method, "model_version": known.versions[name]}
        said |= {column: pa.array([value] * len(asked), pa.string()) for column, value in same.items()}
        said |= {column: pa.array(values) for column, values in _placed(score, places[name]).items()}
        schema = without_date(SCORES)
        parts.append(pa.table(said).select(schema.names).cast(schema))
    return pa.concat_tables(parts)


def segments_rows(answers: pa.Table, known: Known, places: Places, schema: pa.Schema) -> pa.Table:
    """Give the rows of `segments`, whose `schema` is given: one per user, with three reasons in words."""
    wide = answers.drop_columns([f"{name}_reasons" for name in known.models]).to_pandas()
    for name in known.models:
        asked = wide[f"{name}_score"].dropna()
        placed = pd.DataFrame(_placed(asked.to_numpy(), places[name]), index=asked.index)
        wide = wide.join(placed.add_prefix(f"{name}_"))
    wide = pd.concat([wide, form_segments(wide, known.segments, known.rule_columns)], axis=1)
    wide = pd.concat([wide, _segment_reasons(answers, wide, known)], axis=1)
    return _table(wide.assign(model_version=known.model_version, run_id=known.run_id), schema)


def _placed(score: np.ndarray, everybody: np.ndarray) -> dict[str, Any]:
    """Rank scores among everybody's, in percent; those that are equal share the mean of their ranks."""
    ranks = (np.searchsorted(everybody, score, "left") + 1 + np.searchsorted(everybody, score, "right")) / 2
    percentile = ranks / len(everybody) * 100
    return {"percentile": percentile, "band": [BANDS[ceil(value / 20) - 1] for value in percentile]}


def _reasons(
    bundle: TargetBundle, frame: pd.DataFrame, by_name: Mapping[str, Feature], currency: str
) -> list[list[dict[str, Any]]]:
    names = list(bundle.features)
    if frame.empty:
        return []
    found = strongest(contributions(bundle.booster, frame), [by_name[name].group for name in names])
    told = {name for feature in names for name in (feature, by_name[feature].usual) if name}
    rows = frame[sorted(told & set(frame.columns))].to_dict("records")
    return [
        [
            {
                "feature": names[column],
                "value": None if np.isnan(row[names[column]]) else row[names[column]],
                "contribution": float(moved),
                "phrase": phrase(by_name[names[column]], row, by_name, currency=currency),
            }
            for column, moved in zip(columns, contribution, strict=True)
        ]
        for row, columns, contribution in zip(rows, found.feature, found.contribution, strict=True)
    ]


def _segment_reasons(answers: pa.Table, wide: pd.DataFrame, known: Known) -> pd.DataFrame:
    """Take the reasons of the first target that the primary segment's rule reads, else of the first that scored the user.

    An arrow says whether a reason raises or lowers that score. Who has no score has no reasons.
    """
    told = {name: answers[f"{name}_reasons"].to_pylist() for name in known.models}
    target_of = {segment.name: segment.target(list(told)) for segment in known.segments}
    rows = []
    for at, primary in enumerate(wide.primary_segment):
        named = target_of.get(primary)
        own = told[named][at] if named else None
        reasons = own or next((said[at] for said in told.values() if said[at] is not None), None)
        rows.append([*(with_arrow(reason) for reason in reasons or []), None, None, None][:3])
    return pd.DataFrame(rows, columns=["reason_1", "reason_2", "reason_3"], index=wide.index)


def _table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Bring a frame into a table's schema; columns whose logic is not built yet are null."""
    columns = []
    for spec in schema:
        if spec.name not in frame.columns:
            columns.append(pa.nulls(len(frame), spec.type))
            continue
        values = frame[spec.name]
        # Where a list is missing, pandas puts a NaN.
        told = [value if isinstance(value, list) else None for value in values] if pa.types.is_list(spec.type) else values
        columns.append(pa.array(told, spec.type, from_pandas=True))
    return pa.Table.from_arrays(columns, schema=schema)
