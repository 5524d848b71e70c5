"""Training: learn every target from past cutoffs, test it on later ones, and put the models in charge."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

import lightgbm
import pandas as pd
from joblib import Parallel, delayed

from features.build import steps
from features.errors import GateError, listed
from features.labels import Target, build_labels
from features.windows import label as window_label
from features.windows import words
from models.backtest import Backtest, Origin, assemble, plan_origins, predict_origin
from models.bundle import PersonaBundle, TargetBundle
from models.personas import Personas, fit_personas
from models.propensity import PARAMETERS, ROUNDS, fit_booster
from models.reasons import contributions
from pipeline.answers import active
from pipeline.events import EventLog, midnight, read_events
from pipeline.figures import beeswarm, target_figures
from pipeline.frames import features_frame, shards
from pipeline.progress import Narrator
from pipeline.settings import PERSONAS, Settings
from pipeline.tables import exclusive
from pipeline.tracking import Tracker

_SWARM = 1_000


@dataclass(frozen=True)
class Trained:
    """One target's outcome: the final model, its backtest, and its version in the registry."""

    target: Target
    backtest: Backtest
    bundle: TargetBundle
    version: str


@dataclass(frozen=True)
class Training:
    """One training run."""

    run_id: str
    trained: tuple[Trained, ...]
    personas: Personas


def train(settings: Settings, as_of: date, tracker: Tracker, narrator: Narrator) -> Training:
    """Train every target and the personas from what was known on `as_of`, log all of it, and make the models champions.

    The champions change together, after the last model is registered: a run that dies leaves the old ones in charge.

    Raises GateError when history is too short, a target has one class only, or users are too few for personas, before any target's
    model is fitted.
    """
    with exclusive(settings.output, "training"):
        log = read_events(settings, as_of, narrator)
        targets = settings.specs()
        cutoffs = training_cutoffs(log, settings, targets)
        frame = _features(log, cutoffs, settings, narrator)
        rows = {target.name: _labelled(log, frame, target, cutoffs) for target in targets}
        _refuse_one_class(rows, targets)
        tracker.open()
        plans = {target.name: _plan(rows[target.name], target, settings) for target in targets}
        with narrator.step("finding personas") as step:
            tonight = frame[frame.cutoff == midnight(as_of)]
            personas = _personas(log, tonight, settings)
            step.note(f"{len(personas.names)} personas of {len(active(tonight, max(settings.features.windows))):,} users")
        backtests = _backtest(log, rows, plans, targets, settings, narrator)
        boosters = _final_models(log, rows, targets, settings, narrator)
        tags = {"as_of": as_of.isoformat(), "config_digest": settings.digest(), "events_digest": log.digest}
        with narrator.step("logging to MLflow", total=len(targets) + 1) as step, tracker.run(f"train {as_of}", tags=tags) as run_id:
            tracker.log(run_id, params=_parameters(log, settings, cutoffs), metrics={"users": log.users, "events": log.count})
            trained = []
            for target in targets:
                made = _bundle(target, backtests[target.name], boosters[target.name], as_of)
                version = _log_target(tracker, target, backtests[target.name], made, rows[target.name], plans[target.name])
                trained.append(Trained(target, backtests[target.name], made, version))
                step.advance()
            tracker.log(run_id, params={}, metrics=_summary(trained))
            persona_version = _log_personas(tracker, personas)
            tracker.promote({made.target.name: made.version for made in trained} | {PERSONAS: persona_version})
            step.note(f"{len(targets)} champions in experiment {settings.name}")
        return Training(run_id, tuple(trained), personas)


def training_cutoffs(log: EventLog, settings: Settings, targets: Sequence[Target]) -> list[datetime]:
    """Give the cutoffs to learn from, oldest first: the latest one's shortest horizon has just elapsed at `as_of`.

    Raises GateError when the history holds fewer than the three that training and one test need.
    """
    training, shortest = settings.training, min(target.horizon for target in targets)
    latest, earliest = midnight(log.as_of) - shortest, log.first + training.min_history
    count = int((latest - earliest) / training.step) + 1 if latest >= earliest else 0
    longest = max(target.horizon for target in targets)
    needed = training.min_history + 2 * longest + 2 * training.step
    covered = timedelta(days=(midnight(log.as_of) - log.first).days)
    if covered < needed:
        raise GateError(
            f"the events before {log.as_of} cover {words(covered)}, training needs {words(needed)}: training.min_history "
            f"({window_label(training.min_history)}), two of the longest horizon ({window_label(longest)}) and two steps "
            f"({window_label(training.step)}); shorten them in the config, or wait for more events"
        )
    return [latest - training.step * index for index in reversed(range(min(count, training.max_cutoffs)))]


