"""A night: read events, score everybody, say why, form segments, write."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from hashlib import sha256
from importlib.metadata import version
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from features.build import steps
from features.catalogue import Feature, phrase
from features.errors import ConfigError, GateError, listed
from features.labels import Target, eligible_users
from models.bundle import PersonaBundle, TargetBundle
from models.reasons import contributions, strongest
from pipeline.columns import BANDS, SCORES, features_schema, segments_schema, with_arrow
from pipeline.events import EventLog, midnight, read_events
from pipeline.frames import features_frame, shards
from pipeline.progress import Narrator
from pipeline.segments import form_segments
from pipeline.settings import PERSONAS, Settings
from pipeline.tables import Night, exclusive, recover, write_night
from pipeline.tracking import Champion, Tracker
from pipeline.train import active, definition


@dataclass(frozen=True)
class NightRun:
    """A night under way; each stage gives the next one more of it."""

    settings: Settings
    as_of: date
    tracker: Tracker
    narrator: Narrator
    clock: Callable[[], datetime]
    started_at: datetime
    champions: Mapping[str, Champion] = field(default_factory=dict)
    log: EventLog | None = None
    features: pd.DataFrame = field(default_factory=pd.DataFrame)
    scores: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    personas: pd.DataFrame = field(default_factory=pd.DataFrame)
    segments: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def events(self) -> EventLog:
        """The events of the night, once read."""
        assert self.log is not None
        return self.log

    @property
    def run_id(self) -> str:
        """Identify what the night was made of: its date, events, config, models and our version. Same inputs, same id."""
        versions = ",".join(f"{name}={champion.version}" for name, champion in sorted(self.champions.items()))
        made_of = f"{version('beforehand')}|{self.as_of}|{self.events.digest}|{self.settings.digest()}|{versions}"
        return sha256(made_of.encode()).hexdigest()[:16]

    @property
    def model_version(self) -> str:
        """Name the version of every model that speaks in a user's row."""
        return " ".join(f"{name}={champion.version}" for name, champion in sorted(self.champions.items()))


def load_champions(night: NightRun) -> NightRun:
    """Load every model from the registry, and refuse those that were trained for another question."""
    names = [target.name for target in night.settings.targets]
    with night.narrator.step("loading champions") as step:
        champions = night.tracker.champions([*names, PERSONAS])
        step.note(f"{len(champions)} models")
    changed = []
    for target in night.settings.specs():
        bundle = champions[target.name].bundle
        assert isinstance(bundle, TargetBundle)
        asked = definition(target)
        different = [key for key, value in asked.items() if bundle.definition.get(key) != value]
        if different:
            was = ", ".join(f"{key}: {bundle.definition.get(key)!r} became {asked[key]!r}" for key in different)
            changed.append(f"targets.{target.name} ({was})")
    later = sorted({bundle.trained_until for bundle in _targets(champions) if bundle.trained_until > night.as_of.isoformat()})
    if later:
        night.narrator.say(
            f"  the champions were trained on what was known until {later[-1]}: they have seen what came after {night.as_of}"
        )
    if changed:
        raise ConfigError(f"changed since their champions were trained: {'; '.join(changed)}. Run `beforehand train` again")
    return replace(night, champions=champions)


def load_events(night: NightRun) -> NightRun:
    """Read the events known on the night."""
    return replace(night, log=read_events(night.settings, night.as_of, night.narrator))


def compute_features(night: NightRun) -> NightRun:
    """Build the features of everybody known, and refuse models that need others."""
    log, cutoffs = night.events, [midnight(night.as_of)]
    with night.narrator.step("building features", total=steps(log.features, shards(log, 1, night.settings))) as step:
        frame = features_frame(log, cutoffs, night.settings, step)
        step.note(f"{len(log.features.features)} features of {len(frame):,} users")
    for champion in night.champions.values():
        missing = [name for name in champion.bundle.features if name not in frame.columns]
        if missing:
            raise GateError(
                f"the champion {night.tracker.registered(champion.name)} (version {champion.version}) needs features that are not "
                f"built tonight: {listed(missing)}. Bring back their columns or windows, or run `beforehand train` again"
            )
    return replace(night, features=frame.drop(columns="cutoff"))


def score_users(night: NightRun) -> NightRun:
    """Score whom each target asks about, with percentile, band and the three strongest reasons."""
    by_name = {feature.name: feature for feature in night.events.features.features}
    specs = night.settings.specs()
    scores = {}
    with night.narrator.step("scoring", total=len(specs)) as step:
        for target in specs:
            scores[target.name] = _score(night, target, by_name)
            step.advance()
        step.note(f"{sum(len(frame) for frame in scores.values()):,} scores with reasons")
    return replace(night, scores=scores)


def assign_personas(night: NightRun) -> NightRun:
    """Give a persona to everybody whose habits are known."""
    bundle = night.champions[PERSONAS].bundle
    assert isinstance(bundle, PersonaBundle)
    known = active(night.features, night.settings)
    return replace(night, personas=bundle.predict(known).reindex(night.features.index))


def join_segments(night: NightRun) -> NightRun:
    """Form the segments from all that is known of each user tonight, and say why."""
    with night.narrator.step("forming segments") as step:
        wide = pd.concat([night.features, night.personas], axis=1)
        for name, scored in night.scores.items():
            own = scored.set_index("user_id")[["score", "percentile", "band"]].add_prefix(f"{name}_")
            wide = wide.join(own, on="user_id")
        formed = form_segments(wide, night.settings.segments, night.settings.rule_columns())
        wide = pd.concat([wide, formed], axis=1)
        step.note(
            f"{int(formed.primary_segment.notna().sum()):,} of {len(wide):,} users in {len(night.settings.segments)} segments"
        )
    return replace(night, segments=pd.concat([wide, _segment_reasons(night, wide)], axis=1))


