"""Rules that sort nobody: counted a batch at a time on either engine, told with their key paths, by a night and by validate."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from click.testing import Result
from ibis.backends.sql import SQLBackend
from typer.testing import CliRunner

from builders import load
from pipeline.batches import Here, batches
from pipeline.cli import app
from pipeline.columns import REASONS, segments_schema, without_date
from pipeline.recorded import forming_of
from pipeline.rule_checks import RuleCheck, check_rules, needing_models
from pipeline.segments import before_schema, places_of, segments_rows
from pipeline.settings import Settings, read_settings
from pipeline.tables import memberships, nights
from shops import shop_config, write_orders

DAY, EARLIER = date(2024, 3, 10), date(2024, 3, 1)
TARGETS = [{"name": "churn_28d", "kind": "absence", "horizon": "28d", "eligible": {"active_within": "56d"}}]


def segment(name: str, enter: str, **told: object) -> dict[str, object]:
    return {"name": name, "purpose": "any", "enter": enter, **told}


def config(folder: Path, *segments: Mapping[str, object], **changes: object) -> Settings:
    return read_settings(shop_config(folder, targets=TARGETS, segments=list(segments), **changes))


def answers(scores: Sequence[float | None], recency: Sequence[float], **more: pa.Array) -> pa.Table:
    """Give a row per user, u0 onwards."""
    told = {
        "user_id": pa.array([f"u{at}" for at in range(len(scores))]),
        "churn_28d_score": pa.array([np.nan if score is None else score for score in scores], pa.float64()),
        "churn_28d_reasons": pa.nulls(len(scores), REASONS),
        "purchase_recency_days": pa.array(recency, pa.float64()),
    }
    return pa.table(told | more)


def checked(rows: pa.Table, settings: Settings, *, has_before: bool = False) -> RuleCheck:
    told = forming_of(settings, DAY, has_before=has_before)
    return check_rules(Here(rows), settings, told, places_of(rows, told.targets))


def test_every_rule_is_counted_and_those_that_sort_nobody_are_told(engine: SQLBackend, tmp_path: Path) -> None:
    settings = config(
        tmp_path,
        segment("all", "purchase_recency_days >= 0"),
        segment("risk", "churn_28d_score >= 0.4", leave="churn_28d_score < 0.1"),
        segment("top", "churn_28d_percentile > 60", leave="churn_28d_percentile < 20"),
        segment("gone", "purchase_recency_days > 100", leave="purchase_recency_days < 90"),
        segment("lapsed", "loyalty_tier = 'late' and\n  churn_28d_score > 0"),
        segment("everybody", "loyalty_tier in ('late', 'early', 'never')", leave="loyalty_tier is null"),
        loyalty_tiers=[
            {"name": "late", "when": "purchase_recency_days > 4"},
            {"name": "later", "when": "purchase_recency_days > 8"},
            {"name": "never", "when": "purchase_recency_days > 99"},
            {"name": "early", "when": "true"},
            {"name": "nobody", "when": "true"},
        ],
        plays={"channels": [{"name": "mail", "consent": "purchase_recency_days < 0"}, {"name": "till", "consent": "true"}]},
    )
    rows = answers([0.5, 0.05, 0.3, 0.9], [5, 1, 2, 9])
    told = forming_of(settings, DAY, has_before=False)
    found = check_rules(batches(engine, load(engine, rows)), settings, told, places_of(rows, told.targets))
    assert found == RuleCheck(
        users=4,
        met={
            "loyalty_tiers.0.when": 2,
            "loyalty_tiers.1.when": 1,
            "loyalty_tiers.2.when": 0,
            "loyalty_tiers.3.when": 4,
            "loyalty_tiers.4.when": 4,
            "segments.0.enter": 4,
            "segments.1.enter": 2,
            "segments.1.leave": 1,
            "segments.2.enter": 2,
            "segments.2.leave": 0,
            "segments.3.enter": 0,
            "segments.3.leave": 4,
            "segments.4.enter": 2,
            "segments.5.enter": 4,
            "segments.5.leave": 0,
            "plays.channels.0.consent": 0,
            "plays.channels.1.consent": 4,
        },
        members={
            "loyalty_tiers.0": 2,
            "loyalty_tiers.1": 0,
            "loyalty_tiers.2": 0,
            "loyalty_tiers.3": 2,
            "loyalty_tiers.4": 0,
            "segments.0": 4,
            "segments.1": 2,
            "segments.2": 2,
            "segments.3": 0,
            "segments.4": 2,
            "segments.5": 4,
        },
        warnings=(
            "loyalty_tiers.2.when: nobody of 4 users meets it tonight (purchase_recency_days > 99)",
            "segments.0.enter: everybody, all 4 users, meets it tonight (purchase_recency_days >= 0)",
            "segments.2.leave: nobody of 4 users meets it tonight (churn_28d_percentile < 20)",
            "segments.3.enter: nobody of 4 users meets it tonight (purchase_recency_days > 100)",
            "segments.3.leave: everybody, all 4 users, meets it tonight (purchase_recency_days < 90)",
            "segments.5.enter: everybody, all 4 users, meets it tonight (loyalty_tier in ('late', 'early', 'never'))",
            "segments.5.leave: nobody of 4 users meets it tonight (loyalty_tier is null)",
            "plays.channels.0.consent: nobody of 4 users meets it tonight (purchase_recency_days < 0)",
            "loyalty_tiers.1.when: nobody is 'later' tonight: whoever meets it, 1 of 4 users, also meets a rule before it",
            "segments.0 (all) and segments.5 (everybody): their members tonight are the same 4 users",
            "segments.1 (risk) and segments.2 (top) and segments.4 (lapsed): their members tonight are the same 2 users",
        ),
    )


class InSevens(Here):
    """Rows of which seven at a time are in a batch."""

    def map(self, function: Callable[[pa.Table], pa.Table], schema: pa.Schema) -> Here:
        parts = (function(self.rows.slice(start, 7)) for start in range(0, len(self.rows), 7))
        return Here(pa.concat_tables([schema.empty_table(), *parts]))


def test_users_in_many_batches_are_added_up(tmp_path: Path) -> None:
    settings = config(tmp_path, segment("risk", "churn_28d_score >= 0.4"), segment("late", "purchase_recency_days > 5"))
    random = np.random.default_rng(0)
    scores, recency = random.random(100), random.integers(0, 10, 100)
    rows, told = answers(list(scores), list(recency)), forming_of(settings, DAY, has_before=False)
    found = check_rules(InSevens(rows), settings, told, places_of(rows, told.targets))
    assert found == checked(rows, settings)
    assert found.met == {"segments.0.enter": (scores >= 0.4).sum(), "segments.1.enter": (recency > 5).sum()}


def test_segments_of_as_many_other_people_are_not_the_same(tmp_path: Path) -> None:
    settings = config(tmp_path, segment("high", "churn_28d_score >= 0.5"), segment("low", "churn_28d_score < 0.5"))
    assert checked(answers([0.1, 0.9], [1, 1]), settings).warnings == ()


def test_members_who_stay_make_a_difference(tmp_path: Path) -> None:
    """u1 meets the rule of `risk` no longer and stays: by their rules of tonight alone the segments would be the same people."""
    settings = config(
        tmp_path,
        segment("risk", "churn_28d_score >= 0.4", leave="churn_28d_score < 0.2"),
        segment("plain", "churn_28d_score >= 0.4"),
    )
    told = forming_of(settings, DAY, has_before=True)
    stood = [{"segments": [], "segments_since": []}, {"segments": ["risk"], "segments_since": [EARLIER]}, {}]
    before = pa.Table.from_pylist(
        [{f"before {name}": value for name, value in row.items()} for row in stood],
        before_schema(told),
    )
    rows = answers([0.5, 0.3, 0.1], [1, 1, 1], **{name: before[name].combine_chunks() for name in before.column_names})
    found = checked(rows, settings, has_before=True)
    assert (found.members, found.warnings) == ({"segments.0": 2, "segments.1": 1}, ())
    made = segments_rows(rows, told, places_of(rows, told.targets), without_date(segments_schema(settings.specs())))
    assert made["segments"].to_pylist() == [["risk", "plain"], ["risk"], []]


def test_a_config_without_rules(tmp_path: Path) -> None:
    assert checked(answers([0.5], [1]), config(tmp_path)) == RuleCheck(1, {}, {}, ())


# Tiers read the stages, which read a score.
TANGLED = {
    "journey_stages": [{"name": "new", "when": "purchase_recency_days < 3"}, {"name": "lost", "when": "churn_28d_score > 0.5"}],
    "loyalty_tiers": [{"name": "gold", "when": "journey_stage = 'new'"}, {"name": "rest", "when": "purchase_recency_days > 8"}],
    "plays": {"channels": [{"name": "mail", "consent": "purchase_recency_days >= 0"}]},
}
SEGMENTS = (
    segment("late", "purchase_recency_days > 1", leave="purchase_recency_days <= 1"),
    segment("loyal", "loyalty_tier = 'gold'", leave="purchase_recency_days > 30"),
    segment("bargain", "persona_name = 'bargain hunters'"),
    segment("later", "purchase_recency_days > 1.5"),
)
UNKNOWN = ["journey_stages.1.when", "loyalty_tiers.0.when", "segments.1.enter", "segments.2.enter"]


def test_rules_that_need_models_are_found_through_stages_and_tiers(tmp_path: Path) -> None:
    assert needing_models(config(tmp_path, *SEGMENTS, **TANGLED)) == UNKNOWN


def test_rules_that_are_left_out_leave_the_others_checked(tmp_path: Path) -> None:
    settings = config(tmp_path, *SEGMENTS, **TANGLED)
    rows = pa.table({"user_id": ["u0", "u1", "u2"], "purchase_recency_days": [5.0, 1.0, 2.0]})
    told = forming_of(settings, DAY, has_before=False)
    found = check_rules(Here(rows), settings, replace(told, targets=()), {}, left_out=UNKNOWN)
    assert found == RuleCheck(
        users=3,
        met={
            "journey_stages.0.when": 2,
            "journey_stages.1.when": None,
            "loyalty_tiers.0.when": None,
            "loyalty_tiers.1.when": 0,
            "segments.0.enter": 2,
            "segments.0.leave": 1,
            "segments.1.enter": None,
            "segments.1.leave": 0,
            "segments.2.enter": None,
            "segments.3.enter": 2,
            "plays.channels.0.consent": 3,
        },
        members={
            "journey_stages.0": None,
            "journey_stages.1": None,
            "loyalty_tiers.0": None,
            "loyalty_tiers.1": None,
            "segments.0": 2,
            "segments.1": None,
            "segments.2": None,
            "segments.3": 2,
        },
        warnings=(
            "loyalty_tiers.1.when: nobody of 3 users meets it tonight (purchase_recency_days > 8)",
            "segments.1.leave: nobody of 3 users meets it tonight (purchase_recency_days > 30)",
            "segments.0 (late) and segments.3 (later): their members tonight are the same 2 users",
        ),
    )
    assert found.unchecked == UNKNOWN


NIGHT, NEXT = "2024-09-01", "2024-09-15"
SHOP = (
    segment("leaving", "churn_28d_score >= 0.3", leave="churn_28d_score < 0.2", min_stay="30d"),
    segment("certain", "churn_28d_score > 1"),
    segment("late", "purchase_recency_days > 20"),
    segment("tardy", "purchase_recency_days >= 20.0001"),
)
NEVER_MET = "segments.1.enter: nobody of {users} users meets it tonight (churn_28d_score > 1)"
ALIKE = "segments.2 (late) and segments.3 (tardy): their members tonight are the same {late} users"


def run(command: str, path: Path, *words: str, day: str = NIGHT) -> Result:
    return CliRunner().invoke(app, [command, "--config", str(path), "--as-of", day, *words])


def validated(path: Path, *, day: str = NIGHT) -> dict[str, Any]:
    done = run("validate", path, "--json", day=day)
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def shop(folder: Path, *segments: Mapping[str, object], **changes: object) -> Path:
    training = {"test_origins": 2, "calibration_origins": 1, "max_cutoffs": 6}
    told = {"targets": TARGETS, "segments": list(segments or SHOP), "training": training, "output": str(folder / "out"), **changes}
    return shop_config(folder, **told)


def held(folder: Path) -> dict[str, bytes]:
    """Give every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with orders, champions and no night."""
    folder = tmp_path_factory.mktemp("trained")
    write_orders(folder / "orders.csv", users=150)
    done = run("train", shop(folder))
    assert done.exit_code in (0, 4), done.output
    return folder


def test_validate_without_champions_checks_what_needs_none(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_bytes((trained / "orders.csv").read_bytes())
    told = validated(shop(tmp_path))
    late = told["rules"]["segments.2.enter"]
    assert 0 < late < told["users"]
    assert told["unchecked"] == ["segments.0.enter", "segments.0.leave", "segments.1.enter"]
    assert told["unchecked_because"].startswith("no champion in the registry for tea_shop.churn_28d, tea_shop.personas")
    assert told["members"] == {"segments.0": None, "segments.1": None, "segments.2": late, "segments.3": late}
    assert told["warnings"] == [ALIKE.format(late=late)]
    assert not (tmp_path / "out").exists()
    shown = run("validate", shop(tmp_path)).stdout
    assert "not checked: 3 rules, which read scores or personas, themselves or through a stage or tier: no champion" in shown
    assert f"warning: {told['warnings'][0]}" in shown


def test_validate_with_champions_says_what_the_night_will(trained: Path) -> None:
    before = held(trained / "out")
    told = validated(shop(trained))
    assert held(trained / "out") == before
    expected = [NEVER_MET.format(users=told["users"]), ALIKE.format(late=told["rules"]["segments.2.enter"])]
    assert (told["warnings"], told["unchecked"], told["unchecked_because"]) == (expected, [], None)
    done = run("score", shop(trained))
    assert done.exit_code == 0, done.output
    assert [line.strip() for line in done.stderr.splitlines() if "segments." in line] == expected
    assert json.loads(nights(trained / "out")[-1]["checks"])["rules_met"] == told["rules"]
    # The next night remembers this one: whoever stays is a member.
    later = validated(shop(trained), day=NEXT)
    assert run("score", shop(trained), day=NEXT).exit_code == 0
    stays = memberships(trained / "out").to_pandas()
    assert {f"segments.{at}": (stays[stays.left_on.isna()].segment == told["name"]).sum() for at, told in enumerate(SHOP)} == (
        later["members"]
    )
    assert later["members"]["segments.0"] > later["rules"]["segments.0.enter"]


def test_validate_tells_rules_without_warnings_to_people(trained: Path) -> None:
    shown = run("validate", shop(trained, *SHOP[:1], SHOP[2])).stdout
    assert "no warnings: every rule is met by somebody" in shown
    rows = [line.split() for line in shown.splitlines() if line.strip().startswith("segments.")]
    assert [row[:2] for row in rows] == [["segments.0", "leaving"], ["segments.1", "late"]]
    assert [len(row) for row in rows] == [5, 4]


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"targets": [{**TARGETS[0], "horizon": "14d"}]}, "changed since their champions were trained: targets.churn_28d"),
        ({"features": {"windows": ["7d", "14d", "28d"]}}, "needs features that are not built tonight"),
    ],
)
def test_champions_that_do_not_fit_are_no_reason_to_check_nothing(trained: Path, changes: Any, because: str) -> None:
    told = validated(shop(trained, **changes))
    assert because in told["unchecked_because"]
    assert told["unchecked"] == ["segments.0.enter", "segments.0.leave", "segments.1.enter"]
    assert told["rules"]["segments.2.enter"] > 0


def test_validate_refuses_another_salt_before_any_work(trained: Path) -> None:
    assert run("score", shop(trained)).exit_code == 0
    nowhere = yaml.safe_load(shop(trained).read_text())["sources"][0] | {"tables": {"o": "nowhere.csv"}}
    done = run("validate", shop(trained, plays={"salt": "another"}, sources=[nowhere]))
    assert done.exit_code == 2
    assert "plays.salt: " in done.stderr and "nowhere.csv" not in done.stderr


def test_validate_tells_what_the_events_show_to_be_wrong_together(trained: Path, tmp_path: Path) -> None:
    lines = (trained / "orders.csv").read_text().splitlines()
    few = [line for line in lines[1:] if line.split(",")[0] in ("u1", "u2", "u3")]
    (tmp_path / "orders.csv").write_text("\n".join([lines[0], *few]) + "\n")
    rules = (segment("carts", "cart_count_28d > 1"), segment("views", "view_count_28d > 1"))
    contract = {"max_staleness": "300d"}
    done = run("validate", shop(tmp_path, *rules, contract=contract))
    said = " ".join(done.stderr.split())
    assert done.exit_code == 2
    for part in ("segments.0.enter reads", "segments.1.enter reads", "personas.fewest: 3 users who bought"):
        assert part in said
    assert not (tmp_path / "out").exists()


def validated_about(trained: Path, events: str, **changes: object) -> dict[str, Any]:
    """Validate a shop that asks about some events and nothing else."""
    target = {"name": "odd_28d", "kind": "occurrence", "horizon": "28d", "events": events, "eligible": {"active_within": "56d"}}
    nothing = {"segments": [], "journey_stages": [], "loyalty_tiers": [], "plays": {}}
    return validated(shop(trained, targets=[target], **nothing, **changes))


def test_a_condition_that_no_event_meets_is_a_warning(trained: Path) -> None:
    told = validated_about(trained, "event_type = 'purchas'", features={"events": ["event_type = 'tip'", "amount > 0"]})
    said = "targets.0.events: no event so far meets event_type = 'purchas'; the event types are purchase"
    assert [line for line in told["warnings"] if line.startswith("features.events")] == [
        "features.events.0: no event so far meets event_type = 'tip'; the event types are purchase"
    ]
    assert said in told["warnings"] and not [line for line in told["warnings"] if "eligible" in line]


def test_a_condition_that_no_event_meets_by_a_value_names_the_nearest(trained: Path) -> None:
    told = validated_about(trained, "event_type = 'purchase' and category = 'Tea'")
    assert told["warnings"][0].endswith("category = 'Tea'; no category is Tea: did you mean tea?")


def test_too_few_users_to_train_personas_are_a_warning(trained: Path) -> None:
    told = validated(shop(trained, personas={"fewest": 20, "most": 20}))
    assert told["warnings"][0].startswith("personas.fewest: ") and "too few for 20 personas: at least 200" in told["warnings"][0]


def test_a_history_too_short_to_train_is_a_warning(trained: Path) -> None:
    told = validated(shop(trained, training={"min_history": "900d"}))
    assert told["warnings"][0].startswith("the history before ") and "training.min_history (900d)" in told["warnings"][0]
