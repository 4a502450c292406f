"""`predict`: resolve the model, ask its deployment or the service pool, and record the first production answer.

The daemon reads the bytes of files but never decodes them and never loads a model: `predict_worker` does both in a
sandboxed process. Production answers are logged by the process that gives them: the use case's deployment or, if none
runs, the daemon.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field, model_validator

from speciate import foreign_files, secrets, unix_sockets
from speciate.datasets import version_rows, versions
from speciate.datasets.columns import CONTENT, START
from speciate.datasets.identity import input_values
from speciate.datasets.readers.formats import format_of
from speciate.errors import Call, Code, SpeciateError, closest
from speciate.jobs.pool import CALL_SECONDS, Pool, PoolProcessEnded
from speciate.modalities import find
from speciate.modalities.bundles import MOST_MEMBERS, bundle
from speciate.modalities.multimodal import PartName, part_name
from speciate.modalities.tabular import Row
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.models.registry import ModelVersion
from speciate.predictions.answer_lookup import logs_of
from speciate.predictions.log import AnsweringModel
from speciate.promotion import aliases
from speciate.promotion.bake import has_answered
from speciate.refs import ModelRef, model_ref
from speciate.serving import in_process_counters, pending_answers, preloading
from speciate.serving.batch_predict import answers_beside, reads_rows, series_reader, steps_as_series
from speciate.serving.deployment_folder import deployment_folder
from speciate.serving.items import AnswerPayload, Cell, DeploymentAnswer, Item, ItemPrediction
from speciate.serving.pending_answers import Finished
from speciate.serving.request_metrics import FAILED, Outcome, outcome_of
from speciate.serving.request_parsing import ENTITY, MOST_INPUTS
from speciate.tasks.example_targets import usual_target
from speciate.vocabulary import task_named
from speciate.workspace.database import Transaction
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders, Workspace

ANSWER = "speciate.serving.predict_worker:answer"
_DEPLOYMENT_SECONDS = 20.0
_WITH_PREDICTIONS = {200, 422}
"""HTTP status."""
_LOAD_SECONDS = 28.0
"""Seconds of a call's `CALL_SECONDS` to load a model: the answer needs some, too."""
MOST_BYTES = 64 * 1024 * 1024
"""All inputs of one call together; more needs a job."""
_LONGEST_ERROR = 300
"""Characters of an item's error after the first, which is given in full."""

_FORMS = (
    'Write {"text": "..."} for a text, a protein\'s sequence or a molecule\'s SMILES, {"row": {"COLUMN": VALUE}} for a '
    'table\'s row, {"path": "FILE"} for a file, {"example": "ID", "dataset": "NAME"} for a row of a dataset.'
)

_TABLES = ("csv", "tsv", "jsonl", "parquet", "arrow")
_ROW_HINT = '{"row": {"COLUMN": VALUE}}, or {"text": "..."}.'

_recorded: WeakKeyDictionary[Workspace, set[tuple[str, str]]] = WeakKeyDictionary()
"""Use case and version of first answers that are surely in the events, so that not every answer searches them."""


_Read = Callable[[str, int], bytes]
"""The bytes at an input's path, up to so many; raises SpeciateError if it cannot be read."""


class Input(BaseModel):
    """One thing to answer, in exactly one of these forms."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str | None = None
    row: Row | None = Field(None, description="Column -> value; of mixed rows part -> text or path.")
    path: str | None = Field(None, description="A file; or a folder whose files are one example, such as a series.")
    data: str | None = Field(None, description="Base64; with mime.")
    mime: str | None = None
    example: str | None = Field(None, max_length=256, description="Id of a row; with dataset.")
    dataset: str | None = None
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
        forms = ("text", "row", "path", "data", "example")
        given = [name for name in forms if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(forms)}; got {', '.join(given) or 'none'}. {_FORMS}")
        if (self.example is None) != (self.dataset is None):
            raise ValueError('an example of a dataset is {"example": "ID", "dataset": "NAME"}')
        return self


class Prediction(NamedTuple):
    id: str
    output: Any
    """As the task has it: a label, a number, or JSON with more in it. None if there is an error."""
    confidence: float | None
    error: str | None
    error_text: str | None = None
    """A decoder's own words, which may quote the input."""
    prediction: str | None = None
    """Id of the answer in the log of the use case; None if no use case was asked, or nothing could be written."""
    warnings: tuple[str, ...] = ()
    """What is odd in the input beside those that the model learned from."""

    @classmethod
    def of(cls, found: ItemPrediction) -> Prediction:
        return cls(
            found["id"], found["output"], found["confidence"], found["error"], found.get("error_text"),
            found.get("prediction"), tuple(found.get("warnings", ())),
        )  # fmt: skip


