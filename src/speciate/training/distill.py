"""Recipe `distill`: a model learns what others say of each example, beside the labels or without any.

Knowledge distillation (Hinton et al. 2015): `alpha` times the divergence from the teacher at a temperature, and the
rest for the labels. Rows without a label are taught by the teacher alone. Several teachers are one, by their mean
chances. With `features`, the student's pooled states are brought near those of the first teacher, too (Romero et al.
2015). Language models are taught by language/distilling.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from speciate.datasets.intake.rows import WITHOUT_LABEL
from speciate.datasets.loading.loader import Example, load_unlabelled
from speciate.evaluation import timing
from speciate.models.backbones.contract import Backbone
from speciate.models.backbones.table import usual_rate
from speciate.tasks.contract import Predictor
from speciate.tasks.growth import joined, kept_readout
from speciate.tasks.truth import is_label
from speciate.training import teaching
from speciate.training.frontier import Measured, compared
from speciate.training.language.distillation import distilling
from speciate.training.language.distillation.specs import LanguageDistillParameters
from speciate.training.network.choosing import Lessons, Method, choose, plain
from speciate.training.network.lessons import Lesson, Taught, with_line
from speciate.training.selection import Chosen, measure_answers
from speciate.training.specs import DistillParameters
from speciate.training.study import Study
from speciate.vocabulary import find_metric


def fit(study: Study, parameters: DistillParameters | LanguageDistillParameters) -> Chosen:
    if isinstance(parameters, LanguageDistillParameters):
        return distilling.fit(study, parameters)
    chosen = choose(study, parameters, method(parameters))
    study.found["distillation"] = _compared(study, chosen)
    return chosen


def method(parameters: DistillParameters) -> Method:
    return Method(
        _all_weights, _all_weights, usual_rate, partial(_prepare, parameters=parameters),
        partial(_teach, parameters=parameters),
    )  # fmt: skip


def _prepare(study: Study, parameters: DistillParameters) -> None:
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
        known = kept_readout(Path(teacher.folder))
        if known.family in ("classification", "multi-label"):
            study.readout = joined(known, study.readout)
    study.untold = {example.id for example in silent}
    study.train += silent
    study.notes = [note for note in study.notes if not note.endswith("were left out.")]
    study.notes.append(f"{len(silent)} examples without a label were learned from the teacher alone.")


def _teach(study: Study, backbone: Backbone, parameters: DistillParameters) -> Lessons:
    head = plain(study, backbone).head
    teachers = study.payload.teachers
    matched = bool(parameters.features)
    if matched:
        head = with_line(head, backbone.width, teaching.width(study, teachers[0]))
    readout = Taught(study.readout, "chances", parameters.temperature, features=parameters.features)

    def targets(examples: Sequence[Example]) -> list[Lesson]:
        told = [example for example in examples if example.id not in study.untold]
        truths = dict(zip([each.id for each in told], study.targets(told), strict=True)) if told else {}
        said = teaching.wanted(study, examples)
        seen = teaching.states(study, teachers[0], examples) if matched else [None] * len(examples)
        return [
            Lesson(truths[each.id], 1 - parameters.alpha, wanted, parameters.alpha, states)
            if each.id in truths
            else Lesson(None, 0.0, wanted, 1.0, states)
            for each, wanted, states in zip(examples, said, seen, strict=True)
        ]

    return Lessons(head, readout, targets)


def _compared(study: Study, chosen: Chosen) -> dict[str, Any]:
    """Student and teachers on the same held-out examples."""
    held = study.validation or study.train
    name, predictor = study.payload.spec.name, chosen.predictor
    rows = [Measured(name, "student", chosen.best.value, predictor.parameters, _latency(predictor, held))]
    for teacher in study.payload.teachers:
        model = teaching.load(study, teacher, cached=False)
        readout: Any = getattr(model, "readout", study.readout)
        value = measure_answers(study, readout, held, model.predict(held)).value
        rows.append(Measured(teacher.model, "teacher", value, teacher.parameters, _latency(model, held)))
    return {
        **compared(rows, find_metric(study.payload.objective.metric)), "judged_on": study.how, "n": len(held),
        "unlabelled": len(study.untold),
    }  # fmt: skip


def _latency(model: Predictor, held: Sequence[Example]) -> float:
    """Milliseconds, median."""
    found = timing.measure(model.predict, held, None, latency=True).p50_ms
    assert found is not None, "latency was asked for"
    return float(found)


def _all_weights(backbone: Backbone) -> None:
    backbone.module.requires_grad_(True)
