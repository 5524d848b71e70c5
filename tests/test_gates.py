"""What holds a challenger back, and what does not."""

from datetime import datetime
from math import nan

import pytest

from models.gates import (
    Verdict,
    amounts_told,
    because,
    calibrated,
    decide,
    not_comparable,
    not_worse,
    sound_data,
    stable,
    tells_apart,
)
from models.intervals import Interval

ERROR = "the calibration error of all origins together is"


@pytest.mark.parametrize(
    ("measure", "difference", "verdict"),
    [
        (
            "average_precision",
            (-0.02, -0.03, -0.001),
            Verdict(
                "not worse", False, "average_precision is worse than that of the champion for sure: by -0.0200 (-0.0300 to -0.0010)"
            ),
        ),
        (
            "average_precision",
            (-0.02, -0.03, 0.0),
            Verdict("not worse", True, "average_precision is as good as that of the champion: -0.0200 (-0.0300 to +0.0000)"),
        ),
        (
            "auc",
            (0.02, 0.01, 0.03),
            Verdict("not worse", True, "auc is better than that of the champion: by +0.0200 (+0.0100 to +0.0300)"),
        ),
        (
            "log_loss",
            (0.02, 0.01, 0.03),
            Verdict("not worse", False, "log_loss is worse than that of the champion for sure: by +0.0200 (+0.0100 to +0.0300)"),
        ),
        (
            "mean_absolute_error",
            (-2.0, -3.0, -1.0),
            Verdict("not worse", True, "mean_absolute_error is better than that of the champion: by -2.0000 (-3.0000 to -1.0000)"),
        ),
        (
            "brier",
            (0.0, 0.0, 0.0),
            Verdict("not worse", True, "brier is as good as that of the champion: +0.0000 (+0.0000 to +0.0000)"),
        ),
        (
            "auc",
            (nan, nan, nan),
            Verdict("not worse", True, "auc could not be compared with that of the champion: it is not defined on these rows"),
        ),
    ],
)
def test_only_what_is_worse_for_sure_is_held_back(measure: str, difference: tuple[float, float, float], verdict: Verdict) -> None:
    assert not_worse(Interval(*difference), measure=measure) == verdict


def test_without_a_champion_nothing_can_be_worse() -> None:
    assert not_worse(None, measure="auc") == Verdict("not worse", True, "there was no champion")


def test_a_champion_of_other_features_is_told_with_what_was_compared_instead() -> None:
    found = not_comparable("it reads 2 features that are not built", Interval(0.1, 0.05, 0.15), measure="auc", instead="rfm")
    assert found == Verdict(
        "not worse",
        True,
        "the champion cannot be compared (it reads 2 features that are not built); instead, auc is better than that of rfm: by "
        "+0.1000 (+0.0500 to +0.1500)",
    )


@pytest.mark.parametrize(
    ("only_label", "replaces", "passed"),
    [(None, "lightgbm", True), (0.0, None, True), (0.0, "base_rate", True), (1.0, "rfm", False), (0.0, "lightgbm", False)],
)
def test_a_base_rate_takes_the_place_of_no_model_that_knew_two_labels(
    only_label: float | None, replaces: str | None, passed: bool
) -> None:
    assert tells_apart(only_label, replaces=replaces).passed == passed


