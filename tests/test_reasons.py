"""Shapley values against LightGBM's own, and the choice of reasons against the slow way."""

from itertools import combinations
from math import factorial

import lightgbm
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalogue import EVERYBODY
from models import reasons, shapley
from models.propensity import Floats, fit_booster
from models.reasons import Reasons, contributions, strongest

PLAIN = {"verbose": -1, "num_threads": 1, "deterministic": True, "seed": 3}


def table(rows: int = 600, *, seed: int = 0, nulls: bool = True) -> tuple[pd.DataFrame, pd.Series]:
    """Six features that answer together; counts, so that values meet thresholds, and nulls."""
    random = np.random.default_rng(seed)
    x = random.poisson(3, size=(rows, 6)) - 3.0
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0) | (x[:, 2] + x[:, 3] > 2)).astype(float)
    if nulls:
        x[random.random(x.shape) < 0.2] = np.nan
    return pd.DataFrame(x, columns=list("abcdef")), pd.Series(y)


def theirs(booster: lightgbm.Booster, x: pd.DataFrame) -> Floats:
    """LightGBM's own values, without the expected score."""
    return np.asarray(booster.predict(x, pred_contrib=True))[:, :-1]


@pytest.mark.parametrize(
    ("leaves", "deepest"),
    [(2, -1), (8, -1), (60, 4), (60, -1)],
    ids=["stumps", "as the pipeline fits them", "bushy", "deeper than a block"],
)
def test_equal_to_lightgbm(leaves: int, deepest: int) -> None:
    x, y = table()
    asked = {**PLAIN, "objective": "binary", "num_leaves": leaves, "max_depth": deepest, "min_data_in_leaf": 3}
    booster = lightgbm.train(asked, lightgbm.Dataset(x, y), 20)
    np.testing.assert_allclose(contributions(booster, x), theirs(booster, x), atol=1e-10)


