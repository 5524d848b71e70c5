"""Who is in charge: champions, challengers, the way back, and a registry that does not do what it is asked."""

import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from features.errors import BeforehandError, ConfigError, GateError, StoreError
from models.bundle import PersonaBundle, TargetBundle
from models.calibration import Calibrator
from models.ladder import Constant, Recipe
from models.persona_choice import Tried
from models.persona_traits import Trait
from models.personas import Personas
from pipeline.cli import app
from pipeline.persona_page import PERSONA_OUTPUTS
from pipeline.registry import Change
from pipeline.settings import Settings, read_settings
from pipeline.tracking import Tracker
from shops import shop_config


def fitted(name: str = "frequent") -> PersonaBundle:
    trait = Trait("often", "frequent", "rare", is_logged=False, fill=0.0, centre=0.0, spread=1.0)
    return PersonaBundle(
        Personas(
            traits=(trait,),
            ids=(0, 1),
            centroids=((1.0,), (-1.0,)),
            names=(name, "rare"),
            descriptions=("comes often", "comes rarely"),
            shares=(0.6, 0.4),
            quantiles=((0.0, 0.5, 1.0), (0.0, 0.5, 1.0)),
            tried=(Tried(2, 0.5, 0.9, 0.95, 0.4),),
            why="best silhouette",
            next_id=2,
        )
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return read_settings(shop_config(tmp_path_factory.mktemp("registry")))


@pytest.fixture
def tracker(shop: Settings, request: pytest.FixtureRequest) -> Tracker:
    """An experiment of its own for each test, in one store: making a store takes seconds."""
    return Tracker(shop.model_copy(update={"name": request.node.originalname}))


def registered(tracker: Tracker, *models: str) -> dict[str, str]:
    with tracker.run("train", tags={}):
        return {model: tracker.register(model, fitted(model), PERSONA_OUTPUTS) for model in models}


def tags(tracker: Tracker, model: str, version: str) -> dict[str, str]:
    return dict(MlflowClient(tracker.uri).get_model_version(tracker.registered(model), version).tags)


def in_charge(tracker: Tracker, *models: str) -> dict[str, str]:
    return {model: champion.version for model, champion in tracker.in_charge(models).items()}


def waiting(tracker: Tracker, *models: str) -> dict[str, str]:
    return {model: challenger.version for model, challenger in tracker.challengers(models).items()}


def test_a_registered_version_is_a_challenger_until_it_is_promoted(tracker: Tracker) -> None:
    assert waiting(tracker, "churn", "tea") == {}
    registered(tracker, "churn", "tea")
    assert waiting(tracker, "churn", "tea") == {"churn": "1", "tea": "1"}
    assert in_charge(tracker, "churn", "tea") == {}
    changed = tracker.promote({"churn": "1", "tea": "1"}, reason="better by far")
    assert changed == {"churn": Change("churn", "1", None), "tea": Change("tea", "1", None)}
    assert (in_charge(tracker, "churn", "tea"), waiting(tracker, "churn", "tea")) == ({"churn": "1", "tea": "1"}, {})
    assert tracker.in_charge(["tea"])["tea"].bundle == fitted("tea")
    assert tags(tracker, "churn", "1") == {"promoted_because": "better by far"}


def test_the_newest_challenger_waits_beside_the_champion(tracker: Tracker) -> None:
    registered(tracker, "churn")
    tracker.promote({"churn": "1"}, reason="first")
    registered(tracker, "churn")
    registered(tracker, "churn")
    assert (in_charge(tracker, "churn"), waiting(tracker, "churn")) == ({"churn": "1"}, {"churn": "3"})
    assert tracker.promote({"churn": "2"}, reason="by hand") == {"churn": Change("churn", "2", "1")}
    assert (in_charge(tracker, "churn"), waiting(tracker, "churn")) == ({"churn": "2"}, {"churn": "3"})
    assert tags(tracker, "churn", "2") == {"promoted_because": "by hand", "replaces": "1"}
    # As somebody may in MLflow's pages.
    MlflowClient(tracker.uri).set_registered_model_alias(tracker.registered("churn"), "champion", "3")
    assert (in_charge(tracker, "churn"), waiting(tracker, "churn")) == ({"churn": "3"}, {})


def test_rolling_back_goes_the_way_of_the_promotions(tracker: Tracker) -> None:
    for _ in range(3):
        tracker.promote(registered(tracker, "churn"), reason="better")
    assert tracker.rollback("churn", reason="odd scores") == Change("churn", "2", "3")
    assert (in_charge(tracker, "churn"), waiting(tracker, "churn")) == ({"churn": "2"}, {})
    assert tags(tracker, "churn", "3") == {"promoted_because": "better", "replaces": "2", "rolled_back_because": "odd scores"}
    assert tracker.rollback("churn", reason="still odd") == Change("churn", "1", "2")
    with pytest.raises(GateError, match=r"churn, version 1, replaced no other: choose one of 3, 2, 1 with `beforehand promote"):
        tracker.rollback("churn", reason="once more")
    assert in_charge(tracker, "churn") == {"churn": "1"}


def test_promoting_the_champion_again_keeps_the_way_back(tracker: Tracker) -> None:
    for _ in range(2):
        tracker.promote(registered(tracker, "churn"), reason="better")
    assert tracker.promote({"churn": "2"}, reason="sure") == {"churn": Change("churn", "2", "2")}
    assert tags(tracker, "churn", "2") == {"promoted_because": "sure", "replaces": "1"}


def test_the_version_to_go_back_to_is_gone(tracker: Tracker) -> None:
    for _ in range(2):
        tracker.promote(registered(tracker, "churn"), reason="better")
    MlflowClient(tracker.uri).delete_model_version(tracker.registered("churn"), "1")
    with pytest.raises(GateError, match=r"version 2, replaced version 1, which is gone: choose one of 2 with"):
        tracker.rollback("churn", reason="odd")


def test_nothing_to_roll_back(tracker: Tracker) -> None:
    with pytest.raises(GateError, match=r"churn has no champion that could be rolled back: run `beforehand train` first"):
        tracker.rollback("churn", reason="odd")


def test_a_version_that_is_not_there_moves_no_champion(tracker: Tracker) -> None:
    registered(tracker, "churn", "tea")
    registered(tracker, "churn")
    with pytest.raises(ConfigError, match=r"\.tea has no version 2: there are 1$"):
        tracker.promote({"churn": "2", "tea": "2"}, reason="both")
    with pytest.raises(ConfigError, match=r"\.coffee has no version 1: it has none at all"):
        tracker.promote({"coffee": "1"}, reason="none")
    assert in_charge(tracker, "churn") == {}
    assert tags(tracker, "churn", "2") == {}


def damage(tracker: Tracker, model: str, version: str) -> None:
    client = MlflowClient(tracker.uri)
    source = client.get_model_version_download_uri(tracker.registered(model), version)
    (Path(source.removeprefix("file://")) / "data" / "bundle" / "bundle.json").write_text("{")


def test_a_version_that_cannot_be_read_is_not_put_in_charge(tracker: Tracker) -> None:
    tracker.promote(registered(tracker, "churn"), reason="first")
    registered(tracker, "churn")
    damage(tracker, "churn", "2")
    with pytest.raises(StoreError, match="damaged"):
        tracker.promote({"churn": "2"}, reason="newest")
    assert in_charge(tracker, "churn") == {"churn": "1"}


def test_a_champion_is_not_left_for_one_that_cannot_be_read(tracker: Tracker) -> None:
    for _ in range(2):
        tracker.promote(registered(tracker, "churn"), reason="better")
    damage(tracker, "churn", "1")
    with pytest.raises(StoreError, match="damaged"):
        tracker.rollback("churn", reason="odd")
    assert in_charge(tracker, "churn") == {"churn": "2"}


def test_cards_and_descriptions_are_kept(tracker: Tracker) -> None:
    with tracker.run("train", tags={}) as run_id:
        tracker.register("churn", fitted(), PERSONA_OUTPUTS)
        tracker.log_text("model_card.md", "# churn")
    client = MlflowClient(tracker.uri)
    assert Path(client.download_artifacts(run_id, "model_card.md")).read_text() == "# churn"
    lines = [f"line {number}" for number in range(1_000)]
    for text in ("short", "\n".join(lines)):
        tracker.describe("churn", "1", text)
        said = client.get_model_version(tracker.registered("churn"), "1").description
        if text == "short":
            assert said == text
    kept, more = said.split("\n\n")
    assert (more, kept.split("\n")) == ("… the rest is in the artifacts of its run.", lines[: len(kept.split("\n"))])
    assert 4_900 < len(said) <= 5_000


def test_a_run_whose_body_fails_has_failed(tracker: Tracker) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        tracker.run("train", tags={}) as outer,
        tracker.run("churn", tags={}, nested=True) as run_id,
    ):
        _ = 1 / 0
    client = MlflowClient(tracker.uri)
    assert [client.get_run(found).info.status for found in (outer, run_id)] == ["FAILED", "FAILED"]


