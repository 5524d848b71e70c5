"""How many personas: tightly grouped, the same whoever happens to be asked, and none too small."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, silhouette_score
from threadpoolctl import threadpool_limits

from models.persona_matching import agreement
from models.propensity import Floats

SILHOUETTE_USERS = 5_000
_REFITTED_USERS = 10_000
_REFITS = 20
_STARTS = 10
# Silhouettes that differ by less say the same.
_ALIKE = 0.01
# How much tighter a fit from anywhere must be than one that begins where the former personas are.
_CLEARLY = 0.01
# How far below the wanted stability the number there was before may fall: changing it moves many more users.
_SLACK = 0.1


@dataclass(frozen=True)
class Tried:
    """One number of personas that was tried, and how it did.

    `silhouette` is the mean over users (Rousseeuw, 1987), -1 to 1; `stability` the mean adjusted Rand index (Hubert & Arabie, 1985)
    between the fit and fits from scratch on resampled users, 1 at most, 0 where they agree as chance would; `kept` the mean share
    of users who stay in their persona when it is fitted again to resampled users as a training does, which knows the former
    centres; `smallest` the share of users of the smallest persona. What an earlier release did not measure is null.
    """

    k: int
    silhouette: float
    stability: float | None = None
    kept: float | None = None
    smallest: float | None = None


@dataclass(frozen=True)
class Choice:
    """The number of personas that was chosen, why, what was tried, and the centroids (k × traits)."""

    k: int
    why: str
    tried: tuple[Tried, ...]
    centroids: Floats


def choose(
    scaled: Floats,
    counts: Sequence[int],
    *,
    smallest_share: float,
    stability: float,
    seed: int,
    start: Floats | None = None,
) -> Choice:
    """Cluster users (`scaled`, users × traits) into each number of personas in `counts`, and choose one of them.

    Of those that keep at least `stability` of the users in their persona, and whose smallest one is large enough, the best
    silhouette wins. Those within 0.01 of it are as good: of them the number there was before wins, which is that of the former
    centres `start`, else the one that fits from scratch agree on most. The number before may keep 0.1 fewer, since changing it
    moves many more. Where none keeps enough, the one that keeps most; where no one is large enough, the one whose smallest persona
    is largest. Users of a fit are drawn by `seed`.
    """
    # Sums of floats depend on how they are shared out between threads, and a persona should not.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Of few users, those drawn again may be fewer than there are clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = {k: _fit(scaled, k, seed, start)[1] for k in counts}
        tried = tuple(_try(scaled, k, fits[k], seed) for k in counts)
    k, why = _choose(tried, smallest_share, stability, None if start is None else len(start))
    return Choice(k, why, tried, fits[k])


def nearest(scaled: Floats, centroids: Floats) -> np.ndarray:
    """Give each user's nearest centroid."""
    return np.asarray(distances(scaled, centroids).argmin(axis=1))


def distances(scaled: Floats, centroids: Floats) -> Floats:
    """Give the distance of each user from each centroid: users × centroids."""
    squares = (scaled**2).sum(1)[:, None] - 2 * scaled @ centroids.T + (centroids**2).sum(1)[None, :]
    found: Floats = np.sqrt(np.maximum(squares, 0.0))
    return found


def _fit(scaled: Floats, k: int, seed: int, start: Floats | None) -> tuple[Floats, Floats]:
    """Give the centroids of a fit from scratch, and of the one that stays where the former personas are unless that is worse."""
    fresh = KMeans(k, n_init=_STARTS, random_state=seed).fit(scaled)
    if start is None or len(start) != k or np.isnan(start).any():
        return fresh.cluster_centers_, fresh.cluster_centers_
    again = KMeans(k, init=start, n_init=1).fit(scaled)
    chosen = again if again.inertia_ <= (1 + _CLEARLY) * fresh.inertia_ else fresh
    return fresh.cluster_centers_, chosen.cluster_centers_


def _try(scaled: Floats, k: int, centroids: Floats, seed: int) -> Tried:
    labels = nearest(scaled, centroids)
    random = np.random.default_rng(seed)
    some = random.permutation(len(scaled))[:SILHOUETTE_USERS]
    differ = len(set(labels[some])) > 1
    silhouette = float(silhouette_score(scaled[some], labels[some])) if differ else -1.0
    size = min(len(scaled), _REFITTED_USERS)
    refits = [_fit(scaled[random.integers(0, len(scaled), size)], k, seed + number, centroids) for number in range(_REFITS)]
    scratch, again = ([nearest(scaled, fit[at]) for fit in refits] for at in (0, 1))
    return Tried(
        k,
        silhouette,
        stability=float(np.mean([adjusted_rand_score(labels, other) for other in scratch])),
        kept=float(np.mean([agreement(labels, other, k=k) for other in again])),
        smallest=float(np.bincount(labels, minlength=k).min() / len(labels)),
    )


def _choose(tried: Sequence[Tried], smallest_share: float, stability: float, former: int | None) -> tuple[int, str]:
    large = [one for one in tried if (one.smallest or 0.0) >= smallest_share]
    if not large:
        one = max(tried, key=lambda one: one.smallest or 0.0)
        told = f"the smallest has {one.smallest or 0.0:.1%} of the users, less than the {smallest_share:.0%} asked for"
        between = f"{min(other.k for other in tried)} to {max(other.k for other in tried)}"
        return one.k, f"{told}; no number tried ({between}) leaves more"
    stable = [one for one in large if (one.kept or 0.0) >= stability - (_SLACK if one.k == former else 0.0)]
    if not stable:
        one = max(large, key=lambda one: one.kept or 0.0)
        return one.k, (
            f"no number keeps {stability:.0%} of the users in their persona when it is fitted to resampled users; "
            f"{one.k} keeps most, {one.kept:.1%}"
        )
    best = max(one.silhouette for one in stable)
    near = {one.k: one for one in stable if one.silhouette >= best - _ALIKE}
    one = near[former] if former in near else max(near.values(), key=lambda one: (one.stability or 0.0, -one.k))
    silhouette = f"the silhouette ({one.silhouette:.2f}) is"
    if len(near) == 1:
        chosen = f"and {silhouette} the best of those that do so"
    elif former in near:
        chosen = f"{silhouette} as good as any, and there were as many before"
    else:
        chosen = f"{silhouette} as good as any, and of those as good fits from scratch agree on it most ({one.stability:.2f})"
    return one.k, f"{one.kept:.0%} of the users keep their persona when it is fitted to resampled users, {chosen}"
