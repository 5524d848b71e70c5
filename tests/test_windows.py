"""Durations: read, labelled and said in words."""

from datetime import timedelta

import pytest

from builders import DAY, HOUR
from features.errors import ConfigError
from features.windows import duration, label, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [("28d", 28 * DAY), ("12h", 12 * HOUR), ("4w", 28 * DAY), (" 1d ", DAY), ("36h", 36 * HOUR), ("876600h", 876_600 * HOUR)],
)
def test_duration_reads_hours_days_and_weeks(text: str, expected: timedelta) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "28", "d", "0d", "-3d", "1.5d", "28 d", "28D", "1m", "28d 2h", "1234567d", 28, None])
def test_duration_refuses_anything_else_and_says_what_to_write(text: object) -> None:
    with pytest.raises(ConfigError, match=r"is not a duration: write a positive whole number and h, d or w, such as 28d"):
        duration(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "short", "long"),
    [
        (HOUR, "1h", "1 hour"),
        (36 * HOUR, "36h", "36 hours"),
        (24 * HOUR, "1d", "1 day"),
        (28 * DAY, "28d", "28 days"),
        (timedelta(weeks=1), "7d", "7 days"),
    ],
)
def test_window_has_one_label_and_one_wording(window: timedelta, short: str, long: str) -> None:
    assert (label(window), words(window)) == (short, long)


@pytest.mark.parametrize("text", ["1h", "36h", "1d", "84d"])
def test_label_reads_back_as_the_same_duration(text: str) -> None:
    assert label(duration(text)) == text


def test_duration_beyond_a_century_is_refused() -> None:
    with pytest.raises(ConfigError, match="'876601h' is longer than 36525 days"):
        duration("876601h")
