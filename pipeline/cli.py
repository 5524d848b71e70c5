"""The command line: `beforehand` and its commands, each with `--config` and, where a date matters, `--as-of`."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from features.errors import ConfigError, GateError, did_you_mean, listed
from pipeline.progress import Narrator
from pipeline.settings import PERSONAS, Settings, read_settings
from pipeline.terminal import terminal, told_errors, typed_date

if TYPE_CHECKING:
    from pipeline.registry import Change
    from pipeline.train import Training

app = typer.Typer(
    help="Read what people did; say what each will do next, and what to do about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The YAML config.")]
AsOf = Annotated[str | None, typer.Option("--as-of", metavar="DATE", help="The night's date, YYYY-MM-DD; today (UTC) by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Model = Annotated[str, typer.Option("--model", help="A target, or personas.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, in a few words; it is kept with the version.")]
DEFAULT_CONFIG = Path("configs/complete_journey.yaml")

# MLflow, LightGBM and SHAP take seconds to import, so each command imports what it needs when it runs.


@app.command()
def train(
    config: ConfigPath = DEFAULT_CONFIG,
    as_of: AsOf = None,
    tune: Annotated[
        int, typer.Option("--tune", min=0, help="Settings of LightGBM to try per target; 0 takes those that are known.")
    ] = 0,
    json_: Json = False,
) -> None:
    """Train every target and the personas on what was known at a date; who passes the gates becomes champion."""
    with told_errors() as narrator:
        settings, day = read_settings(config), typed_date(as_of)
        narrator.say(f"training on what was known on {day} ({config})")
        training = _train(settings, day, narrator, tune=tune)
        _tell(training, settings, terminal(), as_json=json_)
        _refuse(training)


@app.command()
def score(
    config: ConfigPath = DEFAULT_CONFIG,
    as_of: AsOf = None,
    shadow: Annotated[
        bool | None, typer.Option("--shadow/--no-shadow", help="Score the newest challengers too; as the config says by default.")
    ] = None,
    json_: Json = False,
) -> None:
    """Score everybody with the champions and write the night's tables."""
    with told_errors() as narrator:
        settings, day = read_settings(config), typed_date(as_of)
        if shadow is not None:
            settings = settings.model_copy(update={"shadow": shadow})
        narrator.say(f"scoring the night of {day} ({config})")
        _score(settings, day, narrator)
        _show(settings, day, as_json=json_, brief=True)


@app.command()
def nightly(config: ConfigPath = DEFAULT_CONFIG, as_of: AsOf = None, json_: Json = False) -> None:
    """Train when no champion is there or the last training is older than `training.every`, then score."""
    from pipeline.score import recorded_nights

    with told_errors() as narrator:
        settings, day = read_settings(config), typed_date(as_of)
        training = None
        # What the night would be refused for is told before a training, not after it.
        recorded_nights(settings)
        why = _why_train(settings, day)
        if why:
            narrator.say(f"training on what was known on {day}: {why}")
            training = _train(settings, day, narrator, tune=0)
            _tell(training, settings, narrator.console)
            # Told before scoring, which may fail for want of a champion.
            for target, because in training.refused.items():
                narrator.say(f"  {target} stays a challenger: {because}")
        narrator.say(f"scoring the night of {day} ({config})")
        _score(settings, day, narrator)
        _show(settings, day, as_json=json_, brief=True)
        if training is not None:
            _refuse(training)


@app.command()
def backtest(config: ConfigPath = DEFAULT_CONFIG, as_of: AsOf = None, json_: Json = False) -> None:
    """Predict past origins from what was known before each, and show how good that was; no champion changes."""
    from pipeline.backtest import run_backtest
    from pipeline.show_models import print_backtest, tell_backtest
    from pipeline.tracking import Tracker

    with told_errors() as narrator:
        settings, day = read_settings(config), typed_date(as_of)
        narrator.say(f"testing on what was known on {day} ({config})")
        told = tell_backtest(run_backtest(settings, day, Tracker(settings), narrator))
        if json_:
            terminal().print_json(json.dumps(told))
        else:
            print_backtest(told, terminal(), currency=settings.currency)


