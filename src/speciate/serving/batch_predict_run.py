"""The worker's part of `predict`: answer chunk by chunk, each on disk before the next, and write the answers.

A run after a kill goes on behind the last chunk of the runs before it. An input that ends the sandboxed process, or
takes too long, costs itself alone: its chunk is halved until it stands by itself.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from speciate import foreign_files
from speciate.datasets import next_version, split_warnings, version_rows
from speciate.datasets.content_hash import unpack_lanes
from speciate.datasets.exports.cells import CsvFile
from speciate.datasets.ingest.draft import carry_report, quality_report, split_report
from speciate.datasets.leaks import leak_warnings
from speciate.datasets.loading.loader import iterate_examples
from speciate.datasets.next_version import PackedVersion, pack_version
from speciate.datasets.operations.operation import fill_column, provenance_columns
from speciate.datasets.readers.formats import Reader
from speciate.datasets.readers.read_table import TableRequest
from speciate.datasets.readers.rows import REASON
from speciate.datasets.readers.time_series import SERIES
from speciate.datasets.version_report import Dealing, SplitReport, VersionReport
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation.endpoints.concurrent_calls import BudgetSpent
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.answering import CHUNK, Answer, PredictorRequest, answer_all, check_answer
from speciate.evaluation.predictors.by_source import predict
from speciate.evaluation.predictors.endpoint import recorded_answers
from speciate.faults import fault
from speciate.jobs.atomic_folder import hidden_folder_beside
from speciate.jobs.folder import write_whole
from speciate.jobs.pool import Pool, PoolProcessEnded
from speciate.jobs.run import Run, Stopped
from speciate.models.language.causal_lm import transformers_folder
from speciate.serving.batch_predict import (
    CONFIDENCE,
    PREDICTION,
    NewFile,
    NewRows,
    PredictPayload,
    RowsOfDataset,
    RowsOfFile,
    steps_as_series,
)
from speciate.serving.items import AnswerPayload, Item, ItemPrediction, error_in_full
from speciate.settings import Settings
from speciate.tasks import input_ranges
from speciate.tasks.example_targets import texts_as_media
from speciate.tasks.language_predictor import LanguagePredictor
from speciate.tasks.predictor import load
from speciate.tasks.vision_language_predictor import VisionLanguagePredictor
from speciate.vocabulary import find_task
from speciate.workspace.blobs import sync_folder

_READ = "speciate.datasets.readers.read_table:read_table"
_ANSWER = "speciate.serving.predict_worker:answer"
_READ_SECONDS, _ANSWER_SECONDS = 900.0, 600.0
_AT_ONCE, _WRITTEN_AT_ONCE = 256, 8
"""Rows of a file, and of texts to write, that are answered and on disk together."""
_CELLS, _FILES = 16_384, 512
"""Examples in memory together: of cells, and of decoded files."""
_LARGEST, _TOGETHER = 64 << 20, 64 << 20
"""Bytes of a file, and of the files of a chunk."""
_TABLE, _DONE = "table.parquet", "published.json"
_NOT_REACHED = "not asked: the budget is spent"
_SHOWN = 5


class _Row(NamedTuple):
    """One input with its answer. `id`: of the example, the number of the row from 1, or the file's name."""

    id: str
    answer: Answer
    remarks: tuple[str, ...] = ()
    """What is odd in it beside what training saw."""


def run(run: Run) -> dict[str, Any]:
    payload = run.read_payload(PredictPayload)
    if (finished := _published(run, payload)) is not None:
        return finished
    if isinstance(payload.rows, RowsOfFile):
        model, answered = payload.rows.model, _answer_file(run, payload.rows)
    else:
        model, answered = payload.rows.model.name, _answer_dataset(run, payload, payload.rows)
    report = _report(model, answered)
    fault("predict_answered")
    if isinstance(payload.answers, NewRows):
        assert isinstance(payload.rows, RowsOfDataset)
        return {"version": _seal(run, payload, payload.rows, payload.answers, answered, report), "result": {}}
    return _publish(run, payload.answers, model, answered, report)


