"""The shipped config on the real data: everything is read, and the models are as good as they should be and no better."""

from collections.abc import Iterator
from datetime import date, timedelta
from io import StringIO
from pathlib import Path

import pytest
from ibis import _
from rich.console import Console

from features.build import build_features
from features.labels import build_labels
from models.backtest import assemble, best, plan_origins, predict_origin, worth
from models.ladder import RUNGS, Recipe
from pipeline.events import EventLog, midnight, read_events
from pipeline.progress import Narrator
from pipeline.settings import Settings, read_settings

AS_OF = date(2018, 1, 1)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return read_settings(Path(__file__).parent.parent / "configs" / "complete_journey.yaml")


@pytest.fixture(scope="module")
def log(settings: Settings) -> Iterator[EventLog]:
    log = read_events(settings, AS_OF, Narrator(Console(file=StringIO())))
    yield log
    log.engine.disconnect()


def test_every_row_of_the_package_is_read(log: EventLog) -> None:
    counts = log.events.group_by("event_type").agg(rows=_.count(), users=_.user_id.nunique(), orders=_.order_id.nunique()).execute()
    found = counts.set_index("event_type").sort_index().to_dict("index")
    assert found == {
        "campaign_received": {"rows": 6589, "users": 1559, "orders": 0},
        "coupon_redeemed": {"rows": 2102, "users": 410, "orders": 0},
        "purchase": {"rows": 1_468_773, "users": 2469, "orders": 155_762},
    }
    # The year's last evening is already 2018 in UTC: 534 lines have not happened yet at the cutoff.
    assert (log.later, len(log.rejected), 1_468_773 + log.later) == (534, 0, 1_469_307)


def test_coupons_are_redeemed_at_the_till(log: EventLog) -> None:
    coupons = log.events.filter(_.event_type == "coupon_redeemed").select("user_id", "event_ts").distinct()
    baskets = log.events.filter(_.event_type == "purchase").select("user_id", "event_ts").distinct()
    at_a_till = coupons.semi_join(baskets, ["user_id", "event_ts"]).count().execute()
    assert at_a_till / coupons.count().execute() > 0.99


@pytest.mark.parametrize(("name", "auc", "precision"), [("churn_28d", 0.858, 0.418), ("upsell_28d", 0.645, 0.464)])
def test_models_are_as_good_as_the_reference_and_not_suspiciously_better(
    settings: Settings, log: EventLog, name: str, auc: float, precision: float
) -> None:
    """The reference is a mean over five origins; two of them and half the training cutoffs allow for 0.02 more."""
    target = next(target for target in settings.specs() if target.name == name)
    cutoffs = [midnight(AS_OF) - target.horizon - timedelta(days=14) * index for index in range(10)]
    frame = build_features(log.engine, log.events, log.features, cutoffs).execute()
    rows = frame.merge(build_labels(log.events, target, cutoffs).execute(), on=["user_id", "cutoff"])
    rows = rows.sort_values(["cutoff", "user_id"], ignore_index=True)
    recipe = Recipe("lightgbm", tuple(feature.name for feature in log.features.numbers))
    origins = plan_origins(cutoffs, target.horizon, tests=2, calibrations=2)
    predicted = [predict_origin(rows, recipe, origin, is_amount=False, seed=7) for origin in origins]
    by_rung = worth(predicted, target.horizon, is_amount=False, calibrations=0)
    backtest = assemble(predicted, by_rung, best(by_rung), target.horizon, is_amount=False, calibrations=4)
    mean, base = backtest.mean(), backtest.mean("rfm")
    value = {rung: told.value for rung, told in by_rung.items()}
    assert value[backtest.rung] > value["rfm"] > value["recency"] > value["base_rate"]
    assert all(value[backtest.rung] > value[rung] for rung in RUNGS[: RUNGS.index(backtest.rung)])
    assert auc - 0.02 < mean["auc"] < auc + 0.02
    assert precision - 0.03 < mean["average_precision"] < precision + 0.05
    assert mean["auc"] > base["auc"]
    assert mean["expected_calibration_error"] < 0.06
