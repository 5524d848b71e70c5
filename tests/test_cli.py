"""The command line on bad input: one clear message, the right exit code, and nothing written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline import events
from pipeline.cli import app
from shops import PURCHASES, shop_config, write_orders

AS_OF = "2024-10-25"
SQL = (
    "select customer as user_id, ordered_at as event_ts, 'purchase' as event_type, order_no as order_id, total as amount, "
    "department as category from o"
)
ELIGIBLE = {"active_within": "56d"}


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("orders") / "orders.csv"
    write_orders(path, users=40)
    return path


@pytest.fixture
def folder(tmp_path: Path, orders: Path) -> Path:
    shutil.copy(orders, tmp_path / "orders.csv")
    return tmp_path


def refused(config: Path, code: int, *said: str, command: str = "train", as_of: str = AS_OF) -> None:
    result = CliRunner().invoke(app, [command, "--config", str(config), "--as-of", as_of])
    message = " ".join(result.stderr.split())
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    for part in said:
        assert part in message
    assert "Traceback" not in message
    output = config.parent / "out"
    assert not output.exists() or {path.name for path in output.iterdir()} <= {".training.lock", ".night.lock"}


def source(folder: Path, *, path: str = "orders.csv", sql: str = SQL) -> list[dict[str, object]]:
    return [{"name": "orders", "tables": {"o": str(folder / path)}, "sql": sql}]


def test_ctrl_c_while_the_engine_computes_is_told_as_such() -> None:
    # In a process of its own, which the signal is for, and which would ignore it as a shell's job in the background. Of several
    # threads DuckDB may leave all to others and look for signals only when they are done.
    script = """
import duckdb, os, signal, threading
from pipeline.terminal import told_errors

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
with told_errors():
    duckdb.connect(config={"threads": 1}).execute("SELECT count(*) FROM range(1_000_000_000_000)").fetchall()
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert told.returncode == 130
    assert told.stderr == "interrupted: the last complete night and the champions stand as they were\n"


def test_an_unknown_key(folder: Path) -> None:
    refused(shop_config(folder, trainig={}), 2, "trainig: unknown key; did you mean training?")


def test_a_date_that_is_none(folder: Path) -> None:
    refused(shop_config(folder), 2, "--as-of 'yesterday' is not a date: write YYYY-MM-DD", as_of="yesterday")


def test_a_source_that_is_missing(folder: Path) -> None:
    refused(
        shop_config(folder, sources=source(folder, path="oders.csv")), 3, "sources.orders.tables.o: no file matches", "did you mean"
    )


def test_a_source_that_is_empty(folder: Path) -> None:
    (folder / "empty.csv").touch()
    refused(shop_config(folder, sources=source(folder, path="empty.csv")), 3, "empty.csv is empty (0 bytes)")


def test_a_source_that_is_not_what_its_name_says(folder: Path) -> None:
    shutil.copy(folder / "orders.csv", folder / "orders.parquet")
    refused(shop_config(folder, sources=source(folder, path="orders.parquet")), 3, "orders.parquet is not what its name says")


def test_a_header_without_rows(folder: Path) -> None:
    (folder / "bare.csv").write_text("customer,ordered_at,order_no,total,department\n")
    refused(shop_config(folder, sources=source(folder, path="bare.csv")), 3, "the sources orders give no rows at all")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select customer as from o", "sources.orders.sql: the SQL does not parse"),
        ("select customer as user_id, ordered_at as event_ts from o", "gives no column event_type"),
        (SQL.replace("total", "totl"), '"totl" not found in FROM clause: did you mean total?'),
        (SQL.replace("total", "o.totl"), '"totl": did you mean total?'),
        (SQL.replace("as amount", "as amout"), "'amout', which is not an event column: did you mean amount?"),
        (SQL + "; drop table o", "the SQL holds 2 statements"),
        (SQL.replace("from o", "from read_csv('/etc/passwd')"), "which is not among its tables"),
        (SQL.replace("ordered_at as", "now() as"), "the SQL calls now()"),
    ],
)
def test_sql_that_cannot_be_meant(folder: Path, sql: str, said: str) -> None:
    refused(shop_config(folder, sources=source(folder, sql=sql)), 2, said)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (SQL.replace("ordered_at as", "strptime(customer, '%Y-%m-%d') as"), 'a cell that cannot be read, by the format "%Y-%m-%d"'),
        (SQL.replace("total as", "cast(customer as double) as"), "Conversion Error: a cell that is no DOUBLE, in column customer"),
        (SQL.replace("ordered_at as", "cast(customer as date) as"), "a cell that cannot be read, in column customer"),
        (SQL.replace("ordered_at as", "cast(customer as timestamp) as"), "a cell that cannot be read, in column customer"),
        (SQL.replace("total as", "cast(substr(customer, 2) as bigint) * 9223372036854775807 as"), "Range Error: a cell that"),
        (SQL.replace("total as", "cast(cast(substr(customer, 2) as bigint) + 7000000 as tinyint) as"), "a cell that is no INT8"),
        (SQL.replace("total as", "cast(cast(substr(customer, 2) as bigint) + 7000000 as decimal(4, 1)) as"), "is no DECIMAL(4,1)"),
        (SQL.replace("total as", "cast(json_extract(customer, '$.a') as double) as"), "a cell that cannot be read"),
    ],
)
def test_a_cell_that_the_sql_cannot_turn_is_not_shown(folder: Path, sql: str, said: str) -> None:
    # A cell may be a user's id.
    config = shop_config(folder, sources=source(folder, sql=sql))
    refused(
        config,
        3,
        "the sources orders cannot be read",
        said,
        "mend the file or the SQL, or use try_cast (of dates try_strptime)",
    )
    told = CliRunner().invoke(app, ["train", "--config", str(config), "--as-of", AS_OF]).stderr
    assert not re.search(r"\bu\d+|70000\d\d|\b\d+ \*", told)


