"""Contacts: who gets which campaign, what they do with it, and what it does to them."""

from dataclasses import dataclass

import numpy as np

from pipeline.shop.personas import Flags, Floats, Ints, values
from pipeline.shop.users import NEVER, Users
from pipeline.shop.world import DAY, HOUR, MINUTE, World

SENT, OPENED, CLICKED, UNSUBSCRIBED = range(4)
ACTIONS = ("sent", "opened", "clicked", "unsubscribed")
EFFECT_DAYS, COUPON_DAYS, TIRING_DAYS = 5, 14, 14.0
NO_COUPON = -1


@dataclass(frozen=True)
class Contacts:
    """Messages, one entry per action, and what they leave behind.

    `lift` (users x days) multiplies visits; `coupon` is the campaign whose coupon a user holds that day, or NO_COUPON; `mailed`
    says on which days an email works; `unsubscribed` is when a user left the mailing list, or NEVER.
    """

    user: Ints
    campaign: Ints
    action: Ints
    sent_at: Ints
    at: Ints
    lift: Floats
    coupon: Ints
    mailed: Flags
    unsubscribed: Ints


def draw_contacts(users: Users, world: World, random: np.random.Generator) -> Contacts:
    """Send every campaign, in order of time, to a random part of those who accept it.

    Each contact multiplies visits by `1 + response` on the five local days after it. Contacts tire: with c, the contacts so far
    decaying over 14 days, above one, the response shrinks by exp(-0.4 (c - 1)) and unsubscribing grows by 6 points for each.
    """
    count = len(users)
    lift = np.ones((count, world.days), dtype=np.float32)
    coupon = np.full((count, world.days), NO_COUPON, dtype=np.int16)
    mailed = np.zeros((count, world.days), dtype=np.bool_)
    listed = {False: users.accepts.copy(), True: users.app.copy()}
    unsubscribed = np.full(count, NEVER)
    recent, before = np.zeros(count), 0
    gone = np.minimum(users.left, world.end)
    opens, clicks = values("opens")[users.persona], values("clicks")[users.persona]
    parts: list[tuple[Ints, ...]] = []
    for number, sent_at in enumerate(world.sent_at.tolist()):
        push, day = bool(world.push[number]), sent_at // DAY
        recent *= np.exp(-(sent_at - before) / DAY / TIRING_DAYS)
        before = sent_at
        # The company does not know who has left: it keeps writing to them.
        who = np.flatnonzero((random.random(count) < world.reach[number]) & listed[push] & (users.joined < sent_at))
        tired = np.maximum(recent[who] - 1, 0)
        recent[who] += 1
        freshness = np.exp(-0.4 * tired)
        at = sent_at + random.integers(0, 90 * MINUTE, len(who))
        opened_at = at + MINUTE + np.minimum(random.exponential(5 * HOUR, len(who)), 40 * HOUR).astype(np.int64)
        clicked_at = opened_at + random.integers(5_000, 3 * MINUTE, len(who))
        stopped_at = opened_at + random.integers(10_000, 5 * MINUTE, len(who))
        drawn = random.random((3, len(who)))
        opened = (drawn[0] < opens[who] * freshness * (0.7 + users.response[who])) & (opened_at < gone[who])
        clicked = opened & (drawn[1] < clicks[who]) & (clicked_at < gone[who])
        stopped = opened & (drawn[2] < 0.025 + 0.06 * tired) & (stopped_at < gone[who])
        for what, mask, times in (
            (SENT, at < world.end, at),
            (OPENED, opened, opened_at),
            (CLICKED, clicked, clicked_at),
            (UNSUBSCRIBED, stopped, stopped_at),
        ):
            done = who[mask]
            parts.append((done, np.full(len(done), number), np.full(len(done), what), at[mask], times[mask]))
        listed[push][who[stopped]] = False
        if not push:
            unsubscribed[who[stopped]] = stopped_at[stopped]
            mailed[who, day + 1 : day + 1 + EFFECT_DAYS] = True
        lift[who, day + 1 : day + 1 + EFFECT_DAYS] *= (1 + users.response[who] * freshness)[:, None].astype(np.float32)
        if world.coupon[number]:
            coupon[who, day + 1 : day + 1 + COUPON_DAYS] = number
    user, campaign, action, sent, done_at = _joined(parts)
    order = np.lexsort((action, done_at, user))
    return Contacts(user[order], campaign[order], action[order], sent[order], done_at[order], lift, coupon, mailed, unsubscribed)


def _joined(parts: list[tuple[Ints, ...]]) -> list[Ints]:
    if not parts:
        return [np.empty(0, dtype=np.int64) for _ in range(5)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
