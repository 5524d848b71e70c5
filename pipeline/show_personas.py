"""Show personas: how many users behave alike, at which stage of their journey they are, and what is expected of them."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd
from rich.console import Console

from pipeline.columns import STAGE
from pipeline.settings import Settings
from pipeline.show import UNKNOWN, asked_targets, mean_scores, print_wide, score_columns, shown_night
from pipeline.tables import read

_SHOWN_STAGES = 4


def tell_personas(settings: Settings, as_of: date | None) -> dict[str, Any]:
    """Gather what `show personas` tells of a night, in plain values and without users: a row per persona, by number.

    The last row, of persona null, is of whoever has none. Raises DataError when there is no such night.
    """
    day = shown_night(settings, as_of)
    wanted = {"persona", "persona_name", STAGE, *(f"{target.name}_score" for target in settings.targets)}
    night = read(settings.output, "segments", day, columns=wanted).to_pandas()
    targets = asked_targets(settings, list(night))
    return {
        "as_of": day.isoformat(),
        "users": len(night),
        "targets": targets,
        "personas": [
            {
                **persona_label(rows),
                "users": len(rows),
                "share": len(rows) / len(night),
                "mean_scores": mean_scores(rows, targets),
                "journey_stages": _shares(rows[STAGE]) if STAGE in rows else {},
            }
            for _, rows in night.groupby("persona", dropna=False)
        ],
    }


def persona_label(rows: pd.DataFrame) -> dict[str, Any]:
    """Give number and name of the persona that all these users have; both null where they have none."""
    number, name = rows.persona.iloc[0], rows.persona_name.iloc[0]
    return {"persona": None, "name": None} if pd.isna(number) else {"persona": int(number), "name": str(name)}


def persona_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the personas that rows tell of.

    >>> persona_names([{"persona": 0, "name": "evening buyers"}, {"persona": None, "name": None}])
    ['0 evening buyers', 'not known']
    """
    return ["not known" if row["persona"] is None else f"{row['persona']} {row['name']}" for row in rows]


def print_personas(told: Mapping[str, Any], console: Console, *, currency: str) -> None:
    """Print what `tell_personas` gathered."""
    rows = told["personas"]
    console.print(f"\nPersonas on the night of {told['as_of']}: {told['users']:,} users\n", highlight=False)
    names = persona_names(rows)
    print_wide(
        console,
        "Users, and the stages of their journey",
        ("persona", names),
        [("users", [f"{row['users']:,}" for row in rows]), ("share", [f"{row['share']:.1%}" for row in rows])],
        notes=("journey stages", [_shares_text(row["journey_stages"]) for row in rows]),
    )
    means = score_columns(told["targets"], [row["mean_scores"] for row in rows], currency)
    print_wide(console, "Mean score, and of how many users", ("persona", names), means)


def _shares(values: pd.Series) -> dict[str, float]:
    return {str(name): float(share) for name, share in values.value_counts(normalize=True).items()}


def _shares_text(shares: Mapping[str, float]) -> str:
    shown = list(shares.items())[:_SHOWN_STAGES]
    rest = sum(list(shares.values())[_SHOWN_STAGES:])
    return ", ".join([*(f"{name} {share:.0%}" for name, share in shown), *([f"others {rest:.0%}"] if rest else [])]) or UNKNOWN
