"""Recipe `distill`: a network learns from teachers' answers, beside the labels or without any.

Knowledge distillation (Hinton et al. 2015): `alpha` times the divergence from the teacher at a temperature, and the
rest for the labels. Rows without a label are taught by the teacher alone. Several teachers are an ensemble, by their
mean probabilities. With `features`, the student's pooled states are brought near those of the first teacher, too
(Romero et al. 2015). Where the task is to write, distill_language.py does it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from speciate.datasets.ingest.draft import WITHOUT_LABEL
from speciate.datasets.loading.loader import Example, load_unlabelled
from speciate.evaluation.predictors import timing
from speciate.models.backbones.architectures import usual_rate
from speciate.models.backbones.contract import Backbone
from speciate.models.published.manifest import read_manifest
from speciate.tasks.example_targets import is_label
from speciate.tasks.network_predictor import merge_task_heads, saved_task_head
from speciate.tasks.task import Predictor
from speciate.training.held_out import measure_answers
from speciate.training.hyperparameters import DistillParameters
from speciate.training.language_hyperparameters import LanguageDistillParameters
from speciate.training.networks.train_network import (
    NetworkMethod,
    TrainingHead,
    task_head,
    train_all_weights,
    train_best_network,
)
from speciate.training.networks.weighted_targets import SoftTargetLoss, TrainingTarget, with_projection
from speciate.training.recipes import distill_language
from speciate.training.recipes.teachers import (
    FrontierRow,
    compare_models,
    load_teacher,
    soft_labels,
    teacher_states,
    teacher_width,
)
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.training_context import TrainingContext
from speciate.training.training_report import MethodReport
from speciate.vocabulary import find_metric


def fit_distill(context: TrainingContext, parameters: DistillParameters | LanguageDistillParameters) -> SelectedModel:
    if isinstance(parameters, LanguageDistillParameters):
        return distill_language.fit_distill_language(context, parameters)
    chosen = train_best_network(context, parameters, distill_method(parameters))
    context.report["distillation"] = _compare_with_teachers(context, chosen)
    return chosen


def distill_method(parameters: DistillParameters) -> NetworkMethod:
    return NetworkMethod(
        train_all_weights, train_all_weights, usual_rate, partial(_add_unlabelled, parameters=parameters),
        partial(_distill_targets, parameters=parameters),
    )  # fmt: skip


def _add_unlabelled(context: TrainingContext, parameters: DistillParameters) -> None:
    """Examples without a label come to those with one, where there is a validation split: folds are of labels."""
    payload, unlabelled_train = context.payload, list(context.unlabelled_train)
    if is_label(payload.manifest, payload.target):
        unlabelled_train += load_unlabelled(context.folders, payload.manifest, WITHOUT_LABEL)
    if not unlabelled_train or not parameters.unlabelled:
        return
    if not context.validation:
        context.notes.append(
            f"{len(unlabelled_train)} examples without a label were not learned from: there is no validation split."
        )
        return
    for teacher in payload.teachers:  # a label that only rows without one may have
        if read_manifest(Path(teacher.folder)) is not None:
            continue  # a published model's further labels are no statement about these data
        known = saved_task_head(Path(teacher.folder))
        if known.family in ("classification", "multi-label"):
            context.task_head = merge_task_heads(known, context.task_head)
    context.unlabelled = {example.id for example in unlabelled_train}
    context.train += unlabelled_train
    context.notes = [note for note in context.notes if not note.endswith("were excluded.")]
    context.notes.append(f"{len(unlabelled_train)} examples without a label were learned from the teacher alone.")


def _distill_targets(context: TrainingContext, backbone: Backbone, parameters: DistillParameters) -> TrainingHead:
    head = task_head(context, backbone).head
    teachers = context.payload.teachers
    matched = bool(parameters.features)
    if matched:
        head = with_projection(head, backbone.width, teacher_width(context, teachers[0]))
    loss = SoftTargetLoss(context.task_head, "probabilities", parameters.temperature, features=parameters.features)

    def targets(examples: Sequence[Example]) -> list[TrainingTarget]:
        told = [example for example in examples if example.id not in context.unlabelled]
        labels = dict(zip([each.id for each in told], context.targets(told), strict=True)) if told else {}
        said = soft_labels(context, examples)
        seen = teacher_states(context, teachers[0], examples) if matched else [None] * len(examples)
        return [
            TrainingTarget(labels[each.id], 1 - parameters.alpha, wanted, parameters.alpha, states)
            if each.id in labels
            else TrainingTarget(None, 0.0, wanted, 1.0, states)
            for each, wanted, states in zip(examples, said, seen, strict=True)
        ]

    return TrainingHead(head, loss, targets)


def _compare_with_teachers(context: TrainingContext, chosen: SelectedModel) -> MethodReport:
    """Student and teachers on the same held-out examples."""
    held = context.validation or context.train
    name, predictor = context.payload.spec.name, chosen.predictor
    rows = [FrontierRow(name, "student", chosen.best.value, predictor.parameters, _median_latency_ms(predictor, held))]
    for teacher in context.payload.teachers:
        model = load_teacher(context, teacher, cached=False)
        task_head: Any = getattr(model, "task_head", context.task_head)
        value = measure_answers(context, task_head, held, model.predict(held)).value
        rows.append(FrontierRow(teacher.model, "teacher", value, teacher.parameters, _median_latency_ms(model, held)))
    return {
        **compare_models(rows, find_metric(context.payload.objective.metric)), "judged_on": context.how, "n": len(held),
        "unlabelled": len(context.unlabelled),
    }  # fmt: skip


def _median_latency_ms(model: Predictor, held: Sequence[Example]) -> float:
    """Milliseconds, median."""
    (cost,) = timing.measure_by_turns([timing.TimedModel(model.predict, held, None)], latency=True)
    found = cost.p50_ms
    assert found is not None, "latency was asked for"
    return float(found)
