"""What a night is scored with: models in charge, features, horizons that have to agree; and which target asks about whom."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce

import ibis
import ibis.expr.types as ir
from ibis import _

from features.catalogue import Feature
from features.labels import Target, active_users, definition, eligible_users
from models.bundle import PersonaBundle, TargetBundle
from pipeline.answers import ACTIVE, Known, asked_column, without_expressions
from pipeline.events import EventLog
from pipeline.segments import Forming
from pipeline.settings import PERSONAS, Settings
from pipeline.tracking import Champion


def known_of(settings: Settings, champions: Mapping[str, Champion], features: Sequence[Feature], forming: Forming) -> Known:
    """Give what rows are made with: these models, among them the personas, and features of these declarations."""
    personas = champions[PERSONAS].bundle
    assert isinstance(personas, PersonaBundle)
    models = target_models(champions)
    return Known(
        models=models,
        versions={name: champion.version for name, champion in champions.items()},
        personas=personas,
        features=without_expressions(features),
        currency=settings.currency,
        forming=forming,
        ladders=_ladders([target for target in settings.specs() if target.name in models]),
    )


def target_models(champions: Mapping[str, Champion]) -> dict[str, TargetBundle]:
    """Give the models of targets among champions."""
    return {name: champion.bundle for name, champion in champions.items() if isinstance(champion.bundle, TargetBundle)}


def with_asked(users: ir.Table, log: EventLog, settings: Settings, cutoff: datetime) -> ir.Table:
    """Say for each user which targets ask about it, and whether its habits are known."""
    asked = {asked_column(target.name): eligible_users(log.events, target, [cutoff]) for target in settings.specs()}
    asked[ACTIVE] = active_users(log.events, settings.activities(), cutoff, log.features.longest)
    told = [table.select("user_id", flag=ibis.literal(name)) for name, table in asked.items()]
    flags = {name: (_.flag == name).any() for name in asked}
    raised = reduce(ir.Table.union, told).group_by("user_id").agg(**flags)
    joined = users.left_join(raised, "user_id").drop("user_id_right")
    return joined.mutate(**{name: joined[name].fill_null(False) for name in flags})


def _ladders(targets: Sequence[Target]) -> tuple[tuple[Mapping[timedelta, str], bool], ...]:
    """Group targets that ask one question over several horizons, of whomever, and say whether the answer rises with the horizon.

    Growth is against the user's own average per horizon, and a first time looks back as far as it says: over several horizons these
    are several questions when anything else differs.
    """
    # The answer is the same whoever is asked: groups of users join, as long as no horizon is asked of both.
    groups: dict[str, dict[str, dict[timedelta, Target]]] = {}
    for target in targets:
        asked = {key: value for key, value in definition(target).items() if key != "horizon"}
        whom = json.dumps(asked.pop("eligible"), sort_keys=True)
        if target.kind != "growth":
            groups.setdefault(json.dumps(asked, sort_keys=True), {}).setdefault(whom, {})[target.horizon] = target
    found = [ladder for by_whom in groups.values() for ladder in _joined(by_whom.values())]
    return tuple(
        ({horizon: same[horizon].name for horizon in sorted(same)}, next(iter(same.values())).kind != "absence")
        for same in found
        if len(same) > 1
    )


def _joined(groups: Iterable[Mapping[timedelta, Target]]) -> list[dict[timedelta, Target]]:
    ladders: list[dict[timedelta, Target]] = []
    for group in groups:
        free = next((ladder for ladder in ladders if not ladder.keys() & group.keys()), None)
        if free is None:
            ladders.append(dict(group))
        else:
            free.update(group)
    return ladders
