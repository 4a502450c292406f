"""The network of a model that can be exported, and the folder of an export with another engine's file in it.

Two kinds of models have a network: a backbone with the head of its task, and a probe over a frozen encoder. The head,
or the probe's estimator, stays as it is in our own files: it is small, and 8 bits cost most in the last layer."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.medical.volumes import is_volume, slice_images
from speciate.models import model_folder, packaged, sealed
from speciate.models.backbones import exported
from speciate.models.backbones.contract import Backbone, Item
from speciate.models.backbones.exported import ExportSettings
from speciate.models.encoders import OF_FRAMES, OF_LAYERS, FrozenEncoder
from speciate.refs import model_ref
from speciate.tasks import network_predictor
from speciate.tasks.network_predictor import MANIFEST, NetworkPredictor
from speciate.tasks.predictor import TrainedPredictor
from speciate.tasks.representations import Embeddings
from speciate.tasks.task import Predictor
from speciate.tasks.task_heads import PER_UNIT

_SLICES = 4
"""Images of a volume or a clip, for tracing and calibration."""
_EXPORTABLE = (
    "Networks (method 'full' or 'lora') and probes (method 'probe') over text, proteins, images, audio and time series "
    "can."
)


class ExportableNetwork(NamedTuple):
    predictor: Predictor
    backbone: Backbone
    """The backbone in float32."""
    per_unit: bool

    def items(self, examples: Sequence[Example]) -> list[Item]:
        media = [image for example in examples for image in _images_of(example.media, self.backbone.modality)]
        return self.backbone.prepare(media, per_unit=self.per_unit)

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.backbone.module.parameters())


def check_exportable(folder: Path, ref: str) -> None:
    """Raise INVALID if the version in this folder has no network that can be exported. Imports no torch."""
    if model_folder.is_export(folder):
        raise _cannot(ref, "it is an export itself", "Name the version that it was exported from.")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        manifest = {}
    if manifest.get("backbone") or manifest.get("representation", {}).get("kind") == "embeddings":
        return
    if "published" in manifest:
        raise _cannot(ref, "it is a published model with its own head, which format='safetensors' hands on", "")
    if "language" in manifest or not manifest:
        raise _cannot(ref, "it writes text, or has no head of a task", "")
    kind = manifest["representation"].get("kind")
    made = "a mean of several learners" if kind == "several" else kind
    raise _cannot(ref, f"it has no network: its answers come from {made}", "")


def exportable_network(predictor: Predictor) -> ExportableNetwork:
    if isinstance(predictor, NetworkPredictor):
        predictor.backbone.module.eval()
        return ExportableNetwork(predictor, predictor.backbone, predictor.task_head.family in PER_UNIT)
    assert isinstance(predictor, TrainedPredictor) and isinstance(predictor.representation, Embeddings)  # noqa: PT018
    return ExportableNetwork(predictor, predictor.representation.encoder.network(), per_unit=False)


def in_float32(predictor: Predictor) -> Predictor | None:
    """The predictor as it computes elsewhere, where that is not as it does here: a probe whose network serves in
    bfloat16. Those answers vary with the processor and with what is asked beside them, by up to a few thousandths."""
    if not (isinstance(predictor, TrainedPredictor) and isinstance(predictor.representation, Embeddings)):
        return None
    encoder = predictor.representation.encoder
    if encoder.precision == "float32" or not isinstance(encoder, FrozenEncoder):
        return None
    representation = Embeddings(predictor.representation.base_model, encoder.in_float32())
    return TrainedPredictor(predictor.task, representation, predictor.estimator, predictor.task_head)


def scores(predictor: Predictor, examples: Sequence[Example]) -> list[npt.NDArray[Any]]:
    """The raw scores behind the answers: an array for each example."""
    if isinstance(predictor, NetworkPredictor):
        media = [example.media for example in examples]
        items = predictor.backbone.prepare(media, per_unit=predictor.task_head.family in PER_UNIT)
        return network_predictor.scores(predictor.backbone, predictor.head, predictor.task_head, items)
    assert isinstance(predictor, TrainedPredictor)
    return list(np.asarray(predictor.estimator.scores(predictor.representation.encode(examples))))


def write_export(
    source: ExportableNetwork, parent: Path, export: ExportSettings, files: Sequence[Path], target: Path
) -> str:
    """Write and seal the export's folder; returns its id. `files`: the engine's, which are moved there."""
    target.mkdir(parents=True)
    left_out = {sealed.MANIFEST, sealed.CARD, model_folder.WEIGHTS, model_folder.SETTINGS}
    for path in sorted(parent.iterdir()):
        if path.is_file() and path.name not in left_out:
            shutil.copyfile(path, target / path.name)
    settings = source.backbone.settings() | {"width": source.backbone.width, exported.ENTRY: export.model_dump()}
    (target / model_folder.SETTINGS).write_text(json.dumps(settings, indent=1, sort_keys=True))
    for name, content in source.backbone.files().items():
        (target / name).write_bytes(content)
    for file in files:
        file.rename(target / file.name)
    _rename_encoder(target / MANIFEST, [target / file.name for file in files])
    return sealed.seal(target)


def network_bytes(parent: Path, base_model: str | None) -> int:
    """Size of the weights that the export replaces."""
    if (parent / model_folder.WEIGHTS).is_file():
        return (parent / model_folder.WEIGHTS).stat().st_size
    ref = model_ref(base_model or "")
    return sum(path.stat().st_size for path in packaged.locate(ref.name).glob("model*.safetensors"))


def _rename_encoder(path: Path, files: Sequence[Path]) -> None:
    """An exported encoder computes other vectors, so the cache must not return its parent's under the same name."""
    manifest = json.loads(path.read_text())
    representation = manifest.get("representation")
    if not representation:
        return
    digest = hashlib.sha256("".join(sealed.file_hash(file) for file in files).encode()).hexdigest()[:16]
    ending = next((each for each in (OF_FRAMES, OF_LAYERS) if representation["encoder"].endswith(each)), "")
    stem = representation["encoder"].removesuffix(ending).rpartition("-")[0]
    renamed = {"encoder": f"{stem}-export-{digest}{ending}", "precision": "float32"}
    manifest["representation"] = representation | renamed
    path.write_text(json.dumps(manifest, indent=1))


def _images_of(medium: Any, modality: str) -> list[Any]:
    """An image network sees volumes and clips image by image."""
    if modality == "image" and is_volume(medium):
        return list(slice_images(medium, _SLICES))
    if modality == "image" and isinstance(medium, dict) and "frames" in medium:
        frames = medium["frames"]
        return [frames[place] for place in np.unique(np.linspace(0, len(frames) - 1, _SLICES).round().astype(int))]
    return [medium]


def _cannot(ref: str, why: str, instead: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"{ref} cannot be exported to another engine: {why}. {_EXPORTABLE}",
        instead or f"Call export_model(model={ref!r}, format='safetensors', path='/new/folder') to give it away.",
    )  # fmt: skip