class Answer(NamedTuple):
    predictions: list[Prediction]
    model: str
    """The version that answered, `name@v3`."""
    latency_ms: float


class ServedAnswers(NamedTuple):
    """The answers of a deployment."""

    predictions: list[ItemPrediction]
    model: str
    """The version that answered."""


Serving = Callable[[str, list[Item]], ServedAnswers | None]
"""Asks the deployment of a use case; None if there is none, or it cannot answer now."""


def no_deployment(use_case: str, items: list[Item]) -> ServedAnswers | None:
    """No use case has a serving process."""
    return None


def requested_model(model: str | None, use_case: str | None) -> str:
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
    serving: Serving = no_deployment,
    entity: str | None = None,
) -> Answer:
    """One prediction per input, in order; an input that cannot be used has an error instead.

    `place` makes a path of an input's `path`, or raises SpeciateError, which spoils only that input. `serving` is asked
    first for a use case's production; it may serve another version than the alias names, and says which. `entity`: who
    asks, for the log of what is not answered by `serving`.

    `model` is any ref to a registered version. With `USECASE@production`, the first answer of each version stops the
    clock of time to model. Raises NOT_FOUND for the model, INVALID for inputs that are too large, UNAVAILABLE if the
    pool could not answer in time; it continues then, and the same call again gets the answer.
    """
    with workspace.database.remembering():  # which version answers, while nothing is committed
        return _predict(workspace, pool, model, inputs, place, serving, entity)


def _predict(
    workspace: Workspace, pool: Pool, model: str, inputs: Sequence[Input], place: Callable[[str], Path],
    serving: Serving, entity: str | None,
) -> Answer:  # fmt: skip
    ref = model_ref(model)
    version = registry.resolve(workspace.database, workspace.folders, model)
    alias = aliases.read(workspace.database, ref.name) if ref.alias == "production" else None
    generation = alias.generation if alias and alias.model == version.ref else 0
    began = time.monotonic()
    _check_not_table(workspace, model, version.card, inputs)
    payload = _payload(
        version.card,
        version.path,
        inputs,
        lambda path, most: read_caller_file(place(path), most, workspace.folders.root),
        lambda given: _example_item(workspace, version.card, given),
    )
    started = time.perf_counter()
    served = serving(ref.name, payload["items"]) if ref.alias == "production" else None
    latency_ms = 1000 * (time.perf_counter() - started)
    if served is None:
        again = f"use_case={ref.name!r}" if ref.alias == "production" else f"model={model!r}"
        finished = _ask_pool(
            pool, version, payload, began + CALL_SECONDS, f"predict({again}, inputs=[the same])",
            lambda: _count(workspace, ref, version.ref, FAILED),
        )  # fmt: skip
        served, latency_ms = ServedAnswers(finished.answer["predictions"], version.ref), 1000 * finished.seconds
        if ref.alias == "production":
            about = AnsweringModel(version.ref, generation, version.card.modality or "")
            served = _log_predictions(workspace, ref.name, about, payload["items"], served, latency_ms, entity)
            _count(workspace, ref, version.ref, outcome_of(served.predictions, finished.seconds))
    predictions, name = _shorten_errors([Prediction.of(item) for item in served.predictions]), served.model
    if any(item.error is None for item in predictions):
        _record_first(workspace, ref, name)
    return Answer(predictions, name, latency_ms)


