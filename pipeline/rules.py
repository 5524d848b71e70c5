"""Rules of a night: conditions over its columns, checked by `features.expressions`, asked of many rows at once."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise, product
from math import ceil, floor, prod

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from features.expressions import DIALECT, columns_of, parse, quoted, understood

Truths = npt.NDArray[np.int8]
TRUE, FALSE, UNKNOWN = 1, 0, -1
_COMBINATIONS = 20_000


def truths(rows: pa.Table, rules: Sequence[str]) -> Truths:
    """Ask every row every rule: rows × rules of TRUE, FALSE and UNKNOWN, in the order given.

    The rules were checked (`features.expressions.typed_condition`), and every column that they read is in `rows`. Null and NaN are
    unknown, and so is what is divided by zero.
    """
    if not rules:
        return np.zeros((len(rows), 0), dtype=np.int8)
    read = sorted(frozenset().union(*(columns_of(rule) for rule in rules)))
    if not read:
        rows, read = pa.table({"n0": pa.nulls(len(rows))}), ["n0"]
    told = ", ".join(f'COALESCE(({understood(rule)})::TINYINT, {UNKNOWN}) AS "{at}"' for at, rule in enumerate(rules))
    found = _asked(pa.table({name: _known(rows[name]) for name in read}), f"SELECT {told} FROM told")  # noqa: S608
    return np.stack([column.to_numpy() for column in found.columns], axis=1)


def first_met(rows: pa.Table, named: Sequence[tuple[str, str]]) -> pa.Array:
    """Give each row the name of the first (name, rule) that is true of it, null where none is."""
    if not named:
        return pa.nulls(len(rows), pa.string())
    told = truths(rows, [rule for _, rule in named]) == TRUE
    names = pa.array([name for name, _ in named], pa.string())
    return names.take(pa.array(told.argmax(axis=1), mask=~told.any(axis=1)))


def why_entered(now: pa.Table, before: pa.Table | None, rule: str) -> pa.StringArray:
    """Say of each row which parts of a rule turned true, with the values that they read.

    `before` has the rows of `now` with the values of the night before, null where unknown; None when there was no such night. Where
    no part turned, all that are true are told; null where none is.

    >>> now, before = pa.table({"score": [0.43], "tier": ["gold"]}), pa.table({"score": [0.31], "tier": ["gold"]})
    >>> why_entered(now, before, "score >= 0.4 and tier = 'gold'")[0].as_py()
    'score >= 0.4 (0.43, was 0.31)'
    """
    return _why(now, before, rule, turned="{now} AND {was} IS NOT TRUE", holds="{now}", words=("", ""))


def why_left(now: pa.Table, before: pa.Table | None, enter: str, leave: str | None) -> pa.StringArray:
    """Say of each row which parts of the leaving rule turned true or unknown; without one, which of the entering no longer hold.

    Otherwise like `why_entered`.

    >>> now, before = pa.table({"score": [0.31]}), pa.table({"score": [0.43]})
    >>> why_left(now, before, "score >= 0.4", None)[0].as_py()
    'no longer score >= 0.4 (0.31, was 0.43)'
    """
    if leave is None:
        return _why(
            now, before, enter, turned="{now} IS NOT TRUE AND {was}", holds="{now} IS NOT TRUE", words=("no longer ", "not ")
        )
    turned = "{now} AND {was} IS NOT TRUE OR {now} IS NULL AND NOT {was}"
    return _why(now, before, leave, turned=turned, holds="{now} IS NOT FALSE", words=("", ""))


def parts(rule: str) -> tuple[str, ...]:
    """Split a rule into the parts that must all be true.

    >>> parts("a > 1 and (b = 2 or c = 3)")
    ('a > 1', 'b = 2 OR c = 3')
    """
    return tuple(part.sql(DIALECT, comments=False) for part in _split(parse(rule), exp.And))


def both_met(enter: str, leave: str, types: Mapping[str, str], most: Mapping[str, float] | None = None) -> str | None:
    """Find values that meet both rules, told as `column = value, …`; None where there are none, or it cannot be known.

    `types` are DuckDB types by column; a column that has a `most` goes from 0 to that. Looked for among the values that rules
    compare with, and values beside them. A leaving rule that reads other columns than the entering one is left alone: what they
    hold may be tied.

    >>> both_met("score >= 0.4", "score < 0.5", {"score": "DOUBLE"})
    'score = 0.4'
    >>> both_met("score >= 0.4", "score > 0.9", {"score": "DOUBLE"}, {"score": 1.0})
    'score = 1'
    """
    names = sorted(columns_of(enter))
    if not columns_of(leave) <= set(names):
        return None
    literals = [node for rule in (enter, leave) for node in parse(rule).find_all(exp.Literal)]
    numbers = sorted({_signed(node) for node in literals if not node.is_string})
    near: list[float] = sorted(
        {0.0, *numbers, *((one + other) / 2 for one, other in pairwise(numbers)), *(n + s for n in numbers for s in (-1, 1))}
    )
    texts = [*sorted({node.this for node in literals if node.is_string}), "another"]
    whole = sorted({float(round_(value)) for value in near for round_ in (floor, ceil)})
    ends = {name: [0.0, high, *(value for value in near if 0.0 < value < high)] for name, high in (most or {}).items()}
    tried = [ends.get(name) or {"VARCHAR": texts, "INTEGER": whole}.get(types[name], near) for name in names]
    if prod(map(len, tried)) > _COMBINATIONS:
        return None
    rows = list(product(*tried))
    table = pa.table({name: pa.array([row[at] for row in rows]) for at, name in enumerate(names)} or {"nothing": [None]})
    met = (truths(table, [enter, leave]) == TRUE).all(axis=1)
    if not met.any():
        return None
    row = rows[int(met.argmax())]
    return ", ".join(f"{name} = {_exactly(value)}" for name, value in zip(names, row, strict=True)) or "everybody"


def _signed(number: exp.Literal) -> float:
    return -float(number.this) if isinstance(number.parent, exp.Neg) else float(number.this)


def _exactly(value: float | str) -> str:
    """Write a value shortly where that is still the value: a rounded one might lie on another side of a bound."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else repr(value)


