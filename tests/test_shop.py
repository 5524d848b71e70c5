"""The whole path on a data set of its own, a CSV of orders: train, score, show, rerun, crash, interrupt."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import date
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from deltalake import DeltaTable
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from pipeline.cli import _why_train, app
from pipeline.columns import NIGHTS, QUARANTINE, SCORES, segments_schema
from pipeline.settings import read_settings
from pipeline.tables import exclusive, nights, read
from shops import shop_config, write_orders

NIGHT, NEXT = date(2024, 10, 25), date(2024, 10, 26)
TARGETS = ["churn_28d", "tea_28d", "value_28d"]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop that was trained and scored for one night; gives the path of its config."""
    folder = tmp_path_factory.mktemp("shop")
    write_orders(folder / "orders.csv")
    config = shop_config(folder)
    done = run("nightly", "--config", config, "--as-of", NIGHT)
    assert done.exit_code == 0, done.output
    return config


def tables(config: Path, day: date) -> dict[str, pd.DataFrame]:
    output = read_settings(config).output
    keys = {"features": ["user_id"], "scores": ["target", "user_id"], "segments": ["user_id"], "quarantine": ["source", "row"]}
    found = {name: read(output, name, day).to_pandas() for name in keys}
    return {name: frame.sort_values(keys[name], ignore_index=True) for name, frame in found.items()}


def assert_same(left: dict[str, pd.DataFrame], right: dict[str, pd.DataFrame]) -> None:
    for name, frame in left.items():
        assert frame.to_dict("list").keys() == right[name].to_dict("list").keys(), name
        differing = [column for column in frame if not frame[column].map(repr).equals(right[name][column].map(repr))]
        assert differing == [], name


def test_the_tables_have_the_columns_of_the_design(shop: Path) -> None:
    output = read_settings(shop).output
    declared = {
        "scores": SCORES,
        "quarantine": QUARANTINE,
        "nights": NIGHTS,
        "segments": segments_schema(read_settings(shop).specs()),
    }
    for name, schema in declared.items():
        assert DeltaTable(output / name).to_pyarrow_table().schema.names == schema.names


def test_every_user_known_has_one_row_and_every_score_a_reason(shop: Path) -> None:
    night = tables(shop, NIGHT)
    known = pd.read_csv(shop.parent / "orders.csv")
    known = known[pd.to_datetime(known.ordered_at) < pd.Timestamp(NIGHT)]
    assert sorted(night["segments"].user_id) == sorted(known.customer.unique())
    scores = night["scores"]
    assert not scores.duplicated(["user_id", "target"]).any()
    assert set(scores.target) == set(TARGETS)
    assert (scores.reasons.map(len) == 3).all()
    chances = scores[scores.target != "value_28d"]
    assert chances.score.between(0, 1).all() and scores.percentile.between(0, 100).all()
    groups = [{reason["phrase"] for reason in reasons} for reasons in scores.reasons]
    assert all(len(said) == 3 for said in groups)


def test_who_is_not_asked_about_has_null_and_no_invented_score(shop: Path) -> None:
    segments = tables(shop, NIGHT)["segments"].set_index("user_id")
    orders = pd.read_csv(shop.parent / "orders.csv", parse_dates=["ordered_at"])
    recent = orders[(orders.ordered_at < pd.Timestamp(NIGHT)) & (orders.ordered_at >= pd.Timestamp(NIGHT) - pd.Timedelta(days=56))]
    assert set(segments.index[segments.churn_28d_score.notna()]) == set(recent.customer)
    for column in ("preferred_channel", "play", "holdout"):
        assert segments[column].isna().all()


def test_columns_of_segments_need_no_rule_that_reads_them(shop: Path) -> None:
    found = tables(shop, NIGHT)
    features, segments = (found[name].set_index("user_id") for name in ("features", "segments"))
    for column in ("journey_stage", "best_hour"):
        assert features[column].notna().any()
        pd.testing.assert_series_equal(segments[column], features.loc[segments.index, column], check_dtype=False)


def test_segments_follow_their_rules(shop: Path) -> None:
    segments = tables(shop, NIGHT)["segments"]
    leaving = segments.churn_28d_score >= 0.3
    tea = segments.tea_28d_percentile >= 80
    assert [list(found) for found in segments.segments] == [
        [name for name, is_in in (("leaving", one), ("tea_next", two)) if is_in] for one, two in zip(leaving, tea, strict=True)
    ]
    assert leaving.any() and tea.any()
    assert (segments.primary_segment[leaving] == "leaving").all()
    assert segments.primary_segment[~leaving & ~tea].isna().all()


