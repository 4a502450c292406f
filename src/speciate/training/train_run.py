"""The worker's side of `train`: read the examples, call the recipe, save the model that it selected, write the report.

Runs take GPUs that no other run of the workspace has: a lock on a file for each says so, held while the run lives."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from speciate.datasets import version_rows
from speciate.datasets.loading.loader import load_examples
from speciate.environment import compute_threads, show_gpus
from speciate.errors import SpeciateError
from speciate.evaluation.endpoints.pricing import usd_for
from speciate.jobs.run import Run, Stopped
from speciate.models import sealed
from speciate.models.model_card import ModelCard
from speciate.tasks import input_ranges
from speciate.tasks.multimodal_representation import names_of
from speciate.training import provenance
from speciate.training.hyperparameters import FullParameters
from speciate.training.networks import train_network
from speciate.training.networks.data_parallel import Follower, Team, gather_team
from speciate.training.networks.kept_head import card_entry
from speciate.training.planning import base_models
from speciate.training.planning.base_models import UnseenExamples, drop_seen
from speciate.training.planning.estimates import OWN_COSTS, request_of
from speciate.training.recipes.recipe_table import METHODS, RECIPES
from speciate.training.resource_usage import CostMeter, resident_mb
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.train_spec import Payload, RepeatedModel
from speciate.training.training_context import BestSoFar, TrainingContext
from speciate.training.training_report import PackedVersion, Repetition, TrainReport
from speciate.vocabulary import find_metric, find_task
from speciate.workspace.workspace import Folders

_NO_RECIPE = {
    "manifest",
    "dearer",
    "repeats",
    "base_folder",
    "base_learned_from",
    "base_learned_validation",
    "teachers",
    "usd_per_core_hour",
}
"""Fields of a payload that a recipe leaves out: they follow from the rest, wherever it is resolved again."""


class TrainedModel(TypedDict):
    """What a run returns; `train.collect` reads it."""

    card: Mapping[str, Any]
    """A `ModelCard`."""
    report: TrainReport
    beside: PackedVersion | None
    """A dataset version that was made for the training."""


def run(run: Run) -> TrainedModel:
    """Writes `outputs/model/`; returns card and report. Raises SpeciateError for data that cannot be learned."""
    meter = CostMeter(run)
    try:
        with base_models.copy_caller_folders(run, run.read_payload(Payload)) as payload:
            return _run_with_processes(run, payload, meter)
    except BaseException:
        meter.keep()  # stopped, or out of memory: another attempt resumes
        raise


def _run_with_processes(run: Run, payload: Payload, meter: CostMeter) -> TrainedModel:
    if payload.device == "cuda" and payload.spec.resources.place is None:  # a cluster gives a run its own
        take_gpus(run.folders.cache / GPU_LOCKS, payload.processes)
    nodes = payload.nodes if payload.spec.resources.place else 1  # here all are on this machine
    with gather_team(
        run, payload.processes, payload.device, payload.threads, partial(_follow_leader, run, payload), nodes
    ) as team:
        return _train(run, payload, meter, team)


def _follow_leader(run: Run, payload: Payload, team: Follower) -> None:
    """What each other process of the team does."""
    context, parameters = (
        TrainingContext(run, payload, _read_examples(run, payload).examples, CostMeter(), team),
        payload.parameters,
    )
    assert isinstance(parameters, FullParameters), "others learn in one process"
    with _limited_threads(payload):
        train_network.follow_leader(context, parameters, METHODS[payload.spec.method or ""](parameters), team)


_MOST_LEARNED, _MOST_VALIDATED = 300_000, 50_000
"""Examples that `classical` and `probe` hold in memory: of more, a sample says as much in a fraction of the time."""
_SAMPLED_METHODS = ("classical", "probe")


def _read_examples(run: Run, payload: Payload) -> UnseenExamples:
    ids = _sampled_ids(run.folders, payload)
    examples = load_examples(run.folders, payload.manifest, ("train", "validation"), ids)
    return drop_seen(run.folders, payload, examples)


def _sampled_ids(folders: Folders, payload: Payload) -> list[str] | None:
    """Ids of the examples that are read; None: all of them. The same for the same seed."""
    splits = payload.manifest.splits
    most = {"train": _MOST_LEARNED, "validation": _MOST_VALIDATED}
    if payload.spec.method not in _SAMPLED_METHODS or all(splits.get(name, 0) <= most[name] for name in most):
        return None
    chance, kept = np.random.default_rng(payload.spec.seed), list[str]()
    for name, enough in most.items():
        there = version_rows.read(folders, payload.manifest, ["id"], splits=(name,), usable=True)["id"].to_pylist()
        places = chance.permutation(len(there))[:enough] if len(there) > enough else range(len(there))
        kept += [there[place] for place in sorted(places)]
    return kept


@contextlib.contextmanager
def _limited_threads(payload: Payload) -> Iterator[None]:
    with compute_threads(payload.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of solvers that stop early: what counts is measured on held-out examples
        yield


def _train(run: Run, payload: Payload, meter: CostMeter, team: Team) -> TrainedModel:
    run.progress(0, None, "", "reading examples")
    with meter.stage("preparing"):
        remaining = _read_examples(run, payload)
    meter.loaded_mb = resident_mb()
    context = TrainingContext(run, payload, remaining.examples, meter, team)
    context.notes += remaining.notes(payload)
    there = payload.manifest.splits.get("train", 0)
    if payload.spec.method in _SAMPLED_METHODS and there > _MOST_LEARNED:
        context.notes.append(
            f"{len(context.train):,} of {there:,} training examples were learned from: a random sample."
        )
    if run.limit_seconds is not None:
        keep = partial(_keep_so_far, context, remaining, _kept_before(context))
        context.best_so_far = BestSoFar(keep, run.clock)
    with _limited_threads(payload):
        try:
            chosen = RECIPES[payload.spec.method or ""](context, payload.parameters)
            return _saved(context, chosen, remaining, run.outputs)
        except Stopped:
            if context.best_so_far is not None:
                context.best_so_far.keep_waiting()
            raise


_UNFINISHED = "Its limit passed before the training had ended: this is the best model until then."


def _kept_before(context: TrainingContext) -> float:
    """What the best model is worth that attempts before this one kept, the higher the better."""
    for attempt in context.run.resume_from:
        with contextlib.suppress(SpeciateError):  # damaged
            if (best := attempt.best_so_far()) is not None and (result := best.result()) is not None:
                value = result["report"]["validation"]["value"]
                return -math.inf if value is None else find_metric(context.payload.objective.metric).sign * float(value)
    return -math.inf


def _keep_so_far(context: TrainingContext, remaining: UnseenExamples, before: float, chosen: SelectedModel) -> None:
    """Nothing that is worse than `before`: where the limit passes, what the newest attempt kept counts."""
    if find_metric(context.payload.objective.metric).sign * chosen.best.value < before:
        return

    def write(folder: Path) -> TrainedModel:
        made = _saved(context, chosen, remaining, folder)
        made["report"]["notes"] = [*made["report"]["notes"], _UNFINISHED]
        made["beside"] = None
        return made

    context.run.keep_best(write)


def _saved(context: TrainingContext, chosen: SelectedModel, remaining: UnseenExamples, outputs: Path) -> TrainedModel:
    """Writes the model below `outputs`."""
    payload, meter = context.payload, context.meter
    identity = chosen.predictor.save(outputs / "model")
    if payload.manifest.modality == "tabular":
        input_ranges.save(_ranges(context), outputs / "model")
        identity = sealed.seal(outputs / "model")
    seconds = meter.spent.seconds
    size = sum(entry.stat().st_size for entry in os.scandir(outputs / "model"))
    usd = payload.processes * usd_for(meter.spent.cpu, payload.usd_per_core_hour)
    card = _card(context, chosen, identity, seconds, size).model_copy(update={"usd": usd})
    report = _report(payload, context, chosen, seconds)
    report["left_out"], report["usd"] = remaining.left_out, usd
    if payload.repeats is not None:
        report["repetition"] = _repetition(payload.repeats, card)
    return {"card": card.model_dump(mode="json"), "report": report, "beside": context.beside}


@lru_cache(maxsize=1)
def _ranges(context: TrainingContext) -> input_ranges.InputRanges:
    """What the columns held that the model learned from, and those that its base model did.

    Counted once, though the best so far is kept many times: a million cells take a third of a second.
    """
    payload = context.payload
    rows = [example.media for example in (*context.train, *context.validation)]
    seen = input_ranges.ranges_of(rows, payload.manifest.inputs)
    return input_ranges.joined(seen, input_ranges.load(Path(payload.base_folder))) if payload.base_folder else seen


def _card(context: TrainingContext, chosen: SelectedModel, identity: str, seconds: float, size: int) -> ModelCard:
    payload, spec = context.payload, context.payload.spec
    return ModelCard(
        name=spec.name,
        id=identity,
        task=payload.task,
        modality=find_task(payload.task).reads or payload.manifest.modality,
        method=spec.method or "",
        base_model=spec.base_model,
        dataset=payload.dataset,
        teachers=tuple(teacher.model for teacher in payload.teachers),
        use_case=spec.use_case,
        inputs=() if find_task(payload.task).reads else payload.manifest.inputs,
        **_parts_read(context, chosen),
        labels=chosen.predictor.labels,
        parameters=chosen.predictor.parameters,
        bytes=size,
        seconds=seconds,
        metrics=_metric_if_finite(f"{chosen.how} {payload.objective.metric}", chosen.best.value),
        recipe=payload.model_dump(mode="json", exclude=_NO_RECIPE)
        | {"environment": provenance.record(payload.threads), **card_entry(context.report)}
        | ({"members": list(chosen.members)} if chosen.members else {})
        | ({"learned_validation": True} if context.learned_validation else {}),
        license=payload.license,
    )


def _parts_read(context: TrainingContext, chosen: SelectedModel) -> dict[str, tuple[str, ...]]:
    """For mixed rows, the parts that the model reads, and those that its dataset has beside them. Else empty."""
    read = tuple(getattr(getattr(chosen.predictor, "representation", chosen.predictor), "names", ()))
    if not read or context.payload.manifest.modality != "multimodal":
        return {}
    there = map(str, names_of([*context.train, *context.validation]))
    return {"parts": read, "ignored_parts": tuple(name for name in there if name not in read)}


def _repetition(before: RepeatedModel, card: ModelCard) -> Repetition:
    """What came out otherwise than the first time, and what may be why."""
    return {
        "like": before.model,
        "same_model": card.id == before.id,
        "same_dataset": card.dataset == before.dataset,
        "metrics": provenance.differences(before.metrics, card.metrics),
        "environment": provenance.differences(before.environment, card.recipe["environment"]),
    }


def _metric_if_finite(name: str, value: float) -> dict[str, float]:
    """Nothing where the held-out examples leave the metric undefined, such as recall without a positive one."""
    return {name: value} if math.isfinite(value) else {}


def _report(payload: Payload, context: TrainingContext, chosen: SelectedModel, seconds: float) -> TrainReport:
    report = {
        "dataset": payload.dataset,
        "task": payload.task,
        "modality": payload.manifest.modality,
        "method": payload.spec.method,
        "base_model": payload.spec.base_model,
        "metric": payload.objective.metric,
        "target": payload.objective.target,
        "validation": chosen.validation(),
        "candidates": [candidate.shown() for candidate in chosen.tried],
        **({"members": list(chosen.members)} if chosen.members else {}),
        "examples": len({example.id for example in context.train}) + len(context.validation),
        "labels": list(chosen.predictor.labels),
        "seconds": round(seconds, 3),
        "cost": _cost(payload, context, chosen),
        "dearer": payload.model_dump(include={"dearer"})["dearer"],
        "notes": list(context.notes),
        **{name: list(parts) for name, parts in _parts_read(context, chosen).items()},
        **context.report,
    }
    return cast(TrainReport, report)


def _cost(payload: Payload, context: TrainingContext, chosen: SelectedModel) -> Mapping[str, object]:
    """What planning/estimates.py scales, and by what."""
    return {
        "family": context.task_head.family,
        "length": payload.length,
        "visits": request_of(payload).visits,
        "parameters": chosen.predictor.parameters,
        "threads": payload.threads,
        "device": payload.device,
        "processes": payload.processes,
        **{name: True for name in OWN_COSTS if getattr(payload.parameters, name, False)},
        **context.meter.report(),
    }


GPU_LOCKS = "gpus"
"""Folder of the locks, below a workspace's cache."""


def take_gpus(folder: Path, wanted: int) -> list[int]:
    """The numbers, from 0 on, of `wanted` GPUs that no other run of the workspace has. From here on torch sees these
    alone.

    To be called before torch looks for GPUs. A lock on a file for each is held as long as the run or a fork of it
    lives. The scheduler has seen to it that there are enough.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[int] = []
    for number in count():
        if len(taken) == wanted:
            break
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # kept open: the kernel frees it with the last process
            taken.append(number)
        except BlockingIOError:
            os.close(lock)
    show_gpus(taken)
    return taken
