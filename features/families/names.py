"""Names: each text that another feature gives, such as a plan or the first source, as numbers that models read.

One feature for each of the 8 values that most users have, 20 users at least, 1 for whoever has it and 0 for whoever has another.
Values that are rare, or new tonight, are alike in being none of these.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from ibis import _

from features.catalogue import IS, Feature, verbatim
from features.conditions import digest_of
from features.families.values import in_names


def name_features(texts: Iterable[Feature], values: Mapping[str, Collection[str]], taken: Collection[str]) -> Iterator[Feature]:
    """Tell the frequent `values` (by event column or attribute) of text features apart, by names that are not `taken`."""
    used = set(taken)
    for text in (text for text in texts if not text.is_aside):
        held = values.get(text.name, ()) if text.base == "attributes" else _of_column(text, values)
        for value in held:
            name = f"{text.name}_is_{in_names(value)}"
            if name in used or not in_names(value):
                name = f"{text.name}_is_{digest_of(value)}"
            used.add(name)
            yield _is(text, value, name)


def _of_column(text: Feature, values: Mapping[str, Collection[str]]) -> Collection[str]:
    return next((values[column] for column in sorted(text.needs) if column in values), ())


def _is(text: Feature, value: str, name: str) -> Feature:
    called, said = text.name.replace("_", " "), verbatim(value)
    return Feature(
        name=name,
        base="row",
        expr=(getattr(_, text.name) == value).cast("float64"),
        unit=IS,
        meaning=f"whether the {called} is {value}",
        phrase=f"{called} {{value}} {said}",
        # Of several values one is told, as one of several windows is.
        group=text.name if text.base == "attributes" else text.group,
        unknown=text.unknown,
    )
