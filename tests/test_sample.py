"""Of a large log models learn from a sample of its users: who is in it, what is known of them, and where it is told."""

import json
from dataclasses import replace
from datetime import date
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import yaml
from ibis.backends.sql import SQLBackend
from rich.console import Console
from typer.testing import CliRunner

from builders import events, load_events
from features.declare import reads
from features.snapshot import KEYS
from pipeline.backtest import contact_of
from pipeline.cli import app
from pipeline.events import midnight, read_events
from pipeline.past import Past, gather
from pipeline.progress import Narrator
from pipeline.questions import training_cutoffs
from pipeline.sample import sample_of
from pipeline.settings import Settings, read_settings
from shops import shop_config, write_orders

AS_OF = date(2024, 10, 20)
TRAINING = {"test_origins": 2, "calibration_origins": 2, "max_cutoffs": 8}
CONTACT = {"capacity": 40, "value": 10.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of 400 customers, of whom 8 cutoffs and the night make some 2,700 rows."""
    found = tmp_path_factory.mktemp("shop")
    write_orders(found / "orders.csv", users=400)
    members = pd.DataFrame({"customer": [f"u{user}" for user in range(400)], "since": "2024-01-01", "visits": range(400)})
    members.to_csv(found / "members.csv", index=False)
    return found


def settings_of(folder: Path, **training: object) -> Settings:
    config = yaml.safe_load(shop_config(folder).read_text())
    config["targets"][0]["contact"] = CONTACT
    sql = "select customer as user_id, cast(since as timestamp) as known_from, visits from m"
    config["attributes"] = {"tables": {"m": str(folder / "members.csv")}, "sql": sql, "columns": {"visits": "number"}}
    path = folder / "sampled.yaml"
    path.write_text(yaml.safe_dump({**config, "segments": [], "training": {**TRAINING, **training}}))
    return read_settings(path)


def gathered(folder: Path, **training: object) -> tuple[Past, str]:
    said = StringIO()
    return gather(settings_of(folder, **training), AS_OF, Narrator(Console(file=said, width=200))), said.getvalue()


@pytest.fixture(scope="module")
def whole(folder: Path) -> Past:
    return gathered(folder)[0]


@pytest.fixture(scope="module")
def sampled(folder: Path) -> tuple[Past, str]:
    return gathered(folder, most_rows=1_000)


def users_of(past: Past) -> set[str]:
    return set(past.log.events.user_id.execute())


def test_all_rows_of_its_users_are_about_as_many_as_may_be(whole: Past, sampled: tuple[Past, str]) -> None:
    past, _said = sampled
    assert past.log.sampled == len(users_of(past))
    assert 0 < past.log.sampled < past.log.users == whole.log.users
    # A hundred users more or less are what chance makes of four hundred.
    assert len(past.features) == pytest.approx(1_000, rel=0.2) and len(whole.features) > 2_000
    for name, told in whole.labels.items():
        own = told[told.user_id.isin(users_of(past))].reset_index(drop=True)
        pd.testing.assert_frame_equal(past.labels[name].reset_index(drop=True), own)


def test_what_is_known_of_a_user_is_the_same_but_where_it_is_set_against_others(whole: Past, sampled: tuple[Past, str]) -> None:
    past, _said = sampled
    apart = {feature.name for feature in past.log.features.built if feature.base == "population"}
    read = reads(past.log.features)
    names = [name for name in past.names if not ({name} | read.get(name, frozenset())) & apart]
    assert {"purchase_recency_days", "visits"} < set(names) < set(past.names)
    own = whole.features[whole.features.user_id.isin(users_of(past))]
    found, expected = (frame.set_index(KEYS)[names].sort_index() for frame in (past.features, own))
    pd.testing.assert_frame_equal(found, expected)


def test_a_place_among_a_sample_is_about_that_among_all(whole: Past, sampled: tuple[Past, str]) -> None:
    past, _said = sampled
    name = "purchase_count_percentile_168d"
    both = past.features[[*KEYS, name]].merge(whole.features[[*KEYS, name]], on=KEYS, suffixes=("", "_of_all")).dropna()
    off = (both[name] - both[f"{name}_of_all"]).abs()
    assert len(both) > 500 and 0 < off.mean() < 5


def test_the_sample_is_told(sampled: tuple[Past, str]) -> None:
    past, said = sampled
    assert f"{past.log.sampled} of {past.log.users} users" in said and "(training.most_rows)" in said


def test_a_small_log_is_left_alone(folder: Path, whole: Past) -> None:
    assert whole.log.sampled is None and whole.log.share == 1.0
    # With fewer than everybody at every cutoff would make, a look is taken; those whom targets ask about are fewer still.
    past, said = gathered(folder, most_rows=len(whole.features) + 100)
    assert f"not needed: {whole.log.users} users have about" in said
    assert past.log.sampled is None and len(past.features) == len(whole.features)


def sample(folder: Path, **training: object) -> set[str]:
    settings, narrator = settings_of(folder, **training), Narrator(Console(file=StringIO()))
    log = read_events(settings, AS_OF, narrator)
    return set(sample_of(log, training_cutoffs(log, settings, settings.specs()), settings, narrator).events.user_id.execute())


def test_a_smaller_sample_is_part_of_a_larger_one_and_another_seed_draws_another(folder: Path, sampled: tuple[Past, str]) -> None:
    larger = sample(folder, most_rows=1_500)
    assert users_of(sampled[0]) < larger
    assert sample(folder, most_rows=1_500) == larger
    other = sample(folder, most_rows=1_500, seed=8)
    assert other != larger and len(other) == pytest.approx(len(larger), rel=0.3)


def test_both_engines_draw_the_same(engine: SQLBackend, folder: Path, sampled: tuple[Past, str]) -> None:
    settings = settings_of(folder, most_rows=1_000)
    log = sampled[0].log
    orders = pd.read_csv(folder / "orders.csv", parse_dates=["ordered_at"])
    told = [
        {"user_id": row.customer, "event_ts": row.ordered_at, "amount": row.total, "category": row.department}
        for row in orders.itertuples()
    ]
    loaded = load_events(engine, events(*told), as_of=midnight(AS_OF))
    here = replace(log, engine=engine, events=loaded, attributes=None, sampled=None)
    cutoffs = training_cutoffs(here, settings, settings.specs())
    drawn = sample_of(here, cutoffs, settings, Narrator(Console(file=StringIO())))
    assert set(engine.execute(drawn.events.user_id)) == users_of(sampled[0])


def test_of_fewer_users_fewer_can_be_contacted(folder: Path, sampled: tuple[Past, str]) -> None:
    past, _said = sampled
    target = past.targets[0]
    told = contact_of(past.settings, target, share=past.log.share)
    assert told is not None and told.capacity == round(40 * len(users_of(past)) / past.log.users) and told.value == 10.0
    fewest, none = contact_of(past.settings, target, share=0.001), contact_of(past.settings, past.targets[1], share=1.0)
    assert fewest is not None and fewest.capacity == 1 and none is None


def test_validate_tells_of_whom_a_training_would_learn(folder: Path, sampled: tuple[Past, str]) -> None:
    past, _said = sampled
    settings_of(folder, most_rows=1_000)
    words = ["validate", "--config", str(folder / "sampled.yaml"), "--as-of", str(AS_OF)]
    done = CliRunner().invoke(app, [*words, "--json"])
    told = json.loads(done.stdout)
    assert told["users"] == past.log.users and told["sampled_users"] == past.log.sampled
    assert told["targets"]["churn_28d"]["labels"] == len(past.labels["churn_28d"])
    # Tonight everybody is asked.
    assert told["targets"]["churn_28d"]["asked_tonight"] > len(past.asked_tonight(past.targets[0]))
    assert f"a sample of {past.log.sampled} users" in CliRunner().invoke(app, words).stdout
