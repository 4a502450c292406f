"""The worker's part of `evaluate`: load each model, ask it everything, and write answers, scores and the report.

Three files: `examples.parquet` (id, group, truth, a preview of text, the user's columns: what slices are cut by),
`predictions.parquet` (a row per model and example, errors among them) and `scores.parquet` (a row per model, example
and mean metric).
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate.datasets.columns import CONTENT
from speciate.datasets.loader import Example, load_examples, read_rows
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation.answers import Answer, answer_all, from_column
from speciate.evaluation.compare import Cost, Entry, Question, build
from speciate.evaluation.contestants import Contestant
from speciate.evaluation.metrics import Answers, contributions, label_answers, number_answers
from speciate.evaluation.statistics import Codes
from speciate.evaluation.timing import measure, resident_mb
from speciate.jobs.run import Run
from speciate.tasks.predictor import constant, load
from speciate.usecases import UseCase
from speciate.vocabulary import Metric, find_metric

EXAMPLES, PREDICTIONS, SCORES = "examples.parquet", "predictions.parquet", "scores.parquet"
_PREVIEW = 300


class EvaluationTask(BaseModel):
    """What `plan` resolved for the worker. `metrics` starts with the main one."""

    model_config = ConfigDict(frozen=True)
    dataset: Manifest
    split: str | None
    contestants: tuple[Contestant, ...]
    task: str
    metrics: tuple[str, ...]
    target_column: str | None = None
    positive_label: str | None = None
    baseline: str
    candidate: str | None = None
    use_case: UseCase | None = None
    no_decision: str | None = None
    """Why no verdict may be given; None where it may."""
    latency: bool = True
    seed: int = 0

    @property
    def shown(self) -> str:
        return self.dataset.ref + (f":{self.split}" if self.split else "")


class _Sheet(NamedTuple):
    """One contestant's answers as they came."""

    contestant: Contestant
    answers: list[Answer]
    cost: Cost


def run(run: Run) -> dict[str, Any]:
    """Evaluate, and return `{"report": ...}`."""
    task = EvaluationTask.model_validate(run.payload)
    everything = load_examples(run.folders, task.dataset, _splits(task))
    examples = [e for e in everything if task.split in (None, e.split) and _truth(task, e) is not None]
    if len(examples) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"{task.shown} has {len(examples)} usable example(s) with a label, and a comparison needs at least 2.",
            f"Call describe_dataset(dataset={task.dataset.name!r}), then add_examples.",
        )
    truth = [_truth(task, example) for example in examples]
    learned = [answer for e in everything if e.split == "train" and (answer := _truth(task, e)) is not None]
    sheets = []
    for place, contestant in enumerate(task.contestants):
        sheets.append(_sheet(run, task, contestant, examples, learned or truth, place * len(examples)))
        gc.collect()  # the next model is measured without this one
    seen = [_seen(run, task, contestant, examples) for contestant in task.contestants]
    entries = [_entry(task, sheet, truth, known) for sheet, known in zip(sheets, seen, strict=True)]
    report = build(_question(task), entries, _clusters(examples), _notes(task, examples, learned, entries))
    _write(run.outputs, task, examples, truth, sheets, entries)
    return {"report": report.model_dump(mode="json")}


# Answers


def _sheet(
    run: Run,
    task: EvaluationTask,
    contestant: Contestant,
    examples: Sequence[Example],
    learned: Sequence[Any],
    done: int,
) -> _Sheet:
    if contestant.source == "column":
        return _Sheet(
            contestant, from_column(examples, contestant.column or "", task.task.endswith("-regression")), Cost()
        )
    total = len(task.contestants) * len(examples)
    if contestant.source == "constant":
        ask = constant(task.task, learned).predict
        answers = answer_all(run, contestant, task.dataset.id, examples, ask, done, total)
        return _Sheet(contestant, answers, Cost(0.0))
    path = Path(contestant.path or "")
    before = resident_mb()
    predictor = load(path)
    ask = load(path, run.folders).predict  # with cached features: the answers are the same, only sooner
    answers = answer_all(run, contestant, task.dataset.id, examples, ask, done, total)
    answered = [example for example, answer in zip(examples, answers, strict=True) if answer.error is None]
    cost = measure(predictor.predict, answered, latency=task.latency, seed=task.seed) if answered else Cost()
    after = resident_mb()
    grown = max(after - before, 0.0) if before is not None and after is not None else None
    return _Sheet(contestant, answers, cost._replace(memory_mb=_memory(contestant, grown)))


def _memory(contestant: Contestant, grown: float | None) -> float | None:
    """The process's growth while the model was loaded and asked, and never less than its weights."""
    weights = contestant.bytes / 2**20 if contestant.bytes is not None else 0.0
    return round(max(grown, weights), 1) if grown is not None else None


def _seen(run: Run, task: EvaluationTask, contestant: Contestant, examples: Sequence[Example]) -> int:
    """How many of the examples, by content, the model was fitted or chosen on."""
    if contestant.learned_from is None:
        return 0
    mine = read_rows(run.folders, task.dataset, ids=[example.id for example in examples])[CONTENT]
    rows = read_rows(run.folders, contestant.learned_from)
    learned = pc.if_else(pc.is_null(rows["split"]), "train", rows["split"])
    theirs = rows.filter(pc.is_in(learned, pa.array(("train", "validation"))))[CONTENT]
    return int(pc.sum(pc.is_in(mine, theirs.combine_chunks())).as_py() or 0)


