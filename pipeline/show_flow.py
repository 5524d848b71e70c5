"""Show flow: who went from which primary segment to which between two nights, and how long members stay."""

from collections.abc import Mapping, Sequence
from datetime import date
from math import isnan
from typing import Any

import pyarrow as pa
from rich.console import Console

from features.errors import ConfigError, DataError, listed
from pipeline.flow import Flow, Retention, as_of_night, flow, retention
from pipeline.settings import Settings
from pipeline.show import night_dates, plain_table, shown_night
from pipeline.tables import memberships, read

_SHOWN_MOVES = 10
_CELL, _NAMES = 9, 30


def flow_between(settings: Settings, start: date | None, stop: date | None) -> tuple[Flow, date, date]:
    """Give the flow between two recorded nights, and the nights: by default the two latest, or the one before `stop`.

    Raises DataError when there is no such night or only one, ConfigError when they are not in order.
    """
    dates = night_dates(settings)
    last = shown_night(settings, stop)
    earlier = [day for day in dates if day < last]
    if start is None and not earlier:
        raise DataError(
            f"there is no night before that of {last} to compare with: there {'is' if len(dates) == 1 else 'are'} "
            f"{listed(reversed(dates))}; run `beforehand score --as-of DATE` for another"
        )
    first = earlier[-1] if start is None else shown_night(settings, start)
    if first >= last:
        raise ConfigError(f"--from {first} is not before --to {last}: give the earlier night first")
    columns = {"user_id", "primary_segment"}
    before, after = (read(settings.output, "segments", day, columns=columns) for day in (first, last))
    return flow(before, after, order=[segment.name for segment in settings.segments]), first, last


def ledger_of(settings: Settings, day: date) -> pa.Table:
    """Give the ledger as it stood on a night."""
    return as_of_night(memberships(settings.output), day)


def tell_flow(settings: Settings, start: date | None, stop: date | None) -> dict[str, Any]:
    """Gather what `show flow` tells, in plain values and without users; see `flow_between` for the nights and errors."""
    found, first, last = flow_between(settings, start, stop)
    return {
        "from": first.isoformat(),
        "to": last.isoformat(),
        "users": int(found.counts.sum()),
        "before": list(found.before),
        "after": list(found.after),
        "counts": found.counts.tolist(),
        "moves": [{"from": one, "to": other, "users": users} for one, other, users in found.moves()],
        "stays": tell_stays(retention(ledger_of(settings, last), last, without_first=True)),
    }


def tell_stays(found: Sequence[Retention]) -> list[dict[str, Any]]:
    """Tell retention in plain values: a row per segment, shares null where no stay was watched so long."""
    return [
        {
            "segment": kept.segment,
            "stays": kept.stays,
            "ended": kept.ended,
            "left_out": kept.left_out,
            "after": [
                {"days": int(day), "at_risk": int(watched), "share": _known(share), "low": _known(low), "high": _known(high)}
                for day, watched, share, low, high in zip(kept.days, kept.at_risk, kept.share, kept.low, kept.high, strict=True)
            ],
        }
        for kept in found
    ]


def print_flow(told: Mapping[str, Any], console: Console) -> None:
    """Print what `tell_flow` gathered."""
    moved = sum(move["users"] for move in told["moves"])
    console.print(
        f"\nPrimary segments from the night of {told['from']} to {told['to']}: {moved:,} of {told['users']:,} users moved\n",
        highlight=False,
    )
    _print_matrix(told, console)
    if told["moves"]:
        table = plain_table(f"Largest moves ({min(_SHOWN_MOVES, len(told['moves']))} of {len(told['moves'])})")
        for name in ("from", "to"):
            table.add_column(name, no_wrap=True)
        for name in ("users", "of those who were there"):
            table.add_column(name, justify="right")
        were = dict(zip(told["before"], (sum(row) for row in told["counts"]), strict=True))
        for move in told["moves"][:_SHOWN_MOVES]:
            table.add_row(move["from"], move["to"], f"{move['users']:,}", f"{move['users'] / were[move['from']]:.1%}")
        console.print(table)
    print_stays(told["stays"], console)


def print_stays(stays: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print retention: the share still in after so many days, its interval, and how many stays were watched so long."""
    if not stays:
        return
    watched = [row for row in stays if row["stays"]]
    left_out = sum(row["left_out"] for row in stays)
    if watched:
        table = plain_table("How long members stay: share still in after so many days, 95 % interval, stays watched so long")
        table.add_column("segment", no_wrap=True)
        for name in ("stays", "ended", *(f"{found['days']} days" for found in watched[0]["after"])):
            table.add_column(name, justify="right")
        for row in watched:
            table.add_row(row["segment"], f"{row['stays']:,}", f"{row['ended']:,}", *map(_stay_text, row["after"]))
        console.print(table)
    if left_out:
        console.print(
            f"Of {left_out:,} stays that began on a segment's first night nobody knows when they really began: "
            f"{'they are left out' if watched else 'how long members stay shows once others enter'}\n",
            highlight=False,
        )


def _print_matrix(told: Mapping[str, Any], console: Console) -> None:
    """Print the matrix; its columns have numbers, which its rows explain, since names would not fit."""
    numbers = {name: str(at) for at, name in enumerate(dict.fromkeys([*told["before"], *told["after"]]), start=1)}
    rows = [at for at, counts in enumerate(told["counts"]) if sum(counts)]
    columns = [at for at in range(len(told["after"])) if any(counts[at] for counts in told["counts"])]
    most = max(1, (console.width - _NAMES) // _CELL)
    for start in range(0, len(columns), most):
        table = plain_table(
            "Rows: where users were; columns: where they are now, by the rows' numbers" if start == 0 else "Continued"
        )
        table.add_column("", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        shown = columns[start : start + most]
        is_last = start + most >= len(columns)
        for column in shown:
            name = told["after"][column]
            # What has no row of its own is named.
            has_row = any(told["before"][row] == name for row in rows)
            table.add_column(numbers[name] if has_row else name, justify="right")
        if is_last:
            table.add_column("all", justify="right")
        for row in rows:
            counts = told["counts"][row]
            cells = [f"{counts[column]:,}" if counts[column] else "·" for column in shown]
            everybody = [f"{sum(counts):,}"] if is_last else []
            table.add_row(numbers[told["before"][row]], told["before"][row], *cells, *everybody)
        totals = [f"{sum(counts[column] for counts in told['counts']):,}" for column in shown]
        table.add_row("", "all", *totals, *([f"{told['users']:,}"] if is_last else []))
        console.print(table)


def _stay_text(found: Mapping[str, Any]) -> str:
    if found["share"] is None:
        return "–"
    return f"{found['share']:.0%} ({found['low']:.0%}–{found['high']:.0%}) {found['at_risk']:,}"


def _known(value: float) -> float | None:
    return None if isnan(value) else float(value)
