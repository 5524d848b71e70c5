"""Bands: places among tonight's scores, realised rates with honest intervals, horizons that agree."""

from collections import Counter
from datetime import timedelta
from math import ceil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binom, binomtest
from sklearn.isotonic import IsotonicRegression

from features.errors import ConfigError
from models.band_names import NAMES
from models.bands import Bands, amount_bands, coverage, score_bands, spaced
from models.drift import level_drift

DAYS = tuple(timedelta(days=days) for days in (14, 28, 56, 84))
NAN = float("nan")


def placed(rule: Bands, everybody: list[float]) -> list[str]:
    return list(rule.place(np.array(everybody), np.sort(everybody))[1])


def test_percentiles_are_mean_ranks_and_fifths_are_of_users() -> None:
    score = np.array([0.5, 0.1, 0.2, 0.2, 0.9])
    percentile, band = Bands().place(score, np.sort(score))
    assert list(percentile) == [80.0, 20.0, 50.0, 50.0, 100.0]
    assert list(band) == ["high", "very_low", "medium", "medium", "very_high"]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40))
def test_fifths_are_those_of_a_slow_reference(numbers: list[int]) -> None:
    score = np.array(numbers) / 12
    percentile, band = Bands().place(score, np.sort(score))
    theirs = pd.Series(score).rank(method="average").to_numpy() / len(score) * 100
    np.testing.assert_array_equal(percentile, theirs)
    assert list(band) == [NAMES[ceil(value / 20) - 1] for value in theirs]


def test_a_score_on_a_cut_is_in_the_band_above() -> None:
    assert placed(Bands(cuts=(0.1, 0.2, 0.3, 0.4)), [0.05, 0.1, 0.25, 0.3, 0.4, 0.9]) == [
        "very_low",
        "low",
        "medium",
        "high",
        "very_high",
        "very_high",
    ]


@pytest.mark.parametrize(
    ("capacity", "everybody", "bands"),
    [
        (1, [6, 5, 4, 3, 2, 1], "very_high high medium low very_low very_low"),
        (2, [6, 5, 4, 3, 2, 1], "very_high very_high high high medium medium"),
        (9, [2, 1], "very_high very_high"),
        (2, [9, 8, 8, 7, 7, 6], "very_high high high medium medium low"),  # Two with 8 would make three very_high.
        (2, [9, 9, 9, 8, 7], "very_low very_low very_low very_low very_low"),  # Three fit nowhere, nor does who is below them.
        (2, [9, 8, 7, 7, 7, 6], "very_high very_high very_low very_low very_low very_low"),
        (3, [9, 8, 8, 8, 7, 7], "very_high high high high medium medium"),
    ],
)
def test_a_capacity_is_never_exceeded(capacity: int, everybody: list[float], bands: str) -> None:
    assert placed(Bands(capacity=capacity), everybody) == bands.split()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 8))
def test_capacity_keeps_equals_together_and_the_order(numbers: list[int], capacity: int) -> None:
    bands = placed(Bands(capacity=capacity), numbers)
    counts = Counter(bands)
    assert all(counts[name] <= capacity for name in NAMES[1:])
    found = sorted(zip(numbers, map(NAMES.index, bands), strict=True))
    assert [band for _, band in found] == sorted(band for _, band in found)
    assert len(set(found)) == len(set(numbers))


@pytest.mark.parametrize("rule", [Bands(), Bands(cuts=(0.1, 0.2, 0.3, 0.4)), Bands(capacity=1)])
def test_who_has_no_score_has_no_place(rule: Bands) -> None:
    percentile, band = rule.place(np.array([NAN, 0.9]), np.array([0.5, 0.9]))
    assert np.isnan(percentile[0]) and percentile[1] == 100.0
    assert list(band) == [None, "very_high"]
    percentile, band = rule.place(np.array([NAN]), np.array([]))
    assert np.isnan(percentile[0]) and list(band) == [None]
    assert [len(part) for part in rule.place(np.array([]), np.array([]))] == [0, 0]


