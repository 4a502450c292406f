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
from speciate.tasks.example_targets import is_label
from speciate.tasks.network_predictor import merge_task_heads, saved_task_head
from speciate.tasks.task import Predictor
from speciate.training.hyperparameters import DistillParameters
from speciate.training.language_hyperparameters import LanguageDistillParameters
from speciate.training.model_selection import SelectedModel, measure_answers
from speciate.training.networks.train_network import NetworkMethod, TrainingHead, task_head, train_best_network
from speciate.training.networks.weighted_targets import SoftTargetLoss, TrainingTarget, with_projection
from speciate.training.recipes import distill_language
from speciate.training.recipes import teachers as teaching
from speciate.training.recipes.teachers import FrontierRow, compare_models
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import find_metric


def fit_distill(study: TrainingContext, parameters: DistillParameters | LanguageDistillParameters) -> SelectedModel:
    if isinstance(parameters, LanguageDistillParameters):
        return distill_language.fit_distill_language(study, parameters)
    chosen = train_best_network(study, parameters, distill_method(parameters))
    study.found["distillation"] = _compare_with_teachers(study, chosen)
    return chosen


def distill_method(parameters: DistillParameters) -> NetworkMethod:
    return NetworkMethod(
        _train_all_weights, _train_all_weights, usual_rate, partial(_add_unlabelled, parameters=parameters),
        partial(_distill_targets, parameters=parameters),
    )  # fmt: skip


def _add_unlabelled(study: TrainingContext, parameters: DistillParameters) -> None:
    """Examples without a label come to those with one, where there is a validation split: folds are of labels."""
    payload, silent = study.payload, list(study.silent)
    if is_label(payload.manifest, payload.target):
        silent += load_unlabelled(study.folders, payload.manifest, WITHOUT_LABEL)
    if not silent or not parameters.unlabelled:
        return
    if not study.validation:
        study.notes.append(
            f"{len(silent)} examples without a label were not learned from: there is no validation split."
        )
        return
    for teacher in payload.teachers:  # a label that only rows without one may have
        known = saved_task_head(Path(teacher.folder))
        if known.family in ("classification", "multi-label"):
            study.readout = merge_task_heads(known, study.readout)
    study.untold = {example.id for example in silent}
    study.train += silent
    study.notes = [note for note in study.notes if not note.endswith("were left out.")]
    study.notes.append(f"{len(silent)} examples without a label were learned from the teacher alone.")


def _distill_targets(study: TrainingContext, backbone: Backbone, parameters: DistillParameters) -> TrainingHead:
    head = task_head(study, backbone).head
    teachers = study.payload.teachers
    matched = bool(parameters.features)
    if matched:
        head = with_projection(head, backbone.width, teaching.teacher_width(study, teachers[0]))
    readout = SoftTargetLoss(study.readout, "probabilities", parameters.temperature, features=parameters.features)

    def targets(examples: Sequence[Example]) -> list[TrainingTarget]:
        told = [example for example in examples if example.id not in study.untold]
        truths = dict(zip([each.id for each in told], study.targets(told), strict=True)) if told else {}
        said = teaching.soft_labels(study, examples)
        seen = teaching.teacher_states(study, teachers[0], examples) if matched else [None] * len(examples)
        return [
            TrainingTarget(truths[each.id], 1 - parameters.alpha, wanted, parameters.alpha, states)
            if each.id in truths
            else TrainingTarget(None, 0.0, wanted, 1.0, states)
            for each, wanted, states in zip(examples, said, seen, strict=True)
        ]

    return TrainingHead(head, readout, targets)


def _compare_with_teachers(study: TrainingContext, chosen: SelectedModel) -> dict[str, Any]:
    """Student and teachers on the same held-out examples."""
    held = study.validation or study.train
    name, predictor = study.payload.spec.name, chosen.predictor
    rows = [FrontierRow(name, "student", chosen.best.value, predictor.parameters, _median_latency_ms(predictor, held))]
    for teacher in study.payload.teachers:
        model = teaching.load_teacher(study, teacher, cached=False)
        readout: Any = getattr(model, "readout", study.readout)
        value = measure_answers(study, readout, held, model.predict(held)).value
        rows.append(FrontierRow(teacher.model, "teacher", value, teacher.parameters, _median_latency_ms(model, held)))
    return {
        **compare_models(rows, find_metric(study.payload.objective.metric)), "judged_on": study.how, "n": len(held),
        "unlabelled": len(study.untold),
    }  # fmt: skip


def _median_latency_ms(model: Predictor, held: Sequence[Example]) -> float:
    """Milliseconds, median."""
    found = timing.measure(model.predict, held, None, latency=True).p50_ms
    assert found is not None, "latency was asked for"
    return float(found)


def _train_all_weights(backbone: Backbone) -> None:
    backbone.module.requires_grad_(True)
