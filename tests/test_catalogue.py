"""Catalogue: names, wording, and what is declared for which columns."""

import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from ibis import _

from builders import DAY, HOUR
from features.catalogue import NAME, Feature, amount, feature_name, phrase, unique_by_name
from features.contract import COLUMNS, REQUIRED
from features.declare import Wanted, declared, reads, switched_off
from features.event_types import KNOWN
from features.families import FAMILIES

WINDOWS = tuple(days * DAY for days in (7, 14, 28, 56, 84, 168))
VALUES = {"category": ["tea"], "channel": ["web"], "device": ["phone"], "source": ["{mail}"]}
WANTED = Wanted(WINDOWS, values=VALUES, attributes={"tier": False, "household_size": True})
ALL = declared(WANTED, COLUMNS).features
BY_NAME = {feature.name: feature for feature in ALL}


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (23.4, "days", "23 days"),
        (1.2, "days", "1 day"),
        (0.95, "days", "1 day"),
        (0.94, "days", "23 hours"),
        (0.02, "days", "less than an hour"),
        (0.0, "days", "no days"),
        (1234.0, "days", "1,234 days"),
        (0.349, "share", "35%"),
        (0.0, "share", "0%"),
        (1.0, "purchase", "1 purchase"),
        (2.0, "purchase", "2 purchases"),
        (0.0, "purchase", "no purchases"),
        (2.0, "category", "2 categories"),
        (0.0, "category", "no categories"),
        (3.0, "day", "3 days"),
        (1.26, "times", "1.3 times"),
        (4.0, "score", "4"),
        (72.6, "percentile", "73%"),
        (7.0, "o'clock", "7:00"),
        (1.26, "mixture", "1.3"),
        (5.4, "hour", "5 hours"),
        (0.2, "hour", "less than an hour"),
        (3.0, "number", "3"),
        (1234.5, "number", "1,234.5"),
        (0.0, "money", "nothing"),
        (12.345, "money", "€12.35"),
        (99.5, "money", "€99.50"),
        (1234.5, "money", "€1,234"),
        (-3.5, "money", "€-3.50"),
    ],
)
def test_amount_writes_a_value_with_its_unit(value: float, unit: str, said: str) -> None:
    assert amount(value, unit, currency="€") == said


def test_amount_of_money_needs_no_currency() -> None:
    assert amount(5, "money") == "5.00"


def feature(name: str = "break_days", **changes: str) -> Feature:
    given = {
        "base": "orders",
        "unit": "days",
        "meaning": "days since the last order",
        "phrase": "no order for {value}",
        "group": "g",
    }
    return Feature(name=name, expr=_.count(), **{**given, **changes})  # type: ignore[arg-type]


BREAK = feature(usual="gap_days", usual_phrase="usually every {value}")
GAP = feature("gap_days")


def test_phrase_says_the_value_and_what_is_usual() -> None:
    said = phrase(BREAK, {"break_days": 23.0, "gap_days": 5.0}, {"gap_days": GAP})
    assert said == "no order for 23 days, usually every 5 days"


@pytest.mark.parametrize(
    "row", [{"break_days": 23.0}, {"break_days": 23.0, "gap_days": None}, {"break_days": 23.0, "gap_days": float("nan")}]
)
def test_phrase_leaves_out_an_unknown_comparison(row: dict[str, float | None]) -> None:
    assert phrase(BREAK, row, {"gap_days": GAP}) == "no order for 23 days"


@pytest.mark.parametrize("row", [{}, {"break_days": None}, {"break_days": float("nan")}])
def test_phrase_says_that_a_value_is_not_known(row: dict[str, float | None]) -> None:
    assert phrase(BREAK, {**row, "gap_days": 5.0}, {"gap_days": GAP}) == "days since the last order is not known"


