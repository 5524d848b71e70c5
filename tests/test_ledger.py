"""The ledger: a step of memberships, stays that open and close, and nights in any order."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.columns import MEMBERSHIPS
from pipeline.ledger import GONE, NEVER, NO_STAYS, Stays, lists, reopened, settled, state, step

DAY = dt.date(2024, 3, 10)
NAMES = ["loyal", "lapsed"]


def on(*texts: str | None) -> np.ndarray:
    return np.array([np.datetime64(text or "NaT", "D") for text in texts])


@pytest.mark.parametrize(
    ("entered", "enter", "hold", "min_stay", "after"),
    [
        (None, True, False, 0, "2024-03-10"),
        (None, False, True, 7, None),
        ("2024-03-01", True, False, 0, "2024-03-01"),
        ("2024-03-01", False, True, 0, "2024-03-01"),
        ("2024-03-01", False, False, 0, None),
        ("2024-03-04", False, False, 7, "2024-03-04"),
        ("2024-03-03", False, False, 7, None),
    ],
)
def test_a_step(entered: str | None, enter: bool, hold: bool, min_stay: int, after: str | None) -> None:
    told = step(on(entered)[:, None], np.array([[enter]]), np.array([[hold]]), DAY, np.array([min_stay], dtype="timedelta64[D]"))
    assert told.tolist() == on(after)[:, None].tolist()


def test_memberships_survive_their_columns() -> None:
    entered = np.stack([on("2024-03-01", None, None), on("2024-03-02", None, "2024-02-01")], axis=1)
    said, since = lists(entered, NAMES)
    assert said.to_pylist() == [["loyal", "lapsed"], [], ["lapsed"]]
    assert np.array_equal(state(said, since, NAMES), entered, equal_nan=True)
    # A segment that the config no longer has is left out; others come first.
    assert state(said, since, ["lapsed", "new"])[:, 0].tolist() == entered[:, 1].tolist()


def test_memberships_of_users_without_a_night_before_are_none() -> None:
    said = pa.array([None, ["loyal"]], pa.list_(pa.string()))
    since = pa.array([None, [dt.date(2024, 3, 1)]], pa.list_(pa.date32()))
    assert state(said, since, NAMES).tolist() == [[None, None], [dt.date(2024, 3, 1), None]]


def turns(*rows: tuple[str, str, bool, dt.date, str]) -> pa.Table:
    names = ["user_id", "segment", "is_in", "entered_on", "reason"]
    kinds = [pa.string(), pa.string(), pa.bool_(), pa.date32(), pa.string()]
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 5
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)], names=names)


def stays(*rows: tuple[str, str, dt.date, dt.date | None, str, str | None]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(MEMBERSHIPS.names, row, strict=True)) for row in rows], MEMBERSHIPS)


def test_who_comes_who_leaves_and_who_is_gone() -> None:
    first = dt.date(2024, 3, 1)
    before = stays(
        ("ann", "loyal", first, None, "x", None), ("bob", "loyal", first, None, "y", None), ("cyd", "loyal", first, None, "z", None)
    )
    told = turns(("ann", "loyal", False, first, "less"), ("dan", "lapsed", True, DAY, "long"), ("ann", "lapsed", True, DAY, "long"))
    after = settled(Stays(before, MEMBERSHIPS.empty_table()), told, pa.array(["ann", "cyd", "dan"]), DAY)
    assert (
        after.closed.to_pylist()
        == stays(("ann", "loyal", first, DAY, "x", "less"), ("bob", "loyal", first, DAY, "y", GONE)).to_pylist()
    )
    assert (
        after.open.to_pylist()
        == stays(
            ("ann", "lapsed", DAY, None, "long", None),
            ("cyd", "loyal", first, None, "z", None),
            ("dan", "lapsed", DAY, None, "long", None),
        ).to_pylist()
    )


def test_what_was_open_when_a_night_began() -> None:
    early, late = dt.date(2024, 3, 1), dt.date(2024, 3, 12)
    ledger = stays(
        ("ann", "loyal", early, None, "x", None),
        ("bob", "loyal", early, DAY, "x", "left on this very night"),
        ("cyd", "loyal", early, late, "x", "left later"),
        ("dan", "loyal", early, dt.date(2024, 3, 5), "x", "left before"),
        ("eve", "loyal", DAY, None, "came on this very night", None),
        ("fay", "loyal", late, None, "came later", None),
    )
    assert [(row["user_id"], row["left_on"], row["leave_reason"]) for row in reopened(ledger, DAY).open.to_pylist()] == [
        ("ann", None, None),
        ("bob", None, None),
        ("cyd", None, None),
    ]


Facts = Sequence[Sequence[tuple[bool, bool]]]


def slow_ledger(facts: Facts, days: Sequence[dt.date], min_stay: int) -> set[tuple[str, dt.date, dt.date | None]]:
    """Walk each user's nights one by one."""
    found = set()
    for user, nights in enumerate(zip(*facts, strict=True)):
        since = None
        for day, (enter, hold) in zip(days, nights, strict=True):
            if since is None and enter:
                since = day
            elif since is not None and not enter and not hold and (day - since).days >= min_stay:
                found.add((f"u{user}", since, day))
                since = None
        if since is not None:
            found.add((f"u{user}", since, None))
    return found