def _report(model: str, rows: Sequence[_Row]) -> dict[str, Any]:
    failed = Counter(row.answer.error for row in rows if row.answer.error is not None)
    without = [row.id for row in rows if row.answer.error is not None]
    odd = [row for row in rows if row.remarks and row.answer.error is None]
    remarks = Counter(remark for row in odd for remark in row.remarks)
    foreign: dict[str, Any] = {"reasons": dict(failed.most_common(_SHOWN)), "ids": without[:_SHOWN]} if failed else {}
    if odd:
        foreign |= {"remarks": dict(remarks.most_common(_SHOWN)), "odd_ids": [row.id for row in odd[:_SHOWN]]}
    return {
        "model": model, "rows": len(rows), "answered": len(rows) - failed.total(), "failed": failed.total(),
        **({"odd": len(odd)} if odd else {}), **({"untrusted": foreign} if foreign else {}),
    }  # fmt: skip


# Rows of a dataset


def _answer_dataset(run: Run, payload: PredictPayload, rows: RowsOfDataset) -> list[_Row]:
    manifest, model = rows.manifest, rows.model
    total = manifest.rows if rows.split is None else manifest.splits.get(rows.split, manifest.rows)
    shown = manifest.model_copy(update={"inputs": model.inputs}) if model.inputs else manifest
    wanted = None if rows.split is None else [rows.split]
    size = _CELLS if shown.inputs else _FILES
    ask = _local(run, rows) if model.source == "model" else None
    tabular = model.source == "model" and manifest.modality == "tabular"
    seen = input_ranges.load(Path(model.path or "")) if tabular else {}
    found: list[_Row] = []
    from_texts = find_task(payload.task).reads is not None
    for loaded in iterate_examples(run.folders, shown, wanted, size):
        examples = texts_as_media(loaded, manifest, model.target, payload.task) if from_texts else loaded

        def on_progress(done: int, before: int = len(found)) -> None:
            run.progress(before + done, total, "answers", model.name)

        if ask is not None:
            predictor, at_once = ask
            answers = answer_all(run, model.identity, examples, predictor.predict, on_progress, at_once=at_once)
        else:
            request = PredictorRequest(
                run, _as_evaluation(payload, rows), model, examples, rows.labels, (), (), on_progress
            )
            answers = _ask_outside(request, first=not found)
        family = find_task(payload.task).family
        found += [
            _Row(
                example.id,
                check_answer(answer, family),
                tuple(input_ranges.remarks_on(example.media, seen)) if seen else (),
            )
            for example, answer in zip(examples, answers, strict=True)
        ]
    if not found:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no usable row{f' in the split {rows.split!r}' if rows.split else ''}.",
            next=[Call("describe_dataset", {"dataset": manifest.ref}, "for what it holds")],
        )
    return found


def _ask_outside(request: PredictorRequest, *, first: bool) -> list[Answer]:
    """Answers, with a reason for each row that the budget did not reach; where it reached none of the `first`,
    BudgetSpent is raised."""
    try:
        return predict(request).repeats[0]
    except BudgetSpent:
        if request.evaluated_model.source != "endpoint":
            raise
        found = recorded_answers(request)
        if first and not any(found):
            raise
        return [answer or Answer(None, error=_NOT_REACHED) for answer in found]


def _local(run: Run, rows: RowsOfDataset) -> tuple[Any, int]:
    """The model, and how many answers are on disk together: a kill costs no more."""
    predictor = load(transformers_folder(Path(rows.model.path or ""), run.folders.cache), run.folders)
    writes = isinstance(predictor, LanguagePredictor | VisionLanguagePredictor)
    return predictor, _WRITTEN_AT_ONCE if writes else CHUNK


def _as_evaluation(payload: PredictPayload, rows: RowsOfDataset) -> EvaluationPayload:
    """What asks hosted models and ensembles takes an evaluation."""
    return EvaluationPayload(
        dataset=rows.manifest, split=rows.split, models=(rows.model,), task=payload.task, metrics=(),
        baseline=rows.model.name, latency=False, budget_usd=rows.budget_usd, allowances=rows.allowances,
        private_hosts=rows.private_hosts, usd_per_core_hour=rows.usd_per_core_hour,
    )  # fmt: skip


