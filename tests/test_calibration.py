"""Calibrators: maps that never fall, chosen by size and by test, in plain numbers."""

import json
from dataclasses import asdict
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from builders import DAY
from models import calibration
from models.calibration import Calibrator, _simplest, calibrated_loss, delivered_loss, fit_calibrator

GRID = np.linspace(0, 1, 2001)
MAPS = {
    "shrunk": Calibrator("shrunk", slope=0.7, intercept=-0.2),
    "none": Calibrator(),
    "platt": Calibrator("platt", slope=0.8, intercept=-0.3),
    "beta": Calibrator("beta", slope=0.0, intercept=-0.3, upper_slope=1.2),
    "isotonic": Calibrator("isotonic", x=(0.1, 0.2, 0.7), y=(0.05, 0.3, 0.3)),
    "scale": Calibrator("scale", slope=1.5),
}


def blocks(rows: int, *, curve: str = "right", seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four fortnights of raw scores and labels: scores are `right`, too `bold`, too `timid`, or bent only `above` one half."""
    random = np.random.default_rng(seed)
    odds = random.normal(-1.0, 1.2, size=4 * rows)
    truth = {"right": odds, "bold": odds * 0.5, "timid": odds * 1.6, "above": np.minimum(odds, -1.0)}[curve]
    when = np.repeat([datetime(2024, 1, 1) + timedelta(days=14 * at) for at in range(4)], rows)
    return expit(odds), (random.random(4 * rows) < expit(truth)).astype(float), when


def fitted(method: str, raw: np.ndarray, label: np.ndarray) -> Calibrator:
    """One map of the ladder on all pairs, chosen or not."""
    (pairs,) = calibration._gathered(raw, label, np.zeros(len(raw), dtype=int))
    return {"platt": calibration._platt, "beta": calibration._beta, "isotonic": calibration._isotonic}[method](pairs)


@pytest.mark.parametrize("curve", ["bold", "timid"])
def test_what_is_lost_on_delivery_is_half_of_the_slope_and_no_level(curve: str) -> None:
    raw, label, _ = blocks(3_000, curve=curve)
    whole, lost = calibrated_loss(raw, label), delivered_loss(raw, label)
    assert whole < lost < log_loss(label, raw)
    assert delivered_loss(expit(logit(raw) + 0.7), label) == pytest.approx(lost, rel=1e-3)
    # By hand: half of the way to Platt's slope, at the level of the labels.
    slope = (1 + LogisticRegression(C=np.inf).fit(logit(raw)[:, None], label).coef_.item()) / 2
    level = brentq(lambda step: float(expit(slope * logit(raw) + step).mean() - label.mean()), -5, 5)
    assert lost == pytest.approx(log_loss(label, expit(slope * logit(raw) + level)), rel=1e-4)


@pytest.mark.parametrize("method", MAPS)
def test_a_map_survives_json(method: str) -> None:
    told = json.loads(json.dumps(asdict(MAPS[method])))
    assert Calibrator(**told) == MAPS[method]


def test_a_head_of_before_still_loads() -> None:
    assert Calibrator(**{"method": "platt", "slope": 0.9, "intercept": 0.1})(np.array([0.5])) == expit(0.1)


@pytest.mark.parametrize("method", MAPS)
def test_no_map_falls_and_unknown_stays_unknown(method: str) -> None:
    found = MAPS[method](np.concatenate([GRID, [np.nan]]))
    assert np.isnan(found[-1])
    assert (np.diff(found[:-1]) >= 0).all()
    assert np.isfinite(found[:-1]).all()


@pytest.mark.parametrize(
    "told",
    [
        {"method": "platt", "slope": -1.0},
        {"method": "platt", "slope": float("nan")},
        {"method": "beta", "slope": -0.1, "upper_slope": 1.0},
        {"method": "beta", "slope": 0.0, "upper_slope": 0.0},
        {"method": "isotonic", "x": [0.0, 1.0], "y": [0.5, 0.4]},
        {"method": "isotonic", "x": [0.0, 0.0], "y": [0.4, 0.5]},
        {"method": "isotonic", "x": [0.0, 0.5, 1.0], "y": [0.4, 0.5]},
        {"method": "isotonic"},
        {"method": "spline"},
    ],
)
def test_a_damaged_map_is_refused(told: dict) -> None:
    with pytest.raises(ValueError, match=f"no rising {told['method']} map"):
        Calibrator(**told)


def test_platt_is_a_logistic_regression_on_softened_labels() -> None:
    raw, label, _ = blocks(100, curve="bold")
    positives, negatives = label.sum(), (1 - label).sum()
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    twice = np.concatenate([logit(raw), logit(raw)]).reshape(-1, 1)
    classes = np.repeat([1, 0], len(raw))
    theirs = LogisticRegression(C=1e9, tol=1e-10).fit(twice, classes, sample_weight=np.concatenate([target, 1 - target]))
    ours = fitted("platt", raw, label)
    assert (ours.slope, ours.intercept) == pytest.approx((theirs.coef_[0, 0], theirs.intercept_[0]), abs=1e-4)


def test_a_perfect_ranking_with_zeros_and_ones_gives_no_certainty() -> None:
    raw, label = np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], 50)
    assert fitted("platt", raw, label)(np.array([0.0, 1.0])) == pytest.approx([1 / 52, 51 / 52])


def test_beta_is_an_unpenalised_logistic_regression_on_both_logs() -> None:
    random = np.random.default_rng(1)
    raw = random.beta(2, 5, size=20_000)
    label = (random.random(20_000) < expit(0.7 * np.log(raw) - 2.0 * np.log(1 - raw) + 0.2)).astype(float)
    columns = np.column_stack([np.log(raw), -np.log(1 - raw)])
    theirs = LogisticRegression(C=1e9, tol=1e-10, max_iter=10_000).fit(columns, label)
    ours = fitted("beta", raw, label)
    assert (ours.slope, ours.upper_slope, ours.intercept) == pytest.approx((*theirs.coef_[0], theirs.intercept_[0]), abs=5e-3)
    assert ours.slope == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize(("low", "high", "dropped"), [(-0.3, 3.0, "slope"), (1.5, -0.6, "upper_slope")])
def test_a_side_of_beta_that_falls_is_dropped(low: float, high: float, dropped: str) -> None:
    random = np.random.default_rng(2)
    raw = random.uniform(0.02, 0.98, size=20_000)
    label = (random.random(20_000) < expit(low * np.log(raw) - high * np.log(1 - raw) - 0.5)).astype(float)
    found = asdict(fitted("beta", raw, label))
    assert (found.pop("method"), found.pop(dropped)) == ("beta", 0.0)
    assert found["upper_slope" if dropped == "slope" else "slope"] > 0.5


def test_isotonic_joins_the_centres_of_its_steps() -> None:
    raw = np.repeat([0.1, 0.2, 0.3, 0.6, 0.8], [10, 10, 10, 20, 40])
    rates = [2, 3, 1, 10, 40]  # Of 10, 10, 10, 20, 40: the first three fall in the middle and are pooled to 6 of 30.
    label = np.concatenate(
        [np.repeat([1.0, 0.0], [hits, rows - hits]) for hits, rows in zip(rates, (10, 10, 10, 20, 40), strict=True)]
    )
    found = fitted("isotonic", raw, label)
    first, top = 0.2, 1 - 1 / 82
    # The first step is 0.2 of 0.1; then (3 + 1) of 20 is 0.2 too.
    assert found.x == pytest.approx((0.0, 0.2, 0.6, 0.8, 1.0))
    assert found.y == pytest.approx((first * 0.95, first, 0.5, top, 1 - (1 - top) * 0.95))


def test_isotonic_is_near_to_sklearns_nearer_to_the_truth_and_shares_no_score() -> None:
    raw, label, _ = blocks(5000, curve="bold")
    theirs = IsotonicRegression(out_of_bounds="clip").fit(raw, label).predict(raw)
    ours = fitted("isotonic", raw, label)(raw)
    truth = expit(logit(raw) * 0.5)
    assert np.abs(ours - theirs).mean() < 0.01
    assert np.abs(ours - truth).mean() < np.abs(theirs - truth).mean()
    assert ours.mean() == pytest.approx(label.mean(), abs=0.002)
    assert len(np.unique(ours)) == len(np.unique(raw)) > 20 * len(np.unique(theirs))
    assert (np.diff(ours[np.argsort(raw)]) > 0).all()


def test_an_isotonic_map_ends_at_its_last_point() -> None:
    # 0.06 + (0.88 - 0.06) is more than 0.88 by a digit.
    found = Calibrator("isotonic", x=(0.1, 0.9), y=(0.06, 0.88))(np.array([0.0, 0.1, 0.9, 1.0]))
    assert found.tolist() == [0.06, 0.06, 0.88, 0.88]


@pytest.mark.parametrize("ends", [[0.0, 1.0], [0.0, 0.5, 1.0]])
def test_isotonic_of_scores_at_the_very_ends(ends: list[float]) -> None:
    raw = np.repeat(ends, 1000)
    label = (np.random.default_rng(0).random(len(raw)) < 0.2 + 0.6 * raw).astype(float)
    found = fitted("isotonic", raw, label)
    assert found.x == tuple(ends)
    assert found.y == pytest.approx([label[raw == end].mean() for end in ends])


def test_what_never_happened_to_few_is_not_ruled_out() -> None:
    raw = np.repeat([0.01, 0.5], [9, 1000])
    label = np.concatenate([np.zeros(9), np.repeat([1.0, 0.0], [400, 600])])
    assert fitted("isotonic", raw, label)(np.array([0.01])) == pytest.approx(1 / 20)


@pytest.mark.parametrize(
    ("rows", "curve", "method"),
    [(1000, "right", "none"), (1000, "bold", "shrunk"), (1000, "timid", "platt"), (6000, "above", "isotonic")],
)
def test_the_map_is_chosen_on_blocks_left_out(rows: int, curve: str, method: str) -> None:
    raw, label, when = blocks(rows, curve=curve)
    found = fit_calibrator(raw, label, is_amount=False, blocks=when)
    assert found.method == method
    # The order of the rows, and what blocks are called, say nothing.
    order = np.random.default_rng(1).permutation(len(raw))
    again = fit_calibrator(raw[order], label[order], is_amount=False, blocks=when[order].astype("datetime64[s]"))
    assert again.method == method
    np.testing.assert_allclose(again(GRID), found(GRID), atol=1e-9)


def test_beta_wins_where_its_own_curve_is_the_truth() -> None:
    random = np.random.default_rng(5)
    raw = random.uniform(0.001, 0.999, size=4000)
    odds = 0.3 * np.log(raw) - 3.0 * np.log(1 - raw)
    level = brentq(lambda step: expit(odds + step).mean() - raw.mean(), -20, 20)
    label = (random.random(4000) < expit(odds + level)).astype(float)
    assert fit_calibrator(raw, label, is_amount=False, blocks=np.arange(4000) % 4).method == "beta"


@pytest.mark.parametrize("curve", ["bold", "timid", "above"])
def test_a_curve_bends_scores_and_leaves_their_level(curve: str) -> None:
    """What happened more often at the dates behind is no news of those ahead."""
    raw, label, when = blocks(6000, curve=curve)
    more = np.maximum(label, np.random.default_rng(2).random(len(raw)) < 0.2)
    found = fit_calibrator(raw, more, is_amount=False, blocks=when)
    assert found.method in ("shrunk", "platt", "beta", "isotonic")
    assert more.mean() > raw.mean() + 0.05
    # Of many scores neighbours are fitted together.
    assert found(raw).mean() == pytest.approx(raw.mean(), abs=1e-4)
    # Nor are others' scores drawn to their level, when the curve is set around them.
    higher = np.append(expit(logit(raw) + 1.0), np.nan)
    moved = found.around(higher)
    assert abs(np.nanmean(found(higher)) - np.nanmean(higher)) > 0.003
    assert np.nanmean(moved(higher)) == pytest.approx(np.nanmean(higher))
    assert moved.method == found.method and moved.slope == found.slope and moved.x == found.x


@pytest.mark.parametrize("method", ["none", "shrunk", "platt", "beta", "isotonic"])
def test_half_a_curve_lies_between_it_and_the_raw_scores(method: str) -> None:
    curve = MAPS[method]
    raw = np.array(curve.x or (0.01, 0.3, 0.9))
    np.testing.assert_allclose(logit(calibration._halfway(curve)(raw)), (logit(raw) + logit(curve(raw))) / 2, atol=1e-9)


@pytest.mark.parametrize("raw", [np.array([]), np.array([np.nan]), np.zeros(3), np.ones(3)], ids=str)
@pytest.mark.parametrize("method", MAPS)
def test_there_is_no_level_of_nothing(method: str, raw: np.ndarray) -> None:
    told = MAPS[method].around(raw)
    assert told.method == method
    assert np.isfinite(told(GRID)).all()


@pytest.mark.parametrize(("rows", "is_isotonic"), [(900, False), (1200, True)])
def test_isotonic_waits_for_500_of_each_class(rows: int, is_isotonic: bool) -> None:
    random = np.random.default_rng(4)
    raw = random.random(rows)
    # Three plateaus, which no logistic curve is near to, with half of the labels 1.
    label = (random.random(rows) < np.select([raw < 0.3, raw < 0.7], [0.02, 0.5], 0.98)).astype(float)
    assert bool(min(label.sum(), (1 - label).sum()) >= 500) == is_isotonic
    found = fit_calibrator(raw, label, is_amount=False, blocks=np.arange(rows) % 4)
    assert (found.method == "isotonic") is is_isotonic


def test_blocks_that_overlap_are_one() -> None:
    """They saw the same weeks, and cannot tell whether what helps on one helps on others."""
    raw, label, _ = blocks(6000, curve="above")
    when = np.datetime64("2024-01-01") + np.arange(len(raw)) % 4 * np.timedelta64(14, "D")
    apart, overlapping = (fit_calibrator(raw, label, is_amount=False, blocks=when, horizon=days * DAY) for days in (14, 56))
    assert apart.method not in ("none", "shrunk")
    assert overlapping == fit_calibrator(raw, label, is_amount=False)
    # The outer two of four are 42 days apart.
    assert fit_calibrator(raw, label, is_amount=False, blocks=when, horizon=42 * DAY).method not in ("none", "shrunk")
    spent = (raw, 2 * raw)
    assert fit_calibrator(*spent, is_amount=True, blocks=when, horizon=14 * DAY).slope == pytest.approx(2.0)
    assert fit_calibrator(*spent, is_amount=True, blocks=when, horizon=56 * DAY) == Calibrator()


def test_one_block_makes_bold_scores_less_bold_and_leaves_their_level() -> None:
    raw, label, _ = blocks(6000, curve="bold")
    alone = fit_calibrator(raw, label, is_amount=False, blocks=np.zeros(len(raw)))
    assert alone == fit_calibrator(raw, label, is_amount=False)
    # Half of the way to the slope that was seen.
    assert alone.method == "shrunk" and alone.slope == pytest.approx(0.75, abs=0.05)
    assert alone(raw).mean() == pytest.approx(raw.mean(), abs=1e-4)
    # Scores that are not bold enough, or at the wrong level, are no matter of one block.
    for truth in (logit(raw) * 1.5, logit(raw) + 0.5):
        other = (np.random.default_rng(1).random(len(raw)) < expit(truth)).astype(float)
        found = fit_calibrator(raw, other, is_amount=False)
        assert found(raw).mean() == pytest.approx(raw.mean(), abs=0.01)
        assert found.slope > 0.9


@pytest.mark.parametrize(
    ("losses", "column"),
    [
        ([[0.50, 0.50], [0.50, 0.50]], 0),  # A map that does not help is no map.
        ([[0.50, 0.49], [0.50, 0.50]], 0),  # It helps on the mean, but no more than by chance.
        ([[0.50, 0.49], [0.50, 0.495]], 1),
        ([[0.60, 0.50, 0.49], [0.60, 0.50, 0.51]], 1),
        ([[0.60, 0.50, 0.49], [0.60, 0.50, 0.505]], 1),  # Better on the mean, but one block says the opposite.
        ([[0.60, 0.50, 0.46], [0.60, 0.50, 0.504]], 1),  # 0.018 better, with an error of 0.022.
        ([[0.60, 0.50, 0.49], [0.60, 0.50, 0.48]], 2),  # 0.015 better, with an error of 0.005.
        ([[9.60, 9.50, 9.49], [0.60, 0.50, 0.48]], 2),  # That blocks differ is no error of the maps.
    ],
)
def test_the_simplest_within_one_standard_error(losses: list[list[float]], column: int) -> None:
    assert _simplest(np.array(losses), errors=1) == column


def test_more_errors_ask_more_of_a_map() -> None:
    losses = np.array([[0.50, 0.48], [0.50, 0.495]])  # 0.0125 better, with an error of 0.0075.
    assert [_simplest(losses, errors=errors) for errors in (1, 2)] == [1, 0]


def test_a_ranking_the_wrong_way_round_is_left_alone_with_blocks_too() -> None:
    raw, label, when = blocks(1000)
    assert fit_calibrator(raw, 1 - label, is_amount=False, blocks=when) == Calibrator()


def test_equal_scores_are_left_alone() -> None:
    _, label, when = blocks(1000)
    assert fit_calibrator(np.full(4000, 0.3), label, is_amount=False, blocks=when) == Calibrator()


def test_pairs_that_are_unknown_are_left_out() -> None:
    raw, label, when = blocks(500, curve="bold")
    holes = (
        np.concatenate([[np.nan], raw, [0.5]]),
        np.concatenate([[1.0], label, [np.nan]]),
        np.concatenate([when[:1], when, when[:1]]),
    )
    assert fit_calibrator(*holes[:2], is_amount=False, blocks=holes[2]) == fit_calibrator(raw, label, is_amount=False, blocks=when)
    amounts = np.array([1.0, np.nan, 1.0]), np.array([2.0, 7.0, 2.0])
    assert fit_calibrator(*amounts, is_amount=True, blocks=np.arange(3)) == Calibrator("scale", slope=2.0)


def test_a_block_of_one_class_and_one_of_few_rows_are_no_obstacle() -> None:
    raw, label, when = blocks(300, curve="bold")
    label[when == when[0]] = 0.0
    keep = (when != when[-1]) | (np.arange(len(when)) >= len(when) - 2)
    # What holds on three blocks and not on the fourth is not sure.
    assert fit_calibrator(raw[keep], label[keep], is_amount=False, blocks=when[keep]) == Calibrator()


def test_a_million_scores_give_the_map_of_ten_thousand_neighbourhoods(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, label, when = blocks(6000, curve="above")
    near = fit_calibrator(raw, label, is_amount=False, blocks=when)
    platt = fitted("platt", raw, label)
    monkeypatch.setattr(calibration, "_MOST_SCORES", 10**9)
    exact = fit_calibrator(raw, label, is_amount=False, blocks=when)
    assert near.method == exact.method == "isotonic" and near != exact
    # Steps of few pairs move, where the curve is steep.
    assert np.abs(near(raw) - exact(raw)).mean() < 1e-3
    whole = LogisticRegression(C=1e9).fit(logit(raw).reshape(-1, 1), label)
    np.testing.assert_allclose(platt(raw), whole.predict_proba(logit(raw).reshape(-1, 1))[:, 1], atol=1e-3)


def test_neighbourhoods_keep_every_pair_and_part_no_equal_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_MOST_SCORES", 3)
    raw = np.array([0.1, 0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6])
    one, two = calibration._gathered(raw, np.array([1.0, 0, 1, 0, 1, 0, 1, 0, 1]), np.array([0, 0, 0, 0, 1, 0, 1, 0, 0]))
    # 0.1 and 0.2 begin in the first third of the nine rows, 0.3 and 0.4 in the second; the lower of two is their middle.
    assert [one.raw.tolist(), one.hits.tolist(), one.misses.tolist()] == [[0.1, 0.3, 0.5], [2, 0, 1], [2, 1, 1]]
    assert [two.raw.tolist(), two.hits.tolist(), two.misses.tolist()] == [[0.3, 0.5], [1, 1], [0, 0]]
