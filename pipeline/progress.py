"""Progress on stderr: a bar while a step runs, one line when it is done."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

# How often a log file, which has no bar, hears how far a step has come.
_EVERY = 60.0

Made = TypeVar("Made")


class Step:
    """One step under way: `advance` moves its bar, `note` says what came of it."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        """Wrap a task of a rich progress display."""
        self._bar, self._task = bar, task
        self._told = time.monotonic()
        self.said = ""

    def advance(self) -> None:
        """Move the bar by one; where there is none, say once a minute how far it would be."""
        self._bar.advance(self._task)
        if self._bar.disable and time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            task = self._bar.tasks[self._task]
            self._bar.console.print(f"  {task.description:<24} {task.completed:g} of {task.total:g}", highlight=False)

    def note(self, text: str) -> None:
        """Say what came of the step, on the line that stays."""
        self.said = text


class Narrator:
    """Tells a person on stderr what is happening; results go to stdout and are not its business."""

    def __init__(self, console: Console) -> None:
        """Write to `console`, which should be on stderr."""
        self.console = console

    @contextmanager
    def step(self, doing: str, *, total: int | None = None) -> Iterator[Step]:
        """Show a step while it runs: a spinner, and a bar where `total` is known.

        A log file gets the final line, and of a long step every minute how far it is.
        """
        columns = [SpinnerColumn(), TextColumn("{task.description}")]
        columns += [BarColumn(bar_width=30), MofNCompleteColumn()] if total else []
        started = time.monotonic()
        bar = Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True, disable=not self.console.is_terminal)
        with bar:
            step = Step(bar, bar.add_task(doing, total=total))
            yield step
        took = time.monotonic() - started
        self.console.print(f"  {doing:<24} {step.said}  {took:.1f} s", highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True)


def side_by_side(calls: Iterable[Callable[[], Made]], step: Step, *, jobs: int) -> Iterator[Made]:
    """Make calls in so many threads and give what they return, in their order; the step advances with each.

    Threads, not processes: LightGBM lets go of the interpreter, and nothing is copied.
    """
    for made in Parallel(n_jobs=jobs, prefer="threads", return_as="generator")(delayed(call)() for call in calls):
        step.advance()
        yield made
