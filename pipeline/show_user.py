"""Show one user's story: behaviour, scores and reasons, persona, segments and their history, what to do and why not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from features.catalogue import Feature, phrase
from features.contract import COLUMNS
from features.declare import declared
from features.errors import DataError
from features.windows import label
from pipeline.columns import PERSONA, PLAY, STAGE, TIER, with_arrow
from pipeline.flow import as_of_night
from pipeline.settings import Settings
from pipeline.show import score_text, shown_night
from pipeline.tables import memberships, read

# What tells most of a person, in the order of a story; `short` is about a month, `long` the longest window.
_STORY = (
    "known_days",
    "purchase_recency_days",
    "purchase_frequency",
    "purchase_count_{short}",
    "purchase_count_{long}",
    "purchase_amount_sum_{short}",
    "purchase_amount_sum_{long}",
    "purchase_amount_sum",
    "purchase_monetary_value",
    "favourite_category",
    "discount_share_{long}",
    "coupon_count",
    "cart_abandoned_count_{short}",
    "return_count_{long}",
    "preferred_channel",
    "preferred_device",
    "best_hour",
    "campaign_answer_share",
    "contact_count_{short}",
    "region",
)
_MOST_PHRASES = 14
# It says something even of somebody who never bought.
_ALWAYS = "purchase_recency_days"
# By how much the further lines of a long text are set in.
_SET_IN = 4
_MONTH = timedelta(days=28)
_STAGE_DAYS = f"{STAGE}_days"
_WHY_NOT = {
    "holdout": "held out, to measure what contacting does",
    "no_consent": "no channel of the play may be used: no consent",
    "capped": "contacted as often as the play's cap allows",
    "contacted_recently": "contacted recently",
}


def tell_user(settings: Settings, user: str, as_of: date | None) -> dict[str, Any]:
    """Gather what `show user` tells of one user on a night, by default the latest, in plain values.

    Parts that the night has no columns for are null. Raises DataError when there is no such night, or the night has no such user;
    it names no other user.
    """
    day = shown_night(settings, as_of)
    row = _row(settings, "segments", day, user)
    if row is None:
        raise DataError(
            f"there is no user {user!r} in the night of {day}: ids are compared letter by letter, as the sources give "
            "them; who first came later, or was forgotten, is not there"
        )
    by_name = {feature.name: feature for feature in declared(settings.wanted(), COLUMNS).features}
    told = _row(settings, "features", day, user, columns={"user_id", *by_name}) or {}
    # Not a number is not known, and no JSON.
    features = {name: None if value != value else value for name, value in told.items()}
    scores = _of_user(read(settings.output, "scores", day), user).to_pylist()
    ledger = _of_user(as_of_night(memberships(settings.output), day), user).to_pylist()
    history = sorted(ledger, key=lambda stay: (stay["entered_on"], stay["segment"]))
    return {
        "as_of": day.isoformat(),
        "user_id": user,
        "behaviour": list(_behaviour(features, by_name, settings)),
        "scores": _scores(settings, row, scores),
        "persona": _persona(row),
        "journey_stage": row.get(STAGE),
        "journey_stage_days": features.get(_STAGE_DAYS),
        "loyalty_tier": row.get(TIER),
        "segments": _segments(settings, row, history),
        "history": [
            {
                "segment": stay["segment"],
                "entered_on": stay["entered_on"].isoformat(),
                "left_on": None if stay["left_on"] is None else stay["left_on"].isoformat(),
                "enter_reason": stay["enter_reason"],
                "leave_reason": stay["leave_reason"],
            }
            for stay in history
        ],
        "play": _play(row, day),
    }


def print_user(told: Mapping[str, Any], console: Console, *, currency: str) -> None:
    """Print what `tell_user` gathered, as a story."""
    _say(console, "")
    _say(console, f"User {told['user_id']} on the night of {told['as_of']}", style="bold")
    _say(console, _who(told), indent=2)
    _print_part(console, "Behaviour", (f"· {said['phrase']}" for said in told["behaviour"]))
    _print_part(console, "Scores", ())
    for score in told["scores"]:
        _say(console, _score_line(score, currency), indent=2)
        for reason in score["reasons"]:
            _say(console, with_arrow(reason), indent=6)
    _print_part(console, "Segments", map(_segment_line, told["segments"]) if told["segments"] else ("in none",))
    if told["history"]:
        _print_part(console, "History", map(_stay_line, told["history"]))
    _print_part(console, "What to do", _advice(told))
    _say(console, "")


def _row(settings: Settings, table: str, day: date, user: str, *, columns: set[str] | None = None) -> dict[str, Any] | None:
    found = _of_user(read(settings.output, table, day, columns=columns), user).to_pylist()
    return dict(found[0]) if found else None


def _of_user(rows: pa.Table, user: str) -> pa.Table:
    return rows.filter(pc.equal(rows["user_id"], user))


def _behaviour(row: Mapping[str, Any], by_name: Mapping[str, Feature], settings: Settings) -> Iterator[dict[str, Any]]:
    """Tell the features that say most, with their values and phrases; what is not known is left out."""
    windows = settings.features.windows
    short, long = label(min(windows, key=lambda window: abs(window - _MONTH))), label(max(windows))
    names = dict.fromkeys(name.format(short=short, long=long) for name in _STORY)
    known = [name for name in names if name in row and name in by_name and (row[name] is not None or name == _ALWAYS)]
    for name in known[:_MOST_PHRASES]:
        feature, value = by_name[name], row[name]
        said = feature.phrase.format(value=value) if feature.is_text else phrase(feature, row, by_name, currency=settings.currency)
        yield {"feature": name, "value": value, "phrase": said}


def _scores(settings: Settings, row: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    by_target = {score["target"]: score for score in scores}
    found = []
    for target in settings.targets:
        # A target that came into the config after this night was not asked then.
        if f"{target.name}_score" not in row:
            continue
        own = by_target.get(target.name, {})
        found.append(
            {
                "target": target.name,
                "meaning": target.meaning,
                "is_amount": target.kind == "value",
                "is_asked": bool(own),
                **{name: own.get(name) for name in ("score", "percentile", "band", "method", "model_version")},
                "reasons": own.get("reasons") or [],
            }
        )
    return found


def _persona(row: Mapping[str, Any]) -> dict[str, Any] | None:
    number, name, typicality = (row.get(spec.name) for spec in PERSONA)
    return None if number is None else {"persona": number, "name": name, "typicality": typicality}


def _segments(settings: Settings, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tell the segments the user is in, in order of priority, since when, and why the ledger says so."""
    purposes = {segment.name: segment.purpose for segment in settings.segments}
    names, since = row["segments"] or [], row.get("segments_since") or []
    dates = since if len(since) == len(names) else [None] * len(names)
    open_stays = {stay["segment"]: stay for stay in history if stay["left_on"] is None}
    return [
        {
            "segment": name,
            "purpose": purposes.get(name),
            "is_primary": name == row["primary_segment"],
            "since": None if entered is None else entered.isoformat(),
            "days": None if entered is None else (row["as_of"] - entered).days,
            "enter_reason": open_stays.get(name, {}).get("enter_reason"),
        }
        for name, entered in zip(names, dates, strict=True)
    ]


