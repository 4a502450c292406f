"""The worker's part of `evaluate`: load each model, ask it everything, and write answers, scores and the report.

Three files: `examples.parquet` (id, group, truth, a preview of text, the user's columns: what slices are cut by),
`predictions.parquet` (a row per model and example, errors among them) and `scores.parquet` (a row per model, example
and mean metric).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, closest
from speciate.evaluation.answers import Answer, answer_all, from_column
from speciate.evaluation.compare import Cost, Entry, Question, build
from speciate.evaluation.contestants import Contestant
from speciate.evaluation.memory import measure_memory
from speciate.evaluation.metrics import alone, contributions, judged
from speciate.evaluation.seen import seen
from speciate.evaluation.statistics import Codes
from speciate.evaluation.timing import measure
from speciate.jobs.run import Run
from speciate.tasks.anomaly import ANOMALY, NORMAL
from speciate.tasks.contract import Terms
from speciate.tasks.ordinal import ranked
from speciate.tasks.predictor import constant, load
from speciate.tasks.truth import is_label, lessons, questions, settled
from speciate.usecases import UseCase
from speciate.vocabulary import Family, Metric, find_metric, find_task

EXAMPLES, PREDICTIONS, SCORES = "examples.parquet", "predictions.parquet", "scores.parquet"
_PREVIEW = 300
_MEMORY_EXAMPLES = 16


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
    terms: Terms = Terms()
    baseline: str
    candidate: str | None = None
    use_case: UseCase | None = None
    no_decision: str | None = None
    """Why no verdict may be given; None where it may."""
    looks: int = 0
    """Earlier evaluations of the use case on this suite."""
    latency: bool = True
    seed: int = 0

    @property
    def shown(self) -> str:
        return self.dataset.ref + (f":{self.split}" if self.split else "")

    @property
    def family(self) -> Family:
        return find_task(self.task).family

    @property
    def asks_for_memory(self) -> bool:
        return self.use_case is not None and any(gate.metric == "memory_mb" for gate in self.use_case.in_force)


class _Sheet(NamedTuple):
    """One contestant's answers as they came."""

    contestant: Contestant
    answers: list[Answer]
    cost: Cost


def run(run: Run) -> dict[str, Any]:
    """Evaluate, and return `{"report": ...}`."""
    task = EvaluationTask.model_validate(run.payload)
    everything = load_examples(run.folders, task.dataset, _splits(task))
    training = [example for example in everything if example.split == "train"]
    how = (task.dataset, task.target_column, task.task, settled(task.terms, task.task, training or everything))
    present = [example for example in everything if task.split in (None, example.split)]
    asked = questions(present, *how)
    examples, answers = [one.example for one in asked], [one.truth for one in asked]
    if len(examples) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"{task.shown} has {len(examples)} usable example(s) with a label, and a comparison needs at least 2.",
            f"Call describe_dataset(dataset={task.dataset.name!r}), then add_examples.",
        )
    _check_positive(task, answers)
    learned = [one.truth for one in lessons(training, *how)]
    sheets = [
        _sheet(
            run,
            task,
            contestant,
            _shown(run, task, contestant, examples, how),
            learned or answers,
            place * len(examples),
        )
        for place, contestant in enumerate(task.contestants)
    ]
    known = [_seen(run, task, contestant, examples) for contestant in task.contestants]
    entries = [_entry(task, sheet, answers, count) for sheet, count in zip(sheets, known, strict=True)]
    notes = _notes(task, len(present) - len(examples), examples, learned, entries)
    report = build(_question(task), entries, _clusters(examples), notes)
    _write(run.outputs, task, examples, answers, sheets, entries)
    return {"report": report.model_dump(mode="json")}


# Answers


def _shown(
    run: Run, task: EvaluationTask, contestant: Contestant, examples: list[Example], how: tuple[Any, ...]
) -> list[Example]:
    """The examples as the contestant may see them: with the columns that it was trained on, and no others."""
    if not contestant.inputs or contestant.inputs == task.dataset.inputs:
        return examples
    manifest = task.dataset.model_copy(update={"inputs": contestant.inputs})
    loaded = load_examples(run.folders, manifest, _splits(task), [example.id for example in examples])
    seen = {one.example.id: one.example for one in questions(loaded, *how)}
    return [seen[example.id] for example in examples]


def _sheet(
    run: Run,
    task: EvaluationTask,
    contestant: Contestant,
    examples: Sequence[Example],
    learned: Sequence[Any],
    done: int,
) -> _Sheet:
    if contestant.source == "column":
        stored = from_column(examples, contestant.column or "", task.family, task.dataset.modality)
        return _Sheet(contestant, stored, Cost())
    total = len(task.contestants) * len(examples)
    if contestant.source == "constant":
        ask = constant(task.task, learned, task.terms._replace(modality=task.dataset.modality)).predict
        answers = answer_all(run, contestant, task.dataset.id, examples, ask, done, total)
        return _Sheet(contestant, answers, Cost(0.0))
    path = Path(contestant.path or "")
    predictor = load(path)
    ask = load(path, run.folders).predict  # with cached features: the answers are the same, only sooner
    answers = answer_all(run, contestant, task.dataset.id, examples, ask, done, total)
    answered = [example for example, answer in zip(examples, answers, strict=True) if answer.error is None]
    cost = measure(predictor.predict, answered, latency=task.latency, seed=task.seed) if answered else Cost()
    if task.asks_for_memory and answered:
        few = [example.id for example in answered[:_MEMORY_EXAMPLES]]
        shown = task.dataset.model_copy(update={"inputs": contestant.inputs or task.dataset.inputs})
        cost = cost._replace(memory_mb=measure_memory(run.folders, path, shown, few))
    return _Sheet(contestant, answers, cost)


