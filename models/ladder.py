"""The ladder: from a base rate to a blend, each rung a model that must beat the simpler ones to be used.

    base_rate  →  recency  →  rfm  →  logistic  →  lightgbm  →  recency_blend, rfm_blend, blend

A rung needs enough of both labels to be tried. All rungs speak on one scale: the log-odds of a probability, or the logarithm of an
amount; a blend is the mean of LightGBM and another rung on that scale, so its contributions are the mean of theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import lightgbm
import numpy as np
import pandas as pd
from joblib import cpu_count
from scipy.special import expit, logit

from features.families.outcomes import RFM
from models.linear import Linear, fit_linear
from models.propensity import LEAVES, PARAMETERS, RATE, ROUNDS, Bins, Floats, fit_booster, log_odds, raw_scores
from models.reasons import contributions

Rung = Literal["base_rate", "recency", "rfm", "logistic", "lightgbm", "recency_blend", "rfm_blend", "blend"]
# What LightGBM is blended with.
BLENDS: Mapping[Rung, Rung] = {"recency_blend": "recency", "rfm_blend": "rfm", "blend": "logistic"}
# Simplest first; `recency` is a rule to be beaten, and in use where nothing else can be learned.
RUNGS: tuple[Rung, ...] = ("base_rate", "recency", "rfm", "logistic", "lightgbm", *BLENDS)
# Of each label (of an amount: of rows with and without one), so many are needed to learn a rung.
NEEDED: Mapping[Rung, int] = {rung: 100 for rung in RUNGS} | {"base_rate": 0, "recency": 10, "rfm": 20}
WEAK, STRONG = 1e-4, 1e-2
_EDGE, _SMALLEST_AMOUNT = 1e-9, 1e-6


@dataclass(frozen=True)
class Recipe:
    """How a target's model is made: with the same rows and seed it gives the same model.

    `leaves`, `rounds` and `rate` are LightGBM's for as much as there is to learn from; `parameters` replace some of its settings.
    `monotone` maps features to 1 (the score may only rise) or -1. `recency` and `rfm` are what the rungs of these names read, as
    far as it is among the features. `within_dates` tells whether models of a probability leave aside what changed from one cutoff
    to another, instead of putting it down to what users had more of at the later ones, such as a longer history.
    """

    rung: Rung
    features: tuple[str, ...]
    rounds: int = ROUNDS
    leaves: int = LEAVES
    rate: float = RATE
    parameters: Mapping[str, Any] = field(default_factory=dict)
    monotone: Mapping[str, int] = field(default_factory=dict)
    recency: tuple[str, ...] = RFM[:1]
    rfm: tuple[str, ...] = RFM
    within_dates: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """LightGBM's settings."""
        return {**PARAMETERS, "num_leaves": self.leaves, "learning_rate": self.rate, **self.parameters}

    def read_by(self, rung: Rung) -> list[str]:
        """Give the features that a rung reads; none for a blend of which one part reads none."""
        if rung in BLENDS:
            return list(self.features) if self.read_by(BLENDS[rung]) else []
        told = {"base_rate": (), "recency": self.recency, "rfm": self.rfm}.get(rung, self.features)
        return [name for name in told if name in self.features]


@dataclass(frozen=True)
class Constant:
    """Everybody gets the same: what happened on average, a little towards the middle where there are few rows."""

    value: float

    @property
    def features(self) -> tuple[str, ...]:
        """None are read."""
        return ()

    def raw(self, frame: pd.DataFrame) -> Floats:
        """Give the one value for each row."""
        return np.full(len(frame), self.value)

    def contributions(self, frame: pd.DataFrame) -> Floats:
        """Give rows × no features."""
        return np.zeros((len(frame), 0))


@dataclass(frozen=True)
class Trees:
    """A LightGBM model, predicting with that many `threads`; 0 are as many as there are cores."""

    booster: lightgbm.Booster
    threads: int = 0

    @property
    def features(self) -> tuple[str, ...]:
        """The features that it reads, in order."""
        return tuple(self.booster.feature_name())

    def raw(self, frame: pd.DataFrame) -> Floats:
        """Give the probability or amount of each row, before calibration."""
        return raw_scores(self.booster, frame, threads=self.threads)

    def contributions(self, frame: pd.DataFrame) -> Floats:
        """Give rows × features: the exact Tree SHAP values."""
        return contributions(self.booster, frame)


@dataclass(frozen=True)
class Blend:
    """The mean of trees and a linear model, on the scale of log-odds or logarithms."""

    trees: Trees
    linear: Linear

    @property
    def features(self) -> tuple[str, ...]:
        """The features that it reads: those of the trees, of which the linear model reads some."""
        return self.trees.features

    def raw(self, frame: pd.DataFrame) -> Floats:
        """Give the probability or amount of each row, before calibration."""
        return self.mean(self.trees.raw(frame), self.linear.raw(frame, threads=self.trees.threads or cpu_count()))

    def mean(self, trees: Floats, linear: Floats) -> Floats:
        """Give what it says where its parts say this."""
        return blended(trees, linear, is_amount=self.linear.is_amount)

    def contributions(self, frame: pd.DataFrame) -> Floats:
        """Give rows × features: the mean of both models' contributions."""
        found = self.trees.contributions(frame) / 2
        place = {name: at for at, name in enumerate(self.features)}
        found[:, [place[name] for name in self.linear.features]] += self.linear.contributions(frame) / 2
        return found


