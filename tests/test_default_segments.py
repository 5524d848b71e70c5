"""The shipped segments: every group that a marketer asks for is there, and has all that acting on it takes."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from features.expressions import columns_of
from pipeline.rules import FALSE, TRUE, truths
from pipeline.segment_settings import SegmentSettings
from pipeline.settings import Settings, read_settings

CONFIGS = Path(__file__).parent.parent / "configs"
SHIPPED = ("clickstream", "complete_journey")
# The group, and the segment that is it in each of the configs.
EVERYDAY = {
    "new": ("newcomers", "newcomers"),
    "returning": ("returning", "returning"),
    "active buyers": ("active_buyers", "active_buyers"),
    # The grocer's data hold no carts: a trip that did not happen comes nearest.
    "cart abandoners": ("cart_left_behind", "missed_trip"),
    "waverers between price and need": ("waverers", "waverers"),
    "loyal": ("loyal", "loyal"),
    "inactive": ("inactive", "inactive"),
}
PREDICTIVE = {
    "likely to churn by value": ("valuable_at_risk", "valuable_at_risk"),
    "ready for upsell": ("ready_for_more", "ready_for_more"),
    "cross-sell by category": ("electronics_next", "deli_next"),
    "coupon responsive": ("coupon_responsive", "coupon_responsive"),
    "about to buy": ("about_to_buy", "about_to_buy"),
    "win-back": ("win_back", "win_back"),
    "rising stars": ("rising_stars", "rising_stars"),
}
# What is done about them is to leave them alone.
ALONE = {"about_to_buy", "loyal", "inactive"}


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> Settings:
    return read_settings(CONFIGS / f"{request.param}.yaml")


def segments(settings: Settings) -> dict[str, SegmentSettings]:
    return {segment.name: segment for segment in settings.segments}


def test_every_group_is_there_and_no_other(shipped: Settings) -> None:
    at = SHIPPED.index(shipped.name)
    groups = [names[at] for names in (EVERYDAY | PREDICTIVE).values()]
    assert sorted(groups) == sorted(segment.name for segment in shipped.segments)


def test_each_has_a_purpose_of_its_own_and_an_offer_of_its_own(shipped: Settings) -> None:
    purposes = [segment.purpose for segment in shipped.segments]
    offers = {segment.name: segment.play.offer for segment in shipped.segments if segment.play is not None}
    assert len(set(purposes)) == len(purposes)
    assert len(set(offers.values())) == len(offers)
    assert {name for name in segments(shipped) if name not in offers} == ALONE
    assert {name for name, told in segments(shipped).items() if "leave alone" in told.purpose} == ALONE


def test_each_play_has_a_cap_and_is_measured(shipped: Settings) -> None:
    for segment in shipped.segments:
        assert segment.play is None or (segment.play.cap is not None and 0.1 <= segment.play.holdout <= 0.2), segment.name


# What rules read of three users: one comes, one would not come but stays, one leaves; one value is that of all three.
Values = dict[str, object]
THREE: dict[str, dict[str, Values]] = {
    "clickstream": {
        "cart_left_behind": {"cart_abandoned_recency_days": (2, 7, 12), "purchase_recency_days": 30, "known_days": 90},
        "valuable_at_risk": {"churn_28d_score": (0.5, 0.48, 0.3), "loyalty_tier": "gold", "purchase_amount_sum_168d": 50},
        "rising_stars": {
            "purchase_amount_sum_84d_vs_before": (2, 1.9, 1.7),
            "purchase_count_84d": 4,
            "churn_28d_score": 0.4,
        },
        "about_to_buy": {"purchase_7d_score": (0.3, 0.29, 0.2)},
        "newcomers": {"journey_stage": "prospect", "known_days": (20, 30, 40), "purchase_tenure_days": None},
        "returning": {"journey_stage": ("returned", "active", "active"), "purchase_run_days": (10, 30, 50)},
        "coupon_responsive": {"coupon_28d_percentile": (85, 83, 80)},
        "ready_for_more": {"upsell_28d_score": (0.35, 0.33, 0.3)},
        "electronics_next": {"electronics_28d_percentile": (80, 78, 70)},
        "win_back": {"purchase_recency_days": (60, 175, 3), "purchase_amount_sum": 80},
        "waverers": {
            "view_count_28d": (8, 2, 2),
            "view_count_84d": (9, 8, 5),
            "purchase_count_28d": 0,
            "promoted_order_share_168d": 0,
            "purchase_count_168d": 1,
        },
        "loyal": {"journey_stage": ("loyal", "returned", "slipping"), "loyalty_tier": "basic"},
        "active_buyers": {"journey_stage": ("active", "loyal", "lapsed")},
        "inactive": {"purchase_recency_days": (170, 60, 3), "known_days": 300},
    },
    "complete_journey": {
        "valuable_at_risk": {"churn_28d_score": (0.2, 0.15, 0.1), "loyalty_tier": "silver", "purchase_amount_sum": 600},
        "rising_stars": {
            "purchase_amount_sum_84d_vs_before": (1.5, 1.3, 1.1),
            "purchase_count_84d": 8,
            "churn_28d_score": 0.1,
        },
        "missed_trip": {"purchase_overdue_ratio": (4, 2, 0.5), "purchase_gap_variation": 1, "purchase_recency_days": (14, 20, 2)},
        "newcomers": {"journey_stage": ("new", "active", "active"), "purchase_tenure_days": (10, 40, 60)},
        "returning": {"journey_stage": ("returned", "active", "active"), "purchase_run_days": (10, 30, 50)},
        "coupon_responsive": {"coupon_28d_score": (0.12, 0.1, 0.05)},
        "ready_for_more": {"upsell_28d_score": (0.45, 0.4, 0.3)},
        "deli_next": {"deli_28d_score": (0.2, 0.18, 0.1)},
        "waverers": {"discounted_line_share_84d": (0.65, 0.62, 0.5), "purchase_count_84d": 4},
        "about_to_buy": {"purchase_week_streak": (8, 6, 3), "churn_28d_score": 0.01},
        "loyal": {"journey_stage": ("loyal", "active", "slipping"), "loyalty_tier": "gold"},
        "active_buyers": {"journey_stage": ("active", "returned", "lapsed")},
        "win_back": {"purchase_recency_days": (60, 175, 3), "purchase_amount_sum": 150},
        "inactive": {"purchase_recency_days": (90, 60, 3)},
    },
}
COMES, STAYS, LEAVES = [TRUE, FALSE], [FALSE, FALSE], [FALSE, TRUE]


def test_members_stay_where_nobody_could_enter(shipped: Settings) -> None:
    told = {}
    for name, values in THREE[shipped.name].items():
        segment = segments(shipped)[name]
        assert set(values) == columns_of(segment.enter) | columns_of(segment.leave or ""), name
        rows = {column: list(said) if isinstance(said, tuple) else [said] * 3 for column, said in values.items()}
        told[name] = truths(pa.table(rows), [segment.enter, segment.leave or "null"]).tolist()
    assert told == {segment.name: [COMES, STAYS, LEAVES] for segment in shipped.segments}


def test_who_comes_by_a_score_stays_longer_than_a_week(shipped: Settings) -> None:
    by_score = {
        name: told for name, told in segments(shipped).items() if any(f"{target.name}_" in told.enter for target in shipped.targets)
    }
    assert {name for name, told in by_score.items() if told.min_stay <= timedelta(days=7)} == set()
