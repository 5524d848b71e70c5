"""Custom features: SQL of a config, adding up events or reading other features, and what is refused."""

from datetime import timedelta

import pytest
from ibis.backends.sql import SQLBackend

from builders import DAY, TICK, WINDOWS, at, events, load_events
from features.build import build_features
from features.contract import COLUMNS
from features.custom import Custom
from features.declare import Wanted, declared
from features.errors import ConfigError
from features.event_types import KNOWN
from pipeline.feature_page import feature_page

CUTOFF = at("2024-03-01")


def custom(sql: str, *windows: timedelta, name: str = "own", unit: str = "times") -> Custom:
    return Custom(name=name, sql=sql, unit=unit, meaning="own", phrase="own: {value}", group="own", windows=windows)


def event(days: float, user: str = "ann", **columns: object) -> dict[str, object]:
    return {"user_id": user, "event_ts": CUTOFF - days * DAY, **columns}


LOG = events(
    event(1, amount=6.0, quantity=2.0, category="DELI", channel="web"),
    event(7, amount=3.0, quantity=0.0, category="tea", channel="store"),
    event(7 + 1e-6, amount=0.5, quantity=None, category="DELI", channel=None),
    event(20, amount=None, quantity=4.0, category=None, channel="web"),
    event(100, amount=20.0, quantity=1.0, category="DELI", channel="web"),
    event(2, event_type="view", category="DELI", channel="web"),
    event(0, amount=900.0, quantity=1.0, category="DELI", channel="web"),
    event(10, "bob", event_type="view"),
)


def built(engine: SQLBackend, *asked: Custom) -> dict[str, dict[str, float | None]]:
    """Build custom features alone: user to name to value."""
    features = declared(Wanted(WINDOWS, families=(), custom=asked), COLUMNS)
    found = engine.execute(build_features(engine, load_events(engine, LOG), features, [CUTOFF])).set_index("user_id")
    values = found.drop(columns="cutoff").astype(object)
    return values.where(values.notna(), None).to_dict("index")


def test_hundreds_of_values_joined_by_or_are_built(engine: SQLBackend) -> None:
    any_of = " or ".join(f"amount = {number}" for number in range(800))
    assert built(engine, custom(f"count(*) filter (where {any_of})"))["ann"] == {"own": 3.0}


def test_the_page_of_a_training_tells_what_it_needs() -> None:
    asked = (custom("sum(amount) filter (where channel = 'web')", 7 * DAY, unit="money"), custom("own_7d / 2", name="half"))
    page = feature_page(declared(Wanted(WINDOWS, families=(), custom=asked), COLUMNS)).splitlines()
    assert page[-2:] == [
        "| `own_7d` | money | own in the last 7 days | amount, channel | own |",
        "| `half` | times | own | amount, channel | own |",
    ]


def test_every_aggregate_looks_through_its_windows(engine: SQLBackend) -> None:
    found = built(
        engine,
        custom("sum(amount)", 7 * DAY, 28 * DAY, name="s"),
        custom("count(*) filter (where category = 'DELI')", 7 * DAY, 28 * DAY, name="n"),
        custom("count(amount)", name="known"),
        custom("avg(amount)", 28 * DAY, name="a"),
        custom("min(amount)", 7 * DAY, name="low"),
        custom("max(amount) filter (where event_type = 'purchase' and category <> 'tea')", name="high"),
        custom("avg(quantity) filter (where category in ('DELI', 'tea') and not channel like 'w%')", 36 * DAY, name="q"),
    )
    assert found["ann"] == {
        "s_7d": 9.0,
        "s_28d": 9.5,
        "n_7d": 2.0,
        "n_28d": 3.0,
        "known": 4.0,
        "a_28d": pytest.approx(9.5 / 3),
        "low_7d": 3.0,
        "high": 20.0,
        "q_36d": 0.0,
    }
    # What was never there adds up to nothing, and has no mean and no extremes.
    assert found["bob"] == {
        "s_7d": 0.0, "s_28d": 0.0, "n_7d": 0.0, "n_28d": 0.0, "known": 0.0,
        "a_28d": None, "low_7d": None, "high": None, "q_36d": None,
    }  # fmt: skip


