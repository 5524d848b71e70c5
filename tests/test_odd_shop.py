"""A shop where everything is a little odd: ids with brackets, refunds, nobody to ask, awkward names."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from models.reasons import strongest
from pipeline.cli import app
from pipeline.settings import read_settings
from pipeline.tables import nights, read
from shops import shop_config, write_orders

NIGHT = date(2024, 8, 28)
ELIGIBLE = {"active_within": "56d"}
TARGETS = [
    {"name": "churn_28d", "kind": "absence", "horizon": "28d", "eligible": ELIGIBLE},
    {"name": "value_28d", "kind": "value", "horizon": "28d", "eligible": ELIGIBLE},
    {"name": "hasty_7d", "kind": "absence", "horizon": "7d", "eligible": {"active_within": "1d"}},
]
SEGMENTS = [
    {"name": "row_number", "purpose": "[b]odd[/b] names", "enter": "purchase_recency_days > 20"},
    {"name": "hasty", "purpose": "nobody", "enter": "hasty_7d_band = 'very_high' or hasty_7d_score > 0"},
]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd shop")
    orders = write_orders(folder / "orders.csv", users=120, days=236)
    orders["customer"] = orders.customer + "[/b] é"
    orders.loc[::3, "total"] *= -1
    orders.to_csv(folder / "orders.csv", index=False)
    # Windows in hours, out of order: the longest is 168 days, not 36 of something.
    windows = ["168d", "36h", "28d", "14d"]
    config = shop_config(folder, targets=TARGETS, segments=SEGMENTS, features={"windows": windows})
    done = run("nightly", "--config", config, "--as-of", NIGHT)
    assert done.exit_code == 0, done.output
    return config


def segments(shop: Path, day: date = NIGHT) -> pd.DataFrame:
    return read(read_settings(shop).output, "segments", day).to_pandas().sort_values("user_id", ignore_index=True)


def test_a_segment_may_have_any_name(shop: Path) -> None:
    features = read(read_settings(shop).output, "features", NIGHT).to_pandas().set_index("user_id")
    found = segments(shop).set_index("user_id").primary_segment
    expected = (features.purchase_recency_days > 20).map({True: "row_number", False: None})
    assert found.where(found.notna(), None).to_dict() == expected.where(expected.notna(), None).to_dict()


def test_nobody_to_ask_is_no_error(shop: Path) -> None:
    night = segments(shop)
    assert night[["hasty_7d_score", "hasty_7d_percentile", "hasty_7d_band"]].isna().all(axis=None)
    assert not (night.primary_segment == "hasty").any()


def test_refunds_are_learned_as_nothing_bought(shop: Path) -> None:
    assert (segments(shop).value_28d_score.dropna() >= 0).all()


def test_bands_are_fifths(shop: Path) -> None:
    counts = segments(shop).churn_28d_band.value_counts()
    assert len(counts) == 5 and counts.max() - counts.min() <= 1


def test_personas_are_of_the_longest_window(shop: Path) -> None:
    features = read(read_settings(shop).output, "features", NIGHT).to_pandas()
    assert segments(shop).persona.notna().sum() == (features.purchase_count_168d > 0).sum()


def test_ids_and_texts_are_shown_as_they_are(shop: Path) -> None:
    shown = run("show", "--config", shop)
    assert shown.exit_code == 0
    assert "[/b] é" in shown.stdout and "[b]odd[/b] names" in shown.stdout


def test_reasons_of_a_segment_say_which_way_they_pull(shop: Path) -> None:
    told = segments(shop).reason_1.dropna()
    assert len(told) and told.str[:2].isin(["↑ ", "↓ "]).all()


def test_no_user_is_in_what_a_scheduler_prints(shop: Path) -> None:
    scored = run("score", "--config", shop, "--as-of", NIGHT, "--json")
    assert scored.exit_code == 0
    assert json.loads(scored.stdout)["users"] and "[/b] é" not in scored.output


def test_a_cell_of_the_data_is_not_in_an_error(shop: Path) -> None:
    sql = read_settings(shop).sources[0].sql.replace("customer as", "cast(customer as integer) as")
    source = {"name": "orders", "tables": {"o": str(shop.parent / "orders.csv")}, "sql": sql}
    folder = shop.parent / "cast"
    folder.mkdir()
    refused = run("train", "--config", shop_config(folder, sources=[source]), "--as-of", NIGHT)
    assert refused.exit_code in (2, 3)
    assert "[/b]" not in refused.stderr


def test_a_small_source_is_not_hidden_by_a_large_one(shop: Path) -> None:
    folder = shop.parent / "small_source"
    folder.mkdir()
    (folder / "orders.csv").write_bytes((shop.parent / "orders.csv").read_bytes())
    # One row of thousands in all, and one of two of its own.
    (folder / "calls.csv").write_text("who,at\nu1,2024-05-01 10:00:00\n,2024-05-02 10:00:00\n")
    orders = {**read_settings(shop).sources[0].model_dump(), "tables": {"o": str(folder / "orders.csv")}}
    sql = "select who as user_id, at as event_ts, 'support' as event_type from c"
    calls = {"name": "calls", "tables": {"c": str(folder / "calls.csv")}, "sql": sql}
    refused = run("train", "--config", shop_config(folder, sources=[orders, calls]), "--as-of", NIGHT)
    assert refused.exit_code == 3, refused.output
    assert "1 of 2 rows of calls (50.0%) break the contract" in refused.stderr
    (folder / "calls.csv").write_text("who,at\nu1,2024-05-01 10:00:00\n")
    checked = run("validate", "--config", shop_config(folder, sources=[orders, calls]), "--as-of", NIGHT)
    assert checked.exit_code == 0, checked.output
    assert "the newest event of calls is 119 days old, longer than it was ever quiet: has it stopped?" in checked.stderr
    assert "newest event of orders" not in checked.stderr
    # Once it was quiet for longer.
    (folder / "calls.csv").write_text("who,at\nu1,2023-12-01 10:00:00\nu1,2024-05-01 10:00:00\n")
    assert "newest event" not in run("validate", "--config", shop_config(folder, sources=[orders, calls]), "--as-of", NIGHT).stderr


def test_dates_without_times_are_told(shop: Path) -> None:
    folder = shop.parent / "dates"
    folder.mkdir()
    orders = pd.read_csv(shop.parent / "orders.csv")
    orders["ordered_at"] = orders.ordered_at.str[:10]
    orders.to_csv(folder / "orders.csv", index=False)
    told = run("validate", "--config", shop_config(folder), "--as-of", NIGHT).stderr
    assert "orders gives dates without times: features of hours leave its events aside" in told
    # A date is a day wherever it is, and a time at midnight UTC is the evening before.
    told = run("validate", "--config", shop_config(folder, time_zone="America/Lima"), "--as-of", NIGHT).stderr
    assert "orders gives dates without times: features of hours leave its events aside" in told
    config = shop_config(folder, time_zone="America/Lima")
    config.write_text(config.read_text().replace("ordered_at as event_ts", "cast(ordered_at as timestamp) as event_ts"))
    told = run("validate", "--config", config, "--as-of", NIGHT).stderr
    assert "orders gives dates without times, read as midnight UTC, which is another hour in America/Lima: let its SQL" in told
    assert "dates without times" not in run("validate", "--config", shop, "--as-of", NIGHT).stderr


def test_a_night_of_long_ago_says_what_to_raise(shop: Path) -> None:
    folder = shop.parent / "long_ago"
    folder.mkdir()
    (folder / "orders.csv").write_bytes((shop.parent / "orders.csv").read_bytes())
    refused = run("validate", "--config", shop_config(folder, contract={"max_future": "1d"}), "--as-of", "2024-03-01")
    assert refused.exit_code != 0
    assert "or contract.max_future where these are good events of later nights" in refused.stderr


def test_attributes_of_which_too_many_are_broken_stop_the_night(shop: Path) -> None:
    folder = shop.parent / "broken_attributes"
    folder.mkdir()
    (folder / "orders.csv").write_bytes((shop.parent / "orders.csv").read_bytes())
    # Ten rows of thousands: among those of events they would be few.
    (folder / "members.csv").write_text("who,since,age\n" + "".join(f"u{number},,30\n" for number in range(10)))
    sql = "select who as user_id, since as known_from, age from m"
    attributes = {"tables": {"m": str(folder / "members.csv")}, "sql": sql, "columns": {"age": "number"}}
    refused = run("train", "--config", shop_config(folder, attributes=attributes), "--as-of", NIGHT)
    assert refused.exit_code == 3, refused.output
    assert "10 of 10 rows of attributes (100.0%) break the contract" in refused.stderr
    assert "10 rows of attributes: known_from is missing" in refused.stderr


def test_a_cell_of_the_attributes_is_not_in_an_error(shop: Path) -> None:
    folder = shop.parent / "attributes"
    folder.mkdir()
    (folder / "members.csv").write_text("customer,since,age\n[/b] x,2024-01-01,secret\n")
    (folder / "orders.csv").write_bytes((shop.parent / "orders.csv").read_bytes())
    sql = "select customer as user_id, since as known_from, cast(age as integer) as age from m"
    attributes = {"tables": {"m": str(folder / "members.csv")}, "sql": sql, "columns": {"age": "number"}}
    refused = run("train", "--config", shop_config(folder, attributes=attributes), "--as-of", NIGHT)
    assert refused.exit_code == 3
    assert "attributes cannot be read" in refused.stderr and "secret" not in refused.stderr


def test_an_event_type_of_the_future_switches_nothing_on(shop: Path) -> None:
    folder = shop.parent / "future"
    folder.mkdir()
    (folder / "orders.csv").write_bytes((shop.parent / "orders.csv").read_bytes())
    source = read_settings(shop).sources[0]
    sql = source.sql.replace("'purchase' as", f"case when ordered_at >= '{NIGHT}' then 'return' else 'purchase' end as")
    asked = {"name": "orders", "tables": {"o": str(folder / "orders.csv")}, "sql": sql}
    config = shop_config(folder, sources=[asked], contract={"max_future": "3650d"}, targets=[TARGET], segments=[])
    checked = run("validate", "--config", config, "--as-of", NIGHT)
    assert checked.exit_code == 0, checked.stderr
    assert "return (" in checked.stderr


def test_models_read_what_no_family_knows_and_score_where_it_is_gone(shop: Path) -> None:
    folder = shop.parent / "quizzes"
    folder.mkdir()
    orders = pd.read_csv(shop.parent / "orders.csv")
    orders.to_csv(folder / "orders.csv", index=False)
    users = sorted(orders.customer.dropna().unique())
    source = read_settings(shop).sources[0]
    quizzes = (
        "union all select customer, ordered_at, 'quiz', null, hash(order_no) % 7, "
        "case when hash(order_no) % 2 = 0 then 'easy' else 'hard' end from o where hash(order_no) % 3 = 0"
    )
    for place, more, plans in (("there", quizzes, ("gold", "basic")), ("gone", "", ("new", "new"))):
        plan = pd.DataFrame({"who": users, "since": "2024-01-01", "plan": [plans[at % 2] for at in range(len(users))]})
        plan.to_csv(folder / "plans.csv", index=False)
        sql = "select who as user_id, since as known_from, plan from p"
        attributes = {"tables": {"p": str(folder / "plans.csv")}, "sql": sql, "columns": {"plan": "text"}}
        asked = {"name": "orders", "tables": {"o": str(folder / "orders.csv")}, "sql": f"{source.sql} {more}"}
        config = shop_config(folder, sources=[asked], targets=[TARGET], segments=[], attributes=attributes)
        command = "nightly" if place == "there" else "score"
        done = run(command, "--config", config, "--as-of", NIGHT)
        assert done.exit_code == 0, done.output
        assert ("quiz (amount, 2 categories)" in done.stderr) == ("plan (2 values)" in done.stderr) == (place == "there")
        features = read(read_settings(config).output, "features", NIGHT).to_pandas()
        for name in ("quiz_count_28d", "quiz_amount_sum_168d", "quiz_hard_count_168d", "plan_is_gold"):
            assert (features[name].sum() > 0) == (place == "there")
        assert features.quiz_recency_days.isna().all() == (place == "gone")
        # A value that models never saw is none of those they know.
        assert not features.plan_is_basic.isna().any()


def test_what_happened_to_nobody_lately_gets_a_base_rate_and_stops_no_other_target(shop: Path) -> None:
    folder = shop.parent / "cake"
    folder.mkdir()
    orders = pd.read_csv(shop.parent / "orders.csv")
    orders.loc[orders.index[:2], ["department", "ordered_at"]] = ["cake", "2024-01-02 10:00:00"]
    orders.to_csv(folder / "orders.csv", index=False)
    of_cake = {"events": "category = 'cake'", "horizon": "28d", "eligible": ELIGIBLE}
    cake, spent = {"name": "cake_28d", "kind": "occurrence", **of_cake}, {"name": "cake_value", "kind": "value", **of_cake}
    config = shop_config(folder, targets=[TARGET, cake, spent], segments=[])
    done = run("nightly", "--config", config, "--as-of", NIGHT)
    assert done.exit_code == 0 and "Warning" not in done.output, done.output
    assert "cake_28d: the label is 0 in all" in done.stderr and "everybody gets the same score" in done.stderr
    scored = segments(config).set_index("user_id")
    assert scored.churn_28d_score.nunique() > 10
    assert scored.cake_28d_score.dropna().nunique() == 1 and 0 < scored.cake_28d_score.max() < 0.01
    assert set(scored.cake_value_score.dropna()) == {0.0}


TARGET = {"name": "churn_28d", "kind": "absence", "horizon": "28d", "eligible": {"active_within": "56d"}}


def test_champions_from_the_future_are_said_to_be(shop: Path) -> None:
    past = run("score", "--config", shop, "--as-of", "2024-07-01")
    assert past.exit_code == 0
    assert "the champions were trained on what was known until 2024-08-28" in past.stderr
    checks = json.loads(next(row for row in nights(read_settings(shop).output) if row["as_of"] == date(2024, 7, 1))["checks"])
    assert checks["models_trained_until"] == "2024-08-28"


def test_a_target_that_came_later_is_not_shown(shop: Path) -> None:
    more = [*TARGETS, {"name": "newt", "kind": "absence", "horizon": "28d", "eligible": ELIGIBLE}]
    folder = shop.parent / "later"
    folder.mkdir()
    shown = run("show", "--config", shop_config(folder, targets=more, segments=[], output=str(shop.parent / "out")), "--json")
    assert [row["target"] for row in json.loads(shown.stdout)["targets"]] == ["churn_28d", "value_28d", "hasty_7d"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": [{**TARGETS[0], "events": "category = 12"}]}, "does not fit its columns"),
        ({"targets": [{**TARGETS[0], "events": 5}]}, "targets.0.events: input should be a valid string"),
        ({"targets": [{**TARGETS[1], "measure": "quantity"}]}, "(value_28d) reads quantity, which no source gives"),
        ({"targets": [{**TARGETS[0], "horizon": "999999w"}]}, "is longer than 36525 days"),
        ({"training": {"seed": 5_000_000_000}}, "training.seed: input should be less than 2147483648"),
        ({"engine": {"memory": "1MB"}}, "engine.memory: '1MB' is not an amount of memory"),
        ({"time_zone": []}, "time_zone: input should be a valid string"),
        ({"output": "out[1]"}, "holds '[, ]', which tables cannot have in their path"),
        ({"output": "out?%"}, "holds '%, ?', which tables cannot have in their path"),
    ],
)
def test_values_that_cannot_work_are_refused(shop: Path, tmp_path: Path, changes: dict[str, object], said: str) -> None:
    write_orders(tmp_path / "orders.csv", users=20)
    config = shop_config(tmp_path, **{"segments": [], **changes})
    refused = run("train", "--config", config, "--as-of", "2024-10-25")
    assert refused.exit_code == 2, refused.output
    assert said in " ".join(refused.stderr.split())


def test_a_reason_never_contradicts_its_group() -> None:
    found = strongest(np.array([[-0.5, 0.3, 0.4, 0.1]]), ["spend", "spend", "spend", "gap"], most=1)
    assert (found.feature[0, 0], found.contribution[0, 0]) == (2, 0.4)