def write(night: NightRun) -> NightRun:
    """Write every table of the night, all or none."""
    with night.narrator.step("writing tables") as step:
        tables = {
            "quarantine": night.events.rejected,
            "features": _table(night, night.features, features_schema(night.events.features.features)),
            "scores": _table(night, pd.concat(night.scores.values()).sort_values(["target", "user_id"]), SCORES),
            "segments": _table(
                night,
                night.segments.assign(model_version=night.model_version, run_id=night.run_id),
                segments_schema(night.settings.specs()),
            ),
        }
        counts = {name: len(table) for name, table in tables.items()} | {"events": night.events.count, "later": night.events.later}
        bad = len(night.events.rejected) / max(1, len(night.events.rejected) + night.events.count + night.events.later)
        checks = {"bad_share": round(bad, 6), "newest_event": night.events.last.isoformat()}
        checks["windows_beyond_history"] = list(night.events.beyond_history)
        checks["models_trained_until"] = max(bundle.trained_until for bundle in _targets(night.champions))
        finished = Night(night.as_of, night.run_id, night.started_at, night.clock(), counts, checks)
        write_night(night.settings.output, finished, tables)
        step.note(f"night {night.run_id} below {night.settings.output}")
    return night


STAGES: tuple[Callable[[NightRun], NightRun], ...] = (
    load_champions,
    load_events,
    compute_features,
    score_users,
    assign_personas,
    join_segments,
    write,
)


def run_night(settings: Settings, as_of: date, tracker: Tracker, narrator: Narrator, clock: Callable[[], datetime]) -> NightRun:
    """Run every stage of one night; nothing is written before the last, and `clock` only stamps the run.

    Raises what the stages raise, and StoreError when another night is running or the tables are not as the last one left them.
    """
    with exclusive(settings.output, "night"):
        undone = recover(settings.output)
        if undone:
            narrator.say(f"  an earlier run died while writing: {listed(undone)} rolled back to the last complete night")
        night = NightRun(settings, as_of, tracker, narrator, clock, clock())
        for stage in STAGES:
            night = stage(night)
        return night


def _targets(champions: Mapping[str, Champion]) -> list[TargetBundle]:
    return [champion.bundle for champion in champions.values() if isinstance(champion.bundle, TargetBundle)]


def _score(night: NightRun, target: Target, by_name: Mapping[str, Feature]) -> pd.DataFrame:
    champion = night.champions[target.name]
    assert isinstance(champion.bundle, TargetBundle)
    asked = eligible_users(night.events.events, target, [midnight(night.as_of)]).select("user_id").execute()
    frame = night.features[night.features.user_id.isin(asked.user_id)]
    # LightGBM refuses an empty frame, and nobody being asked about tonight is no mistake.
    score = champion.bundle.predict(frame).score if len(frame) else pd.Series(dtype="float64")
    percentile = score.rank(pct=True, method="average") * 100
    return pd.DataFrame(
        {
            "user_id": frame.user_id,
            "target": target.name,
            "score": score,
            "percentile": percentile,
            "band": [BANDS[ceil(value / 20) - 1] for value in percentile],
            "method": champion.bundle.method,
            "model_version": champion.version,
            "reasons": _reasons(champion.bundle, frame, by_name, night.settings.currency),
        }
    )


def _reasons(
    bundle: TargetBundle, frame: pd.DataFrame, by_name: Mapping[str, Feature], currency: str
) -> list[list[dict[str, Any]]]:
    names = list(bundle.features)
    if frame.empty:
        return []
    found = strongest(contributions(bundle.booster, frame), [by_name[name].group for name in names])
    rows = frame.to_dict("records")
    return [
        [
            {
                "feature": names[column],
                "value": None if np.isnan(row[names[column]]) else row[names[column]],
                "contribution": float(moved),
                "phrase": phrase(by_name[names[column]], row, by_name, currency=currency),
            }
            for column, moved in zip(columns, contribution, strict=True)
        ]
        for row, columns, contribution in zip(rows, found.feature, found.contribution, strict=True)
    ]


def _segment_reasons(night: NightRun, wide: pd.DataFrame) -> pd.DataFrame:
    """Take the reasons of the first target that the primary segment's rule reads, else of the first target that scored the user.

    An arrow says whether a reason raises or lowers that score. Who has no score has no reasons.
    """
    phrases = {
        name: dict(zip(scored.user_id, ([with_arrow(reason) for reason in reasons] for reasons in scored.reasons), strict=True))
        for name, scored in night.scores.items()
    }
    target_of = {segment.name: segment.target(list(phrases)) for segment in night.settings.segments}
    rows = []
    for user, primary in zip(wide.user_id, wide.primary_segment, strict=True):
        named = target_of.get(primary)
        said = phrases[named].get(user) if named else next((told[user] for told in phrases.values() if user in told), None)
        rows.append([*(said or []), None, None, None][:3])
    return pd.DataFrame(rows, columns=["reason_1", "reason_2", "reason_3"], index=wide.index)


def _table(night: NightRun, frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Bring a frame into a table's schema; columns whose logic is not built yet are null."""
    columns = []
    for spec in schema:
        if spec.name == "as_of":
            columns.append(pa.array([night.as_of] * len(frame), spec.type))
        elif spec.name in frame.columns:
            values = frame[spec.name].tolist() if pa.types.is_list(spec.type) else frame[spec.name]
            columns.append(pa.array(values, spec.type, from_pandas=True))
        else:
            columns.append(pa.nulls(len(frame), spec.type))
    return pa.Table.from_arrays(columns, schema=schema)