def _seen(run: Run, task: EvaluationTask, contestant: Contestant, examples: Sequence[Example]) -> int | None:
    """How many of the examples the model was fitted or chosen on; None where its data are not known any more."""
    if contestant.learned_from is None:
        return None
    ids = {example.id for example in examples}
    return len(seen(run.folders, task.dataset, ids, contestant.learned_from, ("train", "validation")))


def _entry(task: EvaluationTask, sheet: _Sheet, truth: Sequence[Any], seen: int | None) -> Entry:
    answers = sheet.answers
    errors = sum(answer.output is None for answer in answers)
    given, chances = [answer.output for answer in answers], [answer.probabilities for answer in answers]
    marked = judged(task.family, truth, given, chances, _labels(task, answers), task.positive_label)
    certain = all(answer.probabilities is None for answer in answers)
    return Entry(sheet.contestant, marked, errors, sheet.cost, seen, certain)


def _labels(task: EvaluationTask, answers: Sequence[Answer]) -> list[str]:
    """The dataset's; where the truth is another column, what was answered (those of the truth are added later)."""
    if task.family == "anomaly":
        return [NORMAL, task.positive_label or ANOMALY]
    if is_label(task.dataset, task.target_column):
        known = set(task.dataset.labels)
    else:
        given = [answer for answer in answers if isinstance(answer.output, str)]
        known = {label for answer in given for label in answer.probabilities or (answer.output,)}
    return ranked(known, task.terms.order) if task.family == "ordinal" else sorted(known)


def _check_positive(task: EvaluationTask, answers: Sequence[Any]) -> None:
    """Of the dataset's label the plan knows the values; of another column only the rows do."""
    if task.positive_label is None or is_label(task.dataset, task.target_column) or task.positive_label in answers:
        return
    raise SpeciateError(
        Code.INVALID,
        f"positive_label {task.positive_label!r} does not occur in {task.target_column!r} of {task.shown}; "
        f"{closest(task.positive_label, sorted(set(answers)))}",
        "Call define_use_case again with the label as it is written in the dataset.",
    )


# The question


def _question(task: EvaluationTask) -> Question:
    metrics: tuple[Metric, ...] = tuple(find_metric(name) for name in task.metrics)
    return Question(
        task.shown, metrics, task.baseline, task.candidate, task.use_case, task.no_decision, task.seed, task.looks
    )


def _splits(task: EvaluationTask) -> set[str] | None:
    """The examples to answer and, for the constant answer, the training labels."""
    constant_plays = any(contestant.source == "constant" for contestant in task.contestants)
    return None if task.split is None else {task.split, *(["train"] if constant_plays else [])}


def _clusters(examples: Sequence[Example]) -> Codes:
    """Group keys as codes 0..C-1; an example without a group is its own."""
    groups = [f"group {example.group}" if example.group else f"example {example.id}" for example in examples]
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _notes(
    task: EvaluationTask, silent: int, examples: Sequence[Example], learned: Sequence[Any], entries: Sequence[Entry]
) -> list[str]:
    """`silent`: how many examples of the split have no truth."""
    notes = []
    if silent:
        truth = task.target_column or "a true answer"
        notes.append(f"{silent} of {silent + len(examples)} examples without {truth!r} were left out.")
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
    rows = _prediction_rows(task, examples, sheets, entries)
    pq.write_table(pa.Table.from_pylist(rows, _PREDICTION_SCHEMA), outputs / PREDICTIONS)
    pq.write_table(pa.Table.from_pylist(_score_rows(task, examples, entries), _SCORE_SCHEMA), outputs / SCORES)


_PREDICTION_SCHEMA = pa.schema(
    [
        ("model", pa.string()), ("example", pa.string()), ("output", pa.string()), ("number", pa.float64()),
        ("confidence", pa.float64()), ("probabilities", pa.string()), ("error", pa.string()),
        ("score", pa.float64()),  # the main metric of this example by itself
    ]
)  # fmt: skip
_SCORE_SCHEMA = pa.schema(
    [("model", pa.string()), ("example", pa.string()), ("metric", pa.string()), ("value", pa.float64())]
)


def _prediction_rows(
    task: EvaluationTask, examples: Sequence[Example], sheets: Sequence[_Sheet], entries: Sequence[Entry]
) -> list[dict[str, Any]]:
    main = find_metric(task.metrics[0])
    return [
        {
            "model": sheet.contestant.name,
            "example": example.id,
            "output": _text(answer.output),
            "number": answer.output if isinstance(answer.output, float | int) else None,
            "confidence": answer.confidence,
            "probabilities": json.dumps(answer.probabilities) if answer.probabilities else None,
            "error": answer.error,
            "score": None if math.isnan(score) else float(score),
        }
        for sheet, entry in zip(sheets, entries, strict=True)
        for example, answer, score in zip(examples, sheet.answers, alone(main, entry.answers), strict=True)
    ]


def _text(output: Any) -> str | None:
    """A label as it is, what is more than a number as JSON."""
    if output is None or isinstance(output, float | int):
        return None
    return output if isinstance(output, str) else json.dumps(output)


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
        "truth": [answer if isinstance(answer, str) else json.dumps(answer) for answer in truth],
        "preview": [example.media[:_PREVIEW] if isinstance(example.media, str) else None for example in examples],
    }
    names = sorted({name for example in examples for name in example.columns} - own.keys())
    for name in names:
        cells = [example.columns.get(name) for example in examples]
        if all(cell is None or isinstance(cell, str | int | float | bool) for cell in cells):
            own[name] = [None if cell is None else str(cell)[:_PREVIEW] for cell in cells]
    return pa.table({name: pa.array(cells, pa.string()) for name, cells in own.items()})
