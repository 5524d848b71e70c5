"""Which horizons of a config ask one question, so that their scores have to agree."""

from datetime import timedelta

from features.labels import Eligible, Target
from pipeline.known import _ladders

DAY = timedelta(days=1)
BOUGHT = "event_type = 'purchase'"


def churn(horizon: int, active: int) -> Target:
    return Target(
        name=f"churn_{horizon}_{active}",
        kind="absence",
        horizon=horizon * DAY,
        events=BOUGHT,
        eligible=Eligible(active * DAY),
        meaning="",
    )


def named(*targets: Target) -> list[list[str]]:
    return [list(names.values()) for names, _rising in _ladders(targets)]


def test_horizons_agree_whoever_is_asked() -> None:
    assert named(churn(56, 84), churn(28, 56)) == [["churn_28_56", "churn_56_84"]]


def test_groups_that_are_asked_the_same_horizons_agree_each_in_itself() -> None:
    both = [churn(28, 56), churn(28, 84), churn(56, 84), churn(56, 56)]
    assert named(*both) == [["churn_28_56", "churn_56_56"], ["churn_28_84", "churn_56_84"]]


def test_a_third_group_joins_none_that_is_asked_what_it_is() -> None:
    targets = [churn(28, 56), churn(56, 56), churn(84, 70), churn(28, 84), churn(84, 84)]
    assert named(*targets) == [["churn_28_56", "churn_56_56", "churn_84_70"], ["churn_28_84", "churn_84_84"]]
