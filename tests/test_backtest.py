"""Backtest: purged origins, and calibration that only ever looks back."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from features.errors import GateError
from models.backtest import (
    Backtest,
    Compared,
    Origin,
    Predicted,
    Worth,
    assemble,
    at_cutoffs,
    best,
    calibrated,
    compare,
    plan_origins,
    predict_disjoint,
    predict_origin,
    surely_less_wrong,
    worth,
)
from models.calibration import Calibrator, calibrated_loss
from models.ladder import Constant, Recipe, Rung
from models.season import NO_SEASON, Season

DAY = timedelta(days=1)
CUTOFFS = [datetime(2024, 1, 1) + 14 * DAY * index for index in range(8)]


def compared(score: np.ndarray, label: np.ndarray) -> Compared:
    """Some rung's predictions of two test origins, of the same users."""
    users, parts = [f"u{number}" for number in range(len(label) // 2)], []
    for cutoff, own, happened in zip(CUTOFFS[:2], np.split(score, 2), np.split(label, 2), strict=True):
        told = pd.DataFrame({"user_id": users, "cutoff": cutoff, "is_test": True, "label": happened, "rfm": own})
        parts.append(Predicted(told, {"rfm": Constant(0.5)}))
    return Compared(tuple(parts), {"rfm": Worth(0.5, 0.5)}, NO_SEASON)


def test_a_recipe_is_less_wrong_for_sure_and_not_by_its_level_alone() -> None:
    random = np.random.default_rng(2)
    odds = random.normal(size=4_000) - 1
    label = (random.random(4_000) < expit(odds)).astype(float)
    blurred = odds + random.normal(size=4_000)
    dull, sharp = compared(expit(0.5 * blurred - 0.5), label), compared(expit(odds), label)
    assert surely_less_wrong(sharp, dull, seed=1)
    assert not surely_less_wrong(dull, sharp, seed=1)
    # Right as a whole, and knowing less; and as wrong as can be, knowing more.
    assert not surely_less_wrong(dull, compared(expit(odds - 2), label), seed=1)
    assert not surely_less_wrong(compared(expit(odds - 4), label), dull, seed=1)
    # A hair better is not sure.
    assert not surely_less_wrong(sharp, compared(expit(odds + random.normal(scale=0.02, size=4_000)), label), seed=1)
    # Too few to tell.
    few = np.r_[np.zeros(3_950), np.ones(50)][random.permutation(4_000)]
    assert not surely_less_wrong(compared(0.01 + 0.9 * few, few), compared(np.full(4_000, 0.02), few), seed=1)


def test_train_cutoffs_are_purged_of_overlapping_horizons() -> None:
    origins = plan_origins(CUTOFFS, 28 * DAY, tests=2, calibrations=1)
    assert origins == (
        # The one that has elapsed at the first test, and the one between.
        Origin(CUTOFFS[4], tuple(CUTOFFS[:3]), is_test=False, horizon=28 * DAY),
        Origin(CUTOFFS[5], tuple(CUTOFFS[:4]), is_test=False, horizon=28 * DAY),
        Origin(CUTOFFS[6], tuple(CUTOFFS[:5]), is_test=True, horizon=28 * DAY),
        Origin(CUTOFFS[7], tuple(CUTOFFS[:6]), is_test=True, horizon=28 * DAY),
    )
    assert all(cutoff + 28 * DAY <= origin.cutoff for origin in origins for cutoff in origin.train_cutoffs)


def test_cutoffs_that_look_ahead_at_the_same_are_learned_from_once() -> None:
    cutoffs = [CUTOFFS[0] + at * 14 * DAY for at in range(14)]
    origin = plan_origins(cutoffs, 6 * 14 * DAY, tests=1, calibrations=0)[0]
    assert [cutoffs.index(cutoff) for cutoff in origin.known] == [0, 1, 2, 3, 4, 5, 6, 7]
    # At least three weeks apart, from the latest on.
    assert [cutoffs.index(cutoff) for cutoff in origin.train_cutoffs] == [1, 3, 5, 7]


def test_rows_of_cutoffs_that_lie_together_are_not_copied() -> None:
    days = [datetime(2024, 1, day) for day in (1, 8, 15)]
    rows = pd.DataFrame({"cutoff": np.repeat(days, 2), "spend": np.arange(6.0)})
    together, apart_, none = at_cutoffs(rows, days[1:]), at_cutoffs(rows, [days[0], days[2]]), at_cutoffs(rows, [])
    assert (together.spend.tolist(), apart_.spend.tolist(), none.spend.tolist()) == ([2, 3, 4, 5], [0, 1, 4, 5], [])
    assert np.shares_memory(together.spend.to_numpy(), rows.spend.to_numpy())


def test_short_history_gives_fewer_origins_and_keeps_the_tests() -> None:
    origins = plan_origins(CUTOFFS[:4], 28 * DAY, tests=5, calibrations=4)
    assert [(origin.cutoff, origin.is_test) for origin in origins] == [(CUTOFFS[3], True)]


def test_what_is_neither_reported_nor_calibrated_on_is_not_predicted() -> None:
    cutoffs = [CUTOFFS[0] + at * 14 * DAY for at in range(14)]
    origins = plan_origins(cutoffs, 6 * 14 * DAY, tests=2, calibrations=1, minimum=1)
    assert [cutoffs.index(origin.cutoff) for origin in origins if origin.is_test] == [12, 13]
    assert [cutoffs.index(origin.cutoff) for origin in origins if not origin.is_test] == [6, 7]


def test_too_short_a_history_is_refused() -> None:
    with pytest.raises(GateError, match="3 training cutoffs leave no origin to test on.*28 days.*Raise training.max_cutoffs"):
        plan_origins(CUTOFFS[:3], 28 * DAY, tests=5, calibrations=4)


def rows(users: int = 200, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frames = []
    for cutoff in CUTOFFS:
        strength = random.normal(size=users)
        frames.append(
            pd.DataFrame(
                {
                    "user_id": [f"u{number}" for number in range(users)],
                    "cutoff": cutoff,
                    "strength": strength,
                    "noise": random.normal(size=users),
                    "purchase_recency_days": np.exp(-strength),
                    "label": (random.random(users) < 1 / (1 + np.exp(-2 * strength))).astype(float),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


RECIPE = Recipe("lightgbm", ("strength", "noise", "purchase_recency_days"), rounds=30)


def predicted(frame: pd.DataFrame, origins: Sequence[Origin], recipe: Recipe = RECIPE) -> list[Predicted]:
    return [predict_origin(frame, recipe, origin, is_amount=False, seed=1) for origin in origins]


def assembled(parts: Sequence[Predicted], rung: Rung | None = None) -> Backtest:
    by_rung = worth(parts, 28 * DAY, is_amount=False, calibrations=4)
    return assemble(parts, by_rung, rung or best(by_rung), 28 * DAY, is_amount=False, calibrations=4)


def test_an_origin_is_predicted_from_its_train_cutoffs_alone() -> None:
    origins = plan_origins(CUTOFFS, 28 * DAY, tests=1, calibrations=0)
    found = predicted(rows(), origins)[0].rows
    changed = rows()
    unseen = ~changed.cutoff.isin(origins[0].train_cutoffs)
    changed.loc[unseen, "label"] = 1 - changed.loc[unseen, "label"]
    pd.testing.assert_frame_equal(found.drop(columns="label"), predicted(changed, origins)[0].rows.drop(columns="label"))
    assert list(found) == [
        *("user_id", "cutoff", "is_test", "label", "base_rate", "recency", "rfm", "logistic", "lightgbm"),
        *("recency_blend", "rfm_blend", "blend"),
    ]


def test_scores_are_calibrated_on_elapsed_origins_only() -> None:
    parts = predicted(rows(), plan_origins(CUTOFFS, 28 * DAY, tests=2, calibrations=3))
    scores = assembled(parts, "lightgbm").predictions.set_index(["cutoff", "user_id"]).score
    late = [
        Predicted(part.rows.assign(label=1 - part.rows.label), part.models) if index >= 3 else part
        for index, part in enumerate(parts)
    ]
    again = assembled(late, "lightgbm").predictions.set_index(["cutoff", "user_id"]).score
    # Origins 3 and 4 end after every origin, so turning their labels around may change no score.
    pd.testing.assert_series_equal(scores, again)


def test_the_rung_with_the_best_average_precision_is_chosen_and_loses_to_no_simpler_one() -> None:
    backtest = assembled(predicted(rows(), plan_origins(CUTOFFS, 28 * DAY, tests=2, calibrations=1)))
    assert list(backtest.by_origin()) == CUTOFFS[-2:]
    assert backtest.mean()["users"] == 400
    assert 0.75 < backtest.mean()["auc"] < 0.95
    value = {rung: told.value for rung, told in backtest.by_rung.items()}
    simpler = list(value)[: list(value).index(backtest.rung)]
    assert value[backtest.rung] > max(value[rung] for rung in simpler)
    assert backtest.mean(backtest.rung)["average_precision"] == pytest.approx(value[backtest.rung])
    assert value["base_rate"] == pytest.approx(backtest.mean()["base_rate"])


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        ({"rfm": (0.30, 0.50), "lightgbm": (0.40, 0.45), "blend": (0.41, 0.44)}, "blend"),
        ({"rfm": (0.30, 0.50), "lightgbm": (0.40, 0.45), "blend": (0.40, 0.44)}, "lightgbm"),
        # Ahead by its ranking alone, which is enough of what is no mean of others.
        ({"rfm": (0.30, 0.50), "lightgbm": (0.40, 0.45), "blend": (0.41, 0.46)}, "lightgbm"),
        ({"rfm": (0.30, 0.50), "lightgbm": (0.40, 0.51), "blend": (0.41, 0.52)}, "lightgbm"),
        # Ahead of the one in use, and behind a simpler one that was not taken.
        ({"rfm": (0.30, 0.50), "recency_blend": (0.40, 0.51), "blend": (0.35, 0.49)}, "rfm"),
        ({"base_rate": (0.1, 0.7)}, "base_rate"),
    ],
)
def test_the_ladder_is_climbed_by_ranking_and_by_loss(told: dict[Rung, tuple[float, float]], taken: Rung) -> None:
    assert best({rung: Worth(*measured) for rung, measured in told.items()}) == taken


def test_a_mean_with_a_rule_that_knows_nothing_is_not_taken_for_a_hair_of_ranking() -> None:
    """It is half as bold, and would be delivered too timid, since half of a curve is used."""
    random = np.random.default_rng(5)
    odds = random.normal(-1, 1.5, 5_000)
    label = (random.random(5_000) < expit(odds)).astype(float)
    told = {"user_id": [f"u{number}" for number in range(5_000)], "cutoff": CUTOFFS[0], "is_test": True, "label": label}
    rungs = {"base_rate": np.full(5_000, label.mean()), "lightgbm": expit(odds + random.normal(0, 0.2, 5_000))}
    rungs["recency_blend"] = expit(odds / 2)
    by_rung = worth([Predicted(pd.DataFrame({**told, **rungs}), {})], 28 * DAY, is_amount=False, calibrations=0)
    assert by_rung["recency_blend"].value > by_rung["lightgbm"].value
    # A curve that were used whole would mend it.
    assert calibrated_loss(rungs["recency_blend"], label) < calibrated_loss(rungs["lightgbm"], label)
    assert best(by_rung) == "lightgbm"


def test_noise_is_left_to_the_simplest_rung() -> None:
    frame = rows()
    frame["label"] = (frame.index % 2).astype(float)
    frame[["strength", "noise", "purchase_recency_days"]] = 1.0
    backtest = assembled(predicted(frame, plan_origins(CUTOFFS, 28 * DAY, tests=2, calibrations=0)))
    assert backtest.rung == "base_rate"


def test_the_rule_to_beat_is_the_one_that_is_right_most() -> None:
    frame = rows()
    frame["label"] = np.exp(2 * frame.strength)
    parts = [
        predict_origin(frame, RECIPE, origin, is_amount=True, seed=1)
        for origin in plan_origins(CUTOFFS, 28 * DAY, tests=2, calibrations=1)
    ]
    by_rung = worth(parts, 28 * DAY, is_amount=True, calibrations=4)
    backtest = assemble(parts, by_rung, best(by_rung), 28 * DAY, is_amount=True, calibrations=4)
    error = {rung: backtest.mean(rung)["poisson_deviance"] for rung in backtest.baselines}
    assert backtest.baseline == min(error, key=error.__getitem__) != "base_rate"


def test_an_amount_is_a_mean_and_not_a_median() -> None:
    """Most spend nothing: saying so to everybody is nearest to most, and no expected amount."""
    cutoff, random = CUTOFFS[0], np.random.default_rng(3)
    label = np.where(random.random(1_000) < 0.3, 50.0, 0.0)
    told = {"user_id": [f"u{number}" for number in range(1_000)], "cutoff": cutoff, "is_test": True, "label": label}
    nothing, expected = np.full(1_000, 0.01), np.where(label > 0, 18.0, 12.0) + random.normal(0, 1, 1_000)
    parts = [Predicted(pd.DataFrame({**told, "rfm": nothing, "lightgbm": expected}), {})]
    assert np.abs(label - nothing).mean() < np.abs(label - expected).mean()
    assert best(worth(parts, 28 * DAY, is_amount=True, calibrations=0)) == "lightgbm"


def test_amounts_are_compared_as_they_are_delivered() -> None:
    parts = []
    for at, origin in enumerate(plan_origins(CUTOFFS, 14 * DAY, tests=2, calibrations=3)):
        random = np.random.default_rng(at)
        label = random.gamma(2, 10, 300)
        # Right but for its level, and right on average.
        told = {"rfm": label / 2, "lightgbm": np.abs(label + random.normal(0, 4, 300))}
        keys = {"user_id": [f"u{number}" for number in range(300)], "cutoff": origin.cutoff, "is_test": origin.is_test}
        parts.append(Predicted(pd.DataFrame({**keys, "label": label, "base_rate": 20.0, **told}), {}))
    by_rung = worth(parts, 14 * DAY, is_amount=True, calibrations=4)
    assert best(by_rung) == "rfm" and by_rung["rfm"].value == pytest.approx(0.0, abs=1e-6)
    backtest = assemble(parts, by_rung, "rfm", 14 * DAY, is_amount=True, calibrations=4)
    assert backtest.calibrator.method == "scale" and backtest.calibrator.slope == pytest.approx(2)
    for rung in ("rfm", "lightgbm"):
        assert backtest.mean(rung)["poisson_deviance"] == pytest.approx(-by_rung[rung].value)
    assert backtest.mean()["poisson_deviance"] == pytest.approx(-by_rung["rfm"].value)


def test_amounts_are_left_alone_where_scaling_made_the_tests_worse() -> None:
    cutoffs = [CUTOFFS[0] + 28 * DAY * at for at in range(8)]
    frames = []
    for at, cutoff in enumerate(cutoffs):
        label = np.random.default_rng(at).gamma(2, 10, 300)
        # Too low for long, and right since then: what was known at the tests is what was.
        raw = label / 2 if at < 4 else label
        users = [f"u{number:03}" for number in range(300)]
        frames.append(pd.DataFrame({"user_id": users, "cutoff": cutoff, "is_test": at > 4, "label": label, "rfm": raw}))
    told = {"is_amount": True, "calibrations": 4}
    found = calibrated(pd.concat(frames, ignore_index=True), "rfm", 28 * DAY, **told)
    assert found.calibrator == Calibrator()
    np.testing.assert_array_equal(found.score, pd.concat(frames).rfm)
    # Where the tests were too low as well, it is scaled.
    low = pd.concat([frame.assign(rfm=frame.label / 2) for frame in frames], ignore_index=True)
    assert calibrated(low, "rfm", 28 * DAY, **told).calibrator.slope == pytest.approx(2)


def test_a_curve_leaves_the_level_of_each_origin() -> None:
    """Where the year moves scores up or down, what was learned on other dates bends them there and draws none of it back."""
    cutoffs = [CUTOFFS[0] + 28 * DAY * at for at in range(7)]
    frames = []
    for at, cutoff in enumerate(cutoffs):
        odds = np.random.default_rng(at).normal(1.0 if at == 6 else -1.0, 1.5, 2_000)
        label = np.random.default_rng(10 + at).random(2_000) < expit(odds.mean() + (odds - odds.mean()) / 2)
        keys = {"user_id": [f"u{number:04}" for number in range(2_000)], "cutoff": cutoff, "is_test": at > 4}
        frames.append(pd.DataFrame({**keys, "label": label.astype(float), "rfm": expit(odds)}))
    pooled = pd.concat(frames, ignore_index=True)
    found = calibrated(pooled, "rfm", 28 * DAY, is_amount=False, calibrations=4)
    assert 0.7 < found.calibrator.slope < 0.85
    told = pooled.assign(score=found.score).groupby("cutoff")[["rfm", "score"]].agg(["mean", "std"])
    np.testing.assert_allclose(told["score", "mean"], told["rfm", "mean"], atol=1e-6)
    assert (told["score", "std"] < 0.9 * told["rfm", "std"])[-2:].all()


def test_few_positives_take_the_lower_rungs_and_still_answer() -> None:
    frame = rows()
    frame["label"] = (frame.groupby("cutoff").strength.rank(ascending=False) <= 4).astype(float)
    backtest = assembled(predicted(frame, plan_origins(CUTOFFS, 28 * DAY, tests=2, calibrations=0)))
    assert set(backtest.by_rung) == {"base_rate", "recency", "rfm"}
    assert backtest.rung in ("recency", "rfm")
    assert backtest.tested.score.between(0, 1).all()


def test_one_class_before_an_origin_leaves_the_base_rate() -> None:
    parts = predicted(rows().assign(label=0.0), plan_origins(CUTOFFS, 28 * DAY, tests=1, calibrations=0))
    backtest = assembled(parts)
    assert backtest.rung == "base_rate"
    # Half a success among a thousand: nothing is impossible because it was never seen.
    assert backtest.tested.score.unique() == pytest.approx([0.5 / (6 * 200 + 1)])


def test_nobody_at_the_test_origins_is_refused() -> None:
    with pytest.raises(GateError, match="no test origin has a row"):
        assembled(predicted(rows().head(0), plan_origins(CUTOFFS, 28 * DAY, tests=1, calibrations=0)))


def test_users_apart_are_predicted_by_models_that_never_saw_them() -> None:
    frame = rows(users=300)
    # The user's own number tells the label, and nothing else does: memory alone predicts it.
    number = frame.user_id.str[1:].astype(int)
    frame["label"] = (pd.util.hash_array(number.to_numpy()) % 2).astype(float)
    frame["strength"] = number.astype(float)
    recipe = Recipe("lightgbm", ("strength",), rounds=300, parameters={"min_data_in_leaf": 2, "num_leaves": 31, "max_bin": 300})
    origin = plan_origins(CUTOFFS, 28 * DAY, tests=1, calibrations=0)[0]
    test = frame[frame.cutoff == origin.cutoff].set_index("user_id").label
    known = predict_origin(frame, recipe, origin, is_amount=False, seed=1).rows.set_index("user_id").lightgbm
    apart = predict_disjoint(frame, recipe, origin, is_amount=False, seed=1)
    assert roc_auc_score(test, known[test.index]) > 0.9
    assert 0.3 < roc_auc_score(test, apart[test.index]) < 0.7


def test_one_rung_alone_is_predicted_as_among_all() -> None:
    origin = plan_origins(CUTOFFS, 28 * DAY, tests=1, calibrations=0)[0]
    both = [predict_origin(rows(), RECIPE, origin, is_amount=False, seed=1, only=only).rows for only in (None, "blend")]
    assert list(both[1]) == ["user_id", "cutoff", "is_test", "label", "blend"]
    pd.testing.assert_frame_equal(both[0][list(both[1])], both[1])


@pytest.mark.parametrize(("foreseen", "is_used"), [(0.0, True), (2.0, False)])
@pytest.mark.parametrize("is_amount", [False, True])
def test_a_season_is_used_where_it_made_the_tests_less_wrong(foreseen: float, is_used: bool, is_amount: bool) -> None:
    parts = []
    for at, cutoff in enumerate(CUTOFFS[:4]):
        random = np.random.default_rng(at)
        odds = random.normal(0.0, 1.0, 500)
        label = np.exp(odds - 0.5) if is_amount else (random.random(500) < expit(odds)).astype(float)
        # What models say is too low, by as much at each of them.
        score = label * 0.3 if is_amount else expit(odds - 1.0)
        told = {"user_id": [f"u{number}" for number in range(500)], "cutoff": cutoff, "is_test": at > 1, "label": label}
        parts.append(Predicted(pd.DataFrame({**told, "rfm": score}), {"rfm": Constant(0.5)}))
    season = Season({f"{cutoff.date()}": foreseen for cutoff in CUTOFFS})
    early, late = parts[:2], parts[2:]
    found = compare(late, season, 14 * DAY, is_amount=is_amount, calibrations=0)
    assert found.season == (season if is_used else NO_SEASON)
    level = (1.0 if is_amount else 0.5) if is_used else late[0].rows.rfm.mean()
    assert found.predicted[0].rows.rfm.mean() == pytest.approx(level, abs=0.01)
    # Those to calibrate on come after, and are moved alike.
    assert found.beside(early, is_amount=is_amount).predicted[-1].rows.rfm.mean() == pytest.approx(level, abs=0.05)
    assert compare(late, NO_SEASON, 14 * DAY, is_amount=is_amount, calibrations=0).predicted == tuple(late)
