"""Attributes: what is known of users besides events, with the instant from which it was known."""

from collections.abc import Mapping
from functools import reduce
from operator import and_

import ibis
import ibis.expr.types as ir
from ibis import _

from features.cells import read_instant, read_number, read_text, refuse_no_time
from features.contract import as_json, inexact
from features.errors import ConfigError, did_you_mean, listed

USER, KNOWN_FROM = "user_id", "known_from"


def read_attributes(raw: ir.Table, columns: Mapping[str, bool]) -> ir.Table:
    """Give one row per user and `known_from` (UTC): the attributes, named in `columns` with whether each is a number.

    `broken` says what is wrong with a row (no user, no time, a number that is none), and `row` is then the row as it came.
    Raises ConfigError when a column is missing or too many.
    """
    expected = [USER, KNOWN_FROM, *columns]
    missing = [name for name in expected if name not in raw.columns]
    if missing:
        raise ConfigError(f"attributes.sql gives no column {listed(missing)}: it must give {listed(expected, most=20)}")
    for name in raw.columns:
        if name not in expected:
            raise ConfigError(
                f"attributes.sql gives {name!r}, which attributes.columns does not name: {did_you_mean(name, expected)}"
            )
    given = raw[KNOWN_FROM]
    refuse_no_time(given, "attributes.sql gives known_from")
    instant = read_instant(given) if given.type().is_string() else given.cast("timestamp(6)")
    numbers = {name: read_number(raw[name]) for name, is_number in columns.items() if is_number}
    texts = {name: read_text(raw[name]) for name, is_number in columns.items() if not is_number}
    user = read_text(raw[USER])
    wrong = ibis.cases(
        (user.isnull(), "user_id is missing"),
        *inexact(raw, [USER]),
        (given.isnull(), "known_from is missing"),
        (instant.isnull(), "known_from is not a time"),
        *((raw[name].notnull() & (value.isnull() | value.isnan()), f"{name} is not a number") for name, value in numbers.items()),
        else_=ibis.null("string"),
    )
    row = wrong.notnull().ifelse(as_json(raw, raw.columns), ibis.null("string"))
    return raw.select(**{USER: user, KNOWN_FROM: instant}, **texts, **numbers, broken=wrong, row=row)


def held(attributes: ir.Table, columns: Mapping[str, bool]) -> ir.Table:
    """Give the good rows, one per user and change: of several at one instant, the greatest value of each column.

    A row that repeats the one before it, as a snapshot of every day does, is no change.
    """
    good = attributes.filter(_.broken.isnull())
    rows = good.group_by(USER, KNOWN_FROM).agg(**{name: good[name].max() for name in columns})
    in_order = ibis.window(group_by=rows[USER], order_by=rows[KNOWN_FROM])
    is_same = reduce(and_, (rows[name].identical_to(rows[name].lag().over(in_order)) for name in columns))
    is_first = ibis.row_number().over(in_order) == 0
    return rows.mutate(is_change=is_first | ~is_same).filter(_.is_change).drop("is_change")
