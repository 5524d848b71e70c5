"""How models are trained, tested, put in charge and used: `training`, `gates`, and what targets say of their use."""

from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.strict import Duration, Name, Strict


class TrainingSettings(Strict):
    """Which past cutoffs models learn from and are tested on."""

    step: Duration = Field(timedelta(days=14), description="Distance between training cutoffs.")
    min_history: Duration = Field(timedelta(days=84), description="How much history must lie before the first training cutoff.")
    max_cutoffs: int = Field(52, ge=3, description="Most training cutoffs, counted back from the latest.")
    most_rows: int = Field(
        500_000,
        ge=1_000,
        description="Rows (a user at a cutoff) that models learn from and are tested on, about; of larger logs a sample of users.",
    )
    test_origins: int = Field(5, ge=1, description="Latest cutoffs that models are tested on, each unseen by its model.")
    calibration_origins: int = Field(
        4, ge=0, description="Latest cutoffs that have elapsed before an origin, on which its scores are calibrated; 0 for none."
    )
    disjoint_users: bool = Field(
        False,
        description="Test each origin again on users left out of its training, to measure memorising; takes twice the time.",
    )
    slices: tuple[Name, ...] = Field(
        (), description="Features by whose values the tests are told apart too, beside tenure and journey stage."
    )
    every: Duration = Field(timedelta(days=28), description="Age of the latest training at which `nightly` trains again.")
    jobs: int = Field(2, ge=1, description="Models fitted side by side, one thread each.")
    seed: int = Field(7, ge=0, lt=2**31, description="Seed of everything that draws at random.")


class GateSettings(Strict):
    """What a challenger must pass to become champion."""

    metric: Literal["average_precision", "auc", "log_loss", "brier"] = Field(
        "average_precision",
        description="Measure on which a challenger may not be worse than the champion; amounts: poisson_deviance.",
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="How sure a difference must be, by a paired bootstrap over users, to count as worse."
    )
    max_calibration_error: float = Field(
        0.05, gt=0, le=1, description="Calibration error of the pooled test origins that may not be exceeded for sure."
    )
    max_calibration_share: float = Field(
        0.5, gt=0, description="The same as a share of how often the rarer label came: where that is 1 %, 0.05 would say nothing."
    )
    max_swing: float = Field(
        0.5,
        gt=0,
        le=1,
        description="How far skill at the worst test origin may surely fall below the mean of the others, as a share of it.",
    )


class ContactSettings(Strict):
    """What contacting the users with the highest scores may bring and costs."""

    capacity: int | None = Field(None, ge=1, description="How many users can be contacted; tests measure precision among so many.")
    value: float | None = Field(None, gt=0, description="What it is worth to contact a user whose label is 1.")
    cost: float = Field(0.0, ge=0, description="What one contact costs.")


def _four_rising(cuts: tuple[float, ...]) -> tuple[float, ...]:
    if len(cuts) != 4 or any(low >= high for low, high in pairwise(cuts)):
        raise ValueError("bands: four rising scores cut five bands, such as [0.05, 0.1, 0.2, 0.4]")
    return cuts


Cuts = Annotated[tuple[float, ...], AfterValidator(_four_rising)]
BandSettings = Literal["fifths", "capacity"] | Cuts
BANDS_TOLD = (
    "What very_low to very_high mean: fifths of tonight's users, four rising scores to cut at, or capacity "
    "(the contact.capacity highest are very_high, as many more are high, and so on; the rest are very_low)."
)
