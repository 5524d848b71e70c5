"""Calibration, measures, reasons and bundles on small literal frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from features.errors import StoreError
from models.bundle import FORMAT, TargetBundle, load
from models.calibration import Calibrator, fit_calibrator
from models.ladder import Recipe, fit_recipe
from models.metrics import measures
from models.propensity import Bins, fit_booster
from models.reasons import contributions, strongest
from models.rounds import OF_AMOUNTS


def table(rows: int = 400, seed: int = 3) -> tuple[pd.DataFrame, pd.Series]:
    random = np.random.default_rng(seed)
    x = pd.DataFrame(random.normal(size=(rows, 4)), columns=["a", "b", "c", "d"])
    x.loc[::7, "b"] = np.nan
    y = (x.a + x.b.fillna(1.0) * x.c + random.normal(size=rows) > 0).astype(float)
    return x, y


def test_shrinking_mends_half_of_overconfidence() -> None:
    random = np.random.default_rng(0)
    truth = random.uniform(0.05, 0.95, size=20_000)
    label = (random.random(20_000) < truth).astype(float)
    overconfident = truth**3 / (truth**3 + (1 - truth) ** 3)
    calibrate = fit_calibrator(overconfident, label, is_amount=False, blocks=np.arange(20_000) % 4)
    assert calibrate.method == "shrunk"
    halfway = expit((logit(overconfident) + logit(truth)) / 2)
    np.testing.assert_allclose(calibrate(overconfident), halfway, atol=0.02)


@pytest.mark.parametrize(("label", "reason"), [([0.0] * 100, "one class"), ([1.0] * 10 + [0.0] * 90, "ten positives")])
def test_too_little_to_calibrate_on_changes_nothing(label: list[float], reason: str) -> None:
    assert fit_calibrator(np.linspace(0.1, 0.9, 100), np.array(label), is_amount=False) == Calibrator(), reason


def test_a_calibrator_never_turns_the_ranking_around() -> None:
    falling = np.array([1.0] * 50 + [0.0] * 50)
    assert fit_calibrator(np.linspace(0.1, 0.9, 100), falling, is_amount=False) == Calibrator()


def test_amounts_are_scaled_to_what_was_spent() -> None:
    raw, label, block = np.array([1.0, 3.0, 2.0, 4.0]), np.array([2.0, 6.0, 4.0, 8.0]), np.array([0, 0, 1, 1])
    assert fit_calibrator(raw, label, is_amount=True, blocks=block)(np.array([5.0])) == [10.0]
    # One origin says nothing of the next, and two that contradict each other no more.
    assert fit_calibrator(raw, label, is_amount=True) == Calibrator()
    assert fit_calibrator(raw, np.array([2.0, 6.0, 1.0, 2.0]), is_amount=True, blocks=block) == Calibrator()


def test_measures_of_one_class_are_left_out() -> None:
    assert measures(np.zeros(3), np.array([0.1, 0.2, 0.3]), is_amount=False) == {"users": 3.0, "positives": 0.0}


def test_lift_of_a_perfect_ranking() -> None:
    found = measures(np.array([0.0] * 90 + [1.0] * 10), np.linspace(0, 1, 100), is_amount=False)
    assert found["lift_10pct"] == pytest.approx(10.0)


def test_one_seed_gives_one_model() -> None:
    x, y = table()
    texts = {fit_booster(x, y, is_amount=False, seed=5).model_to_string() for _ in range(2)}
    assert len(texts) == 1


def test_fits_that_share_bins_give_the_models_that_they_give_alone() -> None:
    x, y = table()
    levels, shared = np.repeat([-1.0, 0.5], len(x) // 2), Bins()
    asked = [(1, None, 8), (2, levels, 8), (1, levels, 4), (1, None, 8)]

    def fitted(bins: Bins | None) -> list[str]:
        return [
            fit_booster(
                x, y, is_amount=False, seed=seed, features=["b", "d"], levels=at, parameters={"num_leaves": leaves}, bins=bins
            ).model_to_string()
            for seed, at, leaves in asked
        ]

    together, alone = fitted(shared), fitted(None)
    assert together == alone and len(set(alone)) == 3 and "feature_names=b d" in alone[0]


def test_amounts_in_pence_are_a_hundred_times_those_in_pounds() -> None:
    x, y = table()
    pounds, pence = (fit_booster(x, y * unit, is_amount=True, seed=5).predict(x) for unit in (0.25, 25.0))
    np.testing.assert_allclose(pence, 100 * np.asarray(pounds), rtol=1e-3)


def test_an_amount_tells_whether_apart_from_how_much() -> None:
    random = np.random.default_rng(2)
    x = pd.DataFrame({"whether": random.normal(size=4_000), "size": random.choice([10.0, 1_000.0], size=4_000)})
    pays = random.random(4_000) < 1 / (1 + np.exp(-2 * x.whether))
    found = np.asarray(fit_booster(x, x["size"] * pays, is_amount=True, seed=5, rounds=OF_AMOUNTS).predict(x))
    truth = x["size"] / (1 + np.exp(-2 * x.whether))
    # Within a quarter where it is small as where it is large.
    assert np.median(np.abs(found / truth - 1)[x["size"] == 10]) < 0.25
    assert np.median(np.abs(found / truth - 1)[x["size"] == 1_000]) < 0.25
    assert found.sum() == pytest.approx((x["size"] * pays).sum(), rel=0.02)


def test_where_everybody_has_an_amount_it_is_how_much() -> None:
    x, y = table()
    found = np.asarray(fit_booster(x, y + 2, is_amount=True, seed=5, rounds=OF_AMOUNTS).predict(x))
    assert found.mean() == pytest.approx((y + 2).mean(), rel=0.02) and 1.5 < found.min() < found.max() < 3.5


@pytest.mark.parametrize("is_amount", [False, True])
def test_contributions_equal_lightgbms_own(is_amount: bool) -> None:
    x, y = table()
    x.loc[0] = [0.0, np.nan, 1e6, -1e6]
    booster = fit_booster(x, y, is_amount=is_amount, seed=1)
    ours, theirs = contributions(booster, x), booster.predict(x, pred_contrib=True)
    np.testing.assert_allclose(ours, theirs[:, :-1], atol=2e-5)
    np.testing.assert_allclose(ours.sum(axis=1) + theirs[:, -1], booster.predict(x, raw_score=True), atol=2e-5)


def test_reasons_name_each_group_once_strongest_first() -> None:
    values = np.array([[0.5, -0.9, 0.1, 0.2], [0.0, 0.1, -0.3, 0.2]])
    found = strongest(values, ["spend", "spend", "gap", "hour"], most=2)
    np.testing.assert_array_equal(found.feature, [[1, 3], [2, 3]])
    np.testing.assert_allclose(found.contribution, [[-0.9, 0.2], [-0.3, 0.2]])


def bundle() -> TargetBundle:
    x, y = table()
    recipe = Recipe("lightgbm", tuple(x.columns))
    return TargetBundle(
        "churn", {"horizon": "28d"}, recipe, "2024-01-01", Calibrator(), fit_recipe(x, y, recipe, is_amount=False, seed=1)
    )


def test_contributions_beyond_what_is_expected_are_told_from_the_mean() -> None:
    made, x = bundle(), table()[0]
    values = made.contributions(x)
    told = replace(made, expected=dict(zip(made.features, values.mean(axis=0), strict=True)))
    np.testing.assert_allclose(told.against_expected(x), values - values.mean(axis=0))
    # Models of earlier releases expected nothing.
    np.testing.assert_array_equal(made.against_expected(x), values)


@pytest.mark.parametrize(
    "damage", ["no head", "half a head", "another booster", "half a booster", "another leaf", "another number", "a later format"]
)
def test_a_damaged_bundle_is_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "bundle"
    bundle().save(folder)
    head = folder / "bundle.json"
    if damage == "no head":
        head.unlink()
    elif damage == "half a head":
        head.write_text(head.read_text()[:50])
    elif damage == "another booster":
        (folder / "booster.txt").write_text("tree\nnothing")
    elif damage == "half a booster":
        text = (folder / "booster.txt").read_text()
        (folder / "booster.txt").write_text(text[: len(text) * 7 // 10])
    elif damage == "another leaf":
        text = (folder / "booster.txt").read_text()
        (folder / "booster.txt").write_text(text.replace("leaf_value=", "leaf_value=1", 1))
    elif damage == "another number":
        head.write_text(head.read_text().replace("2024-01-01", "2024-01-02"))
    else:
        head.write_text(head.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(StoreError, match="damaged|upgrade beforehand"):
        load(folder)