def _split(tree: exp.Expr, kind: type[exp.Connector]) -> Iterator[exp.Expr]:
    tree = tree.unnest()
    for part in tree.flatten() if isinstance(tree, kind) else ():
        yield from _split(part, kind)
    if not isinstance(tree, kind):
        yield tree


def _known(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Make NaN null, for DuckDB holds it to be above every number, and whole numbers floats, which cannot overflow."""
    if pa.types.is_integer(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    # What is wholly unknown may have come as any type, which the rule need not fit.
    return pa.nulls(len(column)) if column.null_count == len(column) else column


def _asked(told: pa.Table, sql: str) -> pa.Table:
    with _engine().cursor() as asking:
        asking.register("told", told)
        return asking.sql(sql).to_arrow_table()


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    """Open what rules are asked of; it keeps no rows, and to open it for each question takes longer than most of them."""
    # Divided by zero is null then, and not NaN, which would be above every number.
    null = {"ieee_floating_point_ops": False, "error_on_division_by_zero": False}
    engine = duckdb.connect(config={"threads": 1, "preserve_insertion_order": True, **null})
    engine.execute(_MACROS)
    return engine


# Three significant digits, all of a whole number.
_MACROS = """
CREATE MACRO rounded(x) AS CASE
    WHEN x = 0 OR NOT isfinite(x) THEN x
    WHEN abs(x) >= 100 THEN round(x)
    ELSE round(x, 2 - floor(log10(abs(x)))::INTEGER) END;
CREATE MACRO plain(x) AS CASE WHEN x = trunc(x) AND abs(x) < 1e15 THEN x::BIGINT::VARCHAR ELSE x::VARCHAR END;
"""


def _why(now: pa.Table, before: pa.Table | None, rule: str, *, turned: str, holds: str, words: tuple[str, str]) -> pa.StringArray:
    nights = {"n": now} if before is None else {"n": now, "w": before}
    told = pa.table(
        {f"{night}{at}": _known(rows[name]) for night, rows in nights.items() for at, name in enumerate(sorted(columns_of(rule)))}
        or {"n": pa.nulls(len(now))}
    )
    numbers = frozenset(name for name in told.column_names if pa.types.is_floating(told.schema.field(name).type))
    sql = _why_sql(rule, numbers, turned=turned, holds=holds, words=words, with_before=before is not None)
    return _asked(told, sql)["why"].cast(pa.string()).combine_chunks()


@lru_cache(maxsize=1024)
def _why_sql(rule: str, numbers: frozenset[str], *, turned: str, holds: str, words: tuple[str, str], with_before: bool) -> str:
    """Write the question that `_why` asks; a night asks it of every batch."""
    tree = parse(rule)
    # An alternative that turned is told without the others.
    found = list(_split(tree, exp.Or if isinstance(tree.unnest(), exp.Or) else exp.And))
    read = sorted(columns_of(rule))
    asked = [f"rounded({name}) AS r{name}" for name in sorted(numbers)]
    asked += [
        f"({_placed(part, read, night)}) AS {night}p{at}"
        for night in ("nw" if with_before else "n")
        for at, part in enumerate(found)
    ]
    # Parts that turned are told with what was; else those that hold, without.
    choices = [(turned, True, words[0]), (holds, False, words[1])][0 if with_before else 1 :]
    whys = [
        "NULLIF(CONCAT_WS('; ', "
        + ", ".join(
            f"CASE WHEN {when.format(now=f'np{at}', was=f'wp{at}')} THEN {_text(part, read, numbers, word, with_was=with_was)} END"
            for at, part in enumerate(found)
        )
        + "), '')"
        for when, with_was, word in choices
    ]
    return f"SELECT COALESCE({', '.join(whys)}) AS why FROM (SELECT *, {', '.join(asked)} FROM told)"  # noqa: S608


def _placed(part: exp.Expr, read: Sequence[str], night: str) -> str:
    placed = part.copy().transform(
        lambda node: exp.column(f"{night}{read.index(node.name)}") if isinstance(node, exp.Column) else node
    )
    return placed.sql(DIALECT, comments=False)


def _text(part: exp.Expr, read: Sequence[str], numbers: frozenset[str], word: str, *, with_was: bool) -> str:
    """Give SQL that tells a part with its values."""
    names = sorted({column.name for column in part.find_all(exp.Column)}, key=read.index)
    bounds = sorted({node.sql(DIALECT) for node in part.find_all(exp.Literal) if not node.is_string})
    shown = exp.paren(part) if word and isinstance(part, exp.Connector) else part
    pieces = [quoted(f"{word}{shown.sql(DIALECT, comments=False)}" + (" (" if names else ""))]
    for name in names:
        now, was = (f"{night}{read.index(name)}" for night in "nw")
        pieces += [quoted(f"{', ' if name != names[0] else ''}{f'{name} ' if len(names) > 1 else ''}")]
        value = _value(now, was if with_was else None, numbers, bounds)
        if with_was:
            same, earlier = f"{now} IS NOT DISTINCT FROM {was}", _value(was, now, numbers, bounds)
            value = f"IF({same}, 'still ', '') || {value} || IF({same}, '', ', was ' || {earlier})"
        pieces.append(value)
    return " || ".join([*pieces, *(["')'"] if names else [])])


def _value(name: str, other: str | None, numbers: frozenset[str], bounds: Sequence[str]) -> str:
    """Give SQL of a value's text, with all its digits where fewer would put it on another side of a bound, or make two the same."""
    if name not in numbers:
        return f"COALESCE({name}::VARCHAR, 'not known')"
    moved = [f"sign({name} - {sign}{bound}) <> sign(r{name} - {sign}{bound})" for bound in bounds for sign in ("", "-")]
    if other in numbers:
        moved.append(f"{name} <> {other} AND r{name} = r{other}")
    text = f"CASE WHEN {' OR '.join(moved)} THEN plain({name}) ELSE plain(r{name}) END" if moved else f"plain(r{name})"
    return f"COALESCE({text}, 'not known')"
