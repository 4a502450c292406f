"""Teachers of a distillation: their answers, computed once and cached, and the table of student and teachers.

Whatever gives a probability to each label, or a number, can teach: networks, probes and classical learners alike.
Answers are calibrated, as they are served, and kept in the workspace's feature cache by the model's id."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate import features
from speciate.datasets.loading.loader import Example, example_keys
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.evaluation.predictors.answering import Answer, answer_all
from speciate.models.declared_size import check_declared_counts
from speciate.models.language import causal_lm
from speciate.models.language.chat_templates import ChatFormat
from speciate.models.language.text_generation import Sampling
from speciate.models.published.architectures import find_labels
from speciate.models.published.manifest import read_manifest
from speciate.tasks import language_predictor, predictor
from speciate.tasks.language_predictor import LanguagePredictor
from speciate.tasks.network_predictor import NetworkPredictor, saved_task_head
from speciate.tasks.soft_targets import SoftTargets, average_targets, targets_from_predictions
from speciate.tasks.task import Prediction, Predictor
from speciate.training.train_spec import Teacher
from speciate.training.training_context import TrainingContext
from speciate.training.training_report import MethodReport
from speciate.vocabulary import Metric

Vectors = npt.NDArray[np.float32]
_CACHE_CHUNK = 64


def load_teacher(context: TrainingContext, teacher: Teacher, *, cached: bool = True) -> Predictor:
    """Not `cached`: it computes everything anew, as where it serves."""
    return predictor.load(Path(teacher.folder), context.folders if cached else None, context.payload.threads)


def soft_labels(context: TrainingContext, examples: Sequence[Example]) -> SoftTargets:
    """(N, K): what all teachers together say of these, in the columns of the student's head. INVALID where none of
    them knows any of its labels."""
    said = [
        targets_from_predictions(context.task_head, teacher_outputs(context, teacher, examples))
        for teacher in context.payload.teachers
    ]
    for teacher, each in zip(context.payload.teachers, said, strict=True):
        if len(each) and np.isnan(each).all():
            raise SpeciateError(
                Code.INVALID,
                f"{teacher.model} knows none of the labels {', '.join(context.task_head.labels[:10])}.",
                "Name a teacher that was trained on these labels.",
            )
    return average_targets(said, context.task_head)


def teacher_outputs(context: TrainingContext, teacher: Teacher, examples: Sequence[Example]) -> list[Prediction]:
    labels = teacher_labels(Path(teacher.folder))

    def ask(model: Predictor, some: Sequence[Example]) -> Vectors:
        given = model.predict(some)
        if not labels:
            return np.array([[float(each.output)] for each in given], np.float32)
        said = [each.probabilities or {} for each in given]
        return np.array([[each.get(label, 0.0) for label in labels] for each in said], np.float32)

    rows = _cached_rows(context, teacher, "answers", examples, ask, max(1, len(labels)))
    if not labels:
        return [Prediction(float(row[0]), None, None) for row in rows]
    return [Prediction(None, None, dict(zip(labels, map(float, row), strict=True))) for row in rows]


def teacher_labels(folder: Path) -> tuple[str, ...]:
    """That a teacher answers with; () of numbers. A published model answers under the labels that it was registered
    with, or that it was trained further on."""
    published = read_manifest(folder)
    if published is None:
        return tuple(saved_task_head(folder).labels)
    if published.table is not None:
        return published.table.wanted
    return find_labels(folder) or ()


def teacher_states(context: TrainingContext, teacher: Teacher, examples: Sequence[Example]) -> Vectors:
    """(N, W): pooled states of the teacher's network. INVALID where it is none."""

    def ask(model: Predictor, some: Sequence[Example]) -> Vectors:
        import torch

        assert isinstance(model, NetworkPredictor), "width() has seen to it"
        backbone = model.backbone
        with torch.inference_mode():
            batch = backbone.collate(backbone.prepare([example.media for example in some]))
            found: Vectors = backbone.states(batch).pooled.float().numpy()
        return found

    return _cached_rows(context, teacher, "states", examples, ask, teacher_width(context, teacher))


