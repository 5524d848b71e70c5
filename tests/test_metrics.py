"""Measures against scikit-learn, against rows written out as often as they weigh, and in the corners where nothing is defined."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from features.errors import DataError
from models import metrics
from models.metrics import Contact, measures, measures_drawn
from models.ranking import rank

CONTACT = Contact(capacity=30, value=10.0, cost=2.0)


def scored(rows: int = 300, seed: int = 0, decimals: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and scores so coarse that most are tied."""
    random = np.random.default_rng(seed)
    odds = random.normal(-1, 1.5, rows)
    return (random.random(rows) < expit(odds)).astype(float), np.round(expit(0.7 * odds + 0.3), decimals)


def spent(rows: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    taste = random.normal(size=rows)
    return np.where(taste + random.normal(size=rows) > 0, np.exp(taste), 0.0), np.round(np.exp(taste), 1)


def counts(draws: int, rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson(1.0, (draws, rows)).astype(float)


def drawn(label: np.ndarray, score: np.ndarray, weights: np.ndarray, **options) -> dict[str, np.ndarray]:
    ranking = rank(label, score)
    return measures_drawn(ranking, weights[:, ranking.order], **options)


def test_every_measure_of_a_small_table() -> None:
    label, score = np.array([1.0, 0.0, 1.0, 0.0, 0.0]), np.array([0.9, 0.8, 0.6, 0.3, 0.1])
    found = measures(label, score, is_amount=False, contact=Contact(capacity=2, value=10.0, cost=7.0))
    fitted = (found.pop("calibration_slope"), found.pop("calibration_intercept"))
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(score)[:, None], label)
    assert fitted == pytest.approx((reference.coef_[0, 0], reference.intercept_[0]), abs=1e-5)
    # Tenths of five rows: each row is two of them.
    expected = {
        "users": 5,
        "positives": 2,
        "auc": 5 / 6,
        "average_precision": (1 + 2 / 3) / 2,
        "log_loss": -np.log([0.9, 0.2, 0.6, 0.7, 0.9]).mean(),
        "brier": (0.01 + 0.64 + 0.16 + 0.09 + 0.01) / 5,
        "expected_calibration_error": (0.1 + 0.8 + 0.4 + 0.3 + 0.1) / 5,
        "lift_1pct": 2.5,
        "lift_5pct": 2.5,
        "lift_10pct": 2.5,
        "lift_20pct": 2.5,
        "captured_1pct": 0.5,
        "captured_5pct": 0.5,
        "captured_10pct": 0.5,
        "captured_20pct": 0.5,
        "base_rate": 0.4,
        "precision_at_capacity": 0.5,
        "expected_profit": (10 - 2 * 7) / 5,
    }
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)


def test_every_measure_of_amounts() -> None:
    label, score = np.array([0.0, 10.0, 30.0, -4.0]), np.array([1.0, 20.0, 10.0, 1.0])
    logs = np.log([2.0, 21 / 11, 31 / 11, 2.0])
    # By score: 10, 30, then two tied that share -4; the best order is 30, 10, 0, -4.
    area = (5 + 25 + 39 + 37) / (4 * 36) - 0.5
    best = (15 + 35 + 40 + 38) / (4 * 36) - 0.5
    expected = {
        "users": 4,
        # An amount below zero counts as zero.
        "poisson_deviance": 2 * (10 * np.log(10 / 20) + 30 * np.log(30 / 10) + 1 + (20 - 10) + (10 - 30) + 1) / 4,
        "mean_absolute_error": (1 + 10 + 20 + 5) / 4,
        "root_mean_squared_error": np.sqrt((1 + 100 + 400 + 25) / 4),
        "mean_label": 9,
        "total_error": 32 / 36 - 1,
        "gini": area / best,
        "rmsle": np.sqrt((logs**2).mean()),
    }
    found = measures(label, score, is_amount=True)
    # Tenths of four rows: 0.4 of a row each; the third holds half of the first row and half of the second.
    tenths = [4, 4, 2 - 4, 8, 8, 1.2, 1.2, 1.2, 1.2, 1.2]
    assert found.pop("decile_total_error") == pytest.approx(np.abs(tenths).sum() / 36)
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)


