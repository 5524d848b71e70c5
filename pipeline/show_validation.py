"""Show what validate found: what would be read, how many users meet each rule, and what is to be looked at."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from features.catalogue import how_many
from pipeline.settings import Settings
from pipeline.show import plain_table

_READ = ("as_of", "events", "users", "rejected", "later", "first_event", "history_from", "last_event", "features")
_QUIET = "no warnings: every rule is met by somebody, none of a segment by everybody, and no two segments are the same people"
_PARTS = ("when", "consent", "enter", "leave")


def print_validation(told: Mapping[str, Any], settings: Settings, console: Console) -> None:
    """Print a `Validation`, as it is told, for people."""
    console.print("\n".join(f"{name.replace('_', ' '):<12} {told[name]}" for name in _READ), highlight=False)
    if told["targets"]:
        console.print()
        console.print(_targets(told["targets"], told["sampled_users"]))
    if told["rules"]:
        console.print()
        table = plain_table(f"Rules: how many of {told['users']:,} users meet them tonight")
        for name in ("key", "name", "meet its rule", "meet its leave", "members"):
            table.add_column(name, justify="left" if name in ("key", "name") else "right")
        for row in _rows(told, settings):
            table.add_row(*row)
        console.print(table)
    for warning in told["warnings"]:
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    if told["unchecked"]:
        many = f"{how_many(len(told['unchecked']), 'rule')}, which read scores or personas, themselves or through a stage or tier"
        console.print(f"not checked: {many}: {told['unchecked_because']}", highlight=False, soft_wrap=True)
        console.print(f"  {', '.join(told['unchecked'])}", highlight=False, soft_wrap=True)
    elif told["rules"] and not told["warnings"]:
        console.print(_QUIET, highlight=False, soft_wrap=True)


def _targets(targets: Mapping[str, Mapping[str, Any]], sampled: int | None) -> Table:
    """Give what a training would learn from: a label for each user who was asked and cutoff whose horizon has elapsed."""
    of = "" if sampled is None else f": a sample of {sampled:,} users"
    table = plain_table(f"Targets: what a training would learn from{of}")
    for name in ("name", "asked tonight", "cutoffs", "first", "last", "tests", "labels", "above 0", "mean"):
        table.add_column(name, justify="left" if name == "name" else "right")
    for name, told in targets.items():
        counts = (f"{told[count]:,}" for count in ("tests", "labels", "above_zero"))
        dates = (told["first_cutoff"] or "", told["last_cutoff"] or "")
        table.add_row(name, f"{told['asked_tonight']:,}", f"{told['cutoffs']:,}", *dates, *counts, _mean(told))
    return table


def _mean(told: Mapping[str, Any]) -> str:
    mean = told["mean"]
    if mean is None:
        return ""
    if told["is_amount"]:
        return f"{mean:,.2f}"
    # One in ten thousand is not none.
    return f"{mean:.1%}" if mean == 0 or mean >= 0.001 else f"{100 * mean:.2g}%"


def _rows(told: Mapping[str, Any], settings: Settings) -> Iterator[tuple[str, ...]]:
    rules = told["rules"]
    named = {
        "journey_stages": [stage.name for stage in settings.journey_stages],
        "loyalty_tiers": [tier.name for tier in settings.loyalty_tiers],
        "plays.channels": [channel.name for channel in settings.plays.channels],
        "segments": [segment.name for segment in settings.segments],
    }
    for key, names in named.items():
        for at, name in enumerate(names):
            place = f"{key}.{at}"
            met, *leave = (_count(rules[f"{place}.{part}"]) for part in _PARTS if f"{place}.{part}" in rules)
            yield place, name, met, *(leave or [""]), _count(told["members"][place]) if place in told["members"] else ""


def _count(users: int | None) -> str:
    return "not checked" if users is None else f"{users:,}"
