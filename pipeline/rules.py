"""Rules of a night: conditions over its columns, checked by `features.expressions`, asked of many rows at once."""

from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlglot import exp

from features.expressions import DIALECT, parse

Truths = npt.NDArray[np.int8]
TRUE, FALSE, UNKNOWN = 1, 0, -1


def truths(rows: pa.Table, rules: Sequence[str]) -> Truths:
    """Ask every row every rule: rows × rules of TRUE, FALSE and UNKNOWN, in the order given.

    The rules were checked (`features.expressions.condition`), and every column that they read is in `rows`.
    """
    if not rules:
        return np.zeros((len(rows), 0), dtype=np.int8)
    told = ", ".join(
        f'CASE WHEN {rule} THEN 1 WHEN NOT ({rule}) THEN 0 ELSE -1 END::TINYINT AS "{at}"' for at, rule in enumerate(rules)
    )
    with duckdb.connect() as engine:
        engine.execute("SET threads = 1; SET preserve_insertion_order = true")
        found = engine.from_arrow(rows).project(told).to_arrow_table()
    return np.stack([column.to_numpy() for column in found.columns], axis=1)


def first_met(rows: pa.Table, named: Sequence[tuple[str, str]]) -> pa.Array:
    """Give each row the name of the first (name, rule) that is true of it, null where none is."""
    told = truths(rows, [rule for _, rule in named]) == TRUE
    names = pa.array([name for name, _ in named], pa.string())
    return names.take(pa.array(told.argmax(axis=1), mask=~told.any(axis=1))) if len(named) else pa.nulls(len(rows), pa.string())


def parts(rule: str) -> tuple[str, ...]:
    """Split a rule into the parts that must all be true.

    >>> parts("a > 1 and (b = 2 or c = 3)")
    ('a > 1', '(b = 2 OR c = 3)')
    """
    tree = parse(rule)
    found = tree.flatten() if isinstance(tree, exp.And) else [tree]
    return tuple(part.sql(DIALECT) for part in found)


def both_met(enter: str, leave: str, types: Mapping[str, str]) -> str | None:
    """Find values that meet both rules, told as `column = value, …`; None where there are none, or it cannot be known."""
    return None
