"""Measure what the README claims on the Complete Journey data, and write it there: quality, time, memory, and two figures.

    make bench          about four minutes on two cores

Trains and scores in a folder of its own, as whole processes. Quality is the mean over the last five fortnightly origins, each
predicted by a model that had not seen it, with intervals, beside a linear model of recency, frequency, T and monetary value: of
purchases, and of the event that the target asks about where that is another. There the first alone is measured too.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from rich.console import Console

from features.families.outcomes import RFM
from models.backtest import predict_origin
from models.intervals import Interval, paired
from pipeline.backtest import test
from pipeline.past import gather, settled_recipes
from pipeline.progress import Narrator
from pipeline.settings import read_settings
from pipeline.target_settings import PURCHASES

ROOT = Path(__file__).parent.parent
README, IMAGES = ROOT / "README.md", ROOT / "docs" / "images"
AS_OF = "2018-01-01"
START, END = "<!-- measured -->", "<!-- /measured -->"
FIGURES = ("reliability", "shap_beeswarm")


def main() -> None:
    """Measure, print, and put the result between the markers of the README."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = folder / "complete_journey.yaml"
        text = (ROOT / "configs" / "complete_journey.yaml").read_text()
        config.write_text(text.replace("output: output/complete_journey", f"output: {folder / 'out'}"))
        train, trained = _measured("train", config)
        score, _ = _measured("score", config)
        show, _ = _measured("show", config)
        _keep_figures(folder / "out" / "mlflow" / "mlflow.db")
        alone = _ahead_of_purchases(config)
    lines = _table(trained["targets"], [("train", train), ("score", score), ("show", show)], alone)
    print("\n".join(lines))
    before, _, rest = README.read_text().partition(START)
    README.write_text("\n".join([before + START, *lines, END]) + rest.partition(END)[2])


def _measured(command: str, config: Path) -> tuple[tuple[float, float], dict[str, Any]]:
    """Run a command as a process; give (seconds, peak resident GB) and what it printed."""
    words = [sys.executable, "-m", "pipeline", command]
    words += ["--config", str(config), "--as-of", AS_OF, "--json"]
    printed = config.parent / f"{command}.json"
    started = time.monotonic()
    with printed.open("w") as out:
        process = os.posix_spawn(sys.executable, words, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1)])
        _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{command} failed with status {os.waitstatus_to_exitcode(status)}")
    return (time.monotonic() - started, usage.ru_maxrss / 1024**2), json.loads(printed.read_text())


def _ahead_of_purchases(config: Path) -> dict[str, Interval]:
    """Test again those targets whose event is no purchase; give what each is ahead of RFM of purchases alone."""
    settings = read_settings(config)
    asked = tuple(target for target in settings.targets if target.events != PURCHASES)
    settings = settings.model_copy(update={"targets": asked, "segments": ()})
    narrator = Narrator(Console(stderr=True))
    past = gather(settings, date.fromisoformat(AS_OF), narrator)
    found = {}
    for made in test(past, settled_recipes(past, {}, narrator), {}, narrator):
        rows, recipe = past.rows(made.target, None, past.names), replace(made.recipe, rfm=RFM)
        plan = [origin for origin in past.plans[made.target.name] if origin.is_test]
        seed = settings.training.seed
        parts = [predict_origin(rows, recipe, origin, is_amount=False, seed=seed, only="rfm").rows for origin in plan]
        rule = pd.concat(parts)[["user_id", "cutoff", "rfm"]].rename(columns={"rfm": "rule"})
        tested = made.backtest.tested.merge(rule, on=["user_id", "cutoff"], validate="one_to_one")
        found[made.target.name] = paired(tested, "score", "rule", is_amount=False, measure="average_precision", seed=seed)
    return found


def _keep_figures(store: Path) -> None:
    IMAGES.mkdir(exist_ok=True)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    client = MlflowClient(f"sqlite:///{store}")
    experiment = client.get_experiment_by_name("complete_journey")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id], "tags.target = 'churn_28d'")[0]
    for name in FIGURES:
        shutil.copy(client.download_artifacts(run.info.run_id, f"figures/{name}.png"), IMAGES / f"churn_{name}.png")


def _table(targets: list[dict[str, Any]], timed: list[tuple[str, tuple[float, float]]], alone: dict[str, Interval]) -> list[str]:
    names = (
        "target",
        "AUC",
        "average precision",
        "ahead of RFM",
        "calibration error",
        "bands as stated",
        "mean absolute error",
        "by",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in targets:
        digits = 2 if row["is_amount"] else 3

        def beside(name: str, digits: int = digits, row: dict[str, Any] = row) -> str:
            if name not in row["measures"]:
                return "–"
            found, rule = row["measures"][name], row["baselines"][row["baseline"]][name]
            told = [found["value"], found["low"], found["high"], *row["over_origins"][name], rule["value"]]
            value, low, high, least, most, beaten = (f"{number:.{digits}f}" for number in told)
            return f"{value} ({low} to {high}; by origin {least} to {most}; RFM {beaten})"

        ahead, error = row["ahead"], row["pooled"].get("expected_calibration_error")
        cells = [f"`{row['target']}`", beside("auc"), beside("average_precision")]
        cells.append(f"{ahead['value']:+.{digits}f} ({ahead['low']:+.{digits}f} to {ahead['high']:+.{digits}f})")
        cells.append(
            "–" if error is None or row["is_amount"] else f"{error['value']:.3f} ({error['low']:.3f} to {error['high']:.3f})"
        )
        cells.append(
            "–" if row["bands_as_stated"] is None else f"{round(row['bands_as_stated'] * len(row['bands']))} of {len(row['bands'])}"
        )
        cells += [beside("mean_absolute_error"), row["method"]]
        lines.append(f"| {' | '.join(cells)} |")
    rows = {f"{row['rows']:,} rows at {len(row['test_origins'])} origins" for row in targets}
    told = "; ".join(f"`{name}` {ahead.value:+.3f} ({ahead.low:+.3f} to {ahead.high:+.3f})" for name, ahead in alone.items())
    took = "; ".join(f"`{name}` {seconds:.0f} s, {memory:.1f} GB" for name, (seconds, memory) in timed)
    total = sum(seconds for _, (seconds, _) in timed)
    day = time.strftime("%Y-%m-%d", time.gmtime())
    lines += [
        "",
        f"Means over the test origins ({', '.join(sorted(rows))}) with 95 % intervals from a bootstrap over users, and the lowest "
        "and the highest origin, since the next weeks may lie as far from the mean. RFM is a linear model of recency, frequency, "
        "T and monetary value on the same rows, of purchases and of the event asked about, and `ahead` the paired difference in "
        "average precision (of amounts: by how much the Poisson deviance is smaller). "
        "The calibration error is of all origins together.",
        f"Ahead of RFM of purchases alone, in average precision: {told}.",
        f"Time and peak memory on {os.cpu_count()} cores: {took}; {total:.0f} s in all. Measured on {day} by `make bench` "
        "(`benchmarks/complete_journey.py`).",
    ]
    return lines


if __name__ == "__main__":
    main()
