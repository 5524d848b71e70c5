"""Slices: who is in which, in what order, what is told of each, and what is not."""

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from models.intervals import pooled, rate_interval
from models.slices import slices, tenure_bands


def predicted(rows: int = 120) -> pd.DataFrame:
    """Every third row is positive, and has the higher score by a little."""
    label = (np.arange(rows) % 3 == 0).astype(float)
    return pd.DataFrame(
        {
            "user_id": [f"u{number % 60}" for number in range(rows)],
            "cutoff": pd.Timestamp("2024-01-01"),
            "label": label,
            "score": 0.3 + 0.1 * label + 0.2 * np.random.default_rng(0).random(rows),
        }
    )


def shape(values: object, rows: pd.DataFrame | None = None) -> list[tuple[str, int]]:
    rows = predicted(len(values)) if rows is None else rows
    return [
        (part.value, part.users) for part in slices(rows, "score", {"x": values}, is_amount=False, seed=1, smallest=1000, fewest=1)
    ]


def test_each_slice_is_measured_on_its_own_rows() -> None:
    rows = predicted()
    stage = np.where(np.arange(120) < 80, "loyal", "new")
    loyal, new = slices(rows, "score", {"stage": stage}, is_amount=False, seed=5, smallest=50)
    mine = rows[stage == "loyal"]
    assert (loyal.column, loyal.value, loyal.users, loyal.positives) == ("stage", "loyal", 80, 27)
    assert loyal.mean_score == pytest.approx(mine.score.mean())
    assert loyal.rate == rate_interval(mine.label.to_numpy(), mine.user_id)
    assert loyal.rate.value == pytest.approx(27 / 80)
    assert loyal.measures == pooled(mine, "score", is_amount=False, seed=5, only=["auc", "average_precision"])
    assert list(loyal.measures) == ["auc", "average_precision"]
    assert (new.value, new.users, new.measures) == ("new", 40, {})


def test_one_class_has_a_rate_but_no_measures() -> None:
    (only,) = slices(predicted().assign(label=0.0), "score", {"x": np.full(120, "a")}, is_amount=False, seed=1)
    assert (only.positives, only.rate.value, only.measures) == (0, 0.0, {})
    assert only.rate.high > 0.05


def test_amounts_have_an_error_and_a_mean_amount() -> None:
    rows = predicted().assign(label=lambda frame: frame.label * 9)
    (only,) = slices(rows, "score", {"x": np.full(120, "a")}, is_amount=True, seed=1)
    assert (only.positives, only.rate.value) == (40, pytest.approx(3.0))
    assert only.rate.low < 3 < only.rate.high
    assert list(only.measures) == ["mean_absolute_error"]
    assert only.measures["mean_absolute_error"].value == pytest.approx((rows.label - rows.score).abs().mean())


def test_texts_come_by_their_rows_and_null_last() -> None:
    values = pd.Series(["b"] * 2 + ["c"] + ["a"] * 2 + [None] * 3, index=range(50, 58))
    assert shape(values) == [("a", 2), ("b", 2), ("c", 1), ("unknown", 3)]
    assert shape(np.array([True, False, True])) == [("True", 2), ("False", 1)]
    assert shape(pd.Series(["unknown", "a", None])) == [("a", 1), ("unknown", 2)]


def test_ordered_categories_keep_their_order() -> None:
    stages = pd.Categorical(["loyal", "new", "loyal", None], categories=["new", "loyal", "lapsed"], ordered=True)
    assert shape(pd.Series(stages)) == [("new", 1), ("loyal", 2), ("unknown", 1)]


def test_rare_texts_are_one_group() -> None:
    values = np.array([f"v{number:02}" for number in range(25)] * 2 + ["v24"])
    found = shape(values)
    assert found[:2] == [("v24", 3), ("v00", 2)]
    assert (len(found), found[-1]) == (21, ("other", 10))


def test_a_text_of_few_users_is_not_told() -> None:
    rows = predicted(180)
    by_user = {f"u{number}": "x" if number < 20 else "lonely" if number < 39 else "y" for number in range(60)}
    found = slices(rows, "score", {"x": rows.user_id.map(by_user)}, is_amount=False, seed=1)
    assert [(part.value, part.users) for part in found] == [("y", 63), ("x", 60), ("other", 57)]


def test_numbers_are_cut_into_quartiles_with_their_lower_bound() -> None:
    values = np.array([*range(1, 13), np.nan, np.inf])
    assert shape(values) == [("below 3.75", 3), ("3.75 to 6.5", 3), ("6.5 to 9.25", 3), ("9.25 and more", 3), ("unknown", 2)]
    # 2, 4 and 6 are cuts: each belongs above its own.
    assert shape(np.array([0, 2, 4, 6, 8])) == [("below 2", 1), ("2 to 4", 1), ("4 to 6", 1), ("6 and more", 2)]


def test_cuts_are_where_the_labels_say() -> None:
    values = np.array([0, 10_000, 12_346, 20_000, 23_456.7, 40_000, 45_678.9, 50_000, 60_000])
    assert shape(values) == [("below 12,300", 2), ("12,300 to 23,500", 3), ("23,500 to 45,700", 2), ("45,700 and more", 2)]


def test_numbers_that_are_mostly_one_are_cut_above_it() -> None:
    assert shape(np.array([0.0] * 20 + [1, 2, 3, 4])) == [("below 1", 20), ("1 and more", 4)]


def test_numbers_of_few_values_stand_for_themselves() -> None:
    assert shape(np.array([1.0, 0.0, 1.0, np.nan])) == [("0", 1), ("1", 2), ("unknown", 1)]
    assert shape(np.full(2, np.nan)) == [("unknown", 2)]


def test_bands_of_tenure() -> None:
    days = pd.Series([0.0, 27.9, 28.0, 84.0, 182.0, 1000.0, -1.0, None], index=range(3, 11))
    assert tenure_bands(days).to_dict() == {
        3: "under 4 weeks",
        4: "under 4 weeks",
        5: "4 to 12 weeks",
        6: "12 to 26 weeks",
        7: "26 weeks and more",
        8: "26 weeks and more",
        9: "unknown",
        10: "unknown",
    }
    assert shape(tenure_bands(np.array([200.0, 1.0, 300.0]))) == [("under 4 weeks", 1), ("26 weeks and more", 2)]


def test_a_value_too_few_is_refused() -> None:
    with pytest.raises(DataError, match="slices by stage: 3 values for 120 tested rows; give one a row"):
        slices(predicted(), "score", {"stage": np.array(["a"] * 3)}, is_amount=False, seed=1)


def test_no_rows_have_no_slices() -> None:
    assert slices(predicted().head(0), "score", {"x": np.array([], dtype=object)}, is_amount=False, seed=1) == []
