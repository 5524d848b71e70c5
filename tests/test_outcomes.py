"""What targets ask about: which features it gives, what they are called, who reads them, and the rules a model has to beat."""

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import DAY, WINDOWS, at, events, load_events
from features.build import build_features
from features.contract import COLUMNS
from features.custom import Custom
from features.declare import Wanted, declared, switched_off
from features.event_types import KNOWN
from features.families.outcomes import RFM, Outcome, outcome_features, outcomes, read_for, simple_rules, with_inventory
from features.inventory import Inventory
from features.labels import Eligible, Kind, Target

PURCHASE, VIEW, LESSON = (f"event_type = '{name}'" for name in ("purchase", "view", "lesson_done"))
ITALIAN = f"{LESSON} AND category = 'italian'"
LONGEST = WINDOWS[-1]
TEAS = (("category", "tea"), ("brand", "tea"), ("category", "Tea"))


def target(events: str, *, kind: Kind = "absence", active: str = PURCHASE, measure: str = "amount") -> Target:
    return Target(
        name="asked", kind=kind, horizon=28 * DAY, events=events, eligible=Eligible(28 * DAY, active), meaning="", measure=measure
    )


def of_targets(condition: str, measures: frozenset[str] = frozenset(), **told: bool) -> Outcome:
    """An outcome that targets of `target` ask about."""
    return Outcome(condition, measures, horizons=frozenset([28 * DAY]), **told)  # type: ignore[arg-type]


def named(*asked: Outcome) -> list[str]:
    return [feature.name for feature in outcome_features(asked, WINDOWS).features]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        pytest.param([target(PURCHASE)], [of_targets(PURCHASE, is_activity=True, has_level=True)], id="purchases"),
        pytest.param(
            [target(LESSON, active=VIEW)],
            [of_targets(LESSON, has_level=True), of_targets(VIEW, is_activity=True)],
            id="and of whom",
        ),
        pytest.param(
            [target(LESSON, active=PURCHASE)],
            [of_targets(LESSON, has_level=True), of_targets(PURCHASE, is_activity=True)],
            id="of buyers, too",
        ),
        pytest.param(
            [target(LESSON, active=LESSON)], [of_targets(LESSON, is_activity=True, has_level=True)], id="each condition once"
        ),
        pytest.param(
            [target(LESSON), target(LESSON, kind="value", measure="quantity"), target(ITALIAN, active=LESSON)],
            [
                of_targets(LESSON, frozenset({"quantity"}), is_activity=True, has_level=True),
                of_targets(PURCHASE, is_activity=True),
                of_targets(ITALIAN, has_level=True),
            ],
            id="with all that is asked of it",
        ),
    ],
)
def test_outcomes_are_what_targets_ask_about(asked: list[Target], found: list[Outcome]) -> None:
    assert list(outcomes(asked)) == found


def test_conditions_of_the_config_are_for_all_and_once() -> None:
    found = outcomes([target(LESSON)], [LESSON, "event_type = 'quiz'", PURCHASE])
    assert found == (
        of_targets(LESSON, has_level=True, for_all=True),
        of_targets(PURCHASE, is_activity=True, for_all=True),
        Outcome("event_type = 'quiz'", for_all=True),
    )
    # What is for all stays so, whichever types are frequent.
    assert [outcome.for_all for outcome in with_inventory(found, Inventory())] == [True, True, True]


def test_names_say_what_a_condition_asks_for() -> None:
    assert named(Outcome(ITALIAN))[:2] == ["lesson_done_italian_recency_days", "lesson_done_italian_first_days"]
    assert named(Outcome("event_type = '3D view'"))[0] == "events_3d_view_recency_days"
    assert named(Outcome("quantity >= 2 OR amount > 50"))[0] == "quantity_2_or_amount_50_e87d_recency_days"
    either = "event_type IN ('renew', 'subscribe')"
    assert named(Outcome(either))[0] == "renew_or_subscribe_recency_days"
    assert Outcome(either).told == "renew or subscribe"
    assert "_or_" not in named(Outcome("event_type IN ('!', 'quiz')"))[0]
    sums = named(Outcome(LESSON, frozenset({"quantity"})))
    assert [name for name in sums if "sum" in name] == [
        *(f"lesson_done_quantity_sum_{days}d" for days in (7, 28)),
        "lesson_done_quantity_sum",
    ]


