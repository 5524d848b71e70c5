"""What a training says of its personas: the choice of their number, and what became of the former ones."""

from collections.abc import Iterator, Mapping

from models.persona_matching import Change, Matching
from models.personas import Personas

PERSONA_OUTPUTS = {"persona": "long", "persona_name": "string", "persona_typicality": "double"}
_MEASURES = ("silhouette", "stability", "kept", "smallest")


def persona_metrics(personas: Personas, matching: Matching | None) -> dict[str, float]:
    """Give the curve over the numbers of personas that were tried, and the share of users who keep theirs."""
    found = {f"{name}_k{one.k}": value for one in personas.tried for name in _MEASURES if (value := getattr(one, name)) is not None}
    return found if matching is None else found | {"users_who_keep_theirs": matching.kept}


def change_params(matching: Matching | None) -> dict[str, str]:
    """Give the ids of the personas that are new, split off, merged or gone, by kind; none is `none`."""
    changes = () if matching is None else matching.changes
    return {
        f"personas_{kind}": " ".join(str(change.persona) for change in changes if change.kind == kind) or "none"
        for kind in ("new", "split", "merged", "gone")
    }


def told_changes(personas: Personas, former: Personas | None, matching: Matching | None) -> Iterator[str]:
    """Say what became of the former personas, a line each; nothing where there were none."""
    if former is None or matching is None:
        return
    names = dict(zip(former.ids, former.names, strict=True)) | dict(zip(personas.ids, personas.names, strict=True))
    yield f"{matching.kept:.1%} of the users keep their persona"
    yield from (_told(change, names) for change in matching.changes)


def persona_page(personas: Personas, former: Personas | None, matching: Matching | None) -> str:
    """Write a page in Markdown: who the personas are, how their number was chosen, and what changed."""
    rows = zip(personas.ids, personas.names, personas.shares, personas.descriptions, strict=True)
    lines = ["# Personas", "", f"{len(personas.ids)} personas: {personas.why}.", ""]
    lines += ["| id | name | users | what sets it apart |", "|---|---|---|---|"]
    lines += [f"| {number} | {name} | {share:.1%} | {line} |" for number, name, share, line in rows]
    lines += ["", "## Numbers that were tried", "", f"| k | {' | '.join(_MEASURES)} |", "|---|---|---|---|---|"]
    for one in personas.tried:
        values = [getattr(one, name) for name in _MEASURES]
        lines.append(f"| {one.k} | {' | '.join('–' if value is None else f'{value:.3f}' for value in values)} |")
    lines += ["", "## Since the last training", ""]
    changes = [f"- {line}" for line in told_changes(personas, former, matching)]
    return "\n".join([*lines, *(changes or ["There were no personas before."]), ""])


def _told(change: Change, names: Mapping[int, str]) -> str:
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
