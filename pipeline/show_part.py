"""Show a part of what the tables know: what was asked for on the command line is checked, gathered, and printed or drawn."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from features.errors import ConfigError, StoreError, did_you_mean
from pipeline.flow_figures import retention_figure, sankey
from pipeline.settings import Settings
from pipeline.show import shown_night
from pipeline.show_flow import flow_between, print_flow, stays_until, tell_flow
from pipeline.show_personas import print_personas, tell_personas
from pipeline.show_segments import print_segments, tell_segments
from pipeline.show_story import print_user
from pipeline.show_user import tell_user

PARTS = ("segments", "personas", "user", "flow")
# The kinds of picture that are written, by the ending of the file's name.
_PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Asked:
    """What `beforehand show` was asked for: a part, and the options that were given."""

    part: str
    user: str | None = None
    as_of: date | None = None
    start: date | None = None
    stop: date | None = None
    figure: Path | None = None


def check_asked(asked: Asked) -> None:
    """Raise ConfigError when there is no such part, or it takes no such option; all that is wrong is told at once."""
    if asked.part not in PARTS:
        raise ConfigError(f"show {asked.part!r} is not a part that can be shown: {did_you_mean(asked.part, PARTS)}")
    problems = []
    if asked.part == "user" and not asked.user:
        problems.append("show user needs the id of a user: `beforehand show user ID`")
    if asked.part != "user" and asked.user is not None:
        problems.append(f"show {asked.part} takes no id: `beforehand show user ID` tells of one user")
    if asked.part != "flow" and (asked.start or asked.stop):
        problems.append("--from and --to are for `show flow`; a single night is given with --as-of")
    if asked.part == "flow" and asked.as_of:
        problems.append("show flow is between two nights: give --from and --to instead of --as-of")
    if asked.figure and asked.part not in ("flow", "segments"):
        problems.append("--figure draws `show flow` (who went where) or `show segments` (how long members stay)")
    if asked.figure and asked.figure.suffix.lower() not in _PICTURES:
        problems.append(
            f"--figure {str(asked.figure)!r} ends in none of {', '.join(_PICTURES)}: the kinds of picture that are drawn"
        )
    if problems:
        raise ConfigError("\n".join(problems))


def show_part(asked: Asked, settings: Settings, console: Console, *, as_json: bool) -> None:
    """Print a part, as tables or JSON, and draw it where a figure is asked for.

    What is asked has passed `check_asked`. Raises DataError for nights and users that are not there, ConfigError for nights that
    are not in order, StoreError when the figure cannot be written.
    """
    currency = settings.currency
    match asked.part:
        case "segments":
            told = tell_segments(settings, asked.as_of)
        case "personas":
            told = tell_personas(settings, asked.as_of)
        case "user":
            told = tell_user(settings, asked.user or "", asked.as_of)
        case _:
            told = tell_flow(settings, asked.start, asked.stop)
    if asked.figure:
        _write(_drawn(asked, settings), asked.figure)
        told["figure"] = str(asked.figure)
    if as_json:
        console.print_json(json.dumps(told))
        return
    match asked.part:
        case "segments":
            print_segments(told, console, currency=currency)
        case "personas":
            print_personas(told, console, currency=currency)
        case "user":
            print_user(told, console, currency=currency)
        case _:
            print_flow(told, console)
    if asked.figure:
        console.print(f"drawn: {asked.figure}", highlight=False, soft_wrap=True)


def _drawn(asked: Asked, settings: Settings) -> Figure:
    if asked.part == "flow":
        return sankey(*flow_between(settings, asked.start, asked.stop))
    day = shown_night(settings, asked.as_of)
    return retention_figure(stays_until(settings, day, days=None), day)


def _write(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise StoreError(f"cannot write the figure {path}: {error.strerror}; give --figure a folder that is there") from None