def _seal(
    run: Run, payload: PredictPayload, rows: RowsOfDataset, wanted: NewRows, answered: Sequence[_Row],
    report: Mapping[str, Any],
) -> PackedVersion:  # fmt: skip
    """A version with the answers in columns."""
    parent = rows.manifest
    table = version_rows.read(run.folders, parent, splits=[rows.split] if wanted.beside and rows.split else None)
    table, manifest = with_answers(table, parent, rows.model.name, payload.task, answered)
    lanes = unpack_lanes(bytes.fromhex(wanted.lanes))
    if wanted.beside:
        sealed = next_version.seal_first(run.folders, table, manifest.model_copy(update={"name": wanted.name}))
    else:
        sealed = next_version.seal_changed(run.folders, parent, lanes, table, manifest)
    before = wanted.report.get("split", {})
    how = cast(Dealing, {name: before[name] for name in ("made_by", "fractions", "seed") if name in before})
    audit: SplitReport = {
        **split_report(table, parent.modality, made=False, inputs=parent.inputs, folders=run.folders), **how,
    }  # fmt: skip
    made: VersionReport = {
        **carry_report(wanted.report),
        **quality_report(table),
        "split": audit,
        "warnings": [*split_warnings.missing_label_warnings(audit["missing_labels"]), *leak_warnings(audit)],
    }
    return pack_version(
        sealed,
        parents=(parent.ref,),
        operation={"op": "predict", "model": rows.model.name, "task": payload.task, "split": rows.split},
        report=made,
        result={"report": dict(report)},
        onto=wanted.onto,
    )


def with_answers(
    table: pa.Table, manifest: Manifest, model: str, task: str, answered: Sequence[_Row]
) -> tuple[pa.Table, Manifest]:
    """The rows with the columns `prediction`, its confidence, and who made it, how, or why it is missing."""
    place_of = {name: place for place, name in enumerate(table["id"].to_pylist())}
    places = [place_of[row.id] for row in answered]
    answers = [row.answer for row in answered]
    numbers = all(_is_number(each.output) for each in answers if each.error is None)
    by, how, why = provenance_columns(PREDICTION)
    given = [each.error is None for each in answers]
    columns: list[tuple[str, list[Any], pa.DataType]] = [
        (PREDICTION, [_cell(each.output, numbers) for each in answers], pa.float64() if numbers else pa.string()),
        (CONFIDENCE, [each.confidence for each in answers], pa.float64()),
        (by, [model if there else None for there in given], pa.string()),
        (how, [task if there else None for there in given], pa.string()),
        (why, [each.error for each in answers], pa.string()),
    ]
    for name, values, kind in columns:
        table = fill_column(table, name, places, values, kind)
    return table.sort_by("id"), manifest


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(output: Any, numbers: bool) -> Any:
    """Lists and the like as JSON."""
    if output is None or (numbers and _is_number(output)):
        return output
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


# Rows of a file


def _answer_file(run: Run, rows: RowsOfFile) -> list[_Row]:
    done = _earlier_chunks(run)
    found: list[_Row] = []
    pool = Pool(run.folders, Settings(cage=rows.cage), size=1)
    try:
        inputs = _Folder(rows) if rows.folder else _Table(run, rows, pool)
        while (start := len(found)) < inputs.count:
            chunk = done.get(start)
            if chunk is None:
                if run.stopping:
                    raise Stopped
                items = inputs.items(start)
                chunk = _ask(pool, rows, items)
                _keep_chunk(run, start, chunk)
                fault("predict_chunk")
            found += chunk
            run.progress(len(found), inputs.count, "answers", rows.model)
    finally:
        pool.close()
    return found


