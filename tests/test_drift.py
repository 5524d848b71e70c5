"""Drift against what was planted, and where it cannot be known."""

import numpy as np
import pytest
from scipy.special import expit, logit

from models.drift import level_drift


def blocks(spread: float, *, count: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw scores, labels and blocks, of which each has its own level."""
    random = np.random.default_rng(seed)
    score = random.uniform(0.05, 0.5, size=(count, rows))
    label = random.random((count, rows)) < expit(logit(score) + random.normal(0, spread, size=(count, 1)))
    return score.ravel(), label.ravel().astype(float), np.repeat(np.arange(count), rows)


@pytest.mark.parametrize("spread", [0.2, 0.6])
def test_planted_drift_is_found(spread: float) -> None:
    found = np.median([level_drift(*blocks(spread, count=40, rows=1000, seed=seed)) for seed in range(9)])
    assert found == pytest.approx(spread, rel=0.15)


def test_chance_alone_is_no_drift() -> None:
    """What is left is how exactly the mean level is known."""
    assert np.median([level_drift(*blocks(0.0, count=20, rows=1000, seed=seed)) for seed in range(9)]) < 0.05


def test_fewer_than_two_blocks_tell_nothing() -> None:
    score, label, block = blocks(0.5, count=1, rows=100, seed=1)
    assert level_drift(score, label, block) == 0
    assert level_drift(score[:0], label[:0], block[:0]) == 0


def test_block_in_which_nothing_happened_is_finite() -> None:
    score, label, block = blocks(0.1, count=4, rows=300, seed=2)
    label[block == 3] = 0
    assert 0.2 < level_drift(score, label, block) < 5


def test_order_of_rows_changes_nothing() -> None:
    score, label, block = blocks(0.3, count=5, rows=200, seed=3)
    order = np.random.default_rng(5).permutation(len(score))
    assert level_drift(score[order], label[order], block[order]) == pytest.approx(level_drift(score, label, block))
