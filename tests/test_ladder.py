"""The ladder: linear models with exact contributions, blends on one scale, and bundles of every rung in plain files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from features.errors import DataError, StoreError
from features.inventory import Inventory
from models.bundle import FORMAT, TargetBundle, load
from models.calibration import Calibrator
from models.ladder import BLENDS, RUNGS, Blend, Linear, Recipe, Rung, blended, finite, fit_recipe, fit_rungs, possible, raw_by
from models.linear import fit_linear
from models.propensity import raw_scores
from models.suspicion import lone_aucs, suspicions

NAMES = ("purchase_recency_days", "purchase_frequency", "a", "b")
OWN = {name: name for name in NAMES}


def table(rows: int = 600, seed: int = 3) -> tuple[pd.DataFrame, pd.Series]:
    random = np.random.default_rng(seed)
    x = pd.DataFrame(random.normal(size=(rows, 4)), columns=list(NAMES))
    x["purchase_recency_days"] = random.exponential(20, size=rows)
    x.loc[::7, "b"] = np.nan
    y = (x.a + x.b.fillna(1.0) * x.a + random.normal(size=rows) > 0).astype(float)
    return x, y


@pytest.fixture(scope="module")
def rungs() -> dict[Rung, object]:
    return dict(fit_rungs(*table(), RUNGS, Recipe("blend", NAMES, rounds=40), is_amount=False, seed=1))


def test_a_linear_model_is_sklearns_on_standardised_columns() -> None:
    x, y = table()
    known = x[["a", "purchase_frequency"]]
    found = fit_linear(known, y, is_amount=False, strength=1e-4, seed=1)
    scaled = (known - known.mean()) / known.std(ddof=0)
    theirs = LogisticRegression(C=1 / (1e-4 * len(x)), tol=1e-8, max_iter=1000).fit(scaled, y)
    np.testing.assert_allclose(found.raw(x), theirs.predict_proba(scaled)[:, 1], atol=1e-4)


def test_what_changed_between_dates_is_not_put_down_to_users() -> None:
    random = np.random.default_rng(5)
    date = np.repeat(np.arange(8), 500)
    # Users of a log that began with them have longer histories at later dates, at which fewer come.
    x = pd.DataFrame({"a": random.normal(size=len(date)), "b": 14.0 * date + random.normal(0, 20, len(date))})
    y = pd.Series((random.random(len(date)) < expit(1.5 - 0.4 * date + x.a)).astype(float))
    rows = x.assign(cutoff=pd.Timestamp("2024-01-01") + pd.to_timedelta(14 * date, "D"))
    spread = {}
    for within in (True, False):
        recipe = Recipe("blend", ("a", "b"), rounds=60, within_dates=within)
        for rung, model in fit_rungs(rows, y, ("logistic", "lightgbm"), recipe, is_amount=False, seed=1).items():
            asked = pd.DataFrame({"a": 0.0, "b": [0.0, 100.0]})
            spread[within, rung] = np.ptp(logit(model.raw(asked)))
            assert model.raw(x).mean() == pytest.approx(y.mean(), abs=0.06)
            assert np.corrcoef(model.raw(x), x.a)[0, 1] > 0.5
    for rung in ("logistic", "lightgbm"):
        assert spread[True, rung] < 0.4 * spread[False, rung]


def test_one_date_is_learned_as_it_is() -> None:
    x, y = table()
    rows, recipe = x.assign(cutoff=pd.Timestamp("2024-01-01")), Recipe("lightgbm", NAMES, rounds=20)
    one, same = (
        fit_recipe(rows, y, replace(recipe, within_dates=within), is_amount=False, seed=1).raw(x) for within in (True, False)
    )
    np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("is_amount", [False, True])
def test_linear_contributions_add_up_to_the_score(is_amount: bool) -> None:
    x, y = table()
    found = fit_linear(x, y * 20 if is_amount else y, is_amount=is_amount, strength=0.01, seed=1)
    link = found.contributions(x).sum(axis=1) + found.intercept
    np.testing.assert_allclose(found.raw(x), np.exp(link) if is_amount else expit(link))
    # Amounts are right on average: Poisson's score equations.
    assert found.raw(x).mean() == pytest.approx((y * 20 if is_amount else y).mean(), rel=0.02)


@pytest.mark.parametrize("is_amount", [False, True])
def test_a_line_goes_no_further_than_what_it_was_learned_from(is_amount: bool) -> None:
    x, y = table()
    found = fit_linear(x, y * 20 if is_amount else y, is_amount=is_amount, strength=0.01, seed=1, stays_within=True)
    np.testing.assert_allclose(found.raw(x * 10), found.raw((x * 10).clip(x.min(), x.max(), axis=1)), rtol=1e-12)
    assert not np.array_equal(found.raw(x * 0.9), found.raw(x))


def test_empty_and_constant_columns_are_left_out_and_nothing_at_all_is_the_base_rate() -> None:
    x, y = table()
    dull = x.assign(c=5.0, d=np.nan)
    assert fit_linear(dull, y, is_amount=False, strength=0.01, seed=1).features == NAMES
    empty = fit_linear(dull[["c", "d"]], y, is_amount=False, strength=0.01, seed=1)
    assert empty.raw(dull) == pytest.approx(np.full(len(x), y.mean()))


def test_a_weight_against_its_constraint_is_left_out() -> None:
    x, y = table()
    assert "a" in fit_linear(x, y, is_amount=False, strength=0.01, seed=1, monotone={"a": 1}).features
    assert "a" not in fit_linear(x, y, is_amount=False, strength=0.01, seed=1, monotone={"a": -1}).features


def test_every_rung_keeps_its_constraints() -> None:
    x, y = table()
    recipe = Recipe("blend", NAMES, rounds=60, monotone={"a": 1, "purchase_recency_days": 1}, recency=("purchase_recency_days",))
    y = y.where(x.purchase_recency_days < 30, 0.0)
    for model in fit_rungs(x, y, RUNGS, recipe, is_amount=False, seed=1).values():
        for name in recipe.monotone:
            line = pd.concat([x.head(1)] * 50, ignore_index=True).assign(**{name: np.linspace(-3, 90, 50)})
            assert (np.diff(model.raw(line)) >= -1e-12).all()


@pytest.mark.parametrize(("rung", "part"), BLENDS.items())
def test_a_blend_lies_between_its_parts_and_so_do_its_contributions(rungs: dict[Rung, object], rung: Rung, part: Rung) -> None:
    x, _ = table()
    blend = rungs[rung]
    assert isinstance(blend, Blend) and (blend.trees, blend.linear) == (rungs["lightgbm"], rungs[part])
    np.testing.assert_allclose(logit(blend.raw(x)), (logit(blend.trees.raw(x)) + logit(blend.linear.raw(x))) / 2)
    # Trees' contributions add up to the log-odds less a constant; the blend's, too.
    rest = logit(blend.raw(x)) - blend.contributions(x).sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-4)


def test_what_blends_share_is_asked_once(rungs: dict[Rung, object], monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = table(50)
    alone = {name: model.raw(x) for name, model in rungs.items()}
    asked = []
    monkeypatch.setattr("models.ladder.raw_scores", lambda *told, **how: asked.append(told) or raw_scores(*told, **how))
    found = raw_by(rungs, x)
    assert len(asked) == 1
    assert list(found) == list(alone)
    for name, told in alone.items():
        np.testing.assert_array_equal(found[name], told)
    np.testing.assert_array_equal(raw_by({"blend": rungs["blend"]}, x)["blend"], alone["blend"])


def test_amounts_are_blended_as_logarithms() -> None:
    assert blended(np.array([4.0]), np.array([9.0]), is_amount=True) == pytest.approx([6.0])


@pytest.mark.parametrize("rung", RUNGS)
def test_every_rung_survives_its_folder(tmp_path: Path, rungs: dict[Rung, object], rung: Rung) -> None:
    x, _ = table()
    recipe = Recipe(rung, NAMES, rounds=40, parameters={"num_leaves": 4}, monotone={"a": 1})
    made = TargetBundle("churn", {"horizon": "28d"}, recipe, "2024-01-01", Calibrator("platt", 0.9, 0.1), rungs[rung], {"a": "g"})
    inventory = Inventory({"quiz": ("amount",)}, {"quiz": ("hard",)}, {"plan": ("basic", "gold")})
    made = replace(made, inventory=inventory, warnings=("a season",))
    made.save(tmp_path / "bundle")
    read = load(tmp_path / "bundle")
    assert isinstance(read, TargetBundle) and (read.inventory, read.warnings) == (made.inventory, made.warnings)
    assert (read.recipe, read.definition, read.groups, read.method) == (recipe, made.definition, made.groups, f"{rung}+platt")
    pd.testing.assert_frame_equal(read.predict(x), made.predict(x))
    np.testing.assert_array_equal(read.contributions(x), made.contributions(x))
    again = load(tmp_path / "bundle")
    assert read.digest == again.digest != replace(read, calibrator=Calibrator()).digest


def test_a_bundle_of_the_first_format_still_loads(tmp_path: Path, rungs: dict[Rung, object]) -> None:
    x, _ = table()
    made = TargetBundle("churn", {}, Recipe("lightgbm", NAMES), "2024-01-01", Calibrator("platt", 0.9, 0.1), rungs["lightgbm"])
    made.save(tmp_path / "bundle")
    (tmp_path / "bundle" / "bundle.json").write_text(
        '{"format": 1, "kind": "target", "target": "churn", "definition": {}, "method": "lightgbm+platt", '
        '"trained_until": "2024-01-01", "calibrator": {"method": "platt", "slope": 0.9, "intercept": 0.1}}'
    )
    read = load(tmp_path / "bundle")
    assert isinstance(read, TargetBundle) and read.method == "lightgbm+platt"
    pd.testing.assert_frame_equal(read.predict(x), made.predict(x))


def test_a_bundle_that_remembers_event_types_alone_still_loads(tmp_path: Path, rungs: dict[Rung, object]) -> None:
    made = TargetBundle("churn", {}, Recipe("rfm", NAMES), "2024-01-01", Calibrator(), rungs["rfm"])
    made.save(tmp_path / "bundle")
    head = tmp_path / "bundle" / "bundle.json"
    told = json.loads(head.read_text())
    del told["inventory"]
    head.write_text(json.dumps(told | {"format": 3, "event_types": ["quiz", "wave"]}))
    read = load(tmp_path / "bundle")
    assert isinstance(read, TargetBundle) and read.inventory == Inventory({"quiz": (), "wave": ()})


def test_a_bundle_with_an_unknown_kind_of_model_is_damaged(tmp_path: Path, rungs: dict[Rung, object]) -> None:
    made = TargetBundle("churn", {}, Recipe("rfm", NAMES), "2024-01-01", Calibrator(), rungs["rfm"])
    made.save(tmp_path / "bundle")
    head = tmp_path / "bundle" / "bundle.json"
    head.write_text(head.read_text().replace('"kind": "linear"', '"kind": "oracle"').replace(f'"format": {FORMAT}', '"format": 3'))
    with pytest.raises(StoreError, match="damaged.*oracle"):
        load(tmp_path / "bundle")


@pytest.mark.parametrize("rung", ["logistic", "lightgbm", *BLENDS])
def test_odd_values_at_scoring(rungs: dict[Rung, object], rung: Rung) -> None:
    x, _ = table(20)
    bundle = TargetBundle("churn", {}, Recipe(rung, NAMES), "2024-01-01", Calibrator(), rungs[rung])
    with pytest.raises(DataError, match="the model of churn reads a, which the rows do not have"):
        bundle.predict(x.drop(columns="a"))
    with pytest.raises(DataError, match="reads a as numbers"):
        bundle.predict(x.assign(a="text"))
    # An infinity is unknown, not the largest of all.
    odd = bundle.predict(x.assign(a=np.inf)).score
    pd.testing.assert_series_equal(odd, bundle.predict(x.assign(a=np.nan)).score)
    assert odd.between(0, 1).all()
    assert bundle.predict(x.assign(a=None)).score.between(0, 1).all()


def test_rungs_need_enough_of_both_labels() -> None:
    def label(positives: int, rows: int = 1000) -> pd.Series:
        return pd.Series([1.0] * positives + [0.0] * (rows - positives))

    assert possible(label(0), Recipe("blend", NAMES), is_amount=False) == ("base_rate",)
    assert possible(label(10), Recipe("blend", NAMES), is_amount=False) == ("base_rate", "recency")
    assert possible(label(99), Recipe("blend", NAMES), is_amount=False) == ("base_rate", "recency", "rfm")
    assert possible(label(100), Recipe("blend", NAMES), is_amount=False) == RUNGS
    assert possible(label(950), Recipe("blend", NAMES), is_amount=False) == ("base_rate", "recency", "rfm")
    assert possible(label(100), Recipe("blend", ("a",)), is_amount=False) == ("base_rate", "logistic", "lightgbm", "blend")
    assert possible(label(1000), Recipe("blend", NAMES), is_amount=True) == RUNGS


def test_infinities_become_unknown() -> None:
    frame = pd.DataFrame({"a": [1.0, np.inf, -np.inf, np.nan]})
    assert finite(frame).a.isna().tolist() == [False, True, True, True]


def test_a_feature_that_knows_the_label_is_named() -> None:
    x, y = table()
    rows = x.assign(label=y, leak=y * 3 + np.random.default_rng(0).normal(scale=0.1, size=len(y)))
    assert lone_aucs(rows, ["leak", "purchase_frequency"])["leak"] == 1.0
    assert suspicions(rows, OWN | {"leak": "leak"}, (), 0.9) == [
        "these features almost tell the label alone, as a leak would, or those to whom alone it can happen: leak (alone AUC 1.000)"
    ]
    assert suspicions(rows, OWN | {"leak": "leak"}, (), 0.995)[0].startswith(
        "AUC 0.995 is too good to be honest, unless it is agreed beforehand, like a standing order; look first at leak"
    )
    assert suspicions(rows, OWN, (), 0.8) == []


def test_a_feature_that_ranks_far_better_than_all_others_is_named() -> None:
    x, y = table()
    rows = x.assign(label=y, leak=y + np.random.default_rng(0).normal(scale=0.5, size=len(y)))
    assert 0.85 < lone_aucs(rows, ["leak"])["leak"] < 0.95
    (said,) = suspicions(rows, OWN | {"leak": "leak"}, (), 0.9)
    assert said.startswith("leak alone ranks far better (AUC 0.9")
    # One of its own kind says the same, and is no other witness; one of another kind is.
    assert suspicions(rows.assign(twin=rows.leak), OWN | {"leak": "leak", "twin": "leak"}, (), 0.9) == [said]
    assert suspicions(rows.assign(twin=rows.leak), OWN | {"leak": "leak", "twin": "honest"}, (), 0.9) == []


def test_with_few_of_a_label_no_feature_is_suspected_alone() -> None:
    rows = pd.DataFrame({"label": [1.0] * 3 + [0.0] * 300, "chance": range(303)})
    assert suspicions(rows, {"chance": "chance"}, (), 0.8) == []


def test_a_linear_model_sees_the_rare_answer_whatever_is_drawn() -> None:
    random = np.random.default_rng(3)
    x = pd.DataFrame({"a": random.normal(size=400_000)})
    y = pd.Series((random.random(len(x)) < 0.0002 * np.exp(x.a - 0.5)).astype(float))
    fits = [fit_linear(x, y, is_amount=False, strength=1e-6, seed=seed) for seed in range(3)]
    for fit in fits:
        assert fit.raw(x).mean() == pytest.approx(y.mean(), rel=0.1)
        assert fit.columns[0].weight == pytest.approx(1.0, abs=0.25)


def test_a_feature_against_monotone_leaves_the_level_of_a_rare_answer() -> None:
    random = np.random.default_rng(0)
    x = pd.DataFrame(random.normal(size=(200_000, 2)), columns=["a", "b"])
    y = pd.Series((random.random(len(x)) < expit(-7.6 + 0.8 * x.a + 0.5 * x.b)).astype(float))
    fit = fit_linear(x, y, is_amount=False, strength=1e-4, seed=7, monotone={"b": -1})
    assert fit.features == ("a",)
    assert fit.raw(x).mean() == pytest.approx(y.mean(), rel=0.05)


@pytest.mark.parametrize("payers", [25, 299_990, 300_000])
def test_amounts_of_few_or_of_all_but_few_have_their_level_whatever_is_drawn(payers: int) -> None:
    random = np.random.default_rng(0)
    x = pd.DataFrame({"a": random.normal(size=300_000)})
    y = pd.Series(np.where(random.permutation(len(x)) < payers, random.gamma(20, 5, len(x)), 0.0))
    for seed in range(3):
        fit = fit_linear(x, y, is_amount=True, strength=1e-4, seed=seed)
        assert fit.raw(x).mean() == pytest.approx(y.mean(), rel=0.02)


def test_nobody_is_asked_and_nobody_is_answered() -> None:
    random = np.random.default_rng(0)
    x = pd.DataFrame(random.normal(size=(600, 2)), columns=["a", "b"])
    y = pd.Series((random.random(len(x)) < expit(x.a)).astype(float))
    found = fit_rungs(x, y, ["logistic", "lightgbm", "blend"], Recipe("blend", ("a", "b")), is_amount=False, seed=1)
    assert {rung: model.raw(x.head(0)).tolist() for rung, model in found.items()} == dict.fromkeys(found, [])


def test_what_is_known_for_one_label_only_is_suspicious() -> None:
    rows = pd.DataFrame({"label": [0.0, 1.0] * 50, "told": [np.nan, 5.0] * 50})
    assert lone_aucs(rows, ["told"]) == {"told": 1.0}


def test_linear_models_are_plain(rungs: dict[Rung, object]) -> None:
    assert isinstance(rungs["rfm"], Linear) and rungs["rfm"].features == ("purchase_recency_days", "purchase_frequency")
