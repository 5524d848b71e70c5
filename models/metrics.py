"""Measures of a score against what happened; each is null where it is not defined."""

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, mean_absolute_error, roc_auc_score

from models.propensity import Floats


def measures(label: Floats, score: Floats, *, is_amount: bool) -> dict[str, float]:
    """Give every measure of the kind of target, with `users` (rows) first."""
    return _amounts(label, score) if is_amount else _probabilities(label, score)


def _probabilities(label: Floats, score: Floats) -> dict[str, float]:
    found: dict[str, float] = {"users": float(len(label)), "positives": float(label.sum())}
    if len(label) == 0 or label.min() == label.max():
        return found
    return found | {
        "auc": float(roc_auc_score(label, score)),
        "average_precision": float(average_precision_score(label, score)),
        "log_loss": float(log_loss(label, np.clip(score, 1e-6, 1 - 1e-6))),
        "brier": float(brier_score_loss(label, score)),
        "expected_calibration_error": calibration_error(label, score),
        "lift_10pct": lift(label, score, share=0.1),
        "base_rate": float(label.mean()),
    }


def _amounts(label: Floats, score: Floats) -> dict[str, float]:
    found: dict[str, float] = {"users": float(len(label))}
    if len(label) == 0:
        return found
    found["mean_absolute_error"] = float(mean_absolute_error(label, score))
    found["mean_label"] = float(label.mean())
    if label.sum() > 0:
        found["total_error"] = float(score.sum() / label.sum() - 1)
        found["gini"] = normalised_gini(label, score)
    return found


def calibration_error(label: Floats, score: Floats, *, bins: int = 10) -> float:
    """Expected calibration error over bins of equal size: mean distance of mean score from realised rate.

    Guo et al. (2017), with quantile bins, since most scores of a rare target fall into one bin of equal width.

    >>> calibration_error(np.array([0.0, 1.0]), np.array([0.5, 0.5]), bins=1)
    0.0
    """
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    return float(sum(abs(label[part].mean() - score[part].mean()) * len(part) for part in parts) / len(order))


def lift(label: Floats, score: Floats, *, share: float) -> float:
    """Rate among the top `share` of scores over the overall rate.

    >>> lift(np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.1, 0.1]), share=0.25)
    4.0
    """
    top = np.argsort(-score, kind="stable")[: max(1, round(len(score) * share))]
    return float(label[top].mean() / label.mean())


def normalised_gini(label: Floats, score: Floats) -> float:
    """Gini of the amounts captured in order of score, over that of the perfect order.

    >>> normalised_gini(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0]))
    1.0
    """

    def area(order: np.ndarray) -> float:
        captured = np.cumsum(label[order]) / label.sum()
        return float(captured.sum() - (len(label) + 1) / 2)

    best = area(np.argsort(-label, kind="stable"))
    return area(np.argsort(-score, kind="stable")) / best if best > 0 else 0.0
