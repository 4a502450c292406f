"""Models that answer: loaded from a version's folder, or the constant answer that every model must beat.

A folder holds `predictor.json` (task, representation, readout), `representation.safetensors` and
`estimator.safetensors`; every file is checked against its hash before it is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models import estimators, sealed
from speciate.models.estimators import Estimator
from speciate.tasks.classification import Classification
from speciate.tasks.columns import Columns
from speciate.tasks.contract import Prediction, Predictor, Readout, Representation
from speciate.tasks.documents import Documents
from speciate.tasks.embeddings import Embeddings
from speciate.tasks.regression import Regression
from speciate.tasks.vectors import Vectors
from speciate.workspace.workspace import Folders

__all__ = ["Prediction", "Predictor", "TrainedPredictor", "constant", "load", "save"]

_MANIFEST, _ARRAYS, _ESTIMATOR = "predictor.json", "representation.safetensors", "estimator.safetensors"
_REBUILD: dict[str, Any] = {"documents": Documents, "vectors": Vectors, "columns": Columns}


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str
    representation: dict[str, Any]
    readout: Annotated[Classification | Regression, Field(discriminator="family")]


class TrainedPredictor:
    def __init__(self, task: str, representation: Representation, estimator: Estimator, readout: Readout) -> None:
        self.task, self.representation, self.estimator, self.readout = task, representation, estimator, readout

    @property
    def labels(self) -> tuple[str, ...]:
        return self.readout.labels

    @property
    def parameters(self) -> int:
        """Learned numbers, those of a frozen base model included."""
        encoder = getattr(self.representation, "encoder", None)
        return self.estimator.parameters + (encoder.parameters if encoder else 0)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        if not examples:
            return []
        return self.readout.predictions(self.estimator.scores(self.representation.encode(examples)))


class ConstantPredictor:
    def __init__(self, task: str, prediction: Prediction) -> None:
        self.task, self._prediction = task, prediction

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self._prediction.probabilities or ())

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        return [self._prediction] * len(examples)


def constant(task: str, answers: Sequence[str | float]) -> Predictor:
    """The most frequent of the training answers (the first by name among equals), or their mean for numbers."""
    if task.endswith("-regression"):
        numbers = [float(answer) for answer in answers]
        return ConstantPredictor(task, Prediction(sum(numbers) / len(numbers), None, None))
    counts = Counter(str(answer) for answer in answers)
    shares = {label: counts[label] / len(answers) for label in sorted(counts)}
    label = max(shares, key=lambda name: shares[name])
    return ConstantPredictor(task, Prediction(label, shares[label], shares))


def save(predictor: TrainedPredictor, folder: Path) -> str:
    """Write and seal a new model folder; returns its id."""
    folder.mkdir(parents=True)
    manifest = _Manifest.model_validate(
        {
            "task": predictor.task,
            "representation": predictor.representation.settings(),
            "readout": predictor.readout,
        }
    )
    (folder / _MANIFEST).write_text(manifest.model_dump_json(indent=1))
    estimators.save_arrays(predictor.representation.arrays(), folder / _ARRAYS, {})
    estimators.save(predictor.estimator, folder / _ESTIMATOR)
    return sealed.seal(folder)


def load(path: Path, cache: Folders | None = None, threads: int = 1) -> TrainedPredictor:
    """A model from its version's folder.

    With `cache` (a workspace's folders) frozen features are read from and added to the cache: for many examples of a
    dataset, not where latency is measured. Raises NOT_FOUND or REFUSED for a folder that is not as it was sealed,
    MISSING_EXTRA where its base model is not installed.
    """
    sealed.check(path)
    try:
        manifest = _Manifest.model_validate(json.loads((path / _MANIFEST).read_text()))
    except (FileNotFoundError, ValueError) as error:
        raise SpeciateError(
            Code.INVALID, f"{path} cannot answer: {error}", "Use a model that train_model or specialize made."
        ) from error
    settings = manifest.representation
    representation: Representation
    if settings["kind"] == "embeddings":
        representation = Embeddings.rebuild(settings, cache, threads)
    else:
        arrays, _ = estimators.load_arrays(path / _ARRAYS)
        representation = _REBUILD[settings["kind"]].rebuild(settings, arrays)
    return TrainedPredictor(manifest.task, representation, estimators.load(path / _ESTIMATOR), manifest.readout)
