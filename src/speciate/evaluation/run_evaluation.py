"""The worker's part of `evaluate`: ask each contestant everything, and write answers, scores and the report.

Files: `examples.parquet` (id, group, reference, a preview of text, the user's columns: what slices are cut by),
`predictions.parquet` (a row per model, example and repeat, errors among them) and `scores.parquet` (a row per model,
example and mean metric, repeats averaged). Where a scorer failed on some answers, `unscored.parquet` has a row for each
with the reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from speciate.datasets.loading.loader import Example, load_examples
from speciate.errors import Code, SpeciateError, closest
from speciate.evaluation import answer_cache
from speciate.evaluation.compare_models import ExtraScores, ModelEntry, Question, build, with_scores
from speciate.evaluation.contamination import find_nearly_seen, find_seen
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.judges.judge import JudgeCase, judge_answers
from speciate.evaluation.metrics import alone, averaged, judged
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.answering import Answer, ModelAnswers, PredictorRequest, check_answer
from speciate.evaluation.predictors.by_source import predict
from speciate.evaluation.scorers import scoring
from speciate.evaluation.statistics import Codes
from speciate.jobs.run import Run
from speciate.tasks.example_targets import evaluation_examples, is_label, settle_terms, training_examples
from speciate.tasks.families.anomaly import ANOMALY, NORMAL
from speciate.tasks.families.ordinal import rank_labels
from speciate.tasks.task import TaskExample
from speciate.vocabulary import Metric, find_metric

EXAMPLES, PREDICTIONS, SCORES = "examples.parquet", "predictions.parquet", "scores.parquet"
UNSCORED = "unscored.parquet"
_PREVIEW = 300
_LEARNED = ("train", "validation")


def run(run: Run) -> dict[str, Any]:
    """Evaluate, and return `{"report": ...}`."""
    task = EvaluationPayload.model_validate(run.payload)
    everything = load_examples(run.folders, task.dataset, _splits(task))
    training = [example for example in everything if example.split == "train"]
    how = (task.dataset, task.target_column, task.task, settle_terms(task.terms, task.task, training or everything))
    present = [example for example in everything if task.split in (None, example.split)]
    asked = evaluation_examples(present, *how)
    examples, references = [one.example for one in asked], [one.target for one in asked]
    if len(examples) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"{task.shown} has {len(examples)} usable example(s) with a label, and a comparison needs at least 2.",
            f"Call describe_dataset(dataset={task.dataset.name!r}), then add_examples.",
        )
    _check_positive(task, references)
    taught = training_examples(training, *how)
    all_answers = _ask_models(run, task, examples, references, taught, how)
    known = [_contamination(run, task, evaluated_model, examples) for evaluated_model in task.contestants]
    entries = [
        _entry(task, model_answers, references, count) for model_answers, count in zip(all_answers, known, strict=True)
    ]
    notes = _notes(task, len(present) - len(examples), examples, taught, entries, all_answers)
    extra_scores = _extra_scores(run, task, examples, references, all_answers)
    if task.scoring is not None:
        task = task.model_copy(update={"metrics": scoring.expand_metrics(task.metrics, task.scoring, extra_scores)})
    for scores in extra_scores:
        entries = [with_scores(entry, scores) for entry in entries]
        notes += scores.notes
    report = build(_question(task), entries, _clusters(examples), notes, _slices(task, examples, references))
    report = report.model_copy(update={"judge": next((each.verdicts for each in extra_scores if each.verdicts), None)})
    _write(run.outputs, task, examples, references, all_answers, entries)
    if unscored := [each for scores in extra_scores for each in scores.unscored]:
        table = pa.Table.from_pylist([each._asdict() for each in unscored], _UNSCORED_SCHEMA)
        answer_cache.write_table(table, run.outputs / UNSCORED)
    return {"report": report.model_dump(mode="json")}


def _ask_models(
    run: Run,
    task: EvaluationPayload,
    examples: list[Example],
    references: list[Any],
    taught: list[TaskExample],
    how: tuple[Any, ...],
) -> list[ModelAnswers]:
    learned = [one.target for one in taught] or references
    labels = _possible_labels(task, learned)
    all_answers: list[ModelAnswers] = []
    for place, evaluated_model in enumerate(task.contestants):
        shown = _visible_examples(run, task, evaluated_model, examples, how)

        def tell(count: int, place: int = place, name: str = evaluated_model.name) -> None:
            run.progress(place * len(examples) + count, len(task.contestants) * len(examples), "answers", name)

        all_answers.append(
            _check_answers(
                predict(PredictorRequest(run, task, evaluated_model, shown, labels, learned, taught, tell)), task
            )
        )
    return all_answers


def _check_answers(model_answers: ModelAnswers, task: EvaluationPayload) -> ModelAnswers:
    """With an error in the place of each answer that is none of this task's."""
    if model_answers.evaluated_model.source == "constant":
        return model_answers
    return model_answers._replace(
        repeats=tuple([check_answer(answer, task.family) for answer in answers] for answers in model_answers.repeats)
    )


