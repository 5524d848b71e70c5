"""Champion and challenger, end to end on a small shop: refused by a gate, in shadow, promoted and rolled back by hand."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from features.inventory import Inventory
from features.labels import definition
from models.bundle import TargetBundle
from models.calibration import Calibrator
from models.gates import Verdict
from pipeline import backtest
from pipeline.cli import app
from pipeline.past import Past, gather, settled_recipes
from pipeline.progress import Narrator
from pipeline.settings import read_settings
from pipeline.tables import read
from pipeline.tracking import Tracker
from pipeline.train import judge
from shops import shop_config, write_orders

FIRST, LATER = date(2024, 9, 1), date(2024, 10, 1)
NAMES = ["churn_28d", "tea_28d", "value_28d"]
REFUSED = ("churn_28d", "value_28d")


@contextmanager
def a_gate_refuses_them() -> Iterator[None]:
    """Let one gate refuse the models of `REFUSED`, whatever they are worth."""

    def judged(past: Past, tested: backtest.Tested, champions: Mapping[str, TargetBundle | None]) -> tuple[Verdict, ...]:
        verdicts = judge(past, tested, champions)
        return (*verdicts, Verdict("stability", False, "shaky")) if tested.target.name in REFUSED else verdicts

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipeline.train.judge", judged)
        yield


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def config_of(folder: Path, name: str, **changes: object) -> Path:
    told = yaml.safe_load(shop_config(folder).read_text()) | changes
    told["training"] = {"test_origins": 3, "calibration_origins": 1, "max_cutoffs": 8}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with champions from September, and one night."""
    folder = tmp_path_factory.mktemp("shop")
    write_orders(folder / "orders.csv")
    done = run("nightly", "--config", config_of(folder, "shop"), "--as-of", FIRST)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def refused(folder: Path) -> Result:
    """A training in October, some of whose challengers are refused."""
    with a_gate_refuses_them():
        return run("train", "--config", folder / "shop.yaml", "--as-of", LATER)


def versions(folder: Path) -> dict[str, str]:
    champions = Tracker(read_settings(folder / "shop.yaml")).in_charge(NAMES)
    return {name: champion.version for name, champion in champions.items()}


def scores(folder: Path, table: str, day: date) -> pd.DataFrame:
    return read(folder / "out", table, day).to_pandas()


def test_a_refused_challenger_changes_nothing_and_ends_in_code_4(folder: Path, refused: Result) -> None:
    assert refused.exit_code == 4
    assert "value_28d" in refused.stderr and "stability" in refused.stderr
    assert "no, stays a challenger" in refused.stdout
    assert versions(folder)["value_28d"] == "1"
    waiting = Tracker(read_settings(folder / "shop.yaml")).challengers(NAMES)
    assert waiting["value_28d"].version == "2"


def test_a_target_without_a_champion_does_not_keep_the_others_from_being_scored(tmp_path: Path) -> None:
    write_orders(tmp_path / "orders.csv")
    config, after = config_of(tmp_path, "shop"), FIRST + timedelta(days=1)
    with a_gate_refuses_them():
        first = run("nightly", "--config", config, "--as-of", FIRST)
    assert first.exit_code == 4, first.output
    assert "churn_28d: no champion in the registry, so that its scores are unknown tonight" in first.stderr
    assert "nights have no scores of churn_28d, value_28d before they have a champion" in first.stderr
    rows = scores(tmp_path, "segments", FIRST)
    assert rows.tea_28d_score.notna().any() and rows.tea_28d_band.notna().any()
    assert rows[["churn_28d_score", "churn_28d_percentile", "churn_28d_band", "value_28d_score"]].isna().all(axis=None)
    assert set(scores(tmp_path, "scores", FIRST).target) == {"tea_28d"}
    told = json.loads(run("show", "--config", config, "--json").stdout)
    assert {target["target"]: target["users"] is None for target in told["targets"]} == {
        "churn_28d": True,
        "tea_28d": False,
        "value_28d": True,
    }
    assert told["most_at_risk"]["target"] == "tea_28d"
    assert run("promote", "--model", "churn_28d", "--version", 1, "--config", config, "--reason", "we have looked").exit_code == 0
    second = run("nightly", "--config", config, "--as-of", after)
    assert second.exit_code == 0, second.output
    # What was refused is no reason to train again every night.
    assert "training on" not in second.stderr
    words = ["explain-change", "--segment", "leaving", "--config", config, "--from", FIRST, "--to", after, "--json"]
    told = json.loads(run(*words).stdout)
    assert told["parts"]["models"] == told["change"] == told["members_after"] > 0