def test_growth_is_told_against_the_usual() -> None:
    """What a target sets its sum against is seen by its models, unless a family tells it."""
    growth = replace(target(VIEW, kind="growth", measure="quantity", active=VIEW), trailing=timedelta(days=14))
    told = outcome_features(outcomes([growth]), WINDOWS).features
    own = [feature.name for feature in told if feature.outcome in read_for(growth) and "sum" in feature.name]
    assert own == [*(f"view_quantity_sum_{days}d" for days in (7, 14, 28)), "view_quantity_sum_14d_vs_28d"]
    assert not any(feature.for_all for feature in told if feature.name in own)
    bought = replace(target(PURCHASE, kind="growth"), trailing=timedelta(days=28))
    assert [feature.name for feature in declared(Wanted(WINDOWS, outcomes=outcomes([bought])), COLUMNS).features].count(
        "purchase_amount_sum_28d"
    ) == 1
    apart = declared(Wanted(WINDOWS, outcomes=outcomes([replace(bought, trailing=timedelta(days=21))])), COLUMNS)
    assert "purchase_amount_sum_21d" in apart.names and timedelta(days=21) in apart.windows


def test_near_misses_are_events_of_another_type() -> None:
    assert [name for name in named(Outcome(ITALIAN)) if name.startswith("near_") and name.endswith("count")] == [
        "near_lesson_done_italian_count"
    ]
    assert not [name for condition in (LESSON, "category = 'italian'") for name in named(Outcome(condition)) if "near" in name]


def test_what_says_the_same_in_another_order_is_one_outcome() -> None:
    turned = "category = 'italian' AND event_type = 'lesson_done'"
    assert [outcome.condition for outcome in outcomes([target(ITALIAN), target(turned)])] == [ITALIAN, PURCHASE]
    assert read_for(target(turned)) >= {ITALIAN}


def test_conditions_of_one_name_get_names_of_their_own() -> None:
    asked = [told for told in outcomes([target(f"{what} = '{tea}'") for what, tea in TEAS]) if told.condition != PURCHASE]
    found = outcome_features(asked, WINDOWS)
    names = [feature.name for feature in found.features]
    assert len(names) == len(set(names)) and len({outcome.name for outcome in found.outcomes}) == 3
    for number, (what, tea) in enumerate(TEAS):
        (recency,), _rfm = simple_rules(target(f"{what} = '{tea}'"), found.outcomes, found.features, LONGEST)
        assert recency == f"{found.outcomes[number].name}_recency_days"


def test_event_types_of_one_name_are_told_apart_whichever_came_first() -> None:
    for others in (["Quiz Done", "quiz_done"], ["quiz_done", "Quiz Done"]):
        found = declared(Wanted(WINDOWS, families=("region",)), COLUMNS, inventory=Inventory(dict.fromkeys(others, ())))
        assert len({outcome.name for outcome in found.outcomes}) == 2
        # Else a model that knew one would read the other.
        assert "quiz_done_count_28d" not in found.names


def test_a_name_that_another_family_has_is_left_to_it() -> None:
    visits = "event_type = 'visit'"
    asked = declared(Wanted(WINDOWS, outcomes=outcomes([target(visits)])), COLUMNS)
    meanings = {feature.name: feature.meaning for feature in asked.features}
    assert meanings["visit_count_28d"] == "visits (sessions) begun in the last 28 days"
    (recency,), rfm = simple_rules(target(visits), asked.outcomes, asked.features, LONGEST)
    assert meanings[recency] == "days since the last event of visit" and set(rfm) >= {recency, *RFM}


@pytest.mark.parametrize("condition", ["event_ts > '2024-01-01'", "user_id = 'ann'"])
def test_conditions_on_time_or_on_who_it_is_give_no_features(condition: str) -> None:
    assert named(Outcome(condition)) == []


