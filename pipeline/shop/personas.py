"""The planted personas and every number that tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]

CATEGORIES = ("grocery", "household", "beauty", "fashion", "sports", "toys", "garden", "books", "electronics", "flowers")
DEVICES = ("desktop", "mobile", "tablet")
SOURCES = ("search", "ads", "email", "social", "direct", "referral")

_WORKDAYS = (1.1, 1.1, 1.1, 1.1, 1.2, 0.8, 0.6)
_WEEKEND = (0.5, 0.5, 0.5, 0.6, 1.0, 2.2, 1.7)
_EVEN = (1.0,) * 7


@dataclass(frozen=True, kw_only=True)
class Persona:
    """What most users of one persona do; each user draws an own version around it.

    Chances are per visit (`store`), per view (`cart`), per visit with a cart (`checkout`), per checkout (`purchase`), per order
    line (`returns`), per message (`opens`), per opened message (`clicks`). `mean_gap` and `mean_life` are days; `gap_shape` is the
    regularity k of Platzer & Reutterer (2016); `views` is the mean number of views a visit; `weekday` starts on Monday; `hours` are
    the local hours around which workdays and weekends peak; `december` multiplies visits in the weeks before Christmas.
    """

    name: str
    share: float
    mean_gap: float
    gap_shape: float
    mean_life: float
    slows: float
    sensitivity: float
    response: float
    views: float
    cart: float
    checkout: float
    purchase: float
    store: float
    loyalty: float
    returns: float
    support: float
    opens: float
    clicks: float
    app: float
    december: float
    weekday: Sequence[float]
    hours: tuple[float, float]
    categories: Sequence[float]
    devices: Sequence[float]
    sources: Sequence[float]


PERSONAS = (
    Persona(
        name="bargain_hunter", share=0.20, mean_gap=42, gap_shape=1.0, mean_life=330, slows=0.4, sensitivity=0.80, response=0.45,
        views=3.2, cart=0.14, checkout=0.65, purchase=0.72, store=0.10, loyalty=0.15, returns=0.08, support=0.9, opens=0.45,
        clicks=0.35, app=0.35, december=1.4, weekday=_EVEN, hours=(20, 19), categories=(3, 3, 2, 3, 1, 1, 1, 1, 3, 1),
        devices=(3, 6, 1), sources=(3, 3, 3, 1, 1, 1),
    ),
    Persona(
        name="weekend_family", share=0.20, mean_gap=28, gap_shape=2.5, mean_life=560, slows=0.6, sensitivity=0.40, response=0.20,
        views=2.4, cart=0.26, checkout=0.75, purchase=0.82, store=0.40, loyalty=0.40, returns=0.06, support=0.7, opens=0.30,
        clicks=0.20, app=0.30, december=1.6, weekday=_WEEKEND, hours=(18, 11), categories=(6, 4, 1, 2, 2, 4, 2, 1, 1, 1),
        devices=(3, 4, 3), sources=(3, 1, 2, 1, 3, 1),
    ),
    Persona(
        name="loyal_regular", share=0.20, mean_gap=20, gap_shape=4.0, mean_life=750, slows=0.7, sensitivity=0.25, response=0.15,
        views=2.0, cart=0.32, checkout=0.82, purchase=0.90, store=0.45, loyalty=0.65, returns=0.03, support=0.6, opens=0.40,
        clicks=0.22, app=0.25, december=1.2, weekday=_WORKDAYS, hours=(9, 10), categories=(8, 4, 3, 1, 1, 1, 1, 1, 1, 1),
        devices=(5, 3, 2), sources=(2, 1, 2, 1, 5, 1),
    ),
    Persona(
        name="window_shopper", share=0.20, mean_gap=40, gap_shape=0.8, mean_life=230, slows=0.3, sensitivity=0.45, response=0.10,
        views=3.6, cart=0.06, checkout=0.50, purchase=0.60, store=0.02, loyalty=0.20, returns=0.15, support=0.5, opens=0.25,
        clicks=0.30, app=0.45, december=1.2, weekday=_EVEN, hours=(22, 22), categories=(1, 1, 3, 6, 2, 1, 1, 1, 4, 1),
        devices=(1, 8, 1), sources=(2, 3, 1, 5, 1, 1),
    ),
    Persona(
        name="occasional_gifter", share=0.14, mean_gap=92, gap_shape=1.2, mean_life=620, slows=0.3, sensitivity=0.35, response=0.30,
        views=2.8, cart=0.25, checkout=0.70, purchase=0.80, store=0.15, loyalty=0.15, returns=0.10, support=0.8, opens=0.25,
        clicks=0.20, app=0.10, december=3.5, weekday=_EVEN, hours=(16, 15), categories=(1, 1, 3, 2, 1, 5, 1, 4, 2, 5),
        devices=(5, 4, 1), sources=(5, 2, 1, 1, 1, 1),
    ),
    Persona(
        name="power_user", share=0.06, mean_gap=11, gap_shape=1.6, mean_life=650, slows=0.5, sensitivity=0.30, response=0.05,
        views=2.8, cart=0.22, checkout=0.80, purchase=0.88, store=0.05, loyalty=0.45, returns=0.12, support=1.6, opens=0.50,
        clicks=0.30, app=0.85, december=1.3, weekday=_WORKDAYS, hours=(13, 14), categories=(3, 2, 2, 3, 3, 1, 1, 2, 6, 1),
        devices=(3, 7, 1), sources=(1, 1, 2, 1, 6, 1),
    ),
)  # fmt: skip


def values(field: str) -> Floats:
    """Give one number per persona, or one row per persona where the field holds several."""
    return np.array([getattr(persona, field) for persona in PERSONAS], dtype=np.float64)


BINS = 1024


def chooser(weights: Floats) -> Ints:
    """Give a table for drawing by weight: row r at `floor(u * BINS)`, u uniform in [0, 1), is a choice by `weights[r]`.

    >>> (chooser(np.array([[1.0, 3.0]])) == 1).mean()
    np.float64(0.75)
    """
    edges = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    middles = (np.arange(BINS) + 0.5) / BINS
    table: Ints = (middles[None, :, None] > edges[:, None, :-1]).sum(axis=2).astype(np.int64)
    return table


def choose(table: Ints, rows: Ints, uniform: Floats) -> Ints:
    """Draw one choice per row of `rows` from a `chooser` table."""
    chosen: Ints = table[rows, (uniform * BINS).astype(np.int64)]
    return chosen
