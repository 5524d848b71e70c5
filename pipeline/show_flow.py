"""Show flow: who went from which primary segment to which between two nights, and how long members stay."""

from collections.abc import Mapping, Sequence
from datetime import date
from math import isnan
from typing import Any

from rich.console import Console

from features.errors import ConfigError, DataError, listed
from pipeline.flow import DAYS, Flow, Retention, as_of_night, flow, retention
from pipeline.settings import Settings
from pipeline.show import UNKNOWN, Column, night_dates, plain_table, print_wide, shown_night
from pipeline.tables import memberships, read

_SHOWN_MOVES = 10


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


def stays_until(settings: Settings, day: date, *, days: Sequence[int] | None = DAYS) -> tuple[Retention, ...]:
    """Estimate retention (see `pipeline.flow`) as it was known on a night, of the segments in order of priority.

    Stays whose beginning nobody knows are left out. Segments that the config has no more come last.
    """
    ledger = as_of_night(memberships(settings.output), day)
    places = {segment.name: at for at, segment in enumerate(settings.segments)}
    found = retention(ledger, day, days=days, without_first=True)
    return tuple(sorted(found, key=lambda kept: (places.get(kept.segment, len(places)), kept.segment)))


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
        "stays": tell_stays(stays_until(settings, last)),
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
            table.add_row(
                move["from"],
                move["to"],
                f"{move['users']:,}",
                f"{move['users'] / were[move['from']]:.1%} of {were[move['from']]:,}",
            )
        console.print(table)
    print_stays(told["stays"], console)


def print_stays(stays: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print retention: the share still in after so many days, its interval, and how many stays were watched so long."""
    watched = [row for row in stays if row["stays"]]
    left_out = sum(row["left_out"] for row in stays)
    if watched:
        columns: list[Column] = [(name, [f"{row[name]:,}" for row in watched]) for name in ("stays", "ended")]
        unknown: list[int] = []
        for at, found in enumerate(watched[0]["after"]):
            cells = [_stay_text(row["after"][at]) for row in watched]
            if set(cells) == {UNKNOWN}:
                unknown.append(found["days"])
                continue
            columns.append((f"{found['days']} days", cells))
        title = "How long members stay: share still in after so many days (Kaplan-Meier), 95% interval, stays watched so long"
        print_wide(console, title, ("segment", [row["segment"] for row in watched]), columns)
        if unknown:
            console.print(f"No stay has been watched for {min(unknown)} days yet.", highlight=False)
    if left_out:
        console.print(
            f"Of {left_out:,} stays that began on a segment's first night nobody knows when they really began: "
            f"{'they are left out' if watched else 'how long members stay shows once others enter'}.\n",
            highlight=False,
        )


def _print_matrix(told: Mapping[str, Any], console: Console) -> None:
    """Print the matrix; its columns have numbers, which its rows explain, since names would not fit."""
    numbers = {name: str(at) for at, name in enumerate(dict.fromkeys([*told["before"], *told["after"]]), start=1)}
    rows = [at for at, counts in enumerate(told["counts"]) if sum(counts)]
    columns = [at for at in range(len(told["after"])) if any(counts[at] for counts in told["counts"])]
    named = {told["before"][row] for row in rows}
    cells: list[Column] = []
    for at in columns:
        name, counts = told["after"][at], [told["counts"][row][at] for row in rows]
        # What has no row of its own is named.
        shown = numbers[name] if name in named else name
        cells.append((shown, [*(f"{count:,}" if count else "·" for count in counts), f"{sum(counts):,}"]))
    cells.append(("all", [*(f"{sum(told['counts'][row]):,}" for row in rows), f"{told['users']:,}"]))
    labels = [*(f"{numbers[told['before'][row]]:>2} {told['before'][row]}" for row in rows), "   all"]
    print_wide(console, "Rows: where users were; columns: where they are now, by the rows' numbers", ("", labels), cells)


def _stay_text(found: Mapping[str, Any]) -> str:
    if found["share"] is None:
        return UNKNOWN
    return f"{found['share']:.0%} ({found['low']:.0%}–{found['high']:.0%}) {found['at_risk']:,}"


def _known(value: float) -> float | None:
    return None if isnan(value) else float(value)
