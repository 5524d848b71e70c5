"""The slow reference: every feature in plain pandas, one user at a time, written from what the features are said to mean."""

import calendar
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from math import ceil, floor, log, nan, sqrt
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from builders import DAY
from features.windows import label

Row = dict[str, object]
# Which of some events are meant, and the column that is summed, if any.
# Which events, the column that a target adds up, and the columns that all models read sums and means of; None for these
# where events are only a part of their type.
Told = tuple[Callable[[pd.DataFrame], pd.Series], str | None, tuple[str, ...] | None]

YEAR, MONTH, WEEK = 364 * DAY, 28 * DAY, 7 * DAY
CONTACT = "campaign_received"
ACTIONS = ["cart", "checkout", "purchase", "return", "support"]
ANSWERS = ["campaign_opened", "campaign_clicked", "coupon_redeemed", "unsubscribe"]


@dataclass(frozen=True)
class Seen:
    """What is seen of one user at one cutoff; `everybody` is what is seen of all users."""

    events: pd.DataFrame
    everybody: pd.DataFrame
    cutoff: datetime
    windows: Sequence[timedelta]
    values: Mapping[str, Sequence[str]]
    contacts: Sequence[timedelta] | None = None
    outcomes: Mapping[str, "Told"] = field(default_factory=dict)
    habits: Sequence[str] = ()
    names: Sequence[tuple[str, str]] = ()
    steps: Mapping[str, timedelta] = field(default_factory=dict)
    lapsed_after: float = 56.0

    @property
    def longest(self) -> timedelta:
        return self.windows[-1]

    @property
    def coarse(self) -> list[timedelta]:
        """Every other window, and the longest."""
        return sorted({*self.windows[::2], self.longest})

    def of(self, event_type: str, window: timedelta | None = None) -> pd.DataFrame:
        return self.last(self.events[self.events.event_type == event_type], window)

    def last(self, rows: pd.DataFrame, window: timedelta | None, column: str = "event_ts") -> pd.DataFrame:
        return rows if window is None else rows[rows[column] >= self.cutoff - window]

    def days_since(self, instant: datetime) -> float:
        return (self.cutoff - instant) / DAY

    def recency(self, rows: pd.DataFrame, column: str = "event_ts") -> float:
        return self.days_since(rows[column].max()) if len(rows) else nan

    def age(self, rows: pd.DataFrame) -> float:
        return self.days_since(rows.event_ts.min()) if len(rows) else nan

    @cached_property
    def own(self) -> pd.DataFrame:
        """What the user did, without what the company did."""
        return self.events[self.events.event_type != CONTACT]

    @cached_property
    def orders(self) -> pd.DataFrame:
        """Purchases of one order_id, or without one of one instant; in the order of their last lines."""
        lines = self.of("purchase")
        key = lines.order_id.fillna(lines.event_ts.astype(str)).rename("key")
        return (
            lines.groupby(key)
            .agg(
                event_ts=("event_ts", "max"),
                local=("local", "max"),
                amount=("amount", lambda amounts: amounts.sum(min_count=1)),
                discounted=("discount", lambda discounts: (discounts > 0).any()),
                channel=("channel", "min"),
            )
            .reset_index()
            .sort_values(["event_ts", "key"])
        )

    @cached_property
    def days(self) -> pd.DataFrame:
        """Local days with a purchase: their first and last instant, and the days since the one before."""
        lines = self.of("purchase")
        days = (
            lines.groupby(lines.local.dt.normalize().rename("day"))
            .agg(event_ts=("event_ts", "min"), last=("event_ts", "max"))
            .reset_index()
        )
        return days.assign(gap=days.day.diff() / DAY)

    def waited(self, event_type: str, keys: Sequence[str]) -> pd.DataFrame:
        """Carts or checkouts whose 24 hours are over: `settled_at`, whether they were `bought`, and `amount`."""
        purchases, rows = self.of("purchase"), []
        for row in self.of(event_type).itertuples():
            given = [key for key in keys if pd.notna(getattr(row, key))]
            settled_at = row.event_ts + 24 * timedelta(hours=1)
            if given and settled_at < self.cutoff:
                near = purchases[(purchases.event_ts >= row.event_ts) & (purchases.event_ts < settled_at)]
                # The first key that both have decides.
                shared = [[(one[key], getattr(row, key)) for key in given if pd.notna(one[key])] for _, one in near.iterrows()]
                bought = any(pairs[0][0] == pairs[0][1] for pairs in shared if pairs)
                rows.append((settled_at, bought, row.amount))
        return pd.DataFrame(rows, columns=["settled_at", "bought", "amount"]).astype(
            {"bought": bool, "settled_at": "datetime64[us]"}
        )

    @cached_property
    def visits(self) -> pd.DataFrame:
        """Sessions of what the user did: when they began, and when they first led to something."""
        sessions = self.own[self.own.session_id.notna()]
        acted = sessions.event_ts.where(sessions.event_type.isin(ACTIONS))
        return sessions.assign(acted_at=acted).groupby("session_id").agg(begun_at=("event_ts", "min"), acted_at=("acted_at", "min"))

    @cached_property
    def answers(self) -> pd.DataFrame:
        """The first answer to each campaign, and its hours since the campaign first came."""
        rows = []
        for _campaign, events in self.events[self.events.campaign.notna()].groupby("campaign"):
            sent_at = events[events.event_type == CONTACT].event_ts.min()
            answers = events[events.event_type.isin(ANSWERS) & (events.event_ts >= sent_at)]
            if len(answers):
                first = answers.event_ts.min()
                rows.append((first, round((first - sent_at) / timedelta(hours=1), 6)))
        return pd.DataFrame(rows, columns=["event_ts", "hours"]).astype({"event_ts": "datetime64[us]"})


