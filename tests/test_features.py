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
from pandas.testing import assert_frame_equal
from reference import reference
from scipy.stats import binomtest, gamma

from builders import DAY, HOUR, TICK, WINDOWS, at, close_engine, events, feature_table, load, load_events, open_engine
from features.attributes import held, read_attributes
from features.build import build_features, steps
from features.catalogue import NAME
from features.contract import COLUMNS
from features.declare import Wanted, declared
from features.errors import ConfigError
from features.event_types import KNOWN
from features.families.outcomes import outcomes
from features.inventory import Inventory
from features.labels import Eligible, Kind, Target
from features.snapshot import KEYS

CUTOFF = at("2024-03-01")
COUPON, CAMPAIGN = "coupon_redeemed", "campaign_received"


def target(kind: Kind, events: str, active: str) -> Target:
    return Target(name=kind, kind=kind, horizon=28 * DAY, events=events, eligible=Eligible(28 * DAY, active), meaning="")


# The slow reference, on a log that has everything

ZONE = "America/New_York"
LONG = tuple(days * DAY for days in (7, 14, 28, 56, 84, 168))
LONG_NAME = "not_event_type_in_view_cart_and_quantity_3e92"
# Both lie some days after clocks changed in New York, the second after a leap day.
CUTOFFS = (at("2023-11-20"), at("2024-03-18"))
# Caps look back in windows of their own, of hours too, and further than the others.
TARGETS = (
    target("value", "event_type = 'purchase' AND category = 'a'", "event_type = 'wave'"),
    target("first", "NOT event_type IN ('view', 'cart') AND (quantity > 1 OR brand = 'x')", "event_type = 'view'"),
    target("absence", "event_type = 'view'", "event_type = 'purchase'"),
)
# Of those that ask for a probability, and what makes users active beside purchases.
LEVELS = (LONG_NAME, "view")
HABITS = ("wave", "view")
# What they ask about and of whom.
ASKED = ("purchase", "purchase_a", "wave", "view", LONG_NAME)


def _looked(rows: pd.DataFrame) -> pd.Series:
    return rows.event_type.isin(["view", "cart"])


# What their events are, and near misses: all but the type of the event.
OUTCOMES = {
    "purchase": (lambda rows: rows.event_type == "purchase", None, None),
    "view": (lambda rows: rows.event_type == "view", None, None),
    "purchase_a": (lambda rows: (rows.event_type == "purchase") & (rows.category == "a"), "amount", ()),
    "near_purchase_a": (lambda rows: (rows.event_type != "purchase") & (rows.category == "a"), None, ()),
    "wave": (lambda rows: rows.event_type == "wave", None, ("amount", "quantity")),
    "purchase_b": (lambda rows: (rows.event_type == "purchase") & (rows.category == "b"), None, None),
    "wave_b": (lambda rows: (rows.event_type == "wave") & (rows.category == "b"), None, None),
    LONG_NAME: (lambda rows: ~rows.event_type.isin(["view", "cart"]) & ((rows.quantity > 1) | (rows.brand == "x")), None, ()),
    f"near_{LONG_NAME}": (
        lambda rows: rows.event_type.isin(["view", "cart"]) & ((rows.quantity > 1) | (rows.brand == "x")),
        None,
        (),
    ),
}
INVENTORY = Inventory(
    {"wave": ("amount", "quantity")}, {"purchase": ("a", "b"), "wave": ("b",)}, {"channel": ("store", "web"), "source": ("ads",)}
)
NAMES = [
    *(("preferred_channel", value) for value in ("store", "web")),
    *((f"{which}_source", "ads") for which in ("first", "last", "favourite")),
]
EVERYTHING = Wanted(
    LONG,
    values={"category": ["a"], "channel": ["web"], "device": ["phone"], "source": ["mail"]},
    contacts=(36 * HOUR, 14 * DAY, 30 * DAY, 200 * DAY),
    outcomes=outcomes(TARGETS),
    lapsed_after=44 * DAY,
)


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
                "item_id": few("i", "j", f"i{number}", f"i{number // 9}"),
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
        rows.append(
            {"user_id": "edge", "event_type": "checkout", "event_ts": cutoff - 3 * DAY, "order_id": f"not finished {cutoff}"}
        )
        for tick in (-TICK, 0 * TICK, TICK):
            # Given up just before the cutoff, at it, and just after; bought just before the day is over, then, and just after.
            rows.append({**cart, "event_ts": cutoff - 24 * HOUR + tick, "item_id": f"given up {tick}"})
            item = {**cart, "event_ts": cutoff - 9 * DAY, "item_id": f"bought {tick} {cutoff}"}
            rows += [item, {**item, "event_ts": cutoff - 8 * DAY + tick, "event_type": "purchase"}]
    return events(
        *rows,
        {"user_id": "u0", "event_ts": CUTOFFS[1], "amount": 50.0, "category": "at the cutoff"},
        {"user_id": "one purchase", "event_ts": CUTOFFS[1] - 3 * DAY, "amount": 5.0, "category": "a"},
        {"user_id": "u0", "event_ts": CUTOFFS[1] - 3 * DAY, "event_type": "wave", "category": "b", "quantity": 3.0},
        {"user_id": "one view", "event_ts": CUTOFFS[0] - TICK, "event_type": "view"},
        {
            "user_id": "contacts only",
            "event_ts": CUTOFFS[0] - 30 * DAY,
            "event_type": CAMPAIGN,
            "channel": "mail",
            "region": "east",
        },
        {"user_id": "looks only", "event_ts": CUTOFFS[0] - 40 * DAY, "event_type": "view", "session_id": "s1", "source": "ads"},
        {"user_id": "looks only", "event_ts": CUTOFFS[1] - 40 * DAY, "event_type": "cart", "session_id": "s2"},
        {"user_id": "clockwork", "event_ts": "2024-02-29 12:00", "amount": 2.0},
        *[("clockwork", CUTOFFS[1] - 7 * week * DAY, 2.0) for week in range(1, 30)],
        *[("slipping", CUTOFFS[1] - day * DAY, 2.0) for day in (30, 37, 41, 56)],
    )


LOG = random_log()