def test_rerunning_a_night_gives_the_same_rows(shop: Path) -> None:
    before = tables(shop, NIGHT)
    assert run("score", "--config", shop, "--as-of", NIGHT).exit_code == 0
    assert_same(before, tables(shop, NIGHT))
    runs = [row["run_id"] for row in nights(read_settings(shop).output) if row["as_of"] == NIGHT]
    assert len(runs) > 1 and len(set(runs)) == 1


def test_a_night_of_the_past_is_what_it_would_have_said_then(shop: Path) -> None:
    """Scoring a past date from today's file equals scoring it from the file as it was on that date, to the run's id."""
    past, path = date(2024, 10, 1), shop.parent / "orders.csv"
    assert run("score", "--config", shop, "--as-of", past).exit_code == 0
    now, orders = tables(shop, past), pd.read_csv(path)
    try:
        orders[pd.to_datetime(orders.ordered_at) < pd.Timestamp(past)].sample(frac=1, random_state=1).to_csv(path, index=False)
        assert run("score", "--config", shop, "--as-of", past).exit_code == 0
    finally:
        orders.to_csv(path, index=False)
    assert_same(now, tables(shop, past))


KILLED = """
import os, signal, sys
from pipeline import tables
from pipeline.cli import _why_train, app
real, written = tables.write_deltalake, []
def dying(path, *rest, **options):
    if len(written) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(path)
    return real(path, *rest, **options)
tables.write_deltalake = dying
app(sys.argv[1:])
"""


