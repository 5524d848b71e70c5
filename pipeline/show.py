"""Show a night: segments, personas, who is most at risk and why, and where the tables are."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from features.errors import DataError, listed
from pipeline.columns import with_arrow
from pipeline.settings import Settings
from pipeline.tables import ORDER, nights, read

MOST_AT_RISK = 10


def shown_night(settings: Settings, as_of: date | None) -> date:
    """Give the night to show: that of a date, or the latest.

    Raises DataError when there is no such night, and names those there are.
    """
    dates = night_dates(settings)
    if as_of is not None and as_of not in dates:
        raise DataError(f"there is no night of {as_of} below {settings.output}: there are {listed(reversed(dates))}")
    return as_of or dates[-1]


def night_dates(settings: Settings) -> list[date]:
    """Give the dates of all recorded nights in order, at least one; raises DataError when there is none."""
    dates = sorted({row["as_of"] for row in nights(settings.output)})
    if not dates:
        raise DataError(f"no night has been written below {settings.output} yet: run `beforehand score --as-of DATE`")
    return dates


def tell_night(settings: Settings, as_of: date | None) -> dict[str, Any]:
    """Gather what `show` tells of one night, by default the latest, in plain values for people and machines alike.

    Raises DataError when there is no such night.
    """
    day = shown_night(settings, as_of)
    segments = read(settings.output, "segments", day).to_pandas()
    scores = read(settings.output, "scores", day).to_pandas()
    run = next(row for row in reversed(nights(settings.output)) if row["as_of"] == day)
    # A target that came into the config after this night was not asked then.
    asked = [target for target in settings.targets if f"{target.name}_score" in segments.columns]
    if not asked:
        raise DataError(f"the night of {day} has none of the config's targets: run `beforehand train` and `score` again")
    columns = [f"{target.name}_score" for target in asked]
    riskiest = asked[0]
    return {
        "as_of": day.isoformat(),
        "run_id": run["run_id"],
        "users": len(segments),
        "counts": json.loads(run["counts"]),
        "targets": [
            {
                "target": target.name,
                "meaning": target.meaning,
                "is_amount": target.kind == "value",
                **_told(scores[scores.target == target.name]),
            }
            for target in asked
        ],
        "segments": [
            {
                "segment": segment.name,
                "purpose": segment.purpose,
                **_group(segments[segments.primary_segment == segment.name], columns),
            }
            for segment in settings.segments
        ]
        + [{"segment": None, "purpose": "in no segment", **_group(segments[segments.primary_segment.isna()], columns)}],
        "personas": [
            {"persona": int(number), "name": name, **_group(rows, columns)}
            for (number, name), rows in segments.groupby(["persona", "persona_name"])
        ],
        "most_at_risk": {"target": riskiest.name, "meaning": riskiest.meaning, "users": _riskiest(scores, riskiest.name)},
        "tables": table_paths(settings),
    }


def table_paths(settings: Settings) -> dict[str, str]:
    """Give where each table is, by name."""
    return {name: str((settings.output / name).resolve()) for name in (*ORDER, "nights")}


def print_night(told: Mapping[str, Any], console: Console, *, currency: str) -> None:
    """Print what `tell_night` gathered."""
    console.print(f"\nNight of {told['as_of']}: {told['users']:,} users, run {told['run_id']}\n", highlight=False)
    table = plain_table("Scores")
    for name in ("target", "what a high score means", "users asked about", "mean score", "model", "method"):
        table.add_column(name, justify="right" if name in ("users asked about", "mean score") else "left")
    for row in told["targets"]:
        mean = _score(row["mean_score"], row["target"], told, currency)
        table.add_row(row["target"], row["meaning"], f"{row['users']:,}", mean, f"v{row['model_version']}", row["method"])
    console.print(table)
    _print_groups(told, "segments", "segment", "purpose", console, currency)
    _print_groups(told, "personas", "persona", "name", console, currency)
    risk = told["most_at_risk"]
    table = plain_table(f"Highest {risk['target']} ({risk['meaning']})" if risk["meaning"] else f"Highest {risk['target']}")
    for name in ("user", "score", "why (↑ raises the score, ↓ lowers it)"):
        table.add_column(name, justify="right" if name == "score" else "left")
    for row in risk["users"]:
        why = "\n".join(with_arrow(reason) for reason in row["reasons"])
        table.add_row(row["user_id"], _score(row["score"], risk["target"], told, currency), why, end_section=True)
    console.print(table)
    print_tables(told["tables"], console)


def print_tables(paths: Mapping[str, str], console: Console) -> None:
    """Print where the tables are."""
    console.print("Tables (Delta Lake; consumers read `segments`)")
    for name, path in paths.items():
        console.print(f"  {name:<11} {path}", highlight=False, soft_wrap=True)


def plain_table(title: str) -> Table:
    """Make a plain table with a title on the left."""
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def score_text(value: float, currency: str | None) -> str:
    """Write a score: an amount in its currency, or a probability as a percentage where there is none.

    >>> score_text(0.3372, None), score_text(1234.5, "€")
    ('33.7%', '€1,234')
    """
    return f"{value:.1%}" if currency is None else f"{currency}{value:,.0f}"


def _told(rows: pd.DataFrame) -> dict[str, Any]:
    first = rows.iloc[0] if len(rows) else {"model_version": None, "method": None}
    mean = float(rows.score.mean()) if len(rows) else None
    return {"users": len(rows), "mean_score": mean, "model_version": first["model_version"], "method": first["method"]}


def _group(rows: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    means = {column.removesuffix("_score"): None if rows[column].isna().all() else float(rows[column].mean()) for column in columns}
    return {"users": len(rows), "mean_scores": means}


def _riskiest(scores: pd.DataFrame, target: str) -> list[dict[str, Any]]:
    top = scores[scores.target == target].sort_values(["score", "user_id"], ascending=[False, True]).head(MOST_AT_RISK)
    return [
        {"user_id": row.user_id, "score": float(row.score), "reasons": [dict(reason) for reason in row.reasons]}
        for row in top.itertuples(index=False)
    ]


def _print_groups(told: Mapping[str, Any], key: str, first: str, second: str, console: Console, currency: str) -> None:
    targets = [row["target"] for row in told["targets"]]
    table = plain_table(f"{key.capitalize()}: users, and mean score per target")
    widest = max(len(str(row[first])) for row in told[key]) if told[key] else None
    table.add_column(first, min_width=widest, no_wrap=True)
    table.add_column(second)
    for name in ("users", *targets):
        table.add_column(name, justify="right")
    for row in told[key]:
        label = "–" if row[first] is None else str(row[first])
        means = [_score(row["mean_scores"][target], target, told, currency) for target in targets]
        table.add_row(label, row[second], f"{row['users']:,}", *means)
    console.print(table)


def _score(value: float | None, target: str, told: Mapping[str, Any], currency: str) -> str:
    if value is None:
        return "–"
    is_amount = next(row["is_amount"] for row in told["targets"] if row["target"] == target)
    return score_text(value, currency if is_amount else None)
