"""A small shop that a test can train on: a CSV of orders with real behaviour in it, and a config that reads it."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

START = pd.Timestamp("2024-01-01")
PURCHASES = "event_type = 'purchase'"


def write_orders(path: Path, *, users: int = 250, days: int = 300, seed: int = 1) -> pd.DataFrame:
    """Write a CSV of orders: each user has a pace, a basket and a day of leaving for good; most buy from `tea` now and then."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        gap, basket = random.gamma(3, 4), random.gamma(4, 8)
        leaves = random.exponential(days * 1.5)
        day = random.uniform(0, 60)
        while day < min(leaves, days):
            at = START + pd.Timedelta(days=int(day), hours=int(random.choice([9, 14, 19])), minutes=int(random.integers(60)))
            category = "tea" if random.random() < 0.25 else "coffee"
            rows.append((f"u{user}", at.isoformat(sep=" "), f"o{len(rows)}", round(basket * random.lognormal(0, 0.3), 2), category))
            day += random.exponential(gap) + 0.5
    orders = pd.DataFrame(rows, columns=["customer", "ordered_at", "order_no", "total", "department"])
    orders.to_csv(path, index=False)
    return orders


def shop_config(folder: Path, **changes: object) -> Path:
    """Write a config over `orders.csv` in `folder`; `changes` replace its top-level keys."""
    eligible = {"active_within": "56d"}
    config: dict[str, object] = {
        "name": "tea_shop",
        "output": str(folder / "out"),
        "currency": "€",
        "sources": [
            {
                "name": "orders",
                "tables": {"o": str(folder / "orders.csv")},
                "sql": "select customer as user_id, ordered_at as event_ts, 'purchase' as event_type, order_no as order_id, "
                "total as amount, department as category from o",
            }
        ],
        "targets": [
            {"name": "churn_28d", "kind": "absence", "horizon": "28d", "eligible": eligible, "meaning": "stops buying"},
            {
                "name": "tea_28d",
                "kind": "first",
                "horizon": "28d",
                "lookback": "56d",
                "events": f"{PURCHASES} and category = 'tea'",
                "eligible": eligible,
            },
            {"name": "value_28d", "kind": "value", "horizon": "28d", "eligible": eligible},
        ],
        "training": {"test_origins": 2, "calibration_origins": 2, "max_cutoffs": 8},
        "segments": [
            {"name": "leaving", "purpose": "keep them", "enter": "churn_28d_score >= 0.3"},
            {"name": "tea_next", "purpose": "offer tea", "enter": "tea_28d_percentile >= 80"},
        ],
    }
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump({**config, **changes}, sort_keys=False))
    return path