def test_phrase_writes_money_in_the_currency() -> None:
    spend = feature("spend", unit="money", phrase="spent {value}", usual="mean_spend", usual_phrase="usually {value}")
    row = {"spend": 12.0, "mean_spend": 8.5}
    assert phrase(spend, row, {"mean_spend": feature("mean_spend", unit="money")}, currency="$") == "spent $12.00, usually $8.50"


@pytest.mark.parametrize(
    ("window", "against", "name"),
    [(None, None, "purchase_count"), (28 * DAY, None, "purchase_count_28d"), (28 * DAY, 84 * DAY, "purchase_count_28d_vs_84d")],
)
def test_feature_name_has_one_form(window: timedelta | None, against: timedelta | None, name: str) -> None:
    assert feature_name("purchase", "count", window, against=against) == name


def test_names_declared_twice_fail_loudly() -> None:
    with pytest.raises(ValueError, match="features declared twice: a, b$"):
        unique_by_name([feature("b"), feature("a"), feature("c"), feature("a"), feature("b")])


def test_every_declared_name_is_unique_and_plain() -> None:
    counts = Counter(feature.name for feature in ALL)
    assert len(ALL) > 230
    assert [name for name, count in counts.items() if count > 1 or not re.fullmatch(r"[a-z][a-z0-9_]*", name)] == []


def test_declared_order_does_not_depend_on_the_order_of_windows() -> None:
    names = [feature.name for feature in ALL]
    assert declared(replace(WANTED, windows=WINDOWS[::-1]), COLUMNS).names == names


@pytest.mark.parametrize("declared_feature", ALL, ids=lambda feature: feature.name)
def test_every_phrase_says_its_value_and_nothing_unfilled(declared_feature: Feature) -> None:
    value = "gold" if declared_feature.unit == NAME else amount(13.6, declared_feature.unit, currency="$")
    filled = declared_feature.phrase.format(value=value)
    assert value in filled
    said = [filled.replace("{mail}", "mail"), declared_feature.unknown.format(meaning=declared_feature.meaning)]
    for text in (*said, declared_feature.meaning, declared_feature.unit, declared_feature.group):
        assert text
        assert text == text.strip()
        assert "  " not in text
        assert not set("{}") & set(text.replace("{mail}", "mail"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("purchase_recency_days", 23.0, "no purchase for 23 days"),
        ("best_hour", 18.0, "most active at 18:00"),
        ("rfm_r_score", 4.0, "4 of 5 by recency"),
        ("purchase_count_percentile_168d", 73.2, "buys more often than 73% of buyers"),
        ("cart_abandoned_share_28d", 0.35, "left 35% of what was in the cart in the last 28 days"),
        ("checkout_abandoned_count_28d", 0.0, "left no checkouts unfinished in the last 28 days"),
        ("campaign_answer_hours_mean", 5.2, "answers campaigns after 5 hours"),
        ("channel_web_share_168d", 0.35, "35% of activity through web"),
        ("source_mail_recency_days", 2.0, "last activity from {mail} 2 days ago"),
        ("channel_favourite_confidence_168d", 0.5, "chance aside, at least 50% of activity through the favourite channel"),
        ("household_size", 3.0, "household size: 3"),
        ("purchase_gap_shape", 4.2, "gaps between purchases 4.2 times as regular as chance"),
    ],
)
def test_phrases_read_as_a_marketer_would_say_them(name: str, value: float, said: str) -> None:
    assert phrase(BY_NAME[name], {name: value}, BY_NAME) == said


def test_every_comparison_is_with_a_declared_feature_of_the_same_unit() -> None:
    compared = {feature.name: BY_NAME[feature.usual].unit for feature in ALL if feature.usual}
    assert compared == {name: BY_NAME[name].unit for name in compared}
    assert "purchase_recency_days" in compared


def test_every_needed_column_is_an_optional_one() -> None:
    assert set().union(*(feature.needs for feature in ALL)) <= set(COLUMNS) - set(REQUIRED)


