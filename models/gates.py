"""Gates: what a challenger must pass to become champion, from plain numbers; each gives a verdict that a person can read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite

from features.errors import listed
from models.intervals import Interval

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "mean_absolute_error", "poisson_deviance"})
# Two origins cannot tell which of them is the odd one.
_FEWEST_ORIGINS = 3


def turned(difference: Interval, measure: str) -> Interval:
    """Turn a difference in a measure so that above zero is better, or turn such a one back.

    >>> turned(Interval(-2.0, -3.0, -1.0), "mean_absolute_error")
    Interval(value=2.0, low=1.0, high=3.0)
    """
    return -difference if measure in LOWER_IS_BETTER else difference


@dataclass(frozen=True)
class Verdict:
    """What one gate decided, and why in one sentence."""

    gate: str
    passed: bool
    said: str


def not_worse(difference: Interval | None, *, measure: str, against: str = "the champion") -> Verdict:
    """Refuse a challenger whose paired difference lies wholly on the worse side; no difference means that there was no champion.

    `difference` is challenger less champion in `measure`, on the same origins and users. A difference that is not a number decides
    nothing, and passes.

    >>> not_worse(Interval(-0.02, -0.03, -0.01), measure="auc").said
    'auc is worse than that of the champion for sure: by -0.0200 (-0.0300 to -0.0100)'
    """
    if difference is None:
        return Verdict("not worse", True, "there was no champion")
    if not (isfinite(difference.low) and isfinite(difference.high)):
        return Verdict(
            "not worse", True, f"{measure} could not be compared with that of {against}: it is not defined on these rows"
        )
    ahead = turned(difference, measure)
    is_worse, is_better = ahead.high < 0, ahead.low > 0
    found = (
        "worse than that of {} for sure: by"
        if is_worse
        else "better than that of {}: by"
        if is_better
        else "as good as that of {}:"
    )
    return Verdict("not worse", not is_worse, f"{measure} is {found.format(against)} {_told(difference)}")


def not_comparable(why: str, difference: Interval | None, *, measure: str, instead: str) -> Verdict:
    """Pass where the champion cannot be asked on these rows (`why`), and tell what `instead` it was compared with.

    >>> not_comparable("it reads 2 features that are not built", None, measure="auc", instead="the RFM rule").said
    'the champion cannot be compared (it reads 2 features that are not built); nothing was there to compare with instead'
    """
    said = f"the champion cannot be compared ({why})"
    if difference is None:
        return Verdict("not worse", True, f"{said}; nothing was there to compare with instead")
    return Verdict("not worse", True, f"{said}; instead, {not_worse(difference, measure=measure, against=instead).said}")


def tells_apart(only_label: float | None, *, replaces: str | None) -> Verdict:
    """Refuse a model of rows that all have one label (`only_label`) where it would take the place of one that knew two.

    `replaces` is the rung in charge, null where there is none.

    >>> tells_apart(0.0, replaces="lightgbm").said
    'the label is 0 in all rows to learn from; the model in charge (lightgbm) has seen others'
    """
    if only_label is None:
        return Verdict("labels", True, "there are several to tell apart")
    said = f"the label is {only_label:g} in all rows to learn from"
    if replaces in (None, "base_rate"):
        return Verdict("labels", True, f"{said}: everybody gets the same score")
    return Verdict("labels", False, f"{said}; the model in charge ({replaces}) has seen others")


def calibrated(error: Interval | None, *, rarer: float, most: float, share: float) -> Verdict:
    """Refuse probabilities whose expected calibration error over the pooled test origins is above what is allowed for sure.

    Allowed is `most`, and no more than a `share` of how often the `rarer` label came: where that is one user in a hundred, saying 0
    to everybody has an error of 0.01.

    >>> calibrated(Interval(0.07, 0.04, 0.1), rarer=0.2, most=0.05, share=0.5).passed
    True
    >>> calibrated(Interval(0.009, 0.007, 0.012), rarer=0.01, most=0.05, share=0.5).passed
    False
    """
    if error is None or not isfinite(error.low):
        return Verdict("calibration", True, "the calibration error is not defined: the test origins hold one class only")
    allowed = min(most, share * rarer)
    limit, digits = (f"{most:g}", 3) if allowed == most else (f"{allowed:.4f} ({share:.0%} of the rarer label's rate)", 4)
    value, low, high = (f"{bound:.{digits}f}" for bound in (error.value, error.low, error.high))
    found = f"the calibration error of all origins together is {value} ({low} to {high})"
    if error.low > allowed:
        return Verdict("calibration", False, f"{found}, surely above the allowed {limit}")
    above = "above, though not for sure, the allowed" if error.value > allowed else "allowed is"
    return Verdict("calibration", True, f"{found}, {above} {limit}")


def amounts_told(error: Interval | None) -> Verdict:
    """Tell the decile-total error of amounts; it is no gate.

    A few large orders move the total of a decile by more than any model does, so that no one limit suits every shop; an amount
    that is off shows in poisson_deviance, which is held against the champion.
    """
    if error is None or not isfinite(error.value):
        return Verdict("calibration", True, "the totals of deciles are not defined: nothing was spent")
    return Verdict(
        "calibration",
        True,
        f"the totals of deciles are off by {error.value:.1%} ({error.low:.1%} to {error.high:.1%}); told, not gated",
    )


def stable(found: Mapping[datetime, Interval], *, measure: str, max_swing: float, references: Mapping[datetime, float]) -> Verdict:
    """Refuse a model whose skill at the worst test origin is surely below `(1 - max_swing)` times the mean of the others.

    `found` has `measure` by origin, and `references` what saying the base rate to everybody scores there. Skill is how much of the
    way from that to being always right a model goes (Murphy, 1988): 0 is the base rate, 1 no error. Measures as they are, and
    their ratio to the base rate's, swing with the base rate however good the model is. Origins without a value or a way to go are
    left out; with fewer than three there is nothing to tell.

    >>> days = [datetime(2024, month, 1) for month in (1, 2, 3)]
    >>> sure = {day: Interval(value, value, value) for day, value in zip(days, [0.9, 0.6, 0.9])}
    >>> stable(sure, measure="auc", max_swing=0.5, references=dict.fromkeys(days, 0.5)).passed
    False
    """
    told = _skills(found, references, perfect=0.0 if measure in LOWER_IS_BETTER else 1.0)
    if len(told) < _FEWEST_ORIGINS:
        enough = f"{len(told)} test origins with enough of both answers"
        return Verdict("stability", True, f"not told: {enough} are too few ({_FEWEST_ORIGINS} are needed)")
    worst = min(told, key=lambda origin: told[origin].value)
    others = sum(skill.value for origin, skill in told.items() if origin != worst) / (len(told) - 1)
    # Where the others have no skill either, a model may still not be worse than the base rate.
    least = max((1 - max_swing) * others, 0.0)
    skill = told[worst]
    passed = skill.high >= least
    asked = f"{least:.3f} is asked" if passed else f"surely below the {least:.3f} asked"
    return Verdict(
        "stability",
        passed,
        f"skill in {measure} (0: the base rate, 1: no error) at the worst origin ({worst:%Y-%m-%d}) is {skill.value:.3f} "
        f"({skill.low:.3f} to {skill.high:.3f}), the others have {others:.3f} on average: {asked}",
    )


def sound_data(bad_share: float, *, allowed: float, beyond_history: Sequence[str]) -> Verdict:
    """Tell how many rows broke the contract, and which windows reach further back than the events; nothing worse comes so far.

    >>> sound_data(0.002, allowed=0.01, beyond_history=["168d"]).said
    '0.2% of the rows were rejected, 1.0% are allowed; windows that reach beyond the history: 168d'
    """
    windows = f"; windows that reach beyond the history: {listed(beyond_history)}" if beyond_history else ""
    return Verdict("data", bad_share <= allowed, f"{bad_share:.1%} of the rows were rejected, {allowed:.1%} are allowed{windows}")


def decide(verdicts: Sequence[Verdict]) -> bool:
    """Whether a challenger becomes champion: no gate refused it."""
    return all(verdict.passed for verdict in verdicts)


def because(verdicts: Sequence[Verdict]) -> str:
    """Say why: what the refusing gates said, or where none refused, what all of them said.

    >>> because([Verdict("not worse", True, "there was no champion"), Verdict("data", True, "all rows are sound")])
    'not worse: there was no champion; data: all rows are sound'
    """
    refusing = [verdict for verdict in verdicts if not verdict.passed]
    return "; ".join(f"{verdict.gate}: {verdict.said}" for verdict in refusing or verdicts)


def _skills(
    found: Mapping[datetime, Interval], references: Mapping[datetime, float], *, perfect: float
) -> dict[datetime, Interval]:
    skills = {}
    for origin in sorted(found.keys() & references.keys()):
        measured, reference = found[origin], references[origin]
        if isfinite(measured.value) and reference != perfect:
            told = (measured.value, measured.low, measured.high)
            value, *ends = ((bound - reference) / (perfect - reference) for bound in told)
            skills[origin] = Interval(value, min(ends), max(ends))
    return skills


def _told(difference: Interval) -> str:
    return f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
