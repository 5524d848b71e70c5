"""Training: learn every target from past cutoffs, test it on later ones, and put in charge what is not worse than what was."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from importlib.metadata import version
from itertools import islice
from platform import python_version

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from features.catalogue import feature_name
from features.errors import StoreError
from features.labels import Target, definition
from features.windows import label as window_label
from models import gates
from models.bundle import PersonaBundle, TargetBundle, inventory_of
from models.gates import LOWER_IS_BETTER, Verdict
from models.ladder import Model, Recipe, fit_recipe
from models.metrics import AMOUNT_MEASURE
from models.persona_matching import Matching
from models.personas import Personas, fit_personas
from models.report import Report, against_champion, by_group
from models.season import in_words
from pipeline.backtest import Tested, champions_in_charge, test
from pipeline.card import Card, model_card
from pipeline.feature_page import feature_page
from pipeline.figures import (
    beeswarm,
    dependence,
    group_importance,
    importance_stability,
    ladder_figure,
    target_figures,
)
from pipeline.past import Past, gather, of_each_target, settled_recipes
from pipeline.persona_figures import persona_figures
from pipeline.persona_page import PERSONA_OUTPUTS, change_params, persona_metrics, persona_page, told_changes
from pipeline.progress import Narrator
from pipeline.settings import PERSONAS, Settings
from pipeline.tables import exclusive
from pipeline.tracking import Tracker
from pipeline.training_settings import GateSettings
from pipeline.tune import tuned

# What another version of may make another model.
_MADE_WITH = ("beforehand", "duckdb", "lightgbm", "numpy", "pandas", "scikit-learn", "scipy")
_SWARM = 1_000
# So many tell what is expected of everybody: the mean of more is the same, within a hundredth of how users differ.
_OTHERS = 10_000
_GROUPS = 12
_ENOUGH = 30
_REASON = "it passed every gate"


@dataclass(frozen=True)
class Trained:
    """One target's outcome: its backtest, the final model, its version in the registry, and what the gates said of it.

    `is_first` says that there was no champion to be held against.
    """

    tested: Tested
    bundle: TargetBundle
    version: str
    verdicts: tuple[Verdict, ...]
    is_first: bool

    @property
    def target(self) -> Target:
        """The target."""
        return self.tested.target

    @property
    def is_champion(self) -> bool:
        """Whether it was put in charge."""
        return gates.decide(self.verdicts)


@dataclass(frozen=True)
class Training:
    """One training run; `matching` says what became of the former personas, None where there were none."""

    run_id: str
    trained: tuple[Trained, ...]
    personas: Personas
    matching: Matching | None = None

    @property
    def refused(self) -> Mapping[str, str]:
        """The targets whose new model stays a challenger, and why."""
        return {made.target.name: gates.because(made.verdicts) for made in self.trained if not made.is_champion}

    @property
    def vacant(self) -> Mapping[str, str]:
        """The targets that still have no champion, and the version of the model that the gates refused."""
        return {made.target.name: made.version for made in self.trained if made.is_first and not made.is_champion}


def train(settings: Settings, as_of: date, tracker: Tracker, narrator: Narrator, *, tune: int = 0) -> Training:
    """Train every target and the personas from what was known on `as_of`, log all of it, and promote what passes the gates.

    Champions change together, after the last model is registered: a run that dies leaves the old ones in charge. `tune` is how many
    settings of LightGBM are tried per target, on origins before those that are reported.

    Raises what `gather` raises, GateError when users are too few for personas, and StoreError when the registry cannot be used.
    """
    with exclusive(settings.output, "training"):
        # Asked first: work is lost on a registry that does not answer. A local one is only made once there is something to keep.
        champions = champions_in_charge(tracker, settings.specs(), narrator)
        former = _former_personas(tracker, narrator)
        past = gather(settings, as_of, narrator, inventory_of(champions.values()))
        tracker.open()
        with narrator.step("finding personas") as step:
            personas, matching = _personas(past, former)
            step.note(f"{len(personas.names)} personas of {len(past.active):,} users: {personas.why}")
        for line in told_changes(personas, former, matching):
            narrator.say(f"  {line}")
        tags = {"as_of": as_of.isoformat(), "config_digest": settings.digest(), "events_digest": past.log.digest}
        with tracker.run(f"train {as_of}", tags=tags | _versions()) as run_id:
            recipes = settled_recipes(past, champions, narrator)
            if tune:
                recipes = {
                    target.name: _tuned(past, target, recipes[target.name], tracker, narrator, tune=tune) for target in past.targets
                }
            tested = test(past, recipes, champions, narrator)
            models = _final_models(past, tested, narrator)
            with narrator.step("logging to MLflow", total=len(tested) + 1) as step:
                tracker.log(run_id, params=_parameters(past), metrics={"users": past.log.users, "events": past.log.count})
                tracker.log_text("features.md", feature_page(past.log.features))
                trained = []
                for made in tested:
                    trained.append(_log_target(tracker, past, made, models[made.target.name], champions))
                    step.advance()
                tracker.log(run_id, params={}, metrics=_summary(trained))
                passed = {made.target.name: made.version for made in trained if made.is_champion}
                tracker.promote(passed | {PERSONAS: _log_personas(tracker, past, personas, former, matching)}, reason=_REASON)
                step.note(f"{len(passed)} of {len(trained)} models are champions in experiment {settings.name}")
        return Training(run_id, tuple(trained), personas, matching)


def judge(past: Past, tested: Tested, champions: Mapping[str, TargetBundle | None]) -> tuple[Verdict, ...]:
    """Let the gates look at a challenger: the champion, the labels, calibration, stability, and the data."""
    told, report, is_amount = past.settings.gates, tested.report, tested.target.is_amount
    measure = AMOUNT_MEASURE if is_amount else told.metric
    label = past.labels[tested.target.name].label
    # One that no night could be scored with is not missed.
    champion = champions.get(tested.target.name) if tested.incomparable is None else None
    # An origin with a handful of either label says more about chance than about the model.
    at_origins = {
        origin: found[measure]
        for origin, found in report.at_origins.items()
        if measure in found and (is_amount or _has_both(report.by_origin[origin]))
    }
    # What is in use is not among the rules beside it.
    plain = report.rules_at_origins.get("base_rate", report.at_origins)
    references = {origin: found[measure].value for origin, found in plain.items() if measure in found}
    return (
        _beside_champion(past, tested, measure) if tested.target.name in champions else gates.not_worse(None, measure=measure),
        gates.tells_apart(
            float(label.iloc[0]) if label.nunique() == 1 else None, replaces=champion.recipe.rung if champion is not None else None
        ),
        _calibrated(report, told),
        gates.stable(at_origins, measure=measure, max_swing=told.max_swing, references=references),
        gates.sound_data(past.log.bad_share, allowed=past.settings.contract.max_bad_share, beyond_history=past.log.beyond_history),
    )


def _beside_champion(past: Past, tested: Tested, measure: str) -> Verdict:
    """Hold a challenger against the champion, or where that cannot be asked, against the best simple rule."""
    report, why, difference = tested.report, tested.incomparable, None
    if why is None:
        confidence, seed = past.settings.gates.confidence, past.settings.training.seed
        difference = against_champion(tested.backtest, measure, confidence=confidence, seed=seed)
        why = f"{measure.replace('_', ' ')} is not defined at an origin that both were tested at"
    if difference is not None:
        return gates.not_worse(difference, measure=measure)
    ahead = None if report.ahead is None else gates.turned(report.ahead, report.measure)
    return gates.not_comparable(why, ahead, measure=report.measure, instead=f"the rule {report.baseline}")


def _calibrated(report: Report, told: GateSettings) -> Verdict:
    if report.positives is None:
        return gates.amounts_told(report.pooled.get("decile_total_error"))
    return gates.calibrated(
        report.pooled.get("expected_calibration_error"),
        rarer=min(report.positives, report.rows - report.positives) / report.rows,
        most=told.max_calibration_error,
        share=told.max_calibration_share,
    )


def _has_both(found: Mapping[str, float]) -> bool:
    return min(found["positives"], found["users"] - found["positives"]) >= _ENOUGH


def _tuned(past: Past, target: Target, recipe: Recipe, tracker: Tracker, narrator: Narrator, *, tune: int) -> Recipe:
    with narrator.step(f"tuning {target.name}", total=tune) as step:
        digest = f"{past.settings.digest()}-{past.log.digest[:16]}"
        rows, plan = past.rows(target, None, recipe.features), past.plans[target.name]
        return tuned(rows, recipe, plan, target, past.settings, tracker, trials=tune, digest=digest, step=step)


def _final_models(past: Past, tested: Sequence[Tested], narrator: Narrator) -> dict[str, Model]:
    with narrator.step("fitting final models", total=len(tested)) as step:
        by_name = {made.target.name: made for made in tested}
        models = of_each_target(past, lambda target: _final_model(past, by_name[target.name]), step)
        step.note(f"on {sum(len(past.final_labels(made.target)) for made in tested):,} rows")
    return models


def _final_model(past: Past, made: Tested) -> Model:
    rows = past.rows(made.target, past.final_labels(made.target).cutoff.unique(), made.recipe.features)
    return fit_recipe(rows, rows.label, made.recipe, is_amount=made.target.is_amount, seed=past.settings.training.seed)


def _former_personas(tracker: Tracker, narrator: Narrator) -> Personas | None:
    """Load the personas in charge, whose ids and names stay with the people; None when there are none that can be read."""
    try:
        champion = tracker.in_charge([PERSONAS]).get(PERSONAS)
    except StoreError as error:
        narrator.say(f"  {error}")
        return None
    return champion.bundle.personas if champion is not None and isinstance(champion.bundle, PersonaBundle) else None


def _personas(past: Past, former: Personas | None) -> tuple[Personas, Matching | None]:
    told = past.settings.personas
    return fit_personas(
        past.active,
        past.log.features.numbers,
        fewest=told.fewest,
        most=told.most,
        smallest_share=told.smallest_share,
        stability=told.stability,
        names=told.names,
        former=former,
        purchases=feature_name("purchase", "count", max(past.settings.features.windows)),
        currency=past.settings.currency,
        seed=past.settings.training.seed,
    )


def _bundle(past: Past, made: Tested, model: Model) -> TargetBundle:
    groups, asked = past.groups, past.asked_tonight(made.target)
    as_of, season, calibrator = past.log.as_of, made.season, made.backtest.calibrator
    if season.levels or calibrator.bends:
        tonight = model.raw(asked)
        season = season.around(tonight, as_of, is_amount=made.target.is_amount)
        calibrator = calibrator.around(season.moved(tonight, as_of, is_amount=made.target.is_amount))
    # Reasons tell a user from the others of a night: at earlier cutoffs everybody was known for less long, say.
    others = (asked if len(asked) else past.rows(made.target, None, model.features))[list(model.features)]
    some = others.sample(min(len(others), _OTHERS), random_state=past.settings.training.seed)
    # What most do not have, such as a day of something that never happened to them, is typical of nobody.
    medians = others.median()[others.notna().mean() >= 0.5]
    return TargetBundle(
        made.target.name,
        definition(made.target),
        made.recipe,
        as_of.isoformat(),
        calibrator,
        model,
        definitions={name: said for name, said in past.log.features.definitions.items() if name in model.features},
        groups={name: groups[name] for name in model.features},
        inventory=past.log.inventory,
        warnings=made.report.warnings,
        season=season.since(as_of),
        # By their shortest digits: 0.3 of 32 bits is 0.30000001192… of 64.
        typical={str(name): float(str(np.float32(value))) for name, value in medians.items() if not np.isnan(value)},
        expected=dict(zip(model.features, model.contributions(some).mean(axis=0).tolist(), strict=True)),
    )


def _log_target(tracker: Tracker, past: Past, made: Tested, model: Model, champions: Mapping[str, TargetBundle | None]) -> Trained:
    target, report, bundle = made.target, made.report, _bundle(past, made, model)
    verdicts = judge(past, made, champions)
    with tracker.run(target.name, tags={"target": target.name, "kind": target.kind}, nested=True) as run_id:
        told = {name: value for name, value in definition(target).items() if name != "eligible"}
        told |= {f"eligible_{name}": value for name, value in definition(target)["eligible"].items()}
        told |= {"rounds": made.recipe.rounds, "method": bundle.method, "rung": made.recipe.rung}
        told |= {"within_dates": made.recipe.within_dates}
        told |= {"season": in_words(bundle.season) if bundle.season.levels else "none"}
        told |= {"rows": len(past.final_labels(target)), "test_origins": len(report.by_origin)}
        tracker.log(run_id, params={**made.recipe.settings, **told}, metrics=dict(_metrics(made)))
        tracker.log_origins(run_id, {origin: dict(_at_origin(report, origin)) for origin in report.by_origin})
        latest = past.rows(target, {past.labels[target.name].cutoff.max()}, bundle.features)
        some = latest.sample(min(len(latest), _SWARM), random_state=past.settings.training.seed)
        importance, figures = _figures(made, bundle, some)
        tracker.log_figures(figures)
        card = model_card(_card(past, made, bundle, importance, verdicts))
        tracker.log_text("model_card.md", card)
        number = tracker.register(target.name, bundle, {"score": "double"})
        tracker.describe(target.name, number, card)
    return Trained(made, bundle, number, verdicts, is_first=target.name not in champions)


def _metrics(made: Tested) -> Iterator[tuple[str, float]]:
    """Every number of the report by name; bounds of intervals end in `_low` and `_high`."""
    report = made.report
    mean, base = made.backtest.mean(), made.backtest.mean(report.baseline)
    yield from ((name, mean[name]) for name in ("users", "positives") if name in mean)
    for name, found in report.measures.items():
        yield from ((f"{name}_mean", found.value), (f"{name}_mean_low", found.low), (f"{name}_mean_high", found.high))
    yield from ((f"baseline_{name}_mean", value) for name, value in base.items())
    yield from ((f"{name}_pooled", found.value) for name, found in report.pooled.items())
    if report.ahead is not None:
        for bound, value in (("", report.ahead.value), ("_low", report.ahead.low), ("_high", report.ahead.high)):
            yield f"{report.measure}_ahead{bound}", value
    if report.memory is not None:
        yield f"{report.measure}_on_unseen_users", report.memory.value
    yield from ((f"{report.measure}_of_{rung}", found.value) for rung, found in report.ladder.items())
    if report.bands:
        yield "bands_as_stated", report.coverage
    if report.bands and report.positives is not None:
        yield "level_drift", max(band.drift for band in report.bands)


def _at_origin(report: Report, origin: datetime) -> Iterator[tuple[str, float]]:
    """Every measure at one test origin, with the bounds of its interval."""
    yield from report.by_origin[origin].items()
    for name, found in report.at_origins[origin].items():
        yield from ((f"{name}_low", found.low), (f"{name}_high", found.high))


def _figures(made: Tested, bundle: TargetBundle, rows: pd.DataFrame) -> tuple[dict[str, float], dict[str, Figure]]:
    """Draw everything, and give the importance of feature groups among `rows`, largest first."""
    target, report = made.target, made.report
    title = f"{target.name}: {target.meaning}" if target.meaning else target.name
    mean, base = made.backtest.mean(), made.backtest.mean(report.baseline)
    tested = made.backtest.tested.assign(baseline=made.backtest.tested[report.baseline])
    figures = target_figures(
        tested, mean, base, title=title, is_amount=target.is_amount, method=made.recipe.rung, against=report.baseline
    )
    if report.ladder:
        figures["ladder"] = ladder_figure(
            report.ladder, chosen=made.backtest.rung, measure=report.measure, title=title, origins=len(report.by_origin)
        )
    if not bundle.features:
        return {}, figures
    read = rows[list(bundle.features)]
    values = bundle.contributions(rows)
    groups = [bundle.groups[name] for name in bundle.features]
    figures["shap_beeswarm"] = beeswarm(values, read, title=title)
    figures["shap_dependence"] = dependence(values, read, title=title)
    figures["importance_groups"] = group_importance(values, groups, title=title)
    if len(report.importance) > 1:
        figures["importance_stability"] = importance_stability(report.importance, title=title)
    return by_group(values, groups), figures


def _card(past: Past, made: Tested, bundle: TargetBundle, importance: Mapping[str, float], verdicts: Sequence[Verdict]) -> Card:
    report, target, log = made.report, made.target, past.log
    labels = past.final_labels(target)
    total = sum(importance.values()) or 1.0
    return Card(
        target=target,
        currency=past.settings.currency,
        as_of=log.as_of,
        events=log.count,
        users=log.users,
        sampled=log.sampled,
        beyond_history=log.beyond_history,
        rows=len(labels),
        positives=None if target.is_amount else int(labels.label.sum()),
        season=bundle.season,
        recipe=made.recipe,
        cutoffs=[cutoff.date() for cutoff in sorted(labels.cutoff.unique().tolist())],
        test_origins=[origin.date() for origin in report.by_origin],
        method=bundle.method,
        why=why_rung(made),
        features=by_story(bundle),
        groups=[(name, value / total) for name, value in islice(importance.items(), _GROUPS)],
        confidence=0.95,
        over_origins=report.over_origins,
        measures={made.backtest.rung: report.measures, **{str(rung): found for rung, found in report.baselines.items()}},
        bands=report.bands,
        slices=report.slices,
        warnings=report.warnings,
        verdicts=verdicts,
        versions=_versions(),
        seed=past.settings.training.seed,
        digests={"config": past.settings.digest(), "events": log.digest},
    )


def by_story(bundle: TargetBundle) -> dict[str, list[str]]:
    """Give the features that a model reads, by the story they tell."""
    found: dict[str, list[str]] = {}
    for name in bundle.features:
        found.setdefault(bundle.groups[name], []).append(name)
    return found


def why_rung(made: Tested) -> str:
    """Say why this rung of the ladder is used, in one sentence."""
    report, rung = made.report, made.backtest.rung
    others = [f"{name} {found.value:.3f}" for name, found in report.ladder.items() if name != rung]
    if rung not in report.ladder:
        return f"{rung}: no test origin holds both labels, so nothing could be compared"
    named, lower = report.measure.replace("_", " "), report.measure in LOWER_IS_BETTER
    own = report.ladder[rung].value
    ahead = [name for name, found in report.ladder.items() if (found.value < own if lower else found.value > own)]
    if ahead:
        return (
            f"{rung} has a mean {named} of {own:.3f} over the test origins ({', '.join(others)}); blends that rank better are more "
            "wrong by log loss, or behind a simpler rung"
        )
    return f"{rung} has the {'lowest' if lower else 'highest'} mean {named} over the test origins, {own:.3f} ({', '.join(others)})"


def _summary(trained: Sequence[Trained]) -> dict[str, float]:
    """Give each target's headline measures, so that trainings can be compared in one list."""
    headline = ("auc", "average_precision", "poisson_deviance", "mean_absolute_error")
    means = {made.target.name: made.tested.report.measures for made in trained}
    return {f"{target}_{name}_mean": found[name].value for target, found in means.items() for name in headline if name in found}


