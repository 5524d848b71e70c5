"""Journey stage: how long a user is known, when each kind of event came first and last, and which stage that makes.

The stages look at runs: purchases without a break as long as the pause after which a user has lapsed (`features.lapsed_after`; 56
days in these tables). A user who never bought is a prospect. Else the first that holds: lapsed (nothing for that pause), slipping
(nothing for three times the usual gap, at least a quarter of the pause; for half of it after a single purchase), new (the first run
is younger than half of it), returned (a later run is), loyal (the run is at least twice as old), active.
In a log without purchases the same is told of what the first target takes for activity.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import ibis
from ibis import _
from ibis.common.deferred import Deferred

from features.catalogue import DATE, NAME, Base, Feature
from features.event_types import (
    CAMPAIGN,
    CART,
    CHECKOUT,
    CLICKED,
    COUPON,
    OPENED,
    PURCHASE,
    RETURN,
    SUPPORT,
    TOGETHER,
    UNSUBSCRIBE,
    VIEW,
)
from features.snapshot import days_since_first, days_since_last
from features.windows import DAY, words

STAGES = ("prospect", "lapsed", "slipping", "new", "returned", "loyal", "active")
SLIPPING_GAPS = 3.0

# Event type: its word in names, what it is called, and its group.
EVENTS = {
    VIEW: ("view", "view of an item", "browsing"),
    CART: ("cart", "item put into the cart", "carts"),
    CHECKOUT: ("checkout", "checkout", "carts"),
    RETURN: ("return", "return", "returns"),
    COUPON: ("coupon", "redeemed coupon", "coupons"),
    CAMPAIGN: ("campaign", "campaign received", "campaigns"),
    OPENED: ("campaign_open", "campaign opened", "answers"),
    CLICKED: ("campaign_click", "campaign clicked", "answers"),
    UNSUBSCRIBE: ("unsubscribe", "unsubscription", "refusal"),
    SUPPORT: ("support", "contact with support", "support"),
}

_BASES: dict[str, Base] = {event_type: base for base, types in TOGETHER.items() for event_type in types}  # type: ignore[misc]


def features(_windows: Sequence[timedelta]) -> Iterator[Feature]:
    """Time known, first and last event of each type and whether that followed a purchase."""
    yield Feature(
        name="known_days",
        base="everything",
        expr=_.since_first.max(),
        unit="days",
        meaning="days since the first known event of any type",
        phrase="known for {value}",
        group="tenure",
    )
    # Who is there when a log begins may have come long before.
    yield Feature(
        name="started_after_days",
        base="population",
        expr=_.known_days.max().over(ibis.window(group_by=_.cutoff)) - _.known_days,
        unit="days",
        meaning="days from the first event of the log to the user's first known event",
        phrase="first seen {value} after the log begins",
        group="tenure",
        on_trial=DATE,
    )
    for event_type, (what, called, group) in EVENTS.items():
        yield Feature(
            name=f"{what}_recency_days",
            base=_BASES[event_type],
            expr=days_since_last(event_type),
            unit="days",
            meaning=f"days since the last {called}",
            phrase=f"last {called} {{value}} ago",
            group=group,
            unknown=f"no {called} so far",
            types=frozenset({event_type}),
        )
        yield Feature(
            name=f"{what}_first_days",
            base=_BASES[event_type],
            expr=days_since_first(event_type),
            unit="days",
            meaning=f"days since the first {called}",
            phrase=f"first {called} {{value}} ago",
            group=group,
            unknown=f"no {called} so far",
            types=frozenset({event_type}),
        )
        # A coupon is redeemed with a purchase, never after it.
        if event_type != COUPON:
            yield replace(since_purchase(what, called, group), types=frozenset({event_type}))


def paced_features(lapsed_after: timedelta) -> Iterator[Feature]:
    """Runs of purchases, the stage and the time in it, by the pause after which a user has lapsed."""
    begins_run = _.gap.isnull() | (_.gap >= lapsed_after / DAY)
    yield Feature(
        name="purchase_run_days",
        base="days",
        expr=begins_run.ifelse(_.since, ibis.null("float64")).min(),
        unit="days",
        meaning=f"days since the present run of purchases began (no break of {words(lapsed_after)} or more)",
        phrase="latest run of purchases began {value} ago",
        group="tenure",
        unknown="no purchases so far",
    )
    yield Feature(
        name="purchase_run_count",
        base="days",
        expr=begins_run.ifelse(1.0, 0.0).sum(),
        unit="run",
        meaning=f"runs of purchases so far (a break of {words(lapsed_after)} or more ends one)",
        phrase="{value} of purchases so far",
        group="tenure",
        empty=0,
    )
    yield from stages_of(PURCHASE, lapsed_after)


def stages_of(what: str, lapsed_after: timedelta) -> Iterator[Feature]:
    """The stage and the time in it, by runs of `what`: purchases, or what else makes users active (see `features.declare`)."""
    rules = _stages(what, lapsed_after / DAY)
    yield Feature(
        name="journey_stage",
        base="row",
        expr=ibis.cases(*((when, name) for name, when, _since in rules), else_="active"),
        unit=NAME,
        meaning=f"stage of the journey: {', '.join(STAGES)}",
        phrase="is {value}",
        group="stage",
    )
    yield Feature(
        name="journey_stage_days",
        base="row",
        expr=ibis.cases(*((when, since) for _name, when, since in rules), else_=_[f"{what}_run_days"] - lapsed_after / DAY / 2),
        unit="days",
        meaning="days since the present stage of the journey began; a pause that was made up for does not begin it anew",
        phrase="in this stage of the journey for {value}",
        group="stage",
    )


def since_purchase(what: str, called: str, group: str) -> Feature:
    """How long after the last purchase something was still done: a question about an order, a look at the next one."""
    days = _.purchase_recency_days - getattr(_, f"{what}_recency_days")
    return Feature(
        name=f"{what}_after_purchase_days",
        base="row",
        expr=(days > 0).ifelse(days, ibis.null("float64")),
        unit="days",
        meaning=f"days from the last purchase to the last {called}, where that came later",
        phrase=f"last {called} {{value}} after the last purchase",
        group=group,
        unknown=f"no {called} since the last purchase, if any",
    )


def _stages(what: str, pause: float) -> list[tuple[str, Deferred, Deferred]]:
    """Give each stage's name, its rule, and the days since it began; the first whose rule holds is the stage."""
    recency, run, runs, gap = (_[f"{what}_{name}"] for name in ("recency_days", "run_days", "run_count", "gap_days_mean"))
    young, loyal = pause / 2, pause * 2
    slipping_after = ibis.coalesce(gap * SLIPPING_GAPS, young).clip(pause / 4, pause)
    return [
        ("prospect", recency.isnull(), _.known_days),
        ("lapsed", recency >= pause, recency - pause),
        ("slipping", recency >= slipping_after, recency - slipping_after),
        ("new", (run < young) & (runs <= 1), run),
        ("returned", run < young, run),
        ("loyal", run >= loyal, run - loyal),
    ]
