"""The worker's side of every training: read the examples, call the recipe, save what it chose, say how it went."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

from speciate.datasets.loading.loader import load_examples
from speciate.jobs.run import Run
from speciate.models.card import Card
from speciate.tasks import predictor
from speciate.training import classical, probe
from speciate.training.selection import Chosen
from speciate.training.specs import Payload
from speciate.training.study import Study

RECIPES: dict[str, Callable[[Study, Any], Chosen]] = {"classical": classical.fit, "probe": probe.fit}


def run(run: Run) -> dict[str, Any]:
    """Writes `outputs/model/`; returns card and report. Raises SpeciateError for data that cannot be learned."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

    payload, started = Payload.model_validate(run.payload), time.monotonic()
    run.progress(0, None, "", "reading examples")
    study = Study(run, payload, load_examples(run.folders, payload.manifest, ("train", "validation")))
    with threadpool_limits(limits=payload.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of solvers that stop early: what counts is measured on held-out examples
        chosen = RECIPES[payload.spec.method](study, payload.parameters)
    identity = predictor.save(chosen.predictor, run.outputs / "model")
    seconds = time.monotonic() - started
    size = sum(entry.stat().st_size for entry in os.scandir(run.outputs / "model"))
    return {
        "card": _card(payload, chosen, identity, seconds, size).model_dump(mode="json"),
        "report": _report(payload, study, chosen, seconds),
    }


def _card(payload: Payload, chosen: Chosen, identity: str, seconds: float, size: int) -> Card:
    spec = payload.spec
    return Card(
        name=spec.name,
        id=identity,
        task=payload.task,
        modality=payload.manifest.modality,
        method=spec.method,
        base_model=spec.base_model,
        dataset=payload.dataset,
        use_case=spec.use_case,
        inputs=payload.manifest.inputs,
        labels=chosen.predictor.labels,
        parameters=chosen.predictor.parameters,
        bytes=size,
        seconds=seconds,
        metrics=_measured(f"{chosen.how} {payload.objective.metric}", chosen.best.value),
        recipe=payload.model_dump(mode="json", exclude={"manifest", "dearer"}),
        license=payload.license,
    )


def _measured(name: str, value: float) -> dict[str, float]:
    """Nothing where the held-out examples leave the metric undefined, such as recall without a positive one."""
    return {name: value} if math.isfinite(value) else {}


def _report(payload: Payload, study: Study, chosen: Chosen, seconds: float) -> dict[str, Any]:
    return {
        "dataset": payload.dataset,
        "task": payload.task,
        "modality": payload.manifest.modality,
        "method": payload.spec.method,
        "base_model": payload.spec.base_model,
        "metric": payload.objective.metric,
        "target": payload.objective.target,
        "validation": chosen.validation(),
        "candidates": [candidate.shown() for candidate in chosen.tried],
        "examples": len(study.train) + len(study.validation),
        "labels": list(chosen.predictor.labels),
        "seconds": round(seconds, 3),
        "dearer": [option.model_dump() for option in payload.dearer],
        "notes": list(study.notes),
    }
