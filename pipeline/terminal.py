"""What every command shares: the terminal it talks to, dates as they are typed, and errors told as one message."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime

from rich.console import Console

from features.engines import no_room, removed_at_the_end
from features.errors import BeforehandError, ConfigError
from pipeline.progress import Narrator


def typed_date(text: str | None, option: str = "--as-of") -> date:
    """Read a date that was typed; today (UTC) when none was. Raises ConfigError when it is not a date, or out of range."""
    if text is None:
        return datetime.now(UTC).date()
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a date: write YYYY-MM-DD, such as 2018-01-01") from None
    if not 1990 <= day.year < 2200:
        raise ConfigError(f"{option} {text} is out of range: a date lies between 1990 and 2199")
    return day


def terminal(*, stderr: bool = False) -> Console:
    """Open stdout, or stderr, for printing."""
    # No markup anywhere: ids, paths and phrases are the user's, and may hold brackets.
    console = Console(stderr=stderr, markup=False)
    # A pipe has no width; tables cut to 80 columns would lose what they say.
    return console if console.is_terminal else Console(stderr=stderr, width=160, markup=False)


@contextmanager
def told_errors() -> Iterator[Narrator]:
    """Turn every error that a user can cause into one message and its exit code."""
    console = terminal(stderr=True)
    try:
        with removed_at_the_end():
            yield Narrator(console)
    except (KeyboardInterrupt, Exception) as error:
        told = error if isinstance(error, BeforehandError) else no_room(error)
        if told is not None:
            console.print(f"error ({type(told).__name__.removesuffix('Error').lower()}): ", end="", style="bold red")
            console.print(str(told), highlight=False, soft_wrap=True)
            sys.exit(told.exit_code)
        if not _is_interrupt(error):
            raise
        console.print("interrupted: the last complete night and the champions stand as they were")
        sys.exit(130)


def _is_interrupt(error: BaseException) -> bool:
    """Whether somebody pressed Ctrl-C; DuckDB makes a RuntimeError of it while a query runs."""
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, RuntimeError) and str(error) == "Query interrupted")
