"""Measure the models on made-up tables: `python benchmarks/target_models.py`; writes below output/benchmarks.

Every figure is taken in a process of its own, so that its peak memory is its own; what is compared runs in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from ibis import _

from features.catalogue import Feature
from models.bundle import TargetBundle
from models.calibration import Calibrator
from models.ladder import STRONG, Blend, Recipe, Trees, fit_recipe
from models.linear import Linear, fit_linear
from models.propensity import ROUNDS, fit_booster
from models.reasons import contributions, strongest
from models.rounds import ENOUGH_FEATURES, settled_on
from pipeline.phrases import reasons_column

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "output" / "benchmarks"
WIDTH, GROUPS = 150, 30
THREADS = 2
FITTED, EXPLAINED, TREES = 100_000, 200_000, 300
NIGHT, TARGETS, BATCH = 1_000_000, 5, 25_000


def made_up(rows: int, *, seed: int) -> pd.DataFrame:
    """Make up features as they are: counts, amounts with long tails, shares, and every seventh value null."""
    random = np.random.default_rng(seed)
    columns = {}
    for at in range(WIDTH):
        match at % 3:
            case 0:
                values = random.poisson(3, rows).astype(np.float64)
            case 1:
                values = random.lognormal(3, 1.5, rows)
            case _:
                values = random.random(rows)
        values[random.random(rows) < 1 / 7] = np.nan
        columns[f"feature_{at:03d}"] = values
    return pd.DataFrame(columns)


def labelled(x: pd.DataFrame, *, seed: int) -> pd.Series:
    """Make up what happened: by log-odds that rise and fall with every feature's rank, and by chance."""
    random = np.random.default_rng(seed)
    odds = np.zeros(len(x))
    for name, weight in zip(x.columns, random.normal(0, 1, WIDTH), strict=True):
        odds += weight * np.nan_to_num(np.log1p(x[name].to_numpy()) - 1)
    return pd.Series((random.random(len(x)) < 1 / (1 + np.exp(1 - odds / odds.std()))).astype(np.float64))


def explained() -> lightgbm.Booster:
    """Give the booster whose scores are explained, of all features: 300 trees of the pipeline's size. It is fitted once."""
    path = OUTPUT / f"explained_{TREES}.txt"
    if not path.exists():
        x = made_up(FITTED, seed=1)
        fit_booster(x, labelled(x, seed=1), is_amount=False, seed=1, rounds=TREES).save_model(path)
    return lightgbm.Booster(model_file=str(path))


def trees_of(number: int) -> Trees:
    """Give the trees of one target, which read as many features as training leaves them. They are fitted once."""
    path = OUTPUT / f"target_{number}_of_{ENOUGH_FEATURES}.txt"
    if not path.exists():
        x = made_up(FITTED, seed=1)
        rows = x.assign(label=labelled(x, seed=10 + number), cutoff=pd.Timestamp("2024-01-01"))
        every_other = rows.index % 2 == 0
        recipe = settled_on(rows[every_other], rows[~every_other], Recipe("lightgbm", tuple(x)), seed=1)
        # The usual number of rounds: many more would hide what is done beside the trees.
        trees = fit_recipe(rows, rows.label, replace(recipe, rounds=ROUNDS), is_amount=False, seed=1)
        assert isinstance(trees, Trees)
        trees.booster.save_model(path)
    return Trees(lightgbm.Booster(model_file=str(path)))


def linear_of(number: int, features: Sequence[str]) -> Linear:
    """Fit the linear model of one target, which reads what its trees read."""
    x = made_up(30_000, seed=number)
    return fit_linear(x[list(features)], labelled(x, seed=10 + number), is_amount=False, strength=STRONG, seed=1)


def ours() -> dict[str, Any]:
    """Explain with our Shapley values, from the booster's text to the matrix; say how far they are from LightGBM's."""
    x, booster = made_up(EXPLAINED, seed=2), explained()
    before, started = now(), time.monotonic()
    values = contributions(booster, x, threads=THREADS)
    found = {"seconds": time.monotonic() - started, "gigabytes_more": round(memory("VmHWM") - before, 3)}
    theirs_kept = np.load(OUTPUT / "pred_contrib.npy", mmap_mode="r")
    return {**found, "difference": float(np.abs(values - theirs_kept[:, :-1]).max())}