def reference(
    frame: pd.DataFrame,
    cutoffs: Sequence[datetime],
    windows: Sequence[timedelta],
    *,
    zone: str = "UTC",
    values: Mapping[str, Sequence[str]] | None = None,
    contacts: Sequence[timedelta] | None = None,
    outcomes: Mapping[str, Told] | None = None,
    habits: Sequence[str] = (),
    levels: Sequence[str] = (),
    names: Sequence[tuple[str, str]] = (),
    steps: Mapping[str, timedelta] | None = None,
    lapsed_after: timedelta = 56 * DAY,
) -> pd.DataFrame:
    """Give every feature of every user with an event before a cutoff, indexed by user and cutoff, in order."""
    log_ = frame.astype(dict.fromkeys(("amount", "quantity", "discount", "utc_offset_minutes"), float))
    log_["local"] = [_local(row, zone) for row in log_.itertuples()]
    # Midnight sharp is how a date without a time is written.
    log_["hour"] = log_.local.dt.hour.where(log_.local != log_.local.dt.normalize())
    found: dict[tuple[str, datetime], Row] = {}
    for cutoff in sorted(set(cutoffs)):
        known = log_[log_.event_ts < cutoff]
        rows: dict[str, Row] = {}
        for user, own in known.groupby("user_id"):
            told = (values or {}, contacts, outcomes or {}, habits, names, steps or {}, lapsed_after / DAY)
            seen = Seen(own, known, cutoff, sorted(windows), *told)
            for family in FAMILIES:
                # In order: later families read what earlier ones found.
                rows.setdefault(user, {}).update(family(seen, rows[user]))
        _against_others(rows, sorted(windows)[-1])
        _levels(rows, levels, sorted(windows))
        found.update({(user, cutoff): row for user, row in rows.items()})
    index = pd.MultiIndex.from_tuples(found, names=["user_id", "cutoff"])
    return pd.DataFrame(found.values(), index=index).sort_index()


def _local(event: object, zone: str) -> datetime:
    if pd.notna(event.utc_offset_minutes):  # type: ignore[attr-defined]
        return event.event_ts + timedelta(minutes=event.utc_offset_minutes)  # type: ignore[attr-defined]
    return event.event_ts.tz_localize("UTC").tz_convert(ZoneInfo(zone)).tz_localize(None)  # type: ignore[attr-defined]


def share(of: float, whole: float) -> float:
    """Divide; nothing over nothing is not known."""
    return of / whole if whole else nan


def money(amounts: pd.Series) -> float:
    return round(amounts.sum(), 6)