def teacher_width(context: TrainingContext, teacher: Teacher) -> int:
    model = load_teacher(context, teacher)
    if not isinstance(model, NetworkPredictor):
        raise SpeciateError(
            Code.INVALID,
            f"{teacher.model} was made by {teacher.method!r}: it has no states that a student could match.",
            "Or take another teacher.",
            next=[CallAgain("train_model", {"hyperparameters": {"features": 0}})],
        )
    return int(model.backbone.width)


def _cached_rows(
    context: TrainingContext,
    teacher: Teacher,
    what: str,
    examples: Sequence[Example],
    ask: Callable[[Predictor, Sequence[Example]], Vectors],
    columns: int,
) -> Vectors:
    """(N, columns): from the cache, and the rest asked and cached, a chunk at a time: nothing is asked twice."""
    named, cache = example_keys(examples), f"{what}-{teacher.id[:32]}"
    known = features.read(context.folders, cache, named)
    found = np.zeros((len(examples), columns), np.float32)
    if known.known.any():
        found[known.known] = known.vectors
    missing = np.flatnonzero(~known.known)
    model = load_teacher(context, teacher) if len(missing) else None
    for start in range(0, len(missing), _CACHE_CHUNK):
        context.checkpoint()
        context.progress(start, len(missing), "examples", f"asking {teacher.model}")
        places = missing[start : start + _CACHE_CHUNK]
        assert model is not None
        found[places] = ask(model, [examples[place] for place in places.tolist()])
        features.write(context.folders, cache, [named[place] for place in places.tolist()], found[places])
    return found


_ANSWERS_AT_ONCE = 32
"""Questions whose answers are on disk together: a kill costs no more."""
_EMPTY_ANSWER = "the answer is empty"
_REASONS_SHOWN = 3


class AnsweredExample(NamedTuple):
    """A question with a teacher's answer."""

    example: Example
    answer: str


def teacher_folder(context: TrainingContext, teacher: Teacher) -> Path:
    """Folder of the teacher's weights, which may be converted first."""
    return causal_lm.transformers_folder(Path(teacher.folder), context.folders.cache)


def teacher_context_length(folder: Path) -> int:
    """Tokens that a model can see, as its configuration says."""
    from transformers import AutoConfig

    check_declared_counts(folder)
    read: Any = AutoConfig.from_pretrained
    return causal_lm.longest(SimpleNamespace(config=read(folder, local_files_only=True, trust_remote_code=False)))


def teacher_prompt_form(teacher: Teacher) -> ChatFormat | None:
    """How a model of ours is asked; None of one that others made."""
    return language_predictor.saved_form(Path(teacher.folder))


def language_teacher(context: TrainingContext, teacher: Teacher, longest_answer: int) -> LanguagePredictor:
    """As it answers; one that others made writes no longer answers than the student may."""
    found = language_predictor.load_language_model(teacher_folder(context, teacher), context.payload.threads)
    if teacher_prompt_form(teacher) is None:
        found.sampling = found.sampling.model_copy(update={"max_new_tokens": longest_answer})
    return found


def teacher_answers(
    context: TrainingContext, teacher: Teacher, examples: Sequence[Example], longest_answer: int
) -> list[Answer]:
    """The teacher's answer to each example. Raises Stopped between batches where the run is asked to stop."""
    usual = teacher_prompt_form(teacher) is not None or longest_answer == Sampling().max_new_tokens
    identity = language_predictor.answer_identity(Path(teacher.folder), teacher.id) + (
        "" if usual else f" {longest_answer}"
    )
    model: list[LanguagePredictor] = []

    def ask(some: Sequence[Example]) -> list[Prediction]:
        if not model:  # only where an answer is not known yet
            model.append(language_teacher(context, teacher, longest_answer))
            model[0].model.to(context.payload.device)
        return model[0].predict(some)

    def tell(done: int) -> None:
        context.progress(done, len(examples), "answers", f"asking {teacher.model}")

    return answer_all(context.run, identity, examples, ask, tell, at_once=_ANSWERS_AT_ONCE)


