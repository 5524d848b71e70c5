"""Settings: every mistake in a config is told at once, with its key path."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from features.errors import ConfigError
from features.labels import Eligible, definition
from features.windows import LONGEST
from models.backtest import CHAMPION, DISJOINT
from models.bands import Bands
from models.ladder import RUNGS
from pipeline.columns import WORKING
from pipeline.engine_settings import DuckDBSettings
from pipeline.settings import Settings, read_settings
from pipeline.wording import definition_in_words
from shops import shop_config

CONFIGS = Path(__file__).parent.parent / "configs"


def own(name: str) -> dict[str, str]:
    return {"name": name, "sql": "count(*)", "meaning": "own", "phrase": "own: {value}"}


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    assert read_settings(path).name


def test_the_template_shows_every_key() -> None:
    told = yaml.safe_load((CONFIGS / "template.yaml").read_text())
    kinds = {target["kind"]: target for target in told["targets"]}
    assert set(kinds) == {"absence", "occurrence", "growth", "first", "value"}

    def unshown(model: type[BaseModel], shown: dict[str, object]) -> set[str]:
        return set(model.model_fields) - set(shown)

    settings = Settings.model_validate(told)
    assert unshown(Settings, told) == set()
    for section in ("contract", "features", "training", "gates", "personas", "engine"):
        assert unshown(type(getattr(settings, section)), told[section]) == set()
    # What any kind of target may say is shown at the first.
    for target in settings.targets:
        assert unshown(type(target), {**kinds["absence"], **kinds[target.kind]}) == set()
    assert unshown(type(settings.targets[0].contact), kinds["absence"]["contact"]) == set()
    assert unshown(type(settings.targets[0].eligible), kinds["absence"]["eligible"]) == set()
    assert unshown(type(settings.segments[0]), told["segments"][0]) == set()
    assert unshown(type(settings.sources[0]), told["sources"][0]) == set()


def test_every_problem_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    eligible = {"active_within": "56d"}
    path = shop_config(
        tmp_path,
        outptu="x",
        time_zone="Europe/Pari",
        targets=[
            {"name": "t", "kind": "absence", "horizon": 28, "eligible": eligible, "ratio": 2},
            {"name": "T", "kind": "grow", "horizon": "28d", "eligible": eligible},
            {"name": "v", "kind": "value", "horizon": "28d", "eligible": eligible, "events": "evnt_type = 'x'"},
        ],
        personas={"fewest": 9},
    )
    head, *lines = problems(path)
    assert head == f"{path} has 7 problems:"
    assert [line.strip() for line in lines] == [
        "time_zone: 'Europe/Pari' is not a time zone: did you mean Europe/Paris?",
        "targets.0.horizon: 28 is not a duration: write a positive whole number and h, d or w, such as 28d",
        "targets.0.ratio: unknown key; it belongs elsewhere, or to another kind of target; configs/template.yaml shows where",
        "targets.1.kind: 'grow' is not a kind of target: did you mean growth?",
        "targets.2.events: \"evnt_type = 'x'\" names the unknown column 'evnt_type': did you mean event_type?",
        "personas: fewest is 9 and most is 8: fewest may not be above most",
        "outptu: unknown key; did you mean output?",
    ]


def test_rules_of_segments_are_checked_against_the_columns_of_the_night(tmp_path: Path) -> None:
    rules = [
        {"name": "a", "purpose": "p", "enter": "churn_28d_scor > 1"},
        {"name": "a", "purpose": "p", "enter": "churn_28d_score >"},
        {"name": "b", "purpose": "p", "enter": "sleep(1) > churn_28d_score"},
    ]
    _, *lines = problems(shop_config(tmp_path, segments=rules))
    assert lines[0].strip() == "segments: the name 'a' is used 2 times"
    assert "segments.0.enter" in lines[1] and "did you mean churn_28d_score?" in lines[1]
    assert "segments.1.enter" in lines[2] and "does not parse" in lines[2]
    assert "segments.2.enter" in lines[3] and "may only compare" in lines[3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML at line 1, column 5"),
        ("name: a\nname: b", "the key 'name' is given a second time, first on line 1"),
        ("a: {b: 1, b: 2}", "the key 'b' is given a second time, first on line 1"),
        ("a: 1\nb: 2024-13-45", "is not YAML at line 2, column 4: '2024-13-45' cannot be read (month must be in 1..12)"),
        ("a: !!int x", "'x' cannot be read (invalid literal for int() with base 10: 'x')"),
        ("a: " + "[" * 2000 + "]" * 2000, "is nested too deeply to be a config"),
        ("", "the file holds no keys"),
        ("- 1", "the file holds no keys"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert said in "\n".join(problems(path))


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    shop_config(tmp_path)
    assert f"did you mean {tmp_path / 'shop.yaml'}?" in problems(tmp_path / "shpo.yaml")[0]


def test_the_digest_sees_what_shapes_rows_and_nothing_else(tmp_path: Path) -> None:
    here = read_settings(shop_config(tmp_path)).digest()
    assert read_settings(shop_config(tmp_path, output="elsewhere", engine={"memory": "1GB"})).digest() == here
    assert read_settings(shop_config(tmp_path, time_zone="Asia/Tokyo")).digest() != here


def test_temporary_files_have_a_place_where_the_output_is_not_there_yet(tmp_path: Path) -> None:
    def place(output: Path) -> str:
        return str(DuckDBSettings().open(output / "spill").raw_sql("SELECT current_setting('temp_directory')").fetchone()[0])

    assert place(tmp_path).startswith(str(tmp_path / "spill-"))
    # DuckDB makes one folder, and no parents.
    assert place(tmp_path / "out" / "shop").startswith(str(tmp_path / ".out_spill-"))
    assert list(tmp_path.iterdir()) == []


def test_slices_are_features(tmp_path: Path) -> None:
    said = problems(shop_config(tmp_path, training={"slices": ["usage_level", "usage_lvel"]}))
    assert said[1:] == ["  training.slices.1: 'usage_lvel' is not a feature: did you mean usage_level?"]


def test_rules_read_events_that_the_config_names(tmp_path: Path) -> None:
    segment = {"name": "a", "purpose": "p", "enter": "tip_recency_days < 7 or tip_count_28d > 2"}
    _, said = problems(shop_config(tmp_path, segments=[segment]))
    assert said.endswith("; features.events gives other event types such columns")
    settings = read_settings(shop_config(tmp_path, segments=[segment], features={"events": ["event_type = 'tip'"]}))
    assert {"tip_recency_days", "tip_count_28d", "tip_first_days"} <= settings.rule_columns().keys()


def test_a_target_becomes_a_spec(tmp_path: Path) -> None:
    target = read_settings(shop_config(tmp_path)).specs()[1]
    assert (target.kind, target.horizon, target.lookback) == ("first", timedelta(days=28), timedelta(days=56))
    assert target.events == "event_type = 'purchase' AND category = 'tea'"


def test_ever_and_until_are_read_and_told_again(tmp_path: Path) -> None:
    eligible = {"active_within": "ever", "events": "event_type = 'subscribed'", "until": "event_type = 'cancelled'"}
    first = {"name": "first_tea", "kind": "first", "horizon": "28d", "lookback": "ever", "eligible": eligible}
    settings = read_settings(shop_config(tmp_path, targets=[first], segments=[]))
    target = settings.specs()[0]
    assert target.eligible == Eligible(LONGEST, eligible["events"], eligible["until"])
    assert definition_in_words(target).endswith("for users with none at any time before.")
    told = settings.model_dump(mode="json")["targets"][0]
    assert (told["lookback"], told["eligible"]) == ("ever", eligible)
    assert definition(target)["eligible"] == eligible
    _, said = problems(shop_config(tmp_path, segments=[], targets=[first | {"eligible": eligible | {"until": "left = 1"}}]))
    assert "targets.0.eligible.until" in said
    _, said = problems(shop_config(tmp_path, segments=[], targets=[first | {"horizon": "ever"}]))
    assert "'ever' is not a duration" in said


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("churn_28d_band > 5", "does not fit its columns"),
        ("churn_28d_score", "is not a condition but a DOUBLE"),
        ("churn_28d_score > 'soon'", "does not fit its columns"),
    ],
)
def test_a_rule_that_compares_text_with_number_is_refused(tmp_path: Path, rule: str, said: str) -> None:
    assert said in problems(shop_config(tmp_path, segments=[{"name": "a", "purpose": "p", "enter": rule}]))[1]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("churn_28d_band = 'very high'", "segments.0.enter: no churn_28d_band is 'very high': did you mean very_high?"),
        ("not churn_28d_band in ('high', 'hihg')", "no churn_28d_band is 'hihg': did you mean high?"),
        ("churn_28d_score >= 25", "churn_28d_score is a probability, from 0 to 1, and never 25"),
        ("churn_28d_score between 0.5 and 60", "and never 60"),
        ("value_28d_percentile >= 101", "value_28d_percentile goes from 0 to 100, and is never 101"),
        ("value_28d_percentile >= 0.9", "0.9 is less than the lowest hundredth: write 90"),
        ("churn_28d_band in ('high', 'very_high') and churn_28d_score <= 1", None),
        ("value_28d_score >= 25 and churn_28d_percentile > 80 and persona_name = 'anybody'", None),
    ],
)
def test_a_value_that_a_column_never_has_is_refused(tmp_path: Path, rule: str, said: str | None) -> None:
    config = shop_config(tmp_path, segments=[{"name": "a", "purpose": "p", "enter": rule}])
    if said is None:
        read_settings(config)
    else:
        assert said in problems(config)[1]


def play(**told: object) -> dict[str, object]:
    return {"offer": "gift", "channel": "mail", **told}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"leave": "churn_28d_score < 0.5"}, "segments.0.leave: 'churn_28d_score < 0.5' is stricter than enter"),
        ({"leave": "churn_28d_scor < 0.2"}, "segments.0.leave: .* did you mean churn_28d_score"),
        ({"min_stay": "soon"}, "segments.0.min_stay: 'soon' is not a duration"),
        ({"play": play(holdout=1)}, "segments.0.play.holdout: input should be less than 1 .got 1"),
        ({"play": play(cap={"contacts": 0, "per": "14d"})}, "segments.0.play.cap.contacts: .* greater than or equal to 1 .got 0"),
        ({"play": play(cap={"contacts": 1, "per": "0d"})}, "segments.0.play.cap.per: '0d' is not a duration"),
        ({"play": play(channel="mial")}, "segments.0.play.channel: 'mial' is not in plays.channels: did you mean mail?"),
        ({"play": play(channel=["mail", "preferred"])}, "segments.0.play.channel: 'preferred' is not in plays.channels"),
        ({"play": play(moment=23)}, "segments.0.play.moment: 23 lies in plays.quiet_hours .21 to 8"),
        ({"play": play(moment=24)}, "segments.0.play.moment"),
    ],
)
def test_what_a_segment_does_is_checked(tmp_path: Path, change: dict[str, object], said: str) -> None:
    told = {"name": "a", "purpose": "p", "enter": "churn_28d_score >= 0.4"} | change
    plays = {"quiet_hours": {"start": 21, "stop": 8}, "channels": [{"name": "mail", "consent": "true"}]}
    with pytest.raises(ConfigError, match=said):
        read_settings(shop_config(tmp_path, segments=[told], plays=plays))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"loyalty_tiers": [{"name": "a", "when": "loyalty_tier = 'a'"}]},
            "loyalty_tiers: its rules read loyalty_tier, which they",
        ),
        (
            {
                "loyalty_tiers": [{"name": "a", "when": "journey_stage = 'b'"}],
                "journey_stages": [{"name": "b", "when": "loyalty_tier = 'a'"}],
            },
            "journey_stages, loyalty_tiers: the rules of each read the other, a cycle",
        ),
        ({"plays": {"channels": [{"name": "mail", "consent": "1"}]}}, "plays.channels.0.consent: '1' is not a condition"),
        (
            {"features": {"values": {"brand": ["x"]}}},
            "features.values.brand: input should be 'category', 'channel', 'device' or 'source'",
        ),
        ({"plays": {"channels": [{"name": "m", "consent": "true"}] * 2}}, "plays.channels: the name 'm' is used 2 times"),
        ({"plays": {"quiet_hours": {"start": 8, "stop": 8}}}, "plays.quiet_hours: start and stop are the same hour"),
        (
            {"segments": [{"name": "a", "purpose": "p", "enter": "true", "play": play()}]},
            "segments.0.play: plays.channels names no",
        ),
        ({"plays": {"holdout": -0.1}}, "plays.holdout: input should be greater than or equal to 0 .got -0.1"),
    ],
)
def test_what_is_said_of_everybody_is_checked(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings(shop_config(tmp_path, **changes))


def test_rules_are_checked_beside_keys_that_are_wrong(tmp_path: Path) -> None:
    rules = [{"name": "a", "purpose": "p", "enter": "churn_28d_scor > 1", "min_stay": "soon"}]
    _, *lines = problems(shop_config(tmp_path, segments=rules, plays={"holdout": 2}))
    assert [line.strip().partition(": ")[0] for line in lines] == ["plays.holdout", "segments.0.min_stay", "segments.0.enter"]


def test_a_target_may_not_take_the_name_of_the_personas(tmp_path: Path) -> None:
    target = {"name": "personas", "kind": "absence", "horizon": "28d", "eligible": {"active_within": "56d"}}
    assert "targets: the name 'personas' is taken" in problems(shop_config(tmp_path, targets=[target], segments=[]))[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bands": [0.1, 0.2, 0.2, 0.4]}, r"targets.0.bands.*four rising scores cut five bands, such as"),
        ({"bands": [0.1, 0.2]}, r"targets.0.bands.*four rising scores"),
        ({"bands": "capacity"}, r"targets.0.*bands: capacity needs contact.capacity"),
        ({"contact": {"capacity": 0}}, r"targets.0.contact.capacity: .*greater than or equal to 1 \(got 0\)"),
        ({"contact": {"cost": -1}}, r"targets.0.contact.cost"),
        ({"monotone": {"purchase_recency_days": "upwards"}}, r"targets.0.monotone.purchase_recency_days.*'up' or 'down'"),
    ],
)
def test_what_a_target_says_of_its_use_is_checked(tmp_path: Path, change: dict[str, object], said: str) -> None:
    told = yaml.safe_load((CONFIGS / "template.yaml").read_text())
    told["targets"][0] = {key: value for key, value in told["targets"][0].items() if key not in ("bands", "contact", "monotone")}
    told["targets"][0] |= change
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(told))
    with pytest.raises(ConfigError, match=said):
        read_settings(path)


def test_how_a_target_is_used_does_not_change_its_definition() -> None:
    settings = read_settings(CONFIGS / "template.yaml")
    assert not {"contact", "bands", "monotone"} & set(definition(settings.specs()[0]))
    assert settings.bands()["churn_28d"].capacity == 500
    assert settings.bands()["repeat_28d"] == Bands()


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"families": ["habits", "carts"]}, "families leaves out stage, which models, personas and plays read: add it"),
        ({"values": {"channel": ["in store", "in-store"]}}, "values.channel: 'in store' gives no feature name of its own"),
        ({"values": {"device": ["Favourite"]}}, "features.values: device_favourite_share_168d: there is one already"),
        ({"values": {"channel": ["-"]}}, "values.channel: '-' gives no feature name of its own"),
        ({"custom": [own("label")]}, r"features.custom.0 \(label\): the name is taken: choose another"),
        ({"custom": [own("churn_28d_score")]}, "the name is taken"),
        ({"custom": [own("as_of")]}, "the name is taken"),
    ],
)
def test_names_and_families_that_others_need_are_kept_free(tmp_path: Path, features: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings(shop_config(tmp_path, features=features))


@pytest.mark.parametrize("name", ["region", "journey_stage", "row", "source_name", "as_of"])
def test_an_attribute_may_not_take_a_name(tmp_path: Path, name: str) -> None:
    attributes = {"tables": {"m": "m.csv"}, "sql": f"select user_id, known_from, {name} from m", "columns": {name: "text"}}
    with pytest.raises(ConfigError, match=f"attributes.columns.{name}: the name is taken: choose another"):
        read_settings(shop_config(tmp_path, attributes=attributes))


def test_values_in_any_script_have_features_of_their_own(tmp_path: Path) -> None:
    settings = read_settings(shop_config(tmp_path, features={"values": {"channel": ["线上", "门店"]}}))
    assert {"channel_线上_recency_days", "channel_门店_recency_days"} <= set(settings.rule_columns())


def test_the_time_zone_of_the_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'localtime' is not a time zone"):
        read_settings(shop_config(tmp_path, time_zone="localtime"))


def test_every_column_of_a_backtest_is_kept_free() -> None:
    assert {*RUNGS, CHAMPION, DISJOINT, "label", "score", "drift"} <= WORKING


def test_who_has_lapsed_is_said_by_the_config_else_by_whom_the_first_absence_is_asked_of(tmp_path: Path) -> None:
    def target(kind: str, within: str) -> dict[str, object]:
        return {"name": f"{kind}_{within}", "kind": kind, "horizon": "28d", "eligible": {"active_within": within}}

    def lapsed_after(**told: object) -> timedelta:
        return read_settings(shop_config(tmp_path, segments=[], **told)).wanted().lapsed_after

    asked = [target("occurrence", "7d"), target("absence", "ever"), target("absence", "84d"), target("absence", "364d")]
    assert lapsed_after(targets=asked) == timedelta(days=84)
    assert lapsed_after(targets=asked[:2]) == timedelta(days=56)
    assert lapsed_after(targets=asked, features={"lapsed_after": "36h"}) == timedelta(hours=36)


def test_a_rule_over_an_event_type_that_no_family_knows_says_how_to_have_it_counted(tmp_path: Path) -> None:
    wrong = ["commit_count_364d >= 1", "purchase_count_29d >= 1"]
    _, other, near = problems(
        shop_config(tmp_path, segments=[{"name": f"s{at}", "purpose": "p", "enter": rule} for at, rule in enumerate(wrong)])
    )
    assert "did you mean" not in other and "features.events gives other event types such columns" in other
    assert near.endswith("did you mean purchase_count_28d?")
