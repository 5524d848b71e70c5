"""SQL that a user writes in a config: parsed and checked against known columns before anything runs."""

from collections.abc import Collection, Iterator, Mapping
from functools import cache, lru_cache

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
        refuse_backslash(node)
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


@lru_cache(maxsize=1024)
def understood(sql: str) -> str:
    """Write a parsed expression as it was understood, without comments: what is asked of an engine is what was checked.

    >>> understood("amount>5 /* dear */")
    'amount > 5'
    """
    return parse(sql).sql(DIALECT, comments=False)


def type_of(sql: str, types: Mapping[str, str]) -> str:
    """Give the DuckDB type of a parsed and checked expression over columns of these types.

    >>> type_of("sum(amount) / 2", {"amount": "DOUBLE"})
    'DOUBLE'

    Raises ConfigError when DuckDB cannot evaluate it, as for a comparison of text with a number.
    """
    for said in _misfits(parse(sql), types):
        raise ConfigError(f"{sql!r} does not fit its columns: {said}")
    # One row of plain values: nulls would be folded away before anything is compared.
    samples = {"TIMESTAMP": "2000-01-01", "DATE": "2000-01-01", "VARCHAR": "text"}
    read = {name: types[name] for name in sorted(columns_of(sql)) if name in types}
    row = ", ".join(f"'{samples.get(kind, '0')}'::{kind} AS \"{name}\"" for name, kind in read.items()) or "0"
    try:
        told = _engine().cursor().execute(f"SELECT typeof(met), met FROM (SELECT {understood(sql)} AS met FROM (SELECT {row}))")  # noqa: S608
        return str(told.fetchall()[0][0])
    except duckdb.Error as error:
        raise ConfigError(f"{sql!r} does not fit its columns: {first_line(error)}") from None


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    """Open what the types of expressions are asked of: it holds no data, sees no files, and to open it for each takes longer."""
    return duckdb.connect(config={"threads": 1, "enable_external_access": "false"})


_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between)
_TRUE_OR_FALSE = (exp.And, exp.Or, exp.Not, exp.Boolean, exp.Is, exp.Like, exp.ILike, *_COMPARISONS)
_NUMBERS = {"DOUBLE", "FLOAT", "REAL", "DECIMAL", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}


def refuse_backslash(node: exp.Expr) -> None:
    """Raise ConfigError for a pattern that engines read in two ways."""
    if isinstance(node, (exp.Like, exp.ILike)) and "\\" in node.expression.name:
        raise ConfigError(f"{node.sql(DIALECT)!r} has a backslash, which engines read in two ways: write _ for such a letter")


def _misfits(tree: exp.Expr, types: Mapping[str, str]) -> Iterator[str]:
    """Say where text meets a number, which DuckDB would now and then cast, or either is taken for true or false."""
    for node in tree.walk():
        if isinstance(node, (*_COMPARISONS, exp.Coalesce)):
            first, *others = (part.unnest() for part in _alike(node))
            for other in others:
                yield from _unlike(first, other, types)
                if isinstance(other, exp.Null) and not isinstance(node, exp.Coalesce):
                    yield f"{node.sql(DIALECT)} compares with NULL, which is never true: write {first.sql(DIALECT)} is null"
        for part in _conditions(node):
            kind = _kind(part, types)
            if kind in ("text", "number"):
                yield f"{part.sql(DIALECT)} is a {kind}, not true or false: compare it with something"


def _conditions(node: exp.Expr) -> tuple[exp.Expr, ...]:
    """Give the operands that must be true or false: of logic, of `is true`, of a filter, and of a branch of a case."""
    if isinstance(node, (exp.Not, exp.Where, exp.If)):
        return (node.this,)
    if isinstance(node, exp.Is) and isinstance(node.expression, exp.Boolean):
        return (node.this,)
    return (node.this, node.expression) if isinstance(node, (exp.And, exp.Or)) else ()


def _alike(node: exp.Expr) -> list[exp.Expr]:
    """Give the operands that must be of one kind."""
    if isinstance(node, (exp.In, exp.Coalesce)):
        return [node.this, *node.expressions]
    return [node.this, node.args["low"], node.args["high"]] if isinstance(node, exp.Between) else [node.this, node.expression]


def _unlike(first: exp.Expr, other: exp.Expr, types: Mapping[str, str]) -> Iterator[str]:
    kinds = {_kind(first, types): first, _kind(other, types): other}
    if not {"text", "number"} <= set(kinds):
        return
    # Told from the side of what is not written out.
    subject, value = (other, first) if isinstance(first, exp.Literal) else (first, other)
    kind = "text" if kinds["text"] is subject else "number"
    opposite = "number" if kind == "text" else "text"
    typed = f"{kind} ({types[subject.name]})" if isinstance(subject, exp.Column) else kind
    such = _other_way_round(value)
    yield (
        f"{subject.sql(DIALECT)} is a {typed} and {value.sql(DIALECT)} a {opposite}: "
        f"compare {subject.sql(DIALECT)} with a {kind}{f', such as {such}' if such else ''}"
    )