class _Table:
    """The rows of a table, which a sandboxed process has read; a later attempt has the same rows, whatever became of
    the file."""

    def __init__(self, run: Run, rows: RowsOfFile, pool: Pool) -> None:
        self._rows = rows
        self._table = pq.read_table(_table_file(run, rows, pool))
        self.count = self._table.num_rows
        if not self.count:
            raise SpeciateError(Code.INVALID, f"{rows.source.name!r} has no row.", "Name a file with rows as source.")
        self._joins = bool(rows.channels) and SERIES not in self._table.column_names
        """Whether the columns are the channels of the series that the model reads, apart."""
        self._text = self._text_column()

    def items(self, start: int) -> list[Item]:
        chunk = self._table.slice(start, _AT_ONCE).to_pylist()
        return [self._item(start + place, row) for place, row in enumerate(chunk)]

    def _item(self, place: int, row: dict[str, Any]) -> Item:
        item: Item = {"id": str(place + 1)}
        if row.get(REASON):
            item["error"] = f"The row cannot be read: {row[REASON]}"
        elif self._text is not None:
            item["text"] = "" if row[self._text] is None else str(row[self._text])
        elif self._joins:
            together = [row[name] for name in self._rows.channels]
            item["row"] = {SERIES: None if None in together else together}
        else:
            row.pop(REASON, None)
            names = self._rows.inputs or list(row)
            item["row"] = {name: _as_json(row[name]) for name in names if name in row}
        return item

    def _text_column(self) -> str | None:
        """For a model of texts that was not trained on columns: the column of its medium's name, or the only one."""
        if self._rows.inputs or self._rows.modality == "tabular":
            self._check_columns()
            return None
        names = [name for name in self._table.column_names if name != REASON]
        usual = [name for name in (self._rows.modality, "text") if name in names]
        if not usual and len(names) != 1:
            raise SpeciateError(
                Code.INVALID,
                f"{self._rows.model} reads one text, and {self._rows.source.name!r} has {len(names)} columns, none of "
                "them called 'text'.",
                "Rename the column with the text to 'text'.",
            )
        return (usual or names)[0]

    def _check_columns(self) -> None:
        wanted = self._rows.channels if self._joins else self._rows.inputs
        if lacking := [name for name in wanted if name not in self._table.column_names]:
            series = self._rows.modality == "time-series"
            raise SpeciateError(
                Code.INVALID,
                f"{self._rows.model} reads the column {lacking[0]!r}, which {self._rows.source.name!r} lacks.",
                "Name a file with the columns that the model was trained on: describe_model shows them.",
                next=[steps_as_series(self._rows.source, self._rows.reader)] if series else (),
            )


def _table_file(run: Run, rows: RowsOfFile, pool: Pool) -> Path:
    """The table as Parquet, of this attempt or an earlier one."""
    path = run.checkpoints / _TABLE
    for earlier in run.resume_from:
        if (there := earlier.checkpoints / _TABLE).is_file():
            return there
    request = TableRequest(rows.source, Reader(), "tabular")

    def keep(file: Path, _: Mapping[str, Any]) -> None:
        partial = path.with_suffix(".partial")
        shutil.copyfile(file, partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)

    pool.ask_for_file(_READ, request.payload(), keep, _READ_SECONDS, readable=frozenset({rows.source}))
    return path


class _Folder:
    """The files in a folder and below, hidden ones apart, by name; each is an input."""

    def __init__(self, rows: RowsOfFile) -> None:
        root = rows.source
        self._root = root
        self._files = sorted(
            path
            for path in root.rglob("*")
            if path.is_file()
            and not path.is_symlink()
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
        )
        self.count = len(self._files)
        if not self.count:
            raise SpeciateError(Code.INVALID, f"{root.name!r} has no file.", "Name a folder with files as source.")

    def items(self, start: int) -> list[Item]:
        items: list[Item] = []
        size = 0
        for path in self._files[start : start + _AT_ONCE]:
            item: Item = {"id": str(path.relative_to(self._root))}
            try:
                data = foreign_files.read_named(path, _LARGEST)
            except (OSError, ValueError) as error:
                item["error"] = f"The file cannot be read: {getattr(error, 'strerror', None) or error}."
            else:
                size += len(data)
                if items and size > _TOGETHER:
                    break
                item["data"] = base64.b64encode(data).decode()
            items.append(item)
        return items


def _ask(pool: Pool, rows: RowsOfFile, items: list[Item]) -> list[_Row]:
    payload: AnswerPayload = {**rows.about(), "items": items}  # type: ignore[typeddict-item]  # no `seconds`
    try:
        given: list[ItemPrediction] = pool.ask(_ANSWER, payload, _ANSWER_SECONDS)["predictions"]
    except PoolProcessEnded:
        if len(items) == 1:
            ended = Answer(None, error="The model's process ended on this input, or did not answer it in time.")
            return [_Row(items[0]["id"], ended)]
        half = len(items) // 2
        return [*_ask(pool, rows, items[:half]), *_ask(pool, rows, items[half:])]
    return [
        _Row(item["id"], _answer(each), tuple(each.get("warnings", ())))
        for item, each in zip(items, given, strict=True)
    ]


def _answer(found: ItemPrediction) -> Answer:
    error = error_in_full(found)
    return Answer(found["output"], found["confidence"]) if error is None else Answer(None, error=error[:300])


