"""Measure the personas: `python benchmarks/personas.py`, which reads data/clickstream (see configs/clickstream.yaml).

Three questions: are planted personas found, do people keep their persona when it is found again, and how long does it take?
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from rich.console import Console
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import cross_val_predict

from features.catalogue import Feature, feature_name
from features.labels import active_users
from models.bundle import PersonaBundle
from models.persona_choice import choose, nearest
from models.persona_traits import scale
from models.personas import Personas, fit_personas
from pipeline.events import midnight, read_events
from pipeline.frames import features_frame
from pipeline.progress import Narrator
from pipeline.settings import Settings, read_settings

ROOT = Path(__file__).parent.parent
TRUTH = ROOT / "data" / "clickstream" / "truth" / "users.parquet"
# One thread: of many, those that wait for a busy core stop all others.
LABELLED = LGBMClassifier(n_estimators=150, learning_rate=0.05, num_leaves=15, verbose=-1, n_jobs=1, random_state=1)
ORDERS = {"all": (1, None), "1 or 2 orders": (1, 2), "3 orders or more": (3, None), "5 or more": (5, None), "8 or more": (8, None)}
NIGHT = 1_000_000


@dataclass(frozen=True)
class Shop:
    """Users of a shop on a night whose habits are known, with what their personas are found by."""

    settings: Settings
    features: Sequence[Feature]
    users: pd.DataFrame

    @property
    def orders(self) -> str:
        """Name the count of orders in the longest window."""
        return feature_name("purchase", "count", max(self.settings.features.windows))

    def fit(self, users: pd.DataFrame, *, former: Personas | None = None, seed: int | None = None) -> Personas:
        """Find personas as a training does."""
        told = self.settings.personas
        found, _ = fit_personas(
            users,
            self.features,
            fewest=told.fewest,
            most=told.most,
            smallest_share=told.smallest_share,
            stability=told.stability,
            former=former,
            purchases=self.orders,
            seed=self.settings.training.seed if seed is None else seed,
        )
        return found


def shop(config: str, as_of: date) -> Shop:
    """Build the features of a shipped config on a date."""
    settings = read_settings(ROOT / "configs" / config)
    narrator = Narrator(Console(stderr=True))
    log = read_events(settings, as_of, narrator)
    with narrator.step("building features") as step:
        frame = features_frame(log, [midnight(as_of)], settings, step)
    known = log.engine.execute(active_users(log.events, settings.activities(), midnight(as_of), log.features.longest))
    users = frame[frame.user_id.isin(known.user_id)].reset_index(drop=True)
    return Shop(settings, log.features.numbers, users)


def planted() -> list[tuple[str, str, str]]:
    """Compare the personas with the planted ones, and with what a classifier sees in the same traits that is told the truth."""
    there = shop("clickstream.yaml", date(2025, 5, 15))
    truth = pd.read_parquet(TRUTH).set_index("user_id").persona.reindex(there.users.user_id).to_numpy(dtype=object)
    found = there.fit(there.users)
    scaled = scale(there.users, found.traits)
    count = len(set(truth))
    as_many = choose(scaled, [count], smallest_share=0.0, stability=0.0, seed=1)
    told = {
        said: cross_val_predict(LABELLED, there.users[names].astype("float64"), truth, cv=5)
        for said, names in (("the same traits", list(found.features)), ("every feature", [one.name for one in there.features]))
    }
    personas = {f"k = {len(found.ids)}": found.assign(there.users), f"k = {count}, as planted": nearest(scaled, as_many.centroids)}
    rows = []
    for who, (least, most) in ORDERS.items():
        some = there.users[there.orders].between(least, most or np.inf).to_numpy()
        own, seen = (
            ", ".join(f"{adjusted_rand_score(truth[some], by[some]):.2f} ({said})" for said, by in each.items())
            for each in (personas, told)
        )
        rows.append((f"planted personas, adjusted Rand index: {who} ({some.sum():,} users)", own, "≥ 0.6"))
        rows.append(("… a classifier that is told the truth of the other four fifths", seen, "what can be seen at all"))
    return [*rows, *_told(found)]


def retrained(times: int) -> list[tuple[str, str, str]]:
    """Train again on resampled users, and at a later date: how many keep the persona that the champion gives."""
    before, after = (shop("complete_journey.yaml", day) for day in (date(2017, 12, 1), date(2018, 1, 1)))
    champion = before.fit(before.users)
    own, kept, numbers = champion.assign(before.users), [], []
    for number in range(times):
        drawn = before.users.sample(len(before.users), replace=True, random_state=number)
        again = before.fit(drawn, former=champion, seed=number)
        kept.append(float((again.assign(before.users) == own).mean()))
        numbers.append(len(again.ids))
    later = after.fit(after.users, former=champion)
    same = float((later.assign(after.users) == champion.assign(after.users)).mean())
    most = sum(share >= 0.9 for share in kept)
    said = f"{np.mean(kept):.1%} ({most} of {times} times 90 % or more, worst {min(kept):.1%}), k = {sorted(set(numbers))}"
    rows = [("Complete Journey, trained again on resampled users: same persona id", said, "≥ 90 %")]
    rows.append(("Complete Journey, trained again a month later: as the old personas say", f"{same:.1%}", "–"))
    return [*rows, *_told(champion)]


def fast() -> list[tuple[str, str, str]]:
    """Find the personas of a million users, and give them."""
    there = shop("complete_journey.yaml", date(2018, 1, 1))
    random = np.random.default_rng(1)
    users = there.users.iloc[random.integers(0, len(there.users), NIGHT)].reset_index(drop=True)
    names = [one.name for one in there.features]
    users[names] = users[names].astype("float64") * random.lognormal(0, 0.1, (NIGHT, 1))
    started = time.monotonic()
    found = there.fit(users)
    fitted = time.monotonic() - started
    PersonaBundle(found).predict(users)
    given = time.monotonic() - started - fitted
    return [(f"finding the personas of {NIGHT:,} users", f"{fitted:.0f} s", "–"), ("giving them", f"{given:.1f} s", "–")]


def _told(found: Personas) -> list[tuple[str, str, str]]:
    named = zip(found.ids, found.names, found.shares, found.descriptions, strict=True)
    return [(f"{number}: {name} ({share:.0%})", line, "–") for number, name, share, line in named]


def main() -> None:
    """Measure everything, and print a table for the documentation."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--only", nargs="*", default=["planted", "retrained", "fast"])
    asked.add_argument("--times", type=int, default=20)
    given = asked.parse_args()
    if "planted" in given.only and not TRUTH.exists():
        sys.exit(f"{TRUTH} is missing: run beforehand simulate --users 5000 --days 500 --seed 7 --output data/clickstream")
    tasks = {"planted": planted, "retrained": lambda: retrained(given.times), "fast": fast}
    print("| what | measured | reach |\n|---|---|---|")
    for name in given.only:
        for row in tasks[name]():
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