def loyalty(seen: Seen, _row: Row) -> Row:
    bought, days = seen.of("purchase"), seen.days
    weeks = {ceil(seen.days_since(instant) / 7) - 1 for instant in bought.event_ts}
    streak = 0
    while streak in weeks:
        streak += 1
    count = seen.longest // WEEK
    row: Row = {
        "purchase_recency_days": seen.recency(bought),
        "purchase_tenure_days": seen.age(bought),
        "purchase_frequency": max(len(days) - 1, 0),
        "purchase_monetary_value": seen.orders.amount.mean(),
        "purchase_amount_sum": money(bought.amount),
        "purchase_week_streak": streak,
        f"purchase_week_count_{label(seen.longest)}": len([week for week in weeks if week < count]),
    }
    row["purchase_day_rate"] = len(days) / max(seen.age(bought), 7) if len(days) else nan
    return row


def habits(seen: Seen, _row: Row) -> Row:
    items = seen.of("purchase").groupby("item_id").agg(event_ts=("event_ts", "min"))
    row: Row = {"category_count": seen.of("purchase").category.nunique(), "item_count": len(items)}
    for place, window in enumerate(seen.windows):
        name, lines = label(window), seen.of("purchase", window)
        orders = seen.last(seen.orders, window)
        row[f"purchase_count_{name}"] = len(orders)
        row[f"purchase_amount_sum_{name}"] = money(lines.amount)
        row[f"purchase_line_count_{name}"] = len(lines)
        row[f"purchase_day_count_{name}"] = len(seen.last(seen.days, window, "last"))
        row[f"category_count_{name}"] = lines.category.nunique()
        if place % 2 == 1:
            row[f"purchase_order_amount_mean_{name}"] = orders.amount.mean()
            row[f"purchase_order_amount_max_{name}"] = orders.amount.max()
            row[f"purchase_quantity_mean_{name}"] = lines.quantity.mean()
        if place >= 2 and place % 2 == 0:
            before = seen.of("purchase").query("event_ts < @start", local_dict={"start": seen.cutoff - window})
            new = set(lines.category.dropna()) - set(before.category)
            row[f"category_new_share_{name}"] = share(len(new), lines.category.nunique())
    for window in seen.coarse:
        name, views = label(window), len(seen.of("view", window))
        visits = len(seen.last(seen.visits, window, "begun_at"))
        row[f"item_new_count_{name}"] = len(seen.last(items, window))
        row[f"view_count_{name}"] = views
        row[f"visit_count_{name}"] = visits
        row[f"view_per_visit_mean_{name}"] = share(views, visits)
        row[f"view_per_purchase_mean_{name}"] = share(views, len(seen.of("purchase", window)))
    name, lines = label(seen.longest), seen.of("purchase", seen.longest)
    by_brand = lines.groupby("brand").amount.sum(min_count=1)
    return {
        **row,
        **favourite(seen.of("purchase"), "category", seen, "favourite_category"),
        **named_values(seen, "category", seen.of("purchase")),
        f"category_entropy_{name}": mixture(lines.category),
        f"category_price_level_{name}": price_level(seen),
        f"brand_count_{name}": lines.brand.nunique(),
        f"brand_favourite_share_{name}": share(by_brand.max(), by_brand.sum()),
    }


def price_level(seen: Seen) -> float:
    """What was paid over what the same quantities cost everybody, category by category."""

    def priced(rows: pd.DataFrame) -> pd.DataFrame:
        recent = seen.last(rows[rows.event_type == "purchase"], seen.longest)
        return recent.dropna(subset=["category", "amount", "quantity"]).groupby("category")[["amount", "quantity"]].sum()

    all_, own = priced(seen.everybody), priced(seen.events)
    usual = {name: round(quantity * all_.amount[name] / all_.quantity[name], 6) for name, quantity in own.quantity.items()}
    return share(own.amount.sum(), sum(usual.values()))