def test_a_feature_of_ones_own_takes_the_place_of_one_with_its_name() -> None:
    own = Custom(
        name="lesson_done_count", sql="count(*)", unit="times", meaning="own", phrase="{value}", group="own", windows=(28 * DAY,)
    )
    asked = declared(Wanted(WINDOWS, families=(), custom=(own,), outcomes=(Outcome(LESSON),)), COLUMNS)
    meanings = {feature.name: feature.meaning for feature in asked.features}
    assert meanings["lesson_done_count_28d"] == "own in the last 28 days"
    assert meanings["lesson_done_count_7d"] == "events of lesson done in the last 7 days"


def test_own_features_may_read_them() -> None:
    own = Custom(
        name="per_week", sql="lesson_done_count_28d / 4", unit="times", meaning="own", phrase="{value}", group="own", windows=()
    )
    assert "per_week" in declared(Wanted(WINDOWS, families=(), custom=(own,), outcomes=(Outcome(LESSON),)), COLUMNS).names


def test_features_of_one_name_and_two_windows_keep_their_own_sql(engine) -> None:  # type: ignore[no-untyped-def]
    own = [
        Custom(name="own", sql=sql, unit="times", meaning="own", phrase="{value}", group="own", windows=(window,))
        for sql, window in (("sum(amount)", 7 * DAY), ("count(*)", 28 * DAY))
    ]
    log = load_events(engine, events(("ann", at("2024-02-28"), 40.0), ("ann", at("2024-02-20"), 2.0)))
    asked = declared(Wanted(WINDOWS, families=(), custom=tuple(own)), COLUMNS)
    found = engine.execute(build_features(engine, log, asked, [at("2024-03-01")]))
    assert found[["own_7d", "own_28d"]].to_numpy().tolist() == [[40.0, 2.0]]


def test_what_came_after_the_last_purchase_is_told_and_what_came_before_is_not(engine) -> None:  # type: ignore[no-untyped-def]
    told = [
        *((user, at("2024-02-20"), 40.0) for user in ("ann", "bob")),
        ("ann", at("2024-02-21 12:00"), None, "lesson_done"),
        ("bob", at("2024-02-19"), None, "lesson_done"),
        ("cem", at("2024-02-21"), None, "lesson_done"),
    ]
    asked = declared(Wanted(WINDOWS, families=(), outcomes=(Outcome(LESSON),)), COLUMNS)
    found = engine.execute(build_features(engine, load_events(engine, events(*told)), asked, [at("2024-03-01")]))
    days = found.set_index("user_id").lesson_done_after_purchase_days
    assert days["ann"] == 1.5 and days[["bob", "cem"]].isna().all()


@pytest.mark.parametrize("condition", [f"{PURCHASE} AND category = 'italian'", f"{PURCHASE} AND amount > 50"])
def test_no_purchase_comes_after_the_last_one(condition: str) -> None:
    after = [feature for feature in outcome_features([Outcome(condition)], WINDOWS).features if "after_purchase" in feature.name]
    assert all(feature.name.startswith("near_") for feature in after)


def test_columns_that_no_source_gives_switch_them_off() -> None:
    asked = Wanted(WINDOWS, families=(), outcomes=(Outcome(ITALIAN),))
    columns = ["user_id", "event_ts", "event_type"]
    assert declared(asked, columns).features == ()
    assert switched_off(asked, [*columns, "quantity"], KNOWN) == {"category": len(named(Outcome(ITALIAN, has_quantity=False)))}
    assert switched_off(asked, [*columns, "category"], KNOWN) == {}


def _rfm(what: str, *more: str) -> tuple[str, ...]:
    return tuple(f"{what}_{told}" for told in ("recency_days", "count", "first_days", *more))


VIEWED = ("view_recency_days", "view_count_28d", "view_first_days")


