"""Personas on planted groups: found, named, kept over retrainings, and told."""

import numpy as np
import pandas as pd
import pytest
from ibis import _
from sklearn.metrics import silhouette_score

from features.catalogue import Base, Feature
from models.persona_matching import Matching
from models.persona_traits import scale
from models.personas import Personas, fit_personas


def feature(name: str, high: str | None, low: str | None, *, base: Base = "row", unit: str = "times", group: str = "") -> Feature:
    said = {"meaning": name, "phrase": f"{{value}} {name}"}
    return Feature(name=name, base=base, expr=_.x, unit=unit, group=group or name, high=high, low=low, **said)


TRAITS = [feature("often", "frequent", "occasional"), feature("late", "evening", None), feature("silent", None, None)]


def people(seed: int = 0, counts: tuple[int, int, int] = (60, 40, 30)) -> pd.DataFrame:
    """Three planted groups: frequent, occasional in the evening, occasional by day."""
    random = np.random.default_rng(seed)
    centres = [place for place, count in zip(((50, 0.2), (3, 0.9), (3, 0.1)), counts, strict=True) for _ in range(count)]
    rows = [(random.poisson(often), np.clip(late + random.normal(0, 0.05), 0, 1), 1.0) for often, late in centres]
    return pd.DataFrame(rows, columns=["often", "late", "silent"])


def fit(frame: pd.DataFrame, **asked: object) -> tuple[Personas, Matching | None]:
    given: dict[str, object] = {"fewest": 2, "most": 5, "smallest_share": 0.05, "seed": 1}
    return fit_personas(frame, TRAITS, **{**given, **asked})  # type: ignore[arg-type]


def test_planted_personas_are_found_named_and_ordered_by_size() -> None:
    found, matching = fit(people(), stability=0.9)
    assert matching is None
    assert (found.features, found.ids, found.next_id) == (("often", "late"), (0, 1, 2), 3)
    assert len(set(found.names)) == 3
    assert found.shares == pytest.approx((60 / 130, 40 / 130, 30 / 130))
    np.testing.assert_array_equal(found.assign(people()), [0] * 60 + [1] * 40 + [2] * 30)
    assert found.why == "best silhouette (0.86) of the numbers that are stable (100% keep their persona)"
    scaled = scale(people(), found.traits)
    three = found.tried[1]
    assert (three.k, three.stability, three.kept) == (3, 1.0, 1.0)
    assert three.silhouette == pytest.approx(silhouette_score(scaled, found.assign(people())))