def _other_way_round(value: exp.Expr) -> str:
    """Write a number as text, and the text of a number as a number; empty where that cannot be."""
    if isinstance(value, exp.Literal) and value.is_string:
        return value.name if value.name.replace(".", "", 1).isdecimal() else ""
    return exp.Literal.string(value.sql(DIALECT)).sql(DIALECT) if isinstance(value, (exp.Literal, exp.Neg)) else ""


def _kind(node: exp.Expr, types: Mapping[str, str]) -> str | None:
    """Tell text, number and truth apart; None for times, null and what DuckDB must judge."""
    node = node.unnest()
    if isinstance(node, exp.Column):
        declared = types[node.name]
        return {"VARCHAR": "text", "BOOLEAN": "truth"}.get(declared, "number" if declared in _NUMBERS else None)
    if isinstance(node, exp.Literal):
        return "text" if node.is_string else "number"
    if isinstance(node, _TRUE_OR_FALSE):
        return "truth"
    if isinstance(node, (exp.Lower, exp.Upper)):
        return "text"
    if isinstance(node, (exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Abs, exp.Count, exp.Sum, exp.Avg)):
        return "number"
    return _kind(node.this, types) if isinstance(node, exp.Coalesce) else None


def refuse_clock(tree: exp.Expr, why: str) -> None:
    """Raise ConfigError when an expression asks the clock or chance, looks at other rows, or calls what is not known."""
    for name in _forbidden(tree):
        raise ConfigError(f"{tree.sql(DIALECT)!r} calls {name}: {why}")
    for node in tree.find_all(exp.Window, exp.Subquery, exp.Query):
        raise ConfigError(f"{tree.sql(DIALECT)!r} looks at other rows with {node.sql(DIALECT)!r}: {why}")


@lru_cache(maxsize=1024)
def columns_of(sql: str) -> frozenset[str]:
    """Give the columns that a checked condition reads.

    >>> sorted(columns_of("a > 1 or b is null"))
    ['a', 'b']
    """
    return frozenset(column.name for column in parse(sql).find_all(exp.Column))


def literals_of(sql: str) -> list[tuple[str, str | float]]:
    """Give the columns that a checked condition compares with a text or a number, and with which.

    >>> literals_of("band in ('low', 'high') and (score >= 0.5 or 3 < days)")
    [('band', 'low'), ('band', 'high'), ('score', 0.5), ('days', 3.0)]
    """
    found: list[tuple[str, str | float]] = []
    for node in parse(sql).find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between):
        sides = list(node.iter_expressions())
        columns, literals = ([side for side in sides if isinstance(side, kind)] for kind in (exp.Column, exp.Literal))
        if len(columns) == 1:
            found += [(columns[0].name, told.name if told.is_string else float(told.name)) for told in literals]
    return found


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


_KEEPS_TEXT = (
    exp.Column, exp.Identifier, exp.Paren, exp.Coalesce, exp.Concat, exp.DPipe, exp.Trim, exp.Lower, exp.Upper, exp.DataType,
)  # fmt: skip


def passed_as(sql: str, names: Collection[str]) -> set[str]:
    """Name the columns (lower case) whose text a checked query passes on as one of `names`, or as a name that ends in `_id`.

    >>> sorted(passed_as("SELECT CAST(card AS TEXT) AS user_id, price * 2 AS amount FROM t", ["user_id"]))
    ['card', 'user_id']
    """
    tree = parse(sql)
    given = [(alias.alias.lower(), read) for alias in tree.find_all(exp.Alias) if (read := _text_of(alias.this))]
    found = {*names, *(name for column in tree.find_all(exp.Column) if (name := column.name.lower()).endswith("_id"))}
    while more := {read for alias, read in given if alias in found or alias.endswith("_id")} - found:
        found |= more
    return found


def _text_of(value: exp.Expr) -> str | None:
    """Name the one column of which an expression gives the text, or None where it computes something else."""
    for node in value.walk():
        is_text = node.is_string if isinstance(node, exp.Literal) else node.is_type(*exp.DataType.TEXT_TYPES)
        if not (is_text or isinstance(node, _KEEPS_TEXT)):
            return None
    read = {column.name.lower() for column in value.find_all(exp.Column)}
    return read.pop() if len(read) == 1 else None


def quoted(text: str | list[str]) -> str:
    """Write a text, or a list of texts, as DuckDB's SQL has it.

    >>> quoted(["it's", "here"])
    "['it''s', 'here']"
    """
    return str(exp.convert(text).sql(DIALECT))


def quoted_name(name: str) -> str:
    """Write the name of a column or a table as DuckDB's SQL has it.

    >>> quoted_name("two words")
    '"two words"'
    """
    return exp.to_identifier(name, quoted=True).sql(DIALECT)


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
    if odd := next((letter for letter in sql if letter == "\0" or "\ud800" <= letter <= "\udfff"), None):
        raise ConfigError(f"the SQL holds {odd!r}, which is no letter: take it out")
    try:
        trees = [tree for tree in sqlglot.parse(sql, read=DIALECT) if tree is not None and not isinstance(tree, exp.Semicolon)]
    except sqlglot.errors.SqlglotError as error:
        raise ConfigError(f"the SQL does not parse: {_where(error)}") from None
    except RecursionError:
        raise ConfigError(f"the SQL is nested too deeply: {sql[:60]!r}…; write it with fewer brackets") from None
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
