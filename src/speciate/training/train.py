"""Kind `train`: one method on one dataset version makes the next version of a model.

The plan refuses all that can be refused without reading media: names, splits, labels, method and base model. What a
method does is in its recipe (`classical.py`, `probe.py`); `fitting.py` is the worker's side that calls it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from speciate import usecases
from speciate.datasets import versions
from speciate.datasets.versions import Manifest
from speciate.environment import cores
from speciate.errors import Code, SpeciateError, closest
from speciate.ids import check_name
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.models import registry, sealed
from speciate.models.card import Card
from speciate.training.estimate import estimate, recorded
from speciate.training.options import check as check_option
from speciate.training.options import options
from speciate.training.specs import (
    PARAMETERS,
    ClassicalParameters,
    Objective,
    Option,
    Payload,
    ProbeParameters,
    TrainSpec,
)
from speciate.usecases import COLUMN, UseCase
from speciate.vocabulary import Task, find_task
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Folders, Workspace

_MEMORY_MB = {"classical": 1000, "probe": 1500}
_PRELOAD = {"classical": "classical", "probe": "torch"}
_LEAST_OF_LABEL = 2
_VOLUMES = ("dicom", "nifti")


def plan(spec: TrainSpec, workspace: Workspace) -> Plan:
    """Raises NOT_FOUND, INVALID, CONFLICT or MISSING_EXTRA for what would make the training fail or mean nothing."""
    database = workspace.database
    check_name("model", spec.name)
    registry.check_free(database, spec.name)
    use_case = usecases.get(database, spec.use_case) if spec.use_case else None
    manifest = versions.resolve(database, spec.dataset)
    dataset = manifest.ref
    task = _task(spec, use_case, manifest)
    target = _target(spec, use_case, manifest)
    _check_splits(manifest, dataset)
    if target in (manifest.label, "label"):
        _check_labels(manifest, dataset, task)
    manifest = manifest.model_copy(update={"inputs": _inputs(manifest, target, use_case)})
    option = check_option(Option(method=spec.method, base_model=spec.base_model), manifest.modality)
    threads = _threads(workspace)
    can = options(manifest.modality)
    payload = Payload(
        spec=spec.model_copy(update={"base_model": option.base_model}),
        manifest=manifest,
        dataset=dataset,
        task=task.name,
        target=target,
        objective=_objective(use_case, task),
        parameters=_parameters(spec),
        license=registry.resolve(database, workspace.folders, option.base_model).card.license
        if option.base_model
        else None,
        dearer=tuple(can[can.index(option) + 1 :]),
        threads=threads,
    )
    known = estimate(recorded(database), option, manifest.modality, example_count(manifest))
    return Plan(
        payload=payload.model_dump(mode="json"),
        resources=Resources(cpu=float(threads), memory_mb=_MEMORY_MB[spec.method]),
        seconds=known.seconds if known else None,
        use_case=spec.use_case,
        resolved={
            "dataset": dataset,
            "task": task.name,
            "target": target,
            "base_model": option.base_model,
            "metric": payload.objective.metric,
        },
        preload=_PRELOAD[spec.method],
    )


class Trained(NamedTuple):
    """What a run left, read and checked."""

    card: Card
    report: dict[str, Any]
    folder: Path
    workspace: Path


def collect(folder: RunFolder) -> Trained:
    result = folder.result() or {}
    card = Card.model_validate(result["card"])
    staged = folder.outputs / "model"
    if sealed.check(staged) != card.id:
        raise SpeciateError(
            Code.INTERNAL, f"{staged} is not the model that the run reported.", "Call control_job with action='retry'."
        )
    return Trained(card, result["report"], staged, Path(folder.spec()["workspace"]))


def commit(tx: Transaction, job: Job, trained: Trained) -> dict[str, Any]:
    card = trained.card.model_copy(update={"job": job.id})
    card = registry.register(tx, Folders(trained.workspace), card, trained.folder)
    return {"model": card.ref, "report": trained.report}


def _task(spec: TrainSpec, use_case: UseCase | None, manifest: Manifest) -> Task:
    family = "regression" if manifest.numeric else "classification"
    if use_case and spec.task and spec.task != use_case.task:
        raise SpeciateError(
            Code.INVALID,
            f"task is {spec.task!r}, but the use case {use_case.name!r} is {use_case.task!r}.",
            "Leave task out.",
        )
    name = use_case.task if use_case else spec.task or f"{_prefix(manifest.modality)}-{family}"
    task = find_task(name)
    if task.modality != _prefix(manifest.modality):
        raise SpeciateError(
            Code.INVALID,
            f"The task {name!r} is about {task.modality}, but {manifest.ref} holds {manifest.modality}.",
            f"Use a dataset of {task.modality}, or a task of {manifest.modality}.",
        )
    return task


def _prefix(modality: str) -> str:
    return "volume" if modality in _VOLUMES else modality


def _target(spec: TrainSpec, use_case: UseCase | None, manifest: Manifest) -> str:
    target = spec.target or (use_case.target_column if use_case else None) or manifest.label
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


def _inputs(manifest: Manifest, target: str, use_case: UseCase | None) -> tuple[str, ...]:
    """What the model may see: never what it is to find, nor the answers of the system in use."""
    answers = {target, manifest.label, (use_case.incumbent or "").removeprefix(COLUMN) if use_case else ""}
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
            "Create the dataset again without a split column: it gets a leak-free train/validation/test split.",
        )


def _check_labels(manifest: Manifest, dataset: str, task: Task) -> None:
    if task.family == "classification" and len(manifest.labels) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"{dataset} has {len(manifest.labels)} label value(s) ({', '.join(manifest.labels) or 'numbers'}); "
            "a classifier needs at least two.",
            f"Call describe_dataset(dataset={dataset!r}); create_dataset takes another label column.",
        )
    if task.family == "classification":
        _check_members(manifest, dataset)
    if task.family == "regression" and (words := [label for label in manifest.labels if not _is_number(label)]):
        raise SpeciateError(
            Code.INVALID,
            f"{dataset} has labels that are no numbers, such as {words[0]!r}; {task.name} needs numbers.",
            f"Use the task '{task.modality}-classification', or another label column.",
        )


def _check_members(manifest: Manifest, dataset: str) -> None:
    """Two labels must be on both sides of a division. Counts are of all splits, so the run may find too few yet."""
    if manifest.splits.get("validation"):
        return
    common = [label for label, count in manifest.labels.items() if count >= _LEAST_OF_LABEL]
    if len(common) < 2 or manifest.splits["train"] < 2 * _LEAST_OF_LABEL:
        raise SpeciateError(
            Code.INVALID,
            f"{dataset} has no validation split, so its split 'train' needs at least {_LEAST_OF_LABEL} examples of "
            f"each label, to learn from one and be judged on another; it has {manifest.splits['train']}, and all "
            f"splits together have by label {dict(list(manifest.labels.items())[:5])}.",
            "Add examples with add_examples, or bring a validation split.",
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _objective(use_case: UseCase | None, task: Task) -> Objective:
    if use_case is None:
        return Objective(metric=task.default_metric)
    wanted = use_case.objective
    return Objective(metric=wanted.metric, target=wanted.target, positive_label=use_case.positive_label)


def _parameters(spec: TrainSpec) -> ClassicalParameters | ProbeParameters:
    form = PARAMETERS[spec.method]
    try:
        return form.model_validate(spec.hyperparameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        known = json.dumps({name: field.description for name, field in form.model_fields.items()})
        raise SpeciateError(
            Code.INVALID,
            f"hyperparameters.{place} is {first['input']!r}: {first['msg']}.",
            f"Hyperparameters of {spec.method!r}: {known}",
        ) from error


def _threads(workspace: Workspace) -> int:
    """Two where there are two: more gain little at these sizes and would keep other jobs waiting."""
    return max(1, min(2, int(workspace.settings.capacity.cpu or cores())))


def example_count(manifest: Manifest) -> int:
    """Examples that a training reads."""
    return manifest.splits.get("train", 0) + manifest.splits.get("validation", 0)


KIND = Kind(
    name="train",
    spec=TrainSpec,
    plan=plan,
    run="speciate.training.fitting:run",
    collect=collect,
    commit=commit,
    limits=Limits(silence_seconds=1800),
)
