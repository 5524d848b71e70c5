"""Backtest: purged origins, and calibration that only ever looks back."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from features.errors import GateError
from models.backtest import Origin, assemble, plan_origins, predict_origin

DAY = timedelta(days=1)
CUTOFFS = [datetime(2024, 1, 1) + 14 * DAY * index for index in range(8)]


def test_train_cutoffs_are_purged_of_overlapping_horizons() -> None:
    origins = plan_origins(CUTOFFS, 28 * DAY, tests=2, calibrations=1)
    assert origins == (
        Origin(CUTOFFS[5], tuple(CUTOFFS[:4]), is_test=False),
        Origin(CUTOFFS[6], tuple(CUTOFFS[:5]), is_test=True),
        Origin(CUTOFFS[7], tuple(CUTOFFS[:6]), is_test=True),
    )
    assert all(cutoff + 28 * DAY <= origin.cutoff for origin in origins for cutoff in origin.train_cutoffs)


def test_short_history_gives_fewer_origins_and_keeps_the_tests() -> None:
    origins = plan_origins(CUTOFFS[:4], 28 * DAY, tests=5, calibrations=4)
    assert [(origin.cutoff, origin.is_test) for origin in origins] == [(CUTOFFS[3], True)]


def test_too_short_a_history_is_refused() -> None:
    with pytest.raises(GateError, match="3 training cutoffs leave no origin to test on.*28 days.*Raise training.max_cutoffs"):
        plan_origins(CUTOFFS[:3], 28 * DAY, tests=5, calibrations=4)


def rows(users: int = 200, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frames = []
    for cutoff in CUTOFFS:
        strength = random.normal(size=users)
        frames.append(
            pd.DataFrame(
                {
                    "user_id": [f"u{number}" for number in range(users)],
                    "cutoff": cutoff,
                    "strength": strength,
                    "noise": random.normal(size=users),
                    "purchase_recency_days": np.exp(-strength),
                    "label": (random.random(users) < 1 / (1 + np.exp(-2 * strength))).astype(float),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


FEATURES = ["strength", "noise", "purchase_recency_days"]


def test_an_origin_is_predicted_from_its_train_cutoffs_alone() -> None:
    origin = plan_origins(CUTOFFS, 28 * DAY, tests=1, calibrations=0)[0]
    found = predict_origin(rows(), FEATURES, origin, is_amount=False, seed=1)
    changed = rows()
    unseen = ~changed.cutoff.isin(origin.train_cutoffs)
    changed.loc[unseen, "label"] = 1 - changed.loc[unseen, "label"]
    again = predict_origin(changed, FEATURES, origin, is_amount=False, seed=1)
    np.testing.assert_array_equal(found.raw, again.raw)
    np.testing.assert_array_equal(found.baseline, again.baseline)


def test_scores_are_calibrated_on_elapsed_origins_only() -> None:
    origins = plan_origins(CUTOFFS, 28 * DAY, tests=2, calibrations=3)
    predicted = [predict_origin(rows(), FEATURES, origin, is_amount=False, seed=1) for origin in origins]
    scores = assemble(predicted, 28 * DAY, is_amount=False).predictions.set_index(["cutoff", "user_id"]).score
    late = [frame.assign(label=1 - frame.label) if index >= 3 else frame for index, frame in enumerate(predicted)]
    again = assemble(late, 28 * DAY, is_amount=False).predictions.set_index(["cutoff", "user_id"]).score
    # Origins 3 and 4 end after every origin, so turning their labels around may change no score.
    pd.testing.assert_series_equal(scores, again)


def test_measures_are_of_test_origins_and_beat_chance() -> None:
    origins = plan_origins(CUTOFFS, 28 * DAY, tests=2, calibrations=1)
    predicted = [predict_origin(rows(), FEATURES, origin, is_amount=False, seed=1) for origin in origins]
    backtest = assemble(predicted, 28 * DAY, is_amount=False)
    assert list(backtest.by_origin()) == CUTOFFS[-2:]
    assert backtest.mean()["users"] == 400
    assert 0.75 < backtest.mean()["auc"] < 0.95


def test_one_class_before_every_origin_is_refused() -> None:
    origins = plan_origins(CUTOFFS, 28 * DAY, tests=1, calibrations=0)
    predicted = [predict_origin(rows().assign(label=0.0), FEATURES, origin, is_amount=False, seed=1) for origin in origins]
    with pytest.raises(GateError, match="no test origin could be predicted"):
        assemble(predicted, 28 * DAY, is_amount=False)