def test_challengers_are_held_against_the_champions(folder: Path, refused: Result) -> None:
    tracker = Tracker(read_settings(folder / "shop.yaml"))
    client = tracker.open()
    runs = client.search_runs([client.get_experiment_by_name("tea_shop").experiment_id], "tags.target = 'churn_28d'")
    newest = max(runs, key=lambda told: told.info.start_time)
    card = Path(client.download_artifacts(newest.info.run_id, "model_card.md")).read_text()
    assert "average_precision is" in card and "that of the champion" in card


def test_what_a_champion_was_tuned_to_is_where_the_next_training_starts(folder: Path) -> None:
    settings = read_settings(folder / "shop.yaml")
    champion = Tracker(settings).in_charge(["churn_28d"])["churn_28d"].bundle
    assert isinstance(champion, TargetBundle)
    tuned = replace(champion, recipe=replace(champion.recipe, parameters={"num_leaves": 5}))
    narrator = Narrator(Console(file=StringIO()))
    past = gather(settings, LATER, narrator)
    target = next(target for target in past.targets if target.name == "churn_28d")
    elsewhere = replace(tuned, definition=definition(replace(target, horizon=timedelta(days=21))))
    for told, parameters in ((tuned, {"num_leaves": 5}), (elsewhere, {}), (None, {})):
        assert settled_recipes(past, {"churn_28d": told}, narrator)["churn_28d"].parameters == parameters


def test_reasons_are_told_against_whom_a_target_asks_about_on_the_night_of_the_training(folder: Path) -> None:
    settings = read_settings(folder / "shop.yaml")
    champion = Tracker(settings).in_charge(["churn_28d"])["churn_28d"].bundle
    assert isinstance(champion, TargetBundle)
    past = gather(settings, date.fromisoformat(champion.trained_until), Narrator(Console(file=StringIO())))
    asked = past.asked_tonight(next(target for target in past.targets if target.name == "churn_28d"))
    np.testing.assert_allclose(champion.against_expected(asked).mean(axis=0), 0.0, atol=1e-12)
    assert champion.typical["purchase_recency_days"] == pytest.approx(asked.purchase_recency_days.median(), rel=1e-6)


def test_what_a_champion_remembers_is_built_for_it_and_not_learned_by_others(folder: Path) -> None:
    remembered = Inventory({"quiz": ()})
    past = gather(read_settings(folder / "shop.yaml"), LATER, Narrator(Console(file=StringIO())), remembered)
    assert "quiz_count_28d" in past.names and "quiz_count_28d" in past.features
    # Else what came and went would pile up from training to training.
    assert not [name for target in past.targets for name in past.features_of(target) if "quiz" in name]
    assert past.log.inventory.measures == {}


def test_shadow_scores_are_of_challengers_and_leave_the_night_as_it_is(folder: Path, refused: Result) -> None:
    config = folder / "shop.yaml"
    assert run("score", "--config", config, "--as-of", LATER).exit_code == 0
    before = {name: scores(folder, name, LATER) for name in ("scores", "segments")}
    assert scores(folder, "shadow", LATER).empty
    done = run("score", "--config", config, "--as-of", LATER, "--shadow")
    assert done.exit_code == 0, done.output
    shadow = scores(folder, "shadow", LATER)
    assert "value_28d" in set(shadow.target) and set(shadow.model_version) == {"2"}
    value = scores(folder, "scores", LATER).query("target == 'value_28d'")
    assert set(value.model_version) == {"1"} and len(value) == len(shadow.query("target == 'value_28d'"))
    for name, frame in before.items():
        keys = ["target", "user_id"] if name == "scores" else ["user_id"]
        now = scores(folder, name, LATER).sort_values(keys, ignore_index=True)
        pd.testing.assert_frame_equal(now.drop(columns="reasons", errors="ignore"), frame.sort_values(keys, ignore_index=True).drop(
            columns="reasons", errors="ignore"))  # fmt: skip


