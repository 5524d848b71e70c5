"""explain-change: every part held against a world that really was run."""

import datetime as dt
import json
import shutil
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from models.bundle import TargetBundle
from models.calibration import Calibrator
from pipeline.change import PARTS, Change, Turned
from pipeline.cli import app
from pipeline.recorded import settings_then
from pipeline.settings import read_settings
from pipeline.show_change import print_change
from pipeline.tables import nights, read
from pipeline.tracking import Tracker
from shops import shop_config, write_orders

FIRST, MIDDLE, LAST = dt.date(2024, 10, 1), dt.date(2024, 10, 5), dt.date(2024, 10, 15)
LEAVING = {
    "name": "leaving",
    "purpose": "keep them",
    "enter": "churn_28d_score >= 0.25",
    "leave": "churn_28d_score < 0.15",
    "min_stay": "7d",
}
TEA = {"name": "tea_next", "purpose": "offer tea", "enter": "tea_28d_percentile >= 80", "min_stay": "14d"}
RECENT = {"name": "recent", "purpose": "say thanks", "enter": "purchase_recency_days < 10"}
STRICTER = {**LEAVING, "enter": "churn_28d_score >= 0.5", "leave": "churn_28d_score < 0.3", "min_stay": "0d"}
LOYAL = {"name": "loyal", "purpose": "thank them", "enter": "purchase_count_168d >= 10"}
# Nobody is heard of for two weeks in the world in which nobody acts.
PATIENT = {"max_staleness": "28d"}
FEW = {"families": ["stage", "habits", "loyalty"], "windows": ["14d", "56d", "168d"]}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def config_of(folder: Path, output: str, **changes: object) -> Path:
    """Write a config with an output of its own; `changes` replace top-level keys."""
    told = yaml.safe_load(shop_config(folder, segments=[LEAVING, TEA, RECENT], contract=PATIENT, features=FEW).read_text())
    path = folder / f"{output}.yaml"
    path.write_text(yaml.safe_dump({**told, "output": str(folder / output), **changes}, sort_keys=False))
    return path


def scored(config: Path, *days: dt.date) -> Path:
    for day in days:
        done = run("score", "--config", config, "--as-of", day)
        assert done.exit_code == 0, done.output
    return config


def copied(folder: Path, output: str, *, of: str, **changes: object) -> Path:
    shutil.copytree(folder / of, folder / output)
    return config_of(folder, output, **changes)


# Nights of a config are asked about by several tests.
@cache
def explained(config: Path, segment: str) -> dict[str, Any]:
    done = run("explain-change", "--config", config, "--segment", segment, "--from", FIRST, "--to", LAST, "--json")
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    assert list(told["parts"]) == list(PARTS)
    assert sum(told["parts"].values()) == told["change"] == told["members_after"] - told["members_before"]
    assert (told["members_before"], told["members_after"]) == tuple(len(members(config, day, segment)) for day in (FIRST, LAST))
    return told


def members(config: Path, day: dt.date, segment: str) -> set[str]:
    rows = read(read_settings(config).output, "segments", day, columns={"user_id", "segments"}).to_pylist()
    return {row["user_id"] for row in rows if segment in row["segments"]}


