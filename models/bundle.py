"""A bundle: everything a fitted model needs to answer, in plain formats (JSON and LightGBM text), loaded without unpickling.

MLflow's pyfunc flavour loads a bundle through `_load_pyfunc`, so a registered model serves without any code of its own.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd

from features.errors import DataError, StoreError, listed
from features.inventory import NOTHING, Inventory, united
from models.calibration import Calibrator
from models.ladder import Blend, Constant, Model, Recipe, Trees, finite
from models.linear import Linear, linear_of
from models.persona_choice import Tried
from models.persona_traits import Trait
from models.personas import Personas
from models.propensity import Floats
from models.season import NO_SEASON, Season

_HEAD, _BOOSTER = "bundle.json", "booster.txt"
FORMAT = 12
# The parameter of a prediction that names its date.
AS_OF = "as_of"
# The first format whose files carry their own digest.
_SEALED = 4


@dataclass(frozen=True)
class TargetBundle:
    """A target's model: what it was made by, its calibrator, and the `definition` of the target it was trained for.

    `definitions` is what the config said of its features (see `features.declare`). `groups` says for each feature which story it
    tells in reasons; `typical` is its median among those who were asked about on the night of the training, and `expected` what it
    added to their scores on average.
    `inventory` is what the log held that features were named after, and `warnings` what its test gave reason to warn of.
    What the model says is moved by the `season` of the date, before it is calibrated.
    """

    target: str
    definition: Mapping[str, Any]
    recipe: Recipe
    trained_until: str
    calibrator: Calibrator
    model: Model
    groups: Mapping[str, str] = field(default_factory=dict)
    typical: Mapping[str, float] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
    inventory: Inventory = NOTHING
    warnings: tuple[str, ...] = ()
    season: Season = NO_SEASON
    definitions: Mapping[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Name the rung and the calibration, such as `lightgbm+platt`."""
        return self.recipe.rung if self.calibrator.method == "none" else f"{self.recipe.rung}+{self.calibrator.method}"

    @property
    def features(self) -> tuple[str, ...]:
        """The features it reads, in order."""
        return self.model.features

    def other_question(self, asked: Mapping[str, Any]) -> str | None:
        """Say in what the question `asked` (see `features.labels.definition`) differs from its own, or None where it is that."""
        different = [key for key, value in asked.items() if self.definition.get(key) != value]
        return ", ".join(f"{key}: {self.definition.get(key)!r} became {asked[key]!r}" for key in different) or None

    def other_features(self, said: Mapping[str, str]) -> list[str]:
        """Name its features that the config has changed since, with what it says of them (`said`, as in `definitions`)."""
        return [f"{name} ({was!r}, now {said.get(name)!r})" for name, was in self.definitions.items() if said.get(name) != was]

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Score a frame that has the bundle's features (float64, null allowed): one column `score`.

        `params` may have `as_of`, the date that the rows are of (ISO); else they are of the date of the training. Raises DataError
        naming features that are missing or not numbers, and for a date that is none.
        """
        told = (params or {}).get(AS_OF) or self.trained_until
        try:
            day = date.fromisoformat(str(told))
        except ValueError:
            raise DataError(f"{AS_OF} is {told!r}: a date such as 2024-03-01 is needed") from None
        is_amount = self.definition.get("kind") == "value"
        raw = self.season.moved(self.model.raw(self._read(frame)), day, is_amount=is_amount)
        return pd.DataFrame({"score": self.calibrator(raw)}, index=frame.index)

    def contributions(self, frame: pd.DataFrame) -> Floats:
        """Give rows × features: what each adds to the log-odds, or the logarithm of the amount, before calibration."""
        return self.model.contributions(self._read(frame))

    def against_expected(self, frame: pd.DataFrame) -> Floats:
        """Give rows × features: the contributions beyond what was expected, which is what tells a user from the others."""
        beyond: Floats = self.contributions(frame) - np.array([self.expected.get(name, 0.0) for name in self.features])
        return beyond

    def _read(self, frame: pd.DataFrame) -> pd.DataFrame:
        missing = [name for name in self.features if name not in frame.columns]
        if missing:
            raise DataError(f"the model of {self.target} reads {listed(missing)}, which the rows do not have")
        read = frame[list(self.features)]
        wrong = [name for name, kind in read.dtypes.items() if not (pd.api.types.is_numeric_dtype(kind) or read[name].isna().all())]
        if wrong:
            raise DataError(f"the model of {self.target} reads {listed(wrong)} as numbers: the rows have {read[wrong[0]].dtype}")
        return finite(read.astype("float64"))

    def save(self, folder: Path) -> None:
        """Write the bundle into `folder`, which is made."""
        folder.mkdir(parents=True)
        if (trees := _trees(self.model)) is not None:
            trees.booster.save_model(str(folder / _BOOSTER))
        _save_head(self._head, folder)

    @property
    def digest(self) -> str:
        """Identify what it says: of two models read from a registry, equal ones have equal digests, whatever their versions."""
        trees = _trees(self.model)
        told = json.dumps(self._head, sort_keys=True) + ("" if trees is None else trees.booster.model_to_string())
        return sha256(told.encode()).hexdigest()[:16]

    @property
    def _head(self) -> dict[str, Any]:
        head = {"format": FORMAT, "kind": "target", "target": self.target, "definition": dict(self.definition)}
        head |= {"recipe": asdict(self.recipe), "trained_until": self.trained_until, "calibrator": asdict(self.calibrator)}
        return (
            head
            | {"model": _plain(self.model), "groups": dict(self.groups), "typical": dict(self.typical)}
            | {"expected": dict(self.expected), "definitions": dict(self.definitions)}
            | {"inventory": asdict(self.inventory), "warnings": list(self.warnings), "season": asdict(self.season)}
        )


def inventory_of(bundles: Iterable[object]) -> Inventory:
    """Give what the logs held that models of targets were trained on."""
    return united(bundle.inventory for bundle in bundles if isinstance(bundle, TargetBundle))


@dataclass(frozen=True)
class PersonaBundle:
    """Fitted personas."""

    personas: Personas

    @property
    def features(self) -> tuple[str, ...]:
        """The features it reads, in order."""
        return self.personas.features

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002 - pyfunc's shape
        """Assign a frame that has the traits' features: columns `persona` (its id), `persona_name`, `persona_typicality`.

        The last is the share of the persona's users who lie no nearer to its centre: 1 is the most typical. It is null where an
        earlier release fitted the personas.
        """
        places, typicality = self.personas.place(frame)
        told = {
            "persona": np.asarray(self.personas.ids)[places],
            "persona_name": np.asarray(self.personas.names, dtype=object)[places],
        }
        return pd.DataFrame({**told, "persona_typicality": typicality}, index=frame.index)

    def save(self, folder: Path) -> None:
        """Write the bundle into `folder`, which is made."""
        folder.mkdir(parents=True)
        _save_head(self._head, folder)

    @property
    def digest(self) -> str:
        """Identify what they say: equal personas have equal digests, whatever their versions."""
        return sha256(json.dumps(self._head, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _head(self) -> dict[str, Any]:
        return {"format": FORMAT, "kind": "personas", "personas": asdict(self.personas)}


def _save_head(head: Mapping[str, Any], folder: Path) -> None:
    told = json.loads(json.dumps(head))
    (folder / _HEAD).write_text(json.dumps({**told, "seal": _seal(told, folder)}, indent=1))


def _seal(head: Mapping[str, Any], folder: Path) -> str:
    """Give the SHA-256 of what a bundle's files say; LightGBM kills the process over damaged trees, or scores with them."""
    trees = (folder / _BOOSTER).read_bytes() if (folder / _BOOSTER).exists() else b""
    return sha256(json.dumps(head, sort_keys=True).encode() + trees).hexdigest()