@pytest.mark.parametrize(
    ("asked", "recency", "own"),
    [
        pytest.param(target(PURCHASE), RFM[0], (), id="purchases"),
        pytest.param(target(LESSON, active=LESSON), "lesson_done_recency_days", _rfm("lesson_done"), id="own"),
        pytest.param(target(VIEW), "view_recency_days", VIEWED, id="a known type"),
        pytest.param(
            target(ITALIAN, kind="first", active=LESSON),
            "lesson_done_recency_days",
            (*_rfm("lesson_done"), *_rfm("lesson_done_italian")),
            id="what has not happened yet",
        ),
        pytest.param(
            target(LESSON, kind="value", measure="quantity"),
            "lesson_done_recency_days",
            _rfm("lesson_done", "quantity_sum"),
            id="with what is summed",
        ),
    ],
)
def test_the_rules_to_beat_read_purchases_and_what_the_target_asks_about(asked: Target, recency: str, own: tuple[str, ...]) -> None:
    built = declared(Wanted(WINDOWS, outcomes=outcomes([asked])), COLUMNS)
    assert simple_rules(asked, built.outcomes, built.numbers, LONGEST) == ((recency,), (*RFM, *own))


def test_a_sum_is_read_by_targets_that_ask_for_it_alone() -> None:
    summing, other = target(LESSON, kind="value", measure="quantity"), target(LESSON)
    found = outcome_features(outcomes([summing, other]), WINDOWS).features
    read = [{feature.name for feature in found if feature.outcome in read_for(asked)} for asked in (summing, other)]
    assert {name for name in read[0] - read[1]} == {name for name in named(*outcomes([summing])) if "quantity_sum" in name}
    # So that a target's going leaves the others' models alone.
    assert read[1] == set(named(*outcomes([other])))


def test_the_level_among_all_users_is_read_by_targets_that_ask_about_it_alone() -> None:
    asking, asked_of, other = target(LESSON), target(VIEW, active=LESSON), target(ITALIAN)
    found = declared(Wanted(WINDOWS, outcomes=outcomes([asking, asked_of, other])), COLUMNS).features
    for asked, name in ((asking, "lesson_done"), (asked_of, "view"), (other, "lesson_done_italian")):
        levels = {feature.name for feature in found if "user_share" in feature.name and feature.outcome in read_for(asked)}
        assert levels == {f"{name}_user_share_7d"}
    amount = target(LESSON, kind="value")
    assert not [feature for feature in found if "user_share" in feature.name and feature.outcome in read_for(amount)]
    assert not [name for name in named(*outcomes([amount])) if "user_share" in name]
    # Neither what a log holds nor who is active has one: models would miss it once no target asks about it any more.
    held = declared(Wanted(WINDOWS, outcomes=outcomes([other])), COLUMNS, inventory=Inventory({"lesson_done": ()}))
    assert [name for name in held.names if "user_share" in name] == ["lesson_done_italian_user_share_7d"]


def test_types_that_no_family_knows_are_for_all_models() -> None:
    asked = outcomes([target(LESSON, kind="value", measure="quantity")])
    built = declared(
        Wanted(WINDOWS, families=("region",), outcomes=asked), COLUMNS, inventory=Inventory({"lesson_done": (), "it's": ()})
    ).features
    read = {feature.name for feature in built if feature.for_all}
    assert {"lesson_done_count_7d", "it_s_recency_days"} <= read
    # A sum is still of the target that asks for it,
    assert not [name for name in read if "quantity" in name]
    # and where all models read some, those of other windows are.
    held = Inventory({"lesson_done": ("quantity",)})
    told = {
        feature.name
        for feature in declared(Wanted(WINDOWS, families=("region",), outcomes=asked), COLUMNS, inventory=held).features
        if feature.for_all
    }
    alone = {feature.name for feature in declared(Wanted(WINDOWS, families=("region",)), COLUMNS, inventory=held).features}
    assert {name for name in told if "quantity" in name} == {name for name in alone if "quantity" in name} != set()
    told = declared(Wanted(WINDOWS, families=("region",)), COLUMNS, inventory=Inventory({"quiz": ()}))
    assert "quiz_count_28d" in told.names and all(feature.for_all for feature in told.features if "quiz" in feature.name)