def _extra_scores(
    run: Run,
    task: EvaluationPayload,
    examples: Sequence[Example],
    references: Sequence[Any],
    all_answers: Sequence[ModelAnswers],
) -> list[ExtraScores]:
    """Scores of the metrics that this evaluation brings along, now that all answers are there."""

    def tell(count: int) -> None:
        run.progress(count, None, "scores")

    brought = scoring.score_answers(run, task.scoring, examples, references, all_answers, tell) if task.scoring else []
    if task.judge is not None:
        brought.append(
            judge_answers(
                JudgeCase(run, task, task.judge, examples, references, all_answers, _clusters(examples), tell)
            )
        )
    return brought


def _possible_labels(task: EvaluationPayload, learned: Sequence[Any]) -> tuple[str, ...]:
    """Labels that an answer can have: those that training or the dataset knows, not only those of these examples."""
    if task.family == "anomaly":
        return NORMAL, task.positive_label or ANOMALY
    if task.family not in ("classification", "ordinal", "multi-label"):
        return ()
    if is_label(task.dataset, task.target_column) and task.family != "multi-label":
        return tuple(rank_labels(task.dataset.labels, task.terms.order))
    each = (
        reference if isinstance(reference, list | tuple | set | frozenset) else [reference] for reference in learned
    )
    return tuple(rank_labels({str(label) for labels in each for label in labels}, task.terms.order))


def _visible_examples(
    run: Run, task: EvaluationPayload, evaluated_model: EvaluatedModel, examples: list[Example], how: tuple[Any, ...]
) -> list[Example]:
    """The examples as the contestant may see them: with the columns that it was trained on, and no others."""
    if not evaluated_model.inputs or evaluated_model.inputs == task.dataset.inputs:
        return examples
    manifest = task.dataset.model_copy(update={"inputs": evaluated_model.inputs})
    loaded = load_examples(run.folders, manifest, _splits(task), [example.id for example in examples])
    seen = {one.example.id: one.example for one in evaluation_examples(loaded, *how)}
    return [seen[example.id] for example in examples]


class _Contamination(NamedTuple):
    """How many of the examples a model was fitted or chosen on; None where its data are not known any more."""

    exactly: int | None
    nearly: int = 0


def _contamination(
    run: Run, task: EvaluationPayload, evaluated_model: EvaluatedModel, examples: Sequence[Example]
) -> _Contamination:
    if evaluated_model.learned_from is None:
        return _Contamination(None)
    asked = (run.folders, task.dataset, {example.id for example in examples}, evaluated_model.learned_from, _LEARNED)
    exactly = find_seen(*asked)
    return _Contamination(len(exactly), len(find_nearly_seen(*asked) - exactly))


def _entry(
    task: EvaluationPayload, model_answers: ModelAnswers, reference: Sequence[Any], known: _Contamination
) -> ModelEntry:
    every = [answer for answers in model_answers.repeats for answer in answers]
    labels = _labels(task, every)
    marked = tuple(
        judged(
            task.family,
            reference,
            [answer.output for answer in answers],
            [answer.probabilities for answer in answers],
            labels,
            task.positive_label,
        )
        for answers in model_answers.repeats
    )
    errors = sum(answer.output is None for answer in every)
    certain = all(answer.probabilities is None for answer in every)
    return ModelEntry(
        model_answers.evaluated_model,
        marked,
        errors,
        model_answers.cost,
        known.exactly,
        known.nearly,
        certain,
        model_answers.served,
    )


