"""Measure segments: `python benchmarks/segments.py`; writes below output/benchmarks.

Flicker: two simulated shops, models trained once and asked on each of the 60 nights after it, and the memberships of
configs/clickstream.yaml folded twice over these nights: as they are shipped, and by `enter` alone. The shipped bounds of leaving
were chosen on the shop of the first seed; what is told is the second's. Who is a correct member is said by what happened
after the night, or by the simulation's truth, never by the rule.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from rich.console import Console

from features.labels import Eligible, Target, build_labels
from models.bundle import TargetBundle
from pipeline.events import EventLog, midnight, read_events
from pipeline.frames import features_frame
from pipeline.progress import Narrator
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
Flags = npt.NDArray[np.bool_]

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


if __name__ == "__main__":
    import sys

    for seed in map(int, sys.argv[1:]):
        print(nights(seed))
