"""A network with the head of its task, read from its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speciate.exports.standalone.media import as_answer, as_examples, columns_of
from speciate.tasks.network_predictor import as_scores, scores
from speciate.tasks.task import predict_examples


class Network:
    """`predict(inputs)` gives an answer for each input."""

    def __init__(
        self, folder: str | Path, *, head: Any, read: Callable[..., Any], rebuild: Callable[..., Any], modality: str,
        per_unit: bool,
    ) -> None:  # fmt: skip
        from safetensors.torch import load_file

        folder = Path(folder)
        manifest = json.loads((folder / "predictor.json").read_text(encoding="utf-8"))
        self.modality, self.per_unit, self.columns = modality, per_unit, columns_of(folder, modality)
        self.task_head = head.model_validate(manifest["readout"])
        self.backbone = read(folder, rebuild)
        self.head = self.task_head.head(self.backbone.width)
        self.head.load_state_dict(load_file(folder / "head.safetensors"), strict=True)
        self.head.eval()

    def predict(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        examples = as_examples(inputs, self.modality, self.columns)
        if not examples:
            return []
        items = self.backbone.prepare([each.media for each in examples], per_unit=self.per_unit)
        found = as_scores(scores(self.backbone, self.head, self.task_head, items))
        return [as_answer(each) for each in predict_examples(self.task_head, found, examples)]