def known(config: Path, day: dt.date) -> set[str]:
    return set(read(read_settings(config).output, "segments", day, columns={"user_id"})["user_id"].to_pylist())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with champions and the first night in `trained`, and two nights in `begun`. Five users are new after the first."""
    folder = tmp_path_factory.mktemp("shop")
    orders = write_orders(folder / "orders.csv", users=150)
    new = [(f"new{at}", f"2024-10-{at + 4:02} 09:00:00", f"n{at}", 20.0, "tea") for at in range(5)]
    pd.concat([orders, pd.DataFrame(new, columns=orders.columns)]).to_csv(folder / "orders.csv", index=False)
    config = config_of(folder, "trained")
    done = run("train", "--config", config, "--as-of", FIRST)
    assert done.exit_code == 0, done.output
    scored(config, FIRST)
    scored(copied(folder, "begun", of="trained"), MIDDLE)
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """Three nights between which nothing changed but time and what users did; gives the path of the config."""
    return scored(copied(folder, "plain", of="begun"), LAST)


@pytest.fixture(scope="module")
def promoted(folder: Path) -> Path:
    """Another churn model, which says more of everybody, is in charge of the last night."""
    config = copied(folder, "promoted", of="begun")
    tracker = Tracker(read_settings(config))
    bundle = tracker.in_charge(["churn_28d"])["churn_28d"].bundle
    assert isinstance(bundle, TargetBundle)
    with tracker.run("by hand", tags={}):
        calibrator = Calibrator("platt", slope=0.9, intercept=0.7)
        version = tracker.register("churn_28d", replace(bundle, calibrator=calibrator), {"score": "double"})
    tracker.promote({"churn_28d": version}, reason="a test")
    return scored(config, LAST)


@pytest.fixture(scope="module")
def elsewhere(folder: Path) -> Path:
    """The last night reads other events, and one user is left out."""
    begun = config_of(folder, "begun")
    sources = yaml.safe_load(begun.read_text())["sources"]
    sources[0]["sql"] += f" where total > 25 and customer <> '{min(members(begun, FIRST, 'recent'))}'"
    return scored(copied(folder, "elsewhere", of="begun", sources=sources), LAST)


@pytest.mark.parametrize("segment", ["leaving", "tea_next", "recent"])
def test_without_other_models_and_rules_these_change_nothing(plain: Path, segment: str) -> None:
    told = explained(plain, segment)
    assert (told["parts"]["models"], told["parts"]["rules or config"]) == (0, 0)
    assert (told["nights"], told["changed"]) == (2, [])


def test_time_passing_is_what_nights_without_new_events_say(folder: Path, plain: Path) -> None:
    """The same nights are run on the events of before the first: nobody acts, and the parts that follow are nothing."""
    orders = pd.read_csv(folder / "orders.csv")
    config = copied(folder, "idle", of="trained")
    try:
        orders[orders.ordered_at < str(FIRST)].to_csv(folder / "orders.csv", index=False)
        scored(config, MIDDLE, LAST)
    finally:
        orders.to_csv(folder / "orders.csv", index=False)
    sizes = {segment: len(members(config, LAST, segment)) for segment in ("leaving", "tea_next", "recent")}
    told = {segment: explained(plain, segment) for segment in sizes}
    assert {segment: one["members_before"] + one["parts"]["time passing"] for segment, one in told.items()} == sizes
    # And that is another size than before, and than with behaviour.
    assert told["leaving"]["parts"]["time passing"] and told["leaving"]["parts"]["new behaviour"]
    assert told["recent"]["parts"]["time passing"] == -told["recent"]["members_before"]


def test_who_is_new_is_counted_apart(plain: Path) -> None:
    told = explained(plain, "recent")
    assert told["parts"]["new users"] == len(members(plain, LAST, "recent") - known(plain, FIRST)) == 4
    assert told["parts"]["new behaviour"] == len(members(plain, LAST, "recent") & known(plain, FIRST))


def test_another_rule_of_the_last_night_is_all_in_its_part(folder: Path, plain: Path) -> None:
    """The other parts are those of the nights with the old rule, and what is left is how far the two last nights are apart."""
    config = scored(copied(folder, "ruled", of="begun", segments=[STRICTER, TEA, LOYAL]), LAST)
    told, without = explained(config, "leaving"), explained(plain, "leaving")
    new = known(plain, LAST) - known(plain, FIRST)
    apart = len(members(config, LAST, "leaving") - new) - len(members(plain, LAST, "leaving") - new)
    assert apart < 0
    assert told["parts"] == without["parts"] | {"rules or config": apart, "new users": told["parts"]["new users"]}
    assert told["changed"] == [
        {"night": str(LAST), "what": f"segments.leaving.{key}", "from": LEAVING[key], "to": STRICTER[key]}
        for key in ("enter", "leave", "min_stay")
    ]
    # A segment that only the later config has, and one that only the earlier has, owe all but users to it.
    loyal, recent = explained(config, "loyal"), explained(config, "recent")
    assert loyal["parts"] == dict.fromkeys(PARTS, 0) | {"rules or config": loyal["members_after"]}
    assert loyal["members_after"] > 0
    assert loyal["changed"] == [
        {"night": str(LAST), "what": f"segments.loyal.{key}", "from": None, "to": value}
        for key, value in {"enter": LOYAL["enter"], "min_stay": "0d"}.items()
    ]
    kept = {name: explained(plain, "recent")["parts"][name] for name in ("time passing", "new behaviour", "models")}
    assert {name: recent["parts"][name] for name in kept} == kept
    assert recent["parts"]["rules or config"] == -sum(kept.values()) - recent["members_before"]


def test_another_model_is_all_in_its_part(plain: Path, promoted: Path) -> None:
    told, without = explained(promoted, "leaving"), explained(plain, "leaving")
    new = known(plain, LAST) - known(plain, FIRST)
    apart = len(members(promoted, LAST, "leaving") - new) - len(members(plain, LAST, "leaving") - new)
    assert apart > 0
    assert told["parts"] == without["parts"] | {"models": apart, "new users": told["parts"]["new users"]}
    assert told["changed"] == [{"night": str(LAST), "what": "models.churn_28d", "from": "1", "to": "2"}]
    # Segments that do not read its score stay as they were.
    for segment in ("tea_next", "recent"):
        assert explained(promoted, segment)["parts"] == explained(plain, segment)["parts"]


def test_another_model_and_another_rule_are_told_apart(folder: Path, plain: Path, promoted: Path) -> None:
    config = scored(copied(folder, "both", of="promoted", segments=[STRICTER, TEA, RECENT]), LAST)
    told, ruled_as_before = explained(config, "leaving"), explained(promoted, "leaving")
    new = known(plain, LAST) - known(plain, FIRST)
    apart = len(members(config, LAST, "leaving") - new) - len(members(promoted, LAST, "leaving") - new)
    assert apart < 0
    assert told["parts"] == ruled_as_before["parts"] | {"rules or config": apart, "new users": told["parts"]["new users"]}


@pytest.mark.parametrize("segment", ["leaving", "recent"])
def test_other_events_are_config(plain: Path, elsewhere: Path, segment: str) -> None:
    """What the last night recorded is not what the first one would have seen: it is built from the events of then's config."""
    told = explained(elsewhere, segment)
    gone = known(plain, FIRST) - known(elsewhere, LAST)
    assert gone and min(members(plain, FIRST, "recent")) in gone
    assert told["parts"]["gone users"] == -len(members(plain, FIRST, segment) & gone)
    assert told["parts"]["models"] == 0
    kept = members(plain, LAST, segment) & known(plain, FIRST) - gone
    began = members(plain, FIRST, segment) - gone
    assert told["parts"]["time passing"] + told["parts"]["new behaviour"] == len(kept) - len(began)
    after = members(elsewhere, LAST, segment) & known(plain, FIRST)
    assert told["parts"]["rules or config"] == len(after) - len(kept) != 0
    assert {one["what"] for one in told["changed"]} == {"sources.orders.sql"}


