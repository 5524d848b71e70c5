"""Rolling-origin backtest: predict each past origin from what was known before it, and nothing else.

known cutoffs ──horizon──▶│ origin ──horizon──▶      known cutoff + horizon <= origin, for models and calibrators alike
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from features.errors import GateError
from features.windows import words
from models.calibration import FEWEST_BLOCKS, Calibrator, delivered_loss, fit_calibrator, mended
from models.drift import level_drift
from models.intervals import paired
from models.ladder import BLENDS, RUNGS, Model, Recipe, Rung, fit_recipe, fit_rungs, possible, raw_by
from models.metrics import Contact, main_measure, measures, poisson_deviance
from models.propensity import Floats, rarer
from models.season import NO_SEASON, Season

KEYS = ["user_id", "cutoff", "is_test", "label"]
CHAMPION, DISJOINT = "champion", "disjoint"
_FOLDS, _ENOUGH = 3, 100


@dataclass(frozen=True)
class Origin:
    """One instant that is predicted from the `known` cutoffs, whose `horizon` had elapsed; only `is_test` origins are reported."""

    cutoff: datetime
    known: tuple[datetime, ...]
    is_test: bool
    horizon: timedelta

    @property
    def train_cutoffs(self) -> tuple[datetime, ...]:
        """The cutoffs that models learn from."""
        return apart(self.known, self.horizon)


@dataclass(frozen=True)
class Predicted:
    """One origin's predictions: `user_id, cutoff, is_test, label` and the raw score of every rung tried; and the models."""

    rows: pd.DataFrame
    models: Mapping[str, Model]


@dataclass(frozen=True)
class Worth:
    """What a rung is worth, as a mean over test origins.

    `value` is its `main_measure`, turned so that more is better, and `loss` the log loss of its scores as they would be delivered,
    but for their level (see `delivered_loss`; of an amount what is lost is told by its value).
    """

    value: float
    loss: float


@dataclass(frozen=True)
class Backtest:
    """What was predicted at the origins, and what happened.

    `predictions` has one row per user and origin: `user_id, cutoff, is_test, label`, `score` (that of the chosen `rung`,
    calibrated on the latest origins that had elapsed), `drift` (how far the level had moved between all of those), the raw score
    of every rung tried (amounts: scaled like the score), and `champion` and `disjoint` where they were asked for. `calibrator` is
    fitted on the latest origins, for use after them. `by_rung` is what each rung was `worth`. At the test origins that are
    `uncalibrated` too few had elapsed to calibrate the level on.
    """

    predictions: pd.DataFrame
    rung: Rung
    by_rung: Mapping[Rung, Worth]
    calibrator: Calibrator
    is_amount: bool
    contact: Contact | None = None
    uncalibrated: tuple[datetime, ...] = ()

    @property
    def tested(self) -> pd.DataFrame:
        """The rows of the test origins."""
        return self.predictions[self.predictions.is_test]

    @property
    def baselines(self) -> tuple[Rung, ...]:
        """The simple rules that were tried on the same rows."""
        return tuple(rung for rung in ("base_rate", "recency", "rfm") if rung in self.by_rung)

    @property
    def baseline(self) -> Rung:
        """The rule that a model has to beat first: the one of most value among the simple ones."""
        return max(self.baselines, key=lambda rung: self.by_rung[rung].value)

    def by_origin(self, column: str = "score") -> dict[datetime, dict[str, float]]:
        """Give the measures of each test origin, oldest first; `column` is `score`, a rung or `champion`."""
        return {
            cutoff.to_pydatetime(): measures(
                rows.label.to_numpy(), rows[column].to_numpy(), is_amount=self.is_amount, contact=self.contact
            )
            for cutoff, rows in self.tested.groupby("cutoff")
        }

    def mean(self, column: str = "score") -> dict[str, float]:
        """Give the mean of each measure over the test origins where it is defined; `users` is their sum."""
        found = pd.DataFrame(list(self.by_origin(column).values()))
        sums = {name: float(found[name].sum()) for name in ("users", "positives") if name in found}
        return sums | {name: float(found[name].mean()) for name in found if name not in sums}


