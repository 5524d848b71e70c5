"""Expressions: what a config's SQL may say, and what it may not."""

import pytest

from features.errors import ConfigError
from features.expressions import columns_of, condition, query, renamed

COLUMNS = ("event_type", "amount", "category")


@pytest.mark.parametrize(
    ("sql", "canonical"),
    [
        ("amount>5", "amount > 5"),
        ("amount != 5", "amount <> 5"),
        ("event_type='a' OR event_type='b' AND amount<=2", "event_type = 'a' OR event_type = 'b' AND amount <= 2"),
        ("not (amount >= -1.5)", "NOT (amount >= -1.5)"),
        ("event_type in ('a', 'b')", "event_type IN ('a', 'b')"),
        ("event_type not in ('a')", "NOT event_type IN ('a')"),
        ("amount between 1 and 2", "amount BETWEEN 1 AND 2"),
        ("category like 'A%' or category ilike 'b_'", "category LIKE 'A%' OR category ILIKE 'b_'"),
        ("category is not null", "NOT category IS NULL"),
        ("coalesce(amount, 0) + 1 - 2 * 3 / 4 > abs(amount)", "COALESCE(amount, 0) + 1 - 2 * 3 / 4 > ABS(amount)"),
        ("lower(category) = 'deli' and upper(category) = 'DELI'", "LOWER(category) = 'deli' AND UPPER(category) = 'DELI'"),
        ("category = 'it''s; drop table t'", "category = 'it''s; drop table t'"),
        ("(amount > 5) is not true", "NOT (amount > 5) IS TRUE"),
        ("true", "TRUE"),
    ],
)
def test_condition_is_given_back_in_canonical_form(sql: str, canonical: str) -> None:
    assert condition(sql, COLUMNS) == canonical


@pytest.mark.parametrize(
    "sql",
    [
        "amount = (select 1)",
        "event_type in (select 'a')",
        "exists (select 1)",
        "random() > 0.5",
        "getenv('HOME') = 'x'",
        "now() > '2024-01-01'",
        "cast(amount as int) > 1",
        "case when amount > 1 then true else false end",
        "count(*) > 1",
        "category ~ 'x'",
        "amount > ?",
        "*",
    ],
)
def test_condition_refuses_what_a_rule_may_not_do(sql: str) -> None:
    with pytest.raises(ConfigError, match=r"a rule may only compare columns and values \(=, <>, <, <=, >, >=, in, between"):
        condition(sql, COLUMNS)


def test_condition_suggests_the_nearest_column() -> None:
    with pytest.raises(ConfigError, match="names the unknown column 'amout': did you mean amount?"):
        condition("amout > 1", COLUMNS)


def test_condition_lists_the_columns_when_none_is_near() -> None:
    with pytest.raises(ConfigError, match="names the unknown column 'zzz': known: amount, category, event_type"):
        condition("zzz > 1", COLUMNS)


def test_condition_refuses_a_column_of_a_table() -> None:
    with pytest.raises(ConfigError, match=r"names the unknown column 'event\.amount'"):
        condition("event.amount > 1", COLUMNS)


@pytest.mark.parametrize("parse", [lambda sql: condition(sql, COLUMNS), lambda sql: query(sql, ["o"]), columns_of])
def test_text_that_does_not_parse_is_located(parse: object) -> None:
    with pytest.raises(ConfigError, match=r"the SQL does not parse: .* at line 1, column \d+, near"):
        parse("amount > > 1 (")  # type: ignore[operator]


def test_unfinished_string_does_not_parse() -> None:
    with pytest.raises(ConfigError, match="the SQL does not parse"):
        condition("category = 'deli", COLUMNS)


@pytest.mark.parametrize("sql", ["", "  ", "-- nothing"])
def test_nothing_is_refused(sql: str) -> None:
    with pytest.raises(ConfigError, match="the SQL holds 0 statements: write exactly one"):
        query(sql, ["o"])


def test_two_statements_are_refused() -> None:
    with pytest.raises(ConfigError, match="the SQL holds 2 statements: write exactly one"):
        condition("amount > 1; drop table event", COLUMNS)


