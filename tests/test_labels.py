"""Labels: what really happened in `[cutoff, cutoff + horizon)`, for whom the question is asked."""

from dataclasses import replace
from datetime import datetime, timedelta

import pandas as pd
import pytest
from ibis.backends.sql import SQLBackend

from builders import DAY, TICK, at, events, load_events
from features.labels import Eligible, Kind, Target, build_labels, definition, eligible_users, first_met
from features.windows import LONGEST

CUTOFF = at("2024-03-01")
PURCHASES = "event_type = 'purchase'"


def target(kind: Kind, **changes: object) -> Target:
    whole = Target(name=kind, kind=kind, horizon=28 * DAY, events=PURCHASES, eligible=Eligible(28 * DAY), meaning="")
    return replace(whole, **changes)  # type: ignore[arg-type]


def labels(engine: SQLBackend, log: pd.DataFrame, asked: Target, *cutoffs: datetime) -> list[tuple[str, str, float]]:
    """Give the whole label table, in order."""
    found = build_labels(load_events(engine, log), asked, cutoffs or (CUTOFF,)).execute()
    return sorted((row.user_id, f"{row.cutoff:%m-%d}", row.label) for row in found.itertuples())


def test_absence_is_1_when_nothing_matching_happens(engine: SQLBackend) -> None:
    log = events(
        ("gone", "2024-02-20"),
        ("stays", "2024-02-20"),
        ("stays", "2024-03-15"),
        ("looks", "2024-02-20"),
        ("looks", "2024-03-15", None, "visit"),
        ("late", "2024-02-20"),
        ("late", "2024-04-20"),
    )
    assert labels(engine, log, target("absence")) == [
        ("gone", "03-01", 1.0),
        ("late", "03-01", 1.0),
        ("looks", "03-01", 1.0),
        ("stays", "03-01", 0.0),
    ]


def test_occurrence_is_1_from_min_count_matching_events(engine: SQLBackend) -> None:
    log = events(
        *[(user, "2024-02-20") for user in ("none", "one", "two", "three", "other")],
        ("one", "2024-03-02", None, "coupon_redeemed"),
        *[("two", f"2024-03-0{day}", None, "coupon_redeemed") for day in (2, 3)],
        *[("three", f"2024-03-0{day}", None, "coupon_redeemed") for day in (2, 3, 4)],
        *[("other", f"2024-03-0{day}") for day in (2, 3, 4)],
    )
    asked = target("occurrence", events="event_type = 'coupon_redeemed'", min_count=2)
    assert labels(engine, log, asked) == [
        ("none", "03-01", 0.0),
        ("one", "03-01", 0.0),
        ("other", "03-01", 0.0),
        ("three", "03-01", 1.0),
        ("two", "03-01", 1.0),
    ]


def test_growth_is_1_from_ratio_times_the_trailing_average(engine: SQLBackend) -> None:
    # 84 of spend in 84 days is 28 per horizon, so 1.25 times that is 35.
    log = events(
        *[(user, "2024-02-20", 84.0) for user in ("exact", "below", "above", "gone")],
        ("exact", "2024-03-02", 15.0),
        ("exact", "2024-03-03", 20.0),
        ("below", "2024-03-02", 34.99),
        ("above", "2024-03-02", 100.0),
        ("before", "2023-12-08 00:00", 56.0),
        ("before", "2024-02-20", 28.0),
        ("before", "2024-03-02", 35.0),
    )
    assert labels(engine, log, target("growth")) == [
        ("above", "03-01", 1.0),
        ("before", "03-01", 1.0),
        ("below", "03-01", 0.0),
        ("exact", "03-01", 1.0),
        ("gone", "03-01", 0.0),
    ]


def test_growth_asks_only_those_with_something_to_grow_from(engine: SQLBackend) -> None:
    log = events(
        ("free", "2024-02-20", 0.0),
        ("unknown", "2024-02-20", None),
        ("refund", "2024-02-20", -5.0),
        ("paid", "2024-02-20", 5.0),
        *[(user, "2024-03-02", 100.0) for user in ("free", "unknown", "refund", "paid")],
    )
    assert labels(engine, log, target("growth")) == [("paid", "03-01", 1.0)]


@pytest.mark.parametrize(("ratio", "label"), [(2.0, 1.0), (2.01, 0.0)])
def test_growth_of_another_measure_over_another_trailing_window(engine: SQLBackend, ratio: float, label: float) -> None:
    row = {"user_id": "ann", "amount": 1000.0}
    log = events(
        {**row, "event_ts": CUTOFF - 56 * DAY - TICK, "quantity": 1000},
        {**row, "event_ts": CUTOFF - 56 * DAY, "quantity": 4},
        {**row, "event_ts": CUTOFF - DAY, "quantity": 4},
        {**row, "event_ts": CUTOFF, "quantity": 8},
    )
    asked = target("growth", measure="quantity", ratio=ratio, trailing=56 * DAY)
    assert labels(engine, log, asked) == [("ann", "03-01", label)]