def theirs() -> dict[str, Any]:
    """Explain with LightGBM's `pred_contrib`, and keep what it says."""
    x, booster = made_up(EXPLAINED, seed=2), explained()
    before, started = now(), time.monotonic()
    values = booster.predict(x, pred_contrib=True, num_threads=THREADS)
    found = {"seconds": time.monotonic() - started, "gigabytes_more": round(memory("VmHWM") - before, 3)}
    np.save(OUTPUT / "pred_contrib.npy", np.asarray(values))
    return found


def fitted(rows: int) -> dict[str, Any]:
    """Fit one target's booster as the pipeline does, and on both cores."""
    x = made_up(rows, seed=3)
    y = labelled(x, seed=3)
    before, started = now(), time.monotonic()
    fit_booster(x, y, is_amount=False, seed=1)
    one = time.monotonic() - started
    found = {"seconds": one, "table_gigabytes": before, "gigabytes_more": round(memory("VmHWM") - before, 3)}
    started = time.monotonic()
    fit_booster(x, y, is_amount=False, seed=1, threads=THREADS)
    return {**found, "seconds_both_cores": time.monotonic() - started}


def bundles(*, are_blends: bool = False) -> list[TargetBundle]:
    """Give the models of five targets, calibrated: trees alone, or with a linear model that reads the same features."""
    found = []
    for number in range(TARGETS):
        trees = trees_of(number)
        model = Blend(trees, linear_of(number, trees.features)) if are_blends else trees
        groups = {name: f"group {at % GROUPS}" for at, name in enumerate(trees.features)}
        recipe, calibrator = Recipe("lightgbm", trees.features), Calibrator("platt", 0.9, -0.1)
        typical = dict.fromkeys(trees.features, 2.0)
        found.append(TargetBundle(f"target_{number}", {}, recipe, "2024-01-01", calibrator, model, groups, typical))
    return found


def scored(*, are_blends: bool = False) -> dict[str, Any]:
    """Score everybody on every target through the bundles."""
    x, models = made_up(NIGHT, seed=4), bundles(are_blends=are_blends)
    started = time.monotonic()
    for bundle in models:
        bundle.predict(x)
    return {"seconds": time.monotonic() - started}


def bare() -> dict[str, Any]:
    """Call nothing but `Booster.predict`, once per target."""
    x, models = made_up(NIGHT, seed=4), [trees_of(number) for number in range(TARGETS)]
    tables = [x[list(trees.features)] for trees in models]
    started = time.monotonic()
    for trees, table in zip(models, tables, strict=True):
        trees.booster.predict(table)
    return {"seconds": time.monotonic() - started}


def told() -> dict[str, Any]:
    """Give everybody three reasons in words for every target, in batches as at night."""
    x, models = made_up(NIGHT, seed=4), bundles()
    units = ("purchase", "money", "share")
    by_name = {name: _feature(name, units[at % 3], x.columns[(at + 3) % WIDTH]) for at, name in enumerate(x.columns)}
    steps = dict.fromkeys(("contributions", "strongest", "phrases"), 0.0)
    before, started = now(), time.monotonic()
    for start in range(0, NIGHT, BATCH):
        part = x.iloc[start : start + BATCH]
        for bundle in models:
            names, at = list(bundle.features), [time.monotonic()]
            values = bundle.contributions(part)
            at.append(time.monotonic())
            found = strongest(values, [bundle.groups[name] for name in names])
            at.append(time.monotonic())
            reasons_column(part, found, names, by_name, currency="$", typical=bundle.typical)
            at.append(time.monotonic())
            steps = {name: spent + at[place + 1] - at[place] for place, (name, spent) in enumerate(steps.items())}
    return {"seconds": time.monotonic() - started, "gigabytes_more": round(memory("VmHWM") - before, 3), **steps}


def _feature(name: str, unit: str, usual: str) -> Feature:
    """Declare a feature; every other one is compared with another of its unit."""
    compared = usual if int(name[-1]) % 2 else None
    words = {"meaning": name, "phrase": "{value} in 84 days", "group": name}
    return Feature(name=name, base="row", expr=_.x, unit=unit, usual=compared, **words)


