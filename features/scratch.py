"""Scratch folders, each of one process alone: what is left of a process that was killed goes when the next one begins."""

from contextlib import suppress
from glob import escape
from pathlib import Path
from shutil import rmtree

from filelock import BaseFileLock as Lock
from filelock import FileLock, Timeout

_HELD = "held"


def claim(folder: Path) -> Lock:
    """Make a folder, whose name ends in a dash and what tells it apart, and hold it until it is left or the process ends.

    It is its owner's alone to read: there are events in it. Those beside it, of the same name otherwise, that nobody holds any
    more are removed.
    """
    # The same lock for one folder within a process.
    lock = FileLock(folder / _HELD, is_singleton=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    lock.acquire()
    for held in folder.parent.glob(f"{escape(folder.name.rpartition('-')[0])}-*/{_HELD}"):
        if held.parent != folder:
            with suppress(Timeout, OSError), FileLock(held, timeout=0) as left:
                leave(left)
    return lock


def leave(lock: Lock) -> None:
    """Remove a folder that is held."""
    rmtree(Path(lock.lock_file).parent, ignore_errors=True)
    lock.release(force=True)