def build(
    log: pd.DataFrame,
    cutoffs: Sequence[datetime] = CUTOFFS,
    *,
    wanted: Wanted = EVERYTHING,
    kind: str = "duckdb",
    shards: int = 1,
    some: pd.MultiIndex | None = None,
) -> pd.DataFrame:
    """Build every feature, indexed by user and cutoff, in order; of all rows or of some."""
    engine = open_engine(kind=kind)
    try:
        asked = declared(wanted, COLUMNS, inventory=INVENTORY)
        spine = None if some is None else load(engine, pa.Table.from_pandas(some.to_frame(index=False)))
        table = build_features(engine, load_events(engine, log, zone=ZONE), asked, cutoffs, spine=spine, shards=shards)
        return engine.execute(table).set_index(KEYS).sort_index()
    finally:
        close_engine(engine)


@cache
def whole(kind: str) -> pd.DataFrame:
    """The features of the log that has everything, built once."""
    return build(LOG, kind=kind)


def test_every_feature_equals_the_slow_reference(engine_kind: str) -> None:
    found = whole(engine_kind)
    told = {"values": EVERYTHING.values, "contacts": EVERYTHING.contacts, "outcomes": OUTCOMES, "levels": LEVELS, "names": NAMES}
    told |= {"habits": HABITS, "steps": dict.fromkeys(ASKED, 28 * DAY), "lapsed_after": EVERYTHING.lapsed_after}
    slow = reference(LOG, CUTOFFS, LONG, zone=ZONE, **told)
    texts = [feature.name for feature in declared(EVERYTHING, COLUMNS, inventory=INVENTORY).features if feature.unit == NAME]
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


# Rules of time

KEYED = ("session_id", "order_id", "item_id", "campaign")
LATER = st.fixed_dictionaries(
    {
        "after": st.sampled_from([0 * DAY, TICK, HOUR, 24 * HOUR, 7 * DAY]),
        "event_type": st.sampled_from([*KNOWN, "purchase", "purchase", "wave"]),
        "amount": st.sampled_from([None, 0.1, 700.0]),
        "quantity": st.sampled_from([None, 3.0]),
        "discount": st.sampled_from([None, 0.3]),
        **{name: st.sampled_from([None, "a", "mail", "x"]) for name in ("category", "brand", "channel", "source", "region")},
    }
)

# What may answer an earlier event: it would end a cart's wait, a session's idleness, or a campaign's silence.
ANSWERS = st.sampled_from(["purchase", "campaign_opened", "cart"])


def with_another_future(cutoff: datetime, drawn: list[dict], of_strangers: list[dict], answer: str) -> pd.DataFrame:
    """Take away all events of the log from the cutoff on, and add others that share keys with those before it."""
    before = LOG[LOG.event_ts < cutoff]
    recent = before[before.event_ts >= cutoff - 2 * DAY].to_dict("records")
    keyed = before[["user_id", *KEYED]].sample(len(drawn), random_state=1).to_dict("records")
    later = [
        *({**row, "event_type": answer, "event_ts": cutoff} for row in recent),
        *({**row, **event, "event_ts": cutoff + event["after"]} for row, event in zip(keyed, drawn, strict=True)),
        *({**event, "user_id": "stranger", "event_ts": cutoff + event["after"]} for event in of_strangers),
    ]
    return pd.concat([before, events(*later)], ignore_index=True)


FUTURE = {
    "drawn": st.lists(LATER, min_size=20, max_size=40),
    "of_strangers": st.lists(LATER, min_size=1, max_size=5),
    "answer": ANSWERS,
}


@settings(max_examples=5)
@given(**FUTURE)
def test_what_happens_from_the_cutoff_on_changes_no_feature(drawn: list[dict], of_strangers: list[dict], answer: str) -> None:
    # Events taken away, and others added: adding, changing and removing at once.
    changed = with_another_future(CUTOFFS[1], drawn, of_strangers, answer)
    assert_frame_equal(build(changed), whole("duckdb"), check_exact=True)


@settings(max_examples=5)
@given(**FUTURE)
def test_a_past_cutoff_gives_what_that_night_would_have_said(drawn: list[dict], of_strangers: list[dict], answer: str) -> None:
    that_night = with_another_future(CUTOFFS[0], drawn, of_strangers, answer)
    then = whole("duckdb").loc[lambda table: table.index.get_level_values("cutoff") == CUTOFFS[0]]
    assert_frame_equal(build(that_night, [CUTOFFS[0]]), then, check_exact=True)


@settings(max_examples=3)
@given(seed=st.integers(0, 2**31 - 1))
def test_order_of_the_rows_changes_nothing(seed: int) -> None:
    assert_frame_equal(build(LOG.sample(frac=1, random_state=seed)), whole("duckdb"), check_exact=True)


def test_shards_give_the_same_rows_bit_for_bit() -> None:
    some = whole("duckdb").index[::3]
    assert_frame_equal(build(LOG, shards=3), whole("duckdb"), check_exact=True)
    assert_frame_equal(build(LOG, shards=3, some=some), whole("duckdb").loc[some], check_exact=True)


def test_rows_of_a_spine_are_those_of_all_users(engine_kind: str) -> None:
    # Spark takes half a minute to plan hundreds of features: there some, places among all users with them.
    wanted = EVERYTHING if engine_kind == "duckdb" else Wanted(LONG, families=("habits", "loyalty"))
    some = whole(engine_kind).index[::3]
    found = build(LOG, wanted=wanted, kind=engine_kind, some=some)
    assert {"purchase_count_percentile_168d", "rfm_m_score"} <= set(found)
    # Every column of them, so that none may be missing.
    names = declared(wanted, COLUMNS, inventory=INVENTORY).names
    assert_frame_equal(found, whole(engine_kind).loc[some, names], check_exact=True)


def test_order_of_the_windows_changes_nothing() -> None:
    names = ["purchase_count_7d_vs_28d", "purchase_decline_count", "rfm_f_score", "category_new_share_28d"]
    one, two = (feature_table(LOG, CUTOFF, windows=windows, only=names) for windows in (WINDOWS, WINDOWS[::-1]))
    assert_frame_equal(one, two, check_exact=True)


