"""A model of arrays: numbers of each example, an estimator over them, and what its scores mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speciate.exports.standalone.media import as_answer, as_examples, columns_of
from speciate.tasks.task import predict_examples

_BATCH = 64


class Classical:
    """`predict(inputs)` gives an answer for each input."""

    def __init__(self, folder: str | Path, *, head: Any, representation: Any, estimator: Any, modality: str) -> None:
        from safetensors.numpy import load_file

        folder = Path(folder)
        manifest = json.loads((folder / "predictor.json").read_text(encoding="utf-8"))
        self.modality, self.columns = modality, columns_of(folder, modality)
        self.task_head = head.model_validate(manifest["readout"])
        arrays = load_file(folder / "representation.safetensors")
        self.representation = representation.rebuild(manifest["representation"], arrays)
        self.estimator = self._estimator(estimator, folder / "estimator.safetensors")

    def _estimator(self, estimator: Any, path: Path) -> Any:
        from safetensors.numpy import load_file

        return estimator(**load_file(path))

    def predict(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        made = []
        for start in range(0, len(inputs), _BATCH):
            examples = as_examples(inputs[start : start + _BATCH], self.modality, self.columns)
            found = self.estimator.scores(self.representation.encode(examples))
            made += [as_answer(each) for each in predict_examples(self.task_head, found, examples)]
        return made