def _ask_pool(
    pool: Pool, version: ModelVersion, payload: AnswerPayload, end: float, again: str, failed: Callable[[], None]
) -> Finished:  # fmt: skip
    """The pool's answer until `end`, to this call or to an earlier one with the same inputs. After `end` the pool
    continues, for the call `again`. If the process was ended, the model is loaded again with the time limit of loading;
    the next call would be ended in the middle of it, too."""
    questions, loaded_after = pending_answers.pending_questions(pool), 0.0
    question = questions.take(payload)
    if question is None:
        began = time.perf_counter()
        preloading.preloader_of(pool).wait(version, min(_LOAD_SECONDS, end - time.monotonic()), again)
        loaded_after = time.perf_counter() - began
        question = questions.begin(ANSWER, payload, max(1.0, end - time.monotonic()), preloading.family(version.card))
    try:
        finished = question.wait(max(0.0, end - time.monotonic()))
    except PoolProcessEnded as error:
        failed()
        preloading.preloader_of(pool).begin_again(version)
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
            f"It goes on for {pending_answers.PATIENCE_SECONDS:.0f} s in all; repeat the same call for its answer: "
            f"{again}.",
        )
    return finished._replace(seconds=loaded_after + finished.seconds)


def _log_predictions(
    workspace: Workspace,
    use_case: str,
    about: AnsweringModel,
    items: list[Item],
    served: ServedAnswers,
    ms: float,
    entity: str | None,
) -> ServedAnswers:
    ids = log_answers(workspace, use_case, about, items, served.predictions, ms, entity)
    numbered = zip(served.predictions, ids, strict=True)
    return served._replace(predictions=[{**one, "prediction": identifier} for one, identifier in numbered])