@pytest.mark.parametrize("column", sorted(set(COLUMNS) - set(REQUIRED)))
def test_missing_column_switches_off_the_features_that_need_it(column: str) -> None:
    left = set(declared(WANTED, set(COLUMNS) - {column}).names)
    gone = {feature.name for feature in ALL if column in feature.needs}
    # And what reads them, as the share of a region's buyers reads the region.
    while more := {name for name, read in reads(declared(WANTED, COLUMNS)).items() if read & gone} - gone:
        gone |= more
    assert left == set(BY_NAME) - gone


@pytest.mark.parametrize("event_type", KNOWN)
def test_unknown_event_type_switches_off_the_features_that_need_it(event_type: str) -> None:
    left = declared(WANTED, COLUMNS, set(KNOWN) - {event_type}).features
    assert not [feature.name for feature in left if event_type in feature.types]
    assert len(left) < len(ALL)


@pytest.mark.parametrize(
    ("windows", "columns", "types"),
    [
        pytest.param(WINDOWS[:3], COLUMNS, KNOWN, id="three windows"),
        pytest.param((HOUR,), COLUMNS, KNOWN, id="one hour"),
        pytest.param((HOUR, 36 * HOUR), COLUMNS, KNOWN, id="hours"),
        pytest.param(WINDOWS, REQUIRED, KNOWN, id="no optional column"),
        pytest.param(WINDOWS, REQUIRED, ["purchase"], id="purchases only"),
        pytest.param(WINDOWS, REQUIRED, [], id="no type"),
        pytest.param(WINDOWS, COLUMNS, ["wave"], id="unknown types"),
    ],
)
def test_what_is_left_reads_only_what_is_left(windows: tuple[timedelta, ...], columns: list[str], types: list[str]) -> None:
    asked = declared(Wanted(windows), columns, types)
    built = {feature.name for feature in asked.built}
    assert asked.names
    assert set().union(*reads(asked).values()) <= built
    assert not [feature.name for feature in asked.built if not feature.needs <= set(columns)]
    assert not [feature.meaning for feature in asked.built if re.search(r"last 0|last 1 days", feature.meaning)]


def test_families_are_chosen_and_what_they_read_is_hidden() -> None:
    asked = declared(Wanted(WINDOWS, families=("trend",)), COLUMNS)
    assert all(" against " in feature.meaning for feature in asked.features)
    assert {"purchase_amount_sum", "purchase_tenure_days", "purchase_count_7d"} <= {feature.name for feature in asked.hidden}


def test_switched_off_counts_features_under_each_column_they_miss_or_else_each_type() -> None:
    few = Wanted(WINDOWS, families=("region", "promotion"))
    assert switched_off(few, COLUMNS, KNOWN) == {}
    assert switched_off(few, set(COLUMNS) - {"region"}, KNOWN) == {"region": 2}
    assert switched_off(few, COLUMNS, set(KNOWN) - {"coupon_redeemed"}) == {"coupon_redeemed": 6}
    assert set(switched_off(Wanted(WINDOWS), REQUIRED, ["purchase"])) >= {"amount", "session_id", "view", "cart", "campaign"}


def test_visits_are_told_of_every_log_with_sessions_in_which_more_is_done_than_bought() -> None:
    def built(*types: str) -> set[str]:
        return set(declared(Wanted(WINDOWS), COLUMNS, types).names)

    visits, looks, leaving = ("visit_count_28d", "view_per_visit_mean_28d", "idle_visit_share_28d")
    assert visits in built("lesson") and not {looks, leaving} & built("lesson")
    assert {visits, leaving} <= built("lesson", "purchase") and looks not in built("lesson", "purchase")
    assert {visits, looks} <= built("view") and leaving not in built("view")
    # Each visit would be an order, and all would lead to something.
    assert not {visits, leaving} & built("purchase", "campaign_received")


def test_every_family_declares_features() -> None:
    assert [name for name in FAMILIES if not declared(Wanted(WINDOWS, families=(name,)), COLUMNS).features] == []
