"""Catalogue: names, wording, and what is declared for which columns."""

import re
from collections import Counter
from datetime import timedelta

import pytest
from ibis import _

from builders import DAY
from features.catalogue import Feature, amount, feature_name, phrase, unique_by_name
from features.contract import COLUMNS, REQUIRED
from features.families import declared, switched_off

WINDOWS = tuple(days * DAY for days in (7, 14, 28, 56, 84, 168))
ALL = declared(WINDOWS, COLUMNS)
BY_NAME = {feature.name: feature for feature in ALL}


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (23.4, "days", "23 days"),
        (1.2, "days", "1 day"),
        (0.95, "days", "1 day"),
        (0.94, "days", "less than a day"),
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
    assert len(ALL) > 80
    assert [name for name, count in counts.items() if count > 1 or not re.fullmatch(r"[a-z][a-z0-9_]*", name)] == []


def test_declared_order_does_not_depend_on_the_order_of_windows() -> None:
    names = [feature.name for feature in ALL]
    assert [feature.name for feature in declared(WINDOWS[::-1], COLUMNS)] == names


@pytest.mark.parametrize("declared_feature", ALL, ids=lambda feature: feature.name)
def test_every_phrase_says_its_value_and_nothing_unfilled(declared_feature: Feature) -> None:
    row = {name: 13.6 for name in BY_NAME}
    said = phrase(declared_feature, row, BY_NAME, currency="$")
    assert amount(13.6, declared_feature.unit, currency="$") in said
    assert not set("{}") & set(said)
    assert said == said.strip()


def test_every_comparison_is_with_a_declared_feature_of_the_same_unit() -> None:
    compared = {feature.name: BY_NAME[feature.usual].unit for feature in ALL if feature.usual}
    assert compared == {name: BY_NAME[name].unit for name in compared}
    assert "purchase_recency_days" in compared


def test_every_needed_column_is_an_optional_one() -> None:
    assert set().union(*(feature.needs for feature in ALL)) <= set(COLUMNS) - set(REQUIRED)


@pytest.mark.parametrize("column", ["amount", "discount", "category", "brand"])
def test_missing_column_switches_off_the_features_that_need_it(column: str) -> None:
    left = declared(WINDOWS, set(COLUMNS) - {column})
    assert [feature.name for feature in left] == [feature.name for feature in ALL if column not in feature.needs]
    assert len(left) < len(ALL)


@pytest.mark.parametrize("column", ["amount", "discount", "category", "brand"])
def test_switched_off_counts_what_a_missing_column_costs(column: str) -> None:
    present = set(COLUMNS) - {column}
    assert switched_off(WINDOWS, present) == {column: len(ALL) - len(declared(WINDOWS, present))}


def test_switched_off_counts_a_feature_under_each_column_it_misses() -> None:
    both = switched_off(WINDOWS, REQUIRED)
    assert both == {
        "amount": sum("amount" in feature.needs for feature in ALL),
        "brand": 2,
        "category": 7,
        "discount": 9,
    }


def test_nothing_is_switched_off_when_every_column_is_there() -> None:
    assert switched_off(WINDOWS, COLUMNS) == {}


def test_features_left_do_not_read_features_switched_off() -> None:
    left = declared(WINDOWS, REQUIRED)
    names = {feature.name for feature in left}
    assert {feature.usual for feature in left if feature.usual} <= names