def _shorten_errors(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Explains each mistake once: many items often have the same one, and an explanation may be long."""
    explained: dict[tuple[str, str | None], str] = {}
    shown: list[Prediction] = []
    for item in predictions:
        if item.error is None:
            shown.append(item)
        elif (mistake := (item.error, item.error_text)) in explained:
            shown.append(item._replace(error=f"as item {explained[mistake]}", error_text=None))
        else:
            shown.append(_clip_error(item) if explained else item)
            explained[mistake] = item.id
    return shown


def _clip_error(item: Prediction) -> Prediction:
    error, text = item.error or "", item.error_text
    return item._replace(error=_clip(error), error_text=None if text is None else _clip(text))


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}..."


def _check_not_table(workspace: Workspace, model: str, card: ModelCard, inputs: Sequence[Input]) -> None:
    """INVALID for the path of a table where an input is one row, or one text: that is a batch."""
    if card.parts or not reads_rows(card):
        return
    for given in inputs:
        if given.path is not None and format_of(given.path) in _TABLES:
            who = {"use_case": model.partition("@")[0]} if model.endswith("@production") else {"model": model}
            if card.modality == "time-series":
                made = steps_as_series(Path(given.path), series_reader(workspace, card))
                raise SpeciateError(
                    Code.INVALID,
                    f"{Path(given.path).name!r} is a table, and an input is one series: {_ROW_HINT}",
                    next=[made, Call("predict", {**who, "dataset": "asked"}, "afterwards")],
                )
            batch = {**who, "source": given.path, "path": answers_beside(Path(given.path))}
            raise SpeciateError(
                Code.INVALID,
                f"{Path(given.path).name!r} is a table, and an input is one of its rows: {_ROW_HINT}",
                next=[
                    Call("predict", batch, "for all of its rows, by a job"),
                    Call("create_dataset", {"name": "asked", "source": given.path}, "to keep them"),
                ],
            )


def _example_item(workspace: Workspace, card: ModelCard, given: Input) -> Item:
    """An example of a dataset as its model reads it. Raises NOT_FOUND for dataset or example, INVALID for what cannot
    be an input by itself."""
    manifest = versions.resolve(workspace.database, given.dataset or "")
    table = version_rows.read(workspace.folders, manifest, ids=[given.example or ""])
    if not table.num_rows:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{manifest.ref} has no example {given.example!r}.",
            next=[Call("query_dataset", {"dataset": manifest.ref, "sql": "SELECT id FROM examples"}, "for its ids")],
        )
    [row] = table.to_pylist()
    task = task_named(card.task or "")
    if task is not None and task.reads and task.suits(manifest.modality):
        column = card.recipe.get("target") or usual_target(manifest, task.name)
        text = row.get(str(column)) or row.get("label")
        return {"text": str(text)} if text else {"error": f"The example {given.example!r} has no text."}
    if card.inputs:
        if lacking := [name for name in card.inputs if name not in row]:
            raise SpeciateError(
                Code.INVALID,
                f"{card.ref} reads the column {lacking[0]!r}, which {manifest.ref} lacks.",
                next=[Call("describe_dataset", {"dataset": manifest.name}, "for its columns")],
            )
        return {"row": {name: _as_cell(row[name]) for name in card.inputs}}
    if manifest.inputs:
        [value] = input_values(manifest.modality, manifest.inputs, table)
        return {"text": value} if isinstance(value, str) else {"row": dict(value)}
    if row.get(START) is not None or not row[CONTENT]:
        raise SpeciateError(
            Code.INVALID,
            f"The example {given.example!r} is a window of a longer medium, or its bytes are not kept.",
            next=[
                Call("predict", {"model": card.ref, "dataset": manifest.ref, "save_as": "answers"}, "for all examples")
            ],
        )
    with PackReader(workspace.folders.root / pack for pack in manifest.packs) as packs:
        return {"data": base64.b64encode(packs.get(row[CONTENT])).decode()}


def _as_cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | dict) or value is None else str(value)


def _payload(
    card: ModelCard, path: Path, inputs: Sequence[Input], read: _Read, find_example: Callable[[Input], Item]
) -> AnswerPayload:
    items, room = list[Item](), MOST_BYTES
    for number, given in enumerate(inputs):
        item: Item = {"id": given.id or str(number)}
        if given.path is not None:
            data = _read_or_error(read, given.path, room)
            if isinstance(data, SpeciateError):
                item["error"] = str(data)
            else:
                room -= len(data)
                item["data"] = base64.b64encode(data).decode()
        elif given.example is not None:
            try:
                item |= find_example(given)
            except SpeciateError as error:
                item["error"] = str(error)
            room -= len(item.get("data", "")) * 3 // 4
        elif given.data is not None:
            room -= len(given.data) * 3 // 4
            item["data"] = given.data
        elif given.text is not None:
            item["text"] = given.text
        elif card.parts and given.row is not None:
            reading = _RowReader(read, room)
            try:
                item["parts"] = parts_of_row(given.row, card.parts, reading, card.ignored_parts)
            except SpeciateError as error:
                item["error"] = str(error)
            room = reading.room
        else:
            item["row"] = given.row or {}
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


class _RowReader:
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


def _count(workspace: Workspace, ref: ModelRef, model: str, outcome: Outcome) -> None:
    """For the bake, as a deployment would. An alias that moved meanwhile is not answered for."""
    alias = aliases.read(workspace.database, ref.name) if ref.alias == "production" else None
    if alias is not None and alias.model == model:
        in_process_counters.count(workspace, alias, outcome)


def _record_first(workspace: Workspace, ref: ModelRef, model: str) -> None:
    """Write `production.answered` once per use case and version. A canary's deployment notes its own answers."""
    if ref.alias != "production":
        return
    canary = aliases.read(workspace.database, ref.name, aliases.CANARY)
    if canary and canary.model == model:
        return
    recorded = _recorded.setdefault(workspace, set())
    if (ref.name, model) in recorded:
        return

    def record(tx: Transaction) -> None:
        if not has_answered(tx, ref.name, model):
            tx.event(f"use_case:{ref.name}", "production.answered", {"model": model})

    workspace.database.transact(record)
    recorded.add((ref.name, model))


def read_caller_file(path: Path, most: int, workspace: Path | None = None) -> bytes:
    """The bytes of the file at an absolute path, or the bundle of the files of a folder that is one example, such as a
    series of slices. At most `most` + 1 bytes.

    The path was resolved and checked against the roots before; since then somebody may have swapped in a link or a
    pipe. So no link is followed in any folder on the way, and only regular files are read. Raises INVALID if it is
    neither file nor folder, needs a link, or is a key or a file of `workspace`.
    """
    try:
        if path.is_dir():
            return _bundle(path, most, workspace)
        with foreign_files.open_named(path) as file:
            _check_not_own(path, file.fileno(), workspace)
            return file.read(most + 1)
    except foreign_files.NotAFile as error:
        raise _unreadable_error(path, "it is no regular file") from error
    except (OSError, ValueError) as error:
        raise _unreadable_error(path, type(error).__name__) from error


def _bundle(path: Path, most: int, workspace: Path | None) -> bytes:
    """Hidden files are passed over, as in every source."""
    folder = _open_listable(path)
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        if not names or len(names) > MOST_MEMBERS:
            has = f"{len(names):,}"
            raise _unreadable_error(
                path, f"a folder of one example has 1 to {MOST_MEMBERS:,} files, and this one {has}"
            )
        members: dict[str, bytes] = {}
        for name in names:
            members[name] = _member(path, folder, name, most, workspace)
            most -= len(members[name])
            if most < 0:
                break
    finally:
        os.close(folder)
    return bundle(members)


def _open_listable(path: Path) -> int:
    """A folder that can be listed, which what `open_folder` returns may not be."""
    way = foreign_files.open_folder(path)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=way)
    finally:
        os.close(way)