def test_aggregates_combine_and_division_by_zero_is_null(engine: SQLBackend) -> None:
    found = built(
        engine,
        custom("sum(amount) / sum(quantity)", 7 * DAY, 28 * DAY, name="price"),
        custom("sum(amount / quantity)", 28 * DAY, name="prices"),
        custom("sum(amount * quantity)", 28 * DAY, name="product"),
        custom("count(*) filter (where channel = 'moon') - count(*) filter (where amount > 0)", 7 * DAY, name="net"),
        custom("sum(amount) filter (where channel = 'moon') + sum(amount) filter (where channel = 'web')", 7 * DAY, name="both"),
        custom("count(*) filter (where event_type = 'view') / count(*)", 7 * DAY, name="views"),
        custom("case when sum(amount) > 5 then 1 else 0 end", 7 * DAY, name="big"),
    )
    assert found["ann"] == {
        "price_7d": 4.5,
        "price_28d": pytest.approx(9.5 / 6),
        "prices_28d": 3.0,
        "product_28d": 12.0,
        "net_7d": -2.0,
        "both_7d": 6.0,
        "views_7d": pytest.approx(1 / 3),
        "big_7d": 1.0,
    }
    # Nothing over nothing is not known.
    assert found["bob"] == {
        "price_7d": None, "price_28d": None, "prices_28d": 0.0, "product_28d": 0.0, "net_7d": 0.0, "both_7d": 0.0, "views_7d": None,
        "big_7d": 0.0,
    }  # fmt: skip


def test_values_stand_on_either_side_and_nulls_are_of_any_type(engine: SQLBackend) -> None:
    found = built(
        engine,
        custom("1 - count(*) filter (where category = 'DELI') / count(*)", 7 * DAY, name="rest"),
        custom("sum(2 * amount) + 1", 7 * DAY, name="twice"),
        custom("1 - purchase_count_7d", name="less"),
        custom("5 between 1 and count(*)", name="five"),
        custom("sum(case when 'DELI' in (category, channel) then 1 else 0 end)", 7 * DAY, name="either"),
        custom("count(case when category = 'DELI' then channel end)", 28 * DAY, name="named"),
        custom("count(*) filter (where true)", 7 * DAY, name="all_of_them"),
    )
    assert found["ann"] == {
        "rest_7d": pytest.approx(1 / 3), "twice_7d": 19.0, "less": -1.0, "five": 1.0, "either_7d": 2.0, "named_28d": 2.0,
        "all_of_them_7d": 3.0,
    }  # fmt: skip


def test_sums_beyond_what_whole_numbers_hold(engine: SQLBackend) -> None:
    found = built(engine, custom("sum(amount * 1000000000000) filter (where amount = 20)", name="large"))
    assert found["ann"] == {"large": 2e13}


def test_a_window_starts_and_ends_where_every_window_does(engine: SQLBackend) -> None:
    log = events(*[{"user_id": "ann", "event_ts": CUTOFF - at_} for at_ in (36 * DAY + TICK, 36 * DAY, TICK, 0 * DAY)])
    features = declared(Wanted(WINDOWS, families=(), custom=(custom("count(*)", 36 * DAY),)), COLUMNS)
    table = build_features(engine, load_events(engine, log), features, [CUTOFF])
    assert engine.execute(table).own_36d.tolist() == [2.0]


def test_without_aggregates_it_reads_other_features(engine: SQLBackend) -> None:
    found = built(
        engine,
        custom("purchase_amount_sum_28d / purchase_count_7d", name="per_order"),
        custom("coalesce(per_order, -1) * 2", name="of_own"),
        custom("greatest(rfm_f_score, 3)", name="of_others"),
        custom("purchase_count_percentile_28d is null", name="no_buyer"),
        custom("journey_stage = 'prospect'", name="is_prospect"),
        custom("case when of_others between 2 and 4 then purchase_recency_days end", name="last"),
    )
    assert found == {
        "ann": {"per_order": 4.75, "of_own": 9.5, "of_others": 3.0, "no_buyer": 0.0, "is_prospect": 0.0, "last": 1.0},
        "bob": {"per_order": None, "of_own": -2.0, "of_others": 3.0, "no_buyer": 1.0, "is_prospect": 1.0, "last": None},
    }


def test_what_others_read_is_hidden_unless_asked_for() -> None:
    asked = declared(Wanted(WINDOWS, families=(), custom=(custom("rfm_r_score + 1"),)), COLUMNS)
    assert asked.names == ["own"]
    assert {feature.name for feature in asked.hidden} == {"rfm_r_score", "purchase_recency_days"}


def test_a_custom_feature_says_its_window() -> None:
    (feature,) = declared(Wanted(WINDOWS, families=(), custom=(custom("sum(amount)", 28 * DAY),)), COLUMNS).features
    assert (feature.name, feature.meaning, feature.phrase) == (
        "own_28d",
        "own in the last 28 days",
        "own: {value} in the last 28 days",
    )


