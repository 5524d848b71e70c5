"""The command line: `beforehand train | score | nightly | validate | show | simulate | ui`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from features.errors import BeforehandError, ConfigError, GateError
from pipeline.progress import Narrator
from pipeline.settings import Settings, read_settings

app = typer.Typer(
    help="Read what people did; say what each will do next, and what to do about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The YAML config.")]
AsOf = Annotated[str | None, typer.Option("--as-of", metavar="DATE", help="The night's date, YYYY-MM-DD; today (UTC) by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
DEFAULT_CONFIG = Path("configs/complete_journey.yaml")

# MLflow, LightGBM and SHAP take seconds to import, so each command imports what it needs when it runs.


@app.command()
def train(config: ConfigPath = DEFAULT_CONFIG, as_of: AsOf = None, json_: Json = False) -> None:
    """Train every target and the personas on what was known at a date, and make the models champions."""
    with _told_errors() as narrator:
        settings, day = read_settings(config), _date(as_of)
        narrator.say(f"training on what was known on {day} ({config})")
        _tell(_train(settings, day, narrator), settings, _console(), as_json=json_)


@app.command()
def score(config: ConfigPath = DEFAULT_CONFIG, as_of: AsOf = None, json_: Json = False) -> None:
    """Score everybody with the champions and write the night's tables."""
    with _told_errors() as narrator:
        settings, day = read_settings(config), _date(as_of)
        narrator.say(f"scoring the night of {day} ({config})")
        _score(settings, day, narrator)
        _show(settings, day, as_json=json_, brief=True)


@app.command()
def nightly(config: ConfigPath = DEFAULT_CONFIG, as_of: AsOf = None, json_: Json = False) -> None:
    """Train when no champion is there or it is older than `training.every`, then score."""
    with _told_errors() as narrator:
        settings, day = read_settings(config), _date(as_of)
        why = _why_train(settings, day)
        if why:
            narrator.say(f"training on what was known on {day}: {why}")
            _tell(_train(settings, day, narrator), settings, narrator.console)
        narrator.say(f"scoring the night of {day} ({config})")
        _score(settings, day, narrator)
        _show(settings, day, as_json=json_, brief=True)


@app.command()
def validate(config: ConfigPath = DEFAULT_CONFIG, as_of: AsOf = None, json_: Json = False) -> None:
    """Check the config and its sources, and count what would be accepted and rejected; write nothing."""
    from pipeline.events import read_events

    with _told_errors() as narrator:
        settings, day = read_settings(config), _date(as_of)
        log = read_events(settings, day, narrator)
        told = {
            "as_of": day.isoformat(),
            "events": log.count,
            "users": log.users,
            "rejected": len(log.rejected),
            "later": log.later,
        }
        told |= {"first_event": log.first.isoformat(), "last_event": log.last.isoformat(), "features": len(log.features.features)}
        if json_:
            _console().print_json(json.dumps(told))
        else:
            _console().print("\n".join(f"{name.replace('_', ' '):<12} {value}" for name, value in told.items()), highlight=False)


@app.command()
def show(
    config: ConfigPath = DEFAULT_CONFIG,
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="DATE", help="The night's date; the latest by default.")] = None,
    json_: Json = False,
) -> None:
    """Show a night: segments, personas, who is most at risk and why, and where the tables are."""
    with _told_errors():
        _show(read_settings(config), _date(as_of) if as_of else None, as_json=json_)


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

    with _told_errors() as narrator:
        first = _date(start, "--start")
        told = simulate(output, narrator, users=users, days=days, seed=seed, start=first, jobs=jobs)
        if json_:
            _console().print_json(json.dumps(told))
        else:
            rows = [f"{name:<10} {count:>13,}" for name, count in {**told["rows"], "events": told["events"]}.items()]
            _console().print("\n".join([*rows, f"\n{told['output']}"]), highlight=False, soft_wrap=True)


@app.command()
def ui(
    config: ConfigPath = DEFAULT_CONFIG,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the models of a config, until interrupted."""
    from pipeline.tracking import serve_ui

    with _told_errors() as narrator:
        serve_ui(read_settings(config), port, narrator)


def main() -> None:
    """Run the command line."""
    app()


def _train(settings: Settings, day: date, narrator: Narrator) -> Any:
    from pipeline.tracking import Tracker
    from pipeline.train import train

    return train(settings, day, Tracker(settings), narrator)


def _score(settings: Settings, day: date, narrator: Narrator) -> None:
    from pipeline.score import run_night
    from pipeline.tracking import Tracker

    run_night(settings, day, Tracker(settings), narrator, lambda: datetime.now(UTC))


def _why_train(settings: Settings, day: date) -> str | None:
    from models.bundle import TargetBundle
    from pipeline.tracking import Tracker

    tracker = Tracker(settings)
    try:
        champions = tracker.champions([target.name for target in settings.targets])
    except GateError:
        return "no champion is in the registry yet"
    until = min(champion.bundle.trained_until for champion in champions.values() if isinstance(champion.bundle, TargetBundle))
    old = date.fromisoformat(until) + settings.training.every <= day
    return f"the champions are from {until}" if old else None


def _tell(training: Any, settings: Settings, console: Console, *, as_json: bool = False) -> None:
    from pipeline.show import print_training, tell_training

    told = tell_training(training)
    if as_json:
        console.print_json(json.dumps(told))
    else:
        print_training(told, console, currency=settings.currency)


def _show(settings: Settings, day: date | None, *, as_json: bool, brief: bool = False) -> None:
    from pipeline.show import print_night, print_tables, table_paths, tell_night

    if brief and not as_json:
        print_tables(table_paths(settings), _console())
        return
    told = tell_night(settings, day)
    if brief:
        # What a scheduler prints ends up in logs, where no user belongs.
        told.pop("most_at_risk")
    if as_json:
        _console().print_json(json.dumps(told))
    else:
        print_night(told, _console(), currency=settings.currency)


def _date(text: str | None, option: str = "--as-of") -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a date: write YYYY-MM-DD, such as 2018-01-01") from None
    if not 1990 <= day.year < 2200:
        raise ConfigError(f"{option} {text} is out of range: a date lies between 1990 and 2199")
    return day


def _console(*, stderr: bool = False) -> Console:
    # No markup anywhere: ids, paths and phrases are the user's, and may hold brackets.
    console = Console(stderr=stderr, markup=False)
    # A pipe has no width; tables cut to 80 columns would lose what they say.
    return console if console.is_terminal else Console(stderr=stderr, width=160, markup=False)


@contextmanager
def _told_errors() -> Iterator[Narrator]:
    """Turn every error that a user can cause into one message and its exit code."""
    console = _console(stderr=True)
    try:
        yield Narrator(console)
    except BeforehandError as error:
        console.print(f"error ({type(error).__name__.removesuffix('Error').lower()}): ", end="", style="bold red")
        console.print(str(error), highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.print("interrupted: the last complete night and the champions stand as they were")
        sys.exit(130)
