"""Kind `train`: one method on one dataset version makes the next version of a model.

The plan refuses all that can be refused without reading media: names, splits, labels, method and base model. What a
method does is in its recipe (`classical.py`, `probe.py`); `fitting.py` is the worker's side that calls it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from speciate import usecases
from speciate.datasets import registration, versions
from speciate.datasets.lengths import mean_length
from speciate.datasets.versions import Manifest
from speciate.environment import cores
from speciate.errors import Code, SpeciateError, closest
from speciate.evaluation.prices import usd_for, usd_per_core_hour
from speciate.ids import check_name
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.models import registry, sealed
from speciate.models.card import Card
from speciate.refs import dataset_ref
from speciate.tasks import preference
from speciate.tasks.anomaly import ANOMALY
from speciate.tasks.contract import Terms
from speciate.tasks.truth import WITHOUT_TARGET, is_label, usual_target
from speciate.training import further
from speciate.training.bases import Base
from speciate.training.checks import check as check_labels
from speciate.training.estimate import asked_by, estimate, known
from speciate.training.held_out import nothing_to_judge_by
from speciate.training.hyperparameters import Parameters
from speciate.training.language.columns import check as check_columns
from speciate.training.language.distillation.specs import WRITTEN
from speciate.training.language.reinforcement.asking import check as check_questions
from speciate.training.language.reinforcement.binding import bound
from speciate.training.language.specs import LANGUAGE_PARAMETERS
from speciate.training.language.vision.specs import SEEING
from speciate.training.options import options
from speciate.training.repetition import filled
from speciate.training.specs import (
    PARAMETERS,
    Objective,
    Payload,
    TrainSpec,
    parameters_of,
)
from speciate.training.written import bytes_written
from speciate.usecases import COLUMN, UseCase
from speciate.vocabulary import TASKS, Task, find_metric, find_task
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Folders, Workspace

_MORE = 1.2
"""Times the memory that like runs needed is kept free for one."""
_MEMORY_MB, _OF_A_NETWORK_MB = {"classical": 1000, "probe": 1500, "slda": 1500}, 3000
_PRELOAD = {"classical": "classical", **dict.fromkeys(LANGUAGE_PARAMETERS, "language")}
_ON_GPU = (*LANGUAGE_PARAMETERS, "lora", "full", "replay", "der", "lwf", "ewc", "distill")
"""Where settings.toml says `capacity.gpu`."""
_VOLUMES = ("dicom", "nifti")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_FRACTIONS = ("FLOAT", "DOUBLE", "REAL")
"""Types of columns."""


def plan(spec: TrainSpec, workspace: Workspace) -> Plan:
    """Raises NOT_FOUND, INVALID, CONFLICT or MISSING_EXTRA for what would make the training fail or mean nothing."""
    database = workspace.database
    spec, repeated = filled(spec, workspace)
    method = spec.method
    assert method is not None, "filled() sees to it"
    check_name("model", spec.name)
    registry.check_free(database, spec.name)
    use_case = usecases.get(database, spec.use_case) if spec.use_case else None
    manifest = versions.resolve(database, spec.dataset)
    dataset = manifest.ref
    _check_whole(spec.dataset, manifest)
    task = _task(spec, use_case, manifest, workspace)
    target = _target(spec, use_case, manifest, task)
    _check_splits(manifest, dataset)
    manifest = manifest.model_copy(update={"inputs": _inputs(manifest, target, use_case)})
    option, base = further.option(spec, manifest, task, workspace)
    if base:
        _check_base(base, manifest)
    spec, teachers = further.check(spec, manifest, task, base, workspace)
    threads, parameters = _threads(workspace, spec.resources.cpu), _parameters(spec, task)
    check_columns(manifest, parameters, method, target)
    parameters = bound(parameters, spec.hyperparameters, workspace)
    check_questions(manifest, parameters, target)
    terms = _terms(parameters, use_case, task)
    gpus, price = _gpus(spec, task, workspace), usd_per_core_hour(workspace.settings)
    spec = _within(spec, threads * max(1, gpus), price)
    check_labels(manifest, target, task, terms)
    can = options(manifest.modality, task.family)
    payload = Payload(
        spec=spec.model_copy(update={"base_model": option.base_model}),
        manifest=manifest,
        dataset=dataset,
        task=task.name,
        target=target,
        objective=_objective(use_case, task, terms),
        terms=terms,
        parameters=parameters,
        license=base.license if base else None,
        base_folder=str(base.folder) if base and base.folder else None,
        base_learned_from=base.learned_from if base else (),
        teachers=teachers,
        repeats=repeated,
        dearer=tuple(can[can.index(option) + 1 :]) if option in can else (),
        threads=threads,
        processes=max(1, gpus),
        device="cuda" if gpus else "cpu",
        memory_mb=spec.resources.memory_mb or workspace.settings.capacity.memory_mb or None,
        usd_per_core_hour=price,
        length=mean_length(workspace.folders, manifest),
    )
    cost = estimate(known(database), asked_by(payload))
    room = math.ceil(_MORE * cost.peak_memory_mb) if cost else _MEMORY_MB.get(method, _OF_A_NETWORK_MB)
    return Plan(
        payload=payload.model_dump(mode="json"),
        resources=Resources(
            cpu=(spec.resources.cpu or float(threads)) * payload.processes,
            memory_mb=spec.resources.memory_mb or room * payload.processes,
            gpu=gpus,
        ),
        seconds=cost.seconds if cost else None,
        bytes=bytes_written(method, getattr(parameters, "changes", None), payload.base_folder),
        usd=usd_for(cost.cpu_seconds, price) if cost else None,
        peak_memory_mb=math.ceil(cost.peak_memory_mb) if cost else None,
        p95_latency_ms=cost.p95_latency_ms if cost else None,
        known_from=cost.known_from if cost else (),
        use_case=spec.use_case,
        resolved={
            "dataset": dataset,
            "task": task.name,
            "target": target,
            "base_model": option.base_model,
            "metric": payload.objective.metric,
        },
        preload="language" if task.name in WRITTEN else _PRELOAD.get(method, "torch"),
    )


class Trained(NamedTuple):
    """What a run left, read and checked."""

    card: Card
    report: dict[str, Any]
    folder: Path
    workspace: Path
    beside: registration.Made | None = None
    """A dataset version that was made for it."""


def collect(folder: RunFolder) -> Trained:
    result = folder.result() or {}
    card = Card.model_validate(result["card"])
    staged = folder.outputs / "model"
    if sealed.check(staged) != card.id:
        raise SpeciateError(
            Code.INTERNAL, f"{staged} is not the model that the run reported.", "Call control_job with action='retry'."
        )
    beside = registration.read(result["beside"]) if result.get("beside") else None
    return Trained(card, result["report"], staged, Path(folder.spec()["workspace"]), beside)


def commit(tx: Transaction, job: Job, trained: Trained) -> dict[str, Any]:
    card = trained.card.model_copy(update={"job": job.id})
    if trained.beside is not None:
        made = registration.commit(tx, job, trained.beside)["dataset"]
        card, trained.report["replay"]["dataset"] = card.model_copy(update={"beside": (made,)}), made
    card = registry.register(tx, Folders(trained.workspace), card, trained.folder)
    return {"model": card.ref, "report": trained.report}


def _task(spec: TrainSpec, use_case: UseCase | None, manifest: Manifest, workspace: Workspace) -> Task:
    if use_case and spec.task and spec.task != use_case.task:
        raise SpeciateError(
            Code.INVALID,
            f"task is {spec.task!r}, but the use case {use_case.name!r} is {use_case.task!r}.",
            "Leave task out.",
        )
    writes = "text-generation" if spec.method in LANGUAGE_PARAMETERS or further.writers_teach(spec, workspace) else None
    writes = SEEING if writes and manifest.modality in TASKS[SEEING].modalities else writes
    writes = preference.TASK if spec.method == preference.METHOD else writes
    name = use_case.task if use_case else spec.task or writes or _usual_task(spec, manifest)
    task = find_task(name)
    if not task.suits(manifest.modality):
        raise SpeciateError(
            Code.INVALID,
            f"The task {name!r} is about {' or '.join(task.modalities)}, but {manifest.ref} holds {manifest.modality}.",
            f"Use another dataset, or a task of {manifest.modality}: list_options(kind='task').",
        )
    return task


def _usual_task(spec: TrainSpec, manifest: Manifest) -> str:
    """What the values of the target look like. INVALID where they could be several things."""
    prefix, label = _prefix(manifest.modality), is_label(manifest, spec.target)
    if label and manifest.label is None:
        tasks = [
            name
            for name, task in TASKS.items()
            if task.family in (*WITHOUT_TARGET, "generation") and task.suits(manifest.modality)
        ]
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no label to learn.",
            f"Call create_dataset again with label, name a column with target, or a task that needs none: "
            f"{' or '.join(tasks)}.",
        )
    kind = "" if label else manifest.columns.get(spec.target or "", "")
    if kind.endswith("[]") or (label and manifest.labels and all(name.startswith("[") for name in manifest.labels)):
        raise SpeciateError(
            Code.INVALID,
            f"{spec.target or manifest.label!r} of {manifest.ref} holds lists: several labels, or tags one by one.",
            f"Name the task: '{prefix}-multi-label-classification' or 'token-classification'.",
        )
    if kind in _WHOLE:
        raise SpeciateError(
            Code.INVALID,
            f"{spec.target!r} of {manifest.ref} holds whole numbers: classes, ranks or amounts.",
            f"Name the task: '{prefix}-classification', '{prefix}-ordinal-classification' or '{prefix}-regression'.",
        )
    numeric = manifest.numeric if label else kind in _FRACTIONS or kind.startswith("DECIMAL")
    return f"{prefix}-{'regression' if numeric else 'classification'}"


def _check_whole(asked: str, manifest: Manifest) -> None:
    if split := dataset_ref(asked).split:
        raise SpeciateError(
            Code.INVALID,
            f"A training learns from the split 'train' and is chosen on 'validation', so it takes no split: {asked!r} "
            f"names {split!r}.",
            f"Call again with dataset={manifest.ref!r}.",
        )


def _prefix(modality: str) -> str:
    return "volume" if modality in _VOLUMES else modality


def _target(spec: TrainSpec, use_case: UseCase | None, manifest: Manifest, task: Task) -> str | None:
    target = spec.target or (use_case.target_column if use_case else None) or usual_target(manifest, task.name)
    if target is None and task.family in (*WITHOUT_TARGET, "generation"):
        return None  # of texts, conversations that end in the answer
    if target is None:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no label to learn.",
            "Call create_dataset again with label, or name a column with target.",
        )
    if target not in (manifest.label, "label") and target not in manifest.columns:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no column {target!r}; {closest(target, manifest.columns)}",
            f"Call describe_dataset(dataset='{manifest.ref}').",
        )
    return target


def _inputs(manifest: Manifest, target: str | None, use_case: UseCase | None) -> tuple[str, ...]:
    """What the model may see: never what it is to find, nor the answers of the system in use."""
    answers = {target or "", manifest.label, (use_case.incumbent or "").removeprefix(COLUMN) if use_case else ""}
    inputs = tuple(name for name in manifest.inputs if name not in answers)
    if manifest.inputs and not inputs:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no input beside {', '.join(manifest.inputs)}, which is an answer and not an input.",
            "Call create_dataset again with inputs.",
        )
    return inputs


def _check_splits(manifest: Manifest, dataset: str) -> None:
    if not manifest.splits.get("train"):
        raise SpeciateError(
            Code.INVALID,
            f"{dataset} has no split 'train'; it has {manifest.splits}.",
            f"Call curate_dataset(dataset={dataset!r}, steps=[{{'op': 'split'}}]): it gets a leak-free one of "
            "train, validation and test.",
        )


def _check_base(base: Base, manifest: Manifest) -> None:
    """A network of ours finds the columns that it reads, and examples that tell how good it has become."""
    lacking = [name for name in base.inputs if name not in manifest.inputs] if manifest.modality == "tabular" else []
    if lacking:
        raise SpeciateError(
            Code.INVALID,
            f"{base.ref} reads the columns {', '.join(base.inputs)}; of these {manifest.ref} has no input "
            f"{', '.join(lacking)}.",
            "Call train_model with another base_model and without continue_from; plan_training says what suits.",
        )
    if not manifest.splits.get("validation") and manifest.id in {each.id for each in base.learned_from or ()}:
        raise nothing_to_judge_by(base.ref, manifest.ref, validation=False)


def _objective(use_case: UseCase | None, task: Task, terms: Terms) -> Objective:
    positive = terms.positive_label if task.family == "anomaly" else use_case.positive_label if use_case else None
    if use_case is None:
        return Objective(metric=task.default_metric, positive_label=positive)
    wanted = use_case.objective
    if (other := find_metric(wanted.metric).chosen_by) is not None:
        return Objective(metric=other, positive_label=positive)
    return Objective(metric=wanted.metric, target=wanted.target, positive_label=positive)


def _terms(parameters: Parameters, use_case: UseCase | None, task: Task) -> Terms:
    positive = parameters.positive_label or (use_case.positive_label if use_case else None)
    if task.family == "anomaly":
        positive = positive or ANOMALY
    return Terms(positive, parameters.horizon, parameters.order)


def _parameters(spec: TrainSpec, task: Task) -> Parameters:
    form = parameters_of(spec.method or "", task.name)
    try:
        return form.model_validate(spec.hyperparameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = f"hyperparameters.{place} is {first['input']!r}: {first['msg']}."
        if not place:  # of several together
            said = f"hyperparameters: {first['msg'].removeprefix('Value error, ')}."
        elif place not in form.model_fields and first["type"] == "extra_forbidden":
            others = [method for method, other in PARAMETERS.items() if place in other.model_fields]
            where = f"; {' and '.join(map(repr, others))} have it" if others else ""
            said = f"{spec.method!r} has no hyperparameter {place!r}{where}; {closest(place, form.model_fields)}"
        raise SpeciateError(
            Code.INVALID,
            said,
            f"Call again without it or with another; list_options(kind='method', name={spec.method!r}) explains each.",
        ) from error


def _within(spec: TrainSpec, cores: int, price: float) -> TrainSpec:
    """What may be spent, as time: all cores that it computes on are paid for as long as it runs."""
    if spec.budget_usd is None or not price:
        return spec
    minutes = 60 * spec.budget_usd / (cores * price)
    return spec.model_copy(update={"budget_minutes": min(minutes, spec.budget_minutes or minutes)})


def _gpus(spec: TrainSpec, task: Task, workspace: Workspace) -> int:
    if spec.method not in _ON_GPU:
        if spec.resources.gpu:
            raise SpeciateError(
                Code.INVALID,
                f"resources.gpu is {spec.resources.gpu}, and {spec.method!r} computes on processors alone.",
                f"Leave it out, or choose a method that trains a network: {' or '.join(map(repr, _ON_GPU))}.",
            )
        return 0
    if (spec.method in LANGUAGE_PARAMETERS or task.name in WRITTEN) and (spec.resources.gpu or 0) > 1:
        raise SpeciateError(
            Code.INVALID,
            f"resources.gpu is {spec.resources.gpu}, and {spec.method!r} trains on one.",
            "Leave it out, or set it to 1.",
        )
    return min(1, workspace.settings.capacity.gpu) if spec.resources.gpu is None else spec.resources.gpu


def _threads(workspace: Workspace, wanted: float | None) -> int:
    """Two where there are two: more gain little at these sizes and would keep other jobs waiting."""
    return max(1, int(wanted or min(2, workspace.settings.capacity.cpu or cores())))


KIND = Kind(
    name="train",
    spec=TrainSpec,
    plan=plan,
    run="speciate.training.fitting:run",
    collect=collect,
    commit=commit,
    limits=Limits(silence_seconds=1800),
)
