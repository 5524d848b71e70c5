"""Recorded nights: what the tables still know of them, as the segment stage reads it."""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import ValidationError

from features.errors import ConfigError, StoreError, listed
from pipeline import tables
from pipeline.columns import PERSONA, REASONS, USER
from pipeline.segments import BEFORE, Forming, Places, before_schema, places_of
from pipeline.settings import Settings

# Where rows go and how fast is not what a night was.
_ASIDE = {"output", "engine", "shadow", "training", "gates"}


def settings_told(settings: Settings) -> str:
    """Write the settings that shaped a night, for the table `nights`; the salt of holdouts stays out of it."""
    told = settings.model_dump(mode="json", exclude={name: True for name in _ASIDE} | {"plays": {"salt"}})
    return json.dumps(told, sort_keys=True)


def settings_then(night: Mapping[str, Any], settings: Settings) -> Settings:
    """Give the settings with which a row of `nights` was made; what did not shape it is as in `settings` now.

    Raises StoreError where the night was recorded by a version that kept none, or kept others.
    """
    now = settings.model_dump(mode="json", include=_ASIDE)
    # A feature that models are tested by now need not have been built then, and no night reads it.
    now["training"]["slices"] = []
    try:
        told = json.loads(night.get("settings") or "null")
        told["plays"]["salt"] = settings.plays.salt
        return Settings.model_validate({**told, **now})
    except (ValidationError, TypeError, KeyError, ValueError):
        raise StoreError(
            f"the night of {night['as_of']} was recorded by another version, which its segments cannot be formed again with: run "
            f"`beforehand score --as-of {night['as_of']}`"
        ) from None


def versions_then(root: Path, day: date) -> dict[str, str]:
    """Give the versions of the models that spoke on a night, by target, and of the personas."""
    spoke = tables.read(root, "segments", day, columns={"model_version"})["model_version"]
    return versions_in(spoke[0].as_py()) if len(spoke) else {}


def versions_in(model_version: str | None) -> dict[str, str]:
    """Read what a row of `segments` says of the models that spoke.

    >>> versions_in("churn_28d=3 personas=1")
    {'churn_28d': '3', 'personas': '1'}
    """
    return dict(pair.split("=", 1) for pair in (model_version or "").split())


def forming_of(settings: Settings, as_of: date, *, has_before: bool) -> Forming:
    """Give what a config forms segments with on a night; who runs it adds the run and its models."""
    return Forming(
        as_of=as_of,
        run_id="",
        model_version="",
        targets=tuple(target.name for target in settings.targets),
        segments=settings.segments,
        rule_columns=settings.rule_columns(),
        plays=settings.plays,
        stages=settings.journey_stages,
        tiers=settings.loyalty_tiers,
        bands=settings.bands(),
        has_before=has_before,
    )


def recorded_runs(settings: Settings) -> dict[date, Mapping[str, Any]]:
    """Give the last run of every recorded night (a row of `nights`), by date, in order of the dates.

    Raises ConfigError where the nights are those of a config of another name: each would overwrite the nights of the other.
    """
    found = {row["as_of"]: row for row in tables.nights(settings.output)}
    # Nights of early versions have no settings.
    if others := {json.loads(told)["name"] for row in found.values() if (told := row.get("settings"))} - {settings.name}:
        raise ConfigError(
            f"output: {settings.output} holds the nights of {listed(sorted(others))}, and this config is named {settings.name}: "
            "give it a folder of its own, or back the name it had"
        )
    return dict(sorted(found.items()))


def stood(root: Path, day: date, forming: Forming) -> pa.Table:
    """Say how every user of a recorded night stood: `user_id` and `before_schema`; what that night did not know is null."""
    columns = {"user_id", *forming.remembered}
    features, segments = (tables.read(root, name, day, columns=columns) for name in ("features", "segments"))
    return stood_from(features, segments, forming)


def stood_from(features: pa.Table, segments: pa.Table, forming: Forming) -> pa.Table:
    """Say how every user of a night stood, from rows of `features` and of `segments`."""
    known = set(features.column_names)
    said = {name: f's."{name}"' for name in segments.column_names} | {
        name: f'f."{name}"' for name in known - set(segments.column_names)
    }
    columns = ", ".join(f'{said.get(name, "NULL")} AS "{BEFORE + name}"' for name in forming.remembered)
    sql = f"SELECT s.user_id, {columns} FROM s LEFT JOIN f USING (user_id) ORDER BY user_id"  # noqa: S608 - names of our own columns
    found = _asked(sql, f=features, s=segments)
    return found.cast(pa.schema([USER, *before_schema(forming)]))


def recorded_answers(root: Path, day: date, forming: Forming, before: pa.Table | None) -> tuple[pa.Table, Places]:
    """Give a recorded night's answers, as `pipeline.answers.answered` gave them, and its places; `before` is how users stood."""
    read = sorted(forming.read)
    features = tables.read(root, "features", day, columns={"user_id", *read})
    scores = tables.read(root, "scores", day, columns={"user_id", "target", "score", "reasons"})
    segments = tables.read(root, "segments", day, columns={"user_id", *(spec.name for spec in PERSONA)})
    read = [name for name in read if name in features.column_names]
    persona = [spec.name if spec.name in segments.column_names else None for spec in PERSONA]
    columns = [f'f."{name}"' for name in read]
    columns += [f's."{name}"' if name else f'NULL AS "{spec.name}"' for name, spec in zip(persona, PERSONA, strict=True)]
    joins = []
    for at, target in enumerate(forming.targets):
        own = f"SELECT user_id, score, reasons FROM r WHERE target = '{target}'"  # noqa: S608 - a Name of the config
        joins.append(f"LEFT JOIN ({own}) t{at} ON t{at}.user_id = s.user_id")
        columns += [f't{at}.score AS "{target}_score"', f't{at}.reasons AS "{target}_reasons"']
    columns += [f'b."{name}"' for name in before_schema(forming).names] if before is not None else []
    joins += ["LEFT JOIN b ON b.user_id = s.user_id"] if before is not None else []
    told = f"SELECT s.user_id, {', '.join(columns)} FROM s"  # noqa: S608 - names of our own columns
    sql = f"{told} JOIN f ON f.user_id = s.user_id {' '.join(joins)} ORDER BY s.user_id"
    given = {"f": features, "s": segments, "r": scores} | ({} if before is None else {"b": before})
    found = _asked(sql, **given)
    kinds = {f"{target}_reasons": REASONS for target in forming.targets} | {spec.name: spec.type for spec in PERSONA}
    answers = found.cast(pa.schema([pa.field(spec.name, kinds.get(spec.name, spec.type)) for spec in found.schema]))
    return answers, places_of(answers, forming.targets)


def _asked(sql: str, **rows: pa.Table) -> pa.Table:
    with duckdb.connect() as engine:
        for name, table in rows.items():
            engine.register(name, table)
        return engine.sql(sql).to_arrow_table()
