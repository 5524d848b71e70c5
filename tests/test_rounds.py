"""How many rounds are made: chosen on blocks of time before every reported one, by what calibration cannot mend."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from features.catalogue import DATE
from models.backtest import Origin, plan_origins
from models.calibration import calibrated_loss
from models.ladder import Recipe, Trees, fit_recipe, fit_trees
from models.propensity import RATE, ROUNDS
from models.rounds import ENOUGH_FEATURES, _watched, rounds_for, settled, settled_on

HORIZON = timedelta(days=28)
CUTOFFS = [datetime(2024, 1, 1) + timedelta(days=14 * index) for index in range(10)]
RECIPE = Recipe("logistic", ("strength", "noise"))


def rows(users: int = 600, *, shift: float = 0.0) -> pd.DataFrame:
    """Label 1 where a bent strength is high; `shift` moves the log-odds of the later half of the cutoffs."""
    random = np.random.default_rng(5)
    frame = pd.DataFrame(random.normal(size=(users * len(CUTOFFS), 2)), columns=["strength", "noise"])
    frame["user_id"] = [f"u{number}" for number in range(users)] * len(CUTOFFS)
    frame["cutoff"] = np.repeat(np.array(CUTOFFS, dtype="datetime64[us]"), users)
    odds = 3 * np.sin(2 * frame.strength) - 1 + shift * (frame.cutoff >= CUTOFFS[5])
    frame["label"] = (random.random(len(frame)) < 1 / (1 + np.exp(-odds))).astype(float)
    return frame


def test_rounds_are_chosen_before_the_first_test_origin() -> None:
    frame, plan = rows(), plan_origins(CUTOFFS, HORIZON, tests=1, calibrations=1)
    told = {"horizon": HORIZON, "is_amount": False, "seed": 1}
    found = settled(frame, plan, RECIPE, **told).rounds
    assert 50 <= found < 400
    known = plan[-1].train_cutoffs
    poisoned = frame.assign(label=np.where(frame.cutoff.isin(known), frame.label, 1 - frame.label))
    assert settled(poisoned, plan, RECIPE, **told).rounds == found
    # Too short a past has the usual number.
    assert settled(frame, [Origin(CUTOFFS[3], tuple(CUTOFFS[:1]), is_test=True, horizon=HORIZON)], RECIPE, **told).rounds == ROUNDS


@pytest.mark.parametrize(("quiet", "blocks"), [(0, 3), (2, 3), (3, 4), (4, 5), (7, None)])
def test_as_many_blocks_are_watched_as_hold_a_hundred_of_the_rarer_label(quiet: int, blocks: int | None) -> None:
    told = rows()
    # At the latest cutoffs it happened to two users each.
    last = told.cutoff.isin(CUTOFFS[len(CUTOFFS) - quiet :])
    told["label"] = told.label.where(~last, told.user_id.isin(["u1", "u2"]).astype(float))
    found = _watched(told, CUTOFFS, HORIZON, replace(RECIPE, rung="lightgbm"))
    if blocks is None:
        assert found is None
        short = [Origin(CUTOFFS[-1] + HORIZON, tuple(CUTOFFS), is_test=True, horizon=HORIZON)]
        assert settled(told, short, RECIPE, HORIZON, is_amount=False, seed=1).rounds == ROUNDS
        return
    learned, later = found
    assert set(later.cutoff) == set(CUTOFFS[-blocks:])
    assert learned.cutoff.max() + HORIZON <= later.cutoff.min()


def test_who_learns_half_as_fast_makes_up_to_twice_the_rounds() -> None:
    told, slow = rows(), replace(RECIPE, rate=RATE / 2)
    early, late = told[told.cutoff < CUTOFFS[5]], told[told.cutoff >= CUTOFFS[5]]
    found = settled_on(early, late, slow, seed=1)
    assert found.settings["learning_rate"] == RATE / 2
    assert found.rounds == pytest.approx(2 * settled_on(early, late, RECIPE, seed=1).rounds, rel=0.3)
    short = [Origin(CUTOFFS[3], tuple(CUTOFFS[:1]), is_test=True, horizon=HORIZON)]
    assert settled(told, short, slow, HORIZON, is_amount=False, seed=1).rounds == 2 * ROUNDS
    # As fast as it was tuned to, rounds are those of the usual bounds.
    tuned = {"parameters": {"learning_rate": 0.1}}
    assert (
        settled_on(early, late, replace(slow, **tuned), seed=1).rounds
        == settled_on(early, late, replace(RECIPE, **tuned), seed=1).rounds
    )


def test_the_number_is_the_best_of_models_fitted_one_by_one() -> None:
    told = rows()
    early, late = told[told.cutoff < CUTOFFS[5]], told[told.cutoff >= CUTOFFS[5]]
    found = settled_on(early, late, RECIPE, seed=1).rounds

    def loss(rounds: int) -> float:
        recipe = Recipe("lightgbm", RECIPE.features, rounds=rounds)
        raw = fit_recipe(early, early.label, recipe, is_amount=False, seed=1).raw(late)
        return calibrated_loss(raw, late.label.to_numpy())

    losses = {rounds: loss(rounds) for rounds in range(50, 401, 10)}
    assert found == min(losses, key=losses.__getitem__) > 50


def test_a_recipe_as_it_is_has_rounds_of_its_own() -> None:
    told, small = rows(), replace(RECIPE, rung="lightgbm", leaves=2)
    plan = plan_origins(CUTOFFS, HORIZON, tests=1, calibrations=1)
    found = _watched(told, plan[-1].train_cutoffs, HORIZON, small)
    assert found is not None
    early, late = found

    def loss(rounds: int) -> float:
        raw = fit_recipe(early, early.label, replace(small, rounds=rounds), is_amount=False, seed=1).raw(late)
        return calibrated_loss(raw, late.label.to_numpy())

    losses = {rounds: loss(rounds) for rounds in range(50, 401, 10)}
    assert rounds_for(told, plan, small, HORIZON, is_amount=False, seed=1) == min(losses, key=losses.__getitem__)
    # What is on trial elsewhere has others.
    better = settled(told, plan, small, HORIZON, is_amount=False, seed=1)
    assert better.leaves == 4
    short = [Origin(CUTOFFS[3], tuple(CUTOFFS[:1]), is_test=True, horizon=HORIZON)]
    assert rounds_for(told, short, small, HORIZON, is_amount=False, seed=1) == ROUNDS


def test_another_level_later_does_not_stop_trees_that_still_learn_the_order() -> None:
    told = rows(shift=-2.0)
    early, late = told[told.cutoff < CUTOFFS[5]], told[told.cutoff >= CUTOFFS[5]]
    most = fit_recipe(early, early.label, Recipe("lightgbm", RECIPE.features, rounds=400), is_amount=False, seed=1)
    assert isinstance(most, Trees)
    raw = {number: most.booster.predict(late[list(RECIPE.features)], num_iteration=number) for number in range(50, 401, 10)}
    watched = min(raw, key=lambda number: log_loss(late.label, raw[number]))
    found = settled_on(early, late, RECIPE, seed=1).rounds
    assert watched < found
    assert roc_auc_score(late.label, raw[watched]) < roc_auc_score(late.label, raw[found])


def test_what_calibration_cannot_mend_is_the_same_at_every_level_and_slope() -> None:
    random = np.random.default_rng(1)
    odds = random.normal(size=4_000)
    label = (random.random(4_000) < 1 / (1 + np.exp(-odds))).astype(float)
    told = [calibrated_loss(1 / (1 + np.exp(-(slope * odds + level))), label) for slope, level in ((1, 0), (0.5, -2), (2, 1))]
    assert told == pytest.approx([told[0]] * 3, rel=1e-3)
    assert told[0] < calibrated_loss(1 / (1 + np.exp(-(odds + random.normal(size=4_000)))), label)


def test_where_nothing_can_be_learned_the_fewest_rounds_are_made() -> None:
    told = rows().assign(strength=1.0, noise=np.nan)
    early, late = told[told.cutoff < CUTOFFS[5]], told[told.cutoff >= CUTOFFS[5]]
    assert settled_on(early, late, RECIPE, seed=1).rounds == 50


def crowd(chances: np.ndarray) -> tuple[pd.DataFrame, Recipe]:
    """Add features that know nothing, and two constant ones that are named: by a simple rule, and by the config."""
    told = rows()
    names = [f"chance_{number}" for number in range(chances.shape[1])]
    told = pd.concat([told, pd.DataFrame(chances, columns=names, index=told.index).assign(rule=1.0, forced=1.0)], axis=1)
    recipe = Recipe("lightgbm", (*names, "strength", "rule", "forced"), recency=("rule",), rfm=("rule",), monotone={"forced": 1})
    return told, recipe


def test_of_many_features_those_stay_that_tell_most_and_those_that_are_named() -> None:
    # Too rare to be cut by.
    told, wide = crowd((np.random.default_rng(2).random((len(rows()), 150)) < 0.002).astype(float))
    early, late = told[told.cutoff < CUTOFFS[5]], told[told.cutoff >= CUTOFFS[5]]
    found = settled_on(early, late, wide, seed=1)
    assert len(found.features) == ENOUGH_FEATURES + 2
    assert {"strength", "rule", "forced"} <= set(found.features)
    assert list(found.features) == [name for name in wide.features if name in found.features]
    # Amounts are left as they are, and so is what has no past to be chosen by.
    plan = plan_origins(CUTOFFS, HORIZON, tests=1, calibrations=1)
    assert settled(told, plan, wide, HORIZON, is_amount=True, seed=1).features == wide.features
    short = [Origin(CUTOFFS[3], tuple(CUTOFFS[:1]), is_test=True, horizon=HORIZON)]
    assert settled(told, short, wide, HORIZON, is_amount=False, seed=1).features == wide.features


def test_all_features_stay_where_those_that_tell_most_leave_more_wrong() -> None:
    # Of so much chance the hundred by which trees gained most are those that fitted it best.
    told, wide = crowd(np.random.default_rng(2).normal(size=(len(rows()), 150)))
    early, late = told[told.cutoff < CUTOFFS[5]], told[told.cutoff >= CUTOFFS[5]]
    assert settled_on(early, late, wide, seed=1).features == wide.features


def test_features_on_trial_stay_where_they_prove_their_worth() -> None:
    told = rows().assign(forced=1.0)
    early, late = told[told.cutoff < CUTOFFS[5]], told[told.cutoff >= CUTOFFS[5]]
    recipe = Recipe("lightgbm", ("strength", "noise", "forced"), monotone={"forced": 1})
    assert settled_on(early, late, recipe, on_trial={"strength": "one"}, seed=1).features == recipe.features
    # What the config says something of is not on trial.
    on_trial = {"noise": "one", "forced": "one"}
    assert settled_on(early, late, recipe, on_trial=on_trial, seed=1).features == ("strength", "forced")
    # Each purpose is tried by itself: what is of use does not take along what is of none.
    apart = {"strength": "one", "noise": "other"}
    assert settled_on(early, late, recipe, on_trial=apart, seed=1).features == ("strength", "forced")
    # Amounts read all, and what has no past to prove itself by is left out.
    plan = plan_origins(CUTOFFS, HORIZON, tests=1, calibrations=1)
    short = [Origin(CUTOFFS[3], tuple(CUTOFFS[:1]), is_test=True, horizon=HORIZON)]
    assert settled(told, plan, recipe, HORIZON, on_trial=on_trial, is_amount=True, seed=1).features == recipe.features
    assert settled(told, short, recipe, HORIZON, on_trial=on_trial, is_amount=False, seed=1).features == ("strength", "forced")


def test_another_seed_is_asked_only_where_the_first_finds_something_better(monkeypatch: pytest.MonkeyPatch) -> None:
    told = rows()
    early, late = told[told.cutoff < CUTOFFS[5]], told[told.cutoff >= CUTOFFS[5]]
    grown: list[tuple[tuple[str, ...], int]] = []

    def noted(x: pd.DataFrame, y: pd.Series, recipe: Recipe, *, seed: int, **others: Any) -> Trees:
        grown.append((recipe.features, seed))
        return fit_trees(x, y, recipe, seed=seed, **others)

    monkeypatch.setattr("models.rounds.fit_trees", noted)
    # Trees are as large as they may be, and there is one cutoff to leave aside: what is on trial alone is tried.
    early, recipe = early.assign(cutoff=CUTOFFS[0]), Recipe("lightgbm", ("strength", "noise"), leaves=32)
    recipe = replace(recipe, within_dates=True)
    settled_on(early, late, recipe, on_trial={"strength": "one"}, seed=1)
    both, one = recipe.features, ("noise",)
    # At the end those of the most rounds, of what is read from now on.
    assert grown == [(one, 1), (both, 1), (one, 2), (both, 2), (both, 1)]
    grown.clear()
    settled_on(early, late, recipe, on_trial={"noise": "one"}, seed=1)
    assert grown == [(("strength",), 1), (both, 1)]


def test_dates_are_read_within_dates_alone() -> None:
    random = np.random.default_rng(8)
    at = np.repeat(np.arange(len(CUTOFFS)), 600)
    # Who came at one time stays with another chance than who came at another, and less happens from date to date.
    told = pd.DataFrame({"start": random.uniform(0, 100, len(at)), "strength": random.normal(size=len(at))})
    told["cutoff"] = np.array(CUTOFFS, dtype="datetime64[us]")[at]
    odds = told.strength + 2 * np.sin(told.start / 10) - 0.05 * at
    told["label"] = (random.random(len(at)) < 1 / (1 + np.exp(-odds))).astype(float)
    early, late = told[at < 6], told[at >= 6]
    recipe = Recipe("lightgbm", ("start", "strength"))
    found = settled_on(early, late, recipe, on_trial={"start": DATE}, seed=1)
    assert (found.features, found.within_dates) == (recipe.features, True)
    chance = early.assign(start=random.uniform(0, 100, len(early))), late.assign(start=random.uniform(0, 100, len(late)))
    found = settled_on(*chance, recipe, on_trial={"start": DATE}, seed=1)
    assert (found.features, found.within_dates) == (("strength",), False)
    # An amount is not fitted within dates.
    plan = plan_origins(CUTOFFS, HORIZON, tests=1, calibrations=1)
    found = settled(told, plan, recipe, HORIZON, on_trial={"start": DATE}, is_amount=True, seed=1)
    assert found.features == ("strength",)


@pytest.mark.parametrize("moves", [True, False])
def test_dates_are_left_aside_where_they_would_be_put_down_to_users(moves: bool) -> None:
    random = np.random.default_rng(8)
    at = np.repeat(np.arange(len(CUTOFFS)), 600)
    # The longer history of later dates tells the user apart the other way round: who has one longer comes.
    frame = pd.DataFrame({"history": 14.0 * at + random.exponential(60, len(at)), "strength": random.normal(size=len(at))})
    frame["cutoff"] = np.array(CUTOFFS, dtype="datetime64[us]")[at]
    odds = frame.strength + 0.02 * frame.history - (0.7 * at if moves else 0.28 * at)
    frame["label"] = (random.random(len(at)) < 1 / (1 + np.exp(-odds))).astype(float)
    early, late = frame[at < 6], frame[at >= 6]
    assert settled_on(early, late, Recipe("lightgbm", ("history", "strength")), seed=1).within_dates == moves


def test_trees_have_twice_the_leaves_where_that_proves_its_worth() -> None:
    random = np.random.default_rng(3)
    told = rows(2_000)
    # Each of the 32 kinds of users has a chance of its own. A tree reads some of the features, so each is there three times.
    bits = random.integers(2, size=(len(told), 5))
    told["label"] = (random.random(len(told)) < random.random(32)[bits @ 2 ** np.arange(5)]).astype(float)
    names = tuple(f"{bit}_{again}" for bit in range(5) for again in range(3))
    told = told.assign(**{name: bits[:, int(name[0])].astype(float) for name in names})
    early, late = told[told.cutoff < CUTOFFS[5]], told[told.cutoff >= CUTOFFS[5]]
    recipe = Recipe("lightgbm", names)
    assert settled_on(early, late, recipe, seed=1).leaves == 2 * recipe.leaves
    assert settled_on(early, late, RECIPE, seed=1).leaves == RECIPE.leaves
    # What was tuned is not tried again, and large trees are large enough.
    for given in (replace(recipe, parameters={"num_leaves": 8}), replace(recipe, leaves=31)):
        assert settled_on(early, late, given, seed=1).leaves == given.leaves
