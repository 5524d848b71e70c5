"""Pages of features: what each is called, its unit, what it means, what it needs, and which story it tells in reasons."""

from collections.abc import Iterable, Iterator, Mapping

from features.catalogue import Feature
from features.declare import FeatureSet, reads
from features.event_types import DERIVED_FROM, VISIT, VISIT_ACTED
from pipeline.wording import code, table

Reads = Mapping[str, frozenset[str]]


def feature_page(built: FeatureSet) -> str:
    """List every feature that was built for a training, those of its log and of its config among them, in Markdown."""
    by_name, read_by = {feature.name: feature for feature in built.features}, reads(built)
    told = f"{len(built.features)} features, of which models read those that are no `name`, each target its own."
    return "\n".join(["# Features of this training", "", told, "", *feature_table(built.features, by_name, read_by), ""])


def feature_table(features: Iterable[Feature], by_name: Mapping[str, Feature], read_by: Reads) -> Iterator[str]:
    """Give the lines of a table of features, which may read others `by_name`."""
    return table(
        ["feature", "unit", "meaning", "needs", "group"],
        (
            [code(one.name), one.unit, one.meaning, ", ".join(sorted(_needs(one, by_name, read_by))) or "–", one.group]
            for one in features
        ),
    )


def _needs(feature: Feature, by_name: Mapping[str, Feature], read_by: Reads) -> set[str]:
    """Give the columns and event types that a feature needs, also through the features it reads."""
    visits = {VISIT, VISIT_ACTED} & feature.types
    types = {kind for name in feature.types - visits for kind in DERIVED_FROM.get(name, {name})}
    own = set(feature.needs) | {f"`{kind}` events" for kind in types} | ({"events beside purchases"} if visits else set())
    return own.union(*(_needs(by_name[name], by_name, read_by) for name in read_by.get(feature.name, ()) if name in by_name))
