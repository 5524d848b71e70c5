"""What tuning may try, and the number it goes by: judged before every test origin, on rounds chosen before what judges."""

from dataclasses import replace
from datetime import datetime, timedelta

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, mean_poisson_deviance

from models.backtest import Origin, plan_origins
from models.ladder import Recipe
from models.propensity import PARAMETERS, ROUNDS
from models.rounds import OF_AMOUNTS, settled, settled_on
from models.tuning import Choice, Judged, Range, judged, judging_origins, place_in, space_of

DAY = timedelta(days=1)
HORIZON = 14 * DAY
CUTOFFS = [datetime(2024, 1, 1) + HORIZON * index for index in range(8)]
FEATURES = ("strength", "noise", "other")
RECIPE = Recipe("logistic", FEATURES, parameters={"num_leaves": 4})


def rows(*, users: int = 250, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    count = users * len(CUTOFFS)
    frame = pd.DataFrame({name: random.normal(size=count) for name in FEATURES})
    frame["user_id"] = [f"u{number}" for number in range(users)] * len(CUTOFFS)
    frame["cutoff"] = np.repeat(np.array(CUTOFFS, dtype="datetime64[us]"), users)
    frame["label"] = (random.random(count) < 1 / (1 + np.exp(-2 * frame.strength))).astype(float)
    return frame


def amounts() -> pd.DataFrame:
    return rows().assign(label=lambda frame: frame.label * np.exp(frame.strength))


def origin(index: int) -> Origin:
    """An origin at that cutoff, learned from all that lie a horizon of two weeks before it."""
    return Origin(CUTOFFS[index], tuple(CUTOFFS[:index]), is_test=True, horizon=HORIZON)


PLAN = plan_origins(CUTOFFS, HORIZON, tests=1, calibrations=2)
JUDGES = (origin(4), origin(5), origin(6))


def test_the_latest_half_of_the_past_judges_and_the_older_half_is_left_for_rounds() -> None:
    assert judging_origins(rows(), PLAN, RECIPE, HORIZON, is_amount=False) == JUDGES


def test_four_origins_judge_at_most() -> None:
    cutoffs = [CUTOFFS[0] + HORIZON * index for index in range(14)]
    told = rows().assign(cutoff=lambda frame: np.resize(np.array(cutoffs, dtype="datetime64[us]"), len(frame)))
    plan = plan_origins(cutoffs, HORIZON, tests=1, calibrations=2)
    found = judging_origins(told, plan, RECIPE, HORIZON, is_amount=False)
    assert [judge.cutoff for judge in found] == cutoffs[9:13]


def test_an_origin_whose_label_looks_into_a_test_is_no_judge() -> None:
    plan = plan_origins(CUTOFFS, 2 * HORIZON, tests=1, calibrations=2)
    # The plan calibrates on cutoffs 4 and 5, and has 6 between; the horizon of 6 ends after the test at 7 begins.
    assert [calibration.cutoff for calibration in plan] == CUTOFFS[4:]
    found = judging_origins(rows(), plan, RECIPE, 2 * HORIZON, is_amount=False)
    assert found == (
        Origin(CUTOFFS[4], tuple(CUTOFFS[:3]), is_test=True, horizon=2 * HORIZON),
        Origin(CUTOFFS[5], tuple(CUTOFFS[:4]), is_test=True, horizon=2 * HORIZON),
    )


def test_an_origin_that_cannot_be_learned_or_told_apart_is_no_judge() -> None:
    told = rows()
    told.loc[told.cutoff == CUTOFFS[5], "label"] = 0.0
    # Without it five are left, of which three judge.
    assert judging_origins(told, PLAN, RECIPE, HORIZON, is_amount=False) == (origin(3), origin(4), origin(6))
    assert judging_origins(told, PLAN, RECIPE, HORIZON, is_amount=True) == JUDGES
    assert judging_origins(rows(users=20), PLAN, RECIPE, HORIZON, is_amount=False) == ()
    assert judging_origins(told[:0], PLAN, RECIPE, HORIZON, is_amount=True) == ()


@pytest.mark.parametrize("is_amount", [False, True])
def test_the_loss_is_that_of_lightgbm_fitted_by_hand(is_amount: bool) -> None:
    told = amounts() if is_amount else rows()
    parameters = {"num_leaves": 4}
    early, watched = told[told.cutoff == CUTOFFS[0]], told[told.cutoff.isin(CUTOFFS[1:4])]
    rounds = OF_AMOUNTS if is_amount else settled_on(early, watched, replace(RECIPE, parameters=parameters), seed=3).rounds

    def by_hand(learned: pd.DataFrame, label: pd.Series, here: pd.DataFrame, **objective: object) -> np.ndarray:
        least = int(np.clip(len(learned) // 100, 5, 100))
        settings = {**PARAMETERS, **parameters, **objective, "min_data_in_leaf": least, "seed": 3, "num_threads": 1}
        data = lightgbm.Dataset(learned[list(FEATURES)], label)
        return np.asarray(lightgbm.train(settings, data, num_boost_round=rounds).predict(here[list(FEATURES)]))

    by_origin = {}
    for judge in JUDGES:
        learned, here = told[told.cutoff < judge.cutoff], told[told.cutoff == judge.cutoff]
        if is_amount:
            some = learned[learned.label > 0]
            whether = by_hand(learned, learned.label > 0, here, objective="poisson", poisson_max_delta_step=0.1)
            size = by_hand(some, some.label / some.label.mean(), here, objective="tweedie", tweedie_variance_power=1.2)
            by_origin[judge.cutoff] = mean_poisson_deviance(here.label, whether * size * some.label.mean())
        else:
            by_origin[judge.cutoff] = log_loss(here.label, by_hand(learned, learned.label, here, objective="binary"))
    found = judged(told, RECIPE, JUDGES, HORIZON, is_amount=is_amount, seed=3)
    assert found.rounds == rounds != ROUNDS
    # Two boosters and one that goes on from another differ in the digits that LightGBM keeps of labels.
    assert found.by_origin == pytest.approx(by_origin, rel=1e-3 if is_amount else 1e-9)
    assert found.loss == pytest.approx(np.mean(list(by_origin.values())), rel=1e-3 if is_amount else 1e-9)


def test_a_recipe_is_judged_the_same_by_any_number_of_threads() -> None:
    found = [judged(rows(), RECIPE, JUDGES, HORIZON, is_amount=False, seed=3, jobs=jobs) for jobs in (1, 3)]
    assert found[0] == found[1]


def test_parameters_change_what_is_judged() -> None:
    slow = replace(RECIPE, parameters={"learning_rate": 0.001})
    found = [judged(rows(), recipe, JUDGES, HORIZON, is_amount=False, seed=3) for recipe in (RECIPE, slow)]
    assert found[0].loss < found[1].loss


def test_nothing_at_a_test_origin_or_after_it_is_read() -> None:
    told = rows()
    late = told.cutoff >= CUTOFFS[7]
    poisoned = told.copy()
    poisoned.loc[late, "label"] = 1 - poisoned.loc[late, "label"]
    poisoned.loc[late, list(FEATURES)] = np.inf
    found = []
    for frame in (told, poisoned, told[~late]):
        judges = judging_origins(frame, PLAN, RECIPE, HORIZON, is_amount=False)
        found.append(judged(frame, RECIPE, judges, HORIZON, is_amount=False, seed=3))
    assert found[0] == found[1] == found[2]


def test_no_judge_chooses_the_rounds_it_judges() -> None:
    told = rows()
    turned = told.assign(label=told.label.where(told.cutoff < JUDGES[0].cutoff, 1 - told.label))
    found = [judged(frame, RECIPE, JUDGES, HORIZON, is_amount=False, seed=3) for frame in (told, turned)]
    assert found[0].rounds == found[1].rounds
    assert found[0].loss < found[1].loss
    # The final rounds are chosen on the judges too, but on nothing later.
    assert settled(told, PLAN, RECIPE, HORIZON, is_amount=False, seed=3).rounds != found[0].rounds


def test_the_space_holds_what_is_known() -> None:
    for count in (200, 5_000, 10**7):
        space = space_of(count)
        known = place_in(space, Recipe("lightgbm", FEATURES), count)
        assert known == {
            "learning_rate": 0.05,
            "num_leaves": 8,
            "min_data_in_leaf": {200: 5, 5_000: 50, 10**7: 100}[count],
            "feature_fraction": 0.3,
            "bagging_fraction": 0.7,
            "lambda_l2": 10.0,
            "min_gain_to_split": 0.0,
            "extra_trees": False,
        }
        for name, allowed in space.items():
            is_inside = known[name] in allowed.values if isinstance(allowed, Choice) else allowed.low <= known[name] <= allowed.high
            assert is_inside, name


def test_a_leaf_is_bounded_by_the_rows() -> None:
    assert [space_of(count)["min_data_in_leaf"] for count in (50, 2_000, 10**6)] == [
        Range(5, high, is_log=True, is_whole=True) for high in (10, 200, 500)
    ]


def test_what_was_judged_is_told_by_origin() -> None:
    found = judged(rows(), RECIPE, JUDGES[:1], HORIZON, is_amount=False, seed=3)
    assert found == Judged(found.loss, found.rounds, {CUTOFFS[4]: found.loss})