def test_a_target_that_is_asked_no_more_is_config(folder: Path, plain: Path) -> None:
    """What the last night did not ask is asked of its users by the models of the first."""
    targets = yaml.safe_load(plain.read_text())["targets"]
    kept = [target for target in targets if target["name"] != "tea_28d"]
    config = scored(copied(folder, "untold", of="begun", targets=kept, segments=[LEAVING, RECENT]), LAST)
    told, without = explained(config, "tea_next")["parts"], explained(plain, "tea_next")["parts"]
    others = {name: number for name, number in without.items() if name != "new users"}
    began = len(members(plain, FIRST, "tea_next"))
    assert told == others | {"new users": 0, "rules or config": -began - sum(others.values())}
    turned = {one["what"] for one in explained(config, "tea_next")["changed"]}
    assert turned >= {"models.tea_28d", "targets.tea_28d.kind", "segments.tea_next.enter"}


def test_a_person_reads_every_part_and_what_turned() -> None:
    parts = dict(zip(PARTS, (4, -1, 1200, -30, 0, 2), strict=True))
    turned = Turned(LAST, "models.churn_28d", "1", "2"), Turned(LAST, "segments.leaving.enter", None, "a >= 1")
    console = Console(file=StringIO(), width=100)
    print_change(Change("leaving", FIRST, LAST, 40, 1215, parts, 2, turned), console)
    assert isinstance(console.file, StringIO)
    told = [line.strip() for line in console.file.getvalue().splitlines() if line.strip(" ─\n")]
    assert told == [
        "leaving: why its size changed from 2024-10-01 to 2024-10-15",
        "part                    members   what it is",
        "members on 2024-10-01        40",
        "new users                  +4   first seen since, and members at the end",
        "gone users                 -1   members at the beginning, no longer known",
        "time passing           +1,200   as if nobody had acted since: recency grows, windows move on",
        "new behaviour             -30   what users did, seen by the models and rules of the first night",
        "models                      0   models and personas put in charge since",
        "rules or config            +2   rules, stays, tiers and targets changed since",
        "members on 2024-10-15     1,215   1,175 more than on 2024-10-01",
        "2 nights lived through again. Each part is what changes when it alone is added to those above it.",
        "What turned on the way:",
        "2024-10-15  models.churn_28d: 1 became 2",
        "2024-10-15  segments.leaving.enter: nothing became a >= 1",
    ]


