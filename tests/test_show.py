"""What is shown: stories and tables word for word, and as JSON equal to the tables, by night; what cannot be shown is refused."""

import json
from collections.abc import Callable, Mapping
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.columns import REASON
from pipeline.flow import IN_NONE
from pipeline.settings import read_settings
from pipeline.show import print_wide
from pipeline.show_flow import print_flow, print_stays
from pipeline.show_personas import print_personas
from pipeline.show_segments import print_segments
from pipeline.show_story import print_user
from pipeline.tables import memberships, read
from shops import shop_config, write_orders

FIRST, SECOND, LAST = date(2024, 8, 14), date(2024, 8, 21), date(2024, 8, 28)
ELIGIBLE = {"active_within": "56d"}
TARGETS = [
    {"name": "churn_28d", "kind": "absence", "horizon": "28d", "eligible": ELIGIBLE, "meaning": "stops buying"},
    {"name": "value_28d", "kind": "value", "horizon": "28d", "eligible": ELIGIBLE},
]
SEGMENTS = [
    {
        "name": "leaving",
        "purpose": "keep them",
        "enter": "churn_28d_score >= 0.3",
        "play": {"offer": "voucher", "channel": "letter", "moment": 9, "holdout": 0.3, "delay": "7d"},
    },
    {"name": "quiet", "purpose": "leave alone", "enter": "purchase_recency_days between 14 and 60"},
    {"name": "nobody", "purpose": "nobody is meant", "enter": "purchase_recency_days < 0"},
]
PLAYS = {"salt": "a shop", "channels": [{"name": "letter", "consent": "purchase_frequency > 4"}]}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop that was trained once and scored for three nights, a week apart; gives the path of its config."""
    folder = tmp_path_factory.mktemp("shown")
    write_orders(folder / "orders.csv", users=120, days=250)
    config = shop_config(folder, targets=TARGETS, segments=SEGMENTS, plays=PLAYS, gates={"max_calibration_error": 0.5})
    for command, day in (("nightly", FIRST), ("score", SECOND), ("score", LAST)):
        done = run(command, "--config", config, "--as-of", day)
        assert done.exit_code == 0, done.output
    return config


def told(shop: Path, *words: object) -> dict[str, Any]:
    """Give what `show` says as JSON."""
    shown = run("show", *words, "--config", shop, "--json")
    assert shown.exit_code == 0, shown.output
    return dict(json.loads(shown.stdout))


def night(shop: Path, day: date = LAST) -> pd.DataFrame:
    return read(read_settings(shop).output, "segments", day).to_pandas().set_index("user_id").sort_index()


def ledger(shop: Path) -> pd.DataFrame:
    return memberships(read_settings(shop).output).to_pandas()


def printed(write: Callable[[Console], None], *, width: int = 80) -> list[str]:
    """Give the lines that are printed on a terminal of a width; none of them is wider."""
    out = StringIO()
    write(Console(file=out, width=width, markup=False))
    assert all(len(line) <= width for line in out.getvalue().splitlines())
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


# Tables that fit.

NUMBERS = [("users", ["1,000", "20"]), ("churn_28d", ["33.3% of 999", "–"]), ("value_28d", ["$1,234 of 1", "–"])]


def test_a_wide_table_is_continued_and_no_cell_is_cut_off() -> None:
    def write(console: Console) -> None:
        notes = ("purpose", ["keep them as long as it goes", "none"])
        print_wide(console, "A title that is wider than the table is", ("segment", ["leaving", "quiet"]), NUMBERS, notes=notes)

    assert printed(write, width=40) == [
        "A title that is wider than the table is",
        " segment   purpose                users",
        " ──────────────────────────────────────",
        " leaving   keep them as long as   1,000",
        "           it goes",
        " quiet     none                      20",
        "Continued",
        " segment      churn_28d     value_28d",
        " ────────────────────────────────────",
        " leaving   33.3% of 999   $1,234 of 1",
        " quiet                –             –",
    ]
    assert len(printed(write, width=100)) == 5


def test_a_table_without_rows_is_a_head() -> None:
    lines = printed(lambda console: print_wide(console, "Nobody", ("segment", []), [("users", [])], notes=("purpose", [])))
    assert lines[:2] == ["Nobody", " segment   purpose          users"]


# One person's story.

REASONS = [
    {"feature": "a", "value": 9.0, "contribution": 0.4, "phrase": "no purchase for 9 days"},
    {"feature": "b", "value": 2.0, "contribution": -0.1, "phrase": "2 purchases [so] far"},
]
ANN: dict[str, Any] = {
    "as_of": "2024-08-28",
    "user_id": "ann [b]",
    "behaviour": [{"feature": "known_days", "value": 60.0, "phrase": "known for 60 days"}],
    "scores": [
        {
            "target": "churn_28d",
            "meaning": "stops buying",
            "is_amount": False,
            "is_asked": True,
            "score": 0.4321,
            "percentile": 91.4,
            "band": "very_high",
            "method": "lightgbm",
            "model_version": "2",
            "reasons": REASONS,
        },
        {
            "target": "value_28d",
            "meaning": None,
            "is_amount": True,
            "is_asked": False,
            **dict.fromkeys(("score", "percentile", "band", "method", "model_version")),
            "reasons": [],
        },
    ],
    "persona": {"persona": 1, "name": "evening buyers", "typicality": 0.25},
    "journey_stage": "slipping",
    "journey_stage_days": 1.2,
    "loyalty_tier": "gold",
    "segments": [
        {
            "segment": "leaving",
            "purpose": "keep them",
            "is_primary": True,
            "since": "2024-08-21",
            "days": 7,
            "is_start_known": True,
            "enter_reason": "churn_28d_score >= 0.3 (0.41, was 0.2)",
        },
        {
            "segment": "quiet",
            "purpose": None,
            "is_primary": False,
            "since": "2024-08-14",
            "days": 14,
            "is_start_known": False,
            "enter_reason": None,
        },
    ],
    "history": [
        {
            "segment": "leaving",
            "entered_on": "2024-08-14",
            "is_start_known": False,
            "left_on": "2024-08-15",
            "enter_reason": "churn_28d_score >= 0.3 (0.31)",
            "leave_reason": "no longer churn_28d_score >= 0.3 (0.2, was 0.31)",
        },
        {"segment": "quiet", "entered_on": "2024-08-14", "left_on": None},
    ],
    "play": {
        "play": "voucher",
        "contact_channel": "letter",
        "contact_hour": 9,
        "contact_on": "2024-08-30",
        "contacts": 2,
        **dict.fromkeys(("holdout", "no_consent", "capped", "contacted_recently"), True),
        "actionable": False,
        "waits": True,
        "contacted_recency_days": 1.25,
    },
}


def story(user: Mapping[str, Any]) -> list[str]:
    return printed(lambda console: print_user(user, console, currency="€"), width=70)


def test_a_story_is_told_word_for_word() -> None:
    assert story(ANN) == [
        "User ann [b] on the night of 2024-08-28",
        "  persona 1: evening buyers (typicality 25%; 100% is the most",
        "      typical of it)",
        "  journey stage: slipping, for 1 day",
        "  loyalty tier: gold",
        "Behaviour",
        "  · known for 60 days",
        "Scores and reasons (↑ raises the score, ↓ lowers it)",
        "  churn_28d (stops buying): 43.2%, percentile 91, very high, by v2",
        "      lightgbm",
        "      ↑ no purchase for 9 days",
        "      ↓ 2 purchases [so] far",
        "  value_28d: no score, not eligible tonight",
        "Segments",
        "  leaving, primary, since 2024-08-21 (7 days)",
        "      purpose: keep them",
        "      that night: churn_28d_score >= 0.3 (0.41, was 0.2)",
        "  quiet, since 2024-08-14 or before (at least 14 days)",
        "Earlier stays",
        "  leaving, 2024-08-14 or before to 2024-08-15",
        "      came: churn_28d_score >= 0.3 (0.31)",
        "      left: no longer churn_28d_score >= 0.3 (0.2, was 0.31)",
        "What to do",
        "  do not contact tonight; planned was voucher by letter at 9:00",
        "      local time, for leaving. Why not:",
        "  · held out, to measure what contacting does",
        "  · no consent to any channel of the play",
        "  · capped: contacted 2 times in the time that the play's cap",
        "      looks back",
        "  · contacted recently: 1.2 days ago",
        "  · waiting until 2024-08-30: the play's delay is not over",
    ]


def test_of_whom_little_is_known_little_is_told() -> None:
    nothing = {"persona": None, "journey_stage": None, "loyalty_tier": None, "play": None}
    assert story(ANN | nothing | {"behaviour": [], "scores": [], "segments": [], "history": []}) == [
        "User ann [b] on the night of 2024-08-28",
        "  persona not known: too little was seen of the user's habits",
        "Behaviour",
        "Scores and reasons (↑ raises the score, ↓ lowers it)",
        "Segments",
        "  in none",
        "Earlier stays",
        "  none has ended since nights are recorded",
        "What to do",
        "  nothing: in no segment",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"actionable": True}, "  send voucher by letter at 9:00 local time, for leaving"),
        ({"actionable": True, "contact_channel": None, "contact_hour": None}, "  send voucher, for leaving"),
        ({"play": None}, "  nothing: leaving has no play"),
        ({"contacts": 1}, "  · capped: contacted once in the time that the play's cap looks"),
        ({"contacted_recency_days": None}, "  · contacted recently"),
    ],
)
def test_what_to_do(changes: dict[str, object], said: str) -> None:
    assert said in story(ANN | {"play": ANN["play"] | changes})


def test_who_entered_tonight_did_so_tonight() -> None:
    tonight = ANN["segments"][0] | {"since": "2024-08-28", "days": 0}
    assert "  leaving, primary, since tonight" in story(ANN | {"segments": [tonight]})


# Tables of groups, word for word.


def test_flow_is_told_word_for_word() -> None:
    flow = {
        "from": "2024-08-21",
        "to": "2024-08-28",
        "users": 1211,
        "before": ["leaving", "quiet", IN_NONE, "not known yet"],
        "after": ["leaving", "quiet", IN_NONE, "gone"],
        "counts": [[1200, 4, 0, 0], [0, 0, 0, 0], [0, 0, 5, 1], [1, 0, 0, 0]],
        "moves": [
            {"from": "leaving", "to": "quiet", "users": 4},
            {"from": IN_NONE, "to": "gone", "users": 1},
            {"from": "not known yet", "to": "leaving", "users": 1},
        ],
        "stays": [],
    }
    assert printed(lambda console: print_flow(flow, console)) == [
        "Primary segments from the night of 2024-08-21 to 2024-08-28: 6 of 1,211 users",
        "moved",
        "Rows: where users were; columns: where they are now, by the rows' numbers",
        "                        1   quiet   3   gone     all",
        " ───────────────────────────────────────────────────",
        "  1 leaving         1,200       4   ·      ·   1,204",
        "  3 in none             ·       ·   5      1       6",
        "  4 not known yet       1       ·   ·      ·       1",
        "    all             1,201       4   5      1   1,211",
        "Largest moves (3 of 3)",
        " from            to        users   of those who were there",
        " ─────────────────────────────────────────────────────────",
        " leaving         quiet         4             0.3% of 1,204",
        " in none         gone          1                16.7% of 6",
        " not known yet   leaving       1               100.0% of 1",
    ]


def kept(segment: str, stays: int, left_out: int, *shares: tuple[int, int, float | None]) -> dict[str, Any]:
    after = [
        {"days": days, "at_risk": at_risk, "share": share, "low": share and share - 0.1, "high": share and share + 0.1}
        for days, at_risk, share in shares
    ]
    return {"segment": segment, "stays": stays, "ended": 1, "left_out": left_out, "after": after}


def test_how_long_members_stay_is_told_as_far_as_it_is_known() -> None:
    stays = [kept("leaving", 9, 2, (7, 5, 0.8), (14, 0, None)), kept("quiet", 3, 1, (7, 0, None), (14, 0, None))]
    assert printed(lambda console: print_stays(stays, console)) == [
        "How long members stay: share still in after so many days (Kaplan-Meier), 95%",
        "interval, stays watched so long",
        " segment   stays   ended            7 days",
        " ─────────────────────────────────────────",
        " leaving       9       1   80% (70%–90%) 5",
        " quiet         3       1                 –",
        "No stay has been watched for 14 days yet.",
        "Of 3 stays that began on a segment's first night nobody knows when they really",
        "began: they are left out.",
    ]


def test_on_the_first_night_nobody_knows_how_long_members_stay() -> None:
    stays = [kept("leaving", 0, 2, (7, 0, None))]
    assert printed(lambda console: print_stays(stays, console), width=160) == [
        "Of 2 stays that began on a segment's first night nobody knows when they really began: "
        "how long members stay shows once others enter."
    ]
    assert printed(lambda console: print_stays([], console)) == []


MEANS = {"churn_28d": {"mean": 0.25, "users": 3}, "value_28d": {"mean": None, "users": 0}}
ASKED = [
    {"target": "churn_28d", "meaning": "stops buying", "is_amount": False},
    {"target": "value_28d", "meaning": None, "is_amount": True},
]


def test_segments_are_told_word_for_word() -> None:
    play = {"offer": "voucher", "channels": {"letter": 3}, "actionable": 1, "holdout": 2}
    play |= {"no_consent": 0, "capped": 0, "contacted_recently": 0, "waiting": 1}
    leaving = {"segment": "leaving", "purpose": "keep them", "members": 4, "primary": 4, "entered": None, "left": None}
    leaving |= {"mean_days_in": 2.5, "mean_scores": MEANS, "play": play}
    quiet = {"segment": "quiet", "purpose": "leave alone", "members": 0, "primary": 0, "entered": None, "left": None}
    quiet |= {"mean_days_in": None, "mean_scores": MEANS, "play": None}
    found = {"as_of": "2024-08-14", "before": None, "users": 6, "targets": ASKED, "segments": [leaving, quiet], "stays": []}
    found["in_none"] = {"users": 2, "mean_scores": MEANS}
    assert printed(lambda console: print_segments(found, console, currency="€"), width=110) == [
        "Segments on the night of 2024-08-14: 6 users, the first night",
        "Members, in order of priority: a user's first segment is the primary one; days in begin with the first",
        "recorded night",
        "                                                                 mean",
        "                                                                 days",
        " segment   purpose          members   primary   entered   left     in",
        " ────────────────────────────────────────────────────────────────────",
        " leaving   keep them              4         4         –      –    2.5",
        " quiet     leave alone            0         0         –      –      –",
        " in none   in no segment          –         2         –      –      –",
        "Mean score of members, and of how many",
        " segment    churn_28d   value_28d",
        " ────────────────────────────────",
        " leaving   25.0% of 3           –",
        " quiet     25.0% of 3           –",
        " in none   25.0% of 3           –",
        "What to do for those of whom it is the primary segment, how many may be contacted tonight (actionable), and",
        "why others not (several reasons may hold)",
        "                                        by                held        no            contacted",
        " segment   offer            users   letter   actionable    out   consent   capped    recently   waiting",
        " ──────────────────────────────────────────────────────────────────────────────────────────────────────",
        " leaving   voucher              4        3            1      2         0        0           0         1",
    ]


def test_personas_are_told_word_for_word() -> None:
    stages = {"loyal": 0.5, "active": 0.2, "new": 0.1, "lapsed": 0.1, "slipping": 0.06, "returned": 0.04}
    buyers = {"persona": 0, "name": "evening buyers", "users": 3, "share": 0.75, "mean_scores": MEANS, "journey_stages": stages}
    others = {"persona": None, "name": None, "users": 1, "share": 0.25, "mean_scores": MEANS, "journey_stages": {}}
    found = {"as_of": "2024-08-28", "users": 4, "targets": ASKED, "personas": [buyers, others]}
    assert printed(lambda console: print_personas(found, console, currency="€"), width=100) == [
        "Personas on the night of 2024-08-28: 4 users",
        "Users, and the stages of their journey",
        " persona            journey stages                                           users   share",
        " ─────────────────────────────────────────────────────────────────────────────────────────",
        " 0 evening buyers   loyal 50%, active 20%, new 10%, lapsed 10%, others 10%       3   75.0%",
        " not known          –                                                            1   25.0%",
        "Mean score, and of how many users",
        " persona             churn_28d   value_28d",
        " ─────────────────────────────────────────",
        " 0 evening buyers   25.0% of 3           –",
        " not known          25.0% of 3           –",
    ]


# The shop, as JSON, against its tables.


def test_segments_of_a_night_are_those_of_the_tables(shop: Path) -> None:
    found, now, before = told(shop, "segments"), night(shop), night(shop, SECOND)
    assert (found["as_of"], found["before"], found["users"]) == (LAST.isoformat(), SECOND.isoformat(), len(now))
    assert [row["segment"] for row in found["segments"]] == ["leaving", "quiet", "nobody"]
    assert found["in_none"]["users"] == now.primary_segment.isna().sum() > 0
    for row in found["segments"]:
        name = row["segment"]
        here, there = (set(rows.index[[name in names for names in rows.segments]]) for rows in (now, before))
        assert (row["members"], row["entered"], row["left"]) == (len(here), len(here - there), len(there - here)), name
        assert row["primary"] == (now.primary_segment == name).sum()
        score = now.churn_28d_score[sorted(here)].dropna()
        assert row["mean_scores"]["churn_28d"] == {"mean": pytest.approx(score.mean()) if len(score) else None, "users": len(score)}
        since = [dict(zip(row.segments, row.segments_since, strict=True))[name] for row in now.loc[sorted(here)].itertuples()]
        days = [(LAST - entered).days for entered in since]
        assert row["mean_days_in"] == (pytest.approx(sum(days) / len(days)) if days else None)
    assert [row["entered"] for row in found["segments"]][0] > 0 and [row["left"] for row in found["segments"]][0] > 0
    assert found["segments"][2]["members"] == 0


def test_what_to_do_is_counted_as_in_the_tables(shop: Path) -> None:
    leaving, quiet, nobody = told(shop, "segments")["segments"]
    rows = night(shop)
    own = rows[rows.primary_segment == "leaving"]
    why_not = ("holdout", "no_consent", "capped", "contacted_recently")
    assert leaving["play"] == {
        "offer": "voucher",
        "channels": {"letter": int((own.contact_channel == "letter").sum())},
        "actionable": int(own.actionable.sum()),
        **{name: int(own[name].sum()) for name in why_not},
        "waiting": int((pd.to_datetime(own.contact_on) > pd.Timestamp(LAST)).sum()),
    }
    assert all(leaving["play"][name] > 0 for name in ("actionable", "holdout", "no_consent", "waiting"))
    assert quiet["play"] is None and nobody["play"] is None


def test_the_first_night_has_no_night_before(shop: Path) -> None:
    found = told(shop, "segments", "--as-of", FIRST)
    assert found["before"] is None
    assert {(row["entered"], row["left"]) for row in found["segments"]} == {(None, None)}
    assert [(row["segment"], row["stays"]) for row in found["stays"]] == [("leaving", 0), ("quiet", 0)]


def test_stays_leave_out_the_first_night_and_are_open_until_they_end(shop: Path) -> None:
    rows = ledger(shop)
    leaving = rows[(rows.segment == "leaving")]
    later = leaving[leaving.entered_on > FIRST]
    found = told(shop, "segments")["stays"][0]
    assert (found["segment"], found["stays"], found["ended"], found["left_out"]) == (
        "leaving",
        len(later),
        later.left_on.notna().sum(),
        len(leaving) - len(later),
    )
    # One step: who came on the second night was seen again a week later, and who came on the last night says nothing yet.
    came = later[later.entered_on == SECOND]
    assert len(came) > came.left_on.notna().sum() > 0
    share = 1 - came.left_on.notna().mean()
    week, *others = found["after"]
    assert (week["days"], week["at_risk"], week["share"]) == (7, len(came), pytest.approx(share))
    assert 0 < week["low"] < share < week["high"] < 1
    assert {(row["at_risk"], row["share"], row["low"], row["high"]) for row in others} == {(0, None, None, None)}


def test_flow_counts_everybody_once(shop: Path) -> None:
    found = told(shop, "flow", "--from", FIRST)
    one, other = (night(shop, day).primary_segment.fillna(IN_NONE) for day in (FIRST, LAST))
    both = pd.DataFrame({"before": one, "after": other}).fillna({"before": "not known yet", "after": "gone"})
    counts = both.value_counts().to_dict()
    assert (found["from"], found["to"], found["users"]) == (FIRST.isoformat(), LAST.isoformat(), len(both))
    assert {
        (before, after): users
        for before, row in zip(found["before"], found["counts"], strict=True)
        for after, users in zip(found["after"], row, strict=True)
        if users
    } == counts
    moves = {(move["from"], move["to"]): move["users"] for move in found["moves"]}
    assert moves == {pair: users for pair, users in counts.items() if pair[0] != pair[1]}
    assert list(moves.values()) == sorted(moves.values(), reverse=True)


def test_flow_is_from_the_night_before_unless_said_otherwise(shop: Path) -> None:
    latest, earlier = told(shop, "flow"), told(shop, "flow", "--to", SECOND)
    assert (latest["from"], latest["to"]) == (SECOND.isoformat(), LAST.isoformat())
    assert (earlier["from"], earlier["to"]) == (FIRST.isoformat(), SECOND.isoformat())


def test_personas_are_everybody(shop: Path) -> None:
    found, rows = told(shop, "personas"), night(shop)
    assert {row["persona"]: (row["name"], row["users"]) for row in found["personas"]} == {
        None if pd.isna(number) else int(number): (None if pd.isna(number) else own.persona_name.iloc[0], len(own))
        for number, own in rows.groupby("persona", dropna=False)
    }
    assert sum(row["share"] for row in found["personas"]) == pytest.approx(1)
    for row in found["personas"]:
        assert sum(row["journey_stages"].values()) == pytest.approx(1)
    whole = told(shop)["personas"]
    assert [row["users"] for row in whole] == [row["users"] for row in found["personas"]]


def test_who_has_no_score_is_told_why() -> None:
    asked, unasked = ANN["scores"]
    nothing = dict.fromkeys(("score", "percentile", "band", "method", "model_version"))
    told = story(ANN | {"scores": [asked | nothing, unasked, unasked | {"is_asked": None}]})
    lines = [line for line in told if "no score" in line]
    assert [line.partition("no score")[2] for line in lines] == ["", ", not eligible tonight", ", no model of it was in charge"]


def of_user(shop: Path, user: str) -> None:
    """Compare what is told of a user with the tables."""
    found, row = told(shop, "user", user), night(shop).loc[user]
    scores = read(read_settings(shop).output, "scores", LAST).to_pandas().query("user_id == @user").set_index("target")
    for score in found["scores"]:
        own = scores.loc[score["target"]] if score["target"] in scores.index else None
        assert score["is_asked"] == (own is not None)
        assert score["score"] == (None if own is None else own.score)
        assert len(score["reasons"]) == (0 if own is None else 3)
        for reason in score["reasons"]:
            assert set(reason) == {field.name for field in REASON}
    assert found["persona"] == (
        None
        if pd.isna(row.persona)
        else {"persona": row.persona, "name": row.persona_name, "typicality": pytest.approx(row.persona_typicality)}
    )
    assert [segment["segment"] for segment in found["segments"]] == list(row.segments)
    assert [segment["since"] for segment in found["segments"]] == [day.isoformat() for day in row.segments_since]
    assert [segment["is_start_known"] for segment in found["segments"]] == [day > FIRST for day in row.segments_since]
    stays = ledger(shop).query("user_id == @user").sort_values(["entered_on", "segment"])
    assert [(stay["segment"], stay["entered_on"], stay["left_on"]) for stay in found["history"]] == [
        (stay.segment, stay.entered_on.isoformat(), None if pd.isna(stay.left_on) else stay.left_on.isoformat())
        for stay in stays.itertuples()
    ]
    if pd.isna(row.play):
        assert found["play"] is None
    else:
        assert {name: found["play"][name] for name in ("play", "holdout", "no_consent", "actionable")} == {
            name: row[name] for name in ("play", "holdout", "no_consent", "actionable")
        }
        assert found["play"]["contact_on"] == row.contact_on.isoformat()
    features = read(read_settings(shop).output, "features", LAST).to_pandas().set_index("user_id").loc[user]
    assert found["behaviour"] and all(said["value"] == features[said["feature"]] for said in found["behaviour"])


@pytest.mark.parametrize(
    "chosen",
    [
        lambda rows: rows.holdout.eq(True),
        lambda rows: rows.no_consent.eq(True),
        lambda rows: rows.actionable.eq(True),
        lambda rows: rows.segments.map(len) == 2,
        lambda rows: rows.segments.map(len) == 0,
        lambda rows: rows.churn_28d_score.isna(),
    ],
    ids=["held out", "no consent", "actionable", "in two segments", "in none", "not eligible"],
)
def test_a_user_is_told_as_in_the_tables(shop: Path, chosen: Callable[[pd.DataFrame], pd.Series]) -> None:
    rows = night(shop)
    of_user(shop, rows.index[chosen(rows)][0])


def test_who_left_has_a_history_with_reasons(shop: Path) -> None:
    left = ledger(shop).query("segment == 'leaving' and left_on.notna()", engine="python").iloc[0]
    of_user(shop, left.user_id)
    shown = " ".join(run("show", "user", left.user_id, "--config", shop).stdout.split())
    assert f"leaving, {left.entered_on}" in shown
    assert " ".join(left.leave_reason.split()) in shown


def test_a_past_night_tells_of_no_later_one(shop: Path) -> None:
    rows = ledger(shop)
    came_later = rows[rows.entered_on == LAST].user_id.iloc[0]
    found = told(shop, "user", came_later, "--as-of", SECOND)
    assert all(stay["entered_on"] <= SECOND.isoformat() for stay in found["history"])
    ends_later = rows[(rows.left_on == LAST) & (rows.entered_on == FIRST)].iloc[0]
    stay = next(
        stay
        for stay in told(shop, "user", ends_later.user_id, "--as-of", SECOND)["history"]
        if stay["segment"] == ends_later.segment
    )
    assert (stay["left_on"], stay["leave_reason"]) == (None, None)


# Figures.


@pytest.mark.parametrize("part", ["flow", "segments"])
def test_a_figure_is_drawn_without_users(shop: Path, part: str, tmp_path: Path) -> None:
    path = tmp_path / f"{part}.svg"
    shown = run("show", part, "--config", shop, "--figure", path)
    assert shown.exit_code == 0, shown.output
    assert f"drawn: {path}" in shown.stdout
    drawn = path.read_text()
    assert drawn.startswith("<?xml") and len(drawn) > 5_000
    users = set(night(shop).index)
    assert not users & set(drawn.replace("<!--", " ").replace("-->", " ").split())
    assert told(shop, part, "--figure", path)["figure"] == str(path)


# What is refused.


def refused(shop: Path, words: str, code: int, *said: str) -> str:
    shown = run("show", *words.split(), "--config", shop)
    message = " ".join(shown.stderr.split())
    assert (shown.exit_code, shown.stdout) == (code, ""), shown.output
    for part in said:
        assert part in message
    return message


def test_an_unknown_user_is_refused_and_nobody_else_is_named(shop: Path) -> None:
    message = refused(shop, "user u2x", 3, "there is no user 'u2x' in the night of 2024-08-28: ids are compared letter by letter")
    assert not set(night(shop).index) & set(message.replace("'", " ").split())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("segmens", 2, "show 'segmens' is not a part that can be shown: did you mean segments?"),
        ("user", 2, "show user needs the id of a user: `beforehand show user ID`"),
        ("segments u1", 2, "show segments takes no id"),
        ("personas --from 2024-08-14", 2, "--from and --to are for `show flow`"),
        ("user u1 --to 2024-08-14", 2, "--from and --to are for `show flow`"),
        ("flow --as-of 2024-08-14", 2, "show flow is between two nights: give --from and --to instead of --as-of"),
        ("personas --figure a.png", 2, "--figure draws `show flow` (who went where) or `show segments` (how long members stay)"),
        ("segments --figure a.gif", 2, "--figure 'a.gif' ends in none of .png, .svg, .pdf"),
        ("flow --from 2024-08-28 --to 2024-08-14", 2, "--from 2024-08-28 is not before --to 2024-08-14"),
        ("flow --from 2024-08-28", 2, "--from 2024-08-28 is not before --to 2024-08-28"),
        ("flow --from 2024-08", 2, "--from '2024-08' is not a date: write YYYY-MM-DD"),
        ("--from 2024-08-14", 2, "--from, --to and --figure belong to a part"),
        ("segments --as-of 2024-08-15", 3, "there is no night of 2024-08-15 below"),
        ("flow --from 2024-08-15", 3, "there are 2024-08-28, 2024-08-21, 2024-08-14"),
        ("flow --to 2024-08-14", 3, "there is no night before that of 2024-08-14 to compare with"),
    ],
)
def test_what_cannot_be_shown_is_refused(shop: Path, words: str, code: int, said: str) -> None:
    refused(shop, words, code, said)


def test_all_that_is_wrong_is_told_at_once(shop: Path) -> None:
    refused(shop, "flow u1 --as-of 2024-08-14 --figure a.gif", 2, "takes no id", "instead of --as-of", "'a.gif' ends in none of")


@pytest.mark.parametrize("place", ["nowhere/a.png", "file/a.png"])
def test_a_figure_that_cannot_be_written_is_refused(shop: Path, place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(
        shop, f"segments --figure {tmp_path / place}", 1, f"cannot write the figure {tmp_path / place}", "a folder that is there"
    )


@pytest.mark.parametrize("part", ["segments", "personas", "user u1", "flow"])
def test_without_a_night_nothing_is_shown(tmp_path: Path, part: str) -> None:
    (tmp_path / "orders.csv").touch()
    refused(shop_config(tmp_path), part, 3, "no night has been written below", "run `beforehand score --as-of DATE`")