def test_a_disk_that_is_full_is_no_fault_of_the_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise duckdb.IOException('IO Error: Could not write file "judged.parquet": No space left on device')

    monkeypatch.setattr(events, "keep_in_file", full)
    refused(shop_config(folder), 1, "error (room): the disk is full", "put `output` on another disk")


def test_no_event_before_the_night(folder: Path) -> None:
    refused(shop_config(folder), 3, "no event lies before --as-of 2023-06-01: the data cover 2024-01-", as_of="2023-06-01")


def test_a_night_long_after_the_data(folder: Path) -> None:
    refused(shop_config(folder), 3, "--as-of 2025-06-01 is", "everybody would look gone", as_of="2025-06-01")


def test_too_little_history(folder: Path) -> None:
    refused(shop_config(folder), 4, "training needs 168 days: training.min_history (84d)", as_of="2024-05-01")


def test_targets_with_one_class_are_named_together(folder: Path) -> None:
    targets = [
        {"name": "never", "kind": "occurrence", "horizon": "28d", "events": "event_type = 'moon'", "eligible": ELIGIBLE},
        {"name": "always", "kind": "absence", "horizon": "28d", "events": "event_type = 'moon'", "eligible": ELIGIBLE},
        {"name": "nobody", "kind": "absence", "horizon": "28d", "eligible": {**ELIGIBLE, "events": "event_type = 'moon'"}},
        {"name": "fine", "kind": "absence", "horizon": "28d", "events": PURCHASES, "eligible": ELIGIBLE},
    ]
    refused(
        shop_config(folder, targets=targets, segments=[]),
        4,
        "nothing is trained, since a night needs a model for every target",
        "never: the label is 0 in all",
        "rows, since no event so far meets event_type = 'moon'; the event types are purchase",
        "nobody: nobody is eligible",
    )


def test_amounts_of_the_wrong_sign_are_not_learned(folder: Path) -> None:
    sources = source(folder, sql=SQL.replace("total as amount", "-total as amount"))
    refused(shop_config(folder, sources=sources), 4, "value_28d: in all", "the amount is 0 or less", "turn its sign in the SQL")


def test_no_champion_in_the_registry(folder: Path) -> None:
    refused(shop_config(folder), 4, "no champion in the registry for tea_shop.churn_28d", "beforehand train", command="score")


def test_more_broken_rows_than_allowed(folder: Path) -> None:
    rows = pd.read_csv(folder / "orders.csv")
    rows.loc[: len(rows) // 10, "customer"] = None
    rows.to_csv(folder / "orders.csv", index=False)
    refused(shop_config(folder), 3, "break the contract, contract.max_bad_share allows 1.0%", "rows of orders: user_id is missing")


def test_a_registry_that_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/all.db")
    refused(shop_config(folder), 1, "the MLflow store sqlite:////dev/null/all.db does not answer", command="score")


def test_an_output_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").touch()
    refused(shop_config(folder, output=str(folder / "file" / "out")), 1, "cannot write to", "check `output` in the config")


def test_nothing_to_show(folder: Path) -> None:
    refused(shop_config(folder), 3, "no night has been written below", command="show")


def test_validate_counts_what_would_be_rejected_and_writes_nothing(folder: Path) -> None:
    rows = pd.read_csv(folder / "orders.csv")
    known = int((pd.to_datetime(rows.ordered_at) < pd.Timestamp(AS_OF)).sum())
    rows.loc[0, "customer"] = None
    rows.loc[1, "ordered_at"] = "soon"
    rows.loc[2, "total"] = float("inf")
    rows.to_csv(folder / "orders.csv", index=False)
    config = shop_config(folder, contract={"max_bad_share": 0.5})
    result = CliRunner().invoke(app, ["validate", "--config", str(config), "--as-of", AS_OF])
    assert result.exit_code == 0
    assert "rejected     3" in result.stdout and f"events       {known - 3}\n" in result.stdout
    for said in ("user_id is missing", "event_ts is not a time", "amount is not a finite number below 1e+11"):
        assert f"quarantined 1 rows of orders: {said}" in result.stderr
    assert not (folder / "out").exists()