def plan_origins(
    cutoffs: Sequence[datetime], horizon: timedelta, *, tests: int, calibrations: int, minimum: int = 2
) -> tuple[Origin, ...]:
    """Choose the latest `tests` cutoffs to report, and those before them to calibrate on.

    These are, for each that is reported and for what comes after all, the latest `calibrations` that have elapsed by then. What is
    known at an origin is purged: its horizon has elapsed. An origin needs at least `minimum` such cutoffs.
    Where history is short there are fewer origins.

    Raises GateError when there is not even one.
    """
    ordered = sorted(cutoffs)
    purged = {origin: elapsed(ordered, horizon, origin) for origin in ordered}
    possible_origins = [origin for origin in ordered if len(purged[origin]) >= minimum]
    if not possible_origins:
        raise GateError(
            f"{len(ordered)} training cutoffs leave no origin to test on: one needs {minimum} cutoffs whose horizon "
            f"of {words(horizon)} has elapsed before it. Raise training.max_cutoffs, or shorten the horizon"
        )
    tested = possible_origins[-tests:]
    known = [elapsed(possible_origins, horizon, test) for test in tested]
    latest = [origins[-calibrations:] for origins in (*known, possible_origins)] if calibrations else []
    chosen = sorted(set(tested).union(*latest))
    return tuple(Origin(cutoff, purged[cutoff], cutoff >= tested[0], horizon) for cutoff in chosen)


def elapsed(cutoffs: Iterable[datetime], horizon: timedelta, at: datetime) -> tuple[datetime, ...]:
    """Give the cutoffs whose horizon has elapsed at an instant: of them alone it is known then what happened."""
    return tuple(cutoff for cutoff in cutoffs if cutoff + horizon <= at)


def apart(cutoffs: Sequence[datetime], horizon: timedelta) -> tuple[datetime, ...]:
    """Give the cutoffs to learn from, oldest first: at least a quarter of the horizon apart, counted back from the latest.

    Nearer ones have nearly the same labels: they take time, and a leaf full of copies seems to hold many users.
    """
    kept: list[datetime] = []
    for cutoff in sorted(cutoffs, reverse=True):
        if not kept or kept[-1] - cutoff >= horizon / 4:
            kept.append(cutoff)
    return tuple(reversed(kept))


def at_cutoffs(rows: pd.DataFrame, cutoffs: Collection[datetime]) -> pd.DataFrame:
    """Give the rows of some cutoffs: a view where they lie together, as those of neighbours do in rows sorted by cutoff."""
    here = np.flatnonzero(rows.cutoff.isin(list(cutoffs)))
    lie_together = len(here) > 0 and here[-1] - here[0] + 1 == len(here)
    return rows.iloc[here[0] : here[-1] + 1] if lie_together else rows.iloc[here]


def first_test(plan: Sequence[Origin]) -> Origin:
    """Give the first origin that is reported: what was known before it is all that may settle anything."""
    return next(origin for origin in plan if origin.is_test)


def predict_origin(
    rows: pd.DataFrame,
    recipe: Recipe,
    origin: Origin,
    *,
    is_amount: bool,
    seed: int,
    only: Rung | None = None,
    champion: Recipe | None = None,
) -> Predicted:
    """Fit every rung for which there is enough on the origin's train cutoffs, and predict the origin; or the `only` one asked for.

    `rows` has one row per eligible user and cutoff: `user_id`, `cutoff`, `label` and the features. `champion` is the recipe of the
    model in charge, made anew from the same rows.
    """
    train, test = _split(rows, origin)
    found = test[["user_id", "cutoff", "label"]].assign(is_test=origin.is_test)[KEYS]
    if len(test) == 0 or len(train) == 0:
        return Predicted(found.head(0), {})
    rungs = [rung for rung in possible(train.label, recipe, is_amount=is_amount) if only in (None, rung)]
    fitted = fit_rungs(train, train.label, rungs, recipe, is_amount=is_amount, seed=seed)
    models: dict[str, Model] = {str(rung): model for rung, model in fitted.items()}
    if champion is not None and champion.rung in possible(train.label, champion, is_amount=is_amount):
        models[CHAMPION] = fit_recipe(train, train.label, champion, is_amount=is_amount, seed=seed)
    return Predicted(found.assign(**raw_by(models, test)), models)


