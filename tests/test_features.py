"""Features: true at the cutoff, whatever comes after it, and equal to a slow plain reference."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ibis.backends.sql import SQLBackend
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal

from builders import DAY, HOUR, TICK, WINDOWS, at, close_engine, events, feature_table, load, load_events, open_engine
from features.build import build_features, steps
from features.catalogue import NAME
from features.contract import COLUMNS
from features.custom import Custom
from features.declare import Wanted, declared
from features.event_types import KNOWN
from features.snapshot import KEYS
from reference import reference

CUTOFF = at("2024-03-01")
COUPON, CAMPAIGN = "coupon_redeemed", "campaign_received"

# The slow reference, on a log that has everything

ZONE = "America/New_York"
LONG = tuple(days * DAY for days in (7, 14, 28, 56, 84, 168))
# Both lie some days after clocks changed in New York, the second after a leap day.
CUTOFFS = (at("2023-11-20"), at("2024-03-18"))
EVERYTHING = Wanted(LONG, values={"channel": ["web"], "device": ["phone"], "source": ["mail"]})


def random_log() -> pd.DataFrame:
    """Make some hundred occasions of one to four events around the cutoffs, edges of windows included, nulls everywhere."""
    draw = np.random.default_rng(7)

    def pick(*values: object) -> object:
        return values[draw.integers(len(values))]

    def few(*values: object) -> object:
        return pick(None, *values)

    lookbacks = [0 * DAY, HOUR, 24 * HOUR, *LONG, 364 * DAY, 392 * DAY]
    edges = [cutoff - back + tick for cutoff in CUTOFFS for back in lookbacks for tick in (-TICK, 0 * TICK, TICK)]
    others = [CUTOFFS[1] + 10 * DAY - int(draw.integers(4, 24 * 4 * 450)) * HOUR / 4 for _ in range(330)]
    # Not everybody is equally busy, so that every stage, share and streak occurs.
    users = [f"u{number}" for number in draw.choice(6, len(edges) + len(others), p=[0.3, 0.25, 0.2, 0.12, 0.08, 0.05])]
    rows: list[dict[str, object]] = []
    for number, (user, begins) in enumerate(zip(users, [*edges, *others], strict=True)):
        occasion = {
            "user_id": user,
            "session_id": few(f"s{number}", f"s{number // 9}"),
            "order_id": few(f"o{number}", f"o{number // 40}"),
            "utc_offset_minutes": pick(None, None, None, 330, -600),
        }
        for _ in range(int(draw.integers(1, 5))):
            kind = pick("purchase", "purchase", "purchase", "purchase", "cart", "cart", "view", "view", "wave", CAMPAIGN, *KNOWN)
            line = {
                "event_type": kind,
                "event_ts": begins + pick(0, 0, 7, 120) * timedelta(minutes=1),
                "amount": few(0.0, *draw.integers(-200, 9000, 6) / 100),
                "quantity": few(1.0, 1.0, 2.0, 0.5),
                "discount": few(0.0, 0.0, *draw.integers(1, 300, 2) / 100),
                "item_id": few(*"ij"),
                "category": few(*"abcdefg"),
                "brand": few(*"xyz"),
                "channel": few("web", "web", "store", "mail"),
                "device": few("phone", "laptop"),
                "source": few("mail", "search", "ads"),
                "campaign": few(*(f"c{month}" for month in range(begins.month, begins.month + 2))),
                "region": few("north", "north", "south"),
            }
            rows.append({**occasion, **line})
    cart = {"user_id": "edge", "event_type": "cart", "amount": 3.0, "item_id": "i"}
    for cutoff in CUTOFFS:
        rows.append({"user_id": "edge", "event_type": "checkout", "event_ts": cutoff - 3 * DAY, "order_id": f"not finished {cutoff}"})
        for tick in (-TICK, 0 * TICK, TICK):
            # Given up just before the cutoff, at it, and just after; bought just before the day is over, then, and just after.
            rows.append({**cart, "event_ts": cutoff - 24 * HOUR + tick, "item_id": f"given up {tick}"})
            item = {**cart, "event_ts": cutoff - 9 * DAY, "item_id": f"bought {tick} {cutoff}"}
            rows += [item, {**item, "event_ts": cutoff - 8 * DAY + tick, "event_type": "purchase"}]
    return events(
        *rows,
        {"user_id": "u0", "event_ts": CUTOFFS[1], "amount": 50.0, "category": "at the cutoff"},
        {"user_id": "one purchase", "event_ts": CUTOFFS[1] - 3 * DAY, "amount": 5.0},
        {"user_id": "one view", "event_ts": CUTOFFS[0] - TICK, "event_type": "view"},
        {"user_id": "contacts only", "event_ts": CUTOFFS[0] - 30 * DAY, "event_type": CAMPAIGN, "channel": "mail", "region": "east"},
        {"user_id": "looks only", "event_ts": CUTOFFS[0] - 40 * DAY, "event_type": "view", "session_id": "s1", "source": "ads"},
        {"user_id": "looks only", "event_ts": CUTOFFS[1] - 40 * DAY, "event_type": "cart", "session_id": "s2"},
        {"user_id": "clockwork", "event_ts": "2024-02-29 12:00", "amount": 2.0},
        *[("clockwork", CUTOFFS[1] - 7 * week * DAY, 2.0) for week in range(1, 30)],
        *[("slipping", CUTOFFS[1] - day * DAY, 2.0) for day in (30, 37, 41, 56)],
    )


LOG = random_log()


def build(
    log: pd.DataFrame, cutoffs: Sequence[datetime] = CUTOFFS, *, wanted: Wanted = EVERYTHING, kind: str = "duckdb", shards: int = 1
) -> pd.DataFrame:
    """Build every feature, indexed by user and cutoff, in order."""
    engine = open_engine(kind=kind)
    try:
        asked = declared(wanted, COLUMNS)
        table = build_features(engine, load_events(engine, log, zone=ZONE), asked, cutoffs, shards=shards)
        return engine.execute(table).set_index(KEYS).sort_index()
    finally:
        close_engine(engine)


@cache
def whole(kind: str) -> pd.DataFrame:
    """The features of the log that has everything, built once."""
    return build(LOG, kind=kind)


def test_every_feature_equals_the_slow_reference(engine_kind: str) -> None:
    found = whole(engine_kind)
    slow = reference(LOG, CUTOFFS, LONG, zone=ZONE, values=EVERYTHING.values)
    texts = [feature.name for feature in declared(EVERYTHING, COLUMNS).features if feature.unit == NAME]
    assert list(found.index) == list(slow.index)
    assert sorted(found.columns) == sorted(slow.columns)
    wrong = []
    for name in found.columns:
        if name in texts:
            same = found[name].fillna("") == slow[name].fillna("")
        else:
            same = np.isclose(found[name].astype(float), slow[name].astype(float), rtol=1e-9, atol=1e-9, equal_nan=True)
        if not np.all(same):
            wrong.append(pd.DataFrame({"feature": name, "found": found[name], "slow": slow[name]})[~np.asarray(same)])
    assert not wrong, pd.concat(wrong).to_string()


def test_the_log_has_every_stage_and_something_of_every_feature() -> None:
    found = whole("duckdb")
    assert set(found.journey_stage) >= {"prospect", "lapsed", "slipping", "new", "returned", "loyal", "active"}
    assert [name for name in found.columns if found[name].nunique(dropna=False) < 2] == []