def test_columns_of_a_condition() -> None:
    assert columns_of("amount > 1 or lower(category) = 'deli'") == {"amount", "category"}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM o",
        "SELECT o.a, p.b FROM o LEFT JOIN p ON o.a = p.a WHERE NOT o.a IS NULL",
        "WITH w AS (SELECT a FROM o) SELECT a FROM w",
        "SELECT a FROM o UNION ALL SELECT b FROM p",
        "SELECT a, ROW_NUMBER() OVER (PARTITION BY a ORDER BY b) AS n FROM o",
        "SELECT EPOCH_MS(a) AS event_ts, STRFTIME(a, '%Y') AS y, TRY_CAST(b AS DOUBLE) AS amount FROM o",
    ],
)
def test_query_over_declared_tables_is_allowed(sql: str) -> None:
    assert query(sql, ["o", "p"]) == sql


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("select * from payments", "payments"),
        ("select * from o join payments using (a)", "payments"),
        ("select (select max(a) from payments) from o", "payments"),
        ("with w as (select * from payments) select * from w", "payments"),
        ("select * from main.o", "main.o"),
        ("select * from information_schema.tables", "information_schema.tables"),
        ("select * from 'secret.csv'", '"secret.csv"'),
        ("select * from read_csv('secret.csv')", "READ_CSV"),
        ("select * from read_parquet('secret.parquet')", "READ_PARQUET"),
        ("select * from read_text('/etc/passwd')", "READ_TEXT"),
        ("select * from glob('/etc/*')", "GLOB"),
        ("select * from duckdb_settings()", "DUCKDB_SETTINGS"),
        ("select * from query('select 1')", "QUERY"),
    ],
)
def test_query_over_anything_else_is_refused(sql: str, table: str) -> None:
    with pytest.raises(ConfigError, match="which is not among its tables: ") as error:
        query(sql, ["o"])
    assert table in str(error.value)


def test_query_suggests_the_nearest_table() -> None:
    with pytest.raises(ConfigError, match="the SQL reads 'ordrs', which is not among its tables: did you mean orders?"):
        query("select * from ordrs", ["orders", "products"])


@pytest.mark.parametrize(
    "call",
    [
        "now()",
        "today()",
        "current_date",
        "current_timestamp",
        "current_time",
        "get_current_timestamp()",
        "transaction_timestamp()",
        "age(a)",
        "random()",
        "uuid()",
        "gen_random_uuid()",
        "setseed(0.5)",
        "getenv('HOME')",
        "current_setting('threads')",
        "nextval('s')",
        "current_user",
        "no_such_function(a)",
    ],
)
def test_query_may_not_call_the_clock_chance_or_the_unknown(call: str) -> None:
    with pytest.raises(ConfigError, match=r"the SQL calls \w+\(\): files, the clock, chance and unknown functions are not"):
        query(f"select {call} as event_ts from o", ["o"])


@pytest.mark.parametrize(
    "sql",
    [
        "select localtimestamp as event_ts from o",
        "select localtime as event_ts from o",
        "select * from o tablesample 10%",
        "select * from o using sample 10 rows",
    ],
)
def test_query_may_not_ask_the_clock_or_chance_by_another_name(sql: str) -> None:
    with pytest.raises(ConfigError):
        query(sql, ["o"])


@pytest.mark.parametrize("call", ["utc_timestamp()", "utc_time()", "utc_date()"])
def test_query_may_not_ask_the_clock_of_another_dialect(call: str) -> None:
    with pytest.raises(ConfigError):
        query(f"select {call} as event_ts from o", ["o"])


def test_comment_after_the_last_semicolon_is_no_statement() -> None:
    assert query("select a from o; -- done", ["o"]) == "SELECT a FROM o"


@pytest.mark.parametrize("sql", ["drop table o", "copy (select 1) to 'x.csv'", "attach 'x.db'", "insert into o values (1)"])
def test_only_a_select_is_a_query(sql: str) -> None:
    with pytest.raises(ConfigError, match=r"the SQL is not a SELECT: .*; write one SELECT statement"):
        query(sql, ["o"])


def test_query_may_not_hide_a_table_behind_a_with() -> None:
    with pytest.raises(ConfigError, match="the SQL defines 'o' by WITH, which is also the name of a table: use another name"):
        query("with o as (select 1 as a) select * from o", ["o"])


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM o", 'SELECT a FROM "orders.o" AS o'),
        ("SELECT o.a FROM o JOIN p USING (a)", 'SELECT o.a FROM "orders.o" AS o JOIN "orders.p" AS p USING (a)'),
        ("SELECT x.a FROM o AS x, o AS y", 'SELECT x.a FROM "orders.o" AS x, "orders.o" AS y'),
        ("WITH w AS (SELECT a FROM o) SELECT a FROM w", 'WITH w AS (SELECT a FROM "orders.o" AS o) SELECT a FROM w'),
    ],
)
def test_renamed_tables_keep_their_alias(sql: str, expected: str) -> None:
    assert renamed(sql, {"o": "orders.o", "p": "orders.p"}) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM (o JOIN p ON o.a = p.a)", 'SELECT * FROM ("orders.o" AS o JOIN "orders.p" AS p ON o.a = p.a)'),
        ("SELECT x FROM o AS t(x, y)", 'SELECT x FROM "orders.o" AS t(x, y)'),
        ('SELECT "order".a FROM "order"', 'SELECT "order".a FROM "orders.order" AS "order"'),
    ],
)
def test_renamed_tables_keep_joins_column_names_and_quotes(sql: str, expected: str) -> None:
    assert renamed(sql, {"o": "orders.o", "p": "orders.p", "order": "orders.order"}) == expected