def memory(line: str) -> float:
    """Read a figure of this process's memory from Linux, in GB: `VmRSS` is what it has now, `VmHWM` the most it had."""
    told = Path("/proc/self/status").read_text().split(f"{line}:")[1]
    return float(told.split()[0]) / 1e6


def now() -> float:
    """Give the memory in use, and begin anew to watch for the most."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


TASKS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "ours": ours,
    "theirs": theirs,
    "fit_300k": lambda: fitted(300_000),
    "fit_3m": lambda: fitted(3_000_000),
    "scored": scored,
    "blended": lambda: scored(are_blends=True),
    "bare": bare,
    "told": told,
}


def measured(task: str) -> dict[str, Any]:
    """Run one task in a process of its own, on as many cores as everything else."""
    bound = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    ran = subprocess.run([sys.executable, __file__, "--task", task], capture_output=True, text=True, env=bound)
    if ran.returncode:
        raise SystemExit(f"{task} failed:\n{ran.stderr}")
    found = json.loads(ran.stdout.splitlines()[-1])
    print(f"{task:<10} {found['seconds']:8.1f} s  {json.dumps(found)}", flush=True)
    return found


def in_turns(tasks: Sequence[str], rounds: int) -> tuple[float, dict[str, list[dict[str, Any]]]]:
    """Run two tasks in turns: the median of the first's time over the second's, and all that was found."""
    found: dict[str, list[dict[str, Any]]] = {task: [] for task in tasks}
    for _round in range(rounds):
        for task in tasks:
            found[task].append(measured(task))
    one, other = (found[task] for task in tasks)
    return statistics.median(a["seconds"] / b["seconds"] for a, b in zip(one, other, strict=True)), found


def main() -> None:
    """Measure everything, and print a table for the documentation."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--task", choices=TASKS)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--only", nargs="*", default=["reasons", "score", "told", "fit"])
    given = asked.parse_args()
    if given.task:
        print(json.dumps({**TASKS[given.task](), "gigabytes": round(memory("VmHWM"), 3)}))
        return
    OUTPUT.mkdir(parents=True, exist_ok=True)
    rows = []
    if "reasons" in given.only:
        ratio, found = in_turns(("theirs", "ours"), given.rounds)
        slow, fast = (statistics.median(one["seconds"] for one in found[task]) for task in ("theirs", "ours"))
        more = max(one["gigabytes_more"] for one in found["ours"])
        what = f"Shapley values of {EXPLAINED:,} rows × {WIDTH} features × {TREES} trees against `pred_contrib`"
        rows.append((what, f"{ratio:.0f} times faster ({fast:.1f} s, {slow:.1f} s)", "≥ 8 times"))
        rows.append(("their largest difference", f"{max(one['difference'] for one in found['ours']):.0e}", "≤ 1e-4"))
        rows.append(("their memory, of which the matrix is 0.24 GB", f"{more:.2f} GB", "–"))
    if "score" in given.only:
        ratio, found = in_turns(("scored", "bare"), given.rounds)
        one, other = (statistics.median(one["seconds"] for one in found[task]) for task in ("scored", "bare"))
        what = f"scoring {NIGHT:,} users × {TARGETS} targets against bare `Booster.predict`"
        rows.append((what, f"{ratio:.2f} × ({one:.1f} s, {other:.1f} s)", "≤ 1.3 ×"))
        ratio, found = in_turns(("blended", "bare"), given.rounds)
        rows.append(("the same by blends, against the predictions of their trees", f"{ratio:.2f} ×", "≤ 1.3 ×"))
    if "told" in given.only:
        one = measured("told")
        steps = ", ".join(f"{name} {one[name]:.0f} s" for name in ("contributions", "strongest", "phrases"))
        rows.append((f"three reasons in words, {NIGHT:,} users × {TARGETS} targets", f"{one['seconds']:.0f} s ({steps})", "–"))
    for task, size in (("fit_300k", "300,000"), ("fit_3m", "3,000,000")) if "fit" in given.only else ():
        one = measured(task)
        what = f"one LightGBM model of {size} rows × {WIDTH} features"
        spent = f"{one['seconds']:.0f} s on one core, {one['seconds_both_cores']:.0f} s on two"
        rows.append((what, f"{spent}; {one['gigabytes_more']:.1f} GB beside the table", "–"))
    print("\n| what | measured | reach |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