def rows(table: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    """Give the rows in order, null as None."""
    chosen = table[list(columns)].astype(object)
    return sorted(chosen.where(chosen.notna(), None).itertuples(index=False, name=None), key=str)


def built(log: pd.DataFrame, *names: str, cutoff: datetime = CUTOFF, zone: str = "UTC") -> dict[str, tuple[object, ...]]:
    """Give the named features of every user."""
    table = feature_table(log, cutoff, zone=zone, only=names).reset_index()
    return {row[0]: row[1:] for row in rows(table, "user_id", *names)}


def days_ago(days: float, **columns: object) -> dict[str, object]:
    """Give an event of ann."""
    return {"user_id": "ann", "event_ts": CUTOFF - days * DAY, **columns}


@pytest.mark.parametrize(
    ("cutoff", "zone"),
    [
        pytest.param(at("2024-02-15"), "UTC", id="plain"),
        pytest.param(at("2024-03-01"), "UTC", id="over leap day"),
        pytest.param(at("2024-03-07"), "Asia/Kolkata", id="from leap day"),
        pytest.param(at("2024-04-02"), "Europe/Paris", id="clocks forward in Paris"),
        pytest.param(at("2024-11-05"), "America/New_York", id="clocks back in New York"),
    ],
)
def test_window_holds_its_start_and_not_its_end(cutoff: datetime, zone: str) -> None:
    log = events(
        ("before", cutoff - 7 * DAY - TICK, 1.0),
        ("start", cutoff - 7 * DAY, 1.0),
        ("last", cutoff - TICK, 1.0),
        ("at_cutoff", cutoff, 1.0),
        ("at_cutoff", cutoff - 20 * DAY, 1.0),
        ("after", cutoff, 1.0),
    )
    names = ("purchase_count_7d", "purchase_amount_sum_7d", "purchase_line_count_7d", "purchase_day_count_7d")
    assert built(log, *names, cutoff=cutoff, zone=zone) == {
        "at_cutoff": (0.0, 0.0, 0.0, 0.0),
        "before": (0.0, 0.0, 0.0, 0.0),
        "last": (1.0, 1.0, 1.0, 1.0),
        "start": (1.0, 1.0, 1.0, 1.0),
    }


def test_user_without_an_event_before_the_cutoff_has_no_row() -> None:
    log = events(("ann", CUTOFF - TICK), ("bob", CUTOFF), ("cem", CUTOFF + DAY))
    assert list(built(log, "purchase_count_7d")) == ["ann"]


def test_user_without_purchases_has_zero_counts_and_unknown_days() -> None:
    log = events(("ann", "2024-02-01", None, CAMPAIGN))
    names = ("purchase_count_28d", "purchase_amount_sum_28d", "purchase_recency_days", "purchase_day_rate", "purchase_frequency")
    assert built(log, *names) == {"ann": (0.0, 0.0, None, None, 0.0)}


def test_features_come_in_their_declared_order_as_numbers_and_names(duckdb_engine: SQLBackend) -> None:
    asked = declared(Wanted(WINDOWS, families=("stage", "region")), COLUMNS)
    log = load_events(duckdb_engine, events(("ann", "2024-02-01")))
    told: list[None] = []
    table = build_features(duckdb_engine, log, asked, [CUTOFF], advance=lambda: told.append(None))
    assert table.columns == (*KEYS, *asked.names)
    texts = {"journey_stage", "region"}
    assert {name: str(table[name].type()) for name in asked.names} == {
        name: "string" if name in texts else "float64" for name in asked.names
    }
    assert len(told) == steps(asked, 1)


def test_log_of_required_columns_and_purchases_only_builds_what_is_left(duckdb_engine: SQLBackend) -> None:
    asked = declared(Wanted(WINDOWS, families=("loyalty", "carts", "timing")), ["user_id", "event_ts", "event_type"], ["purchase"])
    log = load_events(duckdb_engine, events(("ann", CUTOFF - 6 * HOUR)))
    table = build_features(duckdb_engine, log, asked, [CUTOFF]).execute()
    assert rows(table, "user_id", "purchase_frequency", "purchase_recency_days", "best_hour") == [("ann", 0.0, 0.25, 18.0)]


def test_cutoff_named_twice_counts_once() -> None:
    log = events(("ann", CUTOFF - DAY, 5.0))
    assert feature_table(log, CUTOFF, CUTOFF, only=["purchase_amount_sum_7d"]).purchase_amount_sum_7d.tolist() == [5.0]


# Attributes


def with_attributes(engine: SQLBackend, told: Sequence[tuple[object, ...]], *cutoffs: datetime) -> pd.DataFrame:
    """Build the attributes of a log in which ann and bob did something once; `told` are user, known_from, tier and size."""
    frame = pd.DataFrame(told, columns=["user_id", "known_from", "tier", "size"]).astype({"known_from": "datetime64[us]"})
    kinds = {"user_id": pa.string(), "known_from": pa.timestamp("us"), "tier": pa.string(), "size": pa.float64()}
    table = load(engine, pa.Table.from_pandas(frame, schema=pa.schema(list(kinds.items())), preserve_index=False))
    asked = declared(Wanted(WINDOWS, families=(), attributes={"tier": False, "size": True}), COLUMNS)
    log = load_events(engine, events(("ann", CUTOFF - 99 * DAY), ("bob", CUTOFF - 99 * DAY, None, "view")))
    return engine.execute(build_features(engine, log, asked, cutoffs, attributes=table))


def test_a_local_day_that_straddles_the_start_of_a_window_is_in_it() -> None:
    straddling = [{"user_id": "ann", "event_ts": CUTOFF - 7 * DAY + hours * HOUR} for hours in (-2, 2)]
    names = ["purchase_count_7d", "purchase_day_count_7d", "purchase_week_streak"]
    table = feature_table(events(*straddling), CUTOFF, zone="America/New_York", only=names)
    # Of its two purchases each is in a week of its own.
    assert table[names].to_numpy().tolist() == [[1.0, 1.0, 2.0]]


@pytest.mark.parametrize("known_from", [20240105, 1704412800000.0, True])
def test_attributes_known_from_a_number_are_refused(known_from: float) -> None:
    raw = ibis.memtable({"user_id": ["ann"], "tier": ["gold"]}).mutate(known_from=ibis.literal(known_from))
    with pytest.raises(ConfigError, match="gives known_from as .*: turn numbers into time in the SQL"):
        read_attributes(raw, {"tier": False})


def test_a_row_of_attributes_that_repeats_the_one_before_is_no_change(engine: SQLBackend) -> None:
    # A snapshot of every day.
    told = [
        ("ann", CUTOFF - days * DAY, tier, size)
        for days, tier, size in (
            *((9, "silver", 1.0), (8, "silver", 1.0), (7, "gold", 1.0), (6, "gold", 1.0)),
            *((5, "gold", None), (4, "gold", None), (3, "silver", 1.0), (2, "silver", 1.0)),
        )
    ]
    frame = pd.DataFrame(told, columns=["user_id", "known_from", "tier", "size"]).astype({"known_from": "datetime64[us]"})
    frame = pd.concat([frame, frame.tail(2).assign(user_id="bob")]).assign(broken=None).astype({"broken": "string"})
    kept = engine.execute(held(load(engine, pa.Table.from_pandas(frame, preserve_index=False)), {"tier": False, "size": True}))
    changes = [("ann", CUTOFF - days * DAY) for days in (9, 7, 5, 3)]
    assert rows(kept, "user_id", "known_from") == [*changes, ("bob", CUTOFF - 3 * DAY)]


def test_attributes_are_those_known_at_the_cutoff(engine: SQLBackend) -> None:
    told = [
        ("ann", CUTOFF - 20 * DAY, "silver", 1.0),
        ("ann", CUTOFF - 10 * DAY, "gold", None),
        ("ann", CUTOFF, "late", 9.0),
        ("stranger", CUTOFF - 20 * DAY, "silver", 1.0),
    ]
    found = with_attributes(engine, told, CUTOFF - 10 * DAY, CUTOFF, CUTOFF + TICK)
    attributes = rows(found, "user_id", "cutoff", "tier", "size", "attributes_days")
    assert attributes == [
        ("ann", CUTOFF - 10 * DAY, "silver", 1.0, 10.0),
        ("ann", CUTOFF, "gold", None, 10.0),
        ("ann", CUTOFF + TICK, "late", 9.0, pytest.approx(0, abs=1e-9)),
        *[("bob", cutoff, None, None, None) for cutoff in (CUTOFF - 10 * DAY, CUTOFF, CUTOFF + TICK)],
    ]


# The families, one behaviour each


def test_purchases_without_an_order_id_are_one_order_per_instant() -> None:
    log = events(
        *[("ann", "2024-02-28 10:00", 1.0)] * 2,
        ("ann", "2024-02-28 10:01", 1.0),
        {"user_id": "bob", "event_ts": "2024-02-28 10:00", "order_id": "o1"},
        {"user_id": "bob", "event_ts": "2024-02-28 10:00", "order_id": "o2"},
        {"user_id": "cem", "event_ts": "2024-02-28 10:00", "order_id": "o1"},
        {"user_id": "cem", "event_ts": "2024-02-29 10:00", "order_id": "o1"},
    )
    assert built(log, "purchase_count_7d", "purchase_line_count_7d") == {"ann": (2.0, 3.0), "bob": (2.0, 2.0), "cem": (1.0, 2.0)}


def test_order_counts_in_the_window_of_its_last_line_with_its_whole_spend() -> None:
    line = {"user_id": "ann", "order_id": "o1"}
    log = events(
        {**line, "event_ts": CUTOFF - 14 * DAY - HOUR, "amount": 5.0},
        {**line, "event_ts": CUTOFF - 14 * DAY, "amount": 7.0},
        {**line, "event_ts": CUTOFF, "amount": 100.0},
    )
    names = ("purchase_count_14d", "purchase_amount_sum_14d", "purchase_order_amount_mean_14d", "purchase_order_amount_max_14d")
    assert built(log, *names) == {"ann": (1.0, 7.0, 12.0, 12.0)}


def test_loyalty_is_recency_tenure_frequency_and_monetary_value() -> None:
    log = events(
        ("ann", "2024-02-10 00:00", 10.0),
        ("ann", "2024-02-20 08:00", 20.0),
        ("ann", "2024-02-20 20:00", 60.0),
        ("bob", "2024-02-28 12:00", 4.0),
        ("bob", "2024-03-05", 400.0),
    )
    names = ("purchase_recency_days", "purchase_tenure_days", "purchase_frequency", "purchase_monetary_value", "purchase_day_rate")
    found = built(log, *names)
    assert found == {"ann": (pytest.approx(9 + 4 / 24), 20.0, 1.0, 30.0, 0.1), "bob": (1.5, 1.5, 0.0, 4.0, pytest.approx(1 / 7))}


STAGES = {
    "never bought": ([], "prospect", 99.0),
    "nothing for 56 days": ([56], "lapsed", 0.0),
    "one purchase, 28 days ago": ([28], "slipping", 0.0),
    "one purchase, 27 days ago": ([27], "new", 27.0),
    "buys often, nothing for 14 days": ([18, 16, 14], "slipping", 0.0),
    "buys often, nothing for 13 days": ([18, 16, 13], "new", 18.0),
    "nothing for three gaps of ten days": ([40, 30], "slipping", 0.0),
    "nothing for less than three gaps of ten days": ([39, 29], "active", 11.0),
    "the first run is 28 days old": ([28, 10], "active", 0.0),
    "the first run is 27 days old": ([27, 10], "new", 27.0),
    "a break of 56 days": ([76, 20], "returned", 20.0),
    "a break of 55 days": ([75, 20], "active", 47.0),
    "a run of 112 days": ([112, 84, 56, 28, 1], "loyal", 0.0),
    "a run of 111 days": ([111, 84, 56, 28, 1], "active", 83.0),
}


def test_journey_stage_at_its_thresholds() -> None:
    seen = [(name, CUTOFF - 99 * DAY, None, "view") for name in STAGES]
    log = events(*seen, *[(name, CUTOFF - day * DAY) for name, (days, _stage, _since) in STAGES.items() for day in days])
    assert built(log, "journey_stage", "journey_stage_days") == {
        name: (stage, pytest.approx(since)) for name, (_days, stage, since) in STAGES.items()
    }


@pytest.mark.parametrize("what", ["lesson", "view"])
def test_journey_stage_is_of_what_makes_users_active_where_nobody_buys(what: str) -> None:
    seen = [{"user_id": name, "event_ts": CUTOFF - 99 * DAY, "event_type": "support"} for name in STAGES]
    done = [
        {"user_id": name, "event_ts": CUTOFF - day * DAY, "event_type": what} for name, (days, *_) in STAGES.items() for day in days
    ]
    active = f"event_type = '{what}'"
    asked = declared(Wanted(WINDOWS, outcomes=outcomes([target("absence", active, active)])), COLUMNS, {what, "support"})
    engine = open_engine()
    found = engine.execute(build_features(engine, load_events(engine, events(*seen, *done)), asked, [CUTOFF]))
    assert {user: told for user, *told in rows(found, "user_id", "journey_stage", "journey_stage_days")} == {
        name: [stage, pytest.approx(since)] for name, (_days, stage, since) in STAGES.items()
    }
    # Models read none of it: the days would mean something else once somebody buys.
    assert not {"journey_stage", "journey_stage_days"} & {feature.name for feature in asked.numbers}
    assert not [name for name in asked.names if "purchase" in name]


def test_rhythm_is_the_gaps_between_days_and_the_current_one_against_them() -> None:
    log = events(
        *[("ann", f"2024-02-{day:02d} 12:00") for day in (1, 3, 9)],
        ("ann", "2024-02-09 18:00"),
        ("once", "2024-02-09"),
        ("twice", "2024-02-01"),
        ("twice", "2024-02-11"),
    )
    names = ("purchase_gap_days_mean", "purchase_gap_days_std", "purchase_gap_days_max", "purchase_gap_variation")
    overdue = ("purchase_overdue_ratio", "purchase_overdue_against_longest")
    spread = pytest.approx(8**0.5)
    assert built(log, *names, *overdue) == {
        "ann": (4.0, spread, 6.0, pytest.approx(8**0.5 / 4), pytest.approx(20.25 / 4), pytest.approx(20.25 / 6)),
        "once": (None, None, None, None, None, None),
        "twice": (10.0, None, 10.0, None, pytest.approx(1.9), pytest.approx(1.9)),
    }


def test_gamma_shape_tells_regular_from_random_gaps() -> None:
    random_gaps = [1, 9, 2, 30, 4, 1, 17, 6]
    log = events(
        *[("regular", CUTOFF - 7 * week * DAY) for week in range(1, 6)],
        *[("random", CUTOFF - (1 + sum(random_gaps[:end])) * DAY) for end in range(len(random_gaps) + 1)],
        ("one gap", CUTOFF - DAY),
        ("one gap", CUTOFF - 2 * DAY),
    )
    fitted = gamma.fit(random_gaps, floc=0)[0]
    assert built(log, "purchase_gap_shape") == {
        "regular": (100.0,),
        "random": (pytest.approx(fitted, rel=0.02),),
        "one gap": (None,),
    }


def test_gaps_are_counted_in_local_days_when_clocks_change() -> None:
    # In Paris 22:30 UTC is 23:30 on 30 March, and a day later, after clocks went forward, 00:30 on 1 April.
    log = events(("ann", "2024-03-30 22:30"), ("ann", "2024-03-31 22:30"))
    cutoff = at("2024-04-02")
    assert built(log, "purchase_gap_days_mean", "purchase_day_count_7d", cutoff=cutoff, zone="Europe/Paris") == {"ann": (2.0, 2.0)}
    assert built(log, "purchase_gap_days_mean", "purchase_day_count_7d", cutoff=cutoff, zone="UTC") == {"ann": (1.0, 2.0)}


def test_gap_over_leap_day_is_two_days() -> None:
    log = events(("ann", "2024-02-28"), ("ann", "2024-03-01"), ("bob", "2023-02-28"), ("bob", "2023-03-01"))
    assert built(log, "purchase_gap_days_max", cutoff=at("2024-03-02")) == {"ann": (2.0,), "bob": (1.0,)}


def test_streak_counts_weeks_in_a_row_back_from_the_cutoff() -> None:
    log = events(
        # Seven days ago sharp is still in the last week.
        *[("ann", CUTOFF - days * DAY) for days in (7, 8, 15, 29)],
        ("bob", CUTOFF - 8 * DAY),
        ("cem", CUTOFF - 28 * DAY),
    )
    assert built(log, "purchase_week_streak", "purchase_week_count_28d") == {
        "ann": (3.0, 3.0),
        "bob": (0.0, 1.0),
        "cem": (0.0, 1.0),
    }


def test_trend_is_the_pace_of_a_window_against_a_longer_one() -> None:
    log = events(
        ("ann", CUTOFF - DAY, 6.0),
        ("ann", CUTOFF - 20 * DAY, 2.0),
        ("ann", CUTOFF - 30 * DAY, 2.0),
        ("bob", CUTOFF - 20 * DAY, 2.0),
        ("cem", CUTOFF - 40 * DAY, 2.0),
    )
    assert built(log, "purchase_count_7d_vs_28d", "purchase_amount_sum_7d_vs_28d") == {
        "ann": (2.0, 3.0),
        "bob": (0.0, 0.0),
        "cem": (None, None),
    }


def test_pace_is_of_the_days_that_a_user_is_known() -> None:
    log = events(
        ("ann", CUTOFF - DAY, 6.0),
        ("ann", CUTOFF - 14 * DAY, 2.0),
        # As long ago as the shorter window reaches: it would hold all there is, at four times the pace of the longer one.
        ("bob", CUTOFF - 7 * DAY, 2.0),
        ("cem", CUTOFF - 8 * DAY, 2.0),
        ("cem", CUTOFF - DAY, 2.0),
    )
    assert built(log, "purchase_count_7d_vs_28d", "purchase_amount_sum_7d_vs_28d") == {
        "ann": (1.0, 1.5),
        "bob": (None, None),
        "cem": (pytest.approx(4 / 7), pytest.approx(4 / 7)),
    }


def test_trend_is_the_spend_of_a_window_against_the_one_before_and_against_history() -> None:
    log = events(
        ("ann", CUTOFF - DAY, 6.0),
        ("ann", CUTOFF - 7 * DAY, 1.0),
        ("ann", CUTOFF - 7 * DAY - TICK, 2.0),
        ("ann", CUTOFF - 14 * DAY, 2.0),
        ("ann", CUTOFF - 14 * DAY - TICK, 10.0),
        ("ann", CUTOFF - 56 * DAY, 7.0),
        ("new", CUTOFF - 2 * DAY, 5.0),
        ("gone", CUTOFF - 56 * DAY, 5.0),
    )
    assert built(log, "purchase_amount_sum_7d_vs_before", "purchase_amount_sum_28d_vs_history") == {
        "ann": (1.75, 1.5),
        "gone": (None, 0.0),
        "new": (None, 1.0),
    }


def test_season_is_null_without_a_year_and_a_month_of_history() -> None:
    def spent(user: str, days: int, amount: float) -> tuple[object, ...]:
        return user, CUTOFF - days * DAY, amount

    log = events(
        *[spent("ann", *line) for line in ((392, 4.0), (365, 2.0), (364, 50.0), (28, 3.0))],
        *[spent("young", *line) for line in ((391, 4.0), (28, 3.0))],
        *[spent("nothing then", *line) for line in ((393, 4.0), (28, 3.0))],
    )
    assert built(log, "purchase_amount_sum_28d_vs_year_before") == {"ann": (0.5,), "nothing then": (None,), "young": (None,)}


def test_variety_counts_distinct_things_once() -> None:
    def bought(day: int, category: str | None, brand: str | None, amount: float) -> dict[str, object]:
        return days_ago(day, category=category, brand=brand, amount=amount)

    log = events(
        bought(1, "tea", "x", 6.0),
        bought(2, "tea", "y", 2.0),
        bought(10, "jam", "x", 3.0),
        bought(40, "rye", "x", 9.0),
        bought(183, "tea", "y", 500.0),
        bought(1, None, None, 50.0),
        {**bought(1, "looked at", "z", 9.0), "event_type": "visit"},
        {**bought(0, "future", "z", 900.0)},
    )
    names = ("category_count_7d", "category_count_28d", "category_count", "brand_count_28d", "brand_favourite_share_28d")
    assert built(log, *names) == {"ann": (1.0, 2.0, 3.0, 2.0, pytest.approx(9 / 11))}
    # Of tea and jam only jam was never bought before; tea is two of three lines with a category.
    mixed = pytest.approx(-(2 / 3) * np.log(2 / 3) - np.log(1 / 3) / 3)
    names = ("category_new_share_28d", "favourite_category", "category_favourite_share_28d", "category_entropy_28d")
    assert built(log, *names) == {"ann": (0.5, "tea", pytest.approx(2 / 3), mixed)}


def test_price_level_is_against_what_everybody_paid_in_the_same_categories() -> None:
    def bought(user: str, amount: float | None, quantity: float | None, category: str = "tea") -> dict[str, object]:
        return {**days_ago(1, category=category, amount=amount, quantity=quantity), "user_id": user}

    log = events(
        bought("ann", 6.0, 2.0),
        # What lacks an amount or a quantity has no price.
        bought("ann", 70.0, None),
        bought("ann", None, 9.0),
        bought("bob", 2.0, 2.0),
        bought("bob", 5.0, 1.0, "jam"),
        bought("cem", 5.0, None),
    )
    # Tea costs 8.00 for 4, jam 5.00.
    assert built(log, "category_price_level_28d") == {"ann": (1.5,), "bob": (pytest.approx(7 / 9),), "cem": (None,)}


def test_usage_and_rfm_set_buyers_against_each_other() -> None:
    # Days since the last purchase, and purchases.
    buyers = {"a": (5, 1), "b": (4, 1), "c": (3, 2), "d": (2, 3), "e": (1, 4)}
    log = events(
        *[(user, CUTOFF - (days + number) * DAY, 1.0) for user, (days, count) in buyers.items() for number in range(count)],
        ("lapsed", CUTOFF - 60 * DAY, 9.0),
        ("looks", CUTOFF - 1 * DAY, None, "view"),
    )
    assert built(log, "usage_level", "purchase_count_percentile_28d", "rfm_f_score", "rfm_r_score") == {
        "a": ("light", 0.0, 1.0, 1.0),
        "b": ("light", 0.0, 1.0, 2.0),
        "c": ("light", 40.0, 3.0, 3.0),
        "d": ("medium", 60.0, 4.0, 4.0),
        "e": ("heavy", 80.0, 5.0, 5.0),
        "lapsed": ("none", None, 1.0, 1.0),
        "looks": ("none", None, None, None),
    }


def test_a_cart_is_open_for_a_day_and_then_bought_or_abandoned() -> None:
    def cart(user: str, ago: timedelta = 3 * DAY, **keys: str) -> dict[str, object]:
        return {"user_id": user, "event_ts": CUTOFF - ago, "event_type": "cart", "amount": 5.0, **keys}

    def bought(user: str, ago: timedelta = 3 * DAY - HOUR, **keys: str) -> dict[str, object]:
        return {"user_id": user, "event_ts": CUTOFF - ago, **keys}

    log = events(
        cart("open", 24 * HOUR, item_id="i"),
        cart("over", 24 * HOUR + TICK, item_id="i"),
        cart("by item", item_id="i", order_id="o", session_id="s"), bought("by item", item_id="i", order_id="p", session_id="t"),
        cart("other item", item_id="i", session_id="s"), bought("other item", item_id="j", session_id="s"),
        cart("by order", order_id="o", session_id="s"), bought("by order", order_id="o", session_id="t"),
        cart("by session", session_id="s"), bought("by session", session_id="s"),
        cart("just in time", item_id="i"), bought("just in time", 2 * DAY + TICK, item_id="i"),
        cart("too late", item_id="i"), bought("too late", 2 * DAY, item_id="i"),
        cart("before", item_id="i"), bought("before", 3 * DAY + TICK, item_id="i"),
        cart("at once", item_id="i"), bought("at once", 3 * DAY, item_id="i"),
        cart("by another", session_id="s1"), bought("somebody", session_id="s1"),
        cart("nothing to go by"), bought("nothing to go by"),
        cart("bought by order", item_id="i", order_id="o", session_id="s"), bought("bought by order", order_id="o", session_id="t"),
        cart("bought in session", item_id="i", session_id="s"), bought("bought in session", order_id="o", session_id="s"),
        cart("other order", item_id="i", order_id="o", session_id="s"), bought("other order", order_id="p", session_id="s"),
    )  # fmt: skip
    names = ("cart_count_7d", "cart_abandoned_count_7d", "cart_abandoned_share_7d", "cart_abandoned_amount_sum_7d")
    left, sold, waits = (1.0, 1.0, 1.0, 5.0), (1.0, 0.0, 0.0, 0.0), (1.0, 0.0, None, 0.0)
    assert built(log, *names) == {
        "at once": sold,
        "before": left,
        "bought by order": sold,
        "bought in session": sold,
        "by another": left,
        "by item": sold,
        "by order": sold,
        "by session": sold,
        "just in time": sold,
        "nothing to go by": waits,
        "open": waits,
        "other item": left,
        "other order": left,
        "over": left,
        "somebody": (0.0, 0.0, None, 0.0),
        "too late": left,
    }


def test_a_checkout_is_finished_by_a_purchase_of_its_order_or_session() -> None:
    begun = {"event_ts": CUTOFF - 3 * DAY, "event_type": "checkout"}
    log = events(
        {**begun, "user_id": "ann", "order_id": "o"},
        {"user_id": "ann", "event_ts": CUTOFF - 3 * DAY + HOUR, "order_id": "o"},
        {**begun, "user_id": "bob", "session_id": "s"},
        {"user_id": "bob", "event_ts": CUTOFF - 3 * DAY + HOUR, "session_id": "t"},
    )
    names = ("checkout_count_7d", "checkout_abandoned_count_7d", "checkout_abandoned_recency_days")
    assert built(log, *names) == {"ann": (1.0, 0.0, None), "bob": (1.0, 1.0, 2.0)}


def test_a_cart_bought_long_after_stays_abandoned_and_one_without_value_has_no_mean() -> None:
    log = events(
        days_ago(9, event_type="cart", item_id="i", amount=4.0),
        days_ago(8.5, event_type="cart", item_id="i"),
        days_ago(2, item_id="i"),
        ("bob", CUTOFF - DAY, None, "cart"),
        ("bob", CUTOFF - DAY, 3.0),
    )
    assert built(log, "cart_abandoned_count_28d", "cart_amount_mean") == {"ann": (2.0, 4.0), "bob": (0.0, None)}


def test_promotion_counts_discounts_coupons_and_campaigns() -> None:
    log = events(
        {"user_id": "ann", "event_ts": CUTOFF - DAY, "discount": 1.5, "amount": 3.0},
        {"user_id": "ann", "event_ts": CUTOFF - DAY, "discount": 0.0, "amount": 2.0},
        {"user_id": "ann", "event_ts": CUTOFF - 2 * DAY, "amount": 1.5},
        {"user_id": "ann", "event_ts": CUTOFF - 20 * DAY, "discount": 2.0},
        *[("ann", CUTOFF - 3 * DAY, None, COUPON)] * 2,
        ("ann", CUTOFF - 60 * DAY, None, COUPON),
        *[("ann", CUTOFF - day * DAY, None, CAMPAIGN) for day in (4, 5, 60, 61)],
        ("bob", CUTOFF - DAY, None, COUPON),
        ("no discount", CUTOFF - DAY, 5.0),
    )
    money = ("discount_sum_14d", "discount_sum_28d", "discounted_line_share_28d", "discount_share_28d", "promoted_order_share_28d")
    assert built(log, *money) == {
        "ann": (1.5, 3.5, 0.5, 0.35, pytest.approx(2 / 3)),
        "bob": (0.0, 0.0, None, None, None),
        "no discount": (0.0, 0.0, 0.0, 0.0, 0.0),
    }
    counts = ("coupon_count_28d", "coupon_count", "campaign_count_28d", "campaign_count")
    answers = ("coupon_recency_days", "campaign_recency_days", "coupon_per_campaign")
    assert built(log, *counts, *answers) == {
        "ann": (2.0, 3.0, 2.0, 4.0, 3.0, 4.0, 0.75),
        "bob": (1.0, 1.0, 0.0, 0.0, 1.0, None, None),
        "no discount": (0.0, 0.0, 0.0, 0.0, None, None, None),
    }


def test_a_campaign_is_answered_once_and_only_after_it_came() -> None:
    def told(days: float, event_type: str, campaign: str | None = "c") -> dict[str, object]:
        return days_ago(days, event_type=event_type, campaign=campaign)

    log = events(
        told(11, "campaign_opened"),
        told(10, CAMPAIGN),
        told(9.5, "campaign_opened"),
        told(9.25, "campaign_clicked"),
        told(9, CAMPAIGN),
        told(8, CAMPAIGN, "d"),
        told(7.75, "unsubscribe", "d"),
        told(7, CAMPAIGN, None),
        told(6, COUPON, None),
        # Somebody else's campaign.
        {**told(9, COUPON), "user_id": "bob"},
    )
    names = ("campaign_answer_share", "campaign_answer_hours_mean", "campaign_open_per_campaign", "unsubscribe_count")
    assert built(log, *names) == {"ann": (0.5, 9.0, 0.5, 1.0), "bob": (None, None, None, 0.0)}


def test_fatigue_is_answering_less_than_before() -> None:
    log = events(
        *[days_ago(days, event_type=CAMPAIGN, campaign=f"c{days}") for days in (60, 50, 28, 7)],
        *[days_ago(days, event_type="campaign_opened", campaign=f"c{days}") for days in (60, 50, 28)],
        {**days_ago(1, event_type=CAMPAIGN, campaign="c1"), "user_id": "bob"},
    )
    names = ("contact_count_7d", "contact_count_28d", "campaign_answer_share_28d_vs_history")
    assert built(log, *names) == {"ann": (1.0, 2.0, pytest.approx(2 / 3)), "bob": (1.0, 1.0, None)}


def test_a_visit_leads_to_something_or_nothing() -> None:
    log = events(
        days_ago(3, event_type="view", session_id="idle"),
        days_ago(2.9, event_type="view", session_id="idle"),
        days_ago(2, event_type="view", session_id="acts"),
        days_ago(1.9, event_type="cart", session_id="acts"),
        days_ago(1, event_type="view"),
        # A contact is not a visit, and another user's session of the same name is another visit.
        days_ago(1, event_type=CAMPAIGN, session_id="contact"),
        {**days_ago(1, event_type="view", session_id="acts"), "user_id": "bob"},
    )
    names = ("visit_count_7d", "idle_visit_share_7d", "view_count_7d", "view_per_visit_mean_7d")
    assert built(log, *names) == {"ann": (2.0, 0.5, 4.0, 2.0), "bob": (1.0, 1.0, 1.0, 1.0)}


def test_returns_are_a_share_of_the_value_bought() -> None:
    log = events(days_ago(9, amount=8.0), days_ago(3, event_type="return", amount=2.0), ("bob", CUTOFF - DAY, 2.0, "return"))
    assert built(log, "return_amount_share_28d", "return_count_7d") == {"ann": (0.25, 1.0), "bob": (None, 1.0)}


def test_midnight_sharp_is_a_date_without_an_hour() -> None:
    midnight = CUTOFF.replace(hour=0, minute=0, second=0, microsecond=0) - 3 * DAY
    log = events(
        ("ann", midnight, 1.0),
        ("ann", midnight + 9 * HOUR, 1.0),
        ("bob", midnight, 1.0),
        ("cat", midnight + TICK, 1.0),
    )
    names = ("best_hour", "morning_purchase_share_28d", "hour_favourite_share_28d")
    assert built(log, *names) == {"ann": (9.0, 1.0, 1.0), "bob": (None, None, None), "cat": (0.0, 0.0, 1.0)}


def test_lines_sent_back_together_are_one_return_order() -> None:
    log = events(
        days_ago(400, event_type="return", order_id="r1", amount=5.0),
        days_ago(400 - 1 / 24, event_type="return", order_id="r1", amount=5.0),
        # Without an order, what comes back at one instant.
        days_ago(30, event_type="return"),
        days_ago(30, event_type="return"),
        days_ago(2, event_type="return"),
        days_ago(1, order_id="r2"),
    )
    assert built(log, "return_order_count", "return_count_28d") == {"ann": (3.0, 1.0)}


def test_items_bought_again_are_not_new() -> None:
    log = events(
        days_ago(60, item_id="tea"),
        days_ago(60, item_id="cup"),
        days_ago(5, item_id="tea"),
        days_ago(3, item_id="pot"),
        # Looked at, not bought; and an item that nobody named.
        days_ago(2, event_type="view", item_id="jar"),
        days_ago(1),
    )
    assert built(log, "item_count", "item_new_count_7d", "item_new_count_28d") == {"ann": (3.0, 1.0, 1.0)}


def test_favourite_channel_comes_with_the_confidence_in_it() -> None:
    log = events(
        *[days_ago(day, event_type="view", channel="web") for day in range(1, 9)],
        *[days_ago(day, event_type="view", channel="store") for day in (1, 2)],
        *[days_ago(day, event_type="view") for day in (1, 2)],
        # What the company did, and what was before the window.
        *[days_ago(1, event_type=CAMPAIGN, channel="mail") for _ in range(9)],
        *[days_ago(40, event_type="view", channel="store") for _ in range(9)],
        {**days_ago(1, channel="a"), "user_id": "even"},
        {**days_ago(2, channel="b"), "user_id": "even"},
        {**days_ago(1), "user_id": "unknown"},
    )
    names = ("preferred_channel", "channel_favourite_share_28d", "channel_favourite_confidence_28d", "channel_count_28d")

    def sure(hits: int, of: int) -> object:
        return pytest.approx(binomtest(hits, of).proportion_ci(0.95, method="wilson").low, abs=1e-4)

    assert built(log, *names) == {
        "ann": ("web", 0.8, sure(8, 10), 2.0),
        "even": ("b", 0.5, sure(1, 2), 2.0),
        "unknown": (None, None, None, 0.0),
    }


def test_a_switch_is_an_order_through_another_channel_than_the_one_before() -> None:
    ways = ["web", "store", None, "store", "web", "web"]
    log = events(*[days_ago(28 - day, channel=channel) for day, channel in enumerate(ways)], ("bob", CUTOFF - DAY))
    assert built(log, "channel_switch_share_28d") == {"ann": (pytest.approx(2 / 3),), "bob": (None,)}


def test_a_channel_is_silent_after_56_days() -> None:
    log = events(
        days_ago(57, channel="store"),
        days_ago(56, channel="web"),
        days_ago(1, device="phone"),
        {**days_ago(99, device="phone", channel="web"), "user_id": "bob"},
    )
    assert built(log, "channel_silent_count", "device_silent_count") == {"ann": (1.0, 0.0), "bob": (1.0, 1.0)}


def test_first_and_last_touch_settle_ties_by_the_alphabet() -> None:
    log = events(
        *[days_ago(90, event_type="view", source=source) for source in ("ads", "mail")],
        days_ago(95, event_type="view"),
        days_ago(99, event_type=CAMPAIGN, source="campaign"),
        *[days_ago(10, event_type="view", source="ads")] * 2,
        *[days_ago(1, event_type="view", source=source) for source in ("search", "ads")],
    )
    names = ("first_source", "last_source", "favourite_source", "source_count_28d")
    assert built(log, *names) == {"ann": ("mail", "ads", "ads", 2.0)}


def test_region_is_the_recent_one_and_shares_what_its_users_do() -> None:
    def seen(user: str, days: float, region: str | None, event_type: str = "view") -> dict[str, object]:
        return {**days_ago(days, region=region, event_type=event_type), "user_id": user}

    log = events(
        *[seen("moved", 90, "south")] * 3,
        seen("moved", 1, "north"),
        seen("old", 90, "north", "purchase"),
        seen("buyer", 28, "north", "purchase"),
        seen("nowhere", 1, None, "purchase"),
    )
    assert built(log, "region", "region_count", "region_buyer_share_28d") == {
        "buyer": ("north", 1.0, pytest.approx(1 / 3)),
        "moved": ("north", 2.0, pytest.approx(1 / 3)),
        "nowhere": (None, 0.0, None),
        "old": ("north", 1.0, pytest.approx(1 / 3)),
    }


def test_timing_is_local() -> None:
    # New York is five hours behind: Saturday 02:00 UTC is Friday evening, Monday 01:00 UTC is Sunday evening.
    log = events(
        *[("ann", text) for text in ("2024-02-24 02:00", "2024-02-26 01:00", "2024-02-27 15:00", "2024-02-28 17:00")],
        {"user_id": "bob", "event_ts": "2024-02-24 02:00", "utc_offset_minutes": 600},
    )
    parts = ("morning", "afternoon", "evening", "weekend", "payday", "friday", "saturday")
    shares = [f"{part}_purchase_share_28d" for part in parts]
    assert built(log, *shares, "best_hour", zone="America/New_York") == {
        "ann": (0.25, 0.25, 0.5, 0.25, 0.75, 0.25, 0.0, 21.0),
        "bob": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 12.0),
    }