def load(folder: Path) -> TargetBundle | PersonaBundle:
    """Read a bundle of this format or an earlier one; raises StoreError when it is damaged or of a later format."""
    try:
        head = json.loads((folder / _HEAD).read_text())
        if head["format"] > FORMAT:
            raise StoreError(f"the model is of format {head['format']}, this version reads up to {FORMAT}: upgrade beforehand")
        if head["format"] >= _SEALED and head.pop("seal") != _seal(head, folder):
            raise ValueError("its files are not as they were written")
        if head["kind"] == "personas":
            return PersonaBundle(_personas(head["personas"], head["format"]))
        return _target(head, folder)
    except (OSError, ValueError, KeyError, TypeError, lightgbm.basic.LightGBMError) as error:
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise StoreError(
            f"the registered model is damaged ({type(error).__name__}: {str(error)[:120]}); "
            f"its files: {listed(found) or 'none'}. Train again, or point the champion alias at another version"
        ) from None


def _target(head: Mapping[str, Any], folder: Path) -> TargetBundle:
    if head["format"] == 1:
        # Before there was a ladder, every model was a LightGBM.
        trees = Trees(lightgbm.Booster(model_file=str(folder / _BOOSTER)))
        model, recipe = trees, Recipe("lightgbm", trees.features)
        return TargetBundle(
            head["target"], head["definition"], recipe, head["trained_until"], Calibrator(**head["calibrator"]), model
        )
    told = head["recipe"]
    recipe = Recipe(**{**told, **{name: tuple(told[name]) for name in ("features", "recency", "rfm") if name in told}})
    return TargetBundle(
        target=head["target"],
        definition=head["definition"],
        recipe=recipe,
        trained_until=head["trained_until"],
        calibrator=Calibrator(**head["calibrator"]),
        model=_model(head["model"], folder),
        # Before format 12 nobody asked whether a feature of the same name was still the same.
        definitions=head.get("definitions", {}),
        groups=head["groups"],
        typical=head["typical"],
        # Before format 11 contributions were told against the mean of all training rows.
        expected=head.get("expected", {}),
        inventory=_inventory(head),
        warnings=tuple(head.get("warnings", ())),
        season=Season(**head.get("season", {})),
    )