def test_equal_to_lightgbm_where_ways_are_longer_than_any_table(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = table()
    asked = {**PLAIN, "objective": "regression", "num_leaves": 80, "min_data_in_leaf": 2}
    booster = lightgbm.train(asked, lightgbm.Dataset(x, y), 5)
    monkeypatch.setattr(shapley, "_DEEP", 3)
    explain = shapley.explainer.__wrapped__(booster, booster.num_trees())
    assert explain.deep
    np.testing.assert_allclose(explain(x, threads=2), theirs(booster, x), atol=1e-10)


def test_nulls_and_infinities_that_training_never_met() -> None:
    x, y = table(nulls=False)
    booster = fit_booster(x, y, is_amount=False, seed=1)
    asked = pd.DataFrame(
        [[np.nan] * 6, [np.inf] * 6, [-np.inf] * 6, [0.0] * 6, [1e300, -1e300, 0, np.nan, 1, 2]], columns=x.columns
    )
    np.testing.assert_allclose(contributions(booster, asked), theirs(booster, asked), atol=1e-10)


def test_amounts_and_columns_in_another_order_beside_others() -> None:
    x, y = table()
    booster = fit_booster(x, y * 20, is_amount=True, seed=1)
    shuffled = x.assign(other=1.0)[["other", *reversed(x.columns)]]
    np.testing.assert_allclose(contributions(booster, shuffled), theirs(booster, x), atol=1e-10)


def test_values_are_shapleys_by_his_own_sum_over_coalitions() -> None:
    passed, shares = np.array([[True], [False], [True]]), np.array([0.2, 0.5, 0.7])

    def worth(known: tuple[int, ...]) -> float:
        return float(np.prod([float(passed[at, 0]) if at in known else shares[at] for at in range(3)]))

    expected = [
        sum(
            factorial(size) * factorial(2 - size) / factorial(3) * (worth((*others, player)) - worth(others))
            for size in range(3)
            for others in combinations([at for at in range(3) if at != player], size)
        )
        for player in range(3)
    ]
    np.testing.assert_allclose(shapley._shapley(passed, shares)[:, 0], expected, atol=1e-15)


def test_a_booster_without_a_split_gives_zeros() -> None:
    x, y = table(20)
    booster = lightgbm.train({**PLAIN, "objective": "binary", "min_data_in_leaf": 100}, lightgbm.Dataset(x, y), 3)
    np.testing.assert_array_equal(contributions(booster, x), np.zeros((20, 6)))


def test_nobody_has_no_contributions() -> None:
    x, y = table()
    booster = fit_booster(x, y, is_amount=False, seed=1)
    assert contributions(booster, x.head(0)).shape == (0, 6)


def test_chunks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = table()
    booster = fit_booster(x, y, is_amount=False, seed=1)
    whole = contributions(booster, x, threads=1)
    monkeypatch.setattr(shapley, "_ROWS", 7)
    np.testing.assert_array_equal(contributions(booster, x, threads=3), whole)


def test_a_booster_that_has_grown_or_was_stopped_early_is_explained_as_it_predicts() -> None:
    x, y = table()
    booster = lightgbm.Booster({**PLAIN, "objective": "binary"}, lightgbm.Dataset(x, y))
    for _ in range(2):
        booster.update()
        # LightGBM's own explanation of one in training crashes.
        copy = lightgbm.Booster(model_str=booster.model_to_string())
        np.testing.assert_allclose(contributions(booster, x), theirs(copy, x), atol=1e-10)
    stopped = lightgbm.train({**PLAIN, "objective": "binary"}, lightgbm.Dataset(x, y), 10)
    stopped.best_iteration = 4
    np.testing.assert_allclose(contributions(stopped, x), theirs(stopped, x), atol=1e-10)


def test_several_classes_are_refused() -> None:
    x, y = table()
    booster = lightgbm.train({**PLAIN, "objective": "multiclass", "num_class": 3}, lightgbm.Dataset(x, y + (x.e > 0)), 2)
    with pytest.raises(ValueError, match="reasons need one tree per round, got 3"):
        contributions(booster, x)


def test_categorical_splits_are_refused() -> None:
    x, y = table(nulls=False)
    categories = x.assign(a=(x.a + 3) % 4)
    asked = {**PLAIN, "objective": "binary", "min_data_per_group": 1, "cat_smooth": 1, "max_cat_to_onehot": 1}
    booster = lightgbm.train(asked, lightgbm.Dataset(categories, y, categorical_feature=["a"]), 5)
    with pytest.raises(ValueError, match="reasons need numbers, got a split '=='"):
        contributions(booster, categories)


def slowly(values: Floats, groups: list[str], most: int) -> Reasons:
    """Pick reasons user by user."""
    features, moved = [], []
    for row in values:
        net = {name: sum(value for value, own in zip(row, groups, strict=True) if own == name) for name in sorted(set(groups))}
        picked = sorted(net, key=lambda name: -abs(net[name]))[:most]
        told = []
        for name in picked:
            own = [at for at, group in enumerate(groups) if group == name]
            told.append(max(own, key=lambda at, name=name: (row[at] * (-1 if net[name] < 0 else 1), -at)))
        features.append(told)
        moved.append(row[told])
    return Reasons(np.array(features), np.array(moved))


# Quarters add up exactly in any order, and are often equal.
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 4), st.integers(1, 12))
def test_the_strongest_equal_the_slow_way(seed: int, width: int, most: int, users: int) -> None:
    random = np.random.default_rng(seed)
    groups = [str(name) for name in random.choice(list("zyx"), width)]
    values = random.integers(-4, 5, size=(users, width)) / 4
    found, expected = strongest(values, groups, most=most), slowly(values, groups, most)
    np.testing.assert_array_equal(found.feature, expected.feature)
    np.testing.assert_array_equal(found.contribution, expected.contribution)


def test_the_strongest_do_not_depend_on_who_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=(100, 6))
    whole = strongest(values, list("aabbca"))
    monkeypatch.setattr(reasons, "_ROWS", 9)
    np.testing.assert_array_equal(strongest(values, list("aabbca")).feature, whole.feature)
    np.testing.assert_array_equal(strongest(values[:1], list("aabbca")).contribution, whole.contribution[:1])


def test_one_event_is_not_told_twice() -> None:
    values = np.array([[0.3, 0.2, 0.1, 0.0]] * 3)
    nothing = np.nan
    dates = np.array([[2.5, 2.5, nothing, nothing], [2.5, 2.25, nothing, nothing], [nothing, nothing, nothing, nothing]])
    found = strongest(values, list("abcd"), most=2, dates=dates)
    assert found.feature.tolist() == [[0, 2], [0, 1], [0, 1]]
    # Where there is nothing else to tell, it is told.
    assert strongest(values[:1, :2], list("ab"), dates=dates[:1, :2]).feature.tolist() == [[0, 1]]


def test_what_is_the_same_for_everybody_is_nobodys_reason() -> None:
    values = np.array([[0.1, -9.0, 0.2], [0.3, 9.0, 0.0]])
    found = strongest(values, ["a", EVERYBODY, "b"])
    assert found.feature.tolist() == [[2, 0], [0, 2]]
    assert found.contribution.tolist() == [[0.2, 0.1], [0.3, 0.0]]


def test_a_model_without_features_has_no_reasons() -> None:
    found = strongest(np.zeros((4, 0)), [])
    assert found.feature.shape == found.contribution.shape == (4, 0)
