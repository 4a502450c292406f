"""Asks a model: resolves what is meant, has the service pool answer, and records the first production answer.

The daemon reads the bytes of a file but never decodes them, and never loads a model: `answer.py` does both in a caged
process. Answers of production are logged by who gives them: the use case's slot, or, where none runs, the daemon.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field, model_validator

from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import CALL_SECONDS, Ended, Pool
from speciate.models import registry
from speciate.models.card import Card
from speciate.models.registry import ModelVersion
from speciate.production import aliases, caller_file, loading, logged, unfinished
from speciate.production.mixed_inputs import parts_of_row
from speciate.production.unfinished import Finished
from speciate.refs import ModelRef, model_ref
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

ANSWER = "speciate.production.answer:answer"
_LOAD_SECONDS = 28.0
"""For a model that is being loaded, of the `CALL_SECONDS` that a call has: the answer needs some, too."""
MOST_BYTES = 64 * 1024 * 1024
"""Of all inputs of one call together; more is a job's work."""
_LONGEST_ERROR = 300
"""Characters of an item's error after the first, which is told in full."""

_FORMS = (
    'Write {"text": "..."} for a text, a protein\'s sequence or a molecule\'s SMILES, {"row": {"COLUMN": VALUE}} for a '
    'table\'s row, {"path": "FILE"} for a file.'
)

_ANSWERED = """
SELECT 1 FROM events WHERE subject = ? AND type = 'production.answered' AND data ->> 'model' = ? LIMIT 1
"""
_recorded: WeakKeyDictionary[Workspace, set[tuple[str, str]]] = WeakKeyDictionary()
"""Use case and version of the first answers that are known to be in the events: not every answer searches them."""


_Read = Callable[[str, int], bytes]
"""The bytes of what an input names, up to so many; SpeciateError for what cannot be read."""


