"""SQL that a user writes in a config: parsed and checked against known columns before anything runs."""

from collections.abc import Collection, Iterator, Mapping

import duckdb
import sqlglot
from sqlglot import exp

from features.errors import ConfigError, did_you_mean, first_line

DIALECT = "duckdb"

_CONDITION_NODES = (
    exp.And, exp.Or, exp.Not, exp.Paren, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.In, exp.Between,
    exp.Like, exp.ILike, exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Neg, exp.Add, exp.Sub, exp.Mul,
    exp.Div, exp.Coalesce, exp.Lower, exp.Upper, exp.Abs,
)  # fmt: skip

_CLOCK_OR_CHANCE = (
    exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp, exp.CurrentDatetime, exp.CurrentUser, exp.Rand, exp.Uuid,
    exp.Localtime, exp.Localtimestamp, exp.TableSample,
)  # fmt: skip
_CLOCK_OR_CHANCE_NAMES = {"now", "today", "random", "setseed", "gen_random_uuid", "get_current_timestamp", "transaction_timestamp"}
_ALLOWED_ANONYMOUS = {
    "epoch_ms",
    "epoch_us",
    "make_timestamp",
    "make_date",
    "nullif",
    "strip_accents",
    "try_strptime",
    "timezone",
    "isfinite",
    "hash",
}


def condition(sql: str, columns: Collection[str]) -> str:
    """Check a boolean SQL expression over `columns` and return it in canonical DuckDB form.

    Comparisons, and/or/not, in, between, like, is null, arithmetic, coalesce, lower, upper and abs are allowed; nothing else
    can run.

    >>> condition("event_type='purchase' and amount>5", ["event_type", "amount"])
    "event_type = 'purchase' AND amount > 5"

    Raises ConfigError when it does not parse, uses anything else, or names an unknown column.
    """
    tree = parse(sql)
    for node in tree.walk():
        if not isinstance(node, _CONDITION_NODES):
            raise ConfigError(
                f"{sql!r} uses {node.sql(DIALECT)!r}: a rule may only compare columns and values "
                "(=, <>, <, <=, >, >=, in, between, like, is null, and, or, not, + - * /, coalesce, lower, upper, abs)"
            )
    for column in tree.find_all(exp.Column):
        if column.name not in columns or column.table:
            raise ConfigError(f"{sql!r} names the unknown column {column.sql(DIALECT)!r}: {did_you_mean(column.name, columns)}")
    return tree.sql(DIALECT)


def typed_condition(sql: str, types: Mapping[str, str]) -> str:
    """Check a condition like `condition`, and also that DuckDB can evaluate it on columns of these types (name to DuckDB type).

    >>> typed_condition("amount > 5", {"amount": "DOUBLE"})
    'amount > 5'

    Raises ConfigError, also for a comparison of text with a number, or for an expression that is not true or false.
    """
    checked = condition(sql, types)
    found = type_of(checked, types)
    if found != "BOOLEAN":
        raise ConfigError(f"{sql!r} is not a condition but a {found}: compare it with something")
    return checked


def type_of(sql: str, types: Mapping[str, str]) -> str:
    """Give the DuckDB type of a parsed and checked expression over columns of these types.

    >>> type_of("sum(amount) / 2", {"amount": "DOUBLE"})
    'DOUBLE'

    Raises ConfigError when DuckDB cannot evaluate it, as for a comparison of text with a number.
    """
    # One row of plain values: nulls would be folded away before anything is compared.
    samples = {"TIMESTAMP": "2000-01-01", "VARCHAR": "text"}
    plain = {name: samples.get(kind, "0") for name, kind in types.items()}
    row = ", ".join(f"'{plain[name]}'::{kind} AS \"{name}\"" for name, kind in types.items()) or "0"
    with duckdb.connect() as engine:
        try:
            told = engine.execute(f"SELECT typeof(met), met FROM (SELECT {sql} AS met FROM (SELECT {row}))")  # noqa: S608
            return str(told.fetchall()[0][0])
        except duckdb.Error as error:
            raise ConfigError(f"{sql!r} does not fit its columns: {first_line(error)}") from None


