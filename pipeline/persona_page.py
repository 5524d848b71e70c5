"""What a training says of its personas: the choice of their number, and what became of the former ones."""

from collections.abc import Iterator, Mapping
from typing import get_args

from models.persona_choice import Tried
from models.persona_matching import Change, Kind, Matching
from models.personas import Personas

PERSONA_OUTPUTS = {"persona": "long", "persona_name": "string", "persona_typicality": "double"}
_MEASURES = ("silhouette", "stability", "kept", "smallest")
# Below it, groups overlap so much that they are a way to sort people rather than kinds of people (Kaufman & Rousseeuw, 1990).
_APART = 0.25


def persona_metrics(personas: Personas, matching: Matching | None) -> dict[str, float]:
    """Give the curve over the numbers of personas that were tried, and the share of users who keep theirs."""
    found = {f"{name}_k{one.k}": value for one in personas.tried for name in _MEASURES if (value := getattr(one, name)) is not None}
    return found if matching is None else found | {"users_who_keep_theirs": matching.kept}


def change_params(matching: Matching | None) -> dict[str, str]:
    """Give the ids of the personas that are new, split off, merged, gone or renamed, by kind; none is `none`."""
    changes = () if matching is None else matching.changes
    return {
        f"personas_{kind}": " ".join(str(change.persona) for change in changes if change.kind == kind) or "none"
        for kind in get_args(Kind)
    }


def told_changes(personas: Personas, former: Personas | None, matching: Matching | None) -> Iterator[str]:
    """Say what became of the former personas, a line each; nothing where there were none."""
    if former is None or matching is None:
        return
    before, now = (dict(zip(each.ids, each.names, strict=True)) for each in (former, personas))
    yield f"{matching.kept:.1%} of the users keep their persona"
    yield from (_told(change, before, before | now) for change in matching.changes)


def persona_page(personas: Personas, former: Personas | None, matching: Matching | None, *, users: int) -> str:
    """Write a page in Markdown: who the personas of so many `users` are, how their number was chosen, and what changed."""
    changes = [f"- {line}" for line in told_changes(personas, former, matching)]
    return "\n".join(
        [
            "# Personas",
            "",
            f"{len(personas.ids)} groups of users who behave alike, found among the {users:,} users whose habits are known. What "
            "sets a persona apart is its median user beside everybody's (`typically`). Pictures: `figures/persona_profile.png` "
            "(what each is like), `figures/persona_map.png` (where they lie), `figures/persona_count.png` (why there are so many).",
            "",
            *_table("id", "name", "users", "what sets it apart"),
            *(f"| {number} | {name} | {share:.1%} | {line} |" for number, name, share, line in _told_each(personas)),
            "",
            "An id stays with the people when personas are trained again, and so does a name as long as it is true; "
            "`personas.names` in the config gives names of your own, by id.",
            "",
            "## How many",
            "",
            f"{len(personas.ids)}: {personas.why}.",
            "",
            *_table("personas", "silhouette", "adjusted Rand index", "users who keep their persona", "smallest persona"),
            *map(_row, personas.tried),
            "",
            *_reading(personas),
            "",
            "## Since the last training",
            "",
            *(changes or ["There were no personas before."]),
            "",
        ]
    )


def _told_each(personas: Personas) -> Iterator[tuple[int, str, float, str]]:
    return zip(personas.ids, personas.names, personas.shares, personas.descriptions, strict=True)


def _table(*columns: str) -> tuple[str, str]:
    return f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"


def _row(one: Tried) -> str:
    shares = ["–" if value is None else f"{value:.1%}" for value in (one.kept, one.smallest)]
    stability = "–" if one.stability is None else f"{one.stability:.2f}"
    return f"| {one.k} | {one.silhouette:.3f} | {stability} | {' | '.join(shares)} |"


def _reading(personas: Personas) -> Iterator[str]:
    """Say what the columns mean, and how much a persona tells of a user."""
    yield "- silhouette: how much nearer users lie to their own persona than to the next, 0 no nearer, 1 far apart"
    yield "- adjusted Rand index: how far fits from scratch to resampled users agree, 0 as chance would, 1 fully"
    yield "- users who keep their persona: when it is fitted again to resampled users, from where it was"
    silhouette = max((one.silhouette for one in personas.tried if one.k == len(personas.ids)), default=1.0)
    if silhouette < _APART:
        yield ""
        yield (
            f"A silhouette of {silhouette:.2f} is low: these personas have no gaps between them. Read them as names for parts of "
            "one crowd, and look at `persona_typicality` (1 is the most typical) before you treat somebody as one of them."
        )


def _told(change: Change, before: Mapping[int, str], names: Mapping[int, str]) -> str:
    own = f"persona {change.persona} ({names[change.persona]})"
    other = "" if change.other is None else f"{change.other} ({names[change.other]})"
    match change.kind:
        case "new":
            return f"{own} is new"
        case "split":
            return f"{own} split off from {other}: {change.share:.0%} of its users were there"
        case "merged":
            return f"{own} merged into {other}, where {change.share:.0%} of its users are now"
        case "gone":
            return f"{own} is gone: its users are in no one persona now"
        case "renamed":
            return f"{own} was called {before[change.persona]}, which is no longer true of it, or another's name now"
