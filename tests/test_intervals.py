"""Bootstrap over users: whole users move together, draws can be repeated, and the interval holds what it should."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.special import expit

from features.errors import DataError, GateError
from models import intervals as module
from models.intervals import Interval, _coded, _drawn_users, intervals, mean_interval, paired, pooled, rate_interval
from models.metrics import Contact, measures

CUTOFFS = pd.to_datetime(["2024-01-01", "2024-01-15", "2024-01-29"])


def predicted(users: int = 60, seed: int = 0, repeats: bool = False) -> pd.DataFrame:
    """Three origins of the same users; with `repeats` each user has one score and one label at all of them."""
    random = np.random.default_rng(seed)
    odds = random.normal(-0.5, 1.5, (1 if repeats else len(CUTOFFS), users))
    label = (random.random(odds.shape) < expit(odds)).astype(float)
    shape = (len(CUTOFFS), users)
    return pd.DataFrame(
        {
            "user_id": np.tile([f"u{number}" for number in range(users)], len(CUTOFFS)),
            "cutoff": np.repeat(CUTOFFS, users),
            "label": np.broadcast_to(label, shape).ravel(),
            "score": np.broadcast_to(expit(0.6 * odds), shape).ravel(),
            "baseline": expit(np.broadcast_to(odds, shape).ravel() + random.normal(size=odds.size if not repeats else users * 3)),
        }
    )


def user_weights(users: npt.ArrayLike, *, draws: int, seed: int) -> np.ndarray:
    """How often each row's user was drawn: draws × rows."""
    codes, count = _coded(users)
    return np.concatenate([counts[:, codes] for counts in _drawn_users(count, draws=draws, seed=seed, most=draws)])


def test_all_rows_of_a_user_weigh_the_same() -> None:
    weights = user_weights(np.array(["b", "a", "b", "c"]), draws=50, seed=1)
    assert weights.shape == (50, 4)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    # Three users are drawn each time.
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), np.full(50, 3.0))
    assert len(np.unique(weights, axis=0)) > 5
    again = user_weights(np.array(["c", "b", "a"]), draws=50, seed=1)
    np.testing.assert_array_equal(again, weights[:, [3, 0, 1]])
    assert not np.array_equal(weights, user_weights(np.array(["b", "a", "b", "c"]), draws=50, seed=2))


def test_draws_of_users_are_multinomial() -> None:
    weights = user_weights(np.arange(20), draws=4000, seed=0)
    np.testing.assert_allclose(weights.mean(axis=0), np.ones(20), atol=0.08)
    np.testing.assert_allclose(weights.var(axis=0), np.full(20, 19 / 20), atol=0.12)


