"""SQL expressions of a config as Ibis expressions, so that they mean the same on every engine.

Only what is listed here can run: comparisons, logic, arithmetic, case, and a few plain functions.
"""

from collections.abc import Callable
from operator import add, and_, eq, ge, gt, le, lt, mul, ne, or_, sub
from typing import Any

import ibis
from ibis.common.deferred import Deferred, Just
from sqlglot import exp

from features.errors import ConfigError
from features.expressions import DIALECT, refuse_backslash

# A deferred expression; it has the methods of what it will be.
Value = Any
AGGREGATES = (exp.AggFunc, exp.Filter)
_DEEPEST = 150

_BINARY: dict[type[exp.Expr], Callable[[Value, Value], Value]] = {
    exp.Add: add, exp.Sub: sub, exp.Mul: mul, exp.And: and_, exp.Or: or_,
    exp.EQ: eq, exp.NEQ: ne, exp.GT: gt, exp.GTE: ge, exp.LT: lt, exp.LTE: le,
}  # fmt: skip
_UNARY: dict[type[exp.Expr], Callable[[Value], Value]] = {
    exp.Paren: lambda value: value,
    exp.Not: lambda value: ~value,
    exp.Neg: lambda value: -value,
    exp.Abs: lambda value: value.abs(),
    exp.Lower: lambda value: value.lower(),
    exp.Upper: lambda value: value.upper(),
}


def translated(tree: exp.Expr, column: Callable[[str], Value], aggregate: Callable[[exp.Expr], Value] | None = None) -> Value:
    """Give the Ibis expression of a parsed SQL expression; `column` gives a column's value, `aggregate` that of an aggregate call.

    Division by zero is null. Raises ConfigError for anything that is not available, or nested deeper than engines go.
    """
    _refuse_depth(tree)

    def value(node: exp.Expr) -> Value:
        if aggregate is not None and isinstance(node, AGGREGATES):
            return aggregate(node)
        if isinstance(node, exp.And | exp.Or):
            return _balanced([value(part) for part in node.flatten()], _BINARY[type(node)])
        if type(node) in _BINARY:
            return _BINARY[type(node)](value(node.this), value(node.expression))
        if type(node) in _UNARY:
            return _UNARY[type(node)](value(node.this))
        match node:
            case exp.Column() if not node.table:
                return column(node.name)
            case exp.Literal():
                return _constant(node.this if node.is_string else float(node.this))
            case exp.Boolean():
                return _constant(bool(node.this))
            case exp.Null():
                return ibis.null()
            case exp.Div():
                return value(node.this) / value(node.expression).nullif(0.0)
            case exp.Is() if isinstance(node.expression, exp.Null):
                return value(node.this).isnull()
            case exp.Is() if isinstance(node.expression, exp.Boolean):
                # Of what is unknown neither is true.
                return (value(node.this) == bool(node.expression.this)).fill_null(False)
            case exp.In() if node.expressions:
                return value(node.this).isin([value(item) for item in node.expressions])
            case exp.Between():
                return value(node.this).between(value(node.args["low"]), value(node.args["high"]))
            case exp.Like() | exp.ILike():
                refuse_backslash(node)
                text, pattern = value(node.this), value(node.expression)
                return text.ilike(pattern) if isinstance(node, exp.ILike) else text.like(pattern)
            case exp.Coalesce():
                return ibis.coalesce(value(node.this), *(value(item) for item in node.expressions))
            case exp.Nullif():
                return value(node.this).nullif(value(node.expression))
            case exp.Greatest():
                return ibis.greatest(value(node.this), *(value(item) for item in node.expressions))
            case exp.Least():
                return ibis.least(value(node.this), *(value(item) for item in node.expressions))
            case exp.Case() if node.this is None:
                branches = [(value(branch.this), value(branch.args["true"])) for branch in node.args["ifs"]]
                default = node.args.get("default")
                return ibis.cases(*branches, else_=ibis.null() if default is None else value(default))
        raise ConfigError(
            f"{node.sql(DIALECT)!r} is not available in a feature: use columns, values, comparisons, and, or, not, in, between, "
            "like, is null, + - * /, case, coalesce, nullif, greatest, least, abs, lower, upper, and the aggregates count, sum, "
            "avg, min and max"
        )

    return value(tree)


def _refuse_depth(tree: exp.Expr) -> None:
    waiting = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ConfigError(f"{tree.sql(DIALECT)[:60]!r}… is nested too deeply: write it shorter, for example with in (…)")
        # Chains of these are balanced.
        below = depth + (not isinstance(node, exp.And | exp.Or))
        waiting += [(child, below) for child in node.iter_expressions()]


def _balanced(parts: list[Value], joined: Callable[[Value, Value], Value]) -> Value:
    """Join parts as a tree that is as flat as can be: a chain of hundreds is deeper than what compiles it can go."""
    while len(parts) > 1:
        parts = [joined(*parts[at : at + 2]) if at + 1 < len(parts) else parts[at] for at in range(0, len(parts), 2)]
    return parts[0]


def _constant(told: str | float | bool) -> Deferred:
    # Deferred, as columns are: on the left of an operator a plain literal refuses a deferred right side.
    return Deferred(Just(ibis.literal(told)))
