"""What a feature is: its name, meaning, unit and phrase, declared once beside the expression that computes it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from ibis.common.deferred import Deferred

from features.errors import listed
from features.windows import label

Base = Literal[
    "everything",
    "purchases",
    "browsing",
    "carts",
    "contacts",
    "service",
    "items",
    "orders",
    "days",
    "weeks",
    "categories",
    "brands",
    "channels",
    "devices",
    "sources",
    "regions",
    "hours",
    "attributes",
    "custom",
    "occasions",
    "row",
    "population",
]
NAME = "name"
IS = "is"
# The group of what is the same for all users of a night: it moves scores, and is no reason of one of them.
EVERYBODY = "the same for everybody"
# What features are on trial for that tell dates apart: models read them within dates alone (see `models.rounds`).
DATE = "date"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature of one user at one cutoff.

    `base` names the snapshot table (see `features.snapshot`) that `expr` aggregates per user; `row` means that the expression
    reads other features of the same user, `population` that it sets them against the other users known at the cutoff.
    `unit` is `days`, `money`, `share`, `times`, `number` (or `score`, `mixture`, `percentile`, `o'clock`, written in their own
    way), the noun that is counted, `is` for 1 or 0, or `name`: then the value is a text, which segments and tables use and models
    leave alone.
    `empty` is the value of a user who has no row in the base: 0 for counts and sums, null where nothing is known.
    `needs` are the optional event columns, and `types` the event types, without which the feature is switched off.
    Features of one `group` tell one story, so a user's reasons name a group once. `phrase` says the value in words, `unknown`
    says that it is null; `usual` names the feature it is compared with. `high` and `low` are a persona's words for much and
    little of it. Models leave a feature alone that `is_aside`, and one with an `outcome` unless their target asks about that
    condition (see `features.families.outcomes`) or it is `for_all`. Those `on_trial` for one purpose are read by models of a
    probability only where they together proved their worth before the first test origin (see `models.rounds`), and those for `DATE`
    by no others. `definition` is what a config says of the feature that its name does not tell.
    """

    name: str
    base: Base
    expr: Deferred
    unit: str
    meaning: str
    phrase: str
    group: str
    unknown: str = "{meaning} is not known"
    needs: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    empty: float | None = None
    usual: str | None = None
    usual_phrase: str = "usually {value}"
    high: str | None = None
    low: str | None = None
    is_aside: bool = False
    outcome: str | None = None
    for_all: bool = False
    on_trial: str | None = None
    definition: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether the value is a name instead of a number."""
        return self.unit == NAME

    @property
    def sql_type(self) -> str:
        """The type of the value in SQL."""
        return "VARCHAR" if self.is_text else "DOUBLE"


def verbatim(text: str) -> str:
    """Write a text of the log so that a phrase says it as it is.

    >>> verbatim("size {XL}").format(value=1)
    'size {XL}'
    """
    return text.replace("{", "{{").replace("}", "}}")


def feature_name(what: str, measure: str, window: timedelta | None = None, *, against: timedelta | None = None) -> str:
    """Build a feature's name: `<what>_<measure>_<window>`, and for ratios `…_<window>_vs_<window>`.

    >>> feature_name("purchase_amount", "sum", timedelta(days=28))
    'purchase_amount_sum_28d'
    >>> feature_name("purchase", "count", timedelta(days=28), against=timedelta(days=84))
    'purchase_count_28d_vs_84d'
    """
    parts = [what, measure]
    if window is not None:
        parts.append(label(window))
    if against is not None:
        parts += ["vs", label(against)]
    return "_".join(parts)


def unique_by_name(features: Iterable[Feature]) -> tuple[Feature, ...]:
    """Check that no name is declared twice; a clash is a mistake in a family, so it fails loudly."""
    declared = tuple(features)
    names = [feature.name for feature in declared]
    clashes = sorted({name for name in names if names.count(name) > 1})
    if clashes:
        raise ValueError(f"features declared twice: {listed(clashes)}")
    return declared


def amount(value: float, unit: str, *, currency: str = "") -> str:
    """Write a value with its unit.

    >>> amount(23.4, "days"), amount(0.349, "share"), amount(0.0042, "share"), amount(1, "purchase"), amount(0, "category")
    ('23 days', '35%', '0.4%', '1 purchase', 'no categories')
    >>> amount(4, "score"), amount(73.2, "percentile"), amount(18, "o'clock"), amount(-1e-17, "mixture"), amount(1234.5, "number")
    ('4', '73%', '18:00', '0.0', '1,234.5')
    """
    if unit == "money" and value == 0:
        return "nothing"
    if unit == "money":
        return f"{currency}{value:,.2f}" if abs(value) < 100 else f"{currency}{value:,.0f}"
    if unit == IS:
        return "is" if value else "is not"
    if unit == "share":
        # Whoever does something on one day in 480 does do it.
        if 0 < value < 0.005:
            return f"{value:.1%}" if value >= 0.0005 else "less than 0.1%"
        return f"{value:z.0%}"
    if unit == "times":
        if abs(value) < 0.005:
            return "0 times"
        return f"{value:.2f} times" if 0 < value < 0.05 else f"{value:z.1f} times"
    if unit == "percentile":
        return f"{value:.0f}%"
    if unit == "o'clock":
        return f"{value:.0f}:00"
    if unit == "mixture":
        return f"{value:z.1f}"
    if unit in ("number", "score"):
        return f"{value:z,.2f}".rstrip("0").rstrip(".")
    if unit == "days" and 0 < value < 0.95:
        # What came soon after something else differs by hours.
        return amount(value * 24, "hour")
    if unit in ("days", "hour"):
        return how_many(value if 0 < value < 0.95 else round(value), unit.removesuffix("s"))
    return how_many(round(value), unit)


def plural(noun: str) -> str:
    """Give the plural of a noun that is counted.

    >>> plural("day"), plural("category"), plural("push")
    ('days', 'categories', 'pushes')
    """
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"


def how_many(value: float, noun: str) -> str:
    """Give a count with its noun.

    >>> how_many(1, "warning"), how_many(2_400, "category"), how_many(0, "day")
    ('1 warning', '2,400 categories', 'no days')
    """
    if value == 0:
        return f"no {plural(noun)}"
    if value < 1:
        return f"less than {'an' if noun == 'hour' else 'a'} {noun}"
    return f"{value:,.0f} {noun if value == 1 else plural(noun)}"


def coarse(windows: Sequence[timedelta]) -> list[timedelta]:
    """Give every other window and the longest, for behaviour that needs no finer steps.

    >>> [window.days for window in coarse([timedelta(days=days) for days in (7, 14, 28, 56)])]
    [7, 28, 56]
    """
    return [window for at, window in enumerate(windows) if at % 2 == 0 or window == windows[-1]]


def phrase(
    feature: Feature,
    row: Mapping[str, float | None],
    by_name: Mapping[str, Feature],
    *,
    currency: str = "",
    typical: float | None = None,
) -> str:
    """Say one user's value of a feature as a marketer would: "no purchase for 23 days, usually every 5 days".

    A value that is null says so; the comparison is left out when it is unknown. Where the user has no usual value, the population's
    `typical` one is added, unless it reads the same: "spent $12.00 in 28 days (typically $8.50)".
    """
    value = row.get(feature.name)
    if value is None or value != value:
        return feature.unknown.format(meaning=feature.meaning)
    own = amount(value, feature.unit, currency=currency)
    said = feature.phrase.format(value=own)
    usual = row.get(feature.usual) if feature.usual else None
    if feature.usual is not None and usual is not None and usual == usual:
        return f"{said}, " + feature.usual_phrase.format(value=amount(usual, by_name[feature.usual].unit, currency=currency))
    if typical is None or typical != typical or feature.unit == IS:
        return said
    common = amount(typical, feature.unit, currency=currency)
    return said if common == own else f"{said} (typically {common})"
