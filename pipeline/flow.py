"""Flow: who went from which segment to which between two nights, and how long members stay."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.intervals import wilson

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# No segment has a name with blanks.
IN_NONE, NOT_YET, GONE = "in none", "not known yet", "no longer known"
DAYS = (7, 14, 28, 56)
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Flow:
    """How many users went from which primary segment (`before`, rows of `counts`) to which (`after`, columns)."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    counts: Counts

    def moves(self) -> Iterator[tuple[str, str, int]]:
        """Give from, to and users of whoever is not where they were, largest first."""
        found = [
            (one, other, int(self.counts[row, column]))
            for row, one in enumerate(self.before)
            for column, other in enumerate(self.after)
            if one != other and self.counts[row, column]
        ]
        yield from sorted(found, key=lambda move: -move[2])


@dataclass(frozen=True, eq=False)
class Retention:
    """How many members of a segment stay, by whole days since they entered; shares are NaN on days that no stay has reached.

    `at_risk` counts the stays watched for at least so many days, `low` and `high` are the ends of a 95 % interval.
    `stays` is how many there are, `ended` how many of them are over; `left_out` is how many more have no known start.
    """

    segment: str
    stays: int
    ended: int
    left_out: int
    days: Counts
    at_risk: Counts
    share: Floats
    low: Floats
    high: Floats


def flow(before: pa.Table, after: pa.Table, *, order: Sequence[str] = ()) -> Flow:
    """Count users by `primary_segment` on two nights, given their rows (`user_id`, `primary_segment`).

    Segments come in `order`, others after those by name; last whoever is in none, and who is known on one of the nights only.
    """
    told = [
        pa.table({"user_id": night["user_id"], when: pc.fill_null(night["primary_segment"].cast(pa.string()), IN_NONE)})
        for when, night in (("before", before), ("after", after))
    ]
    joined = told[0].join(told[1], "user_id", join_type="full outer")
    pairs = pa.table(
        {"before": pc.fill_null(joined["before"], NOT_YET), "after": pc.fill_null(joined["after"], GONE)},
    )
    counted = pairs.group_by(["before", "after"]).aggregate([([], "count_all")]).to_pylist()
    named = {row[when] for row in counted for when in ("before", "after")} - {IN_NONE, NOT_YET, GONE}
    segments = [*(name for name in order if name in named), *sorted(named - set(order))]
    rows, columns = (*segments, IN_NONE, NOT_YET), (*segments, IN_NONE, GONE)
    counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for row in counted:
        counts[rows.index(row["before"]), columns.index(row["after"])] = row["count_all"]
    return Flow(rows, columns, counts)


def as_of_night(ledger: pa.Table, night: date) -> pa.Table:
    """Give the ledger (MEMBERSHIPS) as it stood on a night: later stays are not there, and later ends are open."""
    known = ledger.filter(pc.less_equal(ledger["entered_on"], pa.scalar(night)))
    later = pc.fill_null(pc.greater(known["left_on"], pa.scalar(night)), False)
    for name in ("left_on", "leave_reason"):
        place = known.column_names.index(name)
        column = known[name]
        known = known.set_column(place, known.schema.field(name), pc.if_else(later, pa.scalar(None, column.type), column))
    return known


def retention(
    ledger: pa.Table, last_night: date, *, days: Sequence[int] | None = DAYS, without_first: bool = False
) -> tuple[Retention, ...]:
    """Estimate per segment the share of members who are still in so many days after entering, given the ledger (MEMBERSHIPS).

    It is the product-limit estimate (Kaplan and Meier, 1958); open stays are censored at `last_night`, the last recorded one.
    The interval is Greenwood's of log(-log share) (Kalbfleisch and Prentice, 1980), "exponential Greenwood", which stays within 0
    and 1. It has no width where nobody or everybody has left: there it is Wilson's (1927) of the stays that were watched so long.
    A user who comes again counts again, as if it were another's stay, which makes intervals a little narrow.

    `days` None means every day up to the longest stay. With `without_first`, stays that began on the first night of a segment in
    the ledger are left out: whoever its rule met when it was first looked at really came before, on a day that nobody knows.
    """
    wanted = ledger.select(["segment", "entered_on", "left_on"]).filter(pc.less_equal(ledger["entered_on"], pa.scalar(last_night)))
    entered = wanted["entered_on"].to_numpy().astype("datetime64[D]")
    left = wanted["left_on"].to_numpy().astype("datetime64[D]")
    last = np.datetime64(last_night, "D")
    # A comparison with NaT, the end of an open stay, is false.
    has_left = left <= last
    watched = (np.where(has_left, left, last) - entered).astype(np.int64)
    segment = wanted["segment"].to_numpy()
    found = []
    for name in sorted(set(segment.tolist())):
        own = segment == name
        kept = own & (entered > entered[own].min()) if without_first else own
        found.append(_estimated(str(name), watched[kept], has_left[kept], days, left_out=int(own.sum() - kept.sum())))
    return tuple(found)


def _estimated(
    segment: str, watched: Counts, has_left: npt.NDArray[np.bool_], days: Sequence[int] | None, *, left_out: int
) -> Retention:
    asked = np.arange(watched.max(initial=0) + 1) if days is None else np.asarray(days, dtype=np.int64)
    ordered = np.sort(watched)
    ends, leavers = np.unique(watched[has_left], return_counts=True)
    facing = len(ordered) - np.searchsorted(ordered, ends)
    at_risk = len(ordered) - np.searchsorted(ordered, asked)
    shares = np.concatenate([[1.0], np.cumprod(1 - leavers / facing)])
    # Where everybody left, the last sum has no end; the interval there is another.
    with np.errstate(divide="ignore"):
        sums = np.concatenate([[0.0], np.cumsum(leavers / (facing * (facing - leavers)))])
    place = np.searchsorted(ends, asked, side="right")
    share, variance = shares[place], sums[place]
    known = (at_risk > 0) | (share == 0)
    # How many were watched when the share came to where it is; at a share of 0 nobody is watched any more.
    seen = np.where(share == 0, np.concatenate([[len(ordered)], facing])[place], at_risk)
    low, high = wilson(share, np.maximum(seen, 1).astype(np.float64), z=_Z95)
    inner = (share > 0) & (share < 1)
    power = np.exp(_Z95 * np.sqrt(variance[inner]) / np.abs(np.log(share[inner])))
    low[inner], high[inner] = share[inner] ** power, share[inner] ** (1 / power)
    unknown = np.where(known, 1.0, np.nan)
    return Retention(
        segment,
        stays=len(watched),
        ended=int(has_left.sum()),
        left_out=left_out,
        days=asked,
        at_risk=at_risk,
        share=share * unknown,
        low=np.clip(low, 0, 1) * unknown,
        high=np.clip(high, 0, 1) * unknown,
    )