def moved(predicted: Predicted, season: Season, *, is_amount: bool) -> Predicted:
    """Move the scores of an origin to what the season foresees of it, where there is one."""
    if not season.levels or predicted.rows.empty:
        return predicted
    cutoff = predicted.rows.cutoff.iloc[0]
    raw = {name: predicted.rows[name].to_numpy(dtype=np.float64) for name in predicted.models}
    told = {name: season.around(score, cutoff, is_amount=is_amount) for name, score in raw.items()}
    scores = {name: told[name].moved(score, cutoff, is_amount=is_amount) for name, score in raw.items()}
    return replace(predicted, rows=predicted.rows.assign(**scores))


@dataclass(frozen=True)
class Compared:
    """What was predicted, its scores moved by the `season` if there is one, and what each rung is worth then."""

    predicted: tuple[Predicted, ...]
    by_rung: Mapping[Rung, Worth]
    season: Season

    def beside(self, earlier: Sequence[Predicted], *, is_amount: bool) -> "Compared":
        """Add what was predicted at earlier origins, to calibrate on."""
        return replace(self, predicted=(*self.predicted, *(moved(part, self.season, is_amount=is_amount) for part in earlier)))


def compare(predicted: Sequence[Predicted], season: Season, horizon: timedelta, *, is_amount: bool, calibrations: int) -> Compared:
    """Compare the rungs, with a season if scores of the best one were less wrong by it at the test origins, else without.

    Levels of dates long past tell that it returned; whether models know it by themselves, and whether it went on, is seen here.
    Less wrong is by log loss, of amounts by Poisson's deviance.

    Raises GateError when no test origin has a row.
    """

    def by(tried: Season) -> Compared:
        parts = tuple(moved(part, tried, is_amount=is_amount) for part in predicted)
        return Compared(parts, worth(parts, horizon, is_amount=is_amount, calibrations=calibrations), tried)

    def wrong(found: Compared) -> float:
        rung = best(found.by_rung)
        if is_amount:
            return found.by_rung[rung].loss
        tested = [part.rows for part in found.predicted if part.rows.is_test.any()]
        return float(np.mean([log_loss(rows.label, rows[rung], labels=[0, 1]) for rows in tested]))

    tried = (NO_SEASON, season) if season.levels else (NO_SEASON,)
    return min((by(one) for one in tried), key=wrong)


def beside_champion(predicted: Predicted, other: Predicted) -> Predicted:
    """Add what a champion said of the same origin beside another recipe, where it did."""
    if CHAMPION not in other.models:
        return predicted
    rows = predicted.rows.assign(**{CHAMPION: other.rows[CHAMPION]})
    return Predicted(rows, {**predicted.models, CHAMPION: other.models[CHAMPION]})


def surely_less_wrong(tried: Compared, usual: Compared, *, seed: int) -> bool:
    """Whether the best rung of a recipe is surely less wrong at the test origins than that of another, and not by its level alone.

    By log loss, for sure by a paired bootstrap over users; and no more may be left once the level and the slope of each origin are
    mended, since these are luck where few dates are tested. Not where fewer than 100 of the rarer label were tested.
    """
    one, other = (
        pd.concat([part.rows for part in found.predicted if part.rows.is_test.any()]).rename(columns={best(found.by_rung): name})
        for found, name in ((tried, "tried"), (usual, "usual"))
    )
    if rarer(one.label, is_amount=False) < _ENOUGH:
        return False
    both = one[[*KEYS, "tried"]].assign(usual=other.usual.to_numpy())
    by_origin = [
        rows.assign(**{name: mended(rows[name].to_numpy(), rows.label.to_numpy()) for name in ("tried", "usual")})
        for _, rows in both.groupby("cutoff")
    ]
    as_it_is, known = (
        paired(rows, "tried", "usual", is_amount=False, measure="log_loss", seed=seed) for rows in (both, pd.concat(by_origin))
    )
    return as_it_is.high < 0 and known.value <= 0


def worth(predicted: Sequence[Predicted], horizon: timedelta, *, is_amount: bool, calibrations: int) -> dict[Rung, Worth]:
    """Give what each rung is worth over the test origins, simplest rung first.

    Of the rungs that had enough to learn from at every test origin. Where the measure is defined at none it is 0. Amounts are
    measured as they would be delivered, which takes every rung at the origins before as well.

    Raises GateError when no test origin has a row.
    """
    pooled = _pooled(predicted, horizon, is_amount=is_amount, calibrations=calibrations)
    tested = pooled[pooled.is_test]
    if tested.empty:
        raise GateError("no test origin has a row to predict: nobody was eligible then")
    return {rung: _worth(tested, rung, is_amount=is_amount) for rung in RUNGS if rung in tested and tested[rung].notna().all()}