def run(facts: Facts, days: Sequence[dt.date], order: Sequence[int], min_stay: int) -> pa.Table:
    """Run nights in an order, each as the pipeline does: from the night before it, and on through the later ones."""
    ledger = MEMBERSHIPS.empty_table()
    states: dict[int, np.ndarray] = {}
    for night in order:
        still = reopened(ledger, days[night])
        before = max((other for other in states if other < night), default=None)
        for at in [night, *sorted(other for other in states if other > night)]:
            was = np.full((len(facts[at]), 1), NEVER) if before is None else states[before]
            enter, hold = np.array(facts[at]).T
            states[at] = step(was, enter[:, None], hold[:, None], days[at], np.array([min_stay], dtype="timedelta64[D]"))
            changed = []
            for user in np.flatnonzero(np.isnat(was[:, 0]) != np.isnat(states[at][:, 0])):
                is_in = bool(np.isnat(was[user, 0]))
                changed.append((f"u{user}", "s", is_in, (states[at] if is_in else was)[user, 0].item(), str(days[at])))
            still = settled(still, turns(*changed), pa.array([f"u{user}" for user in range(len(facts[at]))]), days[at])
            before = at
        kept = [row for row in ledger.to_pylist() if row["left_on"] is not None and row["left_on"] < days[night]]
        ledger = pa.concat_tables([pa.Table.from_pylist(kept, MEMBERSHIPS), still.rows])
    return ledger


@settings(max_examples=40)
@given(st.data())
def test_no_order_of_nights_changes_the_ledger(data: st.DataObject) -> None:
    night = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=3)
    facts = data.draw(st.lists(night, min_size=2, max_size=5))
    days = [DAY + dt.timedelta(days=2 * at) for at in range(len(facts))]
    order = data.draw(st.permutations(range(len(facts))))
    again = data.draw(st.lists(st.sampled_from(range(len(facts))), max_size=2))
    min_stay = data.draw(st.sampled_from([0, 3, 5]))
    straight, mixed = (run(facts, days, how, min_stay) for how in (range(len(facts)), [*order, *again]))
    key = ("user_id", "segment", "entered_on")
    assert sorted(mixed.to_pylist(), key=lambda row: [str(row[name]) for name in key]) == sorted(
        straight.to_pylist(), key=lambda row: [str(row[name]) for name in key]
    )
    assert {(row["user_id"], row["entered_on"], row["left_on"]) for row in straight.to_pylist()} == slow_ledger(
        facts, days, min_stay
    )


def test_the_first_night_starts_from_nothing() -> None:
    after = settled(NO_STAYS, turns(("ann", "loyal", True, DAY, "often")), pa.array(["ann"]), DAY)
    assert after.rows.to_pylist() == stays(("ann", "loyal", DAY, None, "often", None)).to_pylist()