@pytest.mark.parametrize("decimals", [1, 8])
def test_weighted_measures_equal_those_of_scikit_learn(decimals: int) -> None:
    label, score = scored(decimals=decimals)
    weights = np.random.default_rng(2).random((6, 300)) * (np.arange(300) % 7 > 0)
    found = drawn(label, score, weights, is_amount=False)
    clipped = np.clip(score, 1e-6, 1 - 1e-6)
    for draw, weight in enumerate(weights):
        assert found["auc"][draw] == pytest.approx(roc_auc_score(label, score, sample_weight=weight), abs=1e-12)
        assert found["average_precision"][draw] == pytest.approx(
            average_precision_score(label, score, sample_weight=weight), abs=1e-12
        )
        assert found["brier"][draw] == pytest.approx(brier_score_loss(label, score, sample_weight=weight), abs=1e-12)
        assert found["log_loss"][draw] == pytest.approx(log_loss(label, clipped, sample_weight=weight), abs=1e-12)
        line = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(clipped)[:, None], label, sample_weight=weight)
        assert found["calibration_slope"][draw] == pytest.approx(line.coef_[0, 0], abs=1e-5)
        assert found["calibration_intercept"][draw] == pytest.approx(line.intercept_[0], abs=1e-5)


@pytest.mark.parametrize("is_amount", [False, True])
def test_a_weight_of_three_is_three_rows(is_amount: bool) -> None:
    label, score = spent() if is_amount else scored()
    weights = counts(5, 300)
    options = {"is_amount": is_amount, "contact": CONTACT}
    found = drawn(label, score, weights, **options)
    for draw, weight in enumerate(weights.astype(int)):
        written_out = measures(np.repeat(label, weight), np.repeat(score, weight), **options)
        assert {name: values[draw] for name, values in found.items()} == pytest.approx(
            {name: value for name, value in written_out.items() if name not in ("users", "positives")}, rel=1e-6, abs=1e-9
        )


@pytest.mark.parametrize("is_amount", [False, True])
def test_tied_rows_in_another_order_change_nothing(is_amount: bool) -> None:
    label, score = spent() if is_amount else scored()
    turned = np.lexsort((-label, score))
    first = measures(label, score, is_amount=is_amount, contact=CONTACT)
    assert first == pytest.approx(measures(label[turned], score[turned], is_amount=is_amount, contact=CONTACT), abs=1e-9)


def test_a_cut_through_ties_takes_their_share() -> None:
    label, score = np.array([1.0] + [1.0] * 3 + [0.0] * 6), np.array([0.9] + [0.5] * 9)
    found = measures(label, score, is_amount=False, contact=Contact(capacity=4))
    assert found["precision_at_capacity"] == pytest.approx((1 + 3 * 3 / 9) / 4)
    assert found["captured_20pct"] == pytest.approx((1 + 3 / 9) / 4)
    assert found["lift_20pct"] == pytest.approx(found["captured_20pct"] / 0.2)


def test_a_capacity_beyond_the_rows_reaches_them_all() -> None:
    label, score = scored()
    found = measures(label, score, is_amount=False, contact=Contact(capacity=1000, value=5.0, cost=0.0))
    assert found["precision_at_capacity"] == pytest.approx(label.mean())
    assert found["expected_profit"] == pytest.approx(5 * label[score > 0].sum() / 300)


def test_profit_is_of_those_worth_a_contact_up_to_capacity() -> None:
    label, score = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.5, 0.3, 0.2])
    assert measures(label, score, is_amount=False, contact=Contact(value=10, cost=2))["expected_profit"] == (20 - 6) / 4
    assert measures(label, score, is_amount=False, contact=Contact(1, 10, 2))["expected_profit"] == (10 - 2) / 4
    assert measures(label, score, is_amount=False, contact=Contact(value=1, cost=2))["expected_profit"] == 0
    # A loss is told even where nobody was positive.
    assert measures(label * 0, score, is_amount=False, contact=Contact(9, 10, 2)) == {
        "users": 4.0,
        "positives": 0.0,
        "precision_at_capacity": 0.0,
        "expected_profit": -6 / 4,
    }


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_class_has_no_measures(value: float) -> None:
    found = measures(np.full(3, value), np.array([0.1, 0.2, 0.3]), is_amount=False)
    assert found == {"users": 3.0, "positives": 3 * value}


