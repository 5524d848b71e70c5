"""What a training learns from: whom targets ask about on the night itself, and the level that curves are set to then."""

from dataclasses import replace
from datetime import date
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.special import expit

from models.calibration import Calibrator
from models.ladder import Recipe
from models.season import NO_SEASON
from pipeline.events import read_events
from pipeline.past import Past, gather
from pipeline.progress import Narrator
from pipeline.settings import read_settings
from pipeline.train import _bundle
from shops import shop_config

AS_OF = date(2024, 7, 1)
LEFT, STAYED = range(40), range(40, 100)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """A shop that 40 of 100 customers left more than half a year ago, and that asks about everybody who ever bought."""
    folder = tmp_path_factory.mktemp("shop")
    days = pd.date_range("2023-07-01 10:00", "2024-06-30 10:00", freq="9D")
    rows = [(f"u{user}", day) for user in (*LEFT, *STAYED) for day in days if user in STAYED or day < pd.Timestamp("2023-10-01")]
    orders = pd.DataFrame(rows, columns=["customer", "ordered_at"]).assign(order_no=range(len(rows)), total=10.0, department="tea")
    orders.to_csv(folder / "orders.csv", index=False)
    targets = [{"name": "churn_28d", "kind": "absence", "horizon": "28d", "eligible": {"active_within": "ever"}}]
    config = shop_config(folder, targets=targets, segments=[], features={"windows": ["7d", "28d", "84d"]})
    return gather(read_settings(config), AS_OF, Narrator(Console(file=StringIO())))


def test_whoever_is_asked_about_tonight_is_known_tonight(past: Past) -> None:
    (target,) = past.targets
    assert set(past.asked_tonight(target).user_id) == {f"u{user}" for user in (*LEFT, *STAYED)}
    # Habits are of those who did something within the longest window.
    assert set(past.active.user_id) == {f"u{user}" for user in STAYED}


def test_what_is_the_same_for_all_is_not_read(past: Past) -> None:
    (target,) = past.targets
    read, there = past.features_of(target), past.there_for(target)
    told = past.features[list(there)].nunique(dropna=False)
    assert list(read) == [name for name in there if told[name] > 1]
    # The shop sells tea alone.
    assert "purchase_count_28d" in read and "category_count" in set(there) - set(read)


def test_rows_hold_what_is_asked_for_and_no_more(past: Past) -> None:
    (target,) = past.targets
    latest = max(past.labels[target.name].cutoff)
    rows = past.rows(target, {latest}, ["purchase_recency_days", "no such feature"])
    assert list(rows) == ["user_id", "cutoff", "purchase_recency_days", "label"]
    assert len(rows) == (past.labels[target.name].cutoff == latest).sum() and set(rows.cutoff) == {latest}
    # Of its own user and cutoff.
    told = rows.merge(past.features, on=["user_id", "cutoff"], validate="one_to_one")
    pd.testing.assert_series_equal(told.purchase_recency_days_x, told.purchase_recency_days_y, check_names=False)


def test_the_target_with_most_rows_comes_first(past: Past) -> None:
    (target,) = past.targets
    rare, late = replace(target, name="rare"), replace(target, name="late")
    told = past.labels[target.name]
    several = replace(past, targets=(rare, target, late), labels={"rare": told[:3], target.name: told, "late": told[:9]})
    assert [one.name for one in several.largest_first] == [target.name, "late", "rare"]


def test_a_curve_is_set_to_the_level_of_tonight(past: Past) -> None:
    (target,) = past.targets
    name = "purchase_recency_days"
    model = SimpleNamespace(
        features=(name,),
        raw=lambda rows: expit(rows[name].to_numpy() / 50 - 2),
        contributions=lambda rows: rows[[name]].to_numpy() / 50,
    )
    curve = Calibrator("platt", slope=0.5, intercept=-1.5)
    made = SimpleNamespace(
        target=target,
        recipe=Recipe("rfm", model.features),
        backtest=SimpleNamespace(calibrator=curve),
        report=SimpleNamespace(warnings=()),
        season=NO_SEASON,
    )
    bundle = _bundle(past, made, model)
    asked = past.asked_tonight(target)
    raw = model.raw(asked)
    assert abs(np.mean(curve(raw)) - raw.mean()) > 0.1
    assert bundle.predict(asked).score.mean() == pytest.approx(raw.mean())
    assert bundle.calibrator.slope == curve.slope
    assert bundle.expected == {name: pytest.approx(asked[name].mean() / 50)}


def test_columns_that_no_feature_reads_are_told(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01 10:00", periods=60, freq="D")
    lessons = pd.DataFrame({"pupil": [f"u{at % 5}" for at in range(60)], "at": days, "course": "music", "room": "blue"})
    lessons.to_csv(tmp_path / "lessons.csv", index=False)
    told = "pupil as user_id, at as event_ts, 'lesson' as event_type, course as category, room as brand, at as session_id"
    source = {"name": "lessons", "tables": {"o": str(tmp_path / "lessons.csv")}, "sql": f"select {told} from o"}
    active = {"active_within": "28d", "events": "event_type = 'lesson'"}
    target = {"name": "gone_28d", "kind": "absence", "horizon": "28d", "events": "event_type = 'lesson'", "eligible": active}
    for condition, unread in (("event_type = 'lesson'", "brand, category"), ("brand = 'blue'", "category")):
        said = StringIO()
        config = shop_config(tmp_path, sources=[source], targets=[{**target, "events": condition}], segments=[])
        read_events(read_settings(config), date(2024, 3, 1), Narrator(Console(file=said, width=200)))
        assert f"  given, but read by no feature of this log: {unread}; `features.custom` may read them" in said.getvalue()
