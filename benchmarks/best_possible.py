"""Measure how far the models are from the best possible: `python benchmarks/best_possible.py`.

A shop whose customers buy and leave as the BG/NBD model says (Fader, Hardie and Lee, 2005): each has a rate of buying of its own
(gamma) and a chance of its own to leave after a purchase (beta). Who knows the model and its parameters can compute the
probability of buying from a history alone, and nobody can know more. Here that one is held against a training that knows neither.
"""

import sys
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from rich.console import Console

from models.intervals import Interval, intervals, paired
from models.propensity import Floats
from pipeline.backtest import Tested, run_backtest
from pipeline.progress import Narrator
from pipeline.settings import read_settings
from pipeline.tracking import Tracker

OUTPUT = Path(__file__).parent.parent / "output" / "benchmarks" / "best_possible"
CUSTOMERS, DAYS, JOINING_DAYS, SEED = 12_000, 500, 200, 5
START, NIGHT = datetime(2023, 1, 1), date(2024, 5, 10)
# Purchases a day are gamma(SHAPE) / SCALE, the chance to leave after each is beta(LEAVE, STAY).
SHAPE, SCALE, LEAVE, STAY = 0.6, 30.0, 0.8, 2.5
MEASURES = ("auc", "average_precision", "log_loss")
TARGETS = [
    {"name": "churn_84d", "kind": "absence", "horizon": "84d", "eligible": {"active_within": "168d"}},
    {"name": "order_28d", "kind": "occurrence", "horizon": "28d", "eligible": {"active_within": "168d"}},
]


def simulated() -> pd.DataFrame:
    """Give a row per order: `customer`, `day` (since the start) and `amount`."""
    random = np.random.default_rng(SEED)
    rate, leaving = random.gamma(SHAPE, 1 / SCALE, CUSTOMERS), random.beta(LEAVE, STAY, CUSTOMERS)
    joined, basket = random.uniform(0, JOINING_DAYS, CUSTOMERS), random.gamma(3, 12, CUSTOMERS)
    orders = []
    for customer in range(CUSTOMERS):
        day = joined[customer]
        while day < DAYS:
            orders.append((f"c{customer}", day, round(basket[customer] * random.gamma(4, 0.25), 2)))
            if random.random() < leaving[customer]:
                break
            day += random.exponential(1 / rate[customer])
    return pd.DataFrame(orders, columns=["customer", "day", "amount"])


def best_possible(orders: pd.DataFrame, cutoff: datetime, horizon_days: float) -> pd.Series:
    """Give the probability that each customer known at the cutoff buys nothing within the horizon, by the model itself."""
    now = (cutoff - START).total_seconds() / 86_400
    known = orders[orders.day < now].groupby("customer").day.agg(["min", "max", "count"])
    age, last, repeats = now - known["min"], known["max"] - known["min"], known["count"] - 1
    gone = LEAVE / (STAY + repeats) * ((SCALE + age) / (SCALE + last)) ** (SHAPE + repeats)
    alive = 1 / (1 + gone)
    return 1 - alive + alive * ((SCALE + age) / (SCALE + age + horizon_days)) ** (SHAPE + repeats)


def beside(made: Tested, orders: pd.DataFrame) -> pd.DataFrame:
    """Add to the tested rows of a target what the model of the shop says of them: the column `best`."""
    days = made.target.horizon.total_seconds() / 86_400
    parts = []
    for cutoff, rows in made.backtest.tested.groupby("cutoff"):
        nothing: Floats = rows.user_id.map(best_possible(orders, cutoff.to_pydatetime(), days)).to_numpy(dtype=np.float64)
        parts.append(rows.assign(best=nothing if made.target.kind == "absence" else 1 - nothing))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Simulate, test, compare, and print a table."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    orders = simulated()
    ordered_at = pd.Timestamp(START) + pd.to_timedelta(orders.day, unit="D")
    orders.assign(ordered_at=ordered_at)[["customer", "ordered_at", "amount"]].to_csv(OUTPUT / "orders.csv", index=False)
    sql = "select customer as user_id, ordered_at as event_ts, 'purchase' as event_type, amount from o"
    source = {"name": "orders", "tables": {"o": str(OUTPUT / "orders.csv")}, "sql": sql}
    config = {"name": "best_possible", "output": str(OUTPUT / "tables"), "sources": [source], "targets": TARGETS}
    path = OUTPUT / "shop.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    settings, console = read_settings(path), Console(file=sys.stdout, width=150)
    seed = settings.training.seed
    for made in run_backtest(settings, NIGHT, Tracker(settings), Narrator(Console(stderr=True))):
        rows = beside(made, orders)
        best, rule = (intervals(rows, column, is_amount=False, seed=seed, only=MEASURES).mean for column in ("best", "rfm"))
        counts = f"{len(rows):,} rows at {rows.cutoff.nunique()} origins, {int(rows.label.sum()):,} positive"
        console.print(f"\n{made.target.name}, by {made.backtest.rung}: {counts}")
        for measure in MEASURES:
            behind = paired(rows, "score", "best", is_amount=False, measure=measure, seed=seed)
            console.print(
                f"  {measure:<18} {told(made.report.measures[measure])}, RFM {rule[measure].value:.4f}, "
                f"best possible {best[measure].value:.4f}, difference {told(behind)}",
                highlight=False,
            )


def told(found: Interval) -> str:
    """Write a value with its interval."""
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"


if __name__ == "__main__":
    main()
