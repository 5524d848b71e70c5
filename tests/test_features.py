"""Features: true at the cutoff, whatever comes after it, and equal to a slow plain reference."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ibis.backends.duckdb import Backend
from numpy.testing import assert_allclose

from builders import DAY, HOUR, TICK, WINDOWS, at, events, feature_table, load_events
from features.build import build_features
from features.contract import COLUMNS
from features.families import declared
from features.moments import Moments, merge_moments
from features.snapshot import KEYS, snapshots
from features.windows import label

CUTOFF = at("2024-03-01")
COUPON, CAMPAIGN = "coupon_redeemed", "campaign_received"


def rows(table: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    """Give the rows in order, null as None."""
    chosen = table[list(columns)].astype(object)
    return sorted(chosen.where(chosen.notna(), None).itertuples(index=False, name=None), key=str)


def built(log: pd.DataFrame, *names: str, cutoff: datetime = CUTOFF, zone: str = "UTC") -> dict[str, tuple[float | None, ...]]:
    """Give the named features of every user."""
    table = feature_table(log, cutoff, zone=zone, only=names).reset_index()
    return {row[0]: row[1:] for row in rows(table, "user_id", *names)}


# The snapshot


def moments(engine: Backend, log: pd.DataFrame, zone: str = "UTC") -> Moments:
    return merge_moments(engine, load_events(engine, log, zone=zone))


def test_events_of_one_instant_type_and_order_are_one_moment(engine: Backend) -> None:
    line = {"user_id": "ann", "event_ts": "2024-02-01", "order_id": "o1", "amount": 2.0}
    log = events(
        {**line, "discount": 0.5},
        {**line, "discount": 0.0},
        line,
        {**line, "order_id": "o2"},
        {**line, "event_ts": at("2024-02-01") + TICK},
        {**line, "event_type": "visit", "amount": None},
    )
    found = moments(engine, log).events.execute().astype({"amount": float, "discount": float})
    assert rows(found, "event_type", "event_ts", "order_id", "lines", "discounted_lines", "amount", "discount") == [
        ("purchase", at("2024-02-01"), "o1", 3, 1, 6.0, 0.5),
        ("purchase", at("2024-02-01"), "o2", 1, 0, 2.0, None),
        ("purchase", at("2024-02-01") + TICK, "o1", 1, 0, 2.0, None),
        ("visit", at("2024-02-01"), "o1", 1, 0, None, None),
    ]


def test_snapshot_tables_hold_what_was_known(engine: Backend) -> None:
    log = events(
        {"user_id": "ann", "event_ts": "2024-02-01 23:30", "order_id": "o1", "amount": 5.0, "category": "tea", "brand": "x"},
        {"user_id": "ann", "event_ts": "2024-02-02 00:30", "order_id": "o1", "amount": 7.0, "category": "tea"},
        {"user_id": "ann", "event_ts": "2024-02-05 10:00", "amount": 1.0, "brand": "x"},
        {"user_id": "ann", "event_ts": "2024-02-05 11:00", "event_type": "visit", "category": "jam"},
        {"user_id": "ann", "event_ts": CUTOFF, "order_id": "o1", "amount": 99.0, "category": "jam", "brand": "y"},
    )
    tables = {base: table.execute() for base, table in snapshots(moments(engine, log), [CUTOFF]).items()}
    assert {base: len(table) for base, table in tables.items()} == {
        **{"events": 4, "purchases": 3, "orders": 2, "days": 3, "categories": 1, "brands": 1}
    }
    orders = tables["orders"].astype({"amount": float})
    assert rows(orders, *KEYS, "last_at", "amount") == [
        ("ann", CUTOFF, at("2024-02-02 00:30"), 12.0),
        ("ann", CUTOFF, at("2024-02-05 10:00"), 1.0),
    ]
    days = tables["days"]
    assert rows(days, "at", "gap") == [
        (at("2024-02-01 23:30"), None),
        (at("2024-02-02 00:30"), 1),
        (at("2024-02-05 10:00"), 3),
    ]
    assert rows(tables["categories"], "category", "last_at") == [("tea", at("2024-02-02 00:30"))]
    brands = tables["brands"].astype({"amount": float})
    assert rows(brands, "brand", "last_at", "amount") == [("x", at("2024-02-05 10:00"), 6.0)]


# Rules of time


@pytest.mark.parametrize(
    ("cutoff", "zone"),
    [
        pytest.param(at("2024-02-15"), "UTC", id="plain"),
        pytest.param(at("2024-03-01"), "UTC", id="over leap day"),
        pytest.param(at("2024-03-07"), "Asia/Kolkata", id="from leap day"),
        pytest.param(at("2024-04-02"), "Europe/Paris", id="clocks forward in Paris"),
        pytest.param(at("2024-11-05"), "America/New_York", id="clocks back in New York"),
    ],
)
def test_window_holds_its_start_and_not_its_end(cutoff: datetime, zone: str) -> None:
    log = events(
        ("before", cutoff - 7 * DAY - TICK, 1.0),
        ("start", cutoff - 7 * DAY, 1.0),
        ("last", cutoff - TICK, 1.0),
        ("at_cutoff", cutoff, 1.0),
        ("at_cutoff", cutoff - 20 * DAY, 1.0),
        ("after", cutoff, 1.0),
    )
    names = ("purchase_count_7d", "purchase_amount_sum_7d", "purchase_line_count_7d", "purchase_day_count_7d")
    assert built(log, *names, cutoff=cutoff, zone=zone) == {
        "at_cutoff": (0.0, 0.0, 0.0, 0.0),
        "before": (0.0, 0.0, 0.0, 0.0),
        "last": (1.0, 1.0, 1.0, 1.0),
        "start": (1.0, 1.0, 1.0, 1.0),
    }


def test_user_without_an_event_before_the_cutoff_has_no_row() -> None:
    log = events(("ann", CUTOFF - TICK), ("bob", CUTOFF), ("cem", CUTOFF + DAY))
    assert list(built(log, "purchase_count_7d")) == ["ann"]


def test_user_without_purchases_has_zero_counts_and_unknown_days() -> None:
    log = events(("ann", "2024-02-01", None, CAMPAIGN))
    names = ("purchase_count_28d", "purchase_amount_sum_28d", "purchase_recency_days", "purchase_day_rate", "purchase_frequency")
    assert built(log, *names) == {"ann": (0.0, 0.0, None, None, 0.0)}


INSTANTS = st.sampled_from([0 * DAY, TICK, HOUR, DAY, 7 * DAY - TICK, 7 * DAY, 7 * DAY + TICK, 13 * DAY, 14 * DAY, 30 * DAY])
EVENTS = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["ann", "bob", "cem", "dee"]),
        "event_ts": INSTANTS,
        "event_type": st.sampled_from(["purchase", "purchase", "purchase", COUPON, CAMPAIGN, "visit"]),
        "order_id": st.sampled_from([None, "o1", "o2"]),
        "amount": st.sampled_from([None, 0.0, 0.1, 2.5, 7.0]),
        "discount": st.sampled_from([None, 0.0, 0.3]),
        "category": st.sampled_from([None, "tea", "jam"]),
        "brand": st.sampled_from([None, "x", "y"]),
        "utc_offset_minutes": st.sampled_from([None, -300]),
    }
)
# Long logs and few examples: an engine and a query for each costs more than its rows.
PAST = st.lists(EVENTS, min_size=20, max_size=40).map(
    lambda drawn: [{**row, "event_ts": CUTOFF - max(row["event_ts"], TICK)} for row in drawn]
)
FUTURE = st.lists(EVENTS, min_size=8, max_size=20).map(
    lambda drawn: [{**row, "event_ts": CUTOFF + row["event_ts"]} for row in drawn]
)


@settings(max_examples=3)
@given(past=PAST, future=FUTURE, other=FUTURE | st.just([]))
def test_what_happens_from_the_cutoff_on_changes_no_feature(past: list[dict], future: list[dict], other: list[dict]) -> None:
    # Every event of `future` taken away and every one of `other` added: adding, changing and removing at once.
    one, two = feature_table(events(*past, *future), CUTOFF), feature_table(events(*past, *other), CUTOFF)
    pd.testing.assert_frame_equal(one, two, check_exact=True)


@settings(max_examples=2)
@given(log=PAST, order=st.randoms(use_true_random=False))
def test_order_of_the_rows_changes_nothing(log: list[dict], order: object) -> None:
    shuffled = list(log)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(feature_table(events(*log), CUTOFF), feature_table(events(*shuffled), CUTOFF), check_exact=True)


def test_many_cutoffs_in_one_call_equal_each_alone(engine: Backend) -> None:
    merged, features = moments(engine, random_log(), ZONE), declared(WINDOWS, COLUMNS)
    cutoffs = [CUTOFF - 100 * DAY, CUTOFF - TICK, CUTOFF]
    whole = build_features(merged, features, cutoffs).execute().set_index(KEYS).sort_index()
    alone = pd.concat([build_features(merged, features, [cutoff]).execute() for cutoff in cutoffs]).set_index(KEYS).sort_index()
    pd.testing.assert_frame_equal(whole, alone, check_exact=True)
    assert set(whole.index.get_level_values("cutoff")) == set(cutoffs)


def test_features_come_in_their_declared_order_as_numbers(engine: Backend) -> None:
    features = declared(WINDOWS, COLUMNS)
    table = build_features(moments(engine, events(("ann", "2024-02-01"))), features, [CUTOFF])
    assert table.columns == (*KEYS, *(feature.name for feature in features))
    assert {str(table[feature.name].type()) for feature in features} == {"float64"}


def test_log_of_required_columns_only_builds_what_is_left(engine: Backend) -> None:
    features = declared(WINDOWS, ["user_id", "event_ts", "event_type"])
    table = build_features(moments(engine, events(("ann", CUTOFF - 6 * HOUR))), features, [CUTOFF]).execute()
    assert rows(table, "user_id", "purchase_count_7d", "purchase_recency_days") == [("ann", 1.0, 0.25)]


def test_a_few_features_may_be_built_alone(engine: Backend) -> None:
    features = [feature for feature in declared(WINDOWS, COLUMNS) if feature.name in ("category_count", "purchase_frequency")]
    table = build_features(moments(engine, events(("ann", "2024-02-01"), ("bob", "2024-02-01", None, "visit"))), features, [CUTOFF])
    assert rows(table.execute(), "user_id", "purchase_frequency", "category_count") == [("ann", 0.0, 0.0), ("bob", 0.0, 0.0)]


def test_cutoff_named_twice_counts_once() -> None:
    log = events(("ann", CUTOFF - DAY, 5.0))
    assert feature_table(log, CUTOFF, CUTOFF, only=["purchase_amount_sum_7d"]).purchase_amount_sum_7d.tolist() == [5.0]


# The families, one behaviour each


def test_purchases_without_an_order_id_are_one_order_per_instant() -> None:
    log = events(
        *[("ann", "2024-02-28 10:00", 1.0)] * 2,
        ("ann", "2024-02-28 10:01", 1.0),
        {"user_id": "bob", "event_ts": "2024-02-28 10:00", "order_id": "o1"},
        {"user_id": "bob", "event_ts": "2024-02-28 10:00", "order_id": "o2"},
        {"user_id": "cem", "event_ts": "2024-02-28 10:00", "order_id": "o1"},
        {"user_id": "cem", "event_ts": "2024-02-29 10:00", "order_id": "o1"},
    )
    assert built(log, "purchase_count_7d", "purchase_line_count_7d") == {"ann": (2.0, 3.0), "bob": (2.0, 2.0), "cem": (1.0, 2.0)}


def test_order_counts_in_the_window_of_its_last_line_with_its_whole_spend() -> None:
    line = {"user_id": "ann", "order_id": "o1"}
    log = events(
        {**line, "event_ts": CUTOFF - 14 * DAY - HOUR, "amount": 5.0},
        {**line, "event_ts": CUTOFF - 14 * DAY, "amount": 7.0},
        {**line, "event_ts": CUTOFF, "amount": 100.0},
    )
    names = ("purchase_count_14d", "purchase_amount_sum_14d", "purchase_order_amount_mean_14d", "purchase_order_amount_max_14d")
    assert built(log, *names) == {"ann": (1.0, 7.0, 12.0, 12.0)}


def test_loyalty_is_recency_tenure_frequency_and_monetary_value() -> None:
    log = events(
        ("ann", "2024-02-10 00:00", 10.0),
        ("ann", "2024-02-20 08:00", 20.0),
        ("ann", "2024-02-20 20:00", 60.0),
        ("bob", "2024-02-28 12:00", 4.0),
        ("bob", "2024-03-05", 400.0),
    )
    names = ("purchase_recency_days", "purchase_tenure_days", "purchase_frequency", "purchase_monetary_value", "purchase_day_rate")
    found = built(log, *names)
    assert found == {"ann": (pytest.approx(9 + 4 / 24), 20.0, 1.0, 30.0, 0.1), "bob": (1.5, 1.5, 0.0, 4.0, pytest.approx(1 / 7))}


def test_rhythm_is_the_gaps_between_days_and_the_current_one_against_them() -> None:
    log = events(
        *[("ann", f"2024-02-{day:02d} 12:00") for day in (1, 3, 9)],
        ("ann", "2024-02-09 18:00"),
        ("once", "2024-02-09"),
        ("twice", "2024-02-01"),
        ("twice", "2024-02-11"),
    )
    names = ("purchase_gap_days_mean", "purchase_gap_days_std", "purchase_gap_days_max", "purchase_gap_variation")
    spread = pytest.approx(8**0.5)
    assert built(log, *names) == {
        "ann": (4.0, spread, 6.0, pytest.approx(8**0.5 / 4)),
        "once": (None, None, None, None),
        "twice": (10.0, None, 10.0, None),
    }
    assert built(log, "purchase_overdue_ratio", "purchase_overdue_against_longest") == {
        "ann": (pytest.approx(20.25 / 4), pytest.approx(20.25 / 6)),
        "once": (None, None),
        "twice": (pytest.approx(1.9), pytest.approx(1.9)),
    }


def test_gaps_are_counted_in_local_days_when_clocks_change() -> None:
    # In Paris 22:30 UTC is 23:30 on 30 March, and a day later, after clocks went forward, 00:30 on 1 April.
    log = events(("ann", "2024-03-30 22:30"), ("ann", "2024-03-31 22:30"))
    cutoff = at("2024-04-02")
    assert built(log, "purchase_gap_days_mean", "purchase_day_count_7d", cutoff=cutoff, zone="Europe/Paris") == {"ann": (2.0, 2.0)}
    assert built(log, "purchase_gap_days_mean", "purchase_day_count_7d", cutoff=cutoff, zone="UTC") == {"ann": (1.0, 2.0)}


def test_gap_over_leap_day_is_two_days() -> None:
    log = events(("ann", "2024-02-28"), ("ann", "2024-03-01"), ("bob", "2023-02-28"), ("bob", "2023-03-01"))
    assert built(log, "purchase_gap_days_max", cutoff=at("2024-03-02")) == {"ann": (2.0,), "bob": (1.0,)}


def test_trend_is_the_pace_of_a_window_against_a_longer_one() -> None:
    log = events(
        ("ann", CUTOFF - DAY, 6.0),
        ("ann", CUTOFF - 20 * DAY, 2.0),
        ("bob", CUTOFF - 20 * DAY, 2.0),
        ("cem", CUTOFF - 40 * DAY, 2.0),
    )
    assert built(log, "purchase_count_7d_vs_28d", "purchase_amount_sum_7d_vs_28d") == {
        "ann": (2.0, 3.0),
        "bob": (0.0, 0.0),
        "cem": (None, None),
    }


def test_trend_is_the_spend_of_a_window_against_the_one_before_and_against_history() -> None:
    log = events(
        ("ann", CUTOFF - DAY, 6.0),
        ("ann", CUTOFF - 7 * DAY, 1.0),
        ("ann", CUTOFF - 7 * DAY - TICK, 2.0),
        ("ann", CUTOFF - 14 * DAY, 2.0),
        ("ann", CUTOFF - 14 * DAY - TICK, 10.0),
        ("ann", CUTOFF - 56 * DAY, 7.0),
        ("new", CUTOFF - 2 * DAY, 5.0),
        ("gone", CUTOFF - 56 * DAY, 5.0),
    )
    assert built(log, "purchase_amount_sum_7d_vs_before", "purchase_amount_sum_28d_vs_history") == {
        "ann": (1.75, 1.5),
        "gone": (None, 0.0),
        "new": (None, 1.0),
    }


def test_variety_counts_distinct_things_once() -> None:
    def bought(day: int, category: str | None, brand: str | None, amount: float) -> dict[str, object]:
        return {"user_id": "ann", "event_ts": CUTOFF - day * DAY, "category": category, "brand": brand, "amount": amount}

    log = events(
        bought(1, "tea", "x", 6.0),
        bought(2, "tea", "y", 2.0),
        bought(10, "jam", "x", 3.0),
        bought(40, "rye", "x", 9.0),
        bought(183, "old", "y", 500.0),
        bought(1, None, None, 50.0),
        {**bought(1, "looked at", "z", 9.0), "event_type": "visit"},
        {**bought(0, "future", "z", 900.0)},
    )
    names = ("category_count_7d", "category_count_28d", "category_count", "brand_count_28d", "brand_favourite_share")
    assert built(log, *names) == {"ann": (1.0, 2.0, 4.0, 2.0, 0.9)}


def test_favourite_brand_is_of_the_last_half_year() -> None:
    def spent(user: str, instant: datetime, brand: str, amount: float) -> dict[str, object]:
        return {"user_id": user, "event_ts": instant, "brand": brand, "amount": amount}

    edge = CUTOFF - 182 * DAY
    log = events(
        spent("ann", edge, "x", 3.0), spent("ann", CUTOFF - DAY, "y", 1.0),
        spent("bob", edge - TICK, "x", 3.0), spent("bob", CUTOFF - DAY, "y", 1.0),
        spent("cem", edge - TICK, "x", 3.0),
        spent("dee", CUTOFF - DAY, "x", 0.0),
    )  # fmt: skip
    assert built(log, "brand_favourite_share") == {"ann": (0.75,), "bob": (1.0,), "cem": (None,), "dee": (None,)}


def test_promotion_counts_discounts_coupons_and_campaigns() -> None:
    log = events(
        {"user_id": "ann", "event_ts": CUTOFF - DAY, "discount": 1.5},
        {"user_id": "ann", "event_ts": CUTOFF - DAY, "discount": 0.0},
        {"user_id": "ann", "event_ts": CUTOFF - 2 * DAY},
        {"user_id": "ann", "event_ts": CUTOFF - 20 * DAY, "discount": 2.0},
        *[("ann", CUTOFF - 3 * DAY, None, COUPON)] * 2,
        ("ann", CUTOFF - 60 * DAY, None, COUPON),
        *[("ann", CUTOFF - day * DAY, None, CAMPAIGN) for day in (4, 5, 60, 61)],
        ("bob", CUTOFF - DAY, None, COUPON),
    )
    money = built(log, "discount_sum_14d", "discount_sum_28d", "discounted_line_share_28d")
    assert money == {"ann": (1.5, 3.5, 0.5), "bob": (0.0, 0.0, None)}
    counts = ("coupon_count_28d", "coupon_count", "campaign_count_28d", "campaign_count")
    assert built(log, *counts) == {"ann": (2.0, 3.0, 2.0, 4.0), "bob": (1.0, 1.0, 0.0, 0.0)}
    answers = built(log, "coupon_recency_days", "campaign_recency_days", "coupon_per_campaign")
    assert answers == {"ann": (3.0, 4.0, 0.75), "bob": (1.0, None, None)}


def test_timing_is_local() -> None:
    # New York is five hours behind: Saturday 02:00 UTC is Friday evening, Monday 01:00 UTC is Sunday evening.
    log = events(
        *[("ann", text) for text in ("2024-02-24 02:00", "2024-02-26 01:00", "2024-02-27 15:00", "2024-02-28 17:00")],
        {"user_id": "bob", "event_ts": "2024-02-24 02:00", "utc_offset_minutes": 600},
    )
    shares = [f"{part}_purchase_share_28d" for part in ("morning", "afternoon", "evening", "weekend")]
    assert built(log, *shares, zone="America/New_York") == {
        "ann": (0.25, 0.25, 0.5, 0.25),
        "bob": (0.0, 1.0, 0.0, 1.0),
    }


# The slow reference

ZONE = "America/New_York"
LONG = tuple(days * DAY for days in (7, 14, 28, 56, 84, 168))


def random_log(occasions: int = 160) -> pd.DataFrame:
    """Make occasions of one to four lines for six users in 280 days around the cutoff, window edges included, nulls everywhere."""
    draw = np.random.default_rng(7)
    edges = [CUTOFF - window - tick for window in (TICK, *LONG) for tick in (TICK, 0 * TICK)]

    def pick(*values: object) -> object:
        return values[draw.integers(len(values))]

    rows: list[dict[str, object]] = []
    for number in range(occasions):
        begins = edges[number] if number < len(edges) else CUTOFF + 14 * DAY - int(draw.integers(24 * 280)) * HOUR
        kind = pick("purchase", "purchase", "purchase", "purchase", COUPON, CAMPAIGN, "visit")
        occasion = {"user_id": f"u{number % 6}", "event_type": kind, "order_id": pick(None, f"o{number}", f"o{number // 40}")}
        occasion["utc_offset_minutes"] = pick(None, None, None, 330)
        for _ in range(int(draw.integers(1, 5))):
            line = {
                "event_ts": begins + pick(0, 0, 7, 120) * timedelta(minutes=1),
                "amount": pick(None, 0.0, *draw.integers(-200, 9000, 6) / 100),
                "discount": pick(None, 0.0, 0.0, *draw.integers(1, 300, 2) / 100),
                "category": pick(None, *"abcdefg"),
                "brand": pick(None, *"xyz"),
            }
            rows.append({**occasion, **line})
    return events(
        *rows,
        {"user_id": "u0", "event_ts": CUTOFF, "amount": 50.0, "category": "at the cutoff"},
        {"user_id": "new", "event_ts": CUTOFF - 3 * DAY, "amount": 5.0},
        {"user_id": "campaign only", "event_ts": CUTOFF - 30 * DAY, "event_type": CAMPAIGN},
    )


def local(row: pd.Series) -> datetime:
    if pd.notna(row.utc_offset_minutes):
        return row.event_ts + timedelta(minutes=row.utc_offset_minutes)
    return row.event_ts.tz_localize("UTC").tz_convert(ZoneInfo(ZONE)).tz_localize(None)


def share(of: float, whole: float) -> float:
    return of / whole if whole else np.nan


def total(amounts: pd.Series) -> float:
    return round(amounts.sum(), 6)


def days_since(instants: pd.Series, cutoff: datetime) -> float:
    return (cutoff - instants.max()) / DAY if len(instants) else np.nan


def reference(known: pd.DataFrame, cutoff: datetime) -> dict[str, float]:
    """Compute every feature of one user from what was known of them, the plain way."""
    bought = known[known.event_type == "purchase"]
    orders = bought.groupby(bought.order_id.fillna(bought.event_ts.astype(str))).agg(
        last=("event_ts", "max"), local=("local", "max"), amount=("amount", lambda amounts: amounts.sum(min_count=1))
    )
    days = bought.groupby(bought.local.dt.normalize()).event_ts.min()
    gaps = pd.Series(days.index).diff().dt.days.dropna()
    coupons, campaigns = (known.event_ts[known.event_type == kind] for kind in (COUPON, CAMPAIGN))
    row = {
        "purchase_recency_days": days_since(orders["last"], cutoff),
        "purchase_tenure_days": (cutoff - bought.event_ts.min()) / DAY if len(orders) else np.nan,
        "purchase_frequency": max(len(days) - 1, 0),
        "purchase_monetary_value": orders.amount.mean(),
        "purchase_amount_sum": total(bought.amount),
        "purchase_gap_days_mean": gaps.mean(),
        "purchase_gap_days_std": gaps.std(),
        "purchase_gap_days_max": gaps.max(),
        "category_count": bought.category.nunique(),
        "coupon_count": len(coupons),
        "campaign_count": len(campaigns),
        "coupon_recency_days": days_since(coupons, cutoff),
        "campaign_recency_days": days_since(campaigns, cutoff),
        "coupon_per_campaign": share(len(coupons), len(campaigns)),
    }
    row["purchase_day_rate"] = (row["purchase_frequency"] + 1) / np.maximum(row["purchase_tenure_days"], 7)
    row["purchase_gap_variation"] = row["purchase_gap_days_std"] / row["purchase_gap_days_mean"]
    row["purchase_overdue_ratio"] = row["purchase_recency_days"] / row["purchase_gap_days_mean"]
    row["purchase_overdue_against_longest"] = row["purchase_recency_days"] / row["purchase_gap_days_max"]
    by_brand = bought[bought.event_ts >= cutoff - 182 * DAY].groupby("brand").amount.sum(min_count=1)
    row["brand_favourite_share"] = share(by_brand.max(), by_brand.sum())
    for place, window in enumerate(LONG):
        start, name = cutoff - window, label(window)
        lines, recent = bought[bought.event_ts >= start], orders[orders["last"] >= start]
        row[f"purchase_count_{name}"] = len(recent)
        row[f"purchase_amount_sum_{name}"] = total(lines.amount)
        row[f"purchase_line_count_{name}"] = len(lines)
        row[f"purchase_day_count_{name}"] = (days >= start).sum()
        row[f"category_count_{name}"] = lines.category.nunique()
        if place % 2 == 1:
            row[f"purchase_order_amount_mean_{name}"] = recent.amount.mean()
            row[f"purchase_order_amount_max_{name}"] = recent.amount.max()
        if place >= 1:
            row[f"discount_sum_{name}"] = lines.discount.sum()
        if place >= 2:
            row[f"discounted_line_share_{name}"] = share((lines.discount > 0).sum(), len(lines))
            row[f"coupon_count_{name}"] = (coupons >= start).sum()
            row[f"campaign_count_{name}"] = (campaigns >= start).sum()
            short = LONG[place - 2]
            for measure in ("purchase_count", "purchase_amount_sum"):
                pace = share(row[f"{measure}_{label(short)}"], row[f"{measure}_{name}"])
                row[f"{measure}_{label(short)}_vs_{name}"] = pace * (window / short)
            long = max(row["purchase_tenure_days"], window / DAY)
            pace = share(row[f"purchase_amount_sum_{name}"], row["purchase_amount_sum"])
            row[f"purchase_amount_sum_{name}_vs_history"] = pace * long / (window / DAY)
        if 2 * window in LONG:
            before = bought[(bought.event_ts >= start - window) & (bought.event_ts < start)]
            row[f"purchase_amount_sum_{name}_vs_before"] = share(total(lines.amount), total(before.amount))
    hours = recent.local.dt.hour
    row["brand_count_168d"] = lines.brand.nunique()
    row["morning_purchase_share_168d"] = ((hours >= 5) & (hours < 12)).mean()
    row["afternoon_purchase_share_168d"] = ((hours >= 12) & (hours < 17)).mean()
    row["evening_purchase_share_168d"] = ((hours >= 17) & (hours < 22)).mean()
    row["weekend_purchase_share_168d"] = (recent.local.dt.day_of_week >= 5).mean()
    return row


def test_every_feature_equals_the_slow_reference() -> None:
    log = random_log()
    found = feature_table(log, CUTOFF - 120 * DAY, CUTOFF, zone=ZONE, windows=LONG)
    typed = log.astype(dict.fromkeys(("amount", "discount", "utc_offset_minutes"), float))
    typed["local"] = typed.apply(local, axis="columns")
    expected = {
        (user, cutoff): reference(own[own.event_ts < cutoff], cutoff)
        for user, own in typed.groupby("user_id")
        for cutoff in (CUTOFF - 120 * DAY, CUTOFF)
        if (own.event_ts < cutoff).any()
    }
    slow = pd.DataFrame(expected.values(), index=pd.MultiIndex.from_tuples(expected, names=KEYS)).sort_index()
    assert list(found.index) == list(slow.index)
    assert sorted(found.columns) == sorted(slow.columns)
    for name in found.columns:
        assert_allclose(found[name], slow[name].astype(float), rtol=1e-9, atol=1e-9, err_msg=name)
