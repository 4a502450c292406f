"""Answers of a model under evaluation, by its source: which function asks it, and those that need few lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.evaluation.compare_models import Cost
from speciate.evaluation.environments import rollouts
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors import code, endpoint, inspect_log, nearest
from speciate.evaluation.predictors.answering import Answer, ModelAnswers, PredictorRequest, answer_all
from speciate.evaluation.predictors.memory_use import measure_memory
from speciate.evaluation.predictors.published import predict_published
from speciate.evaluation.predictors.timing import TimedModel, measure_by_turns
from speciate.models.language.causal_lm import transformers_folder
from speciate.tasks.families.classification import as_label
from speciate.tasks.language_predictor import LanguagePredictor
from speciate.tasks.predictor import TrainedPredictor, constant, load, load_checked
from speciate.tasks.published_predictor import PublishedPredictor
from speciate.tasks.task import TaskTerms
from speciate.tasks.task_heads import TASK_HEADS
from speciate.tasks.vision_language_predictor import VisionLanguagePredictor
from speciate.vocabulary import Family


def predict_registered(request: PredictorRequest) -> ModelAnswers:
    task, evaluated_model = request.task, request.evaluated_model
    path = transformers_folder(Path(evaluated_model.path or ""), request.run.folders.cache)
    predictor = load(path)
    by_features = (
        load_checked(path, request.run.folders, task.threads) if isinstance(predictor, TrainedPredictor) else predictor
    )
    ask = rollouts.with_rollouts(  # cached features give the same answers sooner
        by_features.predict, request.examples, task.metrics, request.run.folders.root, request.run.folder.path,
        predictor.first_shown if isinstance(predictor, PublishedPredictor) else None,
    )  # fmt: skip
    identity = rollouts.rollout_identity(evaluated_model.identity, task.metrics)
    answers = answer_all(request.run, identity, request.examples, ask, request.on_progress)
    answered = [example for example, answer in zip(request.examples, answers, strict=True) if answer.error is None]
    if not answered:
        return ModelAnswers(evaluated_model, (answers,))
    if by_features is not predictor:
        predictor.predict(answered[:1])  # its network is the one that answered, and is not built again
    notes: tuple[str, ...] = ()
    if isinstance(predictor, LanguagePredictor | VisionLanguagePredictor):
        notes = (f"{evaluated_model.name} is {predictor.how}.",)
    return ModelAnswers(
        evaluated_model,
        (answers,),
        Cost(memory_mb=_measure_memory(request, path)),
        notes=notes,
        timed=TimedModel(predictor.predict, answered, task.usd_per_core_hour),
    )


_TOGETHER_BYTES = 2_000_000_000
"""Most bytes of weights that stay loaded so that all models are measured by turns; beyond it, one after another."""


def stay_loaded(every: Sequence[ModelAnswers]) -> bool:
    """Whether these models may be kept in memory for their costs to be measured by turns."""
    return sum(4 * (one.evaluated_model.parameters or 0) for one in every if one.timed) <= _TOGETHER_BYTES


def measure_costs(every: Sequence[ModelAnswers], task: EvaluationPayload) -> list[ModelAnswers]:
    """The answers with the costs of those models that are loaded, measured by turns.

    Turns of one model alone are compared with no other's: the machine was another one by then.
    """
    waiting = [one.timed for one in every if one.timed is not None]
    costs = measure_by_turns(waiting, latency=task.latency, limits=task.cost_limits, seed=task.seed) if waiting else []
    found = iter(costs if len(costs) > 1 else [cost._replace(usd_turns=()) for cost in costs])
    return [
        one if one.timed is None else one._replace(cost=next(found)._replace(memory_mb=one.cost.memory_mb), timed=None)
        for one in every
    ]


def predict_constant(request: PredictorRequest) -> ModelAnswers:
    """The constant answer, the floor that every model must beat."""
    task = request.task
    terms = task.terms._replace(modality=task.dataset.modality)
    if task.positive_label is not None:
        terms = terms._replace(positive_label=task.positive_label)
    targets, notes = _constant_targets(request)
    predictor = constant(task.task, targets, terms, task.metrics[0])
    run = request.run
    ask = rollouts.with_rollouts(predictor.predict, request.examples, task.metrics, run.folders.root, run.folder.path)
    answers = [Answer(*prediction) for prediction in ask(request.examples)]
    return ModelAnswers(request.evaluated_model, (answers,), Cost(0.0), notes=notes)


_SURELY = 3.0
"""Standard errors by which the constant of the examples must be better than that of the training rows."""


def _constant_targets(request: PredictorRequest) -> tuple[Sequence[Any], tuple[str, ...]]:
    """What the constant is the best answer to: the training targets, unless the examples surely have a better one.

    Training rows of other shares or sizes, by chance or by intent, would make a floor that anything beats.
    """
    task, trained, asked = request.task, request.training_targets, request.references
    if task.family not in ("classification", "ordinal", "regression") or len(asked) < 2:
        return trained, ()

    def losses(targets: Sequence[Any]) -> npt.NDArray[np.float64]:
        said = constant(task.task, targets, task.terms._replace(positive_label=task.positive_label), task.metrics[0])
        output = said.predict(request.examples[:1])[0].output
        if task.family == "regression":
            found: npt.NDArray[np.float64] = np.abs(np.array(asked, float) - float(output))
            return found
        return np.array([reference != output for reference in asked], float)

    gains = losses(trained) - losses(asked)
    if gains.mean() <= _SURELY * gains.std(ddof=1) / np.sqrt(len(gains)) or gains.mean() <= 0:
        return trained, ()
    name = request.evaluated_model.name
    return asked, (
        f"{name} is the best constant of these examples themselves: that of the training rows is surely worse here.",
    )


def read_column(request: PredictorRequest) -> ModelAnswers:
    column, task = request.evaluated_model.column or "", request.task
    return ModelAnswers(
        request.evaluated_model, (from_column(request.examples, column, task.family, task.dataset.modality),)
    )


_BY_SOURCE = {
    "model": predict_registered,
    "published": predict_published,
    "endpoint": endpoint.predict_endpoint,
    "code": code.predict_code,
    "inspect": inspect_log.read_inspect_log,
    "column": read_column,
    "constant": predict_constant,
    "nearest": nearest.predict_nearest,
}


def predict(request: PredictorRequest) -> ModelAnswers:
    """Raises Stopped if the run is to stop; answers until then are in the cache."""
    if request.evaluated_model.source == "ensemble":
        return predict_ensemble(request, predict)
    return _BY_SOURCE[request.evaluated_model.source](request)


_MEMORY_EXAMPLES = 16


def _measure_memory(request: PredictorRequest, path: Path) -> float | None:
    if not request.task.asks_for_memory:
        return None
    few = [example.id for example in request.examples[:_MEMORY_EXAMPLES]]
    shown = request.task.dataset.model_copy(
        update={"inputs": request.evaluated_model.inputs or request.task.dataset.inputs}
    )
    return measure_memory(request.run.folders, path, shown, few)


_LIKE_TARGETS: tuple[Family, ...] = ("multi-label", "tokens", "transcription", "generation")
"""Families whose stored answers are written as references are."""
_NOTHING = "the column holds no answer"


def from_column(examples: Sequence[Example], column: str, family: Family, modality: str | None = None) -> list[Answer]:
    """An empty cell is an error."""
    terms = TaskTerms(modality=modality)
    return [_cell_answer(example, example.columns.get(column), family, terms) for example in examples]


def _cell_answer(example: Example, cell: Any, family: Family, terms: TaskTerms) -> Answer:
    if cell is None or cell == "":
        return Answer(None, error=_NOTHING)
    if family in _LIKE_TARGETS:
        try:
            posed = TASK_HEADS[family].evaluation_example(example, cell, terms)
        except (ValueError, TypeError) as error:
            return Answer(None, error=f"{_NOTHING}: {error}"[:300])
        return Answer(posed.target) if posed else Answer(None, error=_NOTHING)
    if family in ("classification", "ordinal", "anomaly"):
        known = as_label(cell)
        return Answer(known) if known else Answer(None, error=_NOTHING)
    try:
        return Answer(float(str(cell)) if family == "regression" else _parse_cell(cell))
    except ValueError:
        return Answer(None, error="the column holds no number" if family == "regression" else "no JSON")


def _parse_cell(cell: Any) -> Any:
    """What a stored answer says that is more than a label or a number: JSON as text, or what it is."""
    return json.loads(cell) if isinstance(cell, str) and cell[:1] in "[{" else cell


def predict_ensemble(request: PredictorRequest, ask_member: Callable[[PredictorRequest], ModelAnswers]) -> ModelAnswers:
    """Several models as one: the mean of their probabilities or numbers, else the most frequent answer.

    Each member's answers are cached under its own name, so a model that also takes part by itself is asked once. If
    one member has no answer, the others decide; if none has, the answer is an error.
    """
    all_answers = [
        answers
        for member in request.evaluated_model.members
        for answers in measure_costs([ask_member(request._replace(evaluated_model=member))], request.task)
    ]
    repeats = combine_repeats([model_answers.repeats for model_answers in all_answers])
    served = tuple(name for model_answers in all_answers for name in model_answers.served)
    notes = tuple(note for model_answers in all_answers for note in model_answers.notes)
    return ModelAnswers(
        request.evaluated_model,
        repeats,
        combine_costs([model_answers.cost for model_answers in all_answers]),
        served,
        notes,
    )


def combine_repeats(members: Sequence[Sequence[Sequence[Answer]]]) -> tuple[list[Answer], ...]:
    """`members`: of each model its repeats, one where it answers alike each time, which then counts in every repeat."""
    times = max(map(len, members))
    return tuple(
        [combine_answers(answers) for answers in zip(*(each[time % len(each)] for each in members), strict=True)]
        for time in range(times)
    )


def combine_answers(answers: Sequence[Answer]) -> Answer:
    """
    >>> combine_answers([Answer("a", 0.6, {"a": 0.6, "b": 0.4}), Answer("b", 0.9, {"a": 0.1, "b": 0.9})]).output
    'b'
    >>> combine_answers([Answer(1.0), Answer(None, error="cut"), Answer(3.0)]).output
    2.0
    """
    given = [answer for answer in answers if answer.error is None]
    if not given:
        return Answer(None, error="; ".join(dict.fromkeys(answer.error or "" for answer in answers))[:300])
    if all(answer.probabilities for answer in given):
        labels = dict.fromkeys(label for answer in given for label in answer.probabilities or {})
        mean = {label: fmean((answer.probabilities or {}).get(label, 0.0) for answer in given) for label in labels}
        best = max(mean, key=lambda label: mean[label])
        if all(answer.output in mean for answer in given):
            return Answer(best, mean[best], mean)
    if all(isinstance(answer.output, int | float) for answer in given):
        return Answer(fmean(answer.output for answer in given))
    votes = Counter(repr(answer.output) for answer in given)
    most = max(votes.values())
    return next(Answer(answer.output) for answer in given if votes[repr(answer.output)] == most)


def combine_costs(costs: Sequence[Cost]) -> Cost:
    """Members answer one after the other, so dollars and medians add up; the p95 of a sum is not known from theirs."""

    def total(name: str) -> float | None:
        values = [getattr(cost, name) for cost in costs]
        return None if None in values else sum(values)

    devices = dict.fromkeys(cost.device for cost in costs if cost.device)
    return Cost(total("usd_per_1k"), total("p50_ms"), None, " and ".join(devices) or None, total("memory_mb"))
