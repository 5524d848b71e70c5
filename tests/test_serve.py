"""A registered model is served by MLflow as it is: a real request is answered, and wrong columns are refused."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.bundle import TargetBundle
from models.calibration import Calibrator
from models.ladder import Recipe, fit_recipe
from models.season import Season
from pipeline.settings import read_settings
from pipeline.tracking import Tracker
from shops import shop_config

NAMES = ("purchase_recency_days", "purchase_frequency", "a")
_SECONDS_TO_START = 90


def people() -> tuple[pd.DataFrame, pd.Series]:
    random = np.random.default_rng(5)
    x = pd.DataFrame(random.normal(size=(400, 3)), columns=list(NAMES))
    return x, (x.a + random.normal(size=400) > 0).astype(float)


def made() -> TargetBundle:
    x, y = people()
    recipe = Recipe("blend", NAMES, rounds=20)
    model, season = fit_recipe(x, y, recipe, is_amount=False, seed=1), Season({"2024-01-01": 0.0, "2024-01-15": 1.0})
    return TargetBundle("churn_28d", {}, recipe, "2024-01-01", Calibrator("platt", 0.9, 0.1), model, season=season)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    tracker = Tracker(read_settings(shop_config(folder)))
    with tracker.run("test", tags={}):
        number = tracker.register("churn_28d", made(), {"score": "double"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = f"models:/{tracker.registered('churn_28d')}/{number}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", name, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # What serves finds its own commands (uvicorn) beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    log = (folder / "serve.log").open("w")
    process = subprocess.Popen(
        command,
        env={**os.environ, "MLFLOW_TRACKING_URI": tracker.uri, "PATH": path},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        _wait(port, process, folder / "serve.log")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)
        log.close()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def asked(url: str, frame: pd.DataFrame, **params: str) -> tuple[int, dict[str, object]]:
    body = json.dumps({"dataframe_split": json.loads(frame.to_json(orient="split", index=False)), "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_request_is_answered_as_the_bundle_itself_would(served: str) -> None:
    x = people()[0].head(5)
    x.loc[2, "a"] = np.nan
    status, told = asked(served, x.assign(more="of no interest"))
    assert status == 200
    scores = [row["score"] for row in told["predictions"]]  # type: ignore[index,union-attr]
    np.testing.assert_allclose(scores, made().predict(x).score, atol=1e-12)


def test_a_request_may_say_of_which_date_its_rows_are(served: str) -> None:
    x = people()[0].head(5)
    status, told = asked(served, x, as_of="2024-01-15")
    assert status == 200
    scores = [row["score"] for row in told["predictions"]]  # type: ignore[index,union-attr]
    np.testing.assert_allclose(scores, made().predict(x, {"as_of": "2024-01-15"}).score, atol=1e-12)
    assert (np.array(scores) > made().predict(x).score + 0.01).all()


def test_wrong_columns_are_refused_by_name(served: str) -> None:
    x = people()[0].head(2)
    status, told = asked(served, x.drop(columns="a"))
    assert status == 400 and "'a'" in str(told)
    status, told = asked(served, x.assign(a="text"))
    assert status == 400
