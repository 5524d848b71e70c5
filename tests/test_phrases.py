"""Phrases of many users at once, against the catalogue's user by user."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ibis import _

from features.catalogue import Feature, amount, phrase
from models.reasons import Reasons
from pipeline.columns import REASONS, with_arrow
from pipeline.phrases import alike, among_all, reason_columns, reasons_column

UNITS = ["days", "hour", "money", "share", "times", "number", "score", "mixture", "percentile", "o'clock", "purchase", "category"]


def feature(name: str, unit: str, usual: str | None = None) -> Feature:
    words = {"meaning": f"the {name}", "phrase": "{value} of " + name, "group": name, "usual": usual}
    return Feature(name=name, base="row", expr=_.x, unit=unit, **words)


GAP, BREAK, SPEND = feature("gap", "days"), feature("break", "days", "gap"), feature("spend", "money")
BY_NAME = {one.name: one for one in (BREAK, GAP, SPEND)}


def slowly(frame: pd.DataFrame, found: Reasons, names: list[str], by_name: dict[str, Feature], **asked: Any) -> list[Any]:
    """Tell reasons user by user."""
    typical = asked.pop("typical", {})
    rows = frame.to_dict("records")
    return [
        [
            {
                "feature": names[at],
                "value": None if np.isnan(row[names[at]]) else row[names[at]],
                "contribution": float(moved),
                "phrase": phrase(by_name[names[at]], row, by_name, typical=typical.get(names[at]), **asked),
            }
            for at, moved in zip(columns, contribution, strict=True)
        ]
        for row, columns, contribution in zip(rows, found.feature, found.contribution, strict=True)
    ]


def test_a_column_of_reasons() -> None:
    frame = pd.DataFrame({"break": [23.2, np.nan, 1.0], "gap": [5.0, 5.0, np.nan], "spend": [12.0, 0.0, 8.501]})
    found = Reasons(np.array([[0, 2], [2, 0], [0, 2]]), np.array([[0.5, -0.2], [0.4, 0.1], [-0.3, 0.0]]))
    told = reasons_column(frame, found, ["break", "gap", "spend"], BY_NAME, currency="$", typical={"spend": 8.5, "break": 9.0})
    assert told.type == REASONS
    assert [[(one["value"], one["contribution"], one["phrase"]) for one in row] for row in told.to_pylist()] == [
        [(23.2, 0.5, "23 days of break, usually 5 days"), (12.0, -0.2, "$12.00 of spend (typically $8.50)")],
        [(0.0, 0.4, "nothing of spend (typically $8.50)"), (None, 0.1, "the break is not known")],
        [(1.0, -0.3, "1 day of break (typically 9 days)"), (8.501, 0.0, "$8.50 of spend")],
    ]


# Values near where a text changes, and any others.
EDGES = [edge + nudge for edge in (0, 0.005, 0.05, 0.285, 0.5, 0.95, 1, 1.005, 1.5, 2.5, 2.675, 99.995, 99.5, 100, 100.5, 1000.5)
         for nudge in (-1e-9, 0.0, 1e-9, 2e-3)]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([*EDGES, *(-edge for edge in EDGES[1:]), np.nan]), st.floats(-3e3, 3e3), st.floats(0, 1), st.integers(0, 40)
)


@settings(max_examples=300)
@given(st.sampled_from(UNITS), st.sampled_from(UNITS), st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=30), VALUES)
def test_phrases_equal_the_slow_way(unit: str, other: str, rows: list[tuple[float, float]], common: float) -> None:
    by_name = {"own": feature("own", unit, "usual"), "usual": feature("usual", other), "plain": feature("plain", unit)}
    frame = pd.DataFrame(rows, columns=["own", "usual"], dtype=float).assign(plain=lambda made: made.own)
    names = ["plain", "own"]
    random = np.random.default_rng(len(rows))
    found = Reasons(random.permuted(np.tile([0, 1], (len(rows), 1)), axis=1), random.normal(size=(len(rows), 2)))
    asked = {"currency": "€", "typical": {"own": common, "plain": common}}
    assert reasons_column(frame, found, names, by_name, **asked).to_pylist() == slowly(frame, found, names, by_name, **asked)


@pytest.mark.parametrize("unit", UNITS)
def test_values_with_one_key_have_one_text(unit: str) -> None:
    random = np.random.default_rng(1)
    values = np.concatenate([random.uniform(-3, 3, 20_000), random.uniform(90, 110, 20_000), random.uniform(0, 1e5, 10_000)])
    keys = pd.Series(alike(unit, values))
    texts = pd.Series([amount(value, unit) for value in values])
    assert (texts.groupby(keys).nunique() == 1).all()
    # Else nothing is saved.
    assert keys.nunique() < 0.75 * len(values)


def test_without_the_usual_values_column_nothing_is_compared() -> None:
    found = Reasons(np.array([[0]]), np.array([[1.0]]))
    told = reasons_column(pd.DataFrame({"break": [3.0]}), found, ["break"], BY_NAME)
    assert told.to_pylist()[0][0]["phrase"] == "3 days of break"


def test_infinities_are_not_known() -> None:
    found = Reasons(np.array([[0], [0]]), np.array([[1.0], [1.0]]))
    told = reasons_column(pd.DataFrame({"break": [np.inf, 3.0], "gap": [1.0, -np.inf]}), found, ["break"], BY_NAME)
    assert [(one["value"], one["phrase"]) for (one,) in told.to_pylist()] == [
        (None, "the break is not known"),
        (3.0, "3 days of break"),
    ]


def test_a_model_without_features_tells_empty_lists() -> None:
    told = reasons_column(pd.DataFrame({"break": [1.0, 2.0]}), Reasons(np.zeros((2, 0), dtype=int), np.zeros((2, 0))), [], BY_NAME)
    assert told.to_pylist() == [[], []]
    assert [column.to_pylist() for column in reason_columns({"churn": told}, [None, "churn"], most=1)] == [[None, None]]


def test_nobody_has_no_reasons() -> None:
    found = Reasons(np.zeros((0, 3), dtype=int), np.zeros((0, 3)))
    assert reasons_column(pd.DataFrame({"break": []}), found, ["break"], BY_NAME).to_pylist() == []


def test_who_was_not_asked_has_nulls() -> None:
    assert among_all(pa.array([[1], [2]]), np.array([False, True, False, True])).to_pylist() == [None, [1], None, [2]]


def told(*users: list[tuple[float, str]] | None) -> pa.ListArray:
    rows = [user and [{"contribution": moved, "phrase": said} for moved, said in user] for user in users]
    return pa.array(rows, REASONS)


def test_reasons_are_those_of_the_own_target_else_of_the_first_that_has_any() -> None:
    churn = told([(0.1, "a"), (-0.2, "b")], None, None, [(0.0, "c")])
    value = told([(1.0, "d")], [(2.0, "e"), (1.0, "f")], None, [(-3.0, "g")])
    columns = reason_columns({"churn": churn, "value": value}, ["value", "churn", None, None])
    assert [column.to_pylist() for column in columns] == [["↑ d", "↑ e", None, "↓ c"], [None, "↑ f", None, None], [None] * 4]
    assert with_arrow({"contribution": 0.0, "phrase": "c"}) == "↓ c"


def test_a_slice_of_the_night_gives_the_same_words() -> None:
    churn = told([(0.1, "a")], None, [(-0.2, "b"), (0.1, "c")])
    (whole, *_rest), (part, *_others) = (reason_columns({"churn": lists}, [None] * len(lists)) for lists in (churn, churn.slice(1)))
    assert whole.to_pylist()[1:] == part.to_pylist() == [None, "↓ b"]