@pytest.mark.parametrize(
    ("segment", "first", "last", "code", "message"),
    [
        ("leaving", LAST, FIRST, 2, f"--from {LAST} is not before --to {FIRST}: name an earlier and a later night"),
        ("leaving", FIRST, FIRST, 2, f"--from {FIRST} is not before --to {FIRST}"),
        ("leaving", FIRST, "2024-10-16", 3, f"there is no night of 2024-10-16: there are {LAST}, {MIDDLE}, {FIRST}"),
        ("leaving", "2024-09-30", LAST, 3, "there is no night of 2024-09-30"),
        ("leaving", FIRST, "tuesday", 2, "--to 'tuesday' is not a date: write YYYY-MM-DD"),
        ("leavin", FIRST, LAST, 2, "--segment 'leavin' is no segment of these nights: did you mean leaving?"),
        ("zzz", FIRST, LAST, 2, "--segment 'zzz' is no segment of these nights: known: leaving, recent, tea_next"),
    ],
)
def test_what_cannot_be_asked(plain: Path, segment: str, first: object, last: object, code: int, message: str) -> None:
    refused = run("explain-change", "--config", plain, "--segment", segment, "--from", first, "--to", last)
    assert refused.exit_code == code
    assert message in refused.stderr
    assert refused.stdout == ""


def test_what_models_are_tested_by_now_need_not_have_been_built_then(folder: Path, plain: Path) -> None:
    config = read_settings(plain)
    (night,) = (row for row in nights(config.output) if row["as_of"] == FIRST)
    more = {"windows": [*FEW["windows"], "21d"]}
    now = read_settings(config_of(folder, "sliced", features={**FEW, **more}, training={"slices": ["purchase_count_21d"]}))
    assert settings_then(night, now).features == config.features


def test_models_of_then_that_are_gone(folder: Path, promoted: Path) -> None:
    config = copied(folder, "lost", of="promoted")
    asked = ("explain-change", "--config", config, "--segment", "leaving", "--from", FIRST, "--to", LAST)
    tracker = Tracker(read_settings(config))
    tracker.open().delete_model_version("tea_shop.churn_28d", "1")
    refused = run(*asked)
    assert refused.exit_code == 1
    assert "version 1 of tea_shop.churn_28d cannot be read" in refused.stderr
    assert "put its files back, or start from a night whose models are all there" in refused.stderr
    shutil.rmtree(folder / "lost" / "mlflow")
    refused = run(*asked)
    assert refused.exit_code == 1
    assert f"there is no model registry at {tracker.uri}: the night of {FIRST} cannot be scored again" in refused.stderr
    assert not (folder / "lost" / "mlflow").exists()


def test_no_night_yet(tmp_path: Path) -> None:
    write_orders(tmp_path / "orders.csv", users=3)
    refused = run("explain-change", "--config", shop_config(tmp_path), "--segment", "leaving", "--from", FIRST, "--to", LAST)
    assert refused.exit_code == 3
    assert "no night has been written yet" in refused.stderr
