"""A frozen network with an estimator over its vectors of unit length."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.exports.standalone.media import as_answer, as_examples
from speciate.models.backbones.layered import LayeredBackbone
from speciate.models.encoders import FramesEncoder, Precision, embed_batches
from speciate.tasks.task import predict_examples


class Probe:
    """`predict(inputs)` gives an answer for each input. `by_frames`: clips are read image by image;
    `by_layers`: texts at two depths of the network."""

    def __init__(
        self, folder: str | Path, *, head: Any, read: Callable[..., Any], rebuild: Callable[..., Any], estimator: Any,
        modality: str, by_frames: bool, by_layers: bool = False,
    ) -> None:  # fmt: skip
        from safetensors.numpy import load_file

        folder = Path(folder)
        manifest = json.loads((folder / "predictor.json").read_text(encoding="utf-8"))
        self.modality = modality
        self.task_head = head.model_validate(manifest["readout"])
        self.estimator = estimator(**load_file(folder / "estimator.safetensors"))
        network = read(folder, rebuild)
        frozen = FrozenNetwork(LayeredBackbone(network) if by_layers else network)
        self.encoder: Any = FramesEncoder(frozen) if by_frames else frozen

    def predict(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        examples = as_examples(inputs, self.modality)
        if not examples:
            return []
        vectors: npt.NDArray[np.float32] = np.zeros((len(examples), self.encoder.width), np.float32)
        for places, batch in self.encoder.embed([each.media for each in examples]):
            vectors[places] = batch
        found = self.estimator.scores(vectors)
        return [as_answer(each) for each in predict_examples(self.task_head, found, examples)]


class FrozenNetwork:
    """A backbone as an encoder, in float32 whatever it was learned from: the same numbers on every processor."""

    id, cache, parameters = "", "", 0
    precision: Precision = "float32"

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone

    @property
    def width(self) -> int:
        return int(self.backbone.width)

    def embed(self, media: Sequence[Any]) -> Any:
        return embed_batches(self.backbone, media)

    def keep(self, folder: Path) -> None:
        """Part of what an encoder is; an export only answers."""
        raise TypeError("an export answers, and is not kept anew")

    def network(self) -> Any:
        return self.backbone
