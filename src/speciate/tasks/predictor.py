"""Models that answer: loaded from a version's folder, or the constant answer that every model must beat.

A folder of the first kind holds `predictor.json` (task, representation, task head), `representation.safetensors` and
`estimator.safetensors`; every file is checked against its hash before it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models import blend, estimators, sealed
from speciate.models.diffusion.pipeline_folder import is_pipeline
from speciate.models.estimators import Estimator
from speciate.models.language.causal_lm import is_causal_lm, packaged_weights
from speciate.models.language.vision_language import is_vision_language
from speciate.tasks import (
    image_generator,
    language_predictor,
    nested_encoders,
    network_predictor,
    published_predictor,
    vision_language_predictor,
)
from speciate.tasks.competing_convolutions import CompetingConvolutions
from speciate.tasks.encoded_columns import EncodedColumns
from speciate.tasks.families.control import StepStates
from speciate.tasks.families.forecasting import Lags
from speciate.tasks.families.segmentation import VoxelFeatures
from speciate.tasks.families.tokens import UnitFeatures
from speciate.tasks.interval_quantiles import IntervalQuantiles
from speciate.tasks.joined_representations import Joined
from speciate.tasks.multimodal_representation import Parts
from speciate.tasks.network_predictor import MANIFEST
from speciate.tasks.random_convolutions import Convolutions
from speciate.tasks.representations import Columns, Documents, Embeddings, Features, Properties, Steps, Vectors
from speciate.tasks.several_representations import Several
from speciate.tasks.task import (
    Prediction,
    Predictor,
    Representation,
    RepresentationSettings,
    TaskHead,
    TaskTerms,
    predict_examples,
)
from speciate.tasks.task_heads import TASK_HEADS, AnyTaskHead
from speciate.tasks.text_columns import TextColumns
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Folders

__all__ = ["Prediction", "Predictor", "TrainedPredictor", "constant", "load"]

_ARRAYS, ESTIMATOR = "representation.safetensors", "estimator.safetensors"
REBUILD: Mapping[str, type[Any]] = {
    "documents": Documents, "vectors": Vectors, "columns": Columns, "features": Features, "unit features": UnitFeatures,
    "lags": Lags, "steps": Steps, "step states": StepStates,
    "voxel features": VoxelFeatures,
    "properties": Properties, "several": Several, "convolutions": Convolutions,
    "competing convolutions": CompetingConvolutions,
    "quantiles": IntervalQuantiles, "encoded columns": EncodedColumns,
    "parts": Parts, "joined": Joined, "text columns": TextColumns,
}  # fmt: skip


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str
    representation: RepresentationSettings
    task_head: AnyTaskHead = Field(alias="readout")
    """Under the name that it has in every stored model."""


class TrainedPredictor:
    def __init__(self, task: str, representation: Representation, estimator: Estimator, task_head: TaskHead) -> None:
        self.task, self.representation, self.estimator, self.task_head = task, representation, estimator, task_head

    @property
    def labels(self) -> tuple[str, ...]:
        return self.task_head.labels

    @property
    def parameters(self) -> int:
        """Learned numbers, those of a frozen base model included."""
        encoder = getattr(self.representation, "encoder", None)
        frozen = {each.encoder.id: each.encoder for each in nested_encoders.encoders_of(self.representation)}
        frozen |= {encoder.id: encoder} if encoder else {}
        return self.estimator.parameters + sum(each.parameters for each in frozen.values())

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        if not examples:
            return []
        return predict_examples(self.task_head, self.estimator.scores(self.representation.encode(examples)), examples)

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id."""
        folder.mkdir(parents=True)
        manifest = {"task": self.task, "representation": self.representation.settings(), "readout": self.task_head}
        (folder / MANIFEST).write_text(_Manifest.model_validate(manifest).model_dump_json(indent=1, by_alias=True))
        estimators.save_arrays(self.representation.arrays(), folder / _ARRAYS, {})
        blend.save(self.estimator, folder / ESTIMATOR)
        if isinstance(self.representation, Embeddings):
            self.representation.keep(folder)
        nested_encoders.keep(self.representation, folder)
        return sealed.seal(folder)


class ConstantPredictor:
    def __init__(self, task: str, answer: Callable[[Example], Prediction], labels: tuple[str, ...]) -> None:
        self.task, self.labels, self._answer = task, labels, answer

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        return [self._answer(example) for example in examples]


def constant(task: str, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Predictor:
    """What is answered without a model, known from the training targets: the best such answer by `metric`.

    `terms`: with the examples' modality.
    """
    family = find_task(task).family
    labels = tuple(sorted(set(targets))) if family == "classification" else ()
    return ConstantPredictor(task, TASK_HEADS[family].baseline(targets, terms, metric), labels)


def load(path: Path, cache: Folders | None = None, threads: int = 1) -> Predictor:
    """A model from its version's folder.

    With `cache` (a workspace's folders) frozen features are read from and added to the cache: for many examples of a
    dataset, not where latency is measured. Raises NOT_FOUND or REFUSED for a folder that is not as it was sealed,
    MISSING_EXTRA where its base model is not installed.
    """
    if packaged_weights(path) is not None:
        raise SpeciateError(
            Code.INVALID,
            "The weights of this package are in GGUF, which is converted by a job before it can answer.",
            "Call evaluate_models, or train_model(method='sft', ...) and ask the model that it makes.",
        )
    sealed.check(path)
    return load_checked(path, cache, threads)


def load_checked(path: Path, cache: Folders | None = None, threads: int = 1) -> Predictor:
    """As `load`, from a folder whose hashes the caller has checked."""
    if is_pipeline(path):
        return image_generator.load_generator(path, threads)
    if not (path / MANIFEST).is_file() and is_causal_lm(path):
        return language_predictor.load_language_model(path, threads)
    if not (path / MANIFEST).is_file() and is_vision_language(path):
        return vision_language_predictor.load_vision_model(path, threads)
    if published_predictor.is_published(path):
        return published_predictor.load_published(path, threads)
    try:
        said = json.loads((path / MANIFEST).read_text())
        if "published" in said:
            return published_predictor.load_published(path, threads)
        if "language" in said:
            return language_predictor.load_language_model(path, threads)
        if "seeing" in said:
            return vision_language_predictor.load_vision_model(path, threads)
        if "reward" in said:
            return language_predictor.load_reward_model(path, threads)
        if "backbone" in said:
            return network_predictor.load_network(path, threads)
        manifest = _Manifest.model_validate(said)
    except (FileNotFoundError, ValueError) as error:
        why = "it has no predictor.json" if isinstance(error, FileNotFoundError) else "its predictor.json is damaged"
        raise SpeciateError(
            Code.INVALID, f"{path} cannot answer: {why}.", "Use a model that train_model or specialize made.",
            str(error),
        ) from error  # fmt: skip
    settings = manifest.representation
    representation: Representation
    if settings["kind"] == "embeddings":
        representation = Embeddings.rebuild(settings, path, cache, threads)
    else:
        arrays, _ = estimators.load_arrays(path / _ARRAYS)
        if nested_encoders.has_nested(settings):
            nested = partial(nested_encoders.rebuild, folder=path, cache=cache, threads=threads)
            representation = REBUILD[settings["kind"]].rebuild(settings, arrays, nested)
            return TrainedPredictor(manifest.task, representation, blend.load(path / ESTIMATOR), manifest.task_head)
        representation = REBUILD[settings["kind"]].rebuild(settings, arrays)
    return TrainedPredictor(manifest.task, representation, blend.load(path / ESTIMATOR), manifest.task_head)
