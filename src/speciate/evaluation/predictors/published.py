"""A published model under evaluation: asked as it is, its raw answers kept, its labels mapped when they are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from speciate.datasets.columns import class_name
from speciate.evaluation.compare_models import Cost
from speciate.evaluation.environments import rollouts
from speciate.evaluation.predictors.answering import Answer, ModelAnswers, PredictorRequest, answer_all
from speciate.evaluation.predictors.memory_use import measure_memory
from speciate.evaluation.predictors.timing import TimedModel
from speciate.evaluation.published_models import LABELLED, PACKAGE, PATH, PublishedLabels, make_table, nothing_mapped
from speciate.evaluation.reports.report import LabelCoverage
from speciate.models import sealed
from speciate.models.published import label_map
from speciate.models.published.asking import answer_identity
from speciate.models.published.checked_copy import checked_copy
from speciate.models.published.label_map import LabelMap
from speciate.tasks.published_predictor import load_published, map_prediction
from speciate.tasks.task import Prediction
from speciate.vocabulary import Family

_AT_ONCE, _MEMORY_EXAMPLES = 64, 16
_NAMED = 5


class _Mapped(NamedTuple):
    answers: list[Answer]
    coverage: LabelCoverage | None
    notes: tuple[str, ...] = ()


def predict_published(request: PredictorRequest) -> ModelAnswers:
    """Raises INVALID if the model cannot be loaded strictly, or if none of its labels means one of the references'."""
    evaluated_model, task = request.evaluated_model, request.task
    labels = evaluated_model.published
    if labels is None:
        raise TypeError(f"{evaluated_model.name} has no published labels")
    folder = _folder(request)
    wanted = _wanted_labels(request)
    prompts = labels.prompts(sorted(wanted))
    predictor = load_published(folder, prompts=prompts, task=evaluated_model.task)
    if task.family in LABELLED and not labels.zero_shot:
        _check_mapped(labels, predictor.published_labels, wanted, task.family)
    identity = answer_identity(evaluated_model.identity, prompts, predictor.model.head.adapter)
    run = request.run
    ask = rollouts.with_rollouts(
        predictor.predict, request.examples, task.metrics, run.folders.root, run.folder.path, predictor.first_shown
    )
    identity = rollouts.rollout_identity(identity, task.metrics)
    raw = answer_all(run, identity, request.examples, ask, request.on_progress, at_once=_AT_ONCE)
    mapped = _map_answers(request, labels, predictor.published_labels, wanted, raw)
    unknown = f"What {evaluated_model.name} was trained on is not known: it may have seen these examples."
    notes = (unknown, *mapped.notes)
    answered = [example for example, answer in zip(request.examples, raw, strict=True) if answer.error is None]
    if not answered:
        return ModelAnswers(evaluated_model, (mapped.answers,), notes=notes, coverage=mapped.coverage)
    memory = None
    if task.asks_for_memory and not labels.zero_shot:
        few = [example.id for example in request.examples[:_MEMORY_EXAMPLES]]
        memory = measure_memory(request.run.folders, folder, task.dataset, few)
    return ModelAnswers(
        evaluated_model,
        (mapped.answers,),
        Cost(memory_mb=memory),
        notes=notes,
        timed=TimedModel(predictor.predict, answered, task.usd_per_core_hour),
        coverage=mapped.coverage,
    )


def _folder(request: PredictorRequest) -> Path:
    """A folder that cannot change: a version of the registry, or a checked copy."""
    evaluated_model = request.evaluated_model
    folder = Path(evaluated_model.path or "")
    if evaluated_model.name.startswith((PATH, PACKAGE)):
        return checked_copy(folder, evaluated_model.identity, request.run.folders.cache)
    sealed.check(folder)
    return folder


def _wanted_labels(request: PredictorRequest) -> set[str]:
    """Labels that an answer can have: the dataset's, or those of the references."""
    if request.labels:
        return set(request.labels)
    found = set[str]()
    for target in (*request.training_targets, *request.references):
        found |= set(_labels_in(target, request.task.family))
    return found