def favourite(rows: pd.DataFrame, what: str, seen: Seen, name: str | None = None) -> Row:
    """The value of most rows in the longest window (of equals the last in the alphabet), its share, and Wilson's lower bound."""
    counts = seen.last(rows, seen.longest)[what].value_counts()
    n, most = counts.sum(), counts.max() if len(counts) else 0
    p, z = share(most, n), 1.96
    bound = (p + z**2 / (2 * n) - z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))) / (1 + z**2 / n) if n else nan
    row: Row = {
        f"{what}_favourite_share_{label(seen.longest)}": p,
        f"{what}_favourite_confidence_{label(seen.longest)}": bound,
    }
    return row if name is None else {**row, name: max(counts[counts == most].index, default=None)}


def mixture(values: pd.Series) -> float:
    """Entropy with the natural logarithm."""
    parts = values.value_counts(normalize=True)
    return -(parts * np.log(parts)).sum() if len(parts) else nan


def channels(seen: Seen, _row: Row) -> Row:
    row: Row = {}
    for what in ("channel", "device"):
        row |= favourite(seen.own, what, seen, f"preferred_{what}")
        row[f"{what}_count_{label(seen.longest)}"] = seen.last(seen.own, seen.longest)[what].nunique()
        row |= named_values(seen, what)
    orders = seen.orders.assign(before=seen.orders.channel.shift())
    both = seen.last(orders, seen.longest).dropna(subset=["channel", "before"])
    row[f"channel_switch_share_{label(seen.longest)}"] = (both.channel != both.before).mean()
    return row


def named_values(seen: Seen, what: str, rows: pd.DataFrame | None = None) -> Row:
    """Share and recency of the values that the config names, among the user's own events or some `rows`."""
    row: Row = {}
    told = seen.own if rows is None else rows
    recent = seen.last(told, seen.longest)[what].dropna()
    for value in seen.values.get(what, ()):
        row[f"{what}_{value}_share_{label(seen.longest)}"] = (recent == value).mean()
        row[f"{what}_{value}_recency_days"] = seen.recency(told[told[what] == value])
    return row


def carts(seen: Seen, _row: Row) -> Row:
    items = seen.waited("cart", ["item_id", "order_id", "session_id"])
    checkouts = seen.waited("checkout", ["order_id", "session_id"])
    left, unfinished = items[~items.bought], checkouts[~checkouts.bought]
    row: Row = {
        "cart_amount_mean": seen.of("cart").amount.mean(),
        "cart_abandoned_recency_days": seen.recency(left, "settled_at"),
        "checkout_abandoned_recency_days": seen.recency(unfinished, "settled_at"),
    }
    for window in seen.coarse:
        name, settled = label(window), seen.last(items, window, "settled_at")
        row[f"cart_count_{name}"] = len(seen.of("cart", window))
        row[f"cart_abandoned_count_{name}"] = (~settled.bought).sum()
        row[f"cart_abandoned_share_{name}"] = (~settled.bought).mean()
        row[f"cart_abandoned_amount_sum_{name}"] = money(seen.last(left, window, "settled_at").amount)
        row[f"checkout_count_{name}"] = len(seen.of("checkout", window))
        row[f"checkout_abandoned_count_{name}"] = len(seen.last(unfinished, window, "settled_at"))
    return row


def timing(seen: Seen, row: Row) -> Row:
    gaps = seen.days.gap.dropna()
    found: Row = {
        "purchase_gap_days_mean": gaps.mean(),
        "purchase_gap_days_usual": gaps.mean() if len(gaps) >= 2 else nan,
        "purchase_gap_days_std": gaps.std(),
        "purchase_gap_days_max": gaps.max(),
        "purchase_gap_shape": gamma_shape(gaps),
        "purchase_gap_variation": gaps.std() / gaps.mean(),
        "purchase_overdue_ratio": row["purchase_recency_days"] / gaps.mean(),  # type: ignore[operator]
        "purchase_overdue_against_longest": row["purchase_recency_days"] / gaps.max(),  # type: ignore[operator]
    }
    orders = seen.last(seen.orders, seen.longest)
    local, timed = orders.local.dt, orders.local[orders.local != orders.local.dt.normalize()].dt
    for part, hit in {
        "morning": timed.hour.between(5, 11),
        "afternoon": timed.hour.between(12, 16),
        "evening": timed.hour.between(17, 21),
        "weekend": local.day_name().isin(["Saturday", "Sunday"]),
        "payday": local.day.isin([25, 26, 27, 28, 29, 30, 31, 1, 2, 3]),
        **{day.lower(): local.day_name() == day for day in calendar.day_name},
    }.items():
        found[f"{part}_purchase_share_{label(seen.longest)}"] = hit.mean()
    now = money(seen.of("purchase", MONTH).amount)
    then = seen.of("purchase", YEAR + MONTH).query("event_ts < @end", local_dict={"end": seen.cutoff - YEAR})
    is_old = seen.age(seen.of("purchase")) >= (YEAR + MONTH) / DAY
    found["purchase_amount_sum_28d_vs_year_before"] = share(now, money(then.amount)) if is_old else nan
    return {**found, **favourite(seen.own, "hour", seen, "best_hour")}


