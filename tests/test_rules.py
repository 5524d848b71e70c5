"""Rules: what they say of rows, and why users come and go."""

import ast
import operator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from pipeline.rules import FALSE, TRUE, UNKNOWN, both_met, first_met, parts, truths, why_entered, why_left

NAN = float("nan")


def said_of(values: object, rule: str) -> list[int]:
    return list(truths(pa.table({"a": values}), [rule])[:, 0])


def test_rows_are_asked_in_their_order_and_rules_in_theirs() -> None:
    rows = pa.table({"score": [0.1, 0.5, None], "tier": ["gold", None, "silver"], "unread": [[1], None, [2]]})
    told = truths(rows, ["score > 0.3", "tier = 'gold' or score < 0.3", "TRUE"])
    assert told.dtype == np.int8
    assert told.tolist() == [[FALSE, TRUE, TRUE], [TRUE, UNKNOWN, TRUE], [UNKNOWN, UNKNOWN, TRUE]]


def test_order_is_kept_over_many_rows() -> None:
    scores = np.random.default_rng(0).random(10_000)
    rows = pa.concat_tables([pa.table({"a": scores[:7_000]}), pa.table({"a": scores[7_000:]})])
    assert (truths(rows, ["a > 0.5"])[:, 0] == (scores > 0.5)).all()


def test_nothing_asked_and_nobody_asked() -> None:
    rows = pa.table({"a": [1.0, 2.0]})
    assert truths(rows, []).shape == (2, 0)
    assert truths(rows.slice(0, 0), ["a > 1", "true"]).shape == (0, 2)
    assert truths(rows, ["true", "false", "null"]).tolist() == [[TRUE, FALSE, UNKNOWN]] * 2


@pytest.mark.parametrize("rule", ["a > 5", "a < 5", "a = 5", "a <> 5", "a between 1 and 9", "a in (1, 2)", "not a > 5", "-a < 0"])
def test_nan_is_unknown(rule: str) -> None:
    assert said_of([1.0, NAN, None], rule)[1:] == [UNKNOWN, UNKNOWN]


def test_nan_and_null_are_null() -> None:
    assert said_of([1.0, NAN, None], "a is null") == [FALSE, TRUE, TRUE]
    assert said_of([1.0, NAN, None], "coalesce(a, 7) = 7") == [FALSE, TRUE, TRUE]


def test_what_is_divided_by_zero_is_unknown() -> None:
    rows = pa.table({"a": [1.0, 0.0, 1.0], "b": [2.0, 0.0, 0.0]})
    assert truths(rows, ["a / b > 0.4"])[:, 0].tolist() == [TRUE, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    "values", [pa.nulls(2), pa.array([NAN, NAN]), pa.array([None, None], pa.float64()), pa.nulls(2, pa.string())]
)
@pytest.mark.parametrize(
    "rule", ["a = 'gold'", "a > 3", "a like 'g%'", "a in ('x', 'y')", "lower(a) = 'x'", "a + 1 > 0", "abs(a) > 0"]
)
def test_a_column_that_is_wholly_unknown_fits_every_rule(values: pa.Array, rule: str) -> None:
    assert said_of(values, rule) == [UNKNOWN, UNKNOWN]


def test_whole_numbers_do_not_overflow() -> None:
    assert said_of(pa.array([2_000_000_000, None], pa.int32()), "a * 2000000000 > 0") == [TRUE, UNKNOWN]


def test_names_that_are_words_of_sql_and_texts_with_quotes() -> None:
    rows = pa.table({"order": [1.0, 2.0], "a b": ["it's", "x"]})
    assert truths(rows, ['"order" > 1', """"a b" = 'it''s'"""]).tolist() == [[FALSE, TRUE], [TRUE, FALSE]]


def test_a_comment_does_not_swallow_what_follows() -> None:
    assert said_of([1.0, 3.0], "a > 2 -- the big ones") == [FALSE, TRUE]
    assert why_entered(pa.table({"a": [3.0]}), None, "a > 2 /* x */").to_pylist() == ["a > 2 (3)"]