def test_no_rows_have_no_measures() -> None:
    assert measures(np.array([]), np.array([]), is_amount=False) == {"users": 0.0, "positives": 0.0}
    assert measures(np.array([]), np.array([]), is_amount=True) == {"users": 0.0}


def test_nothing_bought_has_no_shares() -> None:
    found = measures(np.zeros(2), np.array([1.0, 3.0]), is_amount=True)
    squared = {"poisson_deviance": 4, "root_mean_squared_error": np.sqrt(5), "rmsle": np.sqrt(np.mean(np.log([2, 4]) ** 2))}
    assert found == pytest.approx({"users": 2, "mean_absolute_error": 2, "mean_label": 0, **squared})


@pytest.mark.parametrize(
    ("label", "score"),
    [
        ([0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]),
        ([0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.2, 0.4]),
        ([1.0, 1.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4]),
        ([0.0, 1.0, 0.0, 1.0], [0.2, 0.2, 0.2, 0.2]),
        # Newton's full steps would stop at a slope of 33 here, and short ones are still under way when they have been enough.
        ([0.0, 1.0, 0.0, 0.0], [0.5, 0.9, 0.5, 0.2]),
        ([0.0, 0.0, 1.0, 1.0], [0.1, 0.3, 0.3001, 0.9]),
    ],
)
def test_no_slope_where_none_is_likeliest(label: list[float], score: list[float]) -> None:
    found = measures(np.array(label), np.array(score), is_amount=False)
    assert "auc" in found
    assert not {"calibration_slope", "calibration_intercept"} & set(found)


def test_a_slope_is_found_from_far_away() -> None:
    # One confident mistake among scores that say nothing: Newton's full step would overshoot.
    score = np.array([1e-6, *np.linspace(0.4, 0.6, 40)])
    label = np.array([1.0, *([0.0, 1.0] * 20)])
    found = measures(label, score, is_amount=False)
    rate = expit(found["calibration_intercept"] + found["calibration_slope"] * logit(score))
    assert np.sum(rate - label) == pytest.approx(0, abs=1e-9)
    assert np.sum((rate - label) * logit(score)) == pytest.approx(0, abs=1e-8)


def test_a_score_that_is_no_probability_is_measured_as_a_ranking() -> None:
    label, score = scored()
    days = measures(label, score * 100, is_amount=False)
    assert list(days) == [
        *("users", "positives", "auc", "average_precision"),
        *(f"{what}_{percent}pct" for what in ("lift", "captured") for percent in (1, 5, 10, 20)),
        "base_rate",
    ]
    assert days == pytest.approx({name: measures(label, score, is_amount=False)[name] for name in days})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(DataError, match="1 of 3 scores are null or infinite: leave out the rows that cannot be measured"):
        measures(np.array([0.0, 1.0, 1.0]), np.array([0.1, bad, 0.2]), is_amount=False)


@pytest.mark.parametrize("is_amount", [False, True])
def test_draws_in_chunks_are_the_same_draws(is_amount: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    label, score = spent() if is_amount else scored()
    weights = counts(7, 300)
    whole = drawn(label, score, weights, is_amount=is_amount)
    monkeypatch.setattr(metrics, "CHUNK", 600)
    parts = drawn(label, score, weights, is_amount=is_amount)
    assert list(parts) == list(whole)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-6)


def test_a_draw_without_positives_is_null_alone() -> None:
    label, score = np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.6, 0.2])
    found = drawn(label, score, np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), is_amount=False)
    np.testing.assert_array_equal(found["auc"], [np.nan, 0.5, np.nan])