def test_a_night_says_again_what_the_test_of_a_champion_warned_of(folder: Path) -> None:
    champions = Tracker(read_settings(folder / "shop.yaml")).in_charge(NAMES)
    warned = {name: champion.bundle.warnings for name, champion in champions.items() if champion.bundle.warnings}
    done = run("score", "--config", folder / "shop.yaml", "--as-of", LATER)
    assert warned and all(f"{name}, when tested: {said}" in done.stderr for name, told in warned.items() for said in told)


def test_promoted_and_rolled_back_by_hand(folder: Path, refused: Result) -> None:
    config = folder / "shop.yaml"
    told = run("promote", "--config", config, "--model", "value_28d", "--version", 2, "--reason", "we know better", "--json")
    assert json.loads(told.stdout) == {"model": "value_28d", "champion": "2", "former": "1", "reason": "we know better"}
    assert versions(folder)["value_28d"] == "2"
    back = run("rollback", "--config", config, "--model", "value_28d", "--reason", "we did not")
    assert back.exit_code == 0 and versions(folder)["value_28d"] == "1"
    assert run("promote", "--config", config, "--model", "value", "--version", 2, "--reason", "x").exit_code == 2
    missing = run("promote", "--config", config, "--model", "value_28d", "--version", 9, "--reason", "x")
    assert missing.exit_code == 2 and "9" in missing.stderr


def test_a_nightly_with_refused_models_still_scores_with_the_old_ones(folder: Path) -> None:
    with a_gate_refuses_them():
        done = run("nightly", "--config", folder / "shop.yaml", "--as-of", date(2024, 10, 30))
    assert done.exit_code == 4
    assert not scores(folder, "scores", date(2024, 10, 30)).empty


def backtested(folder: Path) -> dict[str, Any]:
    done = run("backtest", "--config", folder / "shop.yaml", "--as-of", FIRST, "--json")
    assert done.exit_code == 0, done.output
    return {row["target"]: row for row in json.loads(done.stdout)["targets"]}


def test_a_backtest_tells_intervals_rules_bands_and_slices_and_registers_nothing(folder: Path) -> None:
    before = versions(folder)
    told = backtested(folder)
    assert versions(folder) == before
    churn = told["churn_28d"]
    for found in (churn["measures"]["auc"], churn["ladder"]["base_rate"], churn["pooled"]["expected_calibration_error"]):
        assert found["low"] <= found["value"] <= found["high"]
    assert set(churn["ladder"]) >= {"base_rate", "recency", "rfm"}
    # Simplest first: it is ahead of all that are simpler.
    values = [found["value"] for found in churn["ladder"].values()]
    at = list(churn["ladder"]).index(churn["rung"])
    assert values[at] == max(values[: at + 1])
    assert sum(band["users"] for band in churn["bands"]) == churn["rows"]
    by = {part["column"] for part in churn["slices"]}
    assert {"tenure", "journey_stage", "segment"} <= by
    segments = [part for part in churn["slices"] if part["column"] == "segment"]
    assert sum(part["users"] for part in segments) == churn["rows"]
    assert {part["value"] for part in segments} <= {"leaving", "tea_next", "in none"}
    assert list(churn["by_origin"]) == churn["test_origins"]
    # What a model was made by is told to whoever wants to make it anew.
    assert churn["recipe"]["rounds"] > 0 and churn["recipe"]["num_leaves"] >= 8 and churn["recipe"]["season"] is False
    assert Calibrator(**churn["calibrator"]).method == churn["calibrator"]["method"]
    assert sum(found["users"] for found in churn["by_origin"].values()) == churn["rows"]
    for found in churn["by_origin"].values():
        for measured in (found["measures"], found["baselines"]["base_rate"]):
            assert measured["brier"]["low"] < measured["brier"]["value"] < measured["brier"]["high"]


