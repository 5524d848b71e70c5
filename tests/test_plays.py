"""Plays: what is done about a user tonight, and why not; whoever is held out or did not consent is never contacted."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError
from pipeline.columns import PLAY
from pipeline.plays import held_out, play_columns, refuse_new_salt, salt_digest
from pipeline.segment_settings import PlaysSettings, QuietSettings, SegmentSettings, is_quiet

AS_OF = date(2024, 3, 10)
SALT = "beforehand"
PUSH = {"name": "push", "consent": "has_app = 1", "serves": ["app"]}
EMAIL = {"name": "email", "consent": "accepts_email = 1", "serves": ["web", "store"]}
POST = {"name": "post", "consent": "true"}
USERS = [f"user {number}" for number in range(20_000)]
DRAWN = [("win_back", SALT), ("loyal", SALT), ("", SALT), ("win_back", "another"), ("win_bac", SALT), ("win_backk", SALT)]


def segment(name: str = "some", **play: object) -> SegmentSettings:
    """Give a segment with a play, or without one when nothing is said of it."""
    told = {"offer": "gift", **play} if play else None
    return SegmentSettings.model_validate({"name": name, "purpose": "any", "enter": "true", "play": told})


def plays(*channels: Mapping[str, object], **told: object) -> PlaysSettings:
    return PlaysSettings.model_validate({"salt": SALT, "channels": channels or [PUSH, EMAIL], **told})


def people(**columns: Sequence[object]) -> pa.Table:
    """Give a row per user; who consents to what is 1 unless it is said."""
    size = len(next(iter(columns.values())))
    told = {"user_id": [f"u{number}" for number in range(size)], "has_app": [1.0] * size, "accepts_email": [1.0] * size, **columns}
    texts = ("user_id", "preferred_channel")
    return pa.table({name: pa.array(values, pa.string() if name in texts else pa.float64()) for name, values in told.items()})


def planned(
    rows: pa.Table,
    *segments: SegmentSettings,
    told: PlaysSettings | None = None,
    primary: Sequence[int] | None = None,
    entered_on: Sequence[str] | None = None,
) -> pa.Table:
    """Give the columns of a play; everybody is in the first segment, since tonight, unless it is said."""
    places = np.array([0] * len(rows) if primary is None else primary, dtype=np.int64)
    since = np.array([str(AS_OF)] * len(rows) if entered_on is None else entered_on, dtype="datetime64[D]")
    return pa.table(play_columns(rows, places, since, segments, plays() if told is None else told, AS_OF))


def columns(made: pa.Table, *names: str) -> list[tuple[object, ...]]:
    return [tuple(row[name] for name in names) for row in made.to_pylist()]


# Whole tables

NOTHING = dict.fromkeys(spec.name for spec in PLAY)


def row(channel: str | None, *, on: str = "2024-03-10", hour: int | None = 9, contacts: int | None = 0, **why_not: bool) -> dict:
    """Give an expected row of the offer `gift`; what is not said is false."""
    told = {name: why_not.get(name, False) for name in ("holdout", "no_consent", "capped", "contacted_recently", "actionable")}
    plan = {"play": "gift", "contact_channel": channel, "contact_on": date.fromisoformat(on), "contact_hour": hour}
    return {**plan, "contacts": contacts, **told}


def test_play_of_every_user_is_told_with_every_reason_against_it() -> None:
    rows = people(
        preferred_channel=["app", "web", "app", None, "web", "app", "web"],
        best_hour=[23.0, 12.0, None, 3.0, 8.0, 9.0, 9.0],
        has_app=[1, 1, 0, 0, 1, None, 1],
        accepts_email=[1, 1, 1, 0, 1, None, 1],
        contacted_count_14d=[0, 2, 1, 0, 3, 0, None],
        contacted_recency_days=[None, 5.0, 1.9, None, 2.0, 20.0, None],
    )
    made = planned(
        rows,
        segment("quiet"),
        segment("slipping", channel="preferred", delay="36h", cap={"contacts": 2, "per": "14d"}),
        told=plays(rest="2d", quiet_hours={"start": 21, "stop": 8}),
        primary=[1, 1, 1, 1, 1, 1, 0],
        entered_on=["2024-03-01", "2024-03-08", "2024-03-09", "2024-03-08", "2024-02-08", "2024-03-10", "2024-03-10"],
    )
    assert made.schema == pa.schema(PLAY)
    assert made.to_pylist() == [
        row("push", hour=20, actionable=True),
        row("email", hour=12, contacts=2, capped=True),
        row("email", hour=None, on="2024-03-11", contacts=1, contacted_recently=True),
        row(None, hour=8, no_consent=True),
        row("email", hour=8, contacts=3, capped=True),
        row(None, hour=9, on="2024-03-12", no_consent=True),
        NOTHING,
    ]


def test_user_without_a_primary_segment_has_no_play() -> None:
    rows = people(best_hour=[9.0, 9.0])
    made = planned(rows, segment(channel="push"), primary=[-1, 0], entered_on=["NaT", "2024-03-10"])
    assert made.to_pylist() == [NOTHING, row("push", contacts=None, actionable=True)]


@pytest.mark.parametrize("segments", [(), (segment(),)], ids=["no segments", "no plays"])
def test_without_plays_all_is_null_and_consent_is_not_asked(segments: tuple[SegmentSettings, ...]) -> None:
    made = planned(pa.table({"user_id": ["ann"]}), *segments, primary=[len(segments) - 1])
    assert made.schema == pa.schema(PLAY)
    assert made.to_pylist() == [NOTHING]


def test_no_rows_give_no_rows() -> None:
    made = planned(people(best_hour=[]), segment(channel="push"))
    assert made.schema == pa.schema(PLAY)
    assert len(made) == 0


def test_what_the_night_does_not_know_did_not_happen() -> None:
    # No campaign was ever sent and nobody's channel or hour is known: those columns are absent.
    made = planned(people(has_app=[1]), segment(cap={"contacts": 1, "per": "7d"}), told=plays(rest="7d"))
    assert made.to_pylist() == [row("push", hour=None, actionable=True)]


# Channels


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        # The user's own, the first with consent, what no channel serves, what is not known, nobody may.
        ("preferred", ["email", "push", "push", "push", "email", None]),
        ("email", ["email", None, "email", "email", "email", None]),
        (["email", "push"], ["email", "push", "email", "email", "email", None]),
        (["push", "email"], ["push", "push", "push", "push", "email", None]),
    ],
)
def test_channel_is_the_first_that_may_be_used(channel: object, expected: list[str | None]) -> None:
    rows = people(
        preferred_channel=["web", "web", "fax", None, "app", "app"],
        has_app=[1, 1, 1, 1, 0, None],
        accepts_email=[1, None, 1, 1, 1, float("nan")],
    )
    made = planned(rows, segment(channel=channel))
    assert columns(made, "contact_channel", "no_consent", "actionable") == [
        (name, name is None, name is not None) for name in expected
    ]


def test_preferred_takes_the_first_of_several_channels_that_serve() -> None:
    both = [{**PUSH, "consent": "has_app = 1"}, {**EMAIL, "serves": ["app"]}, {**POST, "serves": ["app"]}]
    rows = people(preferred_channel=["app", "app", "app"], has_app=[1, 0, 0], accepts_email=[1, 1, 0])
    assert columns(planned(rows, segment(channel="preferred"), told=plays(*both)), "contact_channel") == [
        ("push",),
        ("email",),
        ("post",),
    ]


def test_segments_of_one_night_take_each_its_own_channels() -> None:
    rows = people(preferred_channel=["web"] * 4)
    names = [segment("one", channel="push"), segment("two", channel="preferred"), segment("three", channel=["post", "push"])]
    made = planned(rows, *names, told=plays(PUSH, EMAIL, POST), primary=[2, 0, 1, 2])
    assert columns(made, "contact_channel") == [("post",), ("push",), ("email",), ("post",)]


# Dates


@pytest.mark.parametrize(
    ("delay", "entered_on", "expected"),
    [
        ("0d", "2024-03-10", ("2024-03-10", True)),
        ("1d", "2024-03-10", ("2024-03-11", False)),
        ("1d", "2024-03-09", ("2024-03-10", True)),
        ("1d", "2024-03-01", ("2024-03-10", True)),
        ("1h", "2024-03-10", ("2024-03-11", False)),
        ("25h", "2024-03-09", ("2024-03-11", False)),
        ("2d", "2024-02-28", ("2024-03-10", True)),
        # Of a leap year.
        ("2w", "2024-02-26", ("2024-03-11", False)),
    ],
)
def test_contact_waits_whole_days_after_the_entry(delay: str, entered_on: str, expected: tuple[str, bool]) -> None:
    made = planned(people(has_app=[1]), segment(delay=delay), entered_on=[entered_on])
    assert columns(made, "contact_on", "actionable") == [(date.fromisoformat(expected[0]), expected[1])]


def test_whose_entry_is_not_known_is_not_contacted() -> None:
    made = planned(people(has_app=[1]), segment(delay="1d"), entered_on=["NaT"])
    assert columns(made, "contact_on", "actionable") == [(None, False)]


# Hours


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        # At 2 both ends are six hours away: the evening before.
        (21, 8, [20, 20, 20, 8, 8, 8, 8, 8, *range(8, 21), 20, 20, 20]),
        (0, 6, [23, 23, 23, 6, 6, 6, *range(6, 24)]),
        (12, 14, [*range(12), 11, 14, *range(14, 24)]),
        (23, 1, [1, *range(1, 23), 22]),
        (1, 0, [0] * 24),
    ],
)
def test_best_hour_moves_to_the_nearest_that_is_not_quiet(start: int, stop: int, expected: list[int]) -> None:
    rows = people(best_hour=[float(hour) for hour in range(24)])
    made = planned(rows, segment(moment="best_hour"), told=plays(quiet_hours={"start": start, "stop": stop}))
    assert made["contact_hour"].to_pylist() == expected


@pytest.mark.parametrize(("moment", "expected"), [(17, [17, 17, 17, 17]), ("best_hour", [None, None, None, 23])])
def test_hour_is_the_plays_or_the_users(moment: object, expected: list[int | None]) -> None:
    rows = people(best_hour=[None, float("nan"), 24.0, 23.0])
    assert planned(rows, segment(moment=moment))["contact_hour"].to_pylist() == expected


@settings(max_examples=50)
@given(start=st.integers(0, 23), stop=st.integers(0, 23), moment=st.one_of(st.just("best_hour"), st.integers(0, 23)))
def test_no_quiet_hour_is_ever_chosen_and_none_nearer_is_passed_over(start: int, stop: int, moment: object) -> None:
    if start == stop:
        return
    quiet = QuietSettings(start=start, stop=stop)
    made = planned(people(best_hour=list(range(24))), segment(moment=moment), told=plays(quiet_hours=quiet.model_dump()))
    free = [hour for hour in range(24) if not is_quiet(hour, start, stop)]
    for best, chosen in enumerate(made["contact_hour"].to_pylist()):
        wanted = best if moment == "best_hour" else moment
        apart = {hour: min((hour - wanted) % 24, (wanted - hour) % 24) for hour in free}
        assert chosen in free
        assert apart[chosen] == min(apart.values())


# Caps and rest


def test_cap_counts_the_contacts_of_its_own_time() -> None:
    rows = people(contacted_count_7d=[0, 1, 1, 2, None], contacted_count_28d=[1, 1, 4, 4, 5])
    weekly = segment("weekly", cap={"contacts": 1, "per": "1w"})
    monthly = segment("monthly", cap={"contacts": 4, "per": "28d"})
    free = segment("free", channel="push")
    made = planned(rows, weekly, monthly, free, primary=[0, 0, 1, 2, 0])
    assert columns(made, "contacts", "capped", "actionable") == [
        (0, False, True),
        (1, True, False),
        (4, True, False),
        (None, False, True),
        (0, False, True),
    ]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("0d", [False, False, False, False]),
        # Two days are over when two days are over.
        ("2d", [True, True, False, False]),
        ("36h", [True, False, False, False]),
    ],
)
def test_whoever_was_contacted_lately_rests(rest: str, expected: list[bool]) -> None:
    made = planned(people(contacted_recency_days=[0.0, 1.5, 2.0, None]), segment(channel="push"), told=plays(rest=rest))
    assert columns(made, "contacted_recently", "actionable") == [(rests, not rests) for rests in expected]


# What must never happen

PERSON = st.fixed_dictionaries(
    {
        "preferred_channel": st.sampled_from([None, "app", "web", "fax"]),
        "best_hour": st.sampled_from([None, *map(float, range(24))]),
        "has_app": st.sampled_from([None, 0.0, 1.0, float("nan")]),
        "accepts_email": st.sampled_from([None, 0.0, 1.0]),
        "contacted_count_7d": st.sampled_from([None, 0.0, 1.0, 2.0]),
        "contacted_count_14d": st.sampled_from([None, 0.0, 1.0, 2.0, 5.0]),
        "contacted_recency_days": st.sampled_from([None, 0.0, 1.0, 2.5, 30.0]),
        "primary": st.integers(-1, 2),
        "days": st.integers(0, 4),
    }
)
CAPS = st.sampled_from([None, {"contacts": 1, "per": "7d"}, {"contacts": 2, "per": "14d"}])
PLAYS = st.fixed_dictionaries(
    {
        "channel": st.sampled_from(["preferred", "push", "email", ["email", "push"]]),
        "delay": st.sampled_from(["0d", "20h", "2d"]),
        "cap": CAPS,
        "holdout": st.sampled_from([0.0, 0.3, 0.9]),
    }
)


@settings(max_examples=60)
@given(
    drawn=st.lists(PERSON, min_size=1, max_size=30),
    told=st.lists(PLAYS, min_size=2, max_size=2),
    rest=st.sampled_from(["0d", "2d"]),
    share=st.sampled_from([0.0, 0.2]),
)
def test_whoever_may_not_be_contacted_is_never_actionable(drawn: list[dict], told: list[dict], rest: str, share: float) -> None:
    names = [name for name in drawn[0] if name not in ("primary", "days")]
    rows = people(**{name: [person[name] for person in drawn] for name in names})
    # The third has no play.
    segments = [segment("one", **told[0]), segment("two", **told[1]), segment("three")]
    made = planned(
        rows,
        *segments,
        told=plays(rest=rest, holdout=share),
        primary=[person["primary"] for person in drawn],
        entered_on=[str(AS_OF - timedelta(days=person["days"])) for person in drawn],
    )
    for user, person, found in zip(rows["user_id"].to_pylist(), drawn, made.to_pylist(), strict=True):
        play = None if person["primary"] == -1 else segments[person["primary"]].play
        if play is None:
            assert found == NOTHING
            continue
        may = {name for name, key in (("push", "has_app"), ("email", "accepts_email")) if person[key] == 1}
        possible = (
            may if play.channel == "preferred" else may & ({play.channel} if isinstance(play.channel, str) else set(play.channel))
        )
        count = (person[f"contacted_count_{play.cap.per.days}d"] or 0) if play.cap else None
        recency = person["contacted_recency_days"]
        held = [draws(user, group) < part for group, part in ((segments[person["primary"]].name, play.holdout), ("", share))]
        against = {
            "holdout": any(held),
            "no_consent": not possible,
            "capped": play.cap is not None and count >= play.cap.contacts,
            "contacted_recently": rest == "2d" and recency is not None and recency < 2,
        }
        due = timedelta(days=person["days"]) >= play.delay
        assert {name: found[name] for name in against} == against
        assert found["contact_channel"] in (possible or {None})
        assert found["actionable"] == (due and not any(against.values()))


def draws(user: str, group: str, salt: str = SALT) -> float:
    """Draw in one go what `held_out` draws in two steps."""
    key = blake2b(salt.encode(), digest_size=32, person=b"holdout").digest()
    told = blake2b(f"{group}\0{user}".encode(), key=key, digest_size=8).digest()
    return int.from_bytes(told, "little") / 2**64


# Holdouts


def test_holdouts_are_the_same_on_every_machine_and_in_every_version() -> None:
    # Written down once: a change here draws the holdouts of every installation anew.
    users = ["ann", "bob", "cem", "dan", "eve", "fay", "Zoë", "користувач", ""]
    assert held_out(users, "win_back", salt=SALT, share=0.5).tolist() == [
        True,
        True,
        False,
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert salt_digest(SALT) == "bee9db7e703183f1"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_draws_are_those_of_one_plain_hash_whatever_holds_the_users(kind: pa.DataType) -> None:
    users = ["ann", "bob", "Zoë", "", "a\0b"] + USERS[:200]
    held = [draws(user, "loyal") < 0.3 for user in users]
    assert held_out(users, "loyal", salt=SALT, share=0.3).tolist() == held
    assert held_out(pa.array(users).cast(kind), "loyal", salt=SALT, share=0.3).tolist() == held
    chunked = pa.chunked_array([users[:3], users[3:]], pa.string()).cast(kind)
    assert held_out(chunked, "loyal", salt=SALT, share=0.3).tolist() == held


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("group", ["win_back", "loyal", ""])
def test_share_held_out_is_the_one_asked_for(group: str, share: float) -> None:
    held = held_out(USERS, group, salt=SALT, share=share).mean()
    assert abs(held - share) < 4 * np.sqrt(share * (1 - share) / len(USERS))


def test_groups_and_salts_draw_independently() -> None:
    drawn = [held_out(USERS, group, salt=salt, share=0.3) for group, salt in DRAWN]
    # The correlation of two independent draws of n users has a standard error of 1 / sqrt(n).
    phi = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]
    assert np.abs(phi).max() < 4 / np.sqrt(len(USERS))


def test_larger_share_keeps_all_who_were_held_out() -> None:
    small, large = (held_out(USERS, "loyal", salt=SALT, share=share) for share in (0.1, 0.15))
    assert not (small & ~large).any()
    assert small.sum() < large.sum()


def test_nobody_is_held_out_of_a_share_of_nothing() -> None:
    assert held_out(["ann", "bob"], "loyal", salt=SALT, share=0.0).tolist() == [False, False]


def test_salt_longer_than_a_key_draws() -> None:
    # 64 characters, and 128 bytes.
    assert held_out(USERS, "loyal", salt="ж" * 64, share=0.5).any()


def test_holdout_is_of_the_segments_play_or_of_all() -> None:
    rows = people(user_id=USERS[:2000], has_app=[1.0] * 2000, accepts_email=[1.0] * 2000)
    primary = [number % 3 for number in range(2000)]
    made = planned(
        rows,
        segment("one", holdout=0.4),
        segment("two", channel="push"),
        segment("three"),
        told=plays(holdout=0.2),
        primary=primary,
    )
    one, everybody = (np.array([draws(user, group) < share for user in USERS[:2000]]) for group, share in (("one", 0.4), ("", 0.2)))
    expected = [
        bool(everybody[at] or one[at]) if place == 0 else bool(everybody[at]) if place == 1 else None
        for at, place in enumerate(primary)
    ]
    assert made["holdout"].to_pylist() == expected
    assert made["actionable"].to_pylist() == [None if held is None else not held for held in expected]


def test_order_and_batches_of_the_users_change_no_row() -> None:
    random = np.random.default_rng(3)
    rows = people(
        user_id=USERS[:600],
        has_app=random.integers(0, 2, 600).tolist(),
        best_hour=random.integers(0, 24, 600).tolist(),
        contacted_count_7d=random.integers(0, 3, 600).tolist(),
        accepts_email=random.integers(0, 2, 600).tolist(),
    )
    segments = [segment("one", holdout=0.3, cap={"contacts": 2, "per": "7d"}), segment("two", holdout=0.5, channel="email")]
    primary = random.integers(-1, 2, 600)
    told = plays(holdout=0.1, quiet_hours={"start": 21, "stop": 8})
    whole = planned(rows, *segments, told=told, primary=primary)
    order = random.permutation(600)
    shuffled = planned(rows.take(order), *segments, told=told, primary=primary[order])
    assert shuffled.equals(whole.take(order).combine_chunks())
    halves = [planned(rows.slice(at, 300), *segments, told=told, primary=primary[at : at + 300]) for at in (0, 300)]
    assert pa.concat_tables(halves).combine_chunks().equals(whole.combine_chunks())


# A changed salt


@pytest.mark.parametrize("recorded", [[], [None], [salt_digest(SALT)], [None, salt_digest(SALT), salt_digest(SALT)]])
def test_salt_of_the_recorded_nights_may_stay(recorded: list[str | None]) -> None:
    refuse_new_salt(plays(), recorded)


@pytest.mark.parametrize(
    ("recorded", "match"),
    [
        ([salt_digest("another")], "^plays.salt: a recorded night was drawn with another one .*put the old salt back"),
        ([salt_digest("another"), None, salt_digest("x"), salt_digest(SALT)], "^plays.salt: 2 recorded nights were drawn"),
    ],
)
def test_changed_salt_is_refused(recorded: list[str | None], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as raised:
        refuse_new_salt(plays(), recorded)
    assert SALT not in str(raised.value)


def test_digest_of_a_salt_tells_neither_the_salt_nor_the_key() -> None:
    key = blake2b(SALT.encode(), digest_size=32, person=b"holdout").hexdigest()
    assert salt_digest(SALT) not in key
    assert len({salt_digest(salt) for salt in (SALT, "another", "Beforehand", "beforehand ")}) == 4
