"""What validate tells of targets, before anything is learned: counted again from the orders by plain pandas."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli import app
from shops import PURCHASES, shop_config, write_orders

NIGHT = pd.Timestamp("2024-10-20")
HORIZON, ACTIVE, STEP = (pd.Timedelta(days=days) for days in (28, 56, 14))
ELIGIBLE = {"active_within": "56d"}


def run(folder: Path, *words: str, **changes: object) -> Result:
    path = shop_config(folder, **{"segments": [], **changes})
    return CliRunner().invoke(app, ["validate", "--config", str(path), "--as-of", f"{NIGHT:%Y-%m-%d}", *words])


def validated(folder: Path, **changes: object) -> dict[str, Any]:
    done = run(folder, "--json", **changes)
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("shop")
    write_orders(found / "orders.csv", users=120)
    return found


def test_targets_are_counted(folder: Path) -> None:
    orders = pd.read_csv(folder / "orders.csv", parse_dates=["ordered_at"])

    def within(start: pd.Timestamp, stop: pd.Timestamp) -> pd.DataFrame:
        return orders[(orders.ordered_at >= start) & (orders.ordered_at < stop)]

    cutoffs = [NIGHT - HORIZON - STEP * at for at in range(8)]
    asked = [set(within(cutoff - ACTIVE, cutoff).customer) for cutoff in cutoffs]
    after = [within(cutoff, cutoff + HORIZON) for cutoff in cutoffs]
    stayed = [users & set(orders.customer) for users, orders in zip(asked, after, strict=True)]
    spent = sum(orders.total[orders.customer.isin(users)].sum() for users, orders in zip(asked, after, strict=True))
    labels, remained = (sum(len(users) for users in sets) for sets in (asked, stayed))
    dates = {"cutoffs": 8, "first_cutoff": str(cutoffs[-1].date()), "last_cutoff": str(cutoffs[0].date()), "tests": 2}
    everybody = {"asked_tonight": within(NIGHT - ACTIVE, NIGHT).customer.nunique(), **dates, "labels": labels}
    gone = labels - remained

    told = validated(folder)["targets"]
    assert told["churn_28d"] == {
        **everybody,
        "is_amount": False,
        "above_zero": gone,
        "mean": pytest.approx(gone / labels, abs=1e-6),
    }
    assert told["value_28d"] == {
        **everybody,
        "is_amount": True,
        "above_zero": remained,
        "mean": pytest.approx(spent / labels, abs=1e-6),
    }
    assert 0 < told["tea_28d"]["labels"] < labels

    shown = next(line.split() for line in run(folder).stdout.splitlines() if line.strip().startswith("value_28d"))
    counts = [f"{everybody['asked_tonight']}", "8", dates["first_cutoff"], dates["last_cutoff"], "2", f"{labels}", f"{remained}"]
    assert shown == ["value_28d", *counts, f"{spent / labels:.2f}"]


def test_targets_that_cannot_be_learned_are_told_before_a_training(folder: Path) -> None:
    targets = [
        {"name": "always", "kind": "occurrence", "horizon": "28d", "events": PURCHASES, "min_count": 1000, "eligible": ELIGIBLE},
        {"name": "unmet", "kind": "absence", "horizon": "28d", "events": "event_type = 'moon'", "eligible": ELIGIBLE},
        {
            "name": "nobody",
            "kind": "absence",
            "horizon": "28d",
            "events": PURCHASES,
            "eligible": {"active_within": "1d", "events": "amount > 1e9"},
        },
    ]
    told = validated(folder, targets=targets)
    rows = told["targets"]["always"]["labels"]
    assert told["warnings"][:3] == [
        f"targets.0: the label is 0 in all {rows:,} rows; there is nothing to tell apart, and everybody gets the same score. "
        "A longer horizon may help",
        "targets.1.events: no event so far meets event_type = 'moon'; the event types are purchase",
        "targets.2.eligible.events: no event so far meets amount > 1e9; the event types are purchase",
    ]
    assert told["targets"]["nobody"] | {"is_amount": None} == {
        "is_amount": None,
        "asked_tonight": 0,
        "cutoffs": 0,
        "first_cutoff": None,
        "last_cutoff": None,
        "tests": 0,
        "labels": 0,
        "above_zero": 0,
        "mean": None,
    }
    assert "nobody" in run(folder, targets=targets).stdout


def test_an_answer_too_rare_to_learn_from_is_told(folder: Path) -> None:
    large = pd.read_csv(folder / "orders.csv").total.nlargest(20).min()
    events = f"{PURCHASES} and amount > {large}"
    told = validated(
        folder, targets=[{"name": "rare", "kind": "occurrence", "horizon": "28d", "events": events, "eligible": ELIGIBLE}]
    )
    some, labels = (told["targets"]["rare"][count] for count in ("above_zero", "labels"))
    assert 0 < some < 100
    assert told["warnings"][0].startswith(f"targets.0: only {some} of {labels:,} labels are above 0, and a user has one at every")


def test_nobody_asked_by_events_that_there_are(folder: Path) -> None:
    targets = [{"name": "nobody", "kind": "absence", "horizon": "28d", "eligible": {**ELIGIBLE, "until": PURCHASES}}]
    told = validated(folder, targets=targets)
    assert told["warnings"][0].startswith("targets.0: nobody is eligible; widen eligible.active_within")
    assert "eligible.until" in told["warnings"][0]


def test_a_history_too_short_has_no_targets(folder: Path) -> None:
    told = validated(folder, training={"min_history": "250d"})
    assert told["targets"] == {}
    assert any("training needs" in warning for warning in told["warnings"])
    assert "Targets:" not in run(folder, training={"min_history": "250d"}).stdout


def test_one_horizon_too_long_for_the_history_hides_no_other_target(folder: Path) -> None:
    targets = [
        {"name": name, "kind": "absence", "horizon": horizon, "eligible": ELIGIBLE}
        for name, horizon in (("gone_180d", "180d"), ("gone_28d", "28d"))
    ]
    told = validated(folder, targets=targets)
    alone = validated(folder, targets=targets[1:])
    assert told["targets"] == alone["targets"]
    assert told["targets"]["gone_28d"]["labels"] > 0
    assert any("two of the longest horizon (180d, of gone_180d)" in warning for warning in told["warnings"])


def test_a_best_hour_that_is_known_of_nobody_is_told(folder: Path) -> None:
    play = {"channel": "mail", "offer": "none"}
    segments = [
        {"name": "late", "purpose": "write in the evening", "enter": "purchase_recency_days >= 1", "play": {**play, "moment": 20}},
        {"name": "any", "purpose": "write when they are there", "enter": "purchase_recency_days >= 0", "play": play},
    ]
    orders = {"name": "orders", "tables": {"o": str(folder / "orders.csv")}}
    sql = "select customer as user_id, {} as event_ts, 'purchase' as event_type, total as amount, department as category from o"
    plays = {"channels": [{"name": "mail", "consent": "true"}]}

    def moments(when: str) -> list[str]:
        told = validated(folder, sources=[{**orders, "sql": sql.format(when)}], segments=segments, plays=plays)
        return [warning for warning in told["warnings"] if "moment" in warning]

    assert moments("ordered_at") == []
    assert moments("cast(ordered_at as date)") == [
        "segments.1.play.moment: nobody's best_hour is known: no event of late has an hour; give one from 0 to 23"
    ]


def test_a_file_that_is_loaded_twice_is_told(folder: Path) -> None:
    orders = {"name": "orders", "tables": {"o": str(folder / "orders.csv")}}
    sql = "select customer as user_id, ordered_at as event_ts, 'purchase' as event_type, department as category from o"

    def copies(sql: str, most_rows: int = 500_000) -> list[str]:
        target = {"name": "churn_28d", "kind": "absence", "horizon": "28d", "eligible": ELIGIBLE}
        told = validated(folder, sources=[{**orders, "sql": sql}], targets=[target], training={"most_rows": most_rows})
        return [warning for warning in told["warnings"] if "exact copies" in warning]

    events = validated(folder)["events"]
    assert copies(sql) == []
    (said,) = copies(f"{sql} union all {sql}")
    assert said.startswith(f"{events:,} of {2 * events:,} events are exact copies of others: is a file loaded twice?")
    (said,) = copies(f"{sql} union all {sql}", most_rows=1_000)
    assert re.match(r"([\d,]+) of [\d,]+ events of a sample of [\d,]+ users are exact copies of others", said)
