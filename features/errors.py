"""One exception tree: every error a user can cause or meet, with the exit code it ends in."""

from collections.abc import Iterable
from difflib import get_close_matches


class BeforehandError(Exception):
    """Base of every error shown to a user: what failed, the value, what is allowed, what to do next."""

    exit_code = 1


class ConfigError(BeforehandError):
    """The configuration or the command line is wrong."""

    exit_code = 2


class DataError(BeforehandError):
    """The data that the configuration points at cannot be used."""

    exit_code = 3


class GateError(BeforehandError):
    """A gate refused to go on: too little history, one class only, no champion."""

    exit_code = 4


class StoreError(BeforehandError):
    """The tables or the model registry cannot be read or written now."""


class RoomError(BeforehandError):
    """There is too little memory or too little room on the disk."""


def first_line(error: BaseException) -> str:
    """Give the first line of what another library's error says, which is where the cause stands.

    >>> first_line(ValueError("no such file" + chr(10) + "look elsewhere"))
    'no such file'
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def listed(values: Iterable[object], *, most: int = 5) -> str:
    """Name at most `most` values, and say how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = [str(value) for value in values]
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Hint at the nearest known name, or list what is known.

    >>> did_you_mean("amout", ["amount", "brand"])
    'did you mean amount?'
    >>> did_you_mean("recency", ["frequency", "recency_days"])
    'did you mean recency_days?'
    >>> did_you_mean("share_count", ["view_count"])
    'known: view_count'
    """
    names = sorted(known)
    # Names that only end alike, as `commit_count_364d` and `cart_count_84d` do, are no slips of the pen.
    begin = [each for each in names if get_close_matches(name.split("_")[0], [each.split("_")[0]])]
    longer = [each for each in names if name and each.startswith(f"{name}_")]
    near = longer[:1] if len(longer) == 1 else get_close_matches(name, begin, n=1)
    # All of them while they fit into a line or two.
    most = len(names) if len(names) <= 30 else 5
    return f"did you mean {near[0]}?" if near else f"known: {listed(names, most=most)}"