def _entry(task: EvaluationTask, sheet: _Sheet, truth: Sequence[Any], seen: int) -> Entry:
    answers = sheet.answers
    errors = sum(answer.output is None for answer in answers)
    judged: Answers
    if task.task.endswith("-regression"):
        judged = number_answers(truth, [_float(answer.output) for answer in answers])
    else:
        given = [None if answer.output is None else str(answer.output) for answer in answers]
        judged = label_answers(
            truth, given, [answer.probabilities for answer in answers], sorted(task.dataset.labels), task.positive_label
        )
    certain = all(answer.probabilities is None for answer in answers)
    return Entry(sheet.contestant, judged, errors, sheet.cost, seen, certain)


def _float(output: str | float | None) -> float | None:
    return None if output is None else float(output)


def _truth(task: EvaluationTask, example: Example) -> Any:
    """The true answer, or None where the example has none."""
    column = task.target_column
    found = example.label if column in (None, task.dataset.label) else example.columns.get(column or "")
    if found is None or found == "":
        return None
    if not task.task.endswith("-regression"):
        return str(found)
    return float(found) if math.isfinite(float(found)) else None


# The question


def _question(task: EvaluationTask) -> Question:
    metrics: tuple[Metric, ...] = tuple(find_metric(name) for name in task.metrics)
    decides = task.no_decision is None
    return Question(task.shown, metrics, task.baseline, task.candidate, task.use_case, decides, task.seed)


def _splits(task: EvaluationTask) -> set[str] | None:
    """The examples to answer and, for the constant answer, the training labels."""
    constant_plays = any(contestant.source == "constant" for contestant in task.contestants)
    return None if task.split is None else {task.split, *(["train"] if constant_plays else [])}


def _clusters(examples: Sequence[Example]) -> Codes:
    """Group keys as codes 0..C-1; an example without a group is its own."""
    groups = [f"group {example.group}" if example.group else f"example {example.id}" for example in examples]
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _notes(
    task: EvaluationTask, examples: Sequence[Example], learned: Sequence[Any], entries: Sequence[Entry]
) -> list[str]:
    notes = []
    if any(contestant.source == "constant" for contestant in task.contestants) and not learned:
        notes.append("There is no training split, so the constant answer was taken from these examples themselves.")
    if task.use_case and task.no_decision:
        notes.append(f"No decision is made: {task.no_decision}.")
    for entry in entries:
        name = entry.contestant.name
        if entry.seen:
            notes.append(f"{name} has seen {entry.seen} of {len(examples)} examples in training, so it looks too good.")
        if entry.errors:
            notes.append(
                f"{name} failed on {entry.errors} of {len(examples)} examples; each counts as its worst answer."
            )
    return notes


# Files


def _write(
    outputs: Path,
    task: EvaluationTask,
    examples: Sequence[Example],
    truth: Sequence[Any],
    sheets: Sequence[_Sheet],
    entries: Sequence[Entry],
) -> None:
    pq.write_table(_examples_table(examples, truth), outputs / EXAMPLES)
    pq.write_table(pa.Table.from_pylist(_prediction_rows(examples, sheets), _PREDICTION_SCHEMA), outputs / PREDICTIONS)
    pq.write_table(pa.Table.from_pylist(_score_rows(task, examples, entries), _SCORE_SCHEMA), outputs / SCORES)


_PREDICTION_SCHEMA = pa.schema(
    [
        ("model", pa.string()), ("example", pa.string()), ("output", pa.string()), ("number", pa.float64()),
        ("confidence", pa.float64()), ("probabilities", pa.string()), ("error", pa.string()),
    ]
)  # fmt: skip
_SCORE_SCHEMA = pa.schema(
    [("model", pa.string()), ("example", pa.string()), ("metric", pa.string()), ("value", pa.float64())]
)


def _prediction_rows(examples: Sequence[Example], sheets: Sequence[_Sheet]) -> list[dict[str, Any]]:
    return [
        {
            "model": sheet.contestant.name,
            "example": example.id,
            "output": answer.output if isinstance(answer.output, str) else None,
            "number": answer.output if isinstance(answer.output, float | int) else None,
            "confidence": answer.confidence,
            "probabilities": json.dumps(answer.probabilities) if answer.probabilities else None,
            "error": answer.error,
        }
        for sheet in sheets
        for example, answer in zip(examples, sheet.answers, strict=True)
    ]


def _score_rows(task: EvaluationTask, examples: Sequence[Example], entries: Sequence[Entry]) -> list[dict[str, Any]]:
    means = [metric for name in task.metrics if (metric := find_metric(name)).shape == "mean"]
    return [
        {"model": entry.contestant.name, "example": example.id, "metric": metric.name, "value": float(value)}
        for entry in entries
        for metric in means
        for example, value in zip(examples, contributions(metric, entry.answers), strict=True)
        if not math.isnan(value)
    ]


def _examples_table(examples: Sequence[Example], truth: Sequence[Any]) -> pa.Table:
    """The user's columns are kept where their cells are short text, numbers or truth values, under their own names."""
    own: dict[str, list[Any]] = {
        "example": [example.id for example in examples],
        "group_key": [example.group for example in examples],
        "truth": [str(answer) for answer in truth],
        "preview": [example.media[:_PREVIEW] if isinstance(example.media, str) else None for example in examples],
    }
    names = sorted({name for example in examples for name in example.columns} - own.keys())
    for name in names:
        cells = [example.columns.get(name) for example in examples]
        if all(cell is None or isinstance(cell, str | int | float | bool) for cell in cells):
            own[name] = [None if cell is None else str(cell)[:_PREVIEW] for cell in cells]
    return pa.table({name: pa.array(cells, pa.string()) for name, cells in own.items()})
