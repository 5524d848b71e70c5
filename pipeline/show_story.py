"""Print one user's story, as `pipeline.show_user` tells it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from features.families.contacts import RECENCY
from pipeline.columns import with_arrow
from pipeline.show import score_text

# By how much the further lines of a long text are set in.
_SET_IN = 4


def print_user(told: Mapping[str, Any], console: Console, *, currency: str) -> None:
    """Print what `tell_user` gathered, as a story."""
    _say(console, "")
    _say(console, f"User {told['user_id']} on the night of {told['as_of']}", style="bold")
    for line in _who(told):
        _say(console, line, indent=2)
    _print_part(console, "Behaviour", (f"· {said['phrase']}" for said in told["behaviour"]))
    _print_part(console, "Scores and reasons (↑ raises the score, ↓ lowers it)", ())
    for score in told["scores"]:
        _say(console, _score_line(score, currency), indent=2)
        for reason in score["reasons"]:
            _say(console, with_arrow(reason), indent=6)
    _print_part(console, "Segments", () if told["segments"] else ("in none",))
    for segment in told["segments"]:
        _say(console, _segment_line(segment), indent=2)
        if segment["purpose"]:
            _say(console, f"purpose: {segment['purpose']}", indent=6)
        if segment["enter_reason"]:
            _say(console, f"that night: {segment['enter_reason']}", indent=6)
    ended = [stay for stay in told["history"] if stay["left_on"] is not None]
    _print_part(console, "Earlier stays", () if ended else ("none has ended since nights are recorded",))
    for stay in ended:
        _say(console, f"{stay['segment']}, {_since(stay, 'entered_on')} to {stay['left_on']}", indent=2)
        for word in ("enter", "leave"):
            if why := stay[f"{word}_reason"]:
                _say(console, f"{'came' if word == 'enter' else 'left'}: {why}", indent=6)
    _print_part(console, "What to do", _advice(told))
    _say(console, "")


def _who(told: Mapping[str, Any]) -> Iterator[str]:
    persona, stage = told["persona"], told["journey_stage"]
    if persona is None:
        yield "persona not known: too little was seen of the user's habits"
    else:
        typicality = persona["typicality"]
        typical = "" if typicality is None else f" (typicality {typicality:.0%}; 100% is the most typical of it)"
        yield f"persona {persona['persona']}: {persona['name']}{typical}"
    if stage is not None:
        days = told["journey_stage_days"]
        yield f"journey stage: {stage}" if days is None else f"journey stage: {stage}, for {_days(round(days))}"
    if told["loyalty_tier"] is not None:
        yield f"loyalty tier: {told['loyalty_tier']}"


def _score_line(score: Mapping[str, Any], currency: str) -> str:
    meaning = f" ({score['meaning']})" if score["meaning"] else ""
    if score["score"] is None:
        why = {True: "", False: ", not eligible tonight", None: ", no model of it was in charge"}[score["is_asked"]]
        return f"{score['target']}{meaning}: no score{why}"
    said = score_text(score["score"], currency if score["is_amount"] else None)
    place = "" if score["percentile"] is None else f", percentile {score['percentile']:.0f}"
    band = "" if score["band"] is None else f", {score['band'].replace('_', ' ')}"
    return f"{score['target']}{meaning}: {said}{place}{band}, by v{score['model_version']} {score['method']}"


def _segment_line(segment: Mapping[str, Any]) -> str:
    since = ""
    if segment["since"] is not None:
        days = _days(segment["days"])
        since = f", since {_since(segment, 'since')} ({days if segment['is_start_known'] else f'at least {days}'})"
        if segment["is_start_known"] and segment["days"] == 0:
            since = ", since tonight"
    return f"{segment['segment']}{', primary' if segment['is_primary'] else ''}{since}"


def _since(stay: Mapping[str, Any], key: str) -> str:
    return f"{stay[key]}" if stay["is_start_known"] else f"{stay[key]} or before"


def _advice(told: Mapping[str, Any]) -> Iterator[str]:
    play = told["play"]
    primary = next((segment["segment"] for segment in told["segments"] if segment["is_primary"]), None)
    if play is None or play["play"] is None:
        yield "nothing: in no segment" if primary is None else f"nothing: {primary} has no play"
        return
    by = "" if play["contact_channel"] is None else f" by {play['contact_channel']}"
    hour = "" if play["contact_hour"] is None else f" at {play['contact_hour']}:00 local time"
    because = "" if primary is None else f", for {primary}"
    if play["actionable"]:
        yield f"send {play['play']}{by}{hour}{because}"
        return
    yield f"do not contact tonight; planned was {play['play']}{by}{hour}{because}. Why not:"
    yield from (f"· {said}" for said in _why_not(play))


def _why_not(play: Mapping[str, Any]) -> Iterator[str]:
    if play["holdout"]:
        yield "held out, to measure what contacting does"
    if play["no_consent"]:
        yield "no consent to any channel of the play"
    if play["capped"]:
        times = "once" if play["contacts"] == 1 else f"{play['contacts']:,} times"
        yield f"capped: contacted {times} in the time that the play's cap looks back"
    if play["contacted_recently"]:
        ago = play[RECENCY]
        yield "contacted recently" + ("" if ago is None else f": {ago:.1f} days ago")
    if play["waits"]:
        yield f"waiting until {play['contact_on']}: the play's delay is not over"


def _days(count: int) -> str:
    return f"{count:,} day{'' if count == 1 else 's'}"


def _print_part(console: Console, title: str, lines: Iterable[str]) -> None:
    _say(console, "")
    _say(console, title, style="bold")
    for line in lines:
        _say(console, line, indent=2)


def _say(console: Console, text: str, *, indent: int = 0, style: str = "") -> None:
    """Print a text of the data or the config as it is; where it is longer than a line, the next ones are set in."""
    said = Text(text, style=style)
    first, *others = said.wrap(console, max(20, console.width - indent - _SET_IN)) if text else [said]
    console.print(Padding(first, (0, 0, 0, indent), expand=False), highlight=False)
    for line in others:
        console.print(Padding(line, (0, 0, 0, indent + _SET_IN), expand=False), highlight=False)