def _parameters(past: Past) -> dict[str, object]:
    log, settings, cutoffs = past.log, past.settings, past.cutoffs
    return {
        "features": len(log.features.numbers),
        "users_learned_from": log.users_there,
        "cutoffs": len(cutoffs),
        "first_cutoff": f"{cutoffs[0]:%Y-%m-%d}",
        "last_cutoff": f"{cutoffs[-1]:%Y-%m-%d}",
        "seed": settings.training.seed,
        "step": window_label(settings.training.step),
        "windows": " ".join(window_label(window) for window in settings.features.windows),
        "windows_beyond_history": " ".join(log.beyond_history) or "none",
    }


def _versions() -> dict[str, str]:
    return {"python": python_version()} | {name: version(name) for name in _MADE_WITH}


def _log_personas(tracker: Tracker, past: Past, personas: Personas, former: Personas | None, matching: Matching | None) -> str:
    with tracker.run(PERSONAS, tags={"kind": "kmeans", "why": personas.why}, nested=True) as run_id:
        params = {
            f"persona_{number}": f"{name} ({share:.1%})"
            for number, name, share in zip(personas.ids, personas.names, personas.shares, strict=True)
        }
        params |= change_params(matching)
        tracker.log(run_id, params={"k": len(personas.ids), **params}, metrics=persona_metrics(personas, matching))
        users = past.active
        tracker.log_figures(persona_figures(personas, users, past.log.features.numbers, seed=past.settings.training.seed))
        tracker.log_text("personas.md", persona_page(personas, former, matching, users=len(users)))
        return tracker.register(PERSONAS, PersonaBundle(personas), PERSONA_OUTPUTS)