def _labels(task: EvaluationPayload, answers: Sequence[Answer]) -> list[str]:
    """The dataset's labels; if the target is another column, the labels that were answered (the references' follow)."""
    if task.family == "anomaly":
        return [NORMAL, task.positive_label or ANOMALY]
    if is_label(task.dataset, task.target_column):
        known = set(task.dataset.labels)
    else:
        given = [answer for answer in answers if isinstance(answer.output, str)]
        known = {label for answer in given for label in answer.probabilities or (answer.output,)}
    return rank_labels(known, task.terms.order) if task.family == "ordinal" else sorted(known)


def _check_positive(task: EvaluationPayload, answers: Sequence[Any]) -> None:
    """Of the dataset's label the plan knows the values; of another column only the rows do."""
    if task.positive_label is None or is_label(task.dataset, task.target_column) or task.positive_label in answers:
        return
    raise SpeciateError(
        Code.INVALID,
        f"positive_label {task.positive_label!r} does not occur in {task.target_column!r} of {task.shown}; "
        f"{closest(task.positive_label, sorted(set(answers)))}",
        "Call define_use_case again with the label as it is written in the dataset.",
    )


def _question(task: EvaluationPayload) -> Question:
    metrics: tuple[Metric, ...] = tuple(find_metric(name) for name in task.metrics)
    return Question(
        task.shown,
        metrics,
        task.baseline,
        task.candidate,
        task.use_case,
        task.no_decision,
        task.seed,
        task.looks,
        task.suite,
    )


def _splits(task: EvaluationPayload) -> set[str] | None:
    """The examples to answer and, for the constant answer and for prompts, those of the training split."""
    wants_training = any(
        evaluated_model.source in ("constant", "endpoint", "ensemble") for evaluated_model in task.contestants
    )
    return None if task.split is None else {task.split, *(["train"] if wants_training else [])}


def _slices(task: EvaluationPayload, examples: Sequence[Example], references: Sequence[Any]) -> dict[str, list[str]]:
    """Of the columns that a gate looks into: each example's value."""
    gates = task.use_case.gates_on(task.suite) if task.use_case else ()
    columns = {gate.column for gate in gates if gate.column is not None}
    return {
        column: [
            str(reference if column == "label" else example.columns.get(column))
            for example, reference in zip(examples, references, strict=True)
        ]
        for column in columns
    }


def _clusters(examples: Sequence[Example]) -> Codes:
    """Group keys as codes 0..C-1; an example without a group is its own."""
    groups = [f"group {example.group}" if example.group else f"example {example.id}" for example in examples]
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _notes(
    task: EvaluationPayload,
    silent: int,
    examples: Sequence[Example],
    learned: Sequence[Any],
    entries: Sequence[ModelEntry],
    all_answers: Sequence[ModelAnswers],
) -> list[str]:
    """`silent`: how many examples of the split have no reference."""
    notes = list(task.unseen)
    if silent:
        reference = task.target_column or "a true answer"
        notes.append(f"{silent} of {silent + len(examples)} examples without {reference!r} were left out.")
    if any(evaluated_model.source == "constant" for evaluated_model in task.contestants) and not learned:
        notes.append("There is no training split, so the constant answer was taken from these examples themselves.")
    if task.use_case and task.no_decision:
        notes.append(f"No decision is made: {task.no_decision}.")
    for entry in entries:
        name = entry.evaluated_model.name
        if entry.seen:
            notes.append(f"{name} has seen {entry.seen} of {len(examples)} examples in training, so it looks too good.")
        if entry.nearly_seen:
            notes.append(f"{name} has seen near-duplicates of {entry.nearly_seen} of {len(examples)} examples.")
        if entry.errors:
            times = len(entry.repeats)
            asked = f"{len(examples)} examples"
            if times > 1:
                asked = f"{times * len(examples)} answers to {asked}"
            notes.append(
                f"{name} failed on {entry.errors} of {asked}; each counts as its worst answer. "
                "describe_evaluation(errors=5) tells why."
            )
    return notes + [note for model_answers in all_answers for note in model_answers.notes]