def _as_json(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | list | dict) or value is None:
        return value
    return str(value)


def _keep_chunk(run: Run, start: int, chunk: Sequence[_Row]) -> None:
    document = [[row.id, *row.answer, *row.remarks] for row in chunk]
    write_whole(run.checkpoints / f"chunk-{start:09d}.json", json.dumps(document))


def _earlier_chunks(run: Run) -> dict[int, list[_Row]]:
    """Place of the first row -> rows, of all attempts before."""
    found: dict[int, list[_Row]] = {}
    for folder in (run.folder, *run.resume_from):
        for path in folder.checkpoints.glob("chunk-*.json"):
            rows = [
                _Row(name, Answer(*said[: len(Answer._fields)]), tuple(said[len(Answer._fields) :]))
                for name, *said in json.loads(path.read_text())
            ]
            found.setdefault(int(path.stem.partition("-")[2]), rows)
    return found


# The file of answers


def _publish(run: Run, wanted: NewFile, model: str, rows: Sequence[_Row], report: dict[str, Any]) -> dict[str, Any]:
    """Written beside the path, then linked there: whole or not at all, and never over another file."""
    path = wanted.path
    result = {"result": {"path": str(path), "report": report}}
    with hidden_folder_beside(path) as folder:
        file = folder / f"answers{path.suffix.lower()}"
        write_answers(file, model, rows)
        with file.open("rb") as written:
            os.fsync(written.fileno())
        identity = [file.stat().st_dev, file.stat().st_ino]
        write_whole(run.checkpoints / _DONE, json.dumps({"identity": identity, "result": result}))
        fault("predict_before_publish")
        _move(file, path)
    sync_folder(path.parent)
    fault("predict_published")
    for attempt in (run.folder, *run.resume_from):  # a copy of what the caller may delete
        (attempt.checkpoints / _TABLE).unlink(missing_ok=True)
    return result


def _move(file: Path, path: Path) -> None:
    """CONFLICT where something is at the path."""
    try:
        os.link(file, path)
    except FileExistsError:
        raise _occupied(path) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise _occupied(path) from None
        file.rename(path)


def _occupied(path: Path) -> SpeciateError:
    return SpeciateError(
        Code.CONFLICT,
        f"{str(path)!r} exists already, and answers never overwrite.",
        "Call predict again with a new path.",
    )


def _published(run: Run, payload: PredictPayload) -> dict[str, Any] | None:
    """The result of an earlier attempt that was killed after its file stood at the path."""
    if not isinstance(payload.answers, NewFile):
        return None
    for earlier in run.resume_from:
        with contextlib.suppress(FileNotFoundError):
            done = json.loads((earlier.checkpoints / _DONE).read_text())
            there = payload.answers.path.stat()
            if [there.st_dev, there.st_ino] == done["identity"]:
                found: dict[str, Any] = done["result"]
                return found
    return None


_HEADER = ("id", "output", "confidence", "error", "model")


def write_answers(path: Path, model: str, rows: Sequence[_Row]) -> None:
    """Writes answers in the format that the suffix says; a row for each input, in their order. Where outputs are not
    all numbers or all texts, CSV and Parquet have them as JSON."""
    outputs = [row.answer.output for row in rows if row.answer.error is None]
    numbers = all(map(_is_number, outputs))
    cells = [_cell(row.answer.output, numbers) for row in rows]
    match path.suffix:
        case ".jsonl":
            with path.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(model, rows))
        case ".csv":
            with CsvFile(path, _HEADER) as file:
                file.write(
                    [row.id, cell, row.answer.confidence, row.answer.error, model]
                    for row, cell in zip(rows, cells, strict=True)
                )
        case _:
            kind = pa.float64() if numbers and outputs else pa.string()
            columns = {
                "id": pa.array([row.id for row in rows], pa.string()), "output": pa.array(cells, kind),
                "confidence": pa.array([row.answer.confidence for row in rows], pa.float64()),
                "error": pa.array([row.answer.error for row in rows], pa.string()),
                "model": pa.array([model] * len(rows), pa.string()),
            }  # fmt: skip
            pq.write_table(pa.table(columns), path)


def _lines(model: str, rows: Iterable[_Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield dict(
            zip(
                _HEADER,
                (row.id, row.answer.output, row.answer.confidence, row.answer.error, model),
                strict=True,
            )
        )