@pytest.mark.parametrize(("lookback", "new"), [(84 * DAY, ["long_ago", "never", "starts"]), (LONGEST, ["never", "starts"])])
def test_first_asks_only_those_without_a_match_in_the_lookback(engine: SQLBackend, lookback: timedelta, new: list[str]) -> None:
    deli, edge = {"category": "DELI"}, CUTOFF - 84 * DAY
    log = events(
        *[(user, "2024-02-20") for user in ("starts", "never", "again", "edge", "long_ago")],
        {"user_id": "starts", "event_ts": "2024-03-05", **deli},
        {"user_id": "again", "event_ts": "2024-02-10", **deli},
        {"user_id": "again", "event_ts": "2024-03-05", **deli},
        {"user_id": "edge", "event_ts": edge, **deli},
        {"user_id": "edge", "event_ts": "2024-03-05", **deli},
        {"user_id": "long_ago", "event_ts": edge - TICK, **deli},
        {"user_id": "long_ago", "event_ts": "2024-03-05", **deli},
        {"user_id": "stranger", "event_ts": "2024-03-05", **deli},
    )
    asked = target("first", events=f"{PURCHASES} AND category = 'DELI'", lookback=lookback)
    assert labels(engine, log, asked) == [(user, "03-01", float(user != "never")) for user in new]


def test_value_is_the_sum_of_the_measure(engine: SQLBackend) -> None:
    log = events(
        *[(user, "2024-02-20", 99.0) for user in ("none", "some", "unknown", "refund")],
        ("some", "2024-03-02", 5.5),
        ("some", "2024-03-03", 7.0),
        ("some", "2024-03-04", 50.0, "visit"),
        ("unknown", "2024-03-02", None),
        ("refund", "2024-03-02", -3.0),
    )
    assert labels(engine, log, target("value")) == [
        ("none", "03-01", 0.0),
        ("refund", "03-01", -3.0),
        ("some", "03-01", 12.5),
        ("unknown", "03-01", 0.0),
    ]


@pytest.mark.parametrize("measure", ["amount", "quantity", "discount"])
def test_value_sums_the_named_measure(engine: SQLBackend, measure: str) -> None:
    log = events(
        ("ann", "2024-02-20"), {"user_id": "ann", "event_ts": "2024-03-02", "amount": 1.0, "quantity": 2.0, "discount": 4.0}
    )
    expected = {"amount": 1.0, "quantity": 2.0, "discount": 4.0}[measure]
    assert labels(engine, log, target("value", measure=measure)) == [("ann", "03-01", expected)]


CUTOFFS = [
    pytest.param(at("2024-03-01"), id="plain"),
    pytest.param(at("2024-02-28"), id="over leap day"),
    pytest.param(at("2024-02-29"), id="from leap day"),
    pytest.param(at("2024-03-30 12:00"), id="clocks forward in Paris"),
    pytest.param(at("2024-11-02 12:00"), id="clocks back in New York"),
]


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("horizon", [timedelta(hours=36), 28 * DAY])
def test_horizon_is_closed_on_the_left_and_open_on_the_right(engine: SQLBackend, cutoff: datetime, horizon: timedelta) -> None:
    log = events(
        *[(user, cutoff - TICK) for user in ("before", "start", "end", "after")],
        ("start", cutoff),
        ("end", cutoff + horizon - TICK),
        ("after", cutoff + horizon),
    )
    found = build_labels(load_events(engine, log, zone="Europe/Paris"), target("occurrence", horizon=horizon), [cutoff]).execute()
    assert dict(zip(found.user_id, found.label, strict=True)) == {"before": 0.0, "start": 1.0, "end": 1.0, "after": 0.0}


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("kind", ["absence", "first"])
def test_active_within_is_closed_on_the_left_and_open_on_the_right(engine: SQLBackend, cutoff: datetime, kind: Kind) -> None:
    log = events(
        ("too_long_ago", cutoff - 28 * DAY - TICK),
        ("just", cutoff - 28 * DAY),
        ("last", cutoff - TICK),
        ("at_cutoff", cutoff),
        ("looks", cutoff - DAY, None, "visit"),
    )
    asked = target(kind, events="event_type = 'coupon_redeemed'")
    found = eligible_users(load_events(engine, log), asked, [cutoff]).execute()
    assert sorted(found.user_id) == ["just", "last"]
    assert list(found.columns) == ["user_id", "cutoff"]