WRITES: dict[str, Callable[[Tracker], object]] = {
    "open the run": lambda tracker: registered(tracker, "churn"),
    "log parameters": lambda tracker: tracker.log("0" * 32, params={"a": 1}, metrics={}),
    "move the champions": lambda tracker: tracker.promote({"churn": "1"}, reason="better"),
    "move the champion": lambda tracker: tracker.rollback("churn", reason="odd"),
    "describe version 1": lambda tracker: tracker.describe("churn", "1", "text"),
}


@pytest.fixture(scope="module")
def locked(shop: Settings) -> Tracker:
    """A store with two champions in a row, opened so that nothing can be written."""
    settings = shop.model_copy(update={"name": "read_only"})
    there = Tracker(settings)
    for _ in range(2):
        there.promote(registered(there, "churn"), reason="better")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///file:{there.uri.removeprefix('sqlite:///')}?mode=ro&uri=true")
        return Tracker(settings)


@pytest.fixture
def read_only(locked: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    """The same, used from a folder of its own: MLflow makes the folders of a file that it takes for one called "file:…" there."""
    monkeypatch.chdir(tmp_path)
    return locked


@pytest.mark.parametrize("asked", WRITES)
def test_a_registry_that_is_read_only(read_only: Tracker, asked: str) -> None:
    with pytest.raises(
        StoreError, match=rf"the MLflow store sqlite:///file:.* did not {asked}.*: .*Check that it is up and may be"
    ):
        WRITES[asked](read_only)


def test_a_registry_that_is_read_only_still_gives_its_champions(read_only: Tracker) -> None:
    assert in_charge(read_only, "churn") == {"churn": "2"}


@pytest.mark.parametrize("uri", ["sqlite:////dev/null/all.db", "http://me:secret@127.0.0.1:9"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda tracker: tracker.in_charge(["churn"]),
        lambda tracker: tracker.challengers(["churn"]),
        lambda tracker: tracker.rollback("churn", reason="odd"),
        lambda tracker: tracker.trained_until(["churn"]),
    ],
)
def test_a_registry_that_is_down(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, uri: str, ask: Callable[[Tracker], object]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BeforehandError, match=r"the MLflow store .* does not answer: .*check MLFLOW_TRACKING_URI") as raised:
        ask(Tracker(shop))
    assert isinstance(raised.value, StoreError) and "secret" not in str(raised.value)


def test_a_server_that_is_down_is_not_asked_for_minutes(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(Tracker(shop).in_charge, ["churn"])
            while not answer.done():
                with suppress(TimeoutError):
                    server.accept()[0].close()
                    asked += 1
    assert isinstance(answer.exception(), StoreError)
    assert asked == 3
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def guess(until: str) -> TargetBundle:
    """The simplest rung there is: it reads no feature at all."""
    return TargetBundle("churn", {"horizon": "28d"}, Recipe("base_rate", ()), until, Calibrator(), Constant(0.25))


def test_the_age_of_the_models_is_that_of_the_newest_training_refused_or_not(tracker: Tracker) -> None:
    assert tracker.trained_until(["churn"]) is None
    for day in ("2024-01-01", "2024-02-01"):
        with tracker.run("train", tags={}):
            for model in ("churn", "tea"):
                tracker.register(model, guess(day), {"score": "double"})
    tracker.promote({"churn": "1"}, reason="first")
    assert tracker.trained_until(["churn", "tea"]) == "2024-02-01"
    registered(tracker, "churn")  # as an earlier release did: without a date
    assert tracker.trained_until(["churn", "tea"]) == "2024-02-01"
    assert tracker.trained_until(["churn", "coffee"]) is None


def test_a_model_that_reads_nothing_is_registered_and_answers_any_row(tracker: Tracker) -> None:
    with tracker.run("train", tags={}):
        tracker.register("churn", guess("2024-01-01"), {"score": "double"})
    tracker.promote({"churn": "1"}, reason="first")
    assert tracker.in_charge(["churn"])["churn"].bundle == guess("2024-01-01")
    served = mlflow.pyfunc.load_model(f"models:/{tracker.registered('churn')}@champion")
    pd.testing.assert_frame_equal(served.predict(pd.DataFrame({"any": [1.0, 2.0]})), pd.DataFrame({"score": [0.25, 0.25]}))


def run(shop: Settings, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*words, "--config", str(shop.output.parent / "shop.yaml")])
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def test_promoting_and_rolling_back_by_hand(shop: Settings) -> None:
    tracker = Tracker(shop)
    for _ in range(2):
        registered(tracker, "tea_28d", "personas")
    promote = ("promote", "--model", "tea_28d", "--reason", "as good", "--version")
    assert run(shop, *promote, "1") == (0, "tea_28d: version 1 is in charge (as good)\n", "")
    assert run(shop, *promote, "2") == (0, "tea_28d: version 2 is in charge instead of version 1 (as good)\n", "")
    code, out, _ = run(shop, "rollback", "--model", "tea_28d", "--reason", "odd scores", "--json")
    assert (code, json.loads(out)) == (0, {"model": "tea_28d", "champion": "1", "former": "2", "reason": "odd scores"})
    assert in_charge(tracker, "tea_28d") == {"tea_28d": "1"}
    code, out, said = run(shop, "rollback", "--model", "tea_28d", "--reason", "more")
    assert (code, out) == (4, "") and "tea_shop.tea_28d, version 1, replaced no other: choose one of 2, 1 with" in said
    assert run(shop, "promote", "--model", "personas", "--version", "1", "--reason", "clear")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--model", "tea", "--version", "1", "--reason", "x"],
            "--model 'tea' is not a target of the config, nor personas: did you mean",
        ),
        (["--model", "tea_28d", "--version", "9", "--reason", "x"], "tea_shop.tea_28d has no version 9: there are"),
        (["--model", "tea_28d", "--version", "1", "--reason", " "], "--reason is blank"),
        (["--model", "tea_28d", "--version", "0", "--reason", "x"], "should be greater than or equal to 1"),
        (["--model", "tea_28d", "--version", "1"], "Missing option '--reason'"),
    ],
)
def test_promoting_what_cannot_be_meant(shop: Settings, words: list[str], said: str) -> None:
    registered(Tracker(shop), "tea_28d")
    code, out, message = run(shop, "promote", *words)
    assert (code, out) == (2, "") and said in message


def test_a_name_that_is_no_model_cannot_be_rolled_back(shop: Settings) -> None:
    code, out, said = run(shop, "rollback", "--model", "persona", "--reason", "odd")
    assert (code, out) == (2, "") and "did you mean personas?" in said