def gamma_shape(gaps: pd.Series) -> float:
    """Minka's closed form, of at least two gaps; never above 100."""
    if len(gaps) < 2:
        return nan
    s = max(log(gaps.mean()) - np.log(gaps).round(10).mean(), 0.005)
    return min((3 - s + sqrt((s - 3) ** 2 + 24 * s)) / (12 * s), 100.0)


def promotion(seen: Seen, _row: Row) -> Row:
    row: Row = {}
    for place, window in enumerate(seen.windows):
        name, lines = label(window), seen.of("purchase", window)
        if place >= 1:
            row[f"discount_sum_{name}"] = money(lines.discount)
        if place >= 2:
            row[f"discounted_line_share_{name}"] = (lines.discount > 0).mean()
    row[f"discount_share_{name}"] = share(money(lines.discount), money(lines.discount) + money(lines.amount))
    row[f"promoted_order_share_{name}"] = seen.last(seen.orders, seen.longest).discounted.mean()
    sent = len(seen.of(CONTACT))
    for event_type, what in (
        ("coupon_redeemed", "coupon"),
        (CONTACT, "campaign"),
        ("campaign_opened", "campaign_open"),
        ("campaign_clicked", "campaign_click"),
    ):
        row[f"{what}_count"] = len(seen.of(event_type))
        row |= {f"{what}_count_{label(window)}": len(seen.of(event_type, window)) for window in seen.windows[2:]}
        if what != "campaign":
            row[f"{what}_per_campaign"] = share(len(seen.of(event_type)), sent)
    ever = share(len(seen.answers), sent)
    lately = share(len(seen.last(seen.answers, MONTH)), len(seen.of(CONTACT, MONTH)))
    return {
        **row,
        "campaign_answer_hours_mean": seen.answers.hours.mean(),
        "campaign_answer_share": ever,
        "campaign_answer_share_28d_vs_history": share(lately, ever),
        "contact_count_7d": len(seen.of(CONTACT, WEEK)),
        "contact_count_28d": len(seen.of(CONTACT, MONTH)),
    }


def contacts_of_plays(seen: Seen, _row: Row) -> Row:
    """What caps and rests count, when there are plays: in windows of their own, of hours too."""
    if seen.contacts is None:
        return {}
    counts = {f"contacted_count_{label(window)}": len(seen.of(CONTACT, window)) for window in seen.contacts}
    return {**counts, "contacted_recency_days": seen.recency(seen.of(CONTACT))}


def stage(seen: Seen, row: Row) -> Row:
    found: Row = {"known_days": seen.age(seen.events)}
    found["started_after_days"] = seen.age(seen.everybody) - found["known_days"]  # type: ignore[operator]
    for event_type, what in (
        *((name, name) for name in ("view", "cart", "checkout", "return", "unsubscribe", "support")),
        ("coupon_redeemed", "coupon"),
        (CONTACT, "campaign"),
        ("campaign_opened", "campaign_open"),
        ("campaign_clicked", "campaign_click"),
    ):
        found[f"{what}_recency_days"] = seen.recency(seen.of(event_type))
        found[f"{what}_first_days"] = seen.age(seen.of(event_type))
        if what != "coupon":
            found[f"{what}_after_purchase_days"] = after_purchase(row, found[f"{what}_recency_days"])
    pause = seen.lapsed_after
    beginnings = seen.days[seen.days.gap.isna() | (seen.days.gap >= pause)]
    run, runs = seen.recency(beginnings), len(beginnings)
    recency, usual = row["purchase_recency_days"], seen.days.gap.mean()
    patience = min(max(pause / 4, pause / 2 if pd.isna(usual) else 3 * usual), pause)
    if runs == 0:
        found["journey_stage"], days = "prospect", found["known_days"]
    elif recency >= pause:  # type: ignore[operator]
        found["journey_stage"], days = "lapsed", recency - pause  # type: ignore[operator]
    elif recency >= patience:  # type: ignore[operator]
        found["journey_stage"], days = "slipping", recency - patience  # type: ignore[operator]
    elif run < pause / 2:
        found["journey_stage"], days = "new" if runs == 1 else "returned", run
    elif run >= 2 * pause:
        found["journey_stage"], days = "loyal", run - 2 * pause
    else:
        found["journey_stage"], days = "active", run - pause / 2
    return {**found, "purchase_run_days": run, "purchase_run_count": runs, "journey_stage_days": days}


