"""A bundle: everything a fitted model needs to answer, in plain formats (JSON and LightGBM text), loaded without unpickling.

MLflow's pyfunc flavour loads a bundle through `_load_pyfunc`, so a registered model serves without any code of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightgbm
import pandas as pd

from features.errors import StoreError, listed
from models.calibration import Calibrator
from models.personas import Personas, Trait
from models.propensity import raw_scores

_HEAD, _BOOSTER = "bundle.json", "booster.txt"
FORMAT = 1


@dataclass(frozen=True)
class TargetBundle:
    """A target's model: the booster on raw features, its calibrator, and the `definition` of the target it was trained for."""

    target: str
    definition: Mapping[str, Any]
    method: str
    trained_until: str
    calibrator: Calibrator
    booster: lightgbm.Booster

    @property
    def features(self) -> tuple[str, ...]:
        """The features it reads, in order."""
        return tuple(self.booster.feature_name())

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002 - pyfunc's shape
        """Score a frame that has the bundle's features (float64, null allowed): one column `score`."""
        return pd.DataFrame({"score": self.calibrator(raw_scores(self.booster, frame))}, index=frame.index)

    def save(self, folder: Path) -> None:
        """Write the bundle into `folder`, which is made."""
        folder.mkdir(parents=True)
        head = {"format": FORMAT, "kind": "target", "target": self.target, "definition": dict(self.definition)}
        head |= {"method": self.method, "trained_until": self.trained_until, "calibrator": asdict(self.calibrator)}
        (folder / _HEAD).write_text(json.dumps(head, indent=1))
        self.booster.save_model(str(folder / _BOOSTER))


@dataclass(frozen=True)
class PersonaBundle:
    """Fitted personas."""

    personas: Personas

    @property
    def features(self) -> tuple[str, ...]:
        """The features it reads, in order."""
        return self.personas.features

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002 - pyfunc's shape
        """Assign a frame that has the traits' features: columns `persona` and `persona_name`."""
        ids = self.personas.assign(frame)
        return pd.DataFrame({"persona": ids, "persona_name": [self.personas.names[i] for i in ids]}, index=frame.index)

    def save(self, folder: Path) -> None:
        """Write the bundle into `folder`, which is made."""
        folder.mkdir(parents=True)
        head = {"format": FORMAT, "kind": "personas", "personas": asdict(self.personas)}
        (folder / _HEAD).write_text(json.dumps(head, indent=1))


def load(folder: Path) -> TargetBundle | PersonaBundle:
    """Read a bundle; raises StoreError when it is damaged or of a later format."""
    try:
        head = json.loads((folder / _HEAD).read_text())
        if head["format"] > FORMAT:
            raise StoreError(f"the model is of format {head['format']}, this version reads up to {FORMAT}: upgrade beforehand")
        if head["kind"] == "personas":
            return PersonaBundle(_personas(head["personas"]))
        return TargetBundle(
            target=head["target"],
            definition=head["definition"],
            method=head["method"],
            trained_until=head["trained_until"],
            calibrator=Calibrator(**head["calibrator"]),
            booster=lightgbm.Booster(model_file=str(folder / _BOOSTER)),
        )
    except (OSError, ValueError, KeyError, TypeError, lightgbm.basic.LightGBMError) as error:
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise StoreError(
            f"the registered model is damaged ({type(error).__name__}: {str(error)[:120]}); "
            f"its files: {listed(found) or 'none'}. Train again, or point the champion alias at another version"
        ) from None


def _personas(told: Mapping[str, Any]) -> Personas:
    return Personas(
        traits=tuple(Trait(**trait) for trait in told["traits"]),
        centroids=tuple(tuple(row) for row in told["centroids"]),
        names=tuple(told["names"]),
        shares=tuple(told["shares"]),
        silhouettes={int(k): value for k, value in told["silhouettes"].items()},
    )


def _load_pyfunc(path: str) -> TargetBundle | PersonaBundle:
    return load(Path(path))
