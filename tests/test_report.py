"""What a report says of a backtest beyond its measures."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from models.backtest import Backtest, Worth
from models.calibration import Calibrator
from models.report import Report, against_champion, report

ORIGINS = [datetime(2024, 1, 1) + timedelta(days=14 * at) for at in range(3)]


def test_a_champion_is_compared_where_its_recipe_had_enough_to_learn_from() -> None:
    random, parts = np.random.default_rng(1), []
    for origin, champion in zip(ORIGINS, (np.nan, 0.3, 0.3), strict=True):
        score = random.uniform(0.1, 0.9, 1_000)
        happened = (random.random(1_000) < score).astype(float)
        users = [f"u{number}" for number in range(1_000)]
        own = {"user_id": users, "cutoff": origin, "is_test": True, "label": happened, "score": score, "base_rate": 0.5}
        parts.append(pd.DataFrame(own).assign(champion=champion * random.random(1_000)))
    rows = pd.concat(parts, ignore_index=True)
    backtest = Backtest(rows, "rfm", {"base_rate": Worth(0.0, 1.0)}, Calibrator(), is_amount=False)
    found = against_champion(backtest, "auc", confidence=0.95, seed=1)
    later = against_champion(replace(backtest, predictions=rows[rows.cutoff > ORIGINS[0]]), "auc", confidence=0.95, seed=1)
    assert found is not None and later is not None
    assert found.low > 0.1
    assert found.value == pytest.approx(later.value)
    nowhere = replace(backtest, predictions=rows.assign(champion=np.nan))
    assert against_champion(nowhere, "auc", confidence=0.95, seed=1) is None


def told(levels: list[float], *, is_amount: bool = False, slope: float = 1.0, horizon: timedelta = timedelta(days=28)) -> Report:
    """Report a model that says 0.2 (or 20) on average, whatever an origin's level is; chances lie `slope` times as far apart."""
    random, parts = np.random.default_rng(1), []
    for origin, level in zip(ORIGINS, levels, strict=True):
        score = random.uniform(0.1, 0.3, 1_000)
        chance = _apart(score, slope) * level / 0.2
        happened = score * 100 * level / 0.2 if is_amount else (random.random(1_000) < chance).astype(float)
        score = score * 100 if is_amount else score
        users = [f"u{number}" for number in range(1_000)]
        parts.append(pd.DataFrame({"user_id": users, "cutoff": origin, "is_test": True, "label": happened, "score": score}))
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.assign(base_rate=0.2, rfm=rows.score, drift=0.0)
    backtest = Backtest(rows, "rfm", {"base_rate": Worth(0.0, 1.0), "rfm": Worth(1.0, 0.5)}, Calibrator(), is_amount)
    features = rows[["user_id", "cutoff", "label"]].assign(own=rows.score)
    return report(backtest, features, by=[], groups={"own": "own"}, importance={}, horizon=horizon, seed=1)


def _apart(score: np.ndarray, slope: float) -> np.ndarray:
    middle = logit(0.2)
    return expit(middle + slope * (logit(score) - middle))


@pytest.mark.parametrize("is_amount", [False, True])
def test_the_origin_whose_level_was_missed_most_is_named(is_amount: bool) -> None:
    # Too high at one, too low at another: over all of them it cancels.
    (said,) = told([0.2, 0.3, 0.1], is_amount=is_amount).warnings
    assert said.startswith("at 2024-01-29 scores were ") and "what happened (" in said
    assert 1.5 < float(said.split()[4]) < 2.6


@pytest.mark.parametrize("levels", [[0.2, 0.2, 0.2], [0.2, 0.22, 0.19], [0.0, 0.2, 0.2]])
def test_a_level_that_is_right_or_unknown_is_no_matter(levels: list[float]) -> None:
    assert [line for line in told(levels).warnings if "score bands" not in line] == []


def test_bands_that_are_not_as_stated_are_told() -> None:
    said = [line for line in told([0.35, 0.35, 0.35]).warnings if "score bands" in line]
    assert said == ["in 0 of 10 score bands what happened lies within what was stated: read scores as an order, not as chances"]


@pytest.mark.parametrize(("slope", "said"), [(3.0, "too timid"), (0.1, "too bold"), (1.0, None)])
def test_scores_that_lie_too_near_or_too_far_apart_are_told(slope: float, said: str | None) -> None:
    found = [line for line in told([0.2, 0.2, 0.2], slope=slope).warnings if "times as far apart" in line]
    assert [said in line for line in found] == ([True] if said else [])
    if said:
        assert float(found[0].split(" lies ")[1].split(" times")[0]) == pytest.approx(slope, rel=0.3, abs=0.3)


def test_origins_that_look_at_the_same_weeks_are_told() -> None:
    assert not [line for line in told([0.2] * 3, horizon=timedelta(days=56)).warnings if "nearly one test" in line]
    (said,) = (line for line in told([0.2] * 3, horizon=timedelta(days=364)).warnings if "nearly one test" in line)
    assert said.startswith("its 3 test origins lie within 28 days and look 364 days ahead: nearly one test, of 1,000 users")


def test_scores_without_an_order_are_neither_timid_nor_bold() -> None:
    assert [line for line in told([0.2] * 3, slope=-2.0).warnings if "times as far apart" in line] == []