def refuse_clock(tree: exp.Expr, why: str) -> None:
    """Raise ConfigError when an expression asks the clock or chance, looks at other rows, or calls what is not known."""
    for name in _forbidden(tree):
        raise ConfigError(f"{tree.sql(DIALECT)!r} calls {name}: {why}")
    for node in tree.find_all(exp.Window, exp.Subquery, exp.Query):
        raise ConfigError(f"{tree.sql(DIALECT)!r} looks at other rows with {node.sql(DIALECT)!r}: {why}")


def columns_of(sql: str) -> frozenset[str]:
    """Give the columns that a checked condition reads.

    >>> sorted(columns_of("a > 1 or b is null"))
    ['a', 'b']
    """
    return frozenset(column.name for column in parse(sql).find_all(exp.Column))


def query(sql: str, tables: Collection[str]) -> str:
    """Check a source's SQL and return it in canonical DuckDB form.

    It must be one SELECT (CTEs and unions included) over the declared tables. Functions that read files, the clock or chance are
    refused: a night is a function of its inputs and its date.

    Raises ConfigError when it does not parse or steps outside that.
    """
    tree = parse(sql)
    if not isinstance(tree, exp.Query):
        raise ConfigError(f"the SQL is not a SELECT: {tree.sql(DIALECT)[:60]!r}; write one SELECT statement")
    defined = {cte.alias_or_name for cte in tree.find_all(exp.CTE)}
    if hidden := sorted(defined & set(tables)):
        raise ConfigError(f"the SQL defines {hidden[0]!r} by WITH, which is also the name of a table: use another name")
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier) or table.db or table.name not in {*tables, *defined}:
            name = table.sql(DIALECT)
            raise ConfigError(f"the SQL reads {name!r}, which is not among its tables: {did_you_mean(name, tables)}")
    canonical = tree.sql(DIALECT)
    # Twice, since writing the query out turns some names into others: utc_timestamp() becomes CURRENT_TIMESTAMP.
    for name in [*_forbidden(tree), *_forbidden(parse(canonical))]:
        raise ConfigError(f"the SQL calls {name}: files, the clock, chance and unknown functions are not available to a source")
    return canonical


def renamed(sql: str, names: Mapping[str, str]) -> str:
    """Give a checked query with its tables renamed; each stays known in the query by the alias it had.

    >>> renamed("SELECT t.a FROM t", {"t": "orders.t"})
    'SELECT t.a FROM "orders.t" AS t'
    """
    tree = parse(sql)
    defined = {cte.alias_or_name for cte in tree.find_all(exp.CTE)}
    for table in [found for found in tree.find_all(exp.Table) if found.name in names and found.name not in defined]:
        if not table.alias:
            table.set("alias", exp.TableAlias(this=table.this.copy()))
        table.set("this", exp.to_identifier(names[table.name], quoted=True))
    return tree.sql(DIALECT)


def _forbidden(tree: exp.Expr) -> Iterator[str]:
    for node in tree.find_all(exp.Func, *_CLOCK_OR_CHANCE):
        name = node.name.lower() if isinstance(node, exp.Anonymous) else node.key
        if (
            isinstance(node, exp.Anonymous)
            and name not in _ALLOWED_ANONYMOUS
            or isinstance(node, (*_CLOCK_OR_CHANCE, exp.ReadCSV, exp.ReadParquet))
            or name in _CLOCK_OR_CHANCE_NAMES
        ):
            yield f"{name}()"


def parse(sql: str) -> exp.Expr:
    """Parse exactly one statement or expression; raises ConfigError that says where it does not parse."""
    try:
        trees = [tree for tree in sqlglot.parse(sql, read=DIALECT) if tree is not None and not isinstance(tree, exp.Semicolon)]
    except sqlglot.errors.SqlglotError as error:
        raise ConfigError(f"the SQL does not parse: {_where(error)}") from None
    if len(trees) != 1:
        raise ConfigError(f"the SQL holds {len(trees)} statements: write exactly one")
    return trees[0]


def _where(error: sqlglot.errors.SqlglotError) -> str:
    details = getattr(error, "errors", None)
    if not details:
        return first_line(error)
    first = details[0]
    # Some descriptions name classes of the parser; what they mean is that something is missing there.
    said = "the expression is incomplete" if "<class" in first["description"] else first["description"]
    return f"{said} at line {first['line']}, column {first['col']}, near {first['highlight']!r}"