@pytest.mark.parametrize(
    ("error", "passed", "said"),
    [
        ((0.05, 0.02, 0.07), True, f"{ERROR} 0.050 (0.020 to 0.070), 0.05 is allowed"),
        ((0.08, 0.05, 0.11), True, f"{ERROR} 0.080 (0.050 to 0.110), 0.05 is allowed"),
        (
            (0.08, 0.0501, 0.11),
            False,
            f"{ERROR} 0.080 (0.050 to 0.110), surely above the 0.05 allowed",
        ),
        ((nan, nan, nan), True, "the calibration error is not defined: the test origins hold one class only"),
        (None, True, "the calibration error is not defined: the test origins hold one class only"),
    ],
)
def test_probabilities_that_are_off_for_sure_are_held_back(
    error: tuple[float, float, float] | None, passed: bool, said: str
) -> None:
    assert calibrated(error and Interval(*error), most=0.05) == Verdict("calibration", passed, said)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ((3.0, 2.0, 4.0), "the totals of deciles are off by 300.0% (200.0% to 400.0%); told, not gated"),
        (None, "the totals of deciles are not defined: nothing was spent"),
    ],
)
def test_amounts_that_are_off_are_told(error: tuple[float, float, float] | None, said: str) -> None:
    assert amounts_told(error and Interval(*error)) == Verdict("calibration", True, said)


def origins(*values: float) -> dict[datetime, float]:
    return {datetime(2024, month, 1): value for month, value in enumerate(values, start=1)}


@pytest.mark.parametrize(
    ("measure", "values", "references", "passed", "said"),
    [
        (
            "auc",
            (0.8, 0.4, 0.8),
            None,
            True,
            "auc at the worst origin (2024-02-01) is 0.400, the others have 0.800 on average: worse by 50%",
        ),
        ("auc", (0.8, 0.39, 0.8), None, False, "worse by 51%, 50% is allowed"),
        ("auc", (0.8, 0.1), None, True, "2 test origins are too few to tell (3 are needed)"),
        ("auc", (0.8, 0.1, nan), None, True, "2 test origins are too few to tell (3 are needed)"),
        # The base rate fell, and average precision with it: no swing.
        (
            "average_precision",
            (0.6, 0.1, 0.6),
            (0.3, 0.05, 0.3),
            True,
            "average_precision relative to the base rate's at the worst",
        ),
        ("average_precision", (0.6, 0.1, 0.6), None, False, "worse by 83%"),
        ("average_precision", (0.6, 0.6, 0.6), (0.2, 0.55, 0.2), False, "(2024-02-01) is 1.091, the others have 3.000 on average"),
        ("average_precision", (0.6, 0.6, 0.6), (0.2, 0.0, 0.2), True, "2 test origins are too few to tell"),
        ("log_loss", (0.2, 0.4, 0.2), None, True, "log_loss at the worst origin (2024-02-01) is 0.400, the others have 0.200"),
        ("log_loss", (0.2, 0.41, 0.2), None, False, "worse by 51%, 50% is allowed"),
        ("mean_absolute_error", (10.0, 50.0, 10.0), (20.0, 100.0, 20.0), True, "worse by 0%"),
        ("mean_absolute_error", (0.0, 0.0, 0.0), None, True, "worse by 0%"),
    ],
)
def test_the_worst_origin_is_held_against_the_others(
    measure: str, values: tuple[float, ...], references: tuple[float, ...] | None, passed: bool, said: str
) -> None:
    found = stable(origins(*values), measure=measure, max_swing=0.5, references=references and origins(*references))
    assert (found.gate, found.passed) == ("stability", passed)
    assert said in found.said


def test_data_that_passed_its_checks() -> None:
    assert sound_data(0.0, allowed=0.01, beyond_history=[]) == Verdict(
        "data", True, "0.0% of the rows were rejected, 1.0% are allowed"
    )
    assert not sound_data(0.02, allowed=0.01, beyond_history=[]).passed


GOOD, BAD, WORSE = Verdict("data", True, "fine"), Verdict("calibration", False, "off"), Verdict("not worse", False, "worse")


@pytest.mark.parametrize(
    ("verdicts", "passed", "said"),
    [
        ([GOOD, BAD, WORSE], False, "calibration: off; not worse: worse"),
        ([GOOD, GOOD], True, "data: fine; data: fine"),
    ],
)
def test_one_refusal_is_enough_and_says_why(verdicts: list[Verdict], passed: bool, said: str) -> None:
    assert (decide(verdicts), because(verdicts)) == (passed, said)