def best(by_rung: Mapping[Rung, Worth]) -> Rung:
    """Climb the ladder: a rung is taken whose value is above that of all simpler ones, so that it loses to none of them.

    Of a blend the loss has to be no more than that of the rung in use: a mean may rank a little better and say much less.

    >>> best({"base_rate": Worth(0.1, 0.7), "rfm": Worth(0.3, 0.6), "lightgbm": Worth(0.3, 0.5), "blend": Worth(0.4, 0.65)})
    'rfm'
    """
    found, *others = (rung for rung in RUNGS if rung in by_rung)
    most = by_rung[found].value
    for rung in others:
        told = by_rung[rung]
        if told.value > most and (rung not in BLENDS or told.loss <= by_rung[found].loss):
            found = rung
        most = max(most, told.value)
    return found


def predict_disjoint(rows: pd.DataFrame, recipe: Recipe, origin: Origin, *, is_amount: bool, seed: int) -> pd.Series:
    """Predict each user of an origin by a model that never saw that user, in thirds of the users: `user_id` to raw score.

    Beside the usual scores it tells how much is memory of the users: null where too little is left to learn from.
    """
    train, test = _split(rows, origin)
    # By the user's id alone, so that a user is always in the same third.
    fold_of = {user: fold for user, fold in zip(*_folds(rows.user_id), strict=True)}
    parts = []
    for fold in range(_FOLDS):
        others, own = train[train.user_id.map(fold_of) != fold], test[test.user_id.map(fold_of) == fold]
        is_possible = recipe.rung in possible(others.label, recipe, is_amount=is_amount)
        raw = fit_recipe(others, others.label, recipe, is_amount=is_amount, seed=seed).raw(own) if is_possible else np.nan
        parts.append(pd.Series(raw, index=own.user_id))
    return pd.concat(parts)


def assemble(
    predicted: Sequence[Predicted],
    by_rung: Mapping[Rung, Worth],
    rung: Rung,
    horizon: timedelta,
    *,
    is_amount: bool,
    calibrations: int,
    contact: Contact | None = None,
) -> Backtest:
    """Calibrate the score of a rung at each origin on the latest origins (at most `calibrations`) that had elapsed before it.

    `by_rung` is what each rung is `worth`.
    """
    raw = _raw(predicted)
    found = calibrated(raw, rung, horizon, is_amount=is_amount, calibrations=calibrations)
    pooled = _pooled(predicted, horizon, is_amount=is_amount, calibrations=calibrations)
    pooled = pooled.assign(score=found.score, drift=found.drift)
    tests = sorted(pooled.cutoff[pooled.is_test].unique())
    predicted_at = pd.Series(pooled.cutoff[pooled[rung].notna()].unique())
    needed = FEWEST_BLOCKS if calibrations else 0
    used = {test: min(int((predicted_at + horizon <= test).sum()), calibrations) for test in tests}
    uncalibrated = tuple(test.to_pydatetime() for test in tests if used[test] < needed)
    return Backtest(pooled, rung, by_rung, found.calibrator, is_amount, contact, uncalibrated)


@dataclass(frozen=True)
class Calibrated:
    """Scores of each row, calibrated on earlier origins only; the `drift` known then; and the calibrator for what comes next."""

    score: pd.Series
    drift: pd.Series
    calibrator: Calibrator


