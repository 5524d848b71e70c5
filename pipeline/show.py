"""What all that is shown shares: which night is meant, tables that fit the terminal, and mean scores of groups."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from features.errors import DataError, listed
from pipeline.recorded import recorded_runs
from pipeline.settings import Settings

# A column: its name, and a cell for each row.
Column = tuple[str, Sequence[str]]
UNKNOWN = "–"
# Amounts below this are shown with cents: a mean of $0.38 is not nothing.
_WITH_CENTS = 10.0
# Between two columns of a plain table, and at its edges.
_GAP, _EDGES = 3, 2
# The least width of a column that may be broken into lines.
_NOTE_WIDTH = 14


def night_dates(settings: Settings) -> list[date]:
    """Give the dates of all recorded nights in order, at least one; raises DataError when there is none."""
    dates = list(recorded_runs(settings))
    if not dates:
        raise DataError(f"no night has been written below {settings.output} yet: run `beforehand score --as-of DATE`")
    return dates


def shown_night(settings: Settings, as_of: date | None) -> date:
    """Give the night to show: that of a date, or the latest.

    Raises DataError when there is no such night, and names those there are.
    """
    dates = night_dates(settings)
    if as_of is not None and as_of not in dates:
        raise DataError(f"there is no night of {as_of} below {settings.output}: there are {listed(reversed(dates))}")
    return as_of or dates[-1]


def plain_table(title: str | None = None) -> Table:
    """Make a plain table, with its title on the left."""
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def print_wide(console: Console, title: str, first: Column, columns: Sequence[Column], *, notes: Column | None = None) -> None:
    """Print a table of numbers under each other, in as many parts as the terminal's width asks for, so that no cell is cut off.

    `first` names the rows and is in every part; `notes` are texts that may be broken into lines, and are in the first part only.
    """
    name_width = min(_width(first), console.width // 2)
    note_width = 0 if notes is None else max([_NOTE_WIDTH, *(cell_len(word) for cell in notes[1] for word in cell.split())])
    rest = list(columns)
    while rest or notes:
        free = console.width - _EDGES - name_width - (0 if notes is None else _GAP + note_width)
        taken: list[Column] = []
        while rest and (not taken or free >= _GAP + _width(rest[0])):
            taken.append(rest.pop(0))
            free -= _GAP + _width(taken[-1])
        # Printed beside the table, which would break it to its own width.
        console.print(title, style="bold", highlight=False)
        table = plain_table()
        table.add_column(first[0], width=name_width)
        if notes is not None:
            table.add_column(notes[0], min_width=note_width)
        for column in taken:
            table.add_column(column[0], justify="right", width=_width(column))
        shown = [first, *([] if notes is None else [notes]), *taken]
        for cells in zip(*(cells for _, cells in shown), strict=True):
            table.add_row(*cells)
        console.print(table)
        title, notes = "Continued", None


def count_text(value: int | None) -> str:
    """Write a count, or a dash where it is not known."""
    return UNKNOWN if value is None else f"{value:,}"


def score_text(value: float, currency: str | None) -> str:
    """Write a score: an amount in its currency, small ones with cents, or a probability as a percentage where there is none.

    >>> score_text(0.3372, None), score_text(1234.5, "€"), score_text(0.376, "€")
    ('33.7%', '€1,234', '€0.38')
    """
    if currency is None:
        return f"{value:.1%}"
    return f"{currency}{value:,.2f}" if abs(value) < _WITH_CENTS else f"{currency}{value:,.0f}"


def asked_targets(settings: Settings, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Name the targets that a night has scores of, given its columns; one that came into the config later was not asked then."""
    return [
        {"target": target.name, "meaning": target.meaning, "is_amount": target.kind == "value"}
        for target in settings.targets
        if f"{target.name}_score" in columns
    ]


def mean_scores(rows: pd.DataFrame, targets: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give the mean score of some users of a night by target, and of how many it is; null where none of them has a score."""
    scores = {target["target"]: rows[f"{target['target']}_score"].dropna() for target in targets}
    return {name: {"mean": float(own.mean()) if len(own) else None, "users": len(own)} for name, own in scores.items()}


def score_columns(
    targets: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Mapping[str, Any]]], currency: str
) -> list[Column]:
    """Make a column per target of the `mean_scores` of groups."""
    return [
        (target["target"], [_mean_text(means[target["target"]], currency if target["is_amount"] else None) for means in groups])
        for target in targets
    ]


def _mean_text(found: Mapping[str, Any], currency: str | None) -> str:
    return UNKNOWN if found["mean"] is None else f"{score_text(found['mean'], currency)} of {found['users']:,}"


def _width(column: Column) -> int:
    """Give the width that a column needs: that of its longest cell, or of the longest word of its name."""
    return max(map(cell_len, (*column[0].split(), *column[1])), default=1)