def test_stages_and_tiers_of_the_config_tell_the_tests_apart(folder: Path) -> None:
    stages = [{"name": "here", "when": "purchase_recency_days < 14"}, {"name": "away", "when": "true"}]
    tiers = [{"name": "big", "when": "churn_28d_score < 0.2 and journey_stage = 'here'"}]
    config = config_of(folder, "staged", journey_stages=stages, loyalty_tiers=tiers, segments=[])
    done = run("backtest", "--config", config, "--as-of", LATER, "--json")
    churn = next(told for told in json.loads(done.stdout)["targets"] if told["target"] == "churn_28d")
    found = {(part["column"], part["value"]) for part in churn["slices"]}
    assert {("journey_stage", "here"), ("journey_stage", "away"), ("loyalty_tier", "big")} <= found
    assert not [column for column, _ in found if column == "segment"]


def test_the_same_training_twice_gives_the_same_models(folder: Path) -> None:
    config = config_of(folder, "again", output=str(folder / "again"))
    for _ in range(2):
        run("train", "--config", config, "--as-of", FIRST)
    found = sorted((folder / "again" / "mlflow").rglob("bundle.json"))
    told = [json.loads(path.read_text()) for path in found]
    for head in told:
        # Why so many: the second training knows how many there were before.
        head.get("personas", {}).pop("why", None)
        head.pop("seal")
    heads = [json.dumps(head) for head in told]
    assert len(heads) == 8 and len(set(heads)) == 4
    boosters = [path.read_text() for path in sorted((folder / "again" / "mlflow").rglob("booster.txt"))]
    assert len(set(boosters)) * 2 == len(boosters)


def test_a_longer_horizon_of_one_question_is_never_likelier_to_see_nothing(folder: Path) -> None:
    # The question is the same of whoever is asked about.
    targets = [
        {"name": f"{name}_{days}d", "kind": kind, "horizon": f"{days}d", "eligible": {"active_within": f"{days + 28}d"}}
        for name, kind in (("churn", "absence"), ("purchase", "occurrence"))
        for days in (28, 56)
    ]
    config = config_of(folder, "horizons", output=str(folder / "horizons"), targets=targets, segments=[])
    done = run("nightly", "--config", config, "--as-of", LATER)
    assert done.exit_code in (0, 4), done.output
    if done.exit_code == 4:
        for target in targets:
            run("promote", "--config", config, "--model", target["name"], "--version", 1, "--reason", "for the test")
        assert run("score", "--config", config, "--as-of", LATER).exit_code == 0
    night = read(folder / "horizons", "segments", LATER).to_pandas()
    asked = night[night.churn_28d_score.notna()]
    assert len(asked) > 50
    assert (asked.churn_56d_score <= asked.churn_28d_score).all()
    assert (asked.purchase_56d_score >= asked.purchase_28d_score).all()
    # Two models that were merely clipped would agree to the last digit for many.
    assert (asked.churn_56d_score < asked.churn_28d_score).mean() > 0.5


def test_a_champion_of_another_question_holds_nobody_back(folder: Path) -> None:
    churn = yaml.safe_load((folder / "shop.yaml").read_text())["targets"][0]
    # One order, long before the cutoffs: one label, where the champion knew two.
    other = churn | {"events": "order_id = 'o0'"}
    config = config_of(folder, "other", targets=[other], segments=[])
    tested = run("backtest", "--config", config, "--as-of", LATER, "--json")
    assert tested.exit_code == 0, tested.output
    told = json.loads(tested.stdout)["targets"][0]
    assert told["champion"].startswith("it answers another question, events: ")
    assert run("score", "--config", config, "--as-of", LATER).exit_code == 2
    done = run("train", "--config", config, "--as-of", LATER)
    assert done.exit_code == 0, done.output
    assert int(versions(folder)["churn_28d"]) > 1
    assert run("score", "--config", config, "--as-of", LATER).exit_code == 0