def _member(path: Path, folder: int, name: str, most: int, workspace: Path | None) -> bytes:
    if not name.isprintable():  # nor half a character, which stands for bytes that are no UTF-8
        raise _unreadable_error(path, f"{name!a} is no name for a file of an example")
    try:
        with foreign_files.open_file(path / name, folder) as file:
            _check_not_own(path, file.fileno(), workspace)
            return file.read(most + 1)
    except foreign_files.NotAFile as error:
        why = f"{name!r} in it is no regular file; a folder of one example has no others"
        raise _unreadable_error(path, why) from error


def _check_not_own(path: Path, descriptor: int, workspace: Path | None) -> None:
    """Refuses a person's keys and the workspace's own files, by what was opened: a hard link has another name."""
    info = os.fstat(descriptor)
    if info.st_nlink > 1 and (info.st_dev, info.st_ino) in secrets.inodes(workspace):
        raise _unreadable_error(path, "it leads to a person's keys, or to the workspace's own files")


def _unreadable_error(path: Path, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"{str(path)!r} cannot be read: {why}.", "Call predict again with the path of a file."
    )


def parts_of_row(
    row: Mapping[str, Any], parts: Sequence[str], read: Callable[[str], bytes], ignored: Sequence[str] = ()
) -> dict[str, Cell]:
    """A mixed row as a call gives it, `{"scan": "7.dcm", "report": "a text", "vitals": {"age": 7}}`, as NAME.MODALITY
    -> {value} or {data}, the file's bytes in Base64.

    The cell of a text or table part is its value; of any other part it is a path. `{"path": ...}` is a path for every
    part. A part without a name, or with null, is missing. `parts`: what the model reads; `ignored`: what rows may have,
    too: their files are not read. `read`: the bytes at a path, or SpeciateError. Raises INVALID for any other name, or
    if the row has only ignored parts.
    """
    known = {part.own: part for name in parts if (part := part_name(name))}
    beside = {part.own for name in ignored if (part := part_name(name))}
    found: dict[str, Cell] = {}
    for name, cell in row.items():
        if name in beside:
            continue
        if name not in known:
            raise SpeciateError(
                Code.INVALID,
                f"The row names {name!r}; this model reads the parts {', '.join(known)}. {closest(name, known)}",
                "Call predict again with these parts.",
            )
        path = _path(known[name], cell)
        if path is not None:
            found[str(known[name])] = {"data": base64.b64encode(read(path)).decode()}
        elif cell is not None:
            found[str(known[name])] = {"value": cell}
    if row and row.keys() <= beside:
        raise SpeciateError(
            Code.INVALID,
            f"The row has only {', '.join(row)}, and this model reads the parts {', '.join(known)}.",
            "Call predict again with some of these parts.",
        )
    return found


