"""Segments of one night: who is in, since when, why, and what is asked of whom; a rule reads nothing but the night's columns."""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ConfigError
from features.expressions import columns_of, typed_condition
from pipeline.columns import REASONS, STAGE, TIER, segments_schema, without_date
from pipeline.segment_settings import SegmentSettings, StageSettings
from pipeline.segments import TURNS, Forming, before_schema, refuse_unknown, segments_rows, told_rows, with_stages

DAY, EARLIER = date(2024, 3, 10), date(2024, 3, 1)
TYPES = {"churn_score": "DOUBLE", "churn_percentile": "DOUBLE", "spend": "DOUBLE", "journey_stage": "VARCHAR", TIER: "VARCHAR"}
SCHEMA = without_date(segments_schema([]))


def segment(name: str, enter: str, **told: object) -> SegmentSettings:
    return SegmentSettings.model_validate({"name": name, "purpose": "any", "enter": enter, **told})


def stages(**rules: str) -> tuple[StageSettings, ...]:
    return tuple(StageSettings(name=name, when=rule) for name, rule in rules.items())


def forming(*segments: SegmentSettings, has_before: bool = False, **told: object) -> Forming:
    names = {"as_of": DAY, "run_id": "r", "model_version": "churn=1", "targets": ("churn",), "rule_columns": TYPES}
    return Forming(**{**names, "segments": segments, "has_before": has_before, **told})  # type: ignore[arg-type]


def answers(scores: Sequence[float | None], spend: Sequence[float | None], *, stood: pa.Table | None = None) -> pa.Table:
    """Give a row per user, u0 onwards; who has a score has one reason for it."""
    reasons = [
        None if score is None else [{"feature": "recency", "value": 3.0, "contribution": 0.5, "phrase": f"reason {at}"}]
        for at, score in enumerate(scores)
    ]
    told = {
        "user_id": pa.array([f"u{at}" for at in range(len(scores))]),
        "churn_score": pa.array([np.nan if score is None else score for score in scores], pa.float64()),
        "churn_reasons": pa.array(reasons, REASONS),
        "spend": pa.array(spend, pa.float64()),
    }
    return pa.table(told | ({} if stood is None else {name: stood[name] for name in stood.column_names}))


def stood(told: Forming, *rows: Mapping[str, object]) -> pa.Table:
    """Say how users stood before; what is not said is null."""
    return pa.Table.from_pylist([{f"before {name}": value for name, value in row.items()} for row in rows], before_schema(told))


def formed(rows: pa.Table, told: Forming) -> pa.Table:
    scores = rows["churn_score"].to_numpy()
    return segments_rows(rows, told, {"churn": np.sort(scores[~np.isnan(scores)])}, SCHEMA)


def test_first_met_segment_is_primary_and_all_are_told_in_order_of_priority() -> None:
    told = forming(segment("risk", "churn_score >= 0.4"), segment("rich", "spend > 100"), segment("all", "true"))
    made = formed(answers([0.5, 0.1, None], [200, 150, None]), told)
    assert made.select(["primary_segment", "segments", "segments_since", "reason_1"]).to_pylist() == [
        {
            "primary_segment": "risk",
            "segments": ["risk", "rich", "all"],
            "segments_since": [DAY] * 3,
            "reason_1": "↑ reason 0",
        },
        {"primary_segment": "rich", "segments": ["rich", "all"], "segments_since": [DAY] * 2, "reason_1": "↑ reason 1"},
        {"primary_segment": "all", "segments": ["all"], "segments_since": [DAY], "reason_1": None},
    ]


def test_members_near_a_threshold_stay_and_their_turns_say_why() -> None:
    told = forming(segment("risk", "churn_score >= 0.4", leave="churn_score < 0.3", min_stay="7d"), has_before=True)
    member = {"churn_score": 0.45, "segments": ["risk"], "segments_since": [EARLIER]}
    lately = {**member, "segments_since": [date(2024, 3, 5)]}
    out = {"churn_score": 0.31, "segments": [], "segments_since": []}
    known = stood(told, member, member, lately, out, out, {})
    made = formed(answers([0.35, 0.29, 0.29, 0.35, 0.4, 0.5], [None] * 6, stood=known), told)
    assert made["segments_since"].to_pylist() == [[EARLIER], [], [date(2024, 3, 5)], [], [DAY], [DAY]]
    behind = "; behind the score: ↑ reason"
    assert made[TURNS.name].to_pylist() == [
        [],
        [
            {
                "segment": "risk",
                "is_in": False,
                "entered_on": EARLIER,
                "reason": f"churn_score < 0.3 (0.29, was 0.45){behind} 1",
            }
        ],
        [],
        [],
        [{"segment": "risk", "is_in": True, "entered_on": DAY, "reason": f"churn_score >= 0.4 (0.4, was 0.31){behind} 4"}],
        [{"segment": "risk", "is_in": True, "entered_on": DAY, "reason": f"churn_score >= 0.4 (0.5, was not known){behind} 5"}],
    ]