def answered_examples(
    context: TrainingContext, examples: Sequence[Example], longest_answer: int
) -> list[AnsweredExample]:
    """The answers of all teachers; the same answer of two counts once. Questions without one are excluded and
    counted."""
    found: dict[tuple[str, str], AnsweredExample] = {}
    for teacher in context.payload.teachers:
        failed: Counter[str] = Counter()
        for example, answer in zip(examples, teacher_answers(context, teacher, examples, longest_answer), strict=True):
            text = "" if answer.output is None else str(answer.output)
            if answer.error or not text.strip():
                failed[answer.error or _EMPTY_ANSWER] += 1
            else:
                found.setdefault((example.id, text), AnsweredExample(example, text))
        for reason, count in failed.most_common(_REASONS_SHOWN):
            context.notes.append(f"{count} questions got no answer of {teacher.model} and are excluded: {reason}.")
    return sorted(found.values(), key=lambda each: (each.example.id, each.answer))


_SIMILAR_LATENCY = 1.5
"""Few answers, on a machine that does other things beside: two models of one form were 1.4 times apart."""


class FrontierRow(NamedTuple):
    """`value`: of the metric on held-out examples; None where there are none. `p50_ms`: of one example at a time, on
    this machine."""

    model: str
    role: Literal["student", "control", "teacher"]
    value: float | None
    parameters: int | None
    p50_ms: float | None


def compare_models(found: Sequence[FrontierRow], metric: Metric) -> MethodReport:
    """The table, and the student beside the best teacher. The first is the student."""
    student, best = found[0], max(
        (each for each in found if each.role == "teacher"), key=lambda each: _signed_value(each.value, metric)
    )  # fmt: skip
    quicker = best.p50_ms / max(student.p50_ms, 1e-6) if best.p50_ms and student.p50_ms else None
    return {
        "metric": metric.name,
        "frontier": [_frontier_row(each, found, metric) for each in found],
        "teacher": best.model,
        "times_smaller": round((best.parameters or 0) / max(1, student.parameters or 0), 2),
        "times_faster": None if quicker is None else round(quicker, 2),
        "kept": _rounded_or_none(student.value / best.value)
        if metric.sign > 0 and best.value and student.value is not None
        else None,
    }


def _frontier_row(each: FrontierRow, found: Sequence[FrontierRow], metric: Metric) -> Mapping[str, object]:
    return {
        "model": each.model, "role": each.role, "value": _rounded_or_none(each.value), "parameters": each.parameters,
        "p50_ms": None if each.p50_ms is None else round(each.p50_ms, 3),
        "dominated": any(_dominates(other, each, metric) for other in found),
    }  # fmt: skip


def _dominates(other: FrontierRow, row: FrontierRow, metric: Metric) -> bool:
    """As good in everything, and better in something; latencies that are `_NEAR` one another count as the same."""
    counted = 2 if _similar_latency(other.p50_ms, row.p50_ms) else 3
    mine, theirs = _ranking_key(row, metric)[:counted], _ranking_key(other, metric)[:counted]
    return other is not row and all(a >= b for a, b in zip(theirs, mine, strict=True)) and theirs != mine


def _similar_latency(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and max(one, other) <= _SIMILAR_LATENCY * min(one, other)


def _ranking_key(row: FrontierRow, metric: Metric) -> tuple[float, float, float]:
    return (_signed_value(row.value, metric), -(row.parameters or 0), -(row.p50_ms or math.inf))


def _signed_value(value: float | None, metric: Metric) -> float:
    return -math.inf if value is None or not math.isfinite(value) else metric.sign * value


def _rounded_or_none(value: float | None) -> float | None:
    return round(float(value), 4) if value is not None and math.isfinite(value) else None