def _write(
    outputs: Path,
    task: EvaluationPayload,
    examples: Sequence[Example],
    reference: Sequence[Any],
    all_answers: Sequence[ModelAnswers],
    entries: Sequence[ModelEntry],
) -> None:
    rows = _prediction_rows(task, examples, all_answers, entries)
    tables = {
        EXAMPLES: _examples_table(examples, reference),
        PREDICTIONS: pa.Table.from_pylist(rows, _PREDICTION_SCHEMA),
        SCORES: pa.Table.from_pylist(_score_rows(task, examples, entries), _SCORE_SCHEMA),
    }
    for name, table in tables.items():
        answer_cache.write_table(table, outputs / name)


_PREDICTION_SCHEMA = pa.schema(
    [
        ("model", pa.string()), ("example", pa.string()), ("repeat", pa.int64()), ("output", pa.string()),
        ("number", pa.float64()),
        ("confidence", pa.float64()), ("probabilities", pa.string()), ("error", pa.string()),
        ("score", pa.float64()),  # the main metric of this example by itself
    ]
)  # fmt: skip
_SCORE_SCHEMA = pa.schema(
    [("model", pa.string()), ("example", pa.string()), ("metric", pa.string()), ("value", pa.float64())]
)
_UNSCORED_SCHEMA = pa.schema(
    [
        ("model", pa.string()), ("example", pa.string()), ("repeat", pa.int64()), ("failure", pa.string()),
        ("detail", pa.string()),
    ]
)  # fmt: skip


def _prediction_rows(
    task: EvaluationPayload,
    examples: Sequence[Example],
    all_answers: Sequence[ModelAnswers],
    entries: Sequence[ModelEntry],
) -> list[dict[str, Any]]:
    main = find_metric(task.metrics[0])
    return [
        {
            "model": model_answers.evaluated_model.name,
            "example": example.id,
            "repeat": repeat,
            "output": _output_text(answer.output),
            "number": answer.output if isinstance(answer.output, float | int) else None,
            "confidence": answer.confidence,
            "probabilities": json.dumps(answer.probabilities) if answer.probabilities else None,
            "error": answer.error,
            "score": None if math.isnan(score) else float(score),
        }
        for model_answers, entry in zip(all_answers, entries, strict=True)
        for repeat, (answers, marked) in enumerate(zip(model_answers.repeats, entry.repeats, strict=True))
        for example, answer, score in zip(examples, answers, alone(main, marked), strict=True)
    ]


def _output_text(output: Any) -> str | None:
    """A label as it is, what is more than a number as JSON."""
    if output is None or isinstance(output, float | int):
        return None
    return output if isinstance(output, str) else json.dumps(output)


def _score_rows(
    task: EvaluationPayload, examples: Sequence[Example], entries: Sequence[ModelEntry]
) -> list[dict[str, Any]]:
    means = [metric for name in task.metrics if (metric := find_metric(name)).shape == "mean"]
    return [
        {"model": entry.evaluated_model.name, "example": example.id, "metric": metric.name, "value": float(value)}
        for entry in entries
        for metric in means
        for example, value in zip(examples, averaged(metric, entry.repeats), strict=True)
        if not math.isnan(value)
    ]


def _examples_table(examples: Sequence[Example], reference: Sequence[Any]) -> pa.Table:
    """Columns of the user stay under their own names where their cells are short text, numbers or Booleans."""
    own: dict[str, list[Any]] = {
        "example": [example.id for example in examples],
        "group_key": [example.group for example in examples],
        "truth": [answer if isinstance(answer, str) else json.dumps(answer) for answer in reference],
        "preview": [example.media[:_PREVIEW] if isinstance(example.media, str) else None for example in examples],
    }
    names = sorted({name for example in examples for name in example.columns} - own.keys())
    for name in names:
        cells = [example.columns.get(name) for example in examples]
        if all(cell is None or isinstance(cell, str | int | float | bool) for cell in cells):
            own[name] = [None if cell is None else str(cell)[:_PREVIEW] for cell in cells]
    return pa.table({name: pa.array(cells, pa.string()) for name, cells in own.items()})
