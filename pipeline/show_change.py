"""Show why a segment changed: the parts of the difference, and what each of them means."""

from rich.console import Console

from pipeline.change import Change
from pipeline.show import plain_table

_MEANING = {
    "new users": "first seen since, and members at the end",
    "gone users": "members at the beginning, no longer known",
    "time passing": "had nobody done anything: recency grew, windows moved on",
    "new behaviour": "what users did, seen by the models and rules of the first night",
    "models": "models and personas put in charge since",
    "rules or config": "rules, stays, tiers and targets changed since",
}


def print_change(change: Change, console: Console) -> None:
    """Print a change: sizes, parts that add up to the difference, and the models that changed."""
    table = plain_table(f"{change.segment}: why its size changed from {change.first} to {change.last}")
    for name in ("part", "members", "what it is"):
        table.add_column(name, justify="right" if name == "members" else "left")
    table.add_row(f"members on {change.first}", f"{change.before:,}", "")
    for name, number in change.parts.items():
        table.add_row(f"  {name}", f"{number:+,}", _MEANING[name])
    table.add_row(f"members on {change.last}", f"{change.after:,}", "")
    console.print(table)
    nights = "1 recorded night" if change.nights == 1 else f"{change.nights} recorded nights"
    console.print(
        f"Lived through again: {nights}. Each part is what changes when it alone is added to those above it.", highlight=False
    )
    for name, (was, now) in sorted(change.models.items()):
        console.print(f"  {name}: version {was} became {now}", highlight=False)
