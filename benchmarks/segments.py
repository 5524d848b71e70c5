"""Measure segments: `python benchmarks/segments.py`; writes below output/benchmarks.

Flicker: two simulated shops, models trained once and asked on each of the 60 nights after it, and the memberships of
configs/clickstream.yaml folded twice over these nights: as they are shipped, and by `enter` alone. The shipped bounds of leaving
were chosen on the shop of the first seed; what is told is the second's. Who is a correct member is said by what happened
after the night, or by the simulation's truth, never by the rule.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import yaml
from rich.console import Console

from features.expressions import columns_of
from features.labels import Eligible, Target, build_labels
from models.bundle import TargetBundle
from pipeline.columns import STAGE
from pipeline.events import EventLog, midnight, read_events
from pipeline.frames import features_frame
from pipeline.ledger import NEVER, Dates, Flags, step
from pipeline.progress import Narrator
from pipeline.recorded import forming_of
from pipeline.rules import FALSE, TRUE, truths
from pipeline.segments import min_stays, rule_truths, with_stages
from pipeline.settings import Settings
from pipeline.simulate import simulate
from pipeline.tracking import Tracker
from pipeline.train import train

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "output" / "benchmarks"
CONFIG = ROOT / "configs" / "clickstream.yaml"
USERS, DAYS, START = 3_000, 480, date(2024, 1, 1)
TUNED_ON, TOLD_OF = 11, 12
NIGHTS, BLOCK = 60, 10
# The last night's longest horizon ends with the simulation.
FIRST_NIGHT = START + timedelta(days=DAYS - 28 - NIGHTS)
SHORT = np.timedelta64(7, "D")
RESAMPLES = 2_000
Counts = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

# Asked of everybody known, not only of those whom a target asks about.
QUIET = Target(
    name="quiet_28d",
    kind="absence",
    horizon=timedelta(days=28),
    events="event_type = 'purchase'",
    eligible=Eligible(timedelta(days=DAYS), "true"),
    meaning="buys nothing for 28 days",
)
_IS_THERE = "(left_at IS NULL OR left_at > cutoff)"
# Who is a correct member: by the label of the target that the rule reads, by what is bought afterwards, or by the truth.
CORRECT: Mapping[str, str] = {
    "cart_left_behind": f"{_IS_THERE} AND coalesce(purchase_recency_days, known_days) > cart_abandoned_recency_days",
    "valuable_at_risk": "churn_28d_label = 1",
    # Still half as much again as before the rise.
    "rising_stars": "value_28d_label >= 1.5 / 3 * purchase_amount_sum_84d / purchase_amount_sum_84d_vs_before",
    "about_to_buy": "purchase_7d_label = 1",
    "newcomers": _IS_THERE,
    "returning": _IS_THERE,
    "coupon_responsive": "coupon_28d_label = 1",
    "ready_for_more": "upsell_28d_label = 1",
    "electronics_next": "electronics_28d_label = 1",
    "waverers": "planted IN ('bargain_hunter', 'window_shopper')",
    "loyal": _IS_THERE,
    "active_buyers": _IS_THERE,
    "win_back": "quiet_28d_label = 1",
    "inactive": "quiet_28d_label = 1",
}


def narrator() -> Narrator:
    """Tell on stderr what takes its time."""
    return Narrator(Console(stderr=True))


def settings_of(seed: int) -> Settings:
    """Give the shipped config over a shop of this seed, made when it is not there, with a shorter training."""
    folder = OUTPUT / f"segments_shop_{seed}"
    if not folder.exists():
        simulate(folder, narrator(), users=USERS, days=DAYS, seed=seed, start=START)
    told = yaml.safe_load(CONFIG.read_text().replace("data/clickstream", str(folder)))
    told["output"] = str(OUTPUT / f"segments_run_{seed}")
    told["training"] = {"step": "28d", "test_origins": 2, "calibration_origins": 3}
    # What is measured here is memberships; every model is put in charge.
    told["gates"] = {"max_calibration_error": 1.0, "max_swing": 1.0}
    return Settings.model_validate(told)


def nights(seed: int) -> Path:
    """Give the file of all nights of a shop: every column that a rule may read, labels of every target, and the truth."""
    path = OUTPUT / f"segments_nights_{seed}.parquet"
    if path.exists():
        return path
    settings = settings_of(seed)
    tracker = Tracker(settings)
    train(settings.model_copy(update={"segments": ()}), FIRST_NIGHT, tracker, narrator())
    champions = tracker.champions([target.name for target in settings.targets])
    bundles = {name: found.bundle for name, found in champions.items() if isinstance(found.bundle, TargetBundle)}
    log = read_events(settings, START + timedelta(days=DAYS), narrator())
    truth = pd.read_parquet(OUTPUT / f"segments_shop_{seed}" / "truth" / "users.parquet").rename(columns={"persona": "planted"})
    cutoffs = [midnight(FIRST_NIGHT) + timedelta(days=day) for day in range(NIGHTS)]
    parts = [
        _block(log, settings, bundles, cutoffs[at : at + BLOCK]).merge(truth, on="user_id", how="left")
        for at in range(0, NIGHTS, BLOCK)
    ]
    pd.concat(parts, ignore_index=True).to_parquet(path)
    return path


def _block(log: EventLog, settings: Settings, bundles: Mapping[str, TargetBundle], cutoffs: list[datetime]) -> pd.DataFrame:
    """Give the rows of some nights: features, scores with their places, and labels."""
    with narrator().step(f"nights from {cutoffs[0]:%Y-%m-%d}") as told:
        frame = features_frame(log, cutoffs, settings, told)
        for target in (*settings.specs(), QUIET):
            labels = log.engine.execute(build_labels(log.events, target, cutoffs)).rename(columns={"label": f"{target.name}_label"})
            frame = frame.merge(labels, on=["user_id", "cutoff"], how="left", validate="one_to_one")
        said = {}
        for name, bundle in bundles.items():
            asked = frame[frame[f"{name}_label"].notna()]
            score = bundle.predict(asked).score
            places = [settings.bands()[name].place(rows.to_numpy(), np.sort(rows)) for _, rows in score.groupby(asked.cutoff)]
            percentile, band = (np.concatenate(found) for found in zip(*places, strict=True))
            by_night = pd.concat([rows for _, rows in score.groupby(asked.cutoff)]).index
            said[f"{name}_score"] = score.reindex(frame.index)
            said[f"{name}_percentile"] = pd.Series(percentile, index=by_night).reindex(frame.index)
            said[f"{name}_band"] = pd.Series(band, index=by_night).reindex(frame.index)
    # Personas are not made here: no shipped rule reads them.
    return pd.concat([frame, pd.DataFrame(said)], axis=1)


@dataclass(frozen=True)
class Folded:
    """Memberships over all nights: nights × users × segments, since when a user is in, NaT for who is out."""

    since: Dates
    days: Dates

    @property
    def members(self) -> Flags:
        """Who is in."""
        return ~np.isnat(self.since)

    def left_within(self, longest: np.timedelta64) -> Counts:
        """Count by user and segment the stays of at most that long, of those whose begin and length could be seen."""
        was, left = self.since[:-1], self.members[:-1] & ~self.members[1:]
        is_short = (self.days[1:, None, None] - was <= longest) & (was > self.days[0]) & (was <= self.days[-1] - longest)
        return (left & is_short).sum(axis=0)

    def back_within(self, longest: np.timedelta64) -> Counts:
        """Count by user and segment who left and came again after at most that long, of absences that could be seen so long."""
        found, left_on = np.zeros(self.since.shape[1:], dtype=np.int64), np.full(self.since.shape[1:], NEVER)
        for was, now, day in zip(self.members[:-1], self.members[1:], self.days[1:], strict=True):
            found += ~was & now & (day - left_on <= longest)
            left_on = np.where(was & ~now & (day <= self.days[-1] - longest), day, left_on)
        return found

    def turned(self) -> Counts:
        """Count by user the nights on which the primary segment became another."""
        primary = np.where(self.members.any(axis=2), self.members.argmax(axis=2), -1)
        return (primary[1:] != primary[:-1]).sum(axis=0)


@dataclass(frozen=True)
class Told:
    """The foldings of a shop's nights, and who is a correct member; `known` counts each user's nights."""

    names: list[str]
    plain: Folded
    without_stay: Folded
    shipped: Folded
    correct: Flags
    known: Counts


def told(seed: int) -> Told:
    """Fold the memberships of a shop as they are shipped, without minimum stays, and by `enter` alone."""
    settings = settings_of(seed)
    forming = forming_of(settings, FIRST_NIGHT, has_before=False)
    names = [segment.name for segment in settings.segments]
    rules = [*settings.rules().values(), *CORRECT.values()]
    read = {"user_id", "cutoff", STAGE}.union(*map(columns_of, rules))
    path = nights(seed)
    rows = with_stages(pq.read_table(path, columns=sorted(read & set(pq.read_schema(path).names))), (), settings.loyalty_tiers)
    enter, leave = rule_truths(rows, forming)
    users, night = pd.factorize(rows["user_id"].to_pandas())[0], pd.factorize(rows["cutoff"].to_pandas(), sort=True)[0]
    shape = (NIGHTS, users.max() + 1, len(names))

    def spread(said: Flags) -> Flags:
        """Put rows into a cube; of a user who is not known yet nothing is true."""
        cube = np.zeros(shape, dtype=np.bool_)
        cube[night, users] = said
        return cube

    enters, holds = spread(enter == TRUE), spread(leave == FALSE)
    days = np.datetime64(FIRST_NIGHT, "D") + np.arange(NIGHTS)
    at_once = np.zeros(len(names), dtype="timedelta64[D]")
    return Told(
        names,
        plain=_folded(enters, np.zeros_like(holds), days, at_once),
        without_stay=_folded(enters, holds, days, at_once),
        shipped=_folded(enters, holds, days, min_stays(forming)),
        correct=spread(truths(rows, [CORRECT[name] for name in names]) == TRUE),
        known=np.bincount(users),
    )


def _folded(enters: Flags, holds: Flags, days: Dates, min_stay: npt.NDArray[np.timedelta64]) -> Folded:
    since, found = np.full(enters.shape[1:], NEVER), []
    for day, enter, hold in zip(days.tolist(), enters, holds, strict=True):
        since = step(since, enter, hold, day, min_stay)
        found.append(since)
    return Folded(np.stack(found), days)


class Figures:
    """Sums over users, of all of them and of 2,000 resamples of them: a figure is one of these, or a ratio of two."""

    def __init__(self, users: int) -> None:
        """Draw how often each user is in each resample."""
        drawn = np.random.default_rng(1).multinomial(users, np.full(users, 1 / users), RESAMPLES)
        self._often = np.vstack([np.ones(users, dtype=drawn.dtype), drawn])

    def sums(self, by_user: Counts) -> Floats:
        """Give the sum, and after it those of the resamples."""
        return (self._often @ by_user).astype(np.float64)

    @staticmethod
    def said(values: Floats, text: str) -> str:
        """Write a figure with its interval."""
        low, high = np.quantile(values[1:], [0.025, 0.975])
        return f"{values[0]:{text}} [{low:{text}}, {high:{text}}]"


def flicker(found: Told) -> Iterator[tuple[str, ...]]:
    """Tell of each segment, then of all together, what rules to leave by and minimum stays change: cells of HEADER."""
    figures = Figures(len(found.known))
    known = figures.sums(found.known)
    places: list[tuple[str, slice]] = [(name, slice(at, at + 1)) for at, name in enumerate(found.names)]
    for name, here in [*places, ("all", slice(None))]:
        cells = []
        for how in (found.plain, found.shipped):
            members, short, long, back = (
                figures.sums(part[..., here].reshape(len(found.known), -1).sum(axis=1))
                for part in (how.members.sum(axis=0), how.left_within(SHORT), how.left_within(2 * SHORT), how.back_within(SHORT))
            )
            right = figures.sums((how.members & found.correct)[..., here].sum(axis=(0, 2)))
            cells.append((members, short, long, back, right))
        (members, short, long, back, right), (members_, short_, long_, back_, right_) = cells
        fewer = "none left" if not short_[0] else figures.said(short / np.maximum(short_, 0.5), ".1f")
        yield (
            name,
            f"{1000 * short[0] / known[0]:.3f} → {1000 * short_[0] / known[0]:.3f} ({short[0]:.0f} → {short_[0]:.0f})",
            fewer,
            f"{long[0]:.0f} → {long_[0]:.0f}",
            f"{back[0]:.0f} → {back_[0]:.0f}",
            f"{right[0]:,.0f} → {right_[0]:,.0f}",
            figures.said(100 * (right_ / np.maximum(right, 1) - 1), "+.1f"),
            f"{100 * right[0] / members[0]:.1f} → {100 * right_[0] / members_[0]:.1f}",
            figures.said(100 * (right_ / members_ * members / np.maximum(right, 1) - 1), "+.1f"),
        )


HEADER = (
    "segment",
    "stays of ≤ 7 days per 1,000 user-nights (their number)",
    "times fewer",
    "stays of ≤ 14 days",
    "left and back within 7 days",
    "correct member-nights",
    "change, %",
    "share of members who are correct, %",
    "change, %",
)


def main() -> None:
    """Tell of the shop with the seed that is given, by default the one on which nothing was chosen."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--seed", type=int, default=TOLD_OF, help=f"the bounds were chosen on {TUNED_ON}")
    found = told(asked.parse_args().seed)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for row in flicker(found):
        print(f"| {' | '.join(row)} |")
    foldings = (found.plain, found.without_stay, found.shipped)
    short = [f"{how.left_within(SHORT).sum():,}" for how in foldings]
    primary = [f"{1000 * how.turned().sum() / found.known.sum():.1f}" for how in foldings]
    print(f"\nplain → shipped; {len(found.known):,} users, {found.known.sum():,} user-nights; intervals are 95 %, over users.")
    print(f"Plain → with rules to leave by → with minimum stays too: stays of ≤ 7 days {' → '.join(short)}; nights on which the")
    print(f"primary segment turns, per 1,000 user-nights, {' → '.join(primary)}")


if __name__ == "__main__":
    main()
