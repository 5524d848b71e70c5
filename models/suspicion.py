"""Suspicion: a ranking that is too good to be honest, and the features that know too much."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

# Churn and its like are never so predictable; what looks so has usually seen the label.
TOO_GOOD = 0.97
KNOWS_TOO_MUCH = 0.95
STANDS_OUT, _GOOD = 0.1, 0.85
_ROWS = 20_000
# With fewer of either label, some feature of hundreds sets them apart by chance.
_FEWEST = 20


def lone_aucs(rows: pd.DataFrame, features: Sequence[str]) -> dict[str, float]:
    """Give for each feature how well it alone ranks `label` (0/1), whichever way round: 0.5 is chance, 1 is perfect.

    Unknown values take part as the lowest, so that a feature that is known for one label only is seen.
    """
    label = rows.label.to_numpy() > 0
    positives, negatives = int(label.sum()), int((~label).sum())
    if min(positives, negatives) == 0:
        return {}
    found = {}
    for name in features:
        ranks = rankdata(np.nan_to_num(rows[name].to_numpy(dtype=np.float64), nan=-np.inf))
        auc = (ranks[label].sum() - positives * (positives + 1) / 2) / (positives * negatives)
        found[name] = float(max(auc, 1 - auc))
    return found


def suspicions(rows: pd.DataFrame, groups: Mapping[str, str], asked: Collection[str], auc: float | None) -> list[str]:
    """Say what looks too good: features that almost tell the label alone, and a mean `auc` above 0.97 with its likely sources.

    `groups` has each feature and the story it tells. A feature is suspected, too, when it alone ranks far better than any of
    another story: on honest logs the best two were never more than 0.03 apart. Those `asked`, which describe what is asked about,
    may: where nothing else describes it they stand alone. An empty list is no proof of honesty. With fewer
    than 20 of either label no feature is suspected on its own. Amounts are looked at as spent or not. Of more than 20,000 rows so
    many are drawn.
    """
    # In the order of rows there are users of one kind, such as the oldest, and one origin after the other.
    rows = rows.sample(min(len(rows), _ROWS), random_state=0)
    alone = sorted(lone_aucs(rows, list(groups)).items(), key=lambda told: -told[1])
    label = rows.label > 0
    is_known = min(label.sum(), (~label).sum()) >= _FEWEST
    knowing = [f"{name} (alone AUC {value:.3f})" for name, value in alone if value >= KNOWS_TOO_MUCH and is_known]
    said = []
    if auc is not None and auc >= TOO_GOOD:
        likely = ", ".join(knowing or [f"{name} (alone AUC {value:.3f})" for name, value in alone[:3]])
        said.append(
            f"AUC {auc:.3f} is too good to be honest, unless it is agreed beforehand, like a standing order; look first at {likely}"
        )
    elif knowing:
        alike = "as a leak would, or those to whom alone it can happen"
        said.append(f"these features almost tell the label alone, {alike}: {', '.join(knowing)}")
    elif alone and is_known and alone[0][1] >= _GOOD:
        (name, value), others = alone[0], [told for other, told in alone if groups[other] != groups[alone[0][0]]]
        if others and name not in asked and value - others[0] >= STANDS_OUT:
            said.append(
                f"{name} alone ranks far better (AUC {value:.3f}) than any feature of another kind ({others[0]:.3f}): see that it "
                "was known before the cutoff"
            )
    return said