def test_a_score_that_is_nobodys_has_a_place_too() -> None:
    percentile, band = Bands().place(np.array([0.0, 0.6, 2.0]), np.array([0.5, 0.7]))
    assert list(percentile) == [25.0, 75.0, 100.0]
    assert list(band) == ["low", "high", "very_high"]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"cuts": (0.1, 0.2, 0.3)}, r"\(0.1, 0.2, 0.3\) are not four rising scores"),
        ({"cuts": (0.1, 0.2, 0.2, 0.3)}, "are not four rising scores"),
        ({"cuts": (0.1, 0.2, 0.3, NAN)}, "are not four rising scores"),
        ({"capacity": 0}, "capacity is 0; at least one"),
        ({"cuts": (0.1, 0.2, 0.3, 0.4), "capacity": 5}, "exclude each other"),
    ],
)
def test_rules_that_are_none(told: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Bands(**told)


def test_many_scores_fall_into_five_equal_bands() -> None:
    score = np.random.default_rng(0).random(300_000)
    percentile, band = Bands().place(score, np.sort(score))
    assert set(Counter(band).values()) == {60_000}
    assert percentile.max() == 100.0


def test_rates_of_two_halves() -> None:
    score = np.repeat([0.1, 0.5], [20, 30])
    label = np.concatenate([np.repeat([1.0, 0.0], [3, 17]), np.repeat([1.0, 0.0], [12, 18])])
    few, many = score_bands(label, score, bands=2)
    assert (few.low, few.high, few.users, few.mean_score, few.rate) == (0.1, 0.1, 20, pytest.approx(0.1), 0.15)
    for band, hits, rows in ((few, 3, 20), (many, 12, 30)):
        theirs = binomtest(hits, rows).proportion_ci(method="wilson")
        assert (band.rate_low, band.rate_high) == pytest.approx((theirs.low, theirs.high))
    # Two expected of 20: the exact binomial. 15 of 30: normal, with the variance of the scores and half a row.
    assert (few.stated_low, few.stated_high) == (binom.ppf(0.025, 20, 0.1) / 20, binom.ppf(0.975, 20, 0.1) / 20) == (0.0, 0.25)
    half = 1.959964 * np.sqrt(30 * 0.25) / 30 + 0.5 / 30
    assert (many.stated_low, many.stated_high) == pytest.approx((0.5 - half, 0.5 + half))


def test_equal_scores_are_one_band_whatever_the_order_of_rows() -> None:
    label, score = np.array([1.0, 0.0] * 50), np.full(100, 0.5)
    (band,) = score_bands(label, score)
    assert (band.users, band.rate) == (100, 0.5)
    assert score_bands(label[::-1], score) == [band]


def test_unknown_rows_are_left_out_and_nothing_gives_nothing() -> None:
    label, score = np.array([1.0, NAN, 0.0]), np.array([0.9, 0.9, NAN])
    (band,) = score_bands(label, score, users=np.array(["a", "b", "c"]))
    assert (band.users, band.rate, band.rate_high) == (1, 1.0, 1.0)
    assert score_bands(label[1:], score[1:]) == []
    assert np.isnan(coverage([]))


def test_a_user_seen_four_times_alike_counts_once() -> None:
    random = np.random.default_rng(0)
    score = random.random(400)
    label = (random.random(400) < score).astype(float)
    once = score_bands(label, score, bands=5)
    ids = np.tile([f"user {number}" for number in range(400)], 4)
    four = score_bands(np.tile(label, 4), np.tile(score, 4), bands=5, users=ids)
    for one, same in zip(once, four, strict=True):
        assert same.users == 4 * one.users
        assert (same.rate_low, same.rate_high) == pytest.approx((one.rate_low, one.rate_high))
        assert (same.stated_low, same.stated_high) == pytest.approx((one.stated_low, one.stated_high))


def test_users_who_never_come_back_change_nothing() -> None:
    random = np.random.default_rng(1)
    score = random.random(200)
    label = (random.random(200) < score).astype(float)
    assert score_bands(label, score, users=np.arange(200)) == score_bands(label, score)


def test_right_scores_are_covered_and_only_with_users_where_they_come_back() -> None:
    """Six rows a user, of whom each has one luck for all rows in half of the cases."""
    alone, known = [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        user = np.tile(np.arange(500), 6)
        score = np.clip(np.tile(random.beta(2, 5, size=500), 6), 0.01, 0.99)
        luck = np.where(random.random(3000) < 0.5, random.random(500)[user], random.random(3000))
        label = (luck < score).astype(float)
        alone.append(coverage(score_bands(label, score)))
        known.append(coverage(score_bands(label, score, users=user)))
    assert np.mean(alone) < 0.88
    assert 0.93 < np.mean(known) < 0.99


def test_amounts_are_told_by_tenth_and_covered_where_they_are_right() -> None:
    random = np.random.default_rng(4)
    score = np.repeat(random.uniform(5, 50, 2_000), 2)
    users = np.repeat(np.arange(2_000), 2).astype(str)
    # What a user spends at one date is like what the same user spends at the next.
    label = score * np.repeat(random.exponential(1.0, 2_000), 2)
    bands = amount_bands(label, score, users=users, seed=1)
    assert [band.users for band in bands] == [400] * 10
    assert bands[0].mean_score == pytest.approx(np.sort(score)[:400].mean())
    assert bands[0].rate == pytest.approx(label[np.argsort(score, kind="stable")[:400]].mean())
    assert coverage(bands) >= 0.8
    assert all(
        band.rate_low < band.rate < band.rate_high and band.stated_low < band.mean_score < band.stated_high for band in bands
    )
    # Of users who come twice intervals are as wide as of half as many rows.
    own = np.ptp([(band.rate_low, band.rate_high) for band in bands], axis=1)
    alone = np.ptp([(band.rate_low, band.rate_high) for band in amount_bands(label, score, users=np.arange(4_000), seed=1)], axis=1)
    assert np.median(own / alone) == pytest.approx(np.sqrt(2), rel=0.15)
    assert coverage(amount_bands(label, score * 2, users=users, seed=1)) == 0
    assert amount_bands(label[:0], score[:0], users=users[:0], seed=1) == []


def test_wrong_scores_are_no_excuse_for_wide_intervals() -> None:
    random = np.random.default_rng(3)
    score = np.tile(random.uniform(0.2, 0.8, size=1000), 5)
    label = (random.random(5000) < score * 0.7).astype(float)
    found = score_bands(label, score, users=np.tile(np.arange(1000), 5))
    assert coverage(found) < 0.2
    # No luck is shared by a user's rows, so the intervals are as wide as without users.
    for one, alone in zip(found, score_bands(label, score), strict=True):
        assert one.stated_high - one.stated_low == pytest.approx(alone.stated_high - alone.stated_low, rel=0.05)


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0, NAN]), min_size=4, max_size=4), min_size=1, max_size=20),
    st.booleans(),
)
def test_horizons_agree_as_by_pooling_one_row_after_the_other(rows: list[list[float]], rising: bool) -> None:
    values = np.array(rows)
    found = spaced(dict(zip(DAYS, values.T, strict=True)), rising=rising)
    ours = np.column_stack([found[horizon] for horizon in DAYS])
    for row, own in zip(values, ours, strict=True):
        asked = ~np.isnan(row)
        assert (np.isnan(own) == ~asked).all()
        if asked.any():
            theirs = IsotonicRegression(increasing=rising).fit_transform(np.arange(asked.sum()), row[asked])
            np.testing.assert_allclose(own[asked], theirs, atol=1e-12)
            assert (np.diff(own[asked]) * (1 if rising else -1) >= 0).all()