def test_a_missing_column_switches_a_custom_feature_off() -> None:
    asked = Wanted(
        WINDOWS, families=(), custom=(custom("sum(amount)"), custom("own * 2", name="twice"), custom("count(*)", name="n"))
    )
    assert declared(asked, set(COLUMNS) - {"amount"}, KNOWN).names == ["n"]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("sum(amount", "does not parse: .* at line 1, column 10"),
        ("sum(amount); sum(amount)", "2 statements: write exactly one"),
        ("sum(amout)", "'amout', which is not an event column: did you mean amount"),
        ("sum(amount) / purchase_count_28d", "adds up events and reads the feature 'purchase_count_28d'"),
        ("purchase_count_28 + 1", "'purchase_count_28', which is not a feature: did you mean purchase_count_28d"),
        ("count(*) filter (where event_ts > '2024-01-01')", "reads event_ts: say how far to look back with `windows`"),
        ("max(event_ts)", "reads event_ts"),
        ("count(*) filter (where amount > 1 and now() > '2024-01-01')", "calls now.*only see what lies before its cutoff"),
        ("count(*) filter (where current_date > '2024-01-01')", "calls currentdate.*only see what lies before its cutoff"),
        ("sum(amount * random())", "calls rand.*only see what lies before its cutoff"),
        ("lead(amount) over (order by amount)", "looks at other rows with .*only see what lies before its cutoff"),
        ("sum(amount) over ()", "looks at other rows"),
        ("sum(amount) / (select 5)", "looks at other rows"),
        ("select sum(amount)", "looks at other rows"),
        ("count(distinct category)", "counts distinct values, which do not add up over windows"),
        ("max(category)", "gives VARCHAR: a feature is a number"),
        ("category", "'category', which is not a feature"),
        ("sum(amount) + quantity", "does not fit its columns|'quantity' stands outside an aggregate: write, for example, sum"),
        ("sum(category)", "does not fit its columns"),
        ("sum(max(amount))", "does not fit its columns"),
        ("median(amount)", "is not available: use count, sum, avg, min or max"),
        ("sum(sqrt(amount))", "is not available in a feature: use columns"),
        ("sum(amount) filter (where category ~ 'D.*')", "is not available in a feature|calls"),
        ("read_csv('secret.csv')", "calls read"),
        ("journey_stage * 2", "does not fit its columns"),
        ("journey_stage", "gives VARCHAR: a feature is a number"),
        ("5", "reads neither events .* nor features"),
        ("max(amount, 3)", r"gives .*\[\]: a feature is a number"),
        ("count(user_id)", "reads user_id, which says nothing of behaviour"),
        ("", "0 statements: write exactly one"),
        ("count()", "does not say what it takes"),
        ("count(*) filter (where amount = '5')", "amount is a number"),
        ("count(*) filter (where amount)", "amount is a number, not true or false"),
        ("count(*) filter (where amount is true)", "amount is a number, not true or false"),
        ("count(*) filter (where 1)", "1 is a number, not true or false"),
        ("count(*) and true", "is a number, not true or false"),
        ("coalesce(avg(amount), 'none')", "is a number .*and 'none' a text"),
        ("not purchase_count_28d", "purchase_count_28d is a number, not true or false"),
        ("(purchase_count_28d > 1) = 1", "cannot be computed on every engine"),
        (r"count(*) filter (where category like 'a\_b')", "has a backslash, which engines read in two ways"),
        (f"sum({' + '.join(['amount'] * 400)})", "nested too deeply"),
    ],
)
def test_what_cannot_be_is_refused(sql: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        declared(Wanted(WINDOWS, custom=(custom(sql, name="own"),)), COLUMNS)


def test_features_have_windows_of_their_own() -> None:
    with pytest.raises(ConfigError, match="which have windows of their own: take `windows` away"):
        declared(Wanted(WINDOWS, custom=(custom("purchase_count_28d * 2", 7 * DAY),)), COLUMNS)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param((custom("sum(amount)", name="known_days"),), id="a built-in"),
        pytest.param((custom("sum(amount)", 28 * DAY, name="purchase_count"),), id="a built-in with its window"),
        pytest.param((custom("sum(amount)"), custom("count(*)")), id="one before"),
        pytest.param((custom("sum(amount)", 7 * DAY, 7 * DAY),), id="itself"),
    ],
)
def test_a_name_that_is_taken_is_refused(asked: tuple[Custom, ...]) -> None:
    with pytest.raises(ConfigError, match=r"features\.custom\.\d.*there is already a feature '.*': choose another name"):
        declared(Wanted(WINDOWS, custom=asked), COLUMNS)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as told:
        declared(
            Wanted(WINDOWS, custom=(custom("sum(amout)"), custom("count(*)", name="fine"), custom("1 +", name="third"))), COLUMNS
        )
    assert [line.split(":")[0] for line in str(told.value).splitlines()] == ["features.custom.0 (own)", "features.custom.2 (third)"]


def test_what_the_config_says_of_a_feature_beyond_its_name_is_told_with_what_it_reads() -> None:
    asked = (custom("count( * ) -- all", 28 * DAY, name="n"), custom("n_28d / 2 + purchase_run_count", name="half"))
    found = declared(Wanted(WINDOWS, families=("stage",), custom=asked), COLUMNS).definitions
    assert found["n_28d"] == "COUNT(*)"
    assert found["half"] == "n_28d / 2 + purchase_run_count; n_28d: COUNT(*); purchase_run_count: lapsed_after: 56d"
    assert found.keys() == {"n_28d", "half", "purchase_run_days", "purchase_run_count", "journey_stage", "journey_stage_days"}