def _path(part: PartName, cell: Any) -> str | None:
    if isinstance(cell, dict) and list(cell) == ["path"] and isinstance(cell["path"], str):
        return str(cell["path"])
    written = find(part.modality).analyzer is not None
    return cell if isinstance(cell, str) and not written else None


def ask_deployment(
    folders: Folders, use_case: str, items: list[Item], entity: str | None = None
) -> ServedAnswers | None:
    """What the deployment of a use case answers to these items; None if it cannot now: there is none, it is loading, or
    it refuses them as it would refuse a stranger's.

    The daemon sends the same request as any client over HTTP, so that every answer is counted in one place. It uses the
    deployment's unix socket: its port may have been taken by somebody else.
    """
    folder = deployment_folder(folders, use_case)
    paths = [state.socket for each in folder.replicas() if (state := each.state()).serving and each.alive()]
    if not any(paths):
        return None
    usable = [item for item in items if "error" not in item]
    if not usable or len(usable) > MOST_INPUTS:
        return None
    wanted = folder.wanted()
    room = wanted.options.body_mb * 1024 * 1024 if wanted else MOST_BYTES
    asked = {"inputs": usable, "key": _key_of(usable), **({} if entity is None else {ENTITY: entity})}
    body = json.dumps(asked).encode()
    if len(body) > room:
        return None
    answers = (_post(Path(path), folder.token(), body) for path in paths if path)
    answer = next((each for each in answers if each is not None), None)  # of the first replica that can be reached
    if answer is None or "predictions" not in answer:
        return None
    found = iter(answer["predictions"])
    return ServedAnswers([_error_answer(item) if "error" in item else next(found) for item in items], answer["model"])


def _key_of(items: list[Item]) -> str:
    """The id of a single input, where it is more than its place; else any, as nobody told these requests apart."""
    [first, *rest] = items
    return str(first["id"]) if not rest and first["id"] != "0" else uuid.uuid4().hex


def _error_answer(item: Item) -> ItemPrediction:
    return {"id": item["id"], "output": None, "confidence": None, "error": item["error"]}


class _Connection(http.client.HTTPConnection):
    """Over a unix socket of our own user; OSError where it is another's."""

    def __init__(self, path: Path) -> None:
        super().__init__("slot")
        self._path = path

    def connect(self) -> None:
        self.sock = unix_sockets.connect(self._path, {os.getuid()}, _DEPLOYMENT_SECONDS)


def _post(path: Path, token: str, body: bytes) -> DeploymentAnswer | None:
    """None where the deployment cannot be reached, or has no answer to give."""
    connection = _Connection(path)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    try:
        connection.request("POST", "/predict", body, headers)
        response = connection.getresponse()
        data = response.read()
        return json.loads(data) if response.status in _WITH_PREDICTIONS else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def log_answers(
    workspace: Workspace, use_case: str, about: AnsweringModel,
    items: Sequence[Mapping[str, Any]], served: Sequence[Mapping[str, Any]], ms: float, entity: str | None = None,
) -> list[str | None]:  # fmt: skip
    """Log answers that the daemon gave itself; their ids, None where they could not be written."""
    log = logs_of(workspace).of(use_case)
    ids = log.ids(len(items))
    return list(ids) if log.note(ids, items, served, about, ms, entity) else [None] * len(ids)