def calibrated(pooled: pd.DataFrame, column: str, horizon: timedelta, *, is_amount: bool, calibrations: int) -> Calibrated:
    """Calibrate raw scores at each origin on the latest earlier ones, and fit the calibrator for what comes next.

    At most `calibrations` origins take part, since older ones say less of a level that moves. Rows come in the order of cutoff and
    user. A raw score that is null stays so. Amounts are left alone where scaling made the test origins worse. `drift` is how far
    the level had moved between all earlier origins (see `models.drift`), null for amounts.
    """
    ordered = pooled.sort_values(["cutoff", "user_id"], ignore_index=True)
    score, drift = (pd.Series(np.nan, index=ordered.index) for _ in range(2))
    for cutoff in ordered.cutoff.unique():
        here = ordered.cutoff == cutoff
        known = ordered[(ordered.cutoff + horizon <= cutoff) & ordered[column].notna()]
        calibrate = _fit(known, column, horizon, is_amount=is_amount, calibrations=calibrations)
        score[here] = _bent(ordered[column][here], calibrate)
        if not is_amount:
            told = known.groupby("cutoff")[column].transform(_bent, calibrate).to_numpy(dtype=np.float64)
            drift[here] = level_drift(told, known.label.to_numpy(dtype=np.float64), known.cutoff.to_numpy())
    if is_amount and not _scaling_helped(ordered, column, score):
        return Calibrated(ordered[column], drift, Calibrator())
    everything = ordered[ordered[column].notna()]
    return Calibrated(score, drift, _fit(everything, column, horizon, is_amount=is_amount, calibrations=calibrations))


def _bent(raw: pd.Series, calibrate: Calibrator) -> Floats:
    """Calibrate the scores of one origin, at their own level."""
    score = raw.to_numpy(dtype=np.float64)
    return calibrate.around(score)(score)


def _scaling_helped(ordered: pd.DataFrame, column: str, scaled: pd.Series) -> bool:
    """Whether amounts that were scaled by what was known lay nearer to what happened, over the test origins."""
    tested = ordered.is_test & ordered[column].notna()
    rows = pd.DataFrame({"cutoff": ordered.cutoff, "label": ordered.label, "raw": ordered[column], "scaled": scaled})[tested]
    losses = [
        [poisson_deviance(at.label.to_numpy(), at[name].to_numpy()).mean() for name in ("raw", "scaled")]
        for _, at in rows.groupby("cutoff")
    ]
    raw, by_scale = np.mean(losses, axis=0) if losses else (0.0, 0.0)
    return bool(by_scale < raw)


def _fit(known: pd.DataFrame, column: str, horizon: timedelta, *, is_amount: bool, calibrations: int) -> Calibrator:
    latest = known[known.cutoff.isin(sorted(known.cutoff.unique())[-calibrations:])] if calibrations else known.head(0)
    blocks = latest.cutoff.to_numpy()
    raw, label = latest[column].to_numpy(), latest.label.to_numpy()
    return fit_calibrator(raw, label, is_amount=is_amount, blocks=blocks, horizon=horizon)


def _raw(predicted: Sequence[Predicted]) -> pd.DataFrame:
    return pd.concat([part.rows for part in predicted]).sort_values(["cutoff", "user_id"], ignore_index=True)


def _pooled(predicted: Sequence[Predicted], horizon: timedelta, *, is_amount: bool, calibrations: int) -> pd.DataFrame:
    """Give the rows of all origins with the score of every rung, of amounts scaled: a level that is off would choose otherwise."""
    raw = _raw(predicted)
    if not is_amount:
        return raw
    tried = [rung for rung in RUNGS if rung in raw]
    return raw.assign(**{rung: calibrated(raw, rung, horizon, is_amount=True, calibrations=calibrations).score for rung in tried})


def _worth(tested: pd.DataFrame, column: str, *, is_amount: bool) -> Worth:
    """Measure a column at each origin, and give the means; a measure that is defined at none is 0."""
    name = main_measure(is_amount=is_amount)
    blocks = [rows for _, rows in tested.groupby("cutoff")]
    told = [(rows.label.to_numpy(dtype=np.float64), rows[column].to_numpy(dtype=np.float64)) for rows in blocks]
    found = [measures(label, score, is_amount=is_amount) for label, score in told]
    values = [at[name] for at in found if name in at]
    value = float(np.mean(values)) if values else 0.0
    if is_amount:
        return Worth(-value, value)
    return Worth(value, float(np.mean([delivered_loss(score, label) for label, score in told])))


def _split(rows: pd.DataFrame, origin: Origin) -> tuple[pd.DataFrame, pd.DataFrame]:
    # What is kept of an origin is a copy: a view would hold on to the rows of all cutoffs.
    return at_cutoffs(rows, origin.train_cutoffs), rows[rows.cutoff == origin.cutoff]


def _folds(users: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    distinct = users.unique()
    return distinct, (pd.util.hash_array(np.asarray(distinct, dtype=object)) % _FOLDS).astype(int)