def test_the_first_rule_that_is_true_names_a_row() -> None:
    rows = pa.table({"a": [9.0, 5.0, 1.0, None]})
    assert first_met(rows, [("top", "a > 6"), ("high", "a > 3")]).to_pylist() == ["top", "high", None, None]
    assert first_met(rows, [("top", "a > 6"), ("rest", "true")]).to_pylist() == ["top", "rest", "rest", "rest"]
    assert first_met(rows, []).to_pylist() == [None] * 4
    assert first_met(rows, []).type == first_met(rows, [("top", "a > 6")]).type == pa.string()


def test_parts_of_a_rule() -> None:
    assert parts("a > 1") == ("a > 1",)
    assert parts("(a > 1 and (b = 2 and (c = 3 or d = 4)))") == ("a > 1", "b = 2", "c = 3 OR d = 4")
    assert parts("a > 1 or b > 2 and c > 3") == ("a > 1 OR b > 2 AND c > 3",)
    assert parts("a between 1 and 2 and not (b > 1 and c > 1)") == ("a BETWEEN 1 AND 2", "NOT (b > 1 AND c > 1)")


def entered(rule: str, now: dict[str, object], before: dict[str, object] | None) -> str | None:
    tables = [None if told is None else pa.table({name: [value] for name, value in told.items()}) for told in (now, before)]
    return why_entered(tables[0], tables[1], rule).to_pylist()[0]


RULE = "churn >= 0.40 and tier in ('gold', 'silver')"


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        ((0.43, "gold"), (0.31, "gold"), "churn >= 0.40 (0.43, was 0.31)"),
        ((0.43, "gold"), (0.43, "bronze"), "tier IN ('gold', 'silver') (gold, was bronze)"),
        ((0.43, "gold"), (0.31, None), "churn >= 0.40 (0.43, was 0.31); tier IN ('gold', 'silver') (gold, was not known)"),
        ((0.43, "gold"), (0.5, "gold"), "churn >= 0.40 (0.43); tier IN ('gold', 'silver') (gold)"),
        ((0.43, "gold"), None, "churn >= 0.40 (0.43); tier IN ('gold', 'silver') (gold)"),
        ((0.43, "gold"), (NAN, "gold"), "churn >= 0.40 (0.43, was not known)"),
        ((0.39, None), (0.5, "gold"), None),
    ],
)
def test_why_a_user_entered(now: tuple[object, ...], before: tuple[object, ...] | None, said: str | None) -> None:
    was = None if before is None else dict(zip(("churn", "tier"), before, strict=True))
    assert entered(RULE, dict(zip(("churn", "tier"), now, strict=True)), was) == said


@pytest.mark.parametrize(
    ("rule", "now", "before", "said"),
    [
        ("a > 1 or b > 1", (2.0, 0.0), (0.0, 0.0), "a > 1 (2, was 0)"),
        ("a > 1 or b > 1", (2.0, 3.0), (0.0, 2.0), "a > 1 (2, was 0)"),
        ("(a > 1 or b > 1) and a < 9", (2.0, 0.0), (0.0, 0.0), "a > 1 OR b > 1 (a 2, was 0, b still 0)"),
        ("a + b > 3", (2.0, 2.0), None, "a + b > 3 (a 2, b 2)"),
        ("a is null", (None, 0.0), (3.0, 0.0), "a IS NULL (not known, was 3)"),
        ("true", (0.0, 0.0), (0.0, 0.0), "TRUE"),
        ("true", (0.0, 0.0), None, "TRUE"),
        ("a > 1 and true", (2.0, 0.0), (0.0, 0.0), "a > 1 (2, was 0)"),
    ],
)
def test_why_a_user_entered_by_rules_of_other_shapes(
    rule: str, now: tuple[object, ...], before: tuple[object, ...] | None, said: str
) -> None:
    was = None if before is None else {"a": before[0], "b": before[1]}
    assert entered(rule, {"a": now[0], "b": now[1]}, was) == said


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (28.0, "28"),
        (0.43219, "0.432"),
        (0.00012345, "0.000123"),
        (1.005, "1"),
        (-12.345, "-12.3"),
        (99.96, "100"),
        (1234.5678, "1235"),
        (1234567.0, "1234567"),
        (5e20, "5e+20"),
        (float("inf"), "inf"),
        (True, "true"),
        (np.int64(3), "3"),
        ("it's; so", "it's; so"),
    ],
)
def test_values_are_told_shortly(value: object, shown: str) -> None:
    assert entered("not a is null", {"a": value}, None) == f"NOT a IS NULL ({shown})"