@app.command()
def promote(
    model: Model,
    version: Annotated[int, typer.Option("--version", min=1, help="The version to put in charge.")],
    reason: Reason,
    config: ConfigPath = DEFAULT_CONFIG,
    json_: Json = False,
) -> None:
    """Put a version of a model in charge by hand, past the gates."""
    from pipeline.tracking import Tracker

    with told_errors():
        settings = read_settings(config)
        _check_change(settings, model, reason)
        changes = Tracker(settings).promote({model: str(version)}, reason=reason)
        _tell_change(changes[model], reason, as_json=json_)


@app.command()
def rollback(model: Model, reason: Reason, config: ConfigPath = DEFAULT_CONFIG, json_: Json = False) -> None:
    """Put the version in charge again that the champion of a model replaced."""
    from pipeline.tracking import Tracker

    with told_errors():
        settings = read_settings(config)
        _check_change(settings, model, reason)
        _tell_change(Tracker(settings).rollback(model, reason=reason), reason, as_json=json_)


@app.command()
def validate(config: ConfigPath = DEFAULT_CONFIG, as_of: AsOf = None, json_: Json = False) -> None:
    """Check the config, its sources, what targets ask and what rules say of the users of a night; write nothing."""
    from pipeline.show_validation import print_validation
    from pipeline.tracking import Tracker
    from pipeline.validate import validate as check

    with told_errors() as narrator:
        settings, day = read_settings(config), typed_date(as_of)
        told = check(settings, day, Tracker(settings), narrator).told()
        if json_:
            terminal().print_json(json.dumps(told))
        else:
            print_validation(told, settings, terminal())


