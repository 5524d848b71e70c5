"""A whole night on Spark: the rows of DuckDB's night, written by executors and committed by the driver."""

import datetime as dt
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.settings import read_settings
from pipeline.tables import ORDER, STAGED, memberships, nights, read
from pipeline.tracking import Tracker
from shops import shop_config, write_orders

DAY, BEFORE = dt.date(2024, 10, 1), dt.date(2024, 9, 24)
CLUSTER = {
    "kind": "spark",
    "master": "local-cluster[2,1,1024]",
    "memory": "1GB",
    "options": {"spark.sql.shuffle.partitions": 2, "spark.default.parallelism": 2},
}
KEYS = {
    "quarantine": ["source", "reason", "row"],
    "features": ["user_id"],
    "scores": ["target", "user_id"],
    "shadow": ["target", "user_id"],
    "memberships": ["user_id", "segment", "entered_on"],
    "segments": ["user_id"],
}

PLAY = {"channel": "mail", "offer": "win_back", "cap": {"contacts": 2, "per": "14d"}, "holdout": 0.2}
# Segments with a memory, tiers and plays: what a night does with the one before it.
LIVING = {
    "loyalty_tiers": [{"name": "gold", "when": "purchase_count_168d >= 8"}, {"name": "silver", "when": "purchase_count_168d >= 4"}],
    "plays": {"salt": "tea", "channels": [{"name": "mail", "consent": "known_days >= 60", "serves": ["web"]}]},
    "segments": [
        {
            "name": "leaving",
            "purpose": "keep them",
            "enter": "churn_28d_score >= 0.3 and loyalty_tier in ('gold', 'silver')",
            "leave": "churn_28d_score < 0.2",
            "min_stay": "5d",
            "play": PLAY,
        },
        {"name": "tea_next", "purpose": "offer tea", "enter": "tea_28d_percentile >= 80"},
        {"name": "gone", "purpose": "win back", "enter": "purchase_recency_days > 40"},
    ],
}

pytestmark = pytest.mark.spark


def run(*told: object) -> Any:
    done = CliRunner().invoke(app, [str(part) for part in told])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two outputs of one shop with the same champions and the same first night: the second on DuckDB, and on Spark.

    A few rows are broken.
    """
    folder = tmp_path_factory.mktemp("shop")
    orders = write_orders(folder / "orders.csv")
    broken = "\n".join(["u1,not a time,x1,3.0,tea", ",2024-02-01 10:00:00,x2,3.0,tea"])
    (folder / "orders.csv").write_text((folder / "orders.csv").read_text() + broken + "\n")
    assert len(orders) > 1_000
    config = shop_config(folder, shadow=True, **LIVING)
    run("train", "--config", config, "--as-of", DAY)
    run("train", "--config", config, "--as-of", DAY)
    # The models that were replaced are scored in shadow.
    client = Tracker(read_settings(config)).open()
    for name in ("churn_28d", "value_28d"):
        client.set_registered_model_alias(f"tea_shop.{name}", "challenger", "1")
    run("score", "--config", config, "--as-of", BEFORE)
    shutil.copytree(folder / "out", folder / "spark")
    told = yaml.safe_load(config.read_text()) | {"output": str(folder / "spark"), "engine": CLUSTER}
    on_spark = folder / "on_spark.yaml"
    on_spark.write_text(yaml.safe_dump(told, sort_keys=False))
    run("score", "--config", config, "--as-of", DAY)
    run("score", "--config", on_spark, "--as-of", DAY)
    return folder / "out", folder / "spark"


def rows(root: Path, name: str) -> list[dict[str, Any]]:
    found = memberships(root) if name == "memberships" else read(root, name, DAY)
    return sorted(found.to_pylist(), key=lambda row: [str(row[key]) for key in KEYS[name]])


def differing(one: Any, other: Any) -> bool:
    """Whether two values are apart, floats by more than 1e-9 of their size, at any depth."""
    if isinstance(one, float) and isinstance(other, float):
        return one != pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return any(differing(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return any(differing(one[key], other[key]) for key in one)
    return bool(one != other)


@pytest.mark.parametrize("name", ORDER)
def test_every_table_has_the_rows_of_duckdb(name: str, shops: tuple[Path, Path]) -> None:
    ours, theirs = (rows(root, name) for root in shops)
    assert len(ours) == len(theirs) > 0
    apart = {column for one, other in zip(ours, theirs, strict=True) for column in one if differing(one[column], other[column])}
    assert apart == set()


def test_memberships_go_on_from_the_night_before(shops: tuple[Path, Path]) -> None:
    stays = rows(shops[1], "memberships")
    assert {stay["entered_on"] for stay in stays} == {BEFORE, DAY}
    assert {stay["left_on"] for stay in stays} == {None, DAY}
    told = rows(shops[1], "segments")
    assert {row["holdout"] for row in told} == {None, True, False}
    assert {row["loyalty_tier"] for row in told} == {"gold", "silver", None}


def test_the_night_is_the_same_night(shops: tuple[Path, Path]) -> None:
    ours, theirs = (nights(root)[-1] for root in shops)
    assert ours["run_id"] == theirs["run_id"]
    assert (ours["counts"], ours["checks"]) == (theirs["counts"], theirs["checks"])


def test_a_rerun_replaces_the_night(shops: tuple[Path, Path]) -> None:
    root = shops[1]
    before = {name: (rows(root, name), DeltaTable(root / name).version()) for name in ORDER}
    run("score", "--config", root.parent / "on_spark.yaml", "--as-of", DAY)
    for name, (held, version) in before.items():
        assert not differing(held, rows(root, name))
        table = DeltaTable(root / name)
        assert table.version() == version + 1
        assert table.metadata().partition_columns == ["left_on" if name == "memberships" else "as_of"]
        night = None if name == "memberships" else [("as_of", "=", DAY)]
        assert len(table.to_pyarrow_table(filters=night)) == len(held)
    assert not (root / STAGED).exists()


def test_an_earlier_night_run_again_leaves_the_later_one_as_it_was(shops: tuple[Path, Path]) -> None:
    root = shops[1]
    before = {name: rows(root, name) for name in ("memberships", "segments")}
    run("score", "--config", root.parent / "on_spark.yaml", "--as-of", BEFORE)
    assert json.loads(nights(root)[-1]["checks"])["formed_anew"] == [DAY.isoformat()]
    assert not differing(before, {name: rows(root, name) for name in before})


def test_a_master_that_is_not_there_ends_the_night_before_any_work(shops: tuple[Path, Path]) -> None:
    folder, held = shops[1].parent, len(nights(shops[1]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = yaml.safe_load((folder / "on_spark.yaml").read_text())
    told["engine"] = {"kind": "spark", "master": f"spark://127.0.0.1:{port}"}
    (folder / "nowhere.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    done = CliRunner().invoke(app, ["score", "--config", str(folder / "nowhere.yaml"), "--as-of", str(DAY)])
    assert done.exit_code == 2
    assert "engine.master" in done.output
    assert len(nights(shops[1])) == held