Model = Constant | Linear | Trees | Blend


def blended(one: Floats, other: Floats, *, is_amount: bool) -> Floats:
    """Give the mean of two probabilities on the scale of log-odds, or of two amounts on that of logarithms.

    >>> blended(np.array([0.1]), np.array([0.9]), is_amount=False)
    array([0.5])
    """
    if is_amount:
        return np.asarray(np.exp((np.log(one.clip(_SMALLEST_AMOUNT)) + np.log(other.clip(_SMALLEST_AMOUNT))) / 2))
    return np.asarray(expit((logit(one.clip(_EDGE, 1 - _EDGE)) + logit(other.clip(_EDGE, 1 - _EDGE))) / 2))


def raw_by(models: Mapping[str, Model], frame: pd.DataFrame) -> dict[str, Floats]:
    """Give what each model says of each row, as its own `raw` does; what blends share is asked once."""
    said: dict[int, Floats] = {}

    def ask(model: Model) -> Floats:
        if id(model) not in said:
            said[id(model)] = model.mean(ask(model.trees), ask(model.linear)) if isinstance(model, Blend) else model.raw(frame)
        return said[id(model)]

    return {name: ask(model) for name, model in models.items()}


def possible(label: pd.Series, recipe: Recipe, *, is_amount: bool) -> tuple[Rung, ...]:
    """Give the rungs that there is enough of each label for, and something to read, simplest first; `recipe.rung` is left aside."""
    positives = int((label > 0).sum()) if is_amount else int(label.sum())
    # Where everybody spends something there is still an amount to learn.
    least = positives if is_amount else min(positives, len(label) - positives)
    return tuple(rung for rung in RUNGS if least >= NEEDED[rung] and (rung == "base_rate" or recipe.read_by(rung)))


def fit_rungs(
    x: pd.DataFrame, y: pd.Series, rungs: Sequence[Rung], recipe: Recipe, *, is_amount: bool, seed: int
) -> dict[Rung, Model]:
    """Fit some rungs on the same rows; a blend shares its parts with the rungs below it. `recipe.rung` is left aside.

    `x` has the features, and `cutoff` where the recipe is `within_dates`.
    """
    found: dict[Rung, Model] = {}
    wanted = {*rungs, *(part for rung in rungs if rung in BLENDS for part in ("lightgbm", BLENDS[rung]))}
    for rung in (rung for rung in RUNGS if rung in wanted):
        names = recipe.read_by(rung)
        match rung:
            case "base_rate":
                found[rung] = Constant(float(y.mean()) if is_amount else (float(y.sum()) + 0.5) / (len(y) + 1))
            case "recency" | "rfm":
                found[rung] = fit_linear(x[names], y, is_amount=is_amount, strength=WEAK, seed=seed, monotone=recipe.monotone)
            case "logistic":
                found[rung] = fit_linear(
                    x[names],
                    y,
                    is_amount=is_amount,
                    strength=STRONG,
                    seed=seed,
                    monotone=recipe.monotone,
                    stays_within=True,
                    levels=_levels(x, y, recipe, is_amount=is_amount),
                )
            case "lightgbm":
                found[rung] = fit_trees(x, y, recipe, is_amount=is_amount, seed=seed)
            case _:
                trees, linear = found["lightgbm"], found[BLENDS[rung]]
                assert isinstance(trees, Trees) and isinstance(linear, Linear)
                found[rung] = Blend(trees, linear)
    return {rung: model for rung, model in found.items() if rung in rungs}


def fit_trees(x: pd.DataFrame, y: pd.Series, recipe: Recipe, *, is_amount: bool, seed: int, bins: Bins | None = None) -> Trees:
    """Fit LightGBM alone; of a probability, fits to the same rows and features may share their `bins`."""
    booster = fit_booster(
        x,
        y,
        is_amount=is_amount,
        seed=seed,
        features=recipe.features,
        rounds=recipe.rounds,
        parameters=recipe.settings,
        monotone=recipe.monotone,
        levels=_levels(x, y, recipe, is_amount=is_amount),
        bins=bins,
    )
    # One thread, as in the fits beside it: LightGBM has one number of threads for all, and one that changes while another fit fills
    # its bins ends the process.
    return Trees(booster, threads=1)


def fit_recipe(x: pd.DataFrame, y: pd.Series, recipe: Recipe, *, is_amount: bool, seed: int) -> Model:
    """Fit the one model of a recipe."""
    return fit_rungs(x, y, [recipe.rung], recipe, is_amount=is_amount, seed=seed)[recipe.rung]


def _levels(x: pd.DataFrame, y: pd.Series, recipe: Recipe, *, is_amount: bool) -> Floats | None:
    """Give each row the log-odds of all rows of its cutoff, if dates are to be left aside and there are several."""
    if is_amount or not recipe.within_dates:
        return None
    by_cutoff = y.groupby(x["cutoff"])
    if by_cutoff.ngroups < 2:
        return None
    return log_odds(by_cutoff.transform("sum"), by_cutoff.transform("size"))


def finite(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn infinities into unknown values: no feature means one, and a model would take it for the largest of all."""
    infinite = np.isinf(frame.to_numpy(dtype=np.float64))
    return frame.mask(infinite) if infinite.any() else frame