def _inventory(head: Mapping[str, Any]) -> Inventory:
    # Before there was one, event types were all that was remembered.
    told = head.get("inventory", {"measures": dict.fromkeys(head.get("event_types", ()), ())})
    return Inventory(**{part: {name: tuple(names) for name, names in held.items()} for part, held in told.items()})


def _plain(model: Model) -> dict[str, Any]:
    match model:
        case Constant():
            return {"kind": "constant", **asdict(model)}
        case Linear():
            return {"kind": "linear", **asdict(model)}
        case Trees():
            return {"kind": "trees"}
        case Blend():
            return {"kind": "blend", "linear": asdict(model.linear)}


def _trees(model: Model) -> Trees | None:
    match model:
        case Trees():
            return model
        case Blend():
            return model.trees
    return None


def _model(told: Mapping[str, Any], folder: Path) -> Model:
    plain = {key: value for key, value in told.items() if key != "kind"}
    match told["kind"]:
        case "constant":
            return Constant(**plain)
        case "linear":
            return linear_of(plain)
        case "trees":
            return Trees(lightgbm.Booster(model_file=str(folder / _BOOSTER)))
        case "blend":
            return Blend(Trees(lightgbm.Booster(model_file=str(folder / _BOOSTER))), linear_of(plain["linear"]))
    raise ValueError(f"a model of the kind {told['kind']!r}")


def _personas(told: Mapping[str, Any], format_: int) -> Personas:
    centroids = tuple(tuple(row) for row in told["centroids"])
    same = {"centroids": centroids, "names": tuple(told["names"]), "shares": tuple(told["shares"])}
    traits = tuple(Trait(**trait) for trait in told["traits"])
    if format_ < 3:
        # Ids were the row numbers, and neither a line about each nor who is typical was kept.
        tried = tuple(Tried(int(k), value) for k, value in told["silhouettes"].items())
        ids = tuple(range(len(centroids)))
        return Personas(
            traits, ids, descriptions=("",) * len(ids), quantiles=(), tried=tried, why="best silhouette", next_id=len(ids), **same
        )
    return Personas(
        traits,
        tuple(told["ids"]),
        descriptions=tuple(told["descriptions"]),
        quantiles=tuple(tuple(row) for row in told["quantiles"]),
        tried=tuple(Tried(**one) for one in told["tried"]),
        why=told["why"],
        next_id=told["next_id"],
        **same,
    )


def _load_pyfunc(path: str) -> TargetBundle | PersonaBundle:
    return load(Path(path))
