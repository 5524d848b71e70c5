"""Labels: what really happened in `[cutoff, cutoff + horizon)`, for those whom the question is asked about."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import ibis
import ibis.expr.types as ir
from ibis import _

from features.contract import PURCHASE
from features.custom import condition_met
from features.snapshot import KEYS, instants
from features.windows import label as window_label

Kind = Literal["absence", "occurrence", "growth", "first", "value"]
Measure = Literal["amount", "quantity", "discount"]


@dataclass(frozen=True)
class Eligible:
    """Who is asked about: users with an event matching `events` within `active_within` before the cutoff.

    With `until`, only as long as no event matching it happened since the last of them, nor with it.
    """

    active_within: timedelta
    events: str = f"event_type = '{PURCHASE}'"
    until: str | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is predicted. `events` is a checked SQL condition over event columns; `measure` an event column to sum."""

    name: str
    kind: Kind
    horizon: timedelta
    events: str
    eligible: Eligible
    meaning: str
    min_count: int = 1
    measure: Measure = "amount"
    ratio: float = 1.25
    trailing: timedelta = timedelta(days=84)
    lookback: timedelta = timedelta(days=84)

    @property
    def is_amount(self) -> bool:
        """Whether the score is an expected amount instead of a probability."""
        return self.kind == "value"


def definition(target: Target) -> dict[str, Any]:
    """Give what a target's label means, in plain values: a model answers this question and no other."""
    told = {name: window_label(value) if isinstance(value, timedelta) else value for name, value in asdict(target).items()}
    eligible = {"active_within": window_label(target.eligible.active_within), "events": target.eligible.events}
    # Only where it is told: models from before it answer the same question.
    told["eligible"] = eligible | ({"until": target.eligible.until} if target.eligible.until else {})
    return {name: value for name, value in told.items() if name not in ("name", "meaning")}


def build_labels(events: ir.Table, target: Target, cutoffs: Sequence[datetime]) -> ir.Table:
    """Give `user_id`, `cutoff` and `label` (float64) for the users eligible at each cutoff (UTC); see `Target` for the kinds.

    Only who is eligible, and a growth target's trailing average, look back, as far as `[cutoff - window, cutoff)`; what is
    counted lies in `[cutoff, cutoff + horizon)`.
    """
    asked = eligible_users(events, target, cutoffs)
    after = _between(_matching(events, target.events), cutoffs, timedelta(0), target.horizon)
    happened = after.group_by(KEYS).agg(count=_.count(), total=_[target.measure].sum())
    rows = asked.left_join(happened, KEYS).drop("user_id_right", "cutoff_right")
    count, total = rows["count"].fill_null(0), rows.total.fill_null(0).cast("float64")
    match target.kind:
        case "absence":
            label = count == 0
        case "occurrence" | "first":
            label = count >= target.min_count
        case "growth":
            label = total >= target.ratio * rows.usual
        case "value":
            label = total
    return rows.select(*KEYS, label=label.cast("float64"))


def eligible_users(events: ir.Table, target: Target, cutoffs: Sequence[datetime]) -> ir.Table:
    """Give `user_id` and `cutoff` of whom the target asks about, from what was known before (growth adds `usual`).

    A `first` target leaves out who had a matching event in its lookback; a `growth` target asks only those whose trailing
    average is above zero, since growth from nothing has no ratio.
    """
    none = timedelta(0)
    users = _active(events, target.eligible, cutoffs).select(*KEYS)
    matching = _matching(events, target.events)
    if target.kind == "first":
        return users.anti_join(_between(matching, cutoffs, -target.lookback, none), KEYS)
    if target.kind == "growth":
        past = _between(matching, cutoffs, -target.trailing, none)
        usual = past.group_by(KEYS).agg(usual=_[target.measure].sum().cast("float64") * (target.horizon / target.trailing))
        return users.inner_join(usual.filter(_.usual > 0), KEYS)
    return users


def _active(events: ir.Table, eligible: Eligible, cutoffs: Sequence[datetime]) -> ir.Table:
    def last(condition: str) -> ir.Table:
        found = _between(_matching(events, condition), cutoffs, -eligible.active_within, timedelta(0))
        return found.group_by(KEYS).agg(at=found.event_ts.max())

    active = last(eligible.events)
    if eligible.until is None:
        return active
    # What ended before the window did so before the last activity, which is in it.
    ended = last(eligible.until).rename(until="at")
    return active.left_join(ended, KEYS).filter(_.until.isnull() | (_.until < _.at))


def active_users(events: ir.Table, conditions: Iterable[str], cutoff: datetime, window: timedelta) -> ir.Table:
    """Give `user_id` of whoever has an event matching one of the conditions in `[cutoff - window, cutoff)`, once each."""
    return _between(_matching(events, _any_of(conditions)), [cutoff], -window, timedelta(0)).select("user_id").distinct()


def first_met(events: ir.Table, conditions: Iterable[str]) -> ir.TimestampScalar:
    """Give the instant of the first event that matches one of the conditions, null where none does."""
    return _matching(events, _any_of(conditions)).event_ts.min()


def _any_of(conditions: Iterable[str]) -> str:
    return " OR ".join(f"({condition})" for condition in conditions)


def _matching(events: ir.Table, condition: str) -> ir.Table:
    return events.filter(condition_met(condition))


def _between(events: ir.Table, cutoffs: Sequence[datetime], start: timedelta, end: timedelta) -> ir.Table:
    """Events in `[cutoff + start, cutoff + end)`, once for every cutoff they belong to."""
    at = instants(cutoffs)
    return events.inner_join(at, (events.event_ts >= at.cutoff + _seconds(start)) & (events.event_ts < at.cutoff + _seconds(end)))


def _seconds(span: timedelta) -> ir.IntervalScalar:
    return ibis.interval(seconds=int(span.total_seconds()))
