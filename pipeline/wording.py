"""Words, numbers and tables of the model card, in Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite

from features.labels import Target
from features.windows import before, words
from models.intervals import Interval

_PERCENT = {"base_rate", "total_error", "decile_total_error", "precision_at_capacity"}
_MONEY = {"mean_absolute_error", "root_mean_squared_error", "mean_label", "expected_profit"}
_TITLES = {
    "auc": "AUC: chance that a 1 scores above a 0",
    "average_precision": "average precision: how pure the top of the list is",
    "log_loss": "log loss (lower is better)",
    "brier": "Brier score (lower is better)",
    "expected_calibration_error": "expected calibration error within one origin (lower is better)",
    "calibration_slope": "calibration slope (1 is right)",
    "calibration_intercept": "calibration intercept (0 is right)",
    "base_rate": "base rate: share of label 1",
    "precision_at_capacity": "share of label 1 among those that can be contacted",
    "expected_profit": "profit per user, with the value and cost of a contact in the config",
    "poisson_deviance": "Poisson deviance, least where scores are the mean of what comes (lower is better)",
    "mean_absolute_error": "mean absolute error (lower is better)",
    "root_mean_squared_error": "root mean squared error, which large amounts lead (lower is better)",
    "mean_label": "mean amount",
    "total_error": "error of the total (0 is right)",
    "decile_total_error": "error of the totals of tenths (lower is better)",
    "gini": "Gini: how well amounts are put in order (1 is perfect)",
    "rmsle": "root mean squared log error (lower is better)",
}


def definition_in_words(target: Target) -> str:
    """Say in one sentence what a target's score is."""
    matching, horizon = code(target.events), words(target.horizon)
    ahead = f"in the {horizon} from the night on"
    match target.kind:
        case "absence":
            return f"The chance that no event matching {matching} happens {ahead}."
        case "occurrence":
            least = "an event" if target.min_count == 1 else f"at least {target.min_count} events"
            return f"The chance that {least} matching {matching} {'happens' if target.min_count == 1 else 'happen'} {ahead}."
        case "growth":
            return (
                f"The chance that the {target.measure} of events matching {matching} {ahead} is at least {target.ratio:g} times "
                f"the user's own average of {horizon} over the {words(target.trailing)} before."
            )
        case "first":
            return f"The chance that an event matching {matching} happens {ahead}, for users with none {before(target.lookback)}."
    return f"The {target.measure} that events matching {matching} add up to {ahead}."


def title(measure: str) -> str:
    """Say what a measure is, and which way is better.

    >>> title("lift_10pct")
    'lift in the top 10 %'
    """
    for start, said in (("lift_", "lift in the top {}"), ("captured_", "share of all label 1 in the top {}")):
        if measure.startswith(start) and measure.endswith("pct"):
            return said.format(f"{measure.removeprefix(start).removesuffix('pct')} %")
    return _TITLES.get(measure, measure.replace("_", " "))


def unit(measure: str, currency: str) -> str | None:
    """Give `%` for measures that are shares, the currency for amounts, null for bare numbers."""
    if measure in _PERCENT or measure.startswith("captured_"):
        return "%"
    return currency if measure in _MONEY else None


def number(value: float, unit: str | None) -> str:
    """Write a number in a unit: a share as percent, an amount after its currency.

    >>> number(0.123, "%"), number(-1234.5, "€"), number(0.85, None), number(float("nan"), None)
    ('12.3%', '-€1,234.50', '0.850', '–')
    """
    if not isfinite(value):
        return "–"
    if unit is None:
        return f"{value:.3f}"
    return f"{value:.1%}" if unit == "%" else f"{'-' if value < 0 else ''}{unit}{abs(value):,.2f}"


def with_interval(found: Interval | None, unit: str | None) -> str:
    """Write a value and, in brackets, its interval.

    >>> with_interval(Interval(0.1, 0.05, 0.2), "%")
    '10.0% (5.0% to 20.0%)'
    """
    if found is None or not isfinite(found.value):
        return "–"
    return f"{number(found.value, unit)} ({from_to(found.low, found.high, unit)})"


def from_to(low: float, high: float, unit: str | None) -> str:
    """Write two ends in a unit.

    >>> from_to(0.1, 0.25, "%")
    '10.0% to 25.0%'
    """
    return f"{number(low, unit)} to {number(high, unit)}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Give the lines of a Markdown table."""
    yield f"| {' | '.join(text(name) for name in head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(text(cell) for cell in row)} |" for row in rows)


def text(said: str) -> str:
    r"""Keep what comes from data or a config on one line, and from being read as HTML or as the edge of a cell.

    >>> print(text("tea|coffee <b>"))
    tea\|coffee &lt;b>
    """
    return " ".join(said.split()).replace("|", "\\|").replace("<", "&lt;")


def code(said: str) -> str:
    """Set SQL or a name apart as code, on one line.

    >>> code("a = 1" + chr(10) + "and b")
    '`a = 1 and b`'
    """
    fence = "``" if "`" in said else "`"
    return f"{fence}{' '.join(said.split())}{fence}"
