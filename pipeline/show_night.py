"""Show a night: segments, personas, who is most at risk and why, and where the tables are."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd
from rich.console import Console

from features.errors import DataError
from pipeline.columns import with_arrow
from pipeline.flow import IN_NONE
from pipeline.recorded import recorded_runs, versions_in
from pipeline.settings import Settings
from pipeline.show import (
    UNKNOWN,
    Column,
    asked_targets,
    count_text,
    mean_scores,
    plain_table,
    print_wide,
    score_columns,
    score_text,
    shown_night,
)
from pipeline.show_personas import persona_label, persona_names
from pipeline.tables import ORDER, read

MOST_AT_RISK = 10
# Not why: in a frame the reasons of millions would be ten gigabytes.
_OF_SCORES = ("user_id", "target", "score", "method", "model_version")
_OF_USERS = ("primary_segment", "persona", "persona_name", "model_version")


def tell_night(settings: Settings, as_of: date | None) -> dict[str, Any]:
    """Gather what `show` tells of one night, by default the latest, in plain values for people and machines alike.

    Raises DataError when there is no such night.
    """
    day = shown_night(settings, as_of)
    means = {f"{target.name}_score" for target in settings.targets}
    segments = read(settings.output, "segments", day, columns=means.union(_OF_USERS)).to_pandas()
    scores = read(settings.output, "scores", day, columns=_OF_SCORES).to_pandas()
    run = recorded_runs(settings)[day]
    targets = asked_targets(settings, list(segments))
    if not targets:
        raise DataError(f"the night of {day} has none of the config's targets: run `beforehand train` and `score` again")
    purposes: dict[str | None, str] = {segment.name: segment.purpose for segment in settings.segments}
    # A night may have segments that the config has no more.
    purposes |= {
        name: "no longer in the config" for name in sorted(segments.primary_segment.dropna().unique()) if name not in purposes
    }
    # A target may have had no champion.
    spoke = versions_in(next(iter(segments.model_version.dropna()), None))
    first = next((target for target in targets if (scores.target == target["target"]).any()), targets[0])
    groups = {name: segments[segments.primary_segment == name] for name in purposes}
    purposes[None], groups[None] = "in no segment", segments[segments.primary_segment.isna()]
    return {
        "as_of": day.isoformat(),
        "run_id": run["run_id"],
        "users": len(segments),
        "counts": json.loads(run["counts"]),
        "targets": [
            target | _told(scores[scores.target == target["target"]], has_model=target["target"] in spoke) for target in targets
        ],
        "segments": [
            {"segment": name, "purpose": purposes[name], "users": len(rows), "mean_scores": mean_scores(rows, targets)}
            for name, rows in groups.items()
        ],
        "personas": [
            {**persona_label(rows), "users": len(rows), "mean_scores": mean_scores(rows, targets)}
            for _, rows in segments.groupby("persona", dropna=False)
        ],
        "most_at_risk": {
            **{key: first[key] for key in ("target", "meaning", "is_amount")},
            "users": _riskiest(settings, day, scores, first["target"]),
        },
        "tables": table_paths(settings),
    }


def table_paths(settings: Settings) -> dict[str, str]:
    """Give where each table is, by name."""
    return {name: str((settings.output / name).resolve()) for name in (*ORDER, "nights")}


def print_night(told: Mapping[str, Any], console: Console, *, currency: str) -> None:
    """Print what `tell_night` gathered."""
    console.print(f"\nNight of {told['as_of']}: {told['users']:,} users, run {told['run_id']}\n", highlight=False)
    targets, groups = told["targets"], told["segments"]
    print_wide(
        console,
        "Scores",
        ("target", [row["target"] for row in targets]),
        [
            ("eligible users", [count_text(row["users"]) for row in targets]),
            ("mean score", [UNKNOWN if row["mean_score"] is None else _score(row["mean_score"], row, currency) for row in targets]),
            ("model", [UNKNOWN if row["method"] is None else f"v{row['model_version']} {row['method']}" for row in targets]),
        ],
        notes=("what a high score means", [row["meaning"] for row in targets]),
    )
    names = [row["segment"] or IN_NONE for row in groups]
    purposes = ("purpose", [row["purpose"] for row in groups])
    title = "Segments: users whose primary one it is, their mean scores, and of how many users"
    print_wide(console, title, ("segment", names), _columns(groups, targets, currency), notes=purposes)
    personas = told["personas"]
    columns = _columns(personas, targets, currency)
    print_wide(console, "Personas: users, their mean scores, and of how many users", ("persona", persona_names(personas)), columns)
    risk = told["most_at_risk"]
    table = plain_table(f"Highest {risk['target']} ({risk['meaning']})" if risk["meaning"] else f"Highest {risk['target']}")
    for name in ("user", "score", "why (↑ raises the score, ↓ lowers it)"):
        table.add_column(name, justify="right" if name == "score" else "left", no_wrap=name == "score")
    for row in risk["users"]:
        why = "\n".join(with_arrow(reason) for reason in row["reasons"])
        table.add_row(row["user_id"], _score(row["score"], risk, currency), why, end_section=True)
    console.print(table)
    print_tables(told["tables"], console)


def print_tables(paths: Mapping[str, str], console: Console) -> None:
    """Print where the tables are."""
    console.print("Tables (Delta Lake; consumers read `segments`)")
    for name, path in paths.items():
        console.print(f"  {name:<11} {path}", highlight=False, soft_wrap=True)


def _told(rows: pd.DataFrame, *, has_model: bool) -> dict[str, Any]:
    first = rows.iloc[0] if len(rows) else {"model_version": None, "method": None}
    mean = float(rows.score.mean()) if len(rows) else None
    return {
        "users": len(rows) if has_model else None,
        "mean_score": mean,
        "model_version": first["model_version"],
        "method": first["method"],
    }


def _riskiest(settings: Settings, day: date, scores: pd.DataFrame, target: str) -> list[dict[str, Any]]:
    top = scores[scores.target == target].sort_values(["score", "user_id"], ascending=[False, True]).head(MOST_AT_RISK)
    said = read(settings.output, "scores", day, columns={"user_id", "target", "reasons"}, users=top.user_id.tolist()).to_pylist()
    reasons = {row["user_id"]: row["reasons"] for row in said if row["target"] == target}
    return [
        {"user_id": row.user_id, "score": float(row.score), "reasons": reasons[row.user_id]} for row in top.itertuples(index=False)
    ]


def _columns(groups: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]], currency: str) -> list[Column]:
    means = score_columns(targets, [row["mean_scores"] for row in groups], currency)
    return [("users", [f"{row['users']:,}" for row in groups]), *means]


def _score(value: float, target: Mapping[str, Any], currency: str) -> str:
    return score_text(value, currency if target["is_amount"] else None)