def after_purchase(row: Row, recency: object) -> float:
    later: float = row["purchase_recency_days"] - recency  # type: ignore[operator]
    return later if later > 0 else nan


def exit_(seen: Seen, row: Row) -> Row:
    returns = seen.of("return")
    orders = returns.order_id.fillna(returns.event_ts.astype(str)).nunique()
    found: Row = {"unsubscribe_count": len(seen.of("unsubscribe")), "return_order_count": orders}
    for window in seen.coarse:
        name = label(window)
        found[f"return_count_{name}"] = len(seen.of("return", window))
        found[f"support_count_{name}"] = len(seen.of("support", window))
        begun = len(seen.last(seen.visits, window, "begun_at"))
        acted = len(seen.last(seen.visits, window, "acted_at"))
        found[f"idle_visit_share_{name}"] = max(1 - acted / begun, 0) if begun else nan
    returned, bought = (money(seen.of(kind, seen.longest).amount) for kind in ("return", "purchase"))
    found[f"return_amount_sum_{label(seen.longest)}"] = returned
    found[f"return_amount_share_{label(seen.longest)}"] = share(returned, bought)
    pace = [row[f"purchase_count_{label(window)}"] / window.days for window in seen.windows]  # type: ignore[operator]
    found["purchase_decline_count"] = sum(round(short - long, 12) < 0 for short, long in zip(pace, pace[1:], strict=False))
    for what in ("channel", "device"):
        lately = seen.last(seen.own, seen.lapsed_after * DAY)[what]
        found[f"{what}_silent_count"] = len(set(seen.own[what].dropna()) - set(lately))
    return found


def pace(seen: Seen, now: float, whole: float, short: timedelta, long: timedelta) -> float:
    """Per day against per day, of the days that a user is known."""
    known = seen.age(seen.events)
    return nan if known <= short / DAY else share(now / (short / DAY), whole / min(long / DAY, known))


def trend(seen: Seen, row: Row) -> Row:
    found: Row = {}
    for short, long in zip(seen.windows, seen.windows[2:], strict=False):
        for what in ("purchase_count", "purchase_amount_sum"):
            now, whole = row[f"{what}_{label(short)}"], row[f"{what}_{label(long)}"]
            found[f"{what}_{label(short)}_vs_{label(long)}"] = pace(seen, now, whole, short, long)  # type: ignore[arg-type]
    for place, window in enumerate(seen.windows):
        name = f"purchase_amount_sum_{label(window)}"
        if 2 * window in seen.windows:
            before = seen.of("purchase", 2 * window).query("event_ts < @end", local_dict={"end": seen.cutoff - window})
            found[f"{name}_vs_before"] = share(row[name], money(before.amount))  # type: ignore[arg-type]
        if place >= 2:
            whole, tenure = row["purchase_amount_sum"], max(row["purchase_tenure_days"], window.days)  # type: ignore[call-overload]
            found[f"{name}_vs_history"] = share(row[name] / window.days, whole / tenure)  # type: ignore[operator]
    return found