@pytest.mark.parametrize("after", [1, 4])
def test_a_night_that_is_killed_while_writing_leaves_the_last_one_whole(shop: Path, after: int) -> None:
    before, recorded = tables(shop, NIGHT), nights(read_settings(shop).output)
    command = [sys.executable, "-c", KILLED.format(after=after), "score", "--config", str(shop), "--as-of", str(NEXT)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert_same(before, tables(shop, NIGHT))
    assert nights(read_settings(shop).output) == recorded
    again = run("score", "--config", shop, "--as-of", NIGHT)
    assert "an earlier run died while writing" in again.stderr
    assert_same(before, tables(shop, NIGHT))
    for name in ("features", "scores", "segments"):
        direct = DeltaTable(read_settings(shop).output / name).to_pyarrow_table(columns=["as_of"])["as_of"].to_pylist()
        assert NEXT not in direct


@pytest.mark.parametrize("command", ["score", "nightly", "show", "validate"])
def test_a_config_of_another_name_leaves_the_nights_alone(shop: Path, command: str) -> None:
    before, other = tables(shop, NIGHT), shop.with_name("other.yaml")
    other.write_text(shop.read_text().replace("name: tea_shop", "name: coffee_shop"))
    refused = run(command, "--config", other, "--as-of", NIGHT)
    assert refused.exit_code == 2
    assert "holds the nights of tea_shop, and this config is named coffee_shop: give it a folder of its own" in refused.stderr
    assert_same(before, tables(shop, NIGHT))


def test_an_interrupted_training_leaves_the_champions(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import train

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    client = MlflowClient(f"sqlite:///{read_settings(shop).output.resolve() / 'mlflow' / 'mlflow.db'}")
    before = client.get_model_version_by_alias("tea_shop.churn_28d", "champion").version
    monkeypatch.setattr(train, "_log_personas", interrupted)
    stopped = run("train", "--config", shop, "--as-of", NIGHT)
    assert stopped.exit_code == 130
    assert "interrupted: the last complete night and the champions stand as they were" in stopped.stderr
    assert client.get_model_version_by_alias("tea_shop.churn_28d", "champion").version == before


def test_a_training_is_in_mlflow_from_parent_to_model(shop: Path) -> None:
    uri = f"sqlite:///{read_settings(shop).output.resolve() / 'mlflow' / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tea_shop")
    runs = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
    parents = [found for found in runs if "mlflow.parentRunId" not in found.data.tags]
    assert len(parents) == 1
    assert {"as_of", "config_digest", "events_digest"} <= set(parents[0].data.tags)
    assert {"churn_28d_auc_mean", "value_28d_mean_absolute_error_mean"} <= set(parents[0].data.metrics)
    page = Path(client.download_artifacts(parents[0].info.run_id, "features.md")).read_text()
    assert "| `purchase_recency_days` | days | " in page
    children = {found.info.run_name: found for found in runs if found.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id}
    assert set(children) == {*TARGETS, "personas"}
    churn = children["churn_28d"]
    assert len(client.get_metric_history(churn.info.run_id, "auc")) == 2
    assert 0.5 < churn.data.metrics["auc_mean"] < 0.95
    figures = {Path(item.path).name for item in client.list_artifacts(churn.info.run_id, "figures")}
    drawn = {"roc", "precision_recall", "reliability", "gain", "ladder"}
    drawn |= {"shap_beeswarm", "shap_dependence", "importance_groups", "importance_stability"}
    assert figures == {f"{name}.png" for name in drawn}
    assert {item.path for item in client.list_artifacts(churn.info.run_id)} == {"figures", "model_card.md"}
    for name in TARGETS:
        assert client.get_model_version_by_alias(f"tea_shop.{name}", "champion").run_id == children[name].info.run_id
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model("models:/tea_shop.churn_28d@champion")
    features = tables(shop, NIGHT)["features"].set_index("user_id")
    scored = tables(shop, NIGHT)["scores"].query("target == 'churn_28d'").set_index("user_id")
    served = model.predict(features.loc[scored.index, model.metadata.get_input_schema().input_names()])
    pd.testing.assert_series_equal(served.score, scored.score)


def test_no_raw_user_is_in_mlflow(shop: Path) -> None:
    # Of three digits: shorter ones may stand for something else, such as a type of numpy's.
    users = {user for user in pd.read_csv(shop.parent / "orders.csv").customer if len(user) == 4}
    assert len(users) > 100
    files = [path for path in (read_settings(shop).output / "mlflow").rglob("*") if path.is_file() and path.suffix != ".png"]
    assert {".md", ".json", ".db"} <= {path.suffix for path in files}
    for path in files:
        words = set(re.findall(r"\bu\d{3}\b", path.read_bytes().decode(errors="ignore")))
        assert not words & users, path


def test_show_tells_people_and_machines_the_same(shop: Path) -> None:
    told = json.loads(run("show", "--config", shop, "--as-of", NIGHT, "--json").stdout)
    assert [row["target"] for row in told["targets"]] == TARGETS
    night = tables(shop, NIGHT)
    assert sum(row["users"] for row in told["segments"]) == told["users"] == len(night["segments"])
    top = night["scores"].query("target == 'churn_28d'").score.nlargest(10)
    assert [row["score"] for row in told["most_at_risk"]["users"]] == pytest.approx(list(top))
    printed = run("show", "--config", shop, "--as-of", NIGHT).stdout
    assert told["most_at_risk"]["users"][0]["reasons"][0]["phrase"] in printed
    assert str(read_settings(shop).output / "segments") in printed


def test_nightly_trains_again_when_the_champions_are_old(shop: Path) -> None:
    assert "training on what was known" not in run("nightly", "--config", shop, "--as-of", NIGHT).stderr
    assert _why_train(read_settings(shop), date(2024, 11, 22)) == "the champions are from 2024-10-25"


def test_the_ui_answers_a_real_request(shop: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline", "ui", "--config", str(shop), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        page = _fetch(address, server)
        assert "MLflow" in page
        body = _fetch(f"{address}/ajax-api/2.0/mlflow/registered-models/search?max_results=10", server)
        models = {model["name"]: model["aliases"] for model in json.loads(body)["registered_models"]}
        assert "champion" in {told["alias"] for told in models["tea_shop.churn_28d"]}
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _fetch(address: str, server: subprocess.Popen[str]) -> str:
    for _ in range(120):
        assert server.poll() is None, server.stdout and server.stdout.read()
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer from {address}")


def test_tables_locked_by_another_run(shop: Path) -> None:
    script = f"""
from pathlib import Path
from pipeline.cli import _why_train, app
app(["score", "--config", {str(shop)!r}, "--as-of", "{NIGHT}"])
"""
    with exclusive(read_settings(shop).output, "night"):
        refused = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "another night is running on" in refused.stderr


def score_with(shop: Path, **changes: object) -> Result:
    """Score with a changed config in the place of the shop's own, which is then put back."""
    try:
        return run("score", "--config", shop_config(shop.parent, **changes), "--as-of", NIGHT)
    finally:
        shop_config(shop.parent)


def test_targets_changed_since_training_are_refused(shop: Path) -> None:
    told = [target.model_dump(mode="json") for target in read_settings(shop).targets]
    told[0]["horizon"] = "56d"
    refused = score_with(shop, targets=told)
    assert refused.exit_code == 2
    assert "targets.churn_28d (horizon: '28d' became '56d')" in refused.stderr
    assert "Run `beforehand train` again" in refused.stderr


def test_a_model_of_other_windows_is_refused(shop: Path) -> None:
    refused = score_with(shop, features={"windows": ["7d", "14d", "30d"]})
    assert refused.exit_code == 4
    assert "needs features that are not built tonight" in refused.stderr


def test_a_model_of_features_that_mean_something_else_now_is_refused(shop: Path) -> None:
    refused = score_with(shop, features={"lapsed_after": "30d"})
    assert refused.exit_code == 4
    assert "learned from features that the config has changed since" in refused.stderr
    assert "purchase_run_days ('lapsed_after: 56d', now 'lapsed_after: 30d')" in refused.stderr