def _features(log: EventLog, cutoffs: Sequence[datetime], settings: Settings, narrator: Narrator) -> pd.DataFrame:
    """Build the features of the training cutoffs and of the night itself, sorted by cutoff and user."""
    with narrator.step("building features", total=steps(log.features, shards(log, len(cutoffs) + 1, settings))) as step:
        frame = features_frame(log, [*cutoffs, midnight(log.as_of)], settings, step)
        step.note(
            f"{len(log.features.features)} features at {len(cutoffs)} cutoffs, {cutoffs[0]:%Y-%m-%d} to {cutoffs[-1]:%Y-%m-%d}"
        )
    return frame.sort_values(["cutoff", "user_id"], ignore_index=True)


def _labelled(log: EventLog, frame: pd.DataFrame, target: Target, cutoffs: Sequence[datetime]) -> pd.DataFrame:
    """Join a target's labels to the features: one row per eligible user and cutoff whose horizon has elapsed."""
    legal = [cutoff for cutoff in cutoffs if cutoff + target.horizon <= midnight(log.as_of)]
    labels = build_labels(log.events, target, legal).execute()
    return frame.merge(labels, on=["user_id", "cutoff"], validate="one_to_one").sort_values(
        ["cutoff", "user_id"], ignore_index=True
    )


def _refuse_one_class(rows: dict[str, pd.DataFrame], targets: Sequence[Target]) -> None:
    problems = []
    for target in targets:
        label = rows[target.name].label
        if len(label) == 0:
            problems.append(f"{target.name}: nobody is eligible; widen eligible.active_within or check eligible.events")
        elif label.nunique() < 2:
            problems.append(
                f"{target.name}: the label is {label.iloc[0]:g} in all {len(label):,} rows; there is nothing to tell apart. "
                f"Check events ({target.events}), or change horizon"
            )
    if problems:
        raise GateError("no model can be trained:\n  " + "\n  ".join(problems))


def _plan(rows: pd.DataFrame, target: Target, settings: Settings) -> tuple[Origin, ...]:
    cutoffs = [cutoff.to_pydatetime() for cutoff in sorted(rows.cutoff.unique())]
    tests, calibrations = settings.training.test_origins, settings.training.calibration_origins
    try:
        return plan_origins(cutoffs, target.horizon, tests=tests, calibrations=calibrations, minimum=1)
    except GateError as error:
        raise GateError(f"{target.name}: {error}") from None


def _backtest(
    log: EventLog,
    rows: dict[str, pd.DataFrame],
    plans: dict[str, tuple[Origin, ...]],
    targets: Sequence[Target],
    settings: Settings,
    narrator: Narrator,
) -> dict[str, Backtest]:
    names = [feature.name for feature in log.features.numbers]
    jobs = [(target, origin) for target in targets for origin in plans[target.name]]
    with narrator.step("testing on past origins", total=len(jobs)) as step:
        predict = delayed(predict_origin)
        seed = settings.training.seed
        # Threads, not processes: LightGBM lets go of the interpreter, and nothing is copied.
        found = Parallel(n_jobs=settings.training.jobs, prefer="threads", return_as="generator")(
            predict(rows[target.name], names, origin, is_amount=target.is_amount, seed=seed) for target, origin in jobs
        )
        predicted: dict[str, list[pd.DataFrame]] = {target.name: [] for target in targets}
        for (target, _), frame in zip(jobs, found, strict=True):
            predicted[target.name].append(frame)
            step.advance()
        backtests = {}
        for target in targets:
            try:
                backtests[target.name] = assemble(predicted[target.name], target.horizon, is_amount=target.is_amount)
            except GateError as error:
                raise GateError(f"{target.name}: {error}") from None
        tests = {sum(origin.is_test for origin in plans[target.name]) for target in targets}
        step.note(f"{len(targets)} targets at {listed(sorted(tests))} test origins")
    return backtests


def _final_models(
    log: EventLog, rows: dict[str, pd.DataFrame], targets: Sequence[Target], settings: Settings, narrator: Narrator
) -> dict[str, lightgbm.Booster]:
    names = [feature.name for feature in log.features.numbers]
    with narrator.step("fitting final models", total=len(targets)) as step:
        fit = delayed(fit_booster)
        found = Parallel(n_jobs=settings.training.jobs, prefer="threads", return_as="generator")(
            fit(rows[target.name][names], rows[target.name].label, is_amount=target.is_amount, seed=settings.training.seed)
            for target in targets
        )
        boosters = {}
        for target, booster in zip(targets, found, strict=True):
            boosters[target.name] = booster
            step.advance()
        step.note(f"on {sum(len(rows[target.name]) for target in targets):,} rows")
    return boosters