def test_rows_that_agree_stay_bit_for_bit_and_the_order_of_horizons_too() -> None:
    random = np.random.default_rng(0)
    values = np.sort(random.random((1000, 3)), axis=1)[:, ::-1].copy()
    values[::7, 1] = NAN
    values[500:] = values[500:, :1]
    values[5] = [0.2, 0.6, 0.1]
    before = values.copy()
    given_ = {DAYS[2]: values[:, 2], DAYS[0]: values[:, 0], DAYS[1]: values[:, 1]}
    found = spaced(given_, rising=False)
    assert list(found) == [DAYS[2], DAYS[0], DAYS[1]]
    np.testing.assert_array_equal(values, before)
    before[5] = [0.4, 0.4, 0.1]
    np.testing.assert_array_equal(np.column_stack([found[day] for day in DAYS[:3]]), before)


def test_one_horizon_or_none_has_nothing_to_agree_with() -> None:
    assert spaced({}, rising=True) == {}
    assert list(spaced({DAYS[0]: np.array([0.3, NAN])}, rising=True)[DAYS[0]])[:1] == [0.3]
    assert len(spaced({DAYS[0]: np.array([]), DAYS[1]: np.array([])}, rising=True)[DAYS[1]]) == 0


def test_bands_of_later_dates_lie_within_what_is_stated_when_drift_is_known() -> None:
    """Six dates whose level moves by a standard deviation of 0.4 log-odds; the seventh is stated from them."""
    chance, drifted = [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        score = random.uniform(0.1, 0.6, size=(7, 2000))
        happens = expit(logit(score) + random.normal(0, 0.4, size=(7, 1)))
        label = (random.random((7, 2000)) < happens).astype(float)
        drift = level_drift(score[:6].ravel(), label[:6].ravel(), np.repeat(np.arange(6), 2000))
        chance.append(coverage(score_bands(label[6], score[6])))
        drifted.append(coverage(score_bands(label[6], score[6], drift=np.full(2000, drift))))
    assert np.mean(chance) < 0.65
    assert 0.85 < np.mean(drifted) < 0.99


def test_drift_widens_both_ends_and_no_drift_neither() -> None:
    random = np.random.default_rng(4)
    score = random.uniform(0, 1, size=1000)
    label = (random.random(1000) < score).astype(float)
    for one, moved, same in zip(
        score_bands(label, score),
        score_bands(label, score, drift=np.full(1000, 0.5)),
        score_bands(label, score, drift=np.zeros(1000)),
        strict=True,
    ):
        assert 0 <= moved.stated_low < one.stated_low < one.stated_high < moved.stated_high <= 1
        assert (same.stated_low, same.stated_high) == pytest.approx((one.stated_low, one.stated_high))
        assert moved.drift == pytest.approx(0.5)
