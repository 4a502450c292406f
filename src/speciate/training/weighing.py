"""The worker's side of `measure`: each candidate in a process of its own.

It is forked before anything was computed, as a training's is: its memory is its own, and one that is killed for want of
it says so. Where there are several base models, their frozen vectors are compared, too (promising.py).
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from speciate.errors import SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.jobs.zygote import PRELOADS
from speciate.training.estimate import asked_by
from speciate.training.network.room import DOES_NOT_FIT
from speciate.training.promising import compare
from speciate.training.pruning import FAMILIES, KEEP
from speciate.training.sampling_cost import cost
from speciate.training.specs import Payload
from speciate.vocabulary import find_task

_COMPARED = 200
"""Examples, or 20 of each label."""


def run(run: Run) -> dict[str, Any]:
    given, found = run.payload, list[dict[str, Any]]()
    for place, payload in enumerate(map(Payload.model_validate, given["candidates"])):
        way = f"{payload.spec.method} {payload.spec.base_model or ''}".strip()
        run.progress(place, len(given["candidates"]), "candidates", f"measuring {way}")
        for module in PRELOADS.get(given["preloads"][place], ()):
            importlib.import_module(module)  # as the training's process has them from the start
        folder = RunFolder(run.folder.path / f"candidate-{place}")
        folder.create({"payload": {}, "job": run.job, "workspace": str(run.folders.root)})
        measured = _apart(partial(cost, Run(folder), payload, given["shares"][place]))
        found.append(_shown(payload, measured, given["budget_minutes"]))
    report = {"dataset": payload.dataset, "task": payload.task, "candidates": found}
    return {"report": report | _compared(run, [Payload.model_validate(each) for each in given["candidates"]])}


def _compared(run: Run, payloads: list[Payload]) -> dict[str, Any]:
    probes = {each.spec.base_model or "": each for each in payloads if each.spec.method == "probe"}
    if len(probes) < 2 or find_task(payloads[0].task).family not in FAMILIES:
        return {}
    run.progress(len(payloads), len(payloads), "candidates", "comparing base models")
    return {"shortlist": _apart(partial(compare, run, probes, None, KEEP, payloads[0].spec.seed, most=_COMPARED))}


def _shown(payload: Payload, measured: dict[str, Any], budget_minutes: float | None) -> dict[str, Any]:
    shown = {
        "method": payload.spec.method,
        "base_model": payload.spec.base_model,
        "hyperparameters": payload.parameters.model_dump(mode="json"),
    }
    if "error" in measured:
        return shown | {"why": measured["error"]}
    shown |= {"estimate": measured | {"known_from": ["measured"]}, "asked": asked_by(payload)._asdict()}
    if budget_minutes and measured["seconds"] > 60 * budget_minutes:
        took = f"about {measured['seconds']:.0f} s, and the budget is {60 * budget_minutes:.0f} s"
        shown["why"] = f"{DOES_NOT_FIT}: {took}. Fewer epochs, fewer examples or a cheaper method would."
    elif payload.memory_mb and measured["peak_memory_mb"] > payload.memory_mb:
        needs = f"about {measured['peak_memory_mb']:.0f} MB, and {payload.memory_mb} MB are there"
        shown["why"] = f"{DOES_NOT_FIT}: {needs}. A smaller micro_batch or batch_size, or a cheaper method, would."
    return shown


def _apart(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives in a fork of this process; `error` where it fails or is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            try:
                answer = work()
            except SpeciateError as error:
                answer = {"error": str(error)}
            with os.fdopen(writing, "w") as pipe:
                json.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    if said:
        answered: dict[str, Any] = json.loads(said)
        return answered
    killed = os.WIFSIGNALED(status)
    return {"error": f"{DOES_NOT_FIT}: it was killed, most likely for want of memory." if killed else "It failed."}
