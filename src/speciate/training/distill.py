"""Recipe `distill`: a network learns what another model says of each example, beside the labels or without any.

Knowledge distillation (Hinton et al. 2015): `alpha` times the divergence from the teacher at a temperature, and the
rest for the labels. Rows without a label are taught by the teacher alone. Several teachers are one, by their mean
chances. With `features`, the student's pooled states are brought near those of the first teacher, too (Romero et al.
2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from speciate.datasets.intake.rows import WITHOUT_LABEL
from speciate.datasets.loading.loader import Example, load_unlabelled
from speciate.evaluation import timing
from speciate.models.backbones.contract import Backbone
from speciate.models.backbones.table import usual_rate
from speciate.tasks.contract import Predictor
from speciate.tasks.growth import joined, kept_readout
from speciate.tasks.truth import is_label
from speciate.training import teaching
from speciate.training.network.choosing import Lessons, Method, choose, plain
from speciate.training.network.lessons import Lesson, Taught, with_line
from speciate.training.selection import Chosen, measure_answers
from speciate.training.specs import DistillParameters
from speciate.training.study import Study
from speciate.vocabulary import find_metric


def fit(study: Study, parameters: DistillParameters) -> Chosen:
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
    """Student and teachers on the same held-out examples: how good, how large, how quick; and which of them another one
    beats in all of it. Latency is of this machine, one example at a time."""
    held = study.validation or study.train
    student: dict[str, Any] = {
        "model": study.payload.spec.name, "role": "student", "value": chosen.best.value,
        "parameters": chosen.predictor.parameters, "p50_ms": _latency(chosen.predictor, held),
    }  # fmt: skip
    rows = [student]
    for teacher in study.payload.teachers:
        model = teaching.load(study, teacher, cached=False)
        readout: Any = getattr(model, "readout", study.readout)
        value = measure_answers(study, readout, held, model.predict(held)).value
        own = {"role": "teacher", "value": value, "parameters": teacher.parameters, "p50_ms": _latency(model, held)}
        rows.append({"model": teacher.model} | own)
    metric = find_metric(study.payload.objective.metric)
    best = max((row for row in rows if row["role"] == "teacher"), key=lambda row: metric.sign * row["value"])
    for row in rows:
        row["dominated"] = any(_beats(other, row, metric.sign) for other in rows)
        row["value"], row["p50_ms"] = _finite(row["value"]), round(row["p50_ms"], 3)
    smaller = (best["parameters"] or 0) / max(1, student["parameters"])
    return {
        "metric": metric.name, "judged_on": study.how, "n": len(held), "frontier": rows, "teacher": best["model"],
        "times_smaller": round(smaller, 2), "times_faster": round(best["p50_ms"] / max(student["p50_ms"], 1e-6), 2),
        "kept": _finite(student["value"] / best["value"]) if metric.sign > 0 and best["value"] else None,
        "unlabelled": len(study.untold),
    }  # fmt: skip


def _beats(other: dict[str, Any], row: dict[str, Any], sign: int) -> bool:
    """As good in everything, and better in something."""
    mine = (sign * row["value"], -(row["parameters"] or 0), -row["p50_ms"])
    theirs = (sign * other["value"], -(other["parameters"] or 0), -other["p50_ms"])
    return other is not row and all(a >= b for a, b in zip(theirs, mine, strict=True)) and theirs != mine


def _latency(model: Predictor, held: Sequence[Example]) -> float:
    """Milliseconds, median."""
    found = timing.measure(model.predict, held, None, latency=True).p50_ms
    assert found is not None, "latency was asked for"
    return float(found)


def _finite(value: Any) -> float | None:
    return round(float(value), 4) if value is not None and np.isfinite(value) else None


def _all_weights(backbone: Backbone) -> None:
    backbone.module.requires_grad_(True)
