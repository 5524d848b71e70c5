"""Show why a segment changed: the parts of the difference, and what each of them means."""

from rich.console import Console

from pipeline.change import Change
from pipeline.show import plain_table

_MEANING = {
    "new users": "first seen since, and members at the end",
    "gone users": "members at the beginning, no longer known",
    "time passing": "as if nobody had acted since: recency grows, windows move on",
    "new behaviour": "what users did, seen by the models and rules of the first night",
    "models": "models and personas put in charge since",
    "rules or config": "rules, stays, tiers and targets changed since",
}


def print_change(change: Change, console: Console) -> None:
    """Print a change: sizes, parts that add up to the difference, and which models and keys of the config turned."""
    table = plain_table(f"{change.segment}: why its size changed from {change.first} to {change.last}")
    for name in ("part", "members", "what it is"):
        table.add_column(name, justify="right" if name == "members" else "left")
    table.add_row(f"members on {change.first}", f"{change.before:,}", "")
    for name, number in change.parts.items():
        table.add_row(f"  {name}", f"{number:+,}" if number else "0", _MEANING[name])
    more = change.after - change.before
    said = f"{abs(more):,} {'more' if more > 0 else 'fewer'} than" if more else "as many as"
    table.add_row(f"members on {change.last}", f"{change.after:,}", f"{said} on {change.first}")
    console.print(table)
    nights = "1 night" if change.nights == 1 else f"{change.nights} nights"
    lived = f"{nights} lived through again. Each part is what changes when it alone is added to those above it."
    console.print(lived, highlight=False)
    if change.turned:
        console.print("\nWhat turned on the way:", highlight=False)
    for one in change.turned:
        console.print(f"  {one.night}  {one.what}: {_said(one.was)} became {_said(one.now)}", highlight=False, soft_wrap=True)


def _said(value: object) -> str:
    return "nothing" if value is None else str(value)