def test_rounding_moves_no_value_to_another_side_of_a_bound() -> None:
    assert entered("a < 0.4", {"a": 0.39999}, {"a": 0.40001}) == "a < 0.4 (0.39999, was 0.40001)"
    assert entered("a > 0.4011", {"a": 0.4012}, None) == "a > 0.4011 (0.4012)"
    assert entered("a > -0.4", {"a": -0.39999}, None) == "a > -0.4 (-0.39999)"
    assert entered("a - b > 0", {"a": 0.12349, "b": 0.1}, {"a": 0.12341, "b": 0.2}) == (
        "a - b > 0 (a 0.12349, was 0.12341, b 0.1, was 0.2)"
    )


def left(now: object, before: object, enter: str, leave: str | None) -> str | None:
    return why_left(pa.table({"a": [now]}), pa.table({"a": [before]}), enter, leave).to_pylist()[0]


def test_why_a_user_left_by_no_longer_meeting_the_rule() -> None:
    assert left(0.3, 0.5, "a >= 0.4", None) == "no longer a >= 0.4 (0.3, was 0.5)"
    assert left(None, 0.5, "a >= 0.4", None) == "no longer a >= 0.4 (not known, was 0.5)"
    assert left(0.3, 0.2, "a >= 0.4", None) == "not a >= 0.4 (0.3)"  # the stay was over, and not the rule
    assert left(0.5, 0.5, "a >= 0.4", None) is None
    assert left(3.0, 1.0, "(a < 2 or a > 5) and a < 9", None) == "no longer (a < 2 OR a > 5) (3, was 1)"


def test_why_a_user_left_by_the_leaving_rule() -> None:
    assert left(0.2, 0.5, "a >= 0.4", "a < 0.3") == "a < 0.3 (0.2, was 0.5)"
    assert left(0.2, 0.1, "a >= 0.4", "a < 0.3") == "a < 0.3 (0.2)"
    assert left(None, 0.5, "a >= 0.4", "a < 0.3") == "a < 0.3 (not known, was 0.5)"
    assert left(None, 0.5, "a >= 0.4", "a < 0.3 or a is null") == "a < 0.3 (not known, was 0.5); a IS NULL (not known, was 0.5)"
    assert left(0.35, 0.5, "a >= 0.4", "a < 0.3") is None


def test_why_without_a_night_before() -> None:
    now = pa.table({"a": [0.3, None]})
    assert why_left(now, None, "a >= 0.4", None).to_pylist() == ["not a >= 0.4 (0.3)", "not a >= 0.4 (not known)"]
    assert why_left(now, None, "a >= 0.4", "a < 0.35").to_pylist() == ["a < 0.35 (0.3)", "a < 0.35 (not known)"]


def test_reasons_are_in_the_order_of_rows_and_of_one_type() -> None:
    values = np.random.default_rng(1).integers(0, 100, 5_000).astype(float)
    told = why_entered(pa.table({"a": values}), None, "a >= 0")
    assert told.type == pa.string()
    assert told.to_pylist() == [f"a >= 0 ({value:.0f})" for value in values]
    assert why_entered(pa.table({"a": values[:0]}), None, "a >= 0").to_pylist() == []
    assert why_entered(pa.table({"a": values[:0]}), pa.table({"a": values[:0]}), "a >= 0").type == pa.string()