@app.command()
def show(
    what: Annotated[
        str | None, typer.Argument(metavar="[WHAT]", help="segments, personas, user or flow; the whole night when left out.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The user's id, for `show user ID`; one that begins with - comes last, after --."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="DATE", help="The night's date; the latest by default.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="flow: the earlier night; by default the one before --to.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", metavar="DATE", help="flow: the later night; by default the latest.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", help="Also draw a picture there: flow, who went where; segments, how long members stay."),
    ] = None,
    json_: Json = False,
) -> None:
    """Show a night, or a part: segments, personas, one user's story, or the flow between the segments of two nights."""
    with told_errors():
        day, first, last = (
            typed_date(text, option) if text else None for text, option in ((as_of, "--as-of"), (start, "--from"), (stop, "--to"))
        )
        if what is None:
            if first or last or figure:
                raise ConfigError("--from, --to and --figure belong to a part: write `beforehand show flow`, or `show segments`")
            _show(read_settings(config), day, as_json=json_)
            return
        from pipeline.show_part import Asked, check_asked, show_part

        asked = Asked(what, user=user, as_of=day, start=first, stop=last, figure=figure)
        check_asked(asked)
        show_part(asked, read_settings(config), terminal(), as_json=json_)


@app.command("explain-change")
def explain_change(
    segment: Annotated[str, typer.Option("--segment", help="The segment.")],
    first: Annotated[str, typer.Option("--from", metavar="DATE", help="The earlier night, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option("--to", metavar="DATE", help="The later night, YYYY-MM-DD.")],
    config: ConfigPath = DEFAULT_CONFIG,
    json_: Json = False,
) -> None:
    """Say why a segment grew or shrank between two nights, by scoring and forming the nights between again."""
    from pipeline.change import explain_change as explain
    from pipeline.show_change import print_change
    from pipeline.tracking import Tracker

    with told_errors() as narrator:
        settings = read_settings(config)
        days = typed_date(first, "--from"), typed_date(last, "--to")
        change = explain(settings, segment, *days, Tracker(settings), narrator)
        if json_:
            terminal().print_json(json.dumps(change.told()))
        else:
            print_change(change, terminal())


@app.command()
def simulate(
    users: Annotated[int, typer.Option(help="How many users there are.")],
    days: Annotated[int, typer.Option(help="How many days are simulated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write; a simulated shop in it is replaced.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same shop.")] = 7,
    start: Annotated[str, typer.Option(metavar="DATE", help="The first day, YYYY-MM-DD.")] = "2024-01-01",
    jobs: Annotated[int, typer.Option(help="Processes side by side; the shop does not depend on it.")] = 2,
    json_: Json = False,
) -> None:
    """Write the clicks, orders, returns, messages and members of a simulated shop, and the truth about its users."""
    from pipeline.simulate import simulate

    with told_errors() as narrator:
        first = typed_date(start, "--start")
        told = simulate(output, narrator, users=users, days=days, seed=seed, start=first, jobs=jobs)
        if json_:
            terminal().print_json(json.dumps(told))
        else:
            rows = [f"{name:<10} {count:>13,}" for name, count in {**told["rows"], "events": told["events"]}.items()]
            terminal().print("\n".join([*rows, f"\n{told['output']}"]), highlight=False, soft_wrap=True)


@app.command()
def ui(
    config: ConfigPath = DEFAULT_CONFIG,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the models of a config, until interrupted."""
    from pipeline.tracking import serve_ui

    with told_errors() as narrator:
        serve_ui(read_settings(config), port, narrator)


def _train(settings: Settings, day: date, narrator: Narrator, *, tune: int) -> "Training":
    from pipeline.tracking import Tracker
    from pipeline.train import train

    return train(settings, day, Tracker(settings), narrator, tune=tune)


def _refuse(training: "Training") -> None:
    refused, vacant = training.refused, training.vacant
    if not refused:
        return
    told = "".join(f"\n  {target} stays a challenger: {because}" for target, because in refused.items())
    stays = "" if len(vacant) == len(refused) else "; the champions before them stay in charge"
    if vacant:
        names, have = listed(vacant, most=len(vacant)), "it has" if len(vacant) == 1 else "they have"
        told += f"\nnights have no scores of {names} before {have} a champion: train when more is known, take out the target, "
        told += "or put the model in charge, past the gates, with"
        told += "".join(f"\n  beforehand promote --model {name} --version {version} --reason …" for name, version in vacant.items())
    raise GateError(f"{len(refused)} of the new models did not pass the gates{stays}:{told}")


def _check_change(settings: Settings, model: str, reason: str) -> None:
    known = [*(target.name for target in settings.targets), PERSONAS]
    if model not in known:
        raise ConfigError(f"--model {model!r} is not a target of the config, nor {PERSONAS}: {did_you_mean(model, known)}")
    if not reason.strip():
        raise ConfigError("--reason is blank: say in a few words why, for whoever asks later")


def _tell_change(change: "Change", reason: str, *, as_json: bool) -> None:
    console = terminal()
    if as_json:
        told = {"model": change.model, "champion": change.version, "former": change.former, "reason": reason}
        console.print_json(json.dumps(told))
    else:
        instead = f" instead of version {change.former}" if change.former else ""
        console.print(f"{change.model}: version {change.version} is in charge{instead} ({reason})", highlight=False, soft_wrap=True)


def _score(settings: Settings, day: date, narrator: Narrator) -> None:
    from pipeline.score import run_night
    from pipeline.tracking import Tracker

    run_night(settings, day, Tracker(settings), narrator, lambda: datetime.now(UTC))


def _why_train(settings: Settings, day: date) -> str | None:
    from pipeline.known import target_models
    from pipeline.tracking import Tracker

    tracker, names = Tracker(settings), [target.name for target in settings.targets]
    until = [bundle.trained_until for bundle in target_models(tracker.in_charge(names)).values()]
    if not until:
        return "no champion is in the registry yet"
    # A challenger that was refused, or a champion that was rolled back, is no reason to train again every night.
    newest = tracker.trained_until(names)
    if newest is None and len(until) < len(names):
        return "the config has a target that no model was trained for yet"
    newest = newest or min(until)
    if date.fromisoformat(newest) + settings.training.every > day:
        return None
    return f"the champions are from {min(until)}"


def _tell(training: "Training", settings: Settings, console: Console, *, as_json: bool = False) -> None:
    from pipeline.show_models import print_training, tell_training

    told = tell_training(training)
    if as_json:
        console.print_json(json.dumps(told))
    else:
        print_training(told, console, currency=settings.currency)


def _show(settings: Settings, day: date | None, *, as_json: bool, brief: bool = False) -> None:
    from pipeline.show_night import print_night, print_tables, table_paths, tell_night

    if brief and not as_json:
        print_tables(table_paths(settings), terminal())
        return
    told = tell_night(settings, day)
    if brief:
        # What a scheduler prints ends up in logs, where no user belongs.
        told.pop("most_at_risk")
    if as_json:
        terminal().print_json(json.dumps(told))
    else:
        print_night(told, terminal(), currency=settings.currency)