def sources(seen: Seen, _row: Row) -> Row:
    touches = seen.own[seen.own.source.notna()].sort_values("source")
    recent = seen.last(touches, seen.longest).source
    first, last = (touches[touches.event_ts == at] for at in (touches.event_ts.min(), touches.event_ts.max()))
    return {
        # Of two at one instant the last in the alphabet comes first, and the first comes last.
        "first_source": first.source.iloc[-1] if len(first) else None,
        "last_source": last.source.iloc[0] if len(last) else None,
        **favourite(seen.own, "source", seen, "favourite_source"),
        f"source_count_{label(seen.longest)}": recent.nunique(),
        f"source_entropy_{label(seen.longest)}": mixture(recent),
        **named_values(seen, "source"),
    }


def region(seen: Seen, _row: Row) -> Row:
    lately, ever = (favourite(seen.own, "region", replaced, "region")["region"] for replaced in (seen, _with_longest(seen)))
    return {"region": ever if lately is None else lately, "region_count": seen.own.region.nunique()}


def _with_longest(seen: Seen) -> Seen:
    return Seen(seen.events, seen.everybody, seen.cutoff, [10_000 * DAY], {})


def outcomes(seen: Seen, known: Row) -> Row:
    row: Row = {}
    for name, (met, measure, carried) in seen.outcomes.items():
        hits = seen.events[met(seen.events)]
        if name in seen.habits:
            row |= in_runs(seen, hits, name)
        if name in seen.steps:
            row |= in_steps(seen, hits, name)
        # The rest of these is told by families of their own.
        if name in ("purchase", "view"):
            row |= supply(seen, hits, name) if name == "purchase" else spaced(seen, hits, name)
            continue
        row |= {f"{name}_recency_days": seen.recency(hits)}
        few = [seen.coarse[1], seen.longest]
        counted = seen.coarse
        if carried is None:
            # Of purchases by category none is counted.
            counted = [] if name.startswith("purchase_") else few
        for window in counted:
            row[f"{name}_count_{label(window)}"] = len(seen.last(hits, window))
        if not name.startswith("near_"):
            row |= spaced(seen, hits, name) | supply(seen, hits, name)
        if carried is None:
            continue
        row |= {f"{name}_first_days": seen.age(hits), f"{name}_count": len(hits)}
        if not name.startswith("purchase_"):
            row[f"{name}_after_purchase_days"] = after_purchase(known, row[f"{name}_recency_days"])
        for column in {measure, *carried} - {None}:
            row[f"{name}_{column}_sum"] = money(hits[column])
            for window in seen.coarse if column == measure else few:
                row[f"{name}_{column}_sum_{label(window)}"] = money(seen.last(hits, window)[column])
        if not carried:
            continue
        for short, long in pairwise(seen.coarse):
            counts = (row[f"{name}_count_{label(window)}"] for window in (short, long))
            row[f"{name}_count_{label(short)}_vs_{label(long)}"] = pace(seen, *counts, short, long)  # type: ignore[arg-type]
        for column in carried:
            row[f"{name}_{column}_mean"] = hits[column].mean()
            now, before = (seen.last(hits, window)[column].mean() for window in few)
            row |= {f"{name}_{column}_mean_{label(window)}": mean for window, mean in zip(few, (now, before), strict=True)}
            row[f"{name}_{column}_mean_{label(few[0])}_vs_{label(few[1])}"] = share(now, before)
    return row


def spaced(seen: Seen, hits: pd.DataFrame, name: str) -> Row:
    """Days between local days with events, in the order in which these days came."""
    gaps = local_days(hits).gap
    usual = gaps[gaps > 0].mean()
    return {f"{name}_gap_days_mean": usual, f"{name}_overdue_ratio": seen.recency(hits) / usual}


def in_runs(seen: Seen, hits: pd.DataFrame, name: str) -> Row:
    """Runs without a break as long as the pause after which a user has lapsed."""
    days = local_days(hits)
    beginnings = days[days.gap.isna() | (days.gap >= seen.lapsed_after)]
    return {f"{name}_run_days": seen.recency(beginnings), f"{name}_run_count": len(beginnings)}


