"""Answers: all that is said of a user, from the user's own row of features; the same functions on one machine and on executors.

    users ── answered ──▶ answers ─┬─ scores_rows ────▶ `scores`
                             │     └─ segments.segments_rows ──▶ `segments`
                             └─ every score ──▶ Places

Only a percentile needs the other users, and of them no more than their scores. Tables are without `as_of`, which whoever writes
them adds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ibis import _

from features.catalogue import Feature
from models.bands import Bands, spaced
from models.bundle import AS_OF, PersonaBundle, TargetBundle
from models.reasons import strongest
from pipeline.columns import PERSONA, REASONS, SCORES, features_schema, without_date
from pipeline.phrases import among_all, reasons_column
from pipeline.segments import BEFORE, Forming, Places, before_schema

# The column that says whether a user's habits are known; no feature has a name with blanks.
ACTIVE = "is active"


@dataclass(frozen=True)
class Known:
    """What the rows of a night are made with; it is sent to every executor.

    A target of `forming` without a model has scores of nobody. `ladders` are groups of targets with one that ask one question over
    several horizons, and whether their scores rise with the horizon.
    """

    models: Mapping[str, TargetBundle]
    versions: Mapping[str, str]
    personas: PersonaBundle
    features: tuple[Feature, ...]
    currency: str
    forming: Forming
    ladders: tuple[tuple[Mapping[timedelta, str], bool], ...] = ()

    @cached_property
    def read(self) -> tuple[Feature, ...]:
        """The features that the segment stage reads."""
        return tuple(feature for feature in self.features if feature.name in self.forming.read)


def without_expressions(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Leave out how features are computed, which cannot be sent to an executor: their words remain."""
    return tuple(replace(feature, expr=_) for feature in features)


def asked_column(target: str) -> str:
    """Name the column that says whether a target asks about a user; no feature has a name with blanks."""
    return f"{target} asks"


def answers_schema(known: Known) -> pa.Schema:
    """Give the columns of answers: user, features that rules read, persona, and score and reasons for every target.

    A night that knows of the one before has `before_schema` too.
    """
    kinds = {"score": pa.float64(), "reasons": REASONS}
    said = [pa.field(f"{name}_{what}", kind) for name in known.forming.targets for what, kind in kinds.items()]
    before = before_schema(known.forming) if known.forming.has_before else ()
    return pa.schema([*without_date(features_schema(known.read)), *PERSONA, *said, *before])


def answered(users: pa.Table, known: Known, *, with_reasons: bool = True) -> pa.Table:
    """Score whom each target asks about, with the three strongest reasons, and give a persona to everybody whose habits are known.

    `users` has a row per user: every feature, ACTIVE, and `asked_column` of every target. Who is not asked about has nulls; without
    reasons, these are all null.
    """
    frame = users.to_pandas()
    by_name = {feature.name: feature for feature in known.features}
    said = {"user_id": frame.user_id, **{feature.name: frame[feature.name] for feature in known.read}}
    reasons = {}
    for name, bundle in known.models.items():
        asks = frame[asked_column(name)].to_numpy(dtype=bool)
        asked = frame[asks]
        # LightGBM refuses an empty frame, and nobody being asked about tonight is no mistake.
        score = bundle.predict(asked, {AS_OF: known.forming.as_of.isoformat()}).score if len(asked) else pd.Series(dtype="float64")
        said[f"{name}_score"] = score.reindex(frame.index)
        told = among_all(_reasons(bundle, asked, by_name, known.currency), asks) if with_reasons else pa.nulls(len(frame), REASONS)
        reasons[f"{name}_reasons"] = told
    for horizons, is_rising in known.ladders:
        raw = {horizon: said[f"{name}_score"].to_numpy(dtype=np.float64) for horizon, name in horizons.items()}
        said |= {
            f"{horizons[horizon]}_score": pd.Series(score, index=frame.index)
            for horizon, score in spaced(raw, rising=is_rising).items()
        }
    personas = known.personas.predict(frame[frame[ACTIVE].to_numpy(dtype=bool)]).reindex(frame.index)
    table = _table(pd.DataFrame({**said, **personas}, index=frame.index), answers_schema(known))
    before = {name: users[name] for name in table.column_names if name.startswith(BEFORE)}
    for name, told in {**reasons, **before}.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), told)
    return table


def scores_rows(answers: pa.Table, known: Known, places: Places) -> pa.Table:
    """Give the rows of `scores`: one per user and target that asks about the user."""
    parts = []
    for name, bundle in sorted(known.models.items()):
        asked = answers.filter(answers[f"{name}_reasons"].is_valid())
        score = asked[f"{name}_score"].to_numpy()
        said = {"user_id": asked["user_id"], "score": asked[f"{name}_score"], "reasons": asked[f"{name}_reasons"]}
        same = {"target": name, "method": bundle.method, "model_version": known.versions[name]}
        said |= {column: pa.array([value] * len(asked), pa.string()) for column, value in same.items()}
        said |= {column: pa.array(values) for column, values in _placed(score, places[name], known, name).items()}
        schema = without_date(SCORES)
        parts.append(pa.table(said).select(schema.names).cast(schema))
    return pa.concat_tables(parts)


def _placed(score: np.ndarray, everybody: np.ndarray, known: Known, target: str) -> dict[str, Any]:
    percentile, band = known.forming.bands.get(target, Bands()).place(score, everybody)
    return {"percentile": percentile, "band": band}


def _reasons(bundle: TargetBundle, asked: pd.DataFrame, by_name: Mapping[str, Feature], currency: str) -> pa.ListArray:
    """Give the three strongest reasons of each user who is asked about."""
    names = list(bundle.features)
    groups = [bundle.groups.get(name) or by_name[name].group for name in names]
    values = bundle.against_expected(asked) if len(asked) else np.zeros((0, len(names)))
    is_date = [name.endswith("_recency_days") for name in names]
    dates = np.where(is_date, asked[names].to_numpy(dtype=np.float64), np.nan)
    return reasons_column(asked, strongest(values, groups, dates=dates), names, by_name, currency=currency, typical=bundle.typical)


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
