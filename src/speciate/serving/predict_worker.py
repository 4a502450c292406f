"""The half of `predict` that runs in a sandboxed process: decodes inputs, keeps models loaded.

A version's folder never changes, so its path is the key of the cache, which evicts only for want of room.
"""

from __future__ import annotations

import base64
import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets.identity import input_values
from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError, near_names
from speciate.finite import NOT_FINITE, is_finite
from speciate.modalities import find
from speciate.modalities.bundles import is_bundle
from speciate.modalities.contract import DecodeError
from speciate.modalities.multimodal import rename_parts
from speciate.models.language.text_generation import GeneratedText
from speciate.sandbox.serve import tell, tells
from speciate.serving.items import (
    FREE_COLUMNS,
    UNUSABLE,
    AnswerPart,
    AnswerPayload,
    AnswerResult,
    Item,
    ItemPrediction,
    Usage,
)
from speciate.tasks import input_ranges, predictor
from speciate.tasks.language_predictor import LanguagePredictor, TooLong
from speciate.tasks.nested_encoders import encoders_of
from speciate.tasks.representations import Embeddings
from speciate.tasks.task import Prediction, Predictor

_MODELS = 4
"""Models that one process keeps loaded."""
_MOST_COMPARED = 200
"""Columns of a row among which a misspelled one is looked for: more would take longer than the answers."""


def answer(payload: AnswerPayload) -> AnswerResult:
    """Predictions of the items, in their order."""
    return answer_with(_load_model(payload["model"]), payload)


def answer_with(model: Predictor, payload: AnswerPayload) -> AnswerResult:
    """As `answer`, by a model that is loaded."""
    decoded = [_decode(item, payload) for item in payload["items"]]
    usable = [example for example in decoded if isinstance(example, Example)]
    chats = [
        _Chat(place, example, item)
        for place, (item, example) in enumerate(zip(payload["items"], decoded, strict=True))
        if "generation" in item and isinstance(example, Example)
    ]
    if chats and isinstance(model, LanguagePredictor):
        return {"predictions": _respond(model, chats, decoded, payload)}
    given = _answers(model, usable)
    if len(given) != len(usable):
        raise SpeciateError(
            Code.INVALID,
            f"The model gave {len(given)} answers to {len(usable)} inputs.",
            "Use another version: describe_model names them.",
        )
    answers, seen = iter(given), _ranges(payload["model"]) if payload["modality"] == "tabular" else {}
    predictions: list[ItemPrediction] = []
    for item, example in zip(payload["items"], decoded, strict=True):
        found = next(answers) if isinstance(example, Example) else example
        if isinstance(found, Prediction) and not (is_finite(found.output) and is_finite(found.confidence)):
            predictions.append({"id": item["id"], "output": None, "confidence": None, "error": NOT_FINITE})
        elif isinstance(found, Prediction):
            answered: ItemPrediction = {
                "id": item["id"], "output": found.output, "confidence": found.confidence, "error": None,
            }  # fmt: skip
            if seen and isinstance(example, Example) and (odd := input_ranges.remarks_on(example.media, seen)):
                answered["warnings"] = odd
            predictions.append(answered)
        else:
            predictions.append(_failed(item["id"], found))
    return {"predictions": predictions}


def load(payload: Mapping[str, str]) -> Mapping[str, object]:
    """`{model}` -> `{}`: what the first answer would have to wait for."""
    representation = getattr(_load_model(payload["model"]), "representation", None)
    own = [representation] if isinstance(representation, Embeddings) else []
    for each in [*own, *(encoders_of(representation) if representation is not None else ())]:
        each.encode([])  # base models are loaded when they are first needed
    return {}


def _answers(model: Predictor, examples: Sequence[Example]) -> list[Prediction | SpeciateError]:
    """One for each; where the model refuses an input, all are asked one by one, so that it spoils only itself."""
    try:
        return list(model.predict(examples))
    except SpeciateError as error:
        if error.code is not Code.INVALID:
            raise
        if len(examples) == 1:
            return [error]
        return [one for example in examples for one in _answers(model, [example])]


class _Chat(NamedTuple):
    place: int
    example: Example
    item: Item


def _respond(
    model: LanguagePredictor, chats: Sequence[_Chat], decoded: Sequence[Example | Exception], payload: AnswerPayload
) -> list[ItemPrediction]:
    """Predictions of all items; items without `generation` are answered as the model is."""
    found: dict[int, GeneratedText | SpeciateError] = {}
    until = time.monotonic() + payload.get("seconds", math.inf)
    for alike in _alike(chats):
        found |= _respond_alike(model, alike, until)
    others = [
        (place, example) for place, example in enumerate(decoded) if place not in found and isinstance(example, Example)
    ]
    answers = dict(zip([place for place, _ in others], _answers(model, [each for _, each in others]), strict=True))
    predictions: list[ItemPrediction] = []
    for place, (item, example) in enumerate(zip(payload["items"], decoded, strict=True)):
        one = found.get(place) or answers.get(place) or example
        if isinstance(one, GeneratedText):
            usage: Usage = {
                "prompt_tokens": one.prompt_tokens, "completion_tokens": one.tokens, "finished": one.finished,
            }  # fmt: skip
            predictions.append(
                {"id": item["id"], "output": one.text, "confidence": None, "error": None, "usage": usage}
            )
        elif isinstance(one, Prediction):
            predictions.append({"id": item["id"], "output": one.output, "confidence": None, "error": None})
        elif isinstance(one, Exception):
            failed = _failed(item["id"], one)
            predictions.append({**failed, "too_long": True} if isinstance(one, TooLong) else failed)
    return predictions