def _labels_in(target: Any, family: Family) -> Iterable[str]:
    match family:
        case "classification" | "ordinal" | "anomaly":
            return [str(target)]
        case "multi-label" | "tokens":
            return list(target)
        case "detection":
            return [each["label"] for each in target["objects"]]
        case "segmentation" | "panoptic":
            return list(target["labels"])
        case _:
            return []


def _check_mapped(labels: PublishedLabels, published: Sequence[str], wanted: set[str], family: Family) -> None:
    """Refuses labels of which none is mapped, before the first example is asked."""
    pairs = make_table(labels, published, wanted, family).pairs
    if not {name for name, label in pairs.items() if label != "O"}:
        raise nothing_mapped(labels, published, wanted)


def _map_answers(
    request: PredictorRequest, labels: PublishedLabels, published: Sequence[str], wanted: set[str], raw: list[Answer]
) -> _Mapped:
    family = request.task.family
    if family == "forecasting":
        return _Mapped([_cut_steps(answer, request.training_targets) for answer in raw], None)
    if family not in LABELLED:
        return _Mapped(raw, None)
    table = make_table(labels, published, wanted, family)
    prefixed = family == "tokens" and any(label_map.has_prefix(tag) for tag in wanted)
    answers, elsewhere = [], []
    for answer in raw:
        if answer.error is not None:
            answers.append(answer)
            continue
        try:
            found = map_prediction(
                Prediction(answer.output, answer.confidence, answer.probabilities), table, family, prefixed=prefixed
            )
        except ValueError as error:
            answers.append(Answer(None, error=str(error)[:300]))
            elsewhere.append(1.0)
            continue
        answers.append(Answer(*found.prediction))
        elsewhere.append(found.elsewhere)
    coverage = _coverage(table, request.references, family, fmean(elsewhere) if elsewhere else None)
    return _Mapped(answers, coverage, _notes(request.evaluated_model.name, labels, table, coverage))


def _coverage(table: LabelMap, references: Sequence[Any], family: Family, elsewhere: float | None) -> LabelCoverage:
    parts = [label for target in references for label in _labels_in(target, family)]
    if family == "tokens":
        parts = [label_map.tag_stem(tag) for tag in parts]
    if family == "multi-label":  # an example is right as a whole
        uncovered = set(table.uncovered)
        covered = [uncovered.isdisjoint(target) for target in references]
        ceiling = fmean(covered) if covered else None
    else:
        ceiling = table.ceiling(parts)
    return LabelCoverage(
        uncovered=table.uncovered,
        ceiling=None if ceiling is None else round(ceiling, 6),
        elsewhere=None if elsewhere is None else round(elsewhere, 6),
    )


def _notes(name: str, labels: PublishedLabels, table: LabelMap, coverage: LabelCoverage) -> tuple[str, ...]:
    """How it was asked, which of its labels stood for others, and what it has no label for."""
    notes = []
    if labels.zero_shot:
        notes.append(f"{name} was asked with {' and '.join(map(repr, labels.templates))}.")
    renamed = [f"{class_name(one)} for {other}" for one, other in table.pairs.items() if one != other]
    if renamed:
        notes.append(f"Labels of {name}: {_listed(renamed)}.")
    if coverage.uncovered:
        notes.append(
            f"{name} has no label for {_listed(coverage.uncovered)}: these count as wrong, so it can reach "
            f"{coverage.ceiling or 0:.1%} at most. label_maps says what its labels mean."
        )
    return tuple(notes)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _cut_steps(answer: Answer, targets: Sequence[Any]) -> Answer:
    """A forecast of the horizon's length. An error where the model forecasts fewer steps."""
    if answer.error is not None or not targets:
        return answer
    horizon = len(targets[0]["steps"][0])
    if any(len(channel) < horizon for channel in answer.output):
        return Answer(None, error=f"the model forecasts {len(answer.output[0])} steps, and {horizon} are asked for")
    return answer._replace(output=[channel[:horizon] for channel in answer.output])
