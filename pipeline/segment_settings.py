"""What the config says of groups and what is done about them: journey stages, loyalty tiers, segments, plays."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from features.expressions import columns_of
from features.windows import duration, label
from pipeline.columns import TARGET_COLUMNS
from pipeline.strict import Duration, Name, Strict, as_value_error

PREFERRED = "preferred"
BEST_HOUR: Literal["best_hour"] = "best_hour"


def _none_or(text: Any) -> timedelta:
    return timedelta(0) if text in ("0h", "0d", "0w") else duration(text)


# Like a Duration, and 0d is one.
Wait = Annotated[timedelta, BeforeValidator(as_value_error(_none_or)), PlainSerializer(label)]
Hour = Annotated[int, Field(ge=0, le=23)]
Share = Annotated[float, Field(ge=0, lt=1)]


class StageSettings(Strict):
    """One journey stage or loyalty tier; the first in the list whose rule holds is a user's."""

    name: Name = Field(description="Names it in the table.")
    when: str = Field(description="SQL condition over features, scores and personas; `true` takes whoever is left.")


class CapSettings(Strict):
    """How often a user may be contacted, counted in the events: by anybody, for any reason."""

    contacts: int = Field(ge=1, le=1_000, description="Most contacts in that time, tonight's among them.")
    per: Duration = Field(description="The time looked back.")


class PlaySettings(Strict):
    """What to do for the users of whom the segment is the primary one."""

    offer: Name = Field(description="Key of what is sent; it is the column `play`.")
    channel: Name | tuple[Name, ...] = Field(
        PREFERRED,
        description="The channel: a name of plays.channels, several in order of preference, or preferred: the one that serves "
        "where the user acts most, else the first that may be used.",
    )
    moment: Literal["best_hour"] | Hour = Field(
        BEST_HOUR, description="best_hour, the local hour of the user's most activity, or an hour from 0 to 23."
    )
    delay: Wait = Field(timedelta(0), description="How long after entering the segment the contact waits.")
    cap: CapSettings | None = Field(None, description="Most contacts in a time.")
    holdout: Share = Field(0.0, description="Share of the segment that is not contacted, to measure what contacting does.")


class SegmentSettings(Strict):
    """A named group with a purpose; the first in the list that a user is in is the primary one."""

    name: Name = Field(description="Names the segment.")
    purpose: str = Field(min_length=1, description="What the segment is for, in a few words.")
    enter: str = Field(description="SQL condition over scores, percentiles, bands, personas, stages, tiers and features.")
    leave: str | None = Field(
        None, description="SQL condition at which a member leaves, looser than enter so that nobody flickers; default: not enter."
    )
    min_stay: Wait = Field(timedelta(0), description="How long a member stays at least.")
    play: PlaySettings | None = Field(None, description="What to do about it; without one nobody is contacted for it.")

    def target(self, names: Sequence[str]) -> str | None:
        """Give the first of the targets that the rule reads: its reasons say why a user is in the segment."""
        read = columns_of(self.enter)
        return next((name for name in names if read & {column.format(target=name) for column in TARGET_COLUMNS}), None)

    def rules(self) -> Mapping[str, str]:
        """Give its rules by key."""
        return {"enter": self.enter} | ({} if self.leave is None else {"leave": self.leave})


class ChannelSettings(Strict):
    """A way to contact users."""

    name: Name = Field(description="Names the channel.")
    consent: str = Field(
        description="SQL condition over features and attributes: who may be contacted by it. `true` says that everybody may."
    )
    serves: tuple[str, ...] = Field(
        (), description="Values of the event column `channel`: whoever acts most there is contacted by this channel first."
    )


class QuietSettings(Strict):
    """Local hours in which nobody is contacted."""

    start: Hour = Field(description="First quiet hour, such as 21.")
    stop: Hour = Field(description="First hour after them, such as 8.")


def is_quiet(hour: int, start: int, stop: int) -> bool:
    """Whether a local hour lies in quiet hours, which may span midnight.

    >>> is_quiet(23, 21, 8), is_quiet(8, 21, 8), is_quiet(13, 12, 14)
    (True, False, True)
    """
    return start <= hour < stop if start <= stop else hour >= start or hour < stop


class PlaysSettings(Strict):
    """How users are contacted, whatever the segment."""

    salt: str = Field(
        "beforehand", min_length=1, max_length=64, description="Draws the holdouts. Once nights are recorded it may not change."
    )
    holdout: Share = Field(0.0, description="Share of all users that no play contacts, to measure what all plays together do.")
    rest: Wait = Field(timedelta(0), description="How long after any contact a user is left alone.")
    quiet_hours: QuietSettings | None = Field(None, description="Local hours in which nobody is contacted.")
    channels: tuple[ChannelSettings, ...] = Field((), description="Ways to contact users, in order of preference.")