def in_steps(seen: Seen, hits: pd.DataFrame, name: str) -> Row:
    """How far back the last days lie, and what was done in each of six horizons."""
    days, horizon = local_days(hits).event_ts, seen.steps[name]
    which = {2: "2nd", 3: "3rd", 4: "4th"}
    row: Row = {
        f"{name}_recency_days_{said}": seen.days_since(days.iloc[-place]) if len(days) >= place else nan
        for place, said in which.items()
    }
    for start in (horizon * step for step in range(6)):
        end, when = start + horizon, f"_before_{label(start)}" if start else ""
        in_step = (rows[(rows >= seen.cutoff - end) & (rows < seen.cutoff - start)] for rows in (days, hits.event_ts))
        days_of, events_of = in_step
        # Other families tell the latest step of purchases.
        if start or name != "purchase":
            row[f"{name}_day_count_{label(horizon)}{when}"] = len(days_of)
            row[f"{name}_amount_sum_{label(horizon)}{when}"] = money(hits.amount[events_of.index])
    return row


def local_days(hits: pd.DataFrame) -> pd.DataFrame:
    """Local days with events, in the order in which they came, and the days since the one before."""
    days = hits.groupby(hits.local.dt.normalize().rename("day")).event_ts.min().reset_index().sort_values(["event_ts", "day"])
    return days.assign(gap=days.day.diff() / DAY)


def supply(seen: Seen, hits: pd.DataFrame, name: str) -> Row:
    """How much was taken last, and how long that is enough."""
    lots = hits[hits.quantity > 0].groupby("event_ts").quantity.sum()
    row: Row = dict.fromkeys((f"{name}_{what}" for what in ("quantity_last", "supply_days", "supply_used_ratio")), nan)
    if len(lots):
        row[f"{name}_quantity_last"] = lots.iloc[-1]
        span = (lots.index[-1] - lots.index[0]) / DAY
        if span >= 1:
            days = lots.iloc[-1] / (lots.iloc[:-1].sum() / span)
            row |= {f"{name}_supply_days": days, f"{name}_supply_used_ratio": seen.recency(hits) / days}
    return row


def names(seen: Seen, known: Row) -> Row:
    found = {}
    for text, value in seen.names:
        found[f"{text}_is_{value}"] = nan if known[text] is None else float(known[text] == value)
    return found


FAMILIES = (
    *(loyalty, habits, channels, carts, timing, promotion, contacts_of_plays),
    *(stage, exit_, trend, sources, region, outcomes, names),
)


def _against_others(rows: Mapping[str, Row], longest: timedelta) -> None:
    """Add what sets the users of one cutoff against each other."""
    orders, spend = f"purchase_count_{label(longest)}", f"purchase_amount_sum_{label(longest)}"
    ever = [row for row in rows.values() if pd.notna(row["purchase_recency_days"])]
    buyers = [row for row in rows.values() if row[orders] > 0]  # type: ignore[operator]
    for row in rows.values():
        for score, name, sign in (("r", "purchase_recency_days", -1), ("f", orders, 1), ("m", spend, 1)):
            worse = sum(sign * other[name] < sign * row[name] for other in ever)  # type: ignore[operator]
            row[f"rfm_{score}_score"] = floor(5 * worse / len(ever)) + 1 if pd.notna(row["purchase_recency_days"]) else nan
        below = sum(other[orders] < row[orders] for other in buyers) / len(buyers) if buyers else nan  # type: ignore[operator]
        is_buyer = row[orders] > 0  # type: ignore[operator]
        row[f"purchase_count_percentile_{label(longest)}"] = 100 * below if is_buyer else nan
        level = "heavy" if below >= 0.8 else "medium" if below >= 0.5 else "light"
        row["usage_level"] = level if is_buyer else "none"
        near = [other for other in rows.values() if other["region"] == row["region"]]
        bought = [other for other in near if other["purchase_recency_days"] <= 28]  # type: ignore[operator]
        row["region_buyer_share_28d"] = nan if row["region"] is None else len(bought) / len(near)


def _levels(rows: Mapping[str, Row], levels: Sequence[str], windows: Sequence[timedelta]) -> None:
    """Add how many of the users with an event had one lately."""
    for name in levels:
        recency = pd.Series([row[f"{name}_recency_days"] for row in rows.values()], dtype=float)
        for window in (windows[0], windows[2]):
            told = share((recency <= window / DAY).sum(), (recency <= windows[-1] / DAY).sum())
            for row in rows.values():
                row[f"{name}_user_share_{label(window)}"] = told
