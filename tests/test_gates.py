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
UNSURE = "above, though not for sure, the allowed"


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
    ("error", "rarer", "passed", "said"),
    [
        ((0.05, 0.02, 0.07), 0.3, True, f"{ERROR} 0.050 (0.020 to 0.070), allowed is 0.05"),
        ((0.08, 0.05, 0.11), 0.1, True, f"{ERROR} 0.080 (0.050 to 0.110), {UNSURE} 0.05"),
        ((0.08, 0.0501, 0.11), 0.3, False, f"{ERROR} 0.080 (0.050 to 0.110), surely above the allowed 0.05"),
        ((0.02, 0.01, 0.03), 0.02, True, f"{ERROR} 0.0200 (0.0100 to 0.0300), {UNSURE} 0.0100 (50% of the rarer label's rate)"),
        (
            (0.02, 0.0101, 0.03),
            0.02,
            False,
            f"{ERROR} 0.0200 (0.0101 to 0.0300), surely above the allowed 0.0100 (50% of the rarer label's rate)",
        ),
        ((nan, nan, nan), 0.0, True, "the calibration error is not defined: the test origins hold one class only"),
        (None, 0.0, True, "the calibration error is not defined: the test origins hold one class only"),
    ],
)
def test_probabilities_that_are_off_for_sure_are_held_back(
    error: tuple[float, float, float] | None, rarer: float, passed: bool, said: str
) -> None:
    assert calibrated(error and Interval(*error), rarer=rarer, most=0.05, share=0.5) == Verdict("calibration", passed, said)


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
            (0.9, 0.71, 0.9),
            (0.5, 0.5, 0.5),
            True,
            "skill in auc (0: the base rate, 1: no error) at the worst origin (2024-02-01) is 0.420 (0.400 to 0.440), "
            "the others have 0.800 on average: 0.400 is asked",
        ),
        # Below half of the others, but not for sure.
        ("auc", (0.9, 0.695, 0.9), (0.5, 0.5, 0.5), True, "is 0.390 (0.370 to 0.410), the others have 0.800 on average: 0.400"),
        ("auc", (0.9, 0.68, 0.9), (0.5, 0.5, 0.5), False, "is 0.360 (0.340 to 0.380), the others have 0.800 on average: surely"),
        ("auc", (0.8, 0.1), (0.5, 0.5), True, "not told: 2 test origins with enough of both answers are too few (3 are needed)"),
        (
            "auc",
            (0.8, 0.1, nan),
            (0.5, 0.5, 0.5),
            True,
            "not told: 2 test origins with enough of both answers are too few (3 are needed)",
        ),
        # The base rate fell, and average precision with it: the same way was gone.
        ("average_precision", (0.65, 0.525, 0.65), (0.3, 0.05, 0.3), True, "is 0.500"),
        (
            "average_precision",
            (0.6, 0.6, 0.6),
            (0.2, 0.55, 0.2),
            False,
            "(2024-02-01) is 0.111 (0.089 to 0.133), the others have 0.5",
        ),
        ("average_precision", (0.6, 0.6, 0.6), (0.2, 1.0, 0.2), True, "not told: 2 test origins with enough"),
        ("log_loss", (0.2, 0.29, 0.2), (0.4, 0.4, 0.4), True, "(2024-02-01) is 0.275 (0.250 to 0.300), the others have 0.500"),
        (
            "log_loss",
            (0.2, 0.32, 0.2),
            (0.4, 0.4, 0.4),
            False,
            "is 0.200 (0.175 to 0.225), the others have 0.500 on average: surely",
        ),
        # Nobody has skill, and one origin is worse than the base rate for sure.
        ("log_loss", (0.4, 0.5, 0.4), (0.4, 0.4, 0.4), False, "is -0.250 (-0.275 to -0.225), the others have 0.000"),
        ("mean_absolute_error", (10.0, 50.0, 10.0), (20.0, 100.0, 20.0), True, "(2024-01-01) is 0.500"),
        ("mean_absolute_error", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), True, "not told: 0 test origins with enough"),
    ],
)
def test_the_worst_origin_is_held_against_the_others(
    measure: str, values: tuple[float, ...], references: tuple[float, ...], passed: bool, said: str
) -> None:
    found = {day: Interval(value, value - 0.01, value + 0.01) for day, value in origins(*values).items()}
    told = stable(found, measure=measure, max_swing=0.5, references=origins(*references))
    assert (told.gate, told.passed) == ("stability", passed)
    assert said in told.said


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
