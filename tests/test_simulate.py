"""The simulated shop: the same shop for the same arguments, no impossible event, and a planted truth that can be found again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from features.errors import ConfigError, StoreError
from pipeline import simulate as simulation
from pipeline.cli import app
from pipeline.progress import Narrator
from pipeline.settings import read_settings
from pipeline.simulate import TABLES, simulate
from pipeline.terminal import terminal

DAYS = 400
START, END = pd.Timestamp("2024-01-01"), pd.Timestamp("2025-02-04")
WHEN = {"clicks": "clicked_at", "orders": "ordered_at", "returns": "returned_at", "messages": "at", "support": "at"}


def run(output: Path, **changes: int) -> dict[str, object]:
    return simulate(output, Narrator(terminal(stderr=True)), **{"users": 300, "days": 60, "seed": 7, "jobs": 1, **changes})


def read(shop: Path) -> dict[str, pa.Table]:
    tables = {name: pq.read_table(shop / name) for name in TABLES}
    return tables | {"truth": pq.read_table(shop / "truth" / "users.parquet")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("simulated") / "shop"
    run(output, users=4_000, days=DAYS)
    return output


@pytest.fixture(scope="module")
def shop(folder: Path) -> dict[str, pd.DataFrame]:
    return {name: table.to_pandas() for name, table in read(folder).items()}


@pytest.fixture(scope="module")
def truth(shop: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return shop["truth"].set_index("user_id")


def test_the_same_arguments_give_the_same_shop_whatever_the_jobs(tmp_path: Path) -> None:
    told = [run(tmp_path / str(jobs), users=10_050, days=20, jobs=jobs) for jobs in (1, 2)]
    assert told[0] == {**told[1], "output": told[0]["output"]}
    one, two = read(tmp_path / "1"), read(tmp_path / "2")
    assert all(one[name].equals(two[name]) for name in one)
    assert len(list((tmp_path / "1" / "clicks").iterdir())) == 2
    assert (tmp_path / "1" / "truth" / "shop.json").read_text() == (tmp_path / "2" / "truth" / "shop.json").read_text()


def test_a_user_does_not_depend_on_other_chunks(tmp_path: Path) -> None:
    run(tmp_path / "few", users=10_000, days=20)
    run(tmp_path / "more", users=10_050, days=20)
    for name, table in read(tmp_path / "few").items():
        more = pq.read_table(tmp_path / "more" / ("truth/users.parquet" if name == "truth" else name))
        assert more.slice(0, len(table)).equals(table)


def test_other_seeds_give_other_shops(tmp_path: Path) -> None:
    assert not read_orders(tmp_path / "a", seed=1).equals(read_orders(tmp_path / "b", seed=2))


def read_orders(output: Path, *, seed: int) -> pa.Table:
    run(output, seed=seed)
    return pq.read_table(output / "orders")


def test_the_tables_have_the_stated_columns(folder: Path) -> None:
    where = ["region", "utc_offset_minutes"]
    visit, item = ["channel", "device", "source", *where], ["item_id", "category", "brand"]
    names = {name: table.schema.names for name, table in read(folder).items()}
    assert names == {
        "clicks": ["user_id", "session_id", "clicked_at", "action", *item, "price", *visit],
        "orders": ["user_id", "order_id", "session_id", "ordered_at", *item, "quantity", "amount", "discount", "coupon", *visit],
        "returns": ["user_id", "order_id", *item, "returned_at", "amount", "channel", *where],
        "messages": ["user_id", "campaign", "sent_at", "channel", "action", "at"],
        "support": ["user_id", "at", "channel"],
        "members": ["user_id", "valid_from", "tier", "accepts_email"],
        "truth": [
            *[
                "user_id",
                "persona",
                "churn_hazard_per_day",
                "left_at",
                "promotion_sensitivity",
                "contact_response",
                "mean_gap_days",
            ],
            *["gap_shape", "joined_at", "slows_before_leaving"],
        ],
    }
    for name, column in WHEN.items():
        assert read(folder)[name].schema.field(column).type == pa.timestamp("us")


def test_ids_are_short_and_codes_are_the_stated_ones(shop: dict[str, pd.DataFrame]) -> None:
    for table in shop.values():
        for column in table.columns.intersection(["user_id", "session_id", "order_id", "item_id", "campaign", "coupon"]):
            assert table[column].dropna().str.len().max() <= 12
    assert set(shop["clicks"].action) == {"view", "cart", "checkout"}
    assert set(shop["clicks"].channel) == {"web", "app"} and set(shop["orders"].channel) == {"web", "app", "store"}
    assert set(shop["messages"].action) == {"sent", "opened", "clicked", "unsubscribed"}
    assert set(shop["members"].tier) == {"none", "silver", "gold"}
    for column, share in (("device", 0.03), ("source", 0.05), ("region", 0.01)):
        assert shop["clicks"][column].isna().mean() == pytest.approx(share, abs=0.01)


def test_the_number_of_events_is_about_forty_a_user_and_year(folder: Path) -> None:
    events = json.loads((folder / "truth" / "shop.json").read_text())["rows"]
    assert 30 < sum(events[name] for name in WHEN) / 4_000 / (DAYS / 365) < 50


def test_nothing_happens_before_joining_after_leaving_or_outside_the_simulation(
    shop: dict[str, pd.DataFrame], truth: pd.DataFrame
) -> None:
    left, joined = truth.left_at.fillna(pd.Timestamp("2200-01-01")), truth.joined_at
    for name, column in WHEN.items():
        table = shop[name]
        # The company goes on writing to those who left: it does not know.
        done = table[table.action != "sent"] if name == "messages" else table
        assert table[column].between(START, END, inclusive="left").all()
        assert (table[column].to_numpy() >= joined[table.user_id].to_numpy()).all()
        assert (done[column].to_numpy() < left[done.user_id].to_numpy()).all()
    sent = shop["messages"][shop["messages"].action == "sent"]
    assert (sent["at"].to_numpy() > left[sent.user_id].to_numpy()).any()


def test_returns_belong_to_earlier_purchases(shop: dict[str, pd.DataFrame]) -> None:
    both = shop["returns"].merge(shop["orders"], on=["user_id", "order_id", "item_id"], suffixes=("", "_paid"), validate="1:1")
    assert len(both) == len(shop["returns"]) > 100
    assert (both.returned_at > both.ordered_at).all() and (both.amount == both.amount_paid).all() and (both.amount > 0).all()


def test_messages_are_opened_after_they_are_sent_and_clicked_after_that(shop: dict[str, pd.DataFrame]) -> None:
    times = shop["messages"].pivot(index=["user_id", "campaign"], columns="action", values="at")
    opened, clicked, gone = (times.dropna(subset=[name]) for name in ("opened", "clicked", "unsubscribed"))
    assert (opened.opened > opened["sent"]).all() and (clicked.clicked > clicked.opened).all() and len(gone) > 50
    assert (gone.unsubscribed > gone.opened).all()


def test_nobody_is_mailed_after_unsubscribing_or_against_their_will(shop: dict[str, pd.DataFrame]) -> None:
    mail = shop["messages"][(shop["messages"].channel == "email") & (shop["messages"].action == "sent")].sort_values("at")
    members = shop["members"].sort_values("valid_from")
    assert pd.merge_asof(mail, members, left_on="at", right_on="valid_from", by="user_id").accepts_email.all()


def test_orders_come_from_carts_of_their_session_or_from_the_store(shop: dict[str, pd.DataFrame]) -> None:
    orders, clicks = shop["orders"], shop["clicks"]
    assert (orders.session_id.isna() == (orders.channel == "store")).all()
    carts = clicks[clicks.action == "cart"]
    online = orders.dropna(subset=["session_id"])
    both = online.merge(carts, on=["user_id", "session_id", "item_id"], suffixes=("", "_cart"), validate="1:1")
    assert len(both) == len(online) and (both.ordered_at > both.clicked_at).all()
    np.testing.assert_allclose(both.amount, both.quantity * both.price - both.discount, atol=0.005)
    assert 0.5 < len(both) / len(carts) < 0.8


def test_tiers_follow_past_spend(shop: dict[str, pd.DataFrame]) -> None:
    changes = shop["members"][shop["members"].tier != "none"].sample(50, random_state=1)
    for row in changes.itertuples():
        month = row.valid_from.normalize().replace(day=1)
        orders = shop["orders"][shop["orders"].user_id == row.user_id]
        paid = orders[orders.ordered_at.between(month - pd.DateOffset(months=6), month, inclusive="left")].amount.sum()
        assert row.tier == ("gold" if paid >= 500 else "silver") and paid >= 150


def test_local_hours_and_weekends_follow_the_persona_through_daylight_saving(
    shop: dict[str, pd.DataFrame], truth: pd.DataFrame
) -> None:
    clicks = shop["clicks"]
    local = clicks.clicked_at + pd.to_timedelta(clicks.utc_offset_minutes, unit="min")
    persona = clicks.user_id.map(truth.persona)
    weekend = (local.dt.day_of_week >= 5).groupby(persona).mean()
    assert weekend["weekend_family"] > 0.45 and weekend["power_user"] < 0.25
    late = ((local.dt.hour >= 20) & (local.dt.hour < 24)).groupby(persona).mean()
    assert late["window_shopper"] > 0.45 > 0.15 > late["loyal_regular"]
    for zone, name in (("america", "America/New_York"), ("central", "Europe/Berlin")):
        mine = clicks[clicks.region == zone]
        there = mine.clicked_at.dt.tz_localize("UTC").dt.tz_convert(name).dt.tz_localize(None)
        assert (there == local[mine.index]).all() and mine.utc_offset_minutes.nunique() == 2


def test_bargain_hunters_buy_what_is_cheaper(shop: dict[str, pd.DataFrame], truth: pd.DataFrame) -> None:
    cheaper = (shop["orders"].discount > 0).groupby(shop["orders"].user_id.map(truth.persona)).mean()
    assert cheaper.idxmax() == "bargain_hunter" and cheaper["bargain_hunter"] > 1.5 * cheaper["loyal_regular"]


def test_december_is_the_gifters_month(shop: dict[str, pd.DataFrame], truth: pd.DataFrame) -> None:
    orders = shop["orders"].drop_duplicates("order_id")
    december = (orders.ordered_at.dt.month == 12).groupby(orders.user_id.map(truth.persona)).mean()
    assert december.idxmax() == "occasional_gifter"


def test_regular_users_come_at_regular_intervals(shop: dict[str, pd.DataFrame], truth: pd.DataFrame) -> None:
    visits = shop["orders"].drop_duplicates("order_id").sort_values("ordered_at")
    gaps = visits.groupby("user_id").ordered_at.diff().dropna().dt.total_seconds().groupby(visits.user_id)
    spread = (gaps.std() / gaps.mean())[gaps.size() >= 6].groupby(truth.persona).median()
    assert spread["loyal_regular"] < 0.85 * spread["power_user"]


def test_contact_raises_visits_of_those_who_respond(shop: dict[str, pd.DataFrame], truth: pd.DataFrame) -> None:
    days = (shop["clicks"].drop_duplicates("session_id").clicked_at - START).dt.days
    visits = np.zeros((len(truth), DAYS))
    np.add.at(visits, (truth.index.get_indexer(shop["clicks"].user_id[days.index]), days), 1)
    sent = shop["messages"][shop["messages"].action == "sent"]
    after = np.zeros((len(truth), DAYS + 6), dtype=bool)
    for ahead in range(1, 6):
        after[truth.index.get_indexer(sent.user_id), (sent["at"] - START).dt.days + ahead] = True
    reachable = truth.index.isin(sent.user_id)
    alive = np.arange(DAYS) >= ((truth.joined_at - START).dt.days + 1).to_numpy()[:, None]
    alive &= np.arange(DAYS) < (truth.left_at.fillna(END) - START).dt.days.to_numpy()[:, None]

    def ratio(who: pd.Series) -> float:
        rows = (who & reachable).to_numpy()
        on, off = after[rows, :DAYS] & alive[rows], ~after[rows, :DAYS] & alive[rows]
        # Within users: what each would have had on the contacted days at the pace of the other days.
        pace = (visits[rows] * off).sum(axis=1) / np.maximum(off.sum(axis=1), 1)
        return float((visits[rows] * on).sum() / (pace * on.sum(axis=1)).sum())

    assert ratio(truth.contact_response > 0.4) > 1.3
    assert 0.75 < ratio(truth.contact_response.between(-0.1, 0.1)) < 1.25


def test_support_is_called_more_before_leaving(shop: dict[str, pd.DataFrame], truth: pd.DataFrame) -> None:
    calls = shop["support"]
    ahead = truth.left_at[calls.user_id].to_numpy() - calls["at"].to_numpy()
    last, before = (((ahead >= np.timedelta64(a, "D")) & (ahead < np.timedelta64(b, "D"))).sum() for a, b in ((0, 30), (60, 90)))
    assert last > 1.5 * before


def test_the_truth_is_kept_aside(folder: Path) -> None:
    config = Path(__file__).parents[1] / "configs" / "clickstream.yaml"
    assert all("truth" not in table for source in read_settings(config).sources for table in source.tables.values())
    planted = set(read(folder)["truth"].schema.names) - {"user_id"}
    assert not any(planted & set(read(folder)[name].schema.names) for name in TABLES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--users", "0"], "--users 0: must be a whole number from 1 to 10,000,000"),
        (["--days", "-3"], "--days -3: must be a whole number from 1 to 3,660"),
        (["--users", "99999999999"], "--users 99999999999: must be"),
        (["--jobs", "0"], "--jobs 0: must be"),
        (["--seed", "-1"], "--seed -1: must be"),
        (["--start", "someday"], "--start 'someday' is not a date: write YYYY-MM-DD"),
    ],
)
def test_bad_input_names_the_option(tmp_path: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["simulate", "--users", "5", "--days", "5", "--output", str(tmp_path / "shop"), *options])
    assert result.exit_code == 2 and result.stdout == ""
    assert said in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(ConfigError, match="holds something else than a simulated shop"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="is a file: name a folder"):
        run(tmp_path / "thesis.txt")
    with pytest.raises(ConfigError, match="cannot be written"):
        run(tmp_path / "thesis.txt" / "shop")


def test_a_shop_is_replaced_and_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    output = tmp_path / "shop"
    output.mkdir()
    run(output, users=20)
    left = tmp_path / ".shop.unfinished" / "clicks"
    left.mkdir(parents=True)
    (left / "part-00009.parquet").touch()
    run(output, users=10)
    assert len(read(output)["truth"]) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


@pytest.mark.parametrize(("error", "shown"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), StoreError)])
def test_a_run_that_dies_leaves_the_shop_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, shown: type[BaseException]
) -> None:
    output = tmp_path / "shop"
    run(output, users=20)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(simulation, "_write_chunk", fail)
    with pytest.raises(shown):
        run(output, users=10)
    assert len(read(output)["truth"]) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_one_user_for_one_day(tmp_path: Path) -> None:
    assert run(tmp_path / "shop", users=1, days=1)["users"] == 1
    assert {len(read(tmp_path / "shop")["truth"]), len(list((tmp_path / "shop" / "clicks").iterdir()))} == {1}


def test_the_command_prints_counts_and_nothing_else_as_json(tmp_path: Path) -> None:
    options = ["--users", "50", "--days", "30", "--jobs", "1", "--output", str(tmp_path / "shop"), "--json"]
    result = CliRunner().invoke(app, ["simulate", *options])
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["rows"].keys() == set(TABLES) and told["users"] == 50
