"""A model version in this process: `speciate.load("reviews@production")`, then `model(example)`.

For notebooks, batch scripts and tests. It answers as `predict` does, from the same files and the same code, but in the
caller's process: media are decoded without a sandbox, nothing is logged, and the version stays what it was when it was
loaded. For foreign media and for production call `predict` or a deployment.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.models import sealed
from speciate.models.model_card import ModelCard
from speciate.serving import predict_worker
from speciate.serving.items import AnswerPayload, Item, error_in_full
from speciate.tasks.task import Predictor

LocalInput = str | bytes | Path | Mapping[str, Any]
"""A text (of another modality: a file's path), a file's bytes, a file, or a row as column -> value. Also, as the tool
`predict` takes them: `{"row": row}`, `{"text": text}` and `{"path": path}`."""
_WORDS = ("text", "protein", "molecule")
"""Modalities whose examples may be written as a text."""


class LocalAnswer(NamedTuple):
    output: Any
    """As the task has it: a label, a number, or JSON with more in it. None if there is an error."""
    confidence: float | None
    error: str | None


class LocalModel:
    """One version of a model, or an exported folder. Its weights are read with the first answer, and kept.

    `predictor`: what answers, where that is not the version's own code.
    """

    def __init__(self, folder: Path, card: ModelCard, predictor: Predictor | None = None) -> None:
        self.folder, self.card, self._predictor = folder, card, predictor

    @property
    def ref(self) -> str:
        return self.card.ref if self.card.version else str(self.folder)

    def predict(self, examples: Sequence[LocalInput]) -> list[LocalAnswer]:
        """One answer for each example, in their order; an example that cannot be read has an error of its own.

        Raises what loading raises: MISSING_EXTRA for a library that is not installed, REFUSED for changed files.
        TypeError for one example that is not in a list.
        """
        if isinstance(examples, str | bytes | Path | Mapping):
            raise TypeError("predict takes a list of examples: model.predict([example]), or model(example) for one")
        items = [self._item(str(number), example) for number, example in enumerate(examples)]
        payload: AnswerPayload = {
            "model": str(self.folder),
            "modality": self.card.modality,
            "inputs": list(self.card.inputs),
            "parts": list(self.card.parts),
            "ignored_parts": list(self.card.ignored_parts),
            "items": items,
        }
        if self._predictor is None:
            found = predict_worker.answer(payload)["predictions"]
        else:
            found = predict_worker.answer_with(self._predictor, payload)["predictions"]
        return [LocalAnswer(each["output"], each["confidence"], error_in_full(each)) for each in found]

    def __call__(self, example: LocalInput) -> Any:
        """The output for one example. Raises INVALID where it cannot be answered, TypeError for a list of examples."""
        if not isinstance(example, str | bytes | Path | Mapping):
            raise TypeError(f"model(example) takes one example, not a {type(example).__name__}: model.predict([...])")
        (answer,) = self.predict([example])
        if answer.error is not None:
            raise SpeciateError(Code.INVALID, answer.error, "Pass an example as the model's card says.")
        return answer.output

    def __repr__(self) -> str:
        return f"<LocalModel {self.ref}: {self.card.task} of {self.card.modality}>"

    def _item(self, number: str, example: LocalInput) -> Item:
        try:
            return self._readable(number, example)
        except OSError as error:
            return {"id": number, "error": f"{example!s} cannot be read: {error.strerror or error}."}

    def _readable(self, number: str, example: LocalInput) -> Item:
        example = self._unwrapped(example)
        if isinstance(example, Mapping):
            if self.card.parts:
                raise SpeciateError(
                    Code.INVALID, f"{self.ref} reads mixed rows, which are not read here.", "Call predict instead."
                )
            if missing := [name for name in self.card.inputs if name not in example]:
                shown = json.dumps(dict.fromkeys(self.card.inputs[:10], "..."), ensure_ascii=False)
                return {
                    "id": number,
                    "error": f"The row has no {', '.join(map(repr, missing))}; this model reads "
                    f"{', '.join(map(repr, self.card.inputs))}. An example is a row: {shown}.",
                }
            return {"id": number, "row": dict(example)}
        if isinstance(example, str) and self.card.modality in _WORDS:
            return {"id": number, "text": example}
        data = example if isinstance(example, bytes) else Path(example).read_bytes()
        return {"id": number, "data": base64.b64encode(data).decode()}

    def _unwrapped(self, example: LocalInput) -> LocalInput:
        """The example within `{"row": ...}` and the like; a column of that name goes first."""
        if not isinstance(example, Mapping) or len(example) != 1:
            return example
        ((form, value),) = example.items()
        if form in self.card.inputs:
            return example
        if form == "row" and isinstance(value, Mapping):
            return value
        if form == "text" and isinstance(value, str) and self.card.modality in _WORDS:
            return value
        return Path(value) if form == "path" and isinstance(value, str | Path) else example


def open_model(folder: Path) -> LocalModel:
    """The model in a version's folder. Raises NOT_FOUND for a folder without one."""
    try:
        card = ModelCard.model_validate_json((folder / sealed.CARD).read_bytes())
    except (OSError, ValueError) as error:
        raise SpeciateError(
            Code.NOT_FOUND, f"{folder} holds no model of a workspace: {error}.", "Name a model, such as NAME@v3."
        ) from error
    return LocalModel(folder, card)
