"""What targets ask: at which cutoffs, of how many users, and how often the answer was yes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis.expr.types as ir
import pandas as pd
from ibis import _

from features.errors import GateError
from features.labels import Target, build_labels
from features.windows import label as window_label
from features.windows import words
from models.backtest import Origin, elapsed, plan_origins
from models.ladder import NEEDED
from pipeline.events import EventLog, midnight
from pipeline.settings import Settings


@dataclass(frozen=True)
class Question:
    """A target, and what is known of its answers.

    `cutoffs` has a row for each cutoff (its index) at which somebody was asked and whose horizon has elapsed: of how many `rows`
    there is a label, how many `some` are above zero, their `total`, and the `least` and the `most` of them.
    """

    target: Target
    cutoffs: pd.DataFrame

    @property
    def rows(self) -> int:
        """How many labels there are: one for each user who was asked and cutoff."""
        return int(self.cutoffs.rows.sum())

    @property
    def some(self) -> int:
        """How many of them are above zero."""
        return int(self.cutoffs.some.sum())

    @property
    def mean(self) -> float | None:
        """The share that was yes, or the mean amount; None without labels."""
        # Engines add up floats in another order each time.
        return round(float(self.cutoffs.total.sum()) / self.rows, 6) if self.rows else None

    @property
    def refusal(self) -> str | None:
        """Say why nothing can be learned from the labels; None where something can."""
        if not self.rows:
            until = " and eligible.until, which ends it for whoever met it since" if self.target.eligible.until else ""
            return f"nobody is eligible; widen eligible.active_within or check eligible.events{until}"
        if self.cutoffs.least.min() < 0 and self.cutoffs.most.max() <= 0:
            return (
                f"in all {self.rows:,} rows the {self.target.measure} is 0 or less, which cannot be learned; "
                "where money that goes out has a minus, turn its sign in the SQL"
            )
        return None

    @property
    def only(self) -> str | None:
        """Say which label all rows have; None where they differ, or there are none."""
        least = self.cutoffs.least.min()
        return f"the label is {least:g} in all {self.rows:,} rows" if self.rows and least == self.cutoffs.most.max() else None

    @property
    def flat(self) -> str | None:
        """Say that all rows have one label, and what that means."""
        return (
            self.only
            and f"{self.only}; there is nothing to tell apart, and everybody gets the same score. A longer horizon may help"
        )

    @property
    def few(self) -> str | None:
        """Say that the rarer answer is too rare to learn from every feature; None where it is not."""
        is_amount = self.target.is_amount
        rarer = self.some if is_amount else min(self.some, self.rows - self.some)
        if rarer >= NEEDED["lightgbm"]:
            return None
        which = "above 0" if is_amount or rarer == self.some else "0"
        return (
            f"only {rarer:,} of {self.rows:,} labels are {which}, and a user has one at every cutoff: models of all features need "
            f"{NEEDED['lightgbm']} before the first test, of RFM {NEEDED['rfm']}; with fewer, scores are those of simpler rules"
        )


def question_of(log: EventLog, target: Target, labels: ir.Table) -> Question:
    """Count the labels of a target (see `features.labels.build_labels`)."""
    label = labels.label
    told = labels.group_by("cutoff").agg(
        rows=_.count(), some=(label > 0).sum(), total=label.sum(), least=label.min(), most=label.max()
    )
    return Question(target, log.engine.execute(told).set_index("cutoff").sort_index())


def labels_of(log: EventLog, target: Target, cutoffs: Iterable[datetime]) -> ir.Table:
    """Label whoever a target asks about at each cutoff whose horizon has elapsed."""
    return build_labels(log.events, target, elapsed(cutoffs, target.horizon, midnight(log.as_of)))


def plan_of(asked: Question, settings: Settings) -> tuple[Origin, ...]:
    """Choose the origins that a target is tested at, and those that it is calibrated on.

    Raises GateError when there is not even one.
    """
    training, target = settings.training, asked.target
    cutoffs = [cutoff.to_pydatetime() for cutoff in asked.cutoffs.index]
    try:
        return plan_origins(
            cutoffs, target.horizon, tests=training.test_origins, calibrations=training.calibration_origins, minimum=1
        )
    except GateError as error:
        raise GateError(f"{target.name}: {error}") from None


def training_cutoffs(log: EventLog, settings: Settings, targets: Sequence[Target]) -> list[datetime]:
    """Give the cutoffs to learn from, oldest first: the latest one's shortest horizon has just elapsed at `as_of`.

    Raises GateError when the history holds fewer than the three that training and one test need.
    """
    training, shortest = settings.training, min(target.horizon for target in targets)
    latest, earliest = midnight(log.as_of) - shortest, log.since + training.min_history
    count = int((latest - earliest) / training.step) + 1 if latest >= earliest else 0
    longest = max(targets, key=lambda target: target.horizon)
    needed, covered = _history_needed(longest, settings), _history(log)
    if covered < needed:
        raise GateError(
            f"the history before {log.as_of} covers {words(covered)}, training needs {words(needed)}: training.min_history "
            f"({window_label(training.min_history)}), two of the longest horizon ({window_label(longest.horizon)}, of "
            f"{longest.name}) and two steps ({window_label(training.step)}); shorten them in the config, or wait for more events"
        )
    return [latest - training.step * index for index in reversed(range(min(count, training.max_cutoffs)))]


def with_history(log: EventLog, settings: Settings, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Leave out targets whose horizon is too long for the history."""
    return tuple(target for target in targets if _history_needed(target, settings) <= _history(log))


def _history(log: EventLog) -> timedelta:
    return timedelta(days=(midnight(log.as_of) - log.since).days)


def _history_needed(target: Target, settings: Settings) -> timedelta:
    training = settings.training
    return training.min_history + 2 * target.horizon + 2 * training.step