def test_intervals_equal_measures_of_rows_written_out() -> None:
    rows, contact = predicted(), Contact(capacity=10, value=5.0, cost=1.0)
    weights = user_weights(rows.user_id, draws=40, seed=3).astype(int)
    drawn = []
    for weight in [np.ones(len(rows), dtype=int), *weights]:
        repeated = rows.loc[rows.index.repeat(weight)]
        found = [
            measures(part.label.to_numpy(), part.score.to_numpy(), is_amount=False, contact=contact)
            for _, part in repeated.groupby("cutoff")
        ]
        drawn.append(pd.DataFrame(found).drop(columns=["users", "positives"]).mean())
    expected = pd.DataFrame(drawn)
    found = intervals(rows, "score", is_amount=False, contact=contact, seed=3, draws=40, confidence=0.9).mean
    assert list(found) == list(expected.columns)
    for name, interval in found.items():
        low, high = expected[name][1:].quantile([0.05, 0.95])
        value = expected[name][0]
        if name == "expected_calibration_error":
            # Noise makes it too high: see below.
            low, high = interval.low, interval.high
        assert (interval.value, interval.low, interval.high) == pytest.approx((value, low, high), abs=1e-6), name


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.3, 1.0), (0.0, 0.7)])
def test_the_interval_of_the_calibration_error_holds_the_true_one(shift: float, stretch: float) -> None:
    random, held, sides = np.random.default_rng(1), 0, [0, 0]
    for _ in range(60):
        odds = random.normal(-1.5, 1.2, 1500)
        score, rate = expit(odds), expit(shift + stretch * odds)
        rows = pd.DataFrame({"user_id": np.arange(1500) // 3, "label": (random.random(1500) < rate).astype(float), "score": score})
        found = pooled(rows, "score", is_amount=False, seed=1, only=["expected_calibration_error"])["expected_calibration_error"]
        order = np.argsort(score)
        true = sum(abs((rate - score)[tenth].sum()) for tenth in np.array_split(order, 10)) / 1500
        held += found.low <= true <= found.high
        sides[0] += found.low > true
        sides[1] += found.high < true
    assert held >= 52, sides


def test_an_interval_does_not_depend_on_the_order_of_rows_nor_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = predicted()
    first = intervals(rows, "score", is_amount=False, seed=3, draws=20).mean
    shuffled = intervals(rows.sample(frac=1, random_state=1), "score", is_amount=False, seed=3, draws=20).mean
    monkeypatch.setattr(module, "CHUNK", 300)
    chunked = intervals(rows, "score", is_amount=False, seed=3, draws=20).mean
    for name, interval in first.items():
        for other in (shuffled[name], chunked[name]):
            assert (other.value, other.low, other.high) == pytest.approx((interval.value, interval.low, interval.high), abs=1e-6)


def test_copies_of_a_user_make_nothing_surer() -> None:
    copied = predicted(repeats=True)
    alone = copied[copied.cutoff == CUTOFFS[0]]
    options = {"is_amount": False, "seed": 1, "only": ["auc", "brier"]}
    for name, interval in intervals(alone, "score", **options).mean.items():
        for thrice in (intervals(copied, "score", **options).mean[name], pooled(copied, "score", **options)[name]):
            assert (thrice.value, thrice.low, thrice.high) == pytest.approx((interval.value, interval.low, interval.high))


def test_an_origin_of_one_class_is_left_out_of_the_mean() -> None:
    rows = predicted()
    rows.loc[rows.cutoff == CUTOFFS[1], "label"] = 0.0
    kept = rows[rows.cutoff != CUTOFFS[1]]
    assert intervals(rows, "score", is_amount=False, seed=1).mean == intervals(kept, "score", is_amount=False, seed=1).mean
    assert intervals(rows.assign(label=0.0), "score", is_amount=False, seed=1).mean == {}
    assert intervals(rows.head(0), "score", is_amount=False, seed=1).mean == {}
    assert pooled(rows.head(0), "score", is_amount=False, seed=1) == {}


def test_each_origin_has_intervals_of_its_own() -> None:
    rows = predicted()
    rows.loc[rows.cutoff == CUTOFFS[1], "label"] = 0.0
    found = intervals(rows, "score", is_amount=False, seed=1)
    assert list(found.by_origin) == CUTOFFS.to_pydatetime().tolist()
    for cutoff, by_name in found.by_origin.items():
        here = rows[rows.cutoff == cutoff]
        told = measures(here.label.to_numpy(), here.score.to_numpy(), is_amount=False)
        assert {name: interval.value for name, interval in by_name.items()} == pytest.approx({name: told[name] for name in by_name})
        assert all(interval.low <= interval.value <= interval.high for interval in by_name.values())
    assert "auc" not in found.by_origin[CUTOFFS[1].to_pydatetime()]
    first = found.by_origin[CUTOFFS[0].to_pydatetime()]["auc"]
    assert first.high - first.low > found.mean["auc"].high - found.mean["auc"].low


def test_amounts_have_intervals_too() -> None:
    rows = predicted().assign(label=lambda frame: frame.label * 10, score=lambda frame: frame.score * 10)
    found = pooled(rows, "score", is_amount=True, seed=1, draws=50)
    assert list(found) == [
        "poisson_deviance",
        "mean_absolute_error",
        "root_mean_squared_error",
        "mean_label",
        "total_error",
        "gini",
        "rmsle",
        "decile_total_error",
    ]
    assert all(interval.low <= interval.value <= interval.high for interval in found.values())
    assert mean_interval(rows.label.to_numpy(), rows.user_id, seed=1, draws=50) == found["mean_label"]


def test_a_column_against_itself_differs_by_nothing() -> None:
    same = paired(predicted(), "score", "score", is_amount=False, measure="average_precision", seed=1)
    assert same == Interval(0.0, 0.0, 0.0)


def test_pairs_are_surer_than_their_parts() -> None:
    rows = predicted()
    found = paired(rows, "score", "baseline", is_amount=False, measure="auc", seed=1)
    parts = [intervals(rows, column, is_amount=False, seed=1).mean["auc"] for column in ("score", "baseline")]
    assert found.value == pytest.approx(parts[0].value - parts[1].value)
    assert found.low > 0
    assert found.high - found.low < sum(part.high - part.low for part in parts)
    turned = paired(rows, "baseline", "score", is_amount=False, measure="auc", seed=1)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))


@pytest.mark.parametrize("measure", ["auc", "accuracy"])
def test_nothing_to_compare_is_refused(measure: str) -> None:
    rows = predicted().assign(label=0.0) if measure == "auc" else predicted()
    with pytest.raises(GateError, match=f"{measure} of score and baseline is defined at none of 3 test origins"):
        paired(rows, "score", "baseline", is_amount=False, measure=measure, seed=1)


def test_null_scores_are_refused() -> None:
    rows = predicted()
    rows.loc[3, "score"] = np.nan
    with pytest.raises(DataError, match="1 of 60 scores are null"):
        intervals(rows, "score", is_amount=False, seed=1)


def test_many_rows_have_fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FULL_ROWS", 90)
    monkeypatch.setattr(module, "FEWEST_DRAWS", 30)
    rows = predicted()
    monkeypatch.setattr(module, "_drawn_users", seen := Seen())
    for draws, made in ((200, 100), (40, 30), (20, 20)):
        intervals(rows, "score", is_amount=False, seed=1, draws=draws, only=["auc"])
        assert seen.draws == made


class Seen:
    """Draws users as ever, and keeps how often."""

    draws = 0
    drawn = staticmethod(module._drawn_users)

    def __call__(self, users: int, *, draws: int, seed: int, most: int):
        self.draws = draws
        return self.drawn(users, draws=draws, seed=seed, most=most)


def test_a_rate_of_independent_rows_has_wilsons_interval() -> None:
    # Wilson's interval of 8 of 10: from 0.490 to 0.943.
    found = rate_interval(np.array([1.0] * 8 + [0.0] * 2), np.arange(10))
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_a_rate_is_worth_its_users_when_their_rows_agree() -> None:
    label, users = np.array([1.0] * 8 + [0.0] * 2), np.arange(10)
    thrice = rate_interval(np.tile(label, 3), np.tile(users, 3))
    once = rate_interval(label, users)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    independent = rate_interval(np.tile(label, 3), np.arange(30))
    assert independent.high - independent.low < 0.7 * (once.high - once.low)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_without_exceptions_still_has_a_width(rate: float) -> None:
    found = rate_interval(np.full(20, rate), np.repeat(np.arange(10), 2))
    assert found.value == rate
    assert abs(found.low - found.high) == pytest.approx(0.2775, abs=1e-4)