def test_activity_may_be_any_events(engine: SQLBackend) -> None:
    log = events(("buys", "2024-02-20"), ("looks", "2024-02-20", None, "visit"), ("looks", "2024-03-02"))
    asked = target("occurrence", eligible=Eligible(28 * DAY, "event_type = 'visit' OR amount > 5"))
    assert labels(engine, log, asked) == [("looks", "03-01", 1.0)]


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("(amount > 5) is true", ["ten"]),
        ("(amount > 5) is not true", ["five", "none"]),
        ("amount / (amount - 5) > 1", ["ten"]),
        ("event_type like 'pur%' and amount is not null", ["five", "ten"]),
        ("event_type ilike upper(event_type) and amount + 0.5 in (5.5, 7)", ["five"]),
        ("event_ts >= '2024-03-03'", ["none", "ten"]),
    ],
)
def test_a_condition_means_the_same_on_every_engine(engine: SQLBackend, condition: str, met: list[str]) -> None:
    bought = (("five", "2024-03-02", 5.0), ("none", "2024-03-03", None), ("ten", "2024-03-04", 10.0))
    log = events(*((user, "2024-02-20") for user, *_told in bought), *bought)
    found = labels(engine, log, target("occurrence", events=condition))
    assert [user for user, _cutoff, label in found if label] == met


def test_who_cancelled_since_the_last_activity_is_not_asked(engine: SQLBackend) -> None:
    log = events(
        *[(user, "2024-02-20") for user in ("stays", "leaves", "returns", "at_once", "later", "long_ago")],
        ("leaves", "2024-02-25", None, "cancelled"),
        ("returns", "2024-02-22", None, "cancelled"),
        ("returns", "2024-02-23"),
        ("at_once", "2024-02-20", None, "cancelled"),
        ("later", CUTOFF, None, "cancelled"),
        ("long_ago", "2024-01-02", None, "cancelled"),
        ("never", "2024-02-25", None, "cancelled"),
    )
    cancelled = "event_type = 'cancelled'"
    asked = target("occurrence", events=cancelled, eligible=Eligible(28 * DAY, PURCHASES, cancelled))
    left = [(user, "03-01", float(user == "later")) for user in ("later", "long_ago", "returns", "stays")]
    assert labels(engine, log, asked) == left
    assert definition(asked)["eligible"]["until"] == cancelled
    # Models from before there was such a key answer the same question.
    assert "until" not in definition(target("occurrence"))["eligible"]


def test_each_cutoff_has_its_own_eligible_users_and_labels(engine: SQLBackend) -> None:
    log = events(("ann", "2024-01-20"), ("ann", "2024-02-20"), ("bob", "2024-01-25"))
    assert labels(engine, log, target("absence"), at("2024-02-01"), at("2024-03-01"), at("2024-03-31")) == [
        ("ann", "02-01", 0.0),
        ("ann", "03-01", 1.0),
        ("bob", "02-01", 1.0),
    ]


@pytest.mark.parametrize("kind", ["absence", "occurrence", "growth", "first", "value"])
def test_many_cutoffs_in_one_call_equal_each_alone(engine: SQLBackend, kind: Kind) -> None:
    log = events(*[(f"u{n % 4}", at("2024-01-01") + n * n * timedelta(hours=1, seconds=1), float(n % 7)) for n in range(60)])
    cutoffs = [at("2024-01-20"), at("2024-02-10"), at("2024-02-24"), at("2024-03-09")]
    eligible = Eligible(21 * DAY, until="amount = 1")
    asked = target(kind, horizon=14 * DAY, trailing=42 * DAY, lookback=7 * DAY, eligible=eligible)
    table = load_events(engine, log)
    whole = build_labels(table, asked, cutoffs).execute()
    alone = pd.concat([build_labels(table, asked, [cutoff]).execute() for cutoff in cutoffs])
    order = ["cutoff", "user_id"]
    pd.testing.assert_frame_equal(
        whole.sort_values(order, ignore_index=True), alone.sort_values(order, ignore_index=True), check_exact=True
    )
    assert whole.cutoff.nunique() > 1


def test_nobody_is_asked_about_an_empty_past(engine: SQLBackend) -> None:
    assert labels(engine, events(("ann", "2024-03-02")), target("value")) == []


def test_the_first_event_that_meets_any_condition_is_found(engine: SQLBackend) -> None:
    log = load_events(
        engine, events(("ann", "2024-01-01", None, "mail"), ("ann", "2024-01-03"), ("bob", "2024-01-02", None, "visit"))
    )
    found = [first_met(log, asked).execute() for asked in ([PURCHASES], [PURCHASES, "event_type = 'visit'"])]
    assert found == [at("2024-01-03"), at("2024-01-02")]
    assert pd.isna(first_met(log, ["event_type = 'call'"]).execute())


def test_only_a_value_target_scores_an_amount() -> None:
    assert [kind for kind in ("absence", "occurrence", "growth", "first", "value") if target(kind).is_amount] == ["value"]