def test_purchases_by_category_are_on_trial_and_of_what_a_target_asks_about_others_read_as_much() -> None:
    held = Inventory(categories={"purchase": ("tea", "cups")})
    tea = f"{PURCHASE} AND category = 'tea'"
    alone = declared(Wanted(WINDOWS, families=("region",)), COLUMNS, inventory=held)
    kinds = ("recency_days", "gap_days_mean", "overdue_ratio", "quantity_last", "supply_days", "supply_used_ratio")
    told = {f"purchase_{category}_{kind}" for category in ("tea", "cups") for kind in kinds}
    told |= {f"purchase_{kind}" for kind in kinds[3:]}
    assert {feature.name for feature in alone.features if feature.for_all and feature.on_trial} == told
    asked = declared(Wanted(WINDOWS, families=("region",), outcomes=outcomes([target(tea)])), COLUMNS, inventory=held)
    # So that the going of the target that asks about tea leaves the models of others alone.
    assert {feature.name for feature in asked.features if feature.for_all and feature.on_trial} == told
    assert {"purchase_tea_count_7d", "purchase_tea_first_days"} <= set(asked.names)
    # What the config names is for all, and not on trial.
    named_ = declared(Wanted(WINDOWS, families=("region",), outcomes=outcomes([], [tea])), COLUMNS, inventory=held)
    assert {feature.name for feature in named_.features if feature.on_trial} == {name for name in told if "tea" not in name}
    # Those of all purchases are on trial for whoever asks about them, too.
    bought = declared(Wanted(WINDOWS, families=("region",), outcomes=outcomes([target(PURCHASE)])), COLUMNS, inventory=held)
    assert {feature.name for feature in bought.features if feature.for_all and feature.on_trial} == told
    own = {feature.name for feature in bought.features if feature.outcome in read_for(target(PURCHASE)) - {None}}
    assert own == {"purchase_user_share_7d", *(f"purchase_recency_days_{which}" for which in ("2nd", "3rd", "4th"))}


def test_personas_are_called_after_an_activity_where_nobody_buys() -> None:
    asked = (Outcome(LESSON, is_activity=True), Outcome("event_type = 'quiz'", is_activity=True))
    for types, words in (([], ["lesson_done_count_28d"]), (["purchase"], [])):
        built = declared(Wanted(WINDOWS, families=("region",), outcomes=asked), COLUMNS, types)
        assert [feature.name for feature in built.features if feature.high] == words


def test_windows_of_hours_are_told() -> None:
    found = outcome_features((Outcome(LESSON),), (timedelta(hours=36), 7 * DAY, 28 * DAY))
    assert {"lesson_done_count_36h", "lesson_done_count_28d"} <= {feature.name for feature in found.features}


def test_what_a_target_asks_about_is_told_in_steps_of_its_horizon() -> None:
    month, week = target(ITALIAN, active=LESSON), replace(target(ITALIAN, active=LESSON), horizon=7 * DAY)
    windows = [7 * DAY, 28 * DAY, 90 * DAY]
    found = outcome_features(outcomes([month, week]), windows).features
    steps = {feature.name: feature for feature in found if "_before_" in feature.name}
    # No further back than the longest window, and at most six.
    assert [name for name in steps if name.startswith("lesson_done_day_count_28d")] == [
        f"lesson_done_day_count_28d_before_{days}d" for days in (28, 56)
    ]
    assert len([name for name in steps if name.startswith("lesson_done_day_count_7d")]) == 5
    own = {name for name, feature in steps.items() if feature.outcome in read_for(month)}
    assert own == {name for name in steps if "_28d_before" in name}
    assert steps["lesson_done_italian_amount_sum_28d_before_56d"].meaning == (
        "amount of lesson done, category italian in the 28 days before the last 56 days"
    )
    bought = outcome_features(outcomes([replace(month, events=PURCHASE)]), windows).features
    second = next(feature for feature in bought if feature.name == "purchase_recency_days_2nd")
    assert (second.phrase, second.group) == ("purchases: the 2nd last day with any was {value} ago", "recency")
    # Where there are no amounts, events are counted.
    counted = [feature.name for feature in outcome_features(outcomes([month]), windows, has_amounts=False).features]
    assert "lesson_done_count_28d_before_28d" in counted and not [name for name in counted if "amount" in name]
    assert not [name for name in named(Outcome(LESSON), Outcome("event_type = 'quiz'", for_all=True)) if "_2nd" in name]