def _alike(chats: Sequence[_Chat]) -> list[list[_Chat]]:
    """Chats with the same sampling together: they are answered as one batch."""
    groups: dict[str, list[_Chat]] = {}
    for each in chats:
        groups.setdefault(json.dumps(each.item["generation"], sort_keys=True), []).append(each)
    return list(groups.values())


def _respond_alike(
    model: LanguagePredictor, chats: Sequence[_Chat], until: float
) -> dict[int, GeneratedText | SpeciateError]:
    """Place -> answer; where the model refuses one, all are asked one by one, before anything was written."""
    cut = {
        number for number, each in enumerate(chats)
        if each.item.get("stream") or "max_new_tokens" in each.item["generation"]
    }  # fmt: skip

    def watch(new: Mapping[int, str]) -> set[int]:
        part: AnswerPart = {"texts": [(chats[number].place, text) for number, text in new.items()]}
        unwanted = {place for word in tell(part) for place in word["stop"]}
        gone = {number for number in new if chats[number].place in unwanted}
        return gone | (cut if time.monotonic() > until else set())

    try:
        changes = chats[0].item["generation"]
        given = model.respond([each.example for each in chats], changes, watch if tells() else None)
    except SpeciateError as error:
        if error.code is not Code.INVALID:
            raise
        if len(chats) == 1:
            return {chats[0].place: error}
        return {place: one for each in chats for place, one in _respond_alike(model, [each], until).items()}
    return {each.place: one for each, one in zip(chats, given, strict=True)}


@functools.lru_cache(maxsize=_MODELS)
def _load_model(path: str) -> Predictor:
    return predictor.load(Path(path))


@functools.lru_cache(maxsize=_MODELS)
def _ranges(path: str) -> input_ranges.InputRanges:
    return input_ranges.load(Path(path))


def _decode(item: Item, payload: AnswerPayload) -> Example | Exception:
    try:
        media = _decode_medium(item, payload)
    except (DecodeError, SpeciateError, ValueError, TypeError) as error:
        return error
    return Example(item["id"], media, None, item["id"], "", item.get("row") or {})


def _failed(identifier: str, error: Exception) -> ItemPrediction:
    """A failed item, with our own words as they are; the words of decoders and libraries apart, for they may quote the
    input."""
    ours = str(error) if isinstance(error, SpeciateError) else UNUSABLE
    found: ItemPrediction = {"id": identifier, "output": None, "confidence": None, "error": ours}
    if foreign := error.foreign if isinstance(error, SpeciateError) else str(error):
        found["error_text"] = foreign
    return found


def _decode_medium(item: Item, payload: AnswerPayload) -> Any:
    modality, inputs, parts = payload["modality"], payload["inputs"], payload["parts"]
    kind = find(modality or "")
    if "error" in item:
        raise SpeciateError(Code.INVALID, item["error"])
    if "parts" in item:
        cells = item["parts"].items()
        return kind.admit({name: cell["value"] if "value" in cell else _bytes(cell["data"]) for name, cell in cells})
    if "data" in item:
        data = _bytes(item["data"])
        data = rename_parts(parts, data, payload.get("ignored_parts", ())) if parts and is_bundle(data) else data
        kind.inspect(data)  # refuses what declares more than the budget
        return kind.decode(data)
    if "text" in item:
        return kind.admit(item["text"])
    row = item["row"]
    if missing := [name for name in inputs if name not in row]:
        empty = " A cell that is not known is null." if modality == "tabular" else ""
        empty += _misnamed(missing[0], [name for name in row if name not in inputs])
        raise SpeciateError(
            Code.INVALID,
            f"The row has no {', '.join(map(repr, missing))}; this model reads {', '.join(map(repr, inputs))}.{empty}",
            f"Call predict again with inputs=[{_example(inputs)}].",
        )
    columns = tuple(inputs) or (tuple(row) if modality in FREE_COLUMNS else ())
    return kind.admit(input_values(modality or "", columns, pa.Table.from_pylist([row]))[0] if columns else row)


def _misnamed(missing: str, others: Sequence[str]) -> str:
    """The column of the row that was probably meant."""
    others = others[:_MOST_COMPARED]
    near = [name for name in others if name.casefold() == missing.casefold()] or near_names(missing, others, 1)
    return f" Is {missing!r} what the row calls {near[0][:64]!r}?" if near else ""


def _example(inputs: Sequence[str]) -> str:
    return json.dumps({"row": dict.fromkeys(inputs[:10], "...")}, ensure_ascii=False)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID, f"The data is not Base64: {error}.", "Call predict again with all of the file's bytes."
        ) from error