def _play(row: Mapping[str, Any], day: date) -> dict[str, Any] | None:
    """Tell what to do about the user tonight and why not; null where the night says nothing of plays."""
    if row.get("actionable") is None and row.get("play") is None:
        return None
    told = {spec.name: row.get(spec.name) for spec in PLAY}
    later = told["contact_on"] is not None and told["contact_on"] > day
    return {
        **told,
        "contact_on": None if told["contact_on"] is None else told["contact_on"].isoformat(),
        "waits": later,
    }


def _who(told: Mapping[str, Any]) -> str:
    persona, stage = told["persona"], told["journey_stage"]
    parts = []
    if persona is None:
        parts.append("no persona: not enough is known of the user's habits")
    else:
        typicality = persona["typicality"]
        typical = "" if typicality is None else f", typicality {typicality:.0%}"
        parts.append(f"{persona['name']} (persona {persona['persona']}{typical})")
    if stage is not None:
        days = told["journey_stage_days"]
        parts.append(f"journey stage {stage}" if days is None else f"journey stage {stage} for {_days(round(days))}")
    if told["loyalty_tier"] is not None:
        parts.append(f"loyalty tier {told['loyalty_tier']}")
    return "; ".join(parts)


def _score_line(score: Mapping[str, Any], currency: str) -> str:
    meaning = f" ({score['meaning']})" if score["meaning"] else ""
    if score["score"] is None:
        return f"{score['target']}{meaning}: " + ("no score" if score["is_asked"] else "not asked about this user tonight")
    said = score_text(score["score"], currency if score["is_amount"] else None)
    place = "" if score["percentile"] is None else f", percentile {score['percentile']:.0f}"
    band = "" if score["band"] is None else f", {score['band'].replace('_', ' ')}"
    return f"{score['target']}{meaning}: {said}{place}{band}"


def _segment_line(segment: Mapping[str, Any]) -> str:
    purpose = f" ({segment['purpose']})" if segment["purpose"] else ""
    since = "" if segment["since"] is None else f", since {segment['since']} ({_days(segment['days'])})"
    why = f": {segment['enter_reason']}" if segment["enter_reason"] else ""
    return f"{segment['segment']}{purpose}{', primary' if segment['is_primary'] else ''}{since}{why}"


def _stay_line(stay: Mapping[str, Any]) -> str:
    left = "still in" if stay["left_on"] is None else stay["left_on"]
    # Why a user came who is still in is told with the segment.
    came = f", came for {stay['enter_reason']}" if stay["enter_reason"] and stay["left_on"] else ""
    went = f", left for {stay['leave_reason']}" if stay["leave_reason"] else ""
    return f"{stay['entered_on']} to {left}: {stay['segment']}{came}{went}"


def _advice(told: Mapping[str, Any]) -> Iterator[str]:
    play = told["play"]
    primary = next((segment["segment"] for segment in told["segments"] if segment["is_primary"]), None)
    if play is None or play["play"] is None:
        yield "nothing: in no segment" if primary is None else f"nothing: {primary} has no play tonight"
        return
    by = "" if play["contact_channel"] is None else f" by {play['contact_channel']}"
    hour = "" if play["contact_hour"] is None else f" at {play['contact_hour']}:00 local time"
    because = "" if primary is None else f", for {primary}"
    if play["actionable"]:
        yield f"send {play['play']}{by}{hour}{because}"
        return
    yield f"do not contact tonight; planned was {play['play']}{by}{hour}{because}. Why not:"
    yield from (f"· {said}" for name, said in _WHY_NOT.items() if play[name])
    if play["waits"]:
        yield f"· waiting until {play['contact_on']}"


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
    console.print(Padding(first, (0, 0, 0, indent)), highlight=False)
    for line in others:
        console.print(Padding(line, (0, 0, 0, indent + _SET_IN)), highlight=False)