def _personas(log: EventLog, tonight: pd.DataFrame, settings: Settings) -> Personas:
    told = settings.personas
    return fit_personas(
        active(tonight, max(settings.features.windows)),
        log.features.numbers,
        fewest=told.fewest,
        most=told.most,
        smallest_share=told.smallest_share,
        seed=settings.training.seed,
    )


def _bundle(target: Target, backtest: Backtest, booster: lightgbm.Booster, as_of: date) -> TargetBundle:
    calibrator = backtest.calibrator
    method = "lightgbm" if calibrator.method == "none" else f"lightgbm+{calibrator.method}"
    return TargetBundle(target.name, definition(target), method, as_of.isoformat(), calibrator, booster)


def definition(target: Target) -> dict[str, Any]:
    """Give what a target's label means, in plain values: a model answers this question and no other."""
    told = {name: window_label(value) if isinstance(value, timedelta) else value for name, value in asdict(target).items()}
    told["eligible"] = {"active_within": window_label(target.eligible.active_within), "events": target.eligible.events}
    return {name: value for name, value in told.items() if name not in ("name", "meaning")}


def _summary(trained: Sequence[Trained]) -> dict[str, float]:
    """Give each target's headline measures, so that trainings can be compared in one list."""
    headline = ("auc", "average_precision", "mean_absolute_error")
    means = {made.target.name: made.backtest.mean() for made in trained}
    return {f"{target}_{name}_mean": found[name] for target, found in means.items() for name in headline if name in found}


def _parameters(log: EventLog, settings: Settings, cutoffs: Sequence[datetime]) -> dict[str, object]:
    return {
        "features": len(log.features.numbers),
        "cutoffs": len(cutoffs),
        "first_cutoff": f"{cutoffs[0]:%Y-%m-%d}",
        "last_cutoff": f"{cutoffs[-1]:%Y-%m-%d}",
        "seed": settings.training.seed,
        "step": window_label(settings.training.step),
        "windows": " ".join(window_label(window) for window in settings.features.windows),
        "windows_beyond_history": " ".join(log.beyond_history) or "none",
    }


def _log_target(
    tracker: Tracker, target: Target, backtest: Backtest, made: TargetBundle, rows: pd.DataFrame, plan: Sequence[Origin]
) -> str:
    with tracker.run(target.name, tags={"target": target.name, "kind": target.kind}, nested=True) as run_id:
        mean, base = backtest.mean(), backtest.mean("baseline")
        metrics = {f"{name}_mean": value for name, value in mean.items()}
        metrics |= {f"baseline_{name}_mean": value for name, value in base.items()}
        told = {name: value for name, value in definition(target).items() if name != "eligible"}
        told |= {f"eligible_{name}": value for name, value in definition(target)["eligible"].items()}
        told |= {"rounds": ROUNDS, "method": made.method, "rows": len(rows), "test_origins": sum(o.is_test for o in plan)}
        tracker.log(run_id, params={**PARAMETERS, **told}, metrics=metrics)
        tracker.log_origins(run_id, backtest.by_origin())
        title = f"{target.name}: {target.meaning}" if target.meaning else target.name
        figures = target_figures(backtest.tested, mean, base, title=title, is_amount=target.is_amount)
        latest = rows[rows.cutoff == rows.cutoff.max()][list(made.features)].head(_SWARM)
        figures["shap_beeswarm"] = beeswarm(contributions(made.booster, latest), latest, title=title)
        tracker.log_figures(figures)
        return tracker.register(target.name, made, {"score": "double"})


def _log_personas(tracker: Tracker, personas: Personas) -> str:
    with tracker.run(PERSONAS, tags={"kind": "kmeans"}, nested=True) as run_id:
        metrics = {f"silhouette_k{k}": value for k, value in personas.silhouettes.items()}
        params = {
            f"persona_{index}": f"{name} ({share:.1%})"
            for index, (name, share) in enumerate(zip(personas.names, personas.shares, strict=True))
        }
        tracker.log(run_id, params={"k": len(personas.names), **params}, metrics=metrics)
        return tracker.register(PERSONAS, PersonaBundle(personas), {"persona": "long", "persona_name": "string"})
