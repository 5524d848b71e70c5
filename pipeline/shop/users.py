"""Who the users are: everything about each that the company never sees, drawn once."""

from dataclasses import dataclass

import numpy as np

from pipeline.shop.personas import DEVICES, PERSONAS, Flags, Floats, Ints, choose, chooser, values
from pipeline.shop.world import DAY, HOUR, ZONE_SHARES, World

NEVER = np.iinfo(np.int64).max
LOOKBACK = 730
_DAYS_TO_MS = float(DAY)


@dataclass(frozen=True)
class Users:
    """One entry per user of a chunk. Times are milliseconds since the start; `left` is NEVER for who is still there at the end."""

    persona: Ints
    zone: Ints
    region_known: Flags
    joined: Ints
    left: Ints
    hazard: Floats
    slows: Flags
    sensitivity: Floats
    response: Floats
    mean_gap: Floats
    gap_shape: Floats
    eagerness: Floats
    store: Floats
    loyalty: Floats
    category: Ints
    slot: Ints
    device: Ints
    app: Flags
    accepts: Flags

    def __len__(self) -> int:
        """Count the users."""
        return len(self.persona)

    @property
    def new(self) -> Flags:
        """Who joins during the simulation; the others were there before."""
        return self.joined >= 0


def draw_users(count: int, world: World, random: np.random.Generator) -> Users:
    """Draw users around their personas.

    Joining is even over two years before the start and the whole simulation. Lifetimes are exponential with a hazard that is
    itself Gamma distributed among users, as in the Pareto/NBD model (Schmittlein, Morrison & Colombo, 1987; Fader & Hardie, 2005).
    Who left before the start is not among the users; an exponential lifetime has no memory of it.
    """
    persona = random.choice(len(PERSONAS), count, p=values("share") / values("share").sum())
    hazard = random.gamma(2.0, 0.5, count) / values("mean_life")[persona] + 1e-5
    # Nobody joins in the last hours: the first visit must fit.
    joined = random.uniform(-LOOKBACK * _DAYS_TO_MS, world.end - 4 * HOUR, count).astype(np.int64)
    left = np.maximum(joined, 0) + (np.minimum(random.exponential(1 / hazard), 1e5) * _DAYS_TO_MS).astype(np.int64) + 2 * HOUR
    device = choose(chooser(values("devices")), persona, random.random(count))
    return Users(
        persona=persona,
        zone=random.choice(len(ZONE_SHARES), count, p=ZONE_SHARES),
        region_known=random.random(count) >= 0.01,
        joined=joined,
        left=np.where(left < world.end, left, NEVER),
        hazard=hazard,
        slows=random.random(count) < values("slows")[persona],
        sensitivity=_share_around(values("sensitivity")[persona], random),
        response=np.clip(random.normal(values("response")[persona], 0.15), -0.3, 1.2),
        mean_gap=values("mean_gap")[persona] * random.lognormal(0, 0.5, count),
        gap_shape=np.clip(values("gap_shape")[persona] * random.lognormal(0, 0.25, count), 0.4, 12),
        eagerness=random.lognormal(0, 0.4, count),
        store=_share_around(values("store")[persona], random),
        loyalty=_share_around(values("loyalty")[persona], random),
        category=choose(chooser(values("categories")), persona, random.random(count)),
        slot=random.integers(0, 7, count),
        device=device,
        app=(random.random(count) < values("app")[persona]) & (device != DEVICES.index("desktop")),
        accepts=random.random(count) < 0.75,
    )


def _share_around(mean: Floats, random: np.random.Generator) -> Floats:
    return random.beta(mean * 8, (1 - mean) * 8)
