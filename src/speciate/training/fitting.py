"""The worker's side of every training: read the examples, call the recipe, save what it chose, say how it went."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from speciate.datasets.loading.loader import load_examples
from speciate.evaluation.prices import usd_for
from speciate.jobs.run import Run
from speciate.models.card import Card
from speciate.tasks.parts import names_of
from speciate.training import bases, classical, der, distill, ewc, full, lora, lwf, probe, provenance, replay, slda
from speciate.training.costs import Tally
from speciate.training.estimate import asked_by
from speciate.training.held_out import Remaining, unseen
from speciate.training.language.recipes import LANGUAGE_RECIPES
from speciate.training.network import choosing, gpus
from speciate.training.network.memory import resident_mb
from speciate.training.network.team import Follower, Team, gathered
from speciate.training.selection import Chosen
from speciate.training.specs import FullParameters, Payload, Repeated
from speciate.training.study import Study

RECIPES: dict[str, Callable[[Study, Any], Chosen]] = {
    "classical": classical.fit,
    "probe": probe.fit,
    "lora": lora.fit,
    "full": full.fit,
    **LANGUAGE_RECIPES,
    "replay": replay.fit,
    "der": der.fit,
    "lwf": lwf.fit,
    "ewc": ewc.fit,
    "distill": distill.fit,
    "slda": slda.fit,
}
METHODS: dict[str, Callable[[Any], choosing.Method]] = {
    "lora": lora.method, "full": full.method, "replay": replay.method, "der": der.method, "lwf": lwf.method,
    "ewc": ewc.method, "distill": distill.method,
}  # fmt: skip
"""Of those that train networks."""

_NO_RECIPE = {"manifest", "dearer", "repeats", "base_folder", "base_learned_from", "teachers", "usd_per_core_hour"}
"""Of a payload: what follows from the rest, wherever it is resolved again."""


def run(run: Run) -> dict[str, Any]:
    """Writes `outputs/model/`; returns card and report. Raises SpeciateError for data that cannot be learned."""
    tally = Tally(run)
    try:
        with bases.copied(run, Payload.model_validate(run.payload)) as payload:
            return _gathered(run, payload, tally)
    except BaseException:
        tally.keep()  # stopped, or out of memory: another attempt goes on
        raise


def _gathered(run: Run, payload: Payload, tally: Tally) -> dict[str, Any]:
    if payload.device == "cuda":
        gpus.take(run.folders.cache / gpus.FOLDER, payload.processes)
    with gathered(run, payload.processes, payload.device, payload.threads, partial(_follow, run, payload)) as team:
        return _run(run, payload, tally, team)


def _follow(run: Run, payload: Payload, team: Follower) -> None:
    """In each other process of the team."""
    study, parameters = Study(run, payload, _read(run, payload).examples, Tally(), team), payload.parameters
    assert isinstance(parameters, FullParameters), "others learn in one process"
    with _bounded(payload):
        choosing.follow(study, parameters, METHODS[payload.spec.method or ""](parameters), team)


def _read(run: Run, payload: Payload) -> Remaining:
    return unseen(run.folders, payload, load_examples(run.folders, payload.manifest, ("train", "validation")))


@contextlib.contextmanager
def _bounded(payload: Payload) -> Iterator[None]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

    with threadpool_limits(limits=payload.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of solvers that stop early: what counts is measured on held-out examples
        yield


def _run(run: Run, payload: Payload, tally: Tally, team: Team) -> dict[str, Any]:
    run.progress(0, None, "", "reading examples")
    with tally.stage("preparing"):
        remaining = _read(run, payload)
    tally.loaded_mb = resident_mb()
    study = Study(run, payload, remaining.examples, tally, team)
    study.notes += remaining.notes(payload)
    with _bounded(payload):
        chosen = RECIPES[payload.spec.method or ""](study, payload.parameters)
    identity = chosen.predictor.save(run.outputs / "model")
    seconds = tally.spent.seconds
    size = sum(entry.stat().st_size for entry in os.scandir(run.outputs / "model"))
    usd = payload.processes * usd_for(tally.spent.cpu, payload.usd_per_core_hour)
    card = _card(study, chosen, identity, seconds, size).model_copy(update={"usd": usd})
    report = _report(payload, study, chosen, seconds) | {"left_out": remaining.left_out, "usd": usd}
    if payload.repeats is not None:
        report["repetition"] = _repetition(payload.repeats, card)
    return {"card": card.model_dump(mode="json"), "report": report, "beside": study.beside}


def _card(study: Study, chosen: Chosen, identity: str, seconds: float, size: int) -> Card:
    payload, spec = study.payload, study.payload.spec
    return Card(
        name=spec.name,
        id=identity,
        task=payload.task,
        modality=payload.manifest.modality,
        method=spec.method or "",
        base_model=spec.base_model,
        dataset=payload.dataset,
        teachers=tuple(teacher.model for teacher in payload.teachers),
        use_case=spec.use_case,
        inputs=payload.manifest.inputs,
        **_parts(study, chosen),
        labels=chosen.predictor.labels,
        parameters=chosen.predictor.parameters,
        bytes=size,
        seconds=seconds,
        metrics=_measured(f"{chosen.how} {payload.objective.metric}", chosen.best.value),
        recipe=payload.model_dump(mode="json", exclude=_NO_RECIPE)
        | {"environment": provenance.record(payload.threads)},
        license=payload.license,
    )


def _parts(study: Study, chosen: Chosen) -> dict[str, tuple[str, ...]]:
    """Of mixed rows: the parts that the model reads, and those that its dataset has beside them. Else empty."""
    read = tuple(getattr(getattr(chosen.predictor, "representation", chosen.predictor), "names", ()))
    if not read or study.payload.manifest.modality != "multimodal":
        return {}
    there = map(str, names_of([*study.train, *study.validation]))
    return {"parts": read, "ignored_parts": tuple(name for name in there if name not in read)}


def _repetition(before: Repeated, card: Card) -> dict[str, Any]:
    """What came out otherwise than the first time, and what may be why."""
    return {
        "like": before.model,
        "same_model": card.id == before.id,
        "same_dataset": card.dataset == before.dataset,
        "metrics": provenance.differences(before.metrics, card.metrics),
        "environment": provenance.differences(before.environment, card.recipe["environment"]),
    }


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
        "examples": len({example.id for example in study.train}) + len(study.validation),
        "labels": list(chosen.predictor.labels),
        "seconds": round(seconds, 3),
        "cost": _cost(payload, study, chosen),
        "dearer": [option.model_dump() for option in payload.dearer],
        "notes": list(study.notes),
        **{name: list(parts) for name, parts in _parts(study, chosen).items()},
        **study.found,
    }


def _cost(payload: Payload, study: Study, chosen: Chosen) -> dict[str, Any]:
    """What `estimate.py` scales with, and what it scales."""
    return {
        "family": study.readout.family,
        "length": payload.length,
        "visits": asked_by(payload).visits,
        "parameters": chosen.predictor.parameters,
        "threads": payload.threads,
        "device": payload.device,
        "processes": payload.processes,
        **study.tally.report(),
    }