class Input(BaseModel):
    """One thing to answer, in exactly one of these forms."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str | None = None
    row: dict[str, Any] | None = Field(None, description="Column -> value; of mixed rows part -> text or path.")
    path: str | None = Field(None, description="A file; or a folder whose files are one example, such as a series.")
    data: str | None = Field(None, description="Base64; with mime.")
    mime: str | None = None
    id: str | None = Field(None, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, given: Any) -> Any:
        """Whoever writes {"sequence": "MK..."} learns the form, not only that the name is wrong."""
        if isinstance(given, dict) and (strange := [str(name) for name in given if name not in cls.model_fields]):
            raise ValueError(f"{', '.join(map(repr, strange[:3]))} is no form of input. {_FORMS}")
        return given

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [name for name in ("text", "row", "path", "data") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of text, row, path, data; got {', '.join(given) or 'none'}. {_FORMS}")
        return self


class Predicted(NamedTuple):
    id: str
    output: Any
    """As the task has it: a label, a number, or JSON with more in it. None where there is an error."""
    confidence: float | None
    error: str | None
    error_text: str | None = None
    """What a decoder said, which may quote the input."""
    prediction: str | None = None
    """Its id in the log of the use case; None where none was asked, or nothing could be written."""


class Answer(NamedTuple):
    predictions: list[Predicted]
    model: str
    """The version that answered, `name@v3`."""
    latency_ms: float


class Said(NamedTuple):
    """What a serving process answered."""

    predictions: list[dict[str, Any]]
    model: str
    """The version that answered."""


Serving = Callable[[str, list[dict[str, Any]]], Said | None]
"""Asks the process that serves a use case; None where there is none, or it cannot answer now."""


def nobody(use_case: str, items: list[dict[str, Any]]) -> Said | None:
    """No use case has a serving process."""
    return None


def asked(model: str | None, use_case: str | None) -> str:
    """The model ref of a call that names either a model or a use case. Raises INVALID where it names both or none."""
    if (model is None) == (use_case is None):
        raise SpeciateError(
            Code.INVALID,
            f"predict takes either model or use_case; got model={model!r} and use_case={use_case!r}.",
            "Call predict again with one of them.",
        )
    return model or f"{use_case}@production"


def predict(
    workspace: Workspace,
    pool: Pool,
    model: str,
    inputs: Sequence[Input],
    place: Callable[[str], Path] = Path,
    serving: Serving = nobody,
) -> Answer:
    """One prediction per input, in order; an input that cannot be used has an error instead.

    `place` makes a path of what an input says, or raises SpeciateError, which spoils only that input. `serving` is
    asked first for a use case's production; it may serve another version than the alias names, and says which.

    `model` is any ref to a registered version; asked as `USECASE@production`, the first answer of each version stops
    the clock of time to model. Raises NOT_FOUND for the model, INVALID for inputs that are too large, UNAVAILABLE
    where the pool could not answer in time; loading and answering go on then, and the same call again gets the answer.
    """
    ref = model_ref(model)
    version = registry.resolve(workspace.database, workspace.folders, model)
    began = time.monotonic()
    payload = _payload(
        version.card,
        version.path,
        inputs,
        lambda path, most: caller_file.read(place(path), most, workspace.folders.root),
    )
    started = time.perf_counter()
    said = serving(ref.name, payload["items"]) if ref.alias == "production" else None
    latency_ms = 1000 * (time.perf_counter() - started)
    if said is None:
        again = f"use_case={ref.name!r}" if ref.alias == "production" else f"model={model!r}"
        finished = _ask_pool(pool, version, payload, began + CALL_SECONDS, f"predict({again}, inputs=[the same])")
        said, latency_ms = Said(finished.answer["predictions"], version.ref), 1000 * finished.seconds
        if ref.alias == "production":
            said = _logged(workspace, ref.name, version, payload["items"], said, latency_ms)
    predictions, name = _shortened([Predicted(**item) for item in said.predictions]), said.model
    if any(item.error is None for item in predictions):
        _record_first(workspace, ref, name)
    return Answer(predictions, name, latency_ms)


def _ask_pool(pool: Pool, version: ModelVersion, payload: dict[str, Any], end: float, again: str) -> Finished:
    """What the pool answers until `end`, to this call or to one before it that was the same. What is not there by then
    goes on, for the call `again`. Where its process was ended, the model is loaded again, with the patience that
    loading has: the next call would be ended in the middle of it, too."""
    questions, loaded_after = unfinished.of(pool), 0.0
    question = questions.take(payload)
    if question is None:
        began = time.perf_counter()
        loading.of(pool).wait(version, min(_LOAD_SECONDS, end - time.monotonic()), again)
        loaded_after = time.perf_counter() - began
        question = questions.begin(ANSWER, payload, max(1.0, end - time.monotonic()))
    try:
        finished = question.wait(max(0.0, end - time.monotonic()))
    except Ended as error:
        loading.of(pool).begin_again(version)
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"{version.ref} gave no answer: the inputs are too many, or the machine is busy. {error.message}",
            "Its model is being loaded again: repeat the call in a moment, with fewer inputs if there are many.",
        ) from error
    if finished is None:
        questions.leave(question, payload)
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"{version.ref} is still answering, after {CALL_SECONDS:.0f} s: the inputs are many, or the machine is "
            "busy.",
            f"It goes on for {unfinished.PATIENCE_SECONDS:.0f} s in all; repeat the same call for its answer: {again}.",
        )
    return finished._replace(seconds=loaded_after + finished.seconds)


def _logged(
    workspace: Workspace, use_case: str, version: ModelVersion, items: list[dict[str, Any]], said: Said, ms: float
) -> Said:
    ids = logged.note(workspace, use_case, version.ref, version.card.modality or "", items, said.predictions, ms)
    numbered = zip(said.predictions, ids, strict=True)
    return said._replace(predictions=[{**one, "prediction": identifier} for one, identifier in numbered])


def _shortened(predictions: Sequence[Predicted]) -> list[Predicted]:
    """The same mistake is explained once: many items often have one, and each explanation may be long."""
    explained: dict[tuple[str, str | None], str] = {}
    shown: list[Predicted] = []
    for item in predictions:
        if item.error is None:
            shown.append(item)
        elif (mistake := (item.error, item.error_text)) in explained:
            shown.append(item._replace(error=f"as item {explained[mistake]}", error_text=None))
        else:
            shown.append(_clipped(item) if explained else item)
            explained[mistake] = item.id
    return shown


def _clipped(item: Predicted) -> Predicted:
    error, text = item.error or "", item.error_text
    return item._replace(error=_clip(error), error_text=None if text is None else _clip(text))


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}..."


def _payload(card: Card, path: Path, inputs: Sequence[Input], read: _Read) -> dict[str, Any]:
    items, room = [], MOST_BYTES
    for number, given in enumerate(inputs):
        item: dict[str, Any] = {"id": given.id or str(number)}
        if given.path is not None:
            data = _read_or_error(read, given.path, room)
            if isinstance(data, SpeciateError):
                item["error"] = str(data)
            else:
                room -= len(data)
                item["data"] = base64.b64encode(data).decode()
        elif given.data is not None:
            room -= len(given.data) * 3 // 4
            item["data"] = given.data
        elif given.text is not None:
            item["text"] = given.text
        elif card.parts and given.row is not None:
            reading = _Reading(read, room)
            try:
                item["parts"] = parts_of_row(given.row, card.parts, reading, card.ignored_parts)
            except SpeciateError as error:
                item["error"] = str(error)
            room = reading.room
        else:
            item["row"] = given.row
        _check_room(room)
        items.append(item)
    return {
        "model": str(path),
        "modality": card.modality,
        "inputs": list(card.inputs),
        "parts": list(card.parts),
        "ignored_parts": list(card.ignored_parts),
        "items": items,
    }


class _Reading:
    """Files of one row, with the bytes that are left for them."""

    def __init__(self, read: _Read, room: int) -> None:
        self._read, self.room = read, room

    def __call__(self, path: str) -> bytes:
        data = self._read(path, max(self.room, 0))
        self.room -= len(data)
        return data


def _read_or_error(read: _Read, path: str, most: int) -> bytes | SpeciateError:
    try:
        return read(path, most)
    except SpeciateError as error:
        return error


def _check_room(room: int) -> None:
    if room < 0:
        raise SpeciateError(
            Code.INVALID,
            f"The inputs of one call may hold {MOST_BYTES // 1024**2} MiB together, and these hold more.",
            "Call predict with fewer or smaller inputs.",
        )


def _record_first(workspace: Workspace, ref: ModelRef, model: str) -> None:
    """Write `production.answered` once per use case and version. What a canary answers, its slot notes."""
    if ref.alias != "production":
        return
    canary = aliases.read(workspace.database, ref.name, aliases.CANARY)
    if canary and canary.model == model:
        return
    subject, recorded = f"use_case:{ref.name}", _recorded.setdefault(workspace, set())
    if (subject, model) in recorded:
        return

    def record(tx: Transaction) -> None:
        if not tx.execute(_ANSWERED, [subject, model]):
            tx.event(subject, "production.answered", {"model": model})

    workspace.database.transact(record)
    recorded.add((subject, model))