def test_a_column_that_nobody_knew_the_night_before() -> None:
    told = why_entered(
        pa.table({"a": ["gold"], "b": [2.0]}), pa.table({"a": pa.nulls(1), "b": pa.nulls(1)}), "a = 'gold' and b > 1"
    )
    assert told.to_pylist() == ["a = 'gold' (gold, was not known); b > 1 (2, was not known)"]


TYPES = {"score": "DOUBLE", "persona": "INTEGER", "tier": "VARCHAR"}


@pytest.mark.parametrize(
    ("enter", "leave", "met"),
    [
        ("score >= 0.4", "score < 0.3", None),
        ("score >= 0.4", "score < 0.4", None),
        ("score >= 0.4", "score <= 0.4", "score = 0.4"),
        ("score >= 0.4", "score < 0.5", "score = 0.4"),
        ("score > 0.4", "score < 0.5", "score = 0.45"),
        ("score > 0.1234564", "score < 0.1234569", "score = 0.12345665"),
        ("score < -5", "score > -10", "score = -9"),
        ("score between 1 and 3", "score not between 1 and 3", None),
        ("persona > 2", "persona < 3", None),
        ("persona > 2", "persona < 4", "persona = 3"),
        ("tier in ('gold', 'silver')", "tier = 'silver'", "tier = 'silver'"),
        ("tier in ('gold', 'silver')", "tier not in ('gold', 'silver')", None),
        ("tier <> 'gold'", "tier <> 'silver'", "tier = 'another'"),
        ("score > 1 and tier = 'gold'", "score < 2", "score = 1.5, tier = 'gold'"),
        ("score > 1", "score > 1 and tier = 'gold'", None),
        ("true", "true", "everybody"),
        ("true", "false", None),
    ],
)
def test_values_that_meet_both_rules(enter: str, leave: str, met: str | None) -> None:
    assert both_met(enter, leave, TYPES) == met


NUMBERS = st.one_of(st.integers(-3, 3).map(str), st.sampled_from(["0.1234564", "0.1234569", "-0.5", "2.25"]))
COMPARED = ("<", "<=", ">", ">=", "=", "<>")
PARTS = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(["score", "persona", "score + persona"]), st.sampled_from(COMPARED), NUMBERS),
    st.builds("tier {} '{}'".format, st.sampled_from(["=", "<>"]), st.sampled_from(["gold", "it''s, really"])),
)
RULES = st.recursive(
    PARTS,
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner) | inner.map("not ({})".format),
    max_leaves=4,
)


@given(enter=RULES, leave=RULES)
@example(enter="score > 0.1234564", leave="score < 0.1234569")
@example(enter="persona > 2", leave="persona < 3")
def test_whatever_meets_both_rules_really_does(enter: str, leave: str) -> None:
    met = both_met(enter, leave, TYPES)
    event("found" if met else "none")
    if not met:
        return
    told = ast.parse(f"dict({met})", mode="eval").body
    assert isinstance(told, ast.Call)
    values = {str(word.arg): ast.literal_eval(word.value) for word in told.keywords}
    assert truths(pa.table({name: [value] for name, value in values.items()}), [enter, leave]).tolist() == [[TRUE, TRUE]]
    assert values.get("persona", 0) % 1 == 0


ASKED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "<>": operator.ne}
BOUND = st.tuples(st.sampled_from(COMPARED), st.integers(-3, 3))


@given(enter=BOUND, leave=BOUND)
def test_what_meets_both_bounds_is_found_wherever_there_is_any(enter: tuple[str, int], leave: tuple[str, int]) -> None:
    # Quarters between whole bounds are as good as any other number.
    there = any(ASKED[enter[0]](at / 4, enter[1]) and ASKED[leave[0]](at / 4, leave[1]) for at in range(-20, 21))
    found = both_met(f"score {enter[0]} {enter[1]}", f"score {leave[0]} {leave[1]}", TYPES)
    assert (found is not None) == there


def test_too_many_combinations_are_left_alone() -> None:
    wide = {f"c{at}": "DOUBLE" for at in range(6)}
    rule = " and ".join(f"{name} > {at}" for at, name in enumerate(wide))
    assert both_met(rule, rule, wide) is None
