"""A published model that was trained further with its own head: how it answers until it is saved, and its folder.

The folder is what `save_pretrained` writes, with the publisher's files of the preprocessing and our `predictor.json`:
other tools read it as they read the model that it came from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate.datasets.loading.loader import Example
from speciate.models import sealed
from speciate.models.published.manifest import PublishedManifest
from speciate.models.published.network import PublishedNetwork
from speciate.tasks.network_predictor import MANIFEST
from speciate.tasks.published_predictor import PublishedPredictor
from speciate.tasks.task import TaskHead

if TYPE_CHECKING:
    import torch

_FEW, _CLOSE = 4, 1e-4
"""Examples on which a folded temperature is tried, and by how much a logit may be off."""


class TrainedPublishedPredictor(PublishedPredictor):
    """Answers as the saved folder will."""

    def __init__(
        self, network: PublishedNetwork, thresholds: dict[str, float] | None = None, horizon: int | None = None
    ) -> None:
        super().__init__(network.model, network.prompts, thresholds=thresholds, horizon=horizon)
        self._network = network

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id."""
        folder.mkdir(parents=True)
        self._network.save_files(folder)
        manifest = PublishedManifest(
            task=self.task, trained=True, thresholds=self.thresholds, prompts=self.prompts, horizon=self.horizon
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
        return sealed.seal(folder)


def trained_predictor(
    network: PublishedNetwork, task_head: TaskHead, held: Sequence[Example]
) -> TrainedPublishedPredictor:
    """With what was calibrated on held-out examples: a temperature goes into the last layer, so that every tool gives
    the same probabilities; thresholds of labels stand in the manifest."""
    calibrated: Any = task_head
    thresholds = None
    if task_head.family == "multi-label":
        thresholds = dict(zip(task_head.labels, calibrated.thresholds, strict=True))
        network.model.config.thresholds = thresholds  # as other tools read them
    elif task_head.family == "classification" and held and calibrated.temperature != 1.0:
        _fold_temperature(network, calibrated.temperature, [example.media for example in held[:_FEW]])
    return TrainedPublishedPredictor(network, thresholds, getattr(task_head, "horizon", None))


def _fold_temperature(network: PublishedNetwork, temperature: float, media: Sequence[Any]) -> None:
    """Divide the layers that depend on the labels. Taken back where the logits are no linear function of these."""
    import torch

    parameters = dict(network.module.named_parameters())
    own = [parameters[name] for name in network.label_tensors]
    if network.model.head.zero_shot:
        _cool(network, temperature)
        return
    before, kept = _logits(network, media), [each.detach().clone() for each in own]
    with torch.no_grad():
        for each in own:
            each.div_(temperature)
        wanted = before / temperature
        if (_logits(network, media) - wanted).abs().max() > _CLOSE * wanted.abs().max().clamp(min=1.0):
            for each, old in zip(own, kept, strict=True):
                each.copy_(old)


def _cool(network: PublishedNetwork, temperature: float) -> None:
    """Apply a temperature to a zero-shot model, whose logits are multiplied by a number that is kept as its logarithm.
    Of several templates each is cooled by itself."""
    import torch

    scales = [each for name, each in network.module.named_parameters() if name.startswith("logit_scale")]
    with torch.no_grad():
        for each in scales:
            each.sub_(math.log(temperature))


def _logits(network: PublishedNetwork, media: Sequence[Any]) -> torch.Tensor:
    import torch

    network.module.eval()
    with torch.inference_mode():
        return network.states(network.collate(network.prepare(media))).pooled.clone()