def test_whose_score_is_unknown_leaves() -> None:
    told = forming(segment("risk", "churn_score >= 0.4", leave="churn_score < 0.3"), has_before=True)
    known = stood(told, {"churn_score": 0.45, "segments": ["risk"], "segments_since": [EARLIER]})
    made = formed(answers([None], [None], stood=known), told)
    assert made["segments"].to_pylist() == [[]]
    assert made[TURNS.name].to_pylist()[0][0]["reason"] == "churn_score < 0.3 (not known, was 0.45)"


def test_a_segment_that_was_taken_out_of_the_config_is_left() -> None:
    told = forming(segment("rich", "spend > 100"), has_before=True)
    known = stood(told, {"spend": 200.0, "segments": ["gone", "rich"], "segments_since": [EARLIER, EARLIER]})
    made = formed(answers([0.5], [200], stood=known), told)
    assert made["segments_since"].to_pylist() == [[EARLIER]]
    assert made[TURNS.name].to_pylist() == [
        [{"segment": "gone", "is_in": False, "entered_on": EARLIER, "reason": "the segment is no longer in the config"}]
    ]


def test_stages_read_tiers_or_the_other_way_round() -> None:
    rows = pa.table({"spend": [5.0, 50.0, 500.0]})
    tiers, by_tier = stages(gold="spend > 100", basic="true"), stages(top=f"{TIER} = 'gold'", new="spend < 10")
    by_stage = stages(gold=f"{STAGE} = 'top'", basic="spend > 10")
    assert with_stages(rows, by_tier, tiers).select([STAGE, TIER]).to_pydict() == {
        STAGE: ["new", None, "top"],
        TIER: ["basic", "basic", "gold"],
    }
    assert with_stages(rows, stages(top="spend > 100"), by_stage).select([STAGE, TIER]).to_pydict() == {
        STAGE: [None, None, "top"],
        TIER: [None, "basic", "gold"],
    }


def test_a_stage_of_the_features_stays_unless_rules_say_otherwise() -> None:
    rows = pa.table({"spend": [5.0], STAGE: ["loyal"]})
    assert with_stages(rows, (), ())[STAGE].to_pylist() == ["loyal"]
    assert with_stages(rows, (), ())[TIER].to_pylist() == [None]


def test_who_joins_a_batch_changes_nobodys_row() -> None:
    told = forming(segment("risk", "churn_percentile >= 50"), segment("rich", "spend > 100"))
    rows = answers([0.5, 0.1, None, 0.3], [200, 50, 300, None])
    places = {"churn": np.array([0.1, 0.3, 0.5])}
    whole = segments_rows(rows, told, places, SCHEMA)
    assert pa.concat_tables([segments_rows(rows.slice(at, 1), told, places, SCHEMA) for at in range(4)]).to_pylist() == (
        whole.to_pylist()
    )


NAMES = st.sampled_from([*TYPES, "chrun_score", "user_id; drop table x", "spend_", "now()"])
PART = st.builds(lambda name, number: f'"{name}" > {number}', NAMES, st.integers(-3, 3))
RULE = st.recursive(PART, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner), max_leaves=4)


@given(rules=st.lists(RULE, min_size=1, max_size=4))
def test_no_rule_reads_a_column_that_is_not_in_the_table(rules: list[str]) -> None:
    numbers = dict.fromkeys(TYPES, "DOUBLE")
    for rule in rules:
        if columns_of(rule) <= set(numbers):
            typed_condition(rule, numbers)
        else:
            with pytest.raises(ConfigError, match="unknown column"):
                typed_condition(rule, numbers)
    known = [rule for rule in rules if columns_of(rule) <= set(numbers)]
    told = forming(*(segment(f"s{at}", rule) for at, rule in enumerate(known)), rule_columns=numbers)
    assert told.read >= set().union(*map(columns_of, known))
    # What the rules are asked of holds what they read.
    rows = told_rows(answers([0.5], [1.0]), told, {"churn": np.array([0.5])})
    assert set(rows.column_names) >= told.in_rules - {STAGE, TIER}


def test_a_rule_over_what_tonights_events_cannot_give_is_refused_with_its_path() -> None:
    rules = {"segments.0.enter": "spend > 1", "plays.channels.1.consent": "spent = 1"}
    with pytest.raises(ConfigError, match=r"^plays\.channels\.1\.consent reads 'spent', .*did you mean spend\?$"):
        refuse_unknown(rules, ["spend", "user_id"])
