"""Conditions over event columns, such as targets ask for: what they ask of each column, and what they are called.

All are checked (see `features.expressions`).
"""

from hashlib import sha256

from sqlglot import exp

from features.expressions import DIALECT, parse
from features.families.values import in_names

TYPE = "event_type"
_LONGEST_NAME = 40


def asking(**values: str) -> str:
    """Write the condition that columns have these texts.

    >>> asking(event_type="it's")
    "event_type = 'it''s'"
    """
    return " AND ".join(f"{column} = {exp.Literal.string(value).sql(DIALECT)}" for column, value in values.items())


def canonical(condition: str) -> str:
    """Write a checked condition so that one that says the same in another order is equal, where that is easily seen.

    >>> canonical("category = 'italian' AND event_type = 'lesson'")
    "event_type = 'lesson' AND category = 'italian'"
    """
    values = values_of(condition)
    told = sorted(values, key=lambda column: (column != TYPE, column))
    return asking(**{column: values[column] for column in told}) or condition


def values_of(condition: str) -> dict[str, str]:
    """Give the text that each column must have, for a condition that asks for nothing else; empty for any other."""
    choices = choices_of(condition)
    return {column: values[0] for column, values in choices.items()} if all(len(told) == 1 for told in choices.values()) else {}


def choices_of(condition: str) -> dict[str, list[str]]:
    """Give the texts of which each column must have one, for a condition that asks for nothing else; empty for any other."""
    found: dict[str, list[str]] = {}
    for part in map(parse, parts_of(condition)):
        match part:
            case exp.EQ(this=exp.Column() as column, expression=value):
                values = [value]
            case exp.In(this=exp.Column() as column, expressions=[_, *_] as values):
                pass
            case _:
                return {}
        if column.name in found or not all(isinstance(value, exp.Literal) and value.is_string for value in values):
            return {}
        found[column.name] = [value.name for value in values]
    return found


def parts_of(condition: str) -> list[str]:
    """Give the conditions that a condition joins by AND."""
    tree = parse(condition).unnest()
    parts = tree.flatten() if isinstance(tree, exp.And) else [tree]
    return [f"({part.sql(DIALECT)})" if isinstance(part, exp.Or) else part.sql(DIALECT) for part in parts]


def name_of(condition: str) -> str:
    """Name a condition by its values, or by its words and some of its digest.

    >>> name_of("event_type IN ('lesson', 'quiz') AND category = 'Ancient Greek'"), name_of("amount > 50")
    ('lesson_or_quiz_ancient_greek', 'amount_50_9b52')
    """
    choices = choices_of(condition)
    words = [list(map(in_names, choices[column])) for column in sorted(choices, key=lambda column: column != TYPE)]
    name = "_".join("_or_".join(told) for told in words)
    if not name or len(name) > _LONGEST_NAME or not all(all(told) for told in words):
        name = f"{in_names(condition)[:_LONGEST_NAME].strip('_')}_{digest_of(condition)}"
    return name if name[0].isalpha() else f"events_{name}"


def digest_of(condition: str) -> str:
    """Give four letters that tell conditions of one name apart."""
    return sha256(condition.encode()).hexdigest()[:4]


def told_of(condition: str) -> str:
    """Say a condition in words.

    >>> told_of("event_type IN ('lesson_done', 'quiz') AND category = 'Ancient Greek'"), told_of("amount > 50")
    ('lesson done or quiz, category Ancient Greek', 'amount > 50')
    """
    choices = {column: " or ".join(values) for column, values in choices_of(condition).items()}
    kind = [choices[TYPE].replace("_", " ")] if TYPE in choices else []
    return ", ".join([*kind, *(f"{column} {value}" for column, value in choices.items() if column != TYPE)]) or condition
