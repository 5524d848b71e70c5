"""Tell one user's story: behaviour, scores and reasons, persona, segments and their history, what to do and why not."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow.compute as pc

from features.catalogue import Feature, phrase
from features.contract import COLUMNS
from features.declare import declared
from features.errors import DataError
from features.families.contacts import RECENCY
from features.windows import label
from pipeline.columns import PERSONA, PLAY, STAGE, TIER
from pipeline.flow import as_of_night
from pipeline.recorded import versions_in
from pipeline.settings import Settings
from pipeline.show import shown_night
from pipeline.tables import memberships, read

# What tells most of a person, in the order of a story; `short` is about a month, `long` the longest window, and `habit` what else
# than purchases makes users active.
_STORY = (
    "known_days",
    "{habit}_recency_days",
    "{habit}_count_{short}",
    "{habit}_count_{long}",
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
_MONTH = timedelta(days=28)
_STAGE_DAYS = f"{STAGE}_days"


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
            "them; who first came later is not there"
        )
    built = declared(settings.wanted(), COLUMNS)
    by_name = {feature.name: feature for feature in built.features}
    told = _row(settings, "features", day, user, columns={"user_id", *by_name}) or {}
    # Not a number is not known, and no JSON.
    features = {name: None if value != value else value for name, value in told.items()}
    scores = read(settings.output, "scores", day, users=[user]).to_pylist()
    ledger = as_of_night(memberships(settings.output), day)
    # Whoever was in a segment on its first night in the ledger came on that night or before.
    firsts = dict(zip(*ledger.group_by("segment").aggregate([("entered_on", "min")]).to_pydict().values(), strict=True))
    history = sorted(
        ledger.filter(pc.equal(ledger["user_id"], user)).to_pylist(), key=lambda stay: (stay["entered_on"], stay["segment"])
    )
    return {
        "as_of": day.isoformat(),
        "user_id": user,
        "behaviour": list(_behaviour(features, by_name, [habit.name for habit in built.habits], settings)),
        "scores": _scores(settings, row, scores),
        "persona": _persona(row),
        "journey_stage": row.get(STAGE),
        "journey_stage_days": features.get(_STAGE_DAYS),
        "loyalty_tier": row.get(TIER),
        "segments": _segments(settings, row, history, firsts),
        "history": [
            {
                "segment": stay["segment"],
                "entered_on": stay["entered_on"].isoformat(),
                "is_start_known": stay["entered_on"] > firsts[stay["segment"]],
                "left_on": None if stay["left_on"] is None else stay["left_on"].isoformat(),
                "enter_reason": stay["enter_reason"],
                "leave_reason": stay["leave_reason"],
            }
            for stay in history
        ],
        "play": _play(row, day, features),
    }


def _row(settings: Settings, table: str, day: date, user: str, *, columns: set[str] | None = None) -> dict[str, Any] | None:
    found = read(settings.output, table, day, columns=columns, users=[user]).to_pylist()
    return dict(found[0]) if found else None


def _behaviour(
    row: Mapping[str, Any], by_name: Mapping[str, Feature], habits: Sequence[str], settings: Settings
) -> Iterator[dict[str, Any]]:
    """Tell the features that say most, with their values and phrases; what is not known is left out."""
    windows = settings.features.windows
    short, long = label(min(windows, key=lambda window: abs(window - _MONTH))), label(max(windows))
    by_habit = ((name, habits if "{habit}" in name else [""]) for name in _STORY)
    names = dict.fromkeys(name.format(short=short, long=long, habit=habit) for name, told in by_habit for habit in told)
    known = [name for name in names if name in row and name in by_name and (row[name] is not None or name == _ALWAYS)]
    for name in known[:_MOST_PHRASES]:
        feature, value = by_name[name], row[name]
        said = feature.phrase.format(value=value) if feature.is_text else phrase(feature, row, by_name, currency=settings.currency)
        yield {"feature": name, "value": value, "phrase": said}


def _scores(settings: Settings, row: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    by_target = {score["target"]: score for score in scores}
    spoke = versions_in(row.get("model_version"))
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
                # Without a model nobody was asked.
                "is_asked": bool(own) if target.name in spoke or not spoke else None,
                **{name: own.get(name) for name in ("score", "percentile", "band", "method", "model_version")},
                "reasons": own.get("reasons") or [],
            }
        )
    return found


def _persona(row: Mapping[str, Any]) -> dict[str, Any] | None:
    number, name, typicality = (row.get(spec.name) for spec in PERSONA)
    return None if number is None else {"persona": number, "name": name, "typicality": typicality}


def _segments(
    settings: Settings, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]], firsts: Mapping[str, date]
) -> list[dict[str, Any]]:
    """Tell the segments the user is in, in order of priority, since when at the latest, and why the ledger says so."""
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
            "is_start_known": entered is not None and entered > firsts.get(name, entered),
            "days": None if entered is None else (row["as_of"] - entered).days,
            "enter_reason": open_stays.get(name, {}).get("enter_reason"),
        }
        for name, entered in zip(names, dates, strict=True)
    ]


def _play(row: Mapping[str, Any], day: date, features: Mapping[str, Any]) -> dict[str, Any] | None:
    """Tell what to do about the user tonight and why not; null where the night says nothing of plays."""
    if row.get("actionable") is None and row.get("play") is None:
        return None
    told = {spec.name: row.get(spec.name) for spec in PLAY}
    later = told["contact_on"] is not None and told["contact_on"] > day
    return {
        **told,
        "contact_on": None if told["contact_on"] is None else told["contact_on"].isoformat(),
        "waits": later,
        RECENCY: features.get(RECENCY),
    }
