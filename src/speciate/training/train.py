"""Kind `train`: one method on one dataset version makes the next version of a model.

The plan refuses all that can be refused without reading media: names, splits, labels, method and base model; `like` and
`continue_from` are resolved here. recipes/ has what a method does; train_run.py is the worker's side that calls it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from speciate import use_cases
from speciate.datasets import next_version, versions
from speciate.datasets.leaks import leaks_of_report
from speciate.datasets.targets import holds_boxes
from speciate.datasets.version_rows import mean_length
from speciate.datasets.versions import Manifest
from speciate.environment import cores
from speciate.errors import Call, CallAgain, Code, SpeciateError, closest
from speciate.evaluation.endpoints.pricing import usd_for, usd_per_core_hour
from speciate.jobs.egress import NotAllowed
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.schedule import never_fits
from speciate.models import model_folder, registry, sealed
from speciate.models.model_card import ModelCard, needs_whole_transformers
from speciate.models.published.manifest import has_trained_head
from speciate.refs import check_name, dataset_ref
from speciate.sample_size import LEVEL
from speciate.settings import Capacity
from speciate.tasks.example_targets import TARGET_OPTIONAL, is_label, task_prefix, usual_target, usual_task
from speciate.tasks.families import preference
from speciate.tasks.families.anomaly import ANOMALY
from speciate.tasks.task import TaskTerms
from speciate.training.hyperparameters import ClassicalParameters, Parameters
from speciate.training.language_hyperparameters import LANGUAGE_PARAMETERS, TEXT_TASKS, VISION_TASK
from speciate.training.old_option_names import with_new_names
from speciate.training.planning import prior_model_checks
from speciate.training.planning.available_methods import (
    available_candidates,
    check_learners,
    check_table_options,
    is_installed,
)
from speciate.training.planning.base_models import Base, no_unseen_examples
from speciate.training.planning.estimates import SHIPPED, bytes_written, estimate, known_costs, request_of
from speciate.training.planning.label_checks import check_labels
from speciate.training.planning.language_checks import bind_reward_parameters
from speciate.training.planning.language_checks import check_pair_columns as check_columns
from speciate.training.planning.language_checks import check_reward_data as check_questions
from speciate.training.planning.part_encoders import check_parts, find_encoders, that_read_a_part
from speciate.training.planning.placing import check_leaving, find_place, run_inputs
from speciate.training.planning.published_head import choose_head
from speciate.training.planning.target_checks import check_targets
from speciate.training.train_spec import (
    STREAMING,
    Objective,
    PartEncoder,
    Payload,
    RepeatedModel,
    RequestedResources,
    TrainSpec,
    parameters_of,
    read_parameters,
)
from speciate.training.training_report import TrainReport
from speciate.use_cases import COLUMN, UseCase
from speciate.vocabulary import TASKS, Task, find_metric, find_task, task_named
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Folders, Workspace

_MORE = 1.2
"""Times the memory that like runs needed is kept free for one."""
_MEMORY_MB, _OF_A_NETWORK_MB = {"classical": 1000, "probe": 1500, "slda": 1500}, 3000
_PRELOAD = {"classical": "classical", **dict.fromkeys(LANGUAGE_PARAMETERS, "language")}
_ON_GPU = (*LANGUAGE_PARAMETERS, "lora", "full", "replay", "der", "lwf", "ewc", "distill")
"""Methods that train on a GPU where settings.toml says `capacity.gpu`."""
_MEASURED_FIRST = (*LANGUAGE_PARAMETERS, "lora", "full", "replay", "der", "lwf", "ewc", "distill")
"""Methods whose first steps tell whether they fit."""
_IN_TEAMS = ("lora", "full")
"""Methods that several nodes learn together."""
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_FRACTIONS = ("FLOAT", "DOUBLE", "REAL")
"""Types of columns."""


def plan(spec: TrainSpec, workspace: Workspace) -> Plan[Payload]:
    """Raises NOT_FOUND, INVALID, CONFLICT or MISSING_EXTRA for what would make the training fail or mean nothing.

    A training that names no place goes to the first that takes trainings, if it may go there and fits. Where a person
    did not allow its data for that place, it runs here, and its plan says so.
    """
    why_here = ""
    taking = workspace.settings.place_taking(KIND.name) if spec.resources.is_open else None
    if taking is not None:
        there = spec.model_copy(update={"resources": spec.resources.model_copy(update={"place": taking})})
        try:
            found = _plan(there, workspace)
        except SpeciateError as error:
            if error.code is not Code.REFUSED:
                raise
            if isinstance(error, NotAllowed):
                why_here = error.sentence
        else:
            if never_fits(found.resources, workspace.settings.place(taking).room()) is None:
                return found
    here = _plan(spec, workspace)
    return here.model_copy(update={"resolved": {**here.resolved, "runs_here": why_here}}) if why_here else here


def _plan(spec: TrainSpec, workspace: Workspace) -> Plan[Payload]:
    database = workspace.database
    spec, repeated = resolve_recipe(spec, workspace)
    level, spec = spec.verdict_level or LEVEL, spec.model_copy(update={"verdict_level": None})
    method = spec.method
    assert method is not None, "resolve_recipe() sees to it"
    check_name("model", spec.name)
    registry.check_free(database, spec.name)
    use_case = use_cases.get(database, spec.use_case) if spec.use_case else None
    found = versions.version(database, spec.dataset)
    manifest, dataset = found.manifest, found.manifest.ref
    _check_whole(spec.dataset, manifest)
    task = _task(spec, use_case, manifest, workspace)
    target = _target(spec, use_case, manifest, task)
    _check_splits(manifest, dataset)
    manifest = manifest.model_copy(update={"inputs": _inputs(database, manifest, target, use_case)})
    given = with_new_names(parameters_of(method, task.name), spec.hyperparameters)
    spec = spec.model_copy(update={"hyperparameters": given})
    candidate, base = prior_model_checks.resolve_candidate(spec, manifest, task, workspace)
    if base:
        _check_base(base, manifest)
    spec, teachers = prior_model_checks.check_prior_models(spec, manifest, task, base, workspace)
    place, capacity = find_place(spec, workspace.settings)
    threads = _threads(capacity, spec.resources, place)
    parameters: Parameters = read_parameters(method, task.name, spec.hyperparameters)
    check_columns(manifest, parameters, method, target)
    check_table_options(parameters, manifest.modality, task.family)
    check_parts(workspace.folders, manifest, parameters, task.family)
    parameters = bind_reward_parameters(parameters, spec.hyperparameters, workspace)
    check_questions(manifest, parameters, target)
    terms = _terms(parameters, use_case, task)
    metric = _objective(use_case, task, terms, manifest, level).metric
    labels = len(manifest.labels) if is_label(manifest, target) else None
    check_learners(parameters, manifest.modality, task.family, labels, metric)
    nodes = spec.resources.nodes or 1
    gpus, price = _gpus(spec, task, capacity), usd_per_core_hour(workspace.settings)
    processes = max(nodes, gpus)
    spec = _within(spec, threads * processes, price)
    check_labels(manifest, target, task, terms)
    unchecked = check_targets(workspace.folders, manifest, target, task, terms, parameters)
    if (head := choose_head(base, method, task, manifest, target, parameters)) is not None:
        spec = spec.model_copy(update={"hyperparameters": {**spec.hyperparameters, "head": head.head}})
        parameters = read_parameters(method, task.name, spec.hyperparameters)
    can = that_read_a_part(workspace, manifest, available_candidates(manifest.modality, task.family))
    encoders = find_encoders(workspace, manifest, base, parameters)
    payload = Payload(
        spec=spec.model_copy(update={"base_model": candidate.base_model}),
        manifest=manifest,
        dataset=dataset,
        task=task.name,
        target=target,
        objective=_objective(use_case, task, terms, manifest, level),
        terms=terms,
        parameters=parameters,
        license=_license(base, encoders),
        base_folder=str(base.folder) if base and base.folder else None,
        base_learned_from=base.learned_from if base else (),
        base_learned_validation=base.learned_validation if base else False,
        part_encoders=encoders,
        head=head.head if head else None,
        teachers=teachers,
        repeats=repeated,
        dearer=tuple(can[can.index(candidate) + 1 :]) if candidate in can else (),
        threads=threads,
        processes=processes,
        nodes=nodes,
        device="cuda" if gpus else "cpu",
        memory_mb=spec.resources.memory_mb or capacity.memory_mb or None,
        usd_per_core_hour=price,
        length=mean_length(workspace.folders, manifest),
    )
    resolved = {
        "dataset": dataset,
        "task": task.name,
        "target": target,
        "base_model": candidate.base_model,
        "metric": payload.objective.metric,
        **({"place": place} if place else {}),
        **({"head": head.head} if head else {}),
        **({"new_labels": list(head.new_labels)} if head and head.new_labels else {}),
        **({"warnings": warnings} if (warnings := _warnings(database, found, use_case)) else {}),
    }
    leaving = check_leaving(payload, place, workspace) if place else ()
    made = _with_costs(payload, gpus, place, workspace)
    told = (*unchecked, *_unchecked(method, payload))
    return made.model_copy(update={"resolved": resolved, "departures": leaving, "unchecked": told})


def _unchecked(method: str, payload: Payload) -> tuple[str, ...]:
    """What the run measures first, and refuses before it trains."""
    if method in _MEASURED_FIRST:
        return ("Whether it fits memory and budget_minutes: its first steps measure that.",)
    return ("Whether media decode, beyond those that ingest found damaged.",) if not payload.manifest.inputs else ()


def _with_costs(payload: Payload, gpus: int, place: str | None, workspace: Workspace) -> Plan[Payload]:
    """The plan of a training that may begin: what it needs, and what it will cost by those before it."""
    spec, parameters = payload.spec, payload.parameters
    method = spec.method
    assert method is not None, "resolve_recipe() sees to it"
    cost = estimate(known_costs(workspace.database, place), request_of(payload))
    searches = isinstance(parameters, ClassicalParameters) and bool(parameters.thorough)  # it takes all that it gets
    seen_here = cost is not None and SHIPPED not in cost.known_from  # memory depends on much that no table has
    room = math.ceil(_MORE * cost.peak_memory_mb) if cost and seen_here else _MEMORY_MB.get(method, _OF_A_NETWORK_MB)
    return Plan(
        payload=payload,
        resources=Resources(
            cpu=(spec.resources.cpu or float(payload.threads)) * payload.processes,
            memory_mb=spec.resources.memory_mb or room * payload.processes,
            gpu=gpus,
            place=place,
            nodes=payload.nodes if place else 1,
        ),
        inputs=run_inputs(payload, workspace.folders) if place else (),
        seconds=60 * spec.budget_minutes if spec.budget_minutes and searches else cost.seconds if cost else None,
        bytes=bytes_written(method, getattr(parameters, "changes", None), payload.base_folder),
        usd=payload.processes * usd_for(cost.cpu_seconds, payload.usd_per_core_hour) if cost else None,
        peak_memory_mb=math.ceil(cost.peak_memory_mb) if cost and seen_here else None,
        p95_latency_ms=cost.p95_latency_ms if cost else None,
        known_from=cost.known_from if cost else (),
        use_case=spec.use_case,
        preload=_preload(method, spec.base_model, payload.manifest.modality, find_task(payload.task), parameters),
    )


class TrainResult(TypedDict):
    model: str
    report: TrainReport


class TrainOutput(NamedTuple):
    """What a run left, read and checked."""

    card: ModelCard
    report: TrainReport
    folder: Path
    workspace: Path
    beside: next_version.NewVersion | None = None
    """A dataset version that was made for it."""


def collect(folder: RunFolder) -> TrainOutput:
    result = folder.result() or {}
    card = ModelCard.model_validate(result["card"])
    staged = folder.outputs / "model"
    if sealed.check(staged) != card.id:
        raise SpeciateError(
            Code.INTERNAL, f"{staged} is not the model that the run reported.", "Call control_job with action='retry'."
        )
    beside = next_version.unpack_version(result["beside"]) if result.get("beside") else None
    return TrainOutput(card, result["report"], staged, Path(folder.spec()["workspace"]), beside)


def commit(tx: Transaction, job: Job, trained: TrainOutput) -> TrainResult:
    card = trained.card.model_copy(update={"job": job.id})
    if trained.beside is not None:
        made = next_version.register_version(tx, job, trained.beside).ref
        card, trained.report["replay"]["dataset"] = card.model_copy(update={"beside": (made,)}), made
    card = registry.register(tx, Folders(trained.workspace), card, trained.folder)
    return {"model": card.ref, "report": trained.report}


def _license(base: Base | None, encoders: Sequence[PartEncoder]) -> str | None:
    """Licenses of all base models; None where one says nothing."""
    if not encoders:
        return base.license if base else None
    said = [each.license for each in encoders]
    return None if None in said else " AND ".join(dict.fromkeys(filter(None, said)))


def _task(spec: TrainSpec, use_case: UseCase | None, manifest: Manifest, workspace: Workspace) -> Task:
    if use_case and spec.task and spec.task != use_case.task:
        raise SpeciateError(
            Code.INVALID,
            f"task is {spec.task!r}, but the use case {use_case.name!r} is {use_case.task!r}.",
            "Leave task out.",
        )
    writes = (
        "text-generation"
        if spec.method in LANGUAGE_PARAMETERS or prior_model_checks.language_model_teaches(spec, workspace)
        else None
    )
    writes = VISION_TASK if writes and manifest.modality in TASKS[VISION_TASK].modalities else writes
    writes = preference.PREFERENCE if spec.method == preference.REWARD else writes
    name = use_case.task if use_case else spec.task or writes or _usual_task(spec, manifest)
    task = find_task(name)
    if not task.suits(manifest.modality):
        of_table = "tabular" in task.modalities and manifest.modality == "text"
        read_again = "call create_dataset with modality='tabular' where a table is the source, " if of_table else ""
        raise SpeciateError(
            Code.INVALID,
            f"The task {name!r} is about {' or '.join(task.modalities)}, but {manifest.ref} holds {manifest.modality}.",
            f"Use another dataset, {read_again}or a task of {manifest.modality}: list_options(kind='task').",
        )
    return task


def _usual_task(spec: TrainSpec, manifest: Manifest) -> str:
    """What the values of the target look like. INVALID where they could be several things."""
    prefix, label = task_prefix(manifest.modality), is_label(manifest, spec.target)
    if label and manifest.label is None:
        if (natural := usual_task(manifest)) is not None:
            return natural
        tasks = [
            name
            for name, task in TASKS.items()
            if task.family in (*TARGET_OPTIONAL, "generation") and task.suits(manifest.modality)
        ]
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no label to learn.",
            f"Call create_dataset again with label, name a column with target, or a task that needs none: "
            f"{' or '.join(tasks)}.",
        )
    kind = "" if label else manifest.columns.get(spec.target or "", "")
    if manifest.modality == "image" and holds_boxes(kind):
        return "object-detection"
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
            next=[CallAgain("", {"dataset": manifest.ref})],
        )


def _target(spec: TrainSpec, use_case: UseCase | None, manifest: Manifest, task: Task) -> str | None:
    target = spec.target or (use_case.target_column if use_case else None) or usual_target(manifest, task.name)
    if target is None and task.family in (*TARGET_OPTIONAL, "generation"):
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
            next=[Call("describe_dataset", {"dataset": f"{manifest.ref}"})],
        )
    return target


def _inputs(database: Database, manifest: Manifest, target: str | None, use_case: UseCase | None) -> tuple[str, ...]:
    """What the model may see: never what it is to find, nor the answers of the system in use."""
    answers = {target or "", manifest.label, *(_answer_columns(database, use_case) if use_case else ())}
    inputs = tuple(name for name in manifest.inputs if name not in answers)
    if manifest.inputs and not inputs:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no input beside {', '.join(manifest.inputs)}, which is an answer and not an input.",
            "Call create_dataset again with inputs.",
        )
    return inputs


def _warnings(database: Database, found: versions.Version, use_case: UseCase | None) -> list[str]:
    return [*leaks_of_report(found.report), *answers_among_inputs(database, found.manifest, use_case)]


def _answer_columns(database: Database, use_case: UseCase) -> tuple[str, ...]:
    """Columns that an incumbent of the use case answers from, in whichever version it was named."""
    every = [use_case, *(use_cases.get(database, use_case.name, number) for number in range(1, use_case.version))]
    named = (str(each.incumbent).removeprefix(COLUMN) for each in every if (each.incumbent or "").startswith(COLUMN))
    return tuple(dict.fromkeys(named))


def answers_among_inputs(database: Database, manifest: Manifest, use_case: UseCase | None) -> list[str]:
    """Notes about inputs that hold what the system in use answers: that they are left out, or, without a use case, that
    a model will copy them."""
    told = []
    for each in [use_case] if use_case else use_cases.in_force(database).values():
        task = task_named(each.task)
        if use_case is None and not (task is not None and task.suits(manifest.modality)):
            continue
        for column in (name for name in _answer_columns(database, each) if name in manifest.inputs):
            holds = f"The input {column!r} of {manifest.ref} holds the answers of the system in use for {each.name}"
            told.append(
                f"{holds}: it is left out, so models do without that system."
                if use_case
                else f"{holds}: a model that reads it copies that system and cannot replace it. With "
                f"use_case={each.name!r} it is left out."
            )
    return told


def _check_splits(manifest: Manifest, dataset: str) -> None:
    if not manifest.splits.get("train"):
        raise SpeciateError(
            Code.INVALID,
            f"{dataset} has no split 'train'; it has {manifest.splits}.",
            next=[
                Call(
                    "curate_dataset",
                    {"dataset": dataset, "steps": [{"op": "split"}]},
                    ": it gets a leak-free one of train, validation and test",
                )
            ],
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
    held = bool(manifest.splits.get("validation"))
    if (not held or base.learned_validation) and manifest.id in {each.id for each in base.learned_from or ()}:
        raise no_unseen_examples(base.ref, manifest.ref, validation=held)


def _objective(use_case: UseCase | None, task: Task, terms: TaskTerms, manifest: Manifest, level: float) -> Objective:
    positive = terms.positive_label if task.family == "anomaly" else use_case.positive_label if use_case else None
    if use_case is None:
        usual = find_metric(task.default_metric).chosen_by or task.default_metric
        return Objective(metric=usual, positive_label=positive)
    wanted = use_case.objective
    if (other := find_metric(wanted.metric).chosen_by) is not None:
        return Objective(metric=other, positive_label=positive)
    judged = None if use_case.suites.core else manifest.splits.get("test")
    return Objective(
        metric=wanted.metric, target=wanted.target, positive_label=positive, aim=wanted.aim, test_examples=judged,
        level=level,
    )  # fmt: skip


def _terms(parameters: Parameters, use_case: UseCase | None, task: Task) -> TaskTerms:
    positive = parameters.positive_label or (use_case.positive_label if use_case else None)
    if task.family == "anomaly":
        positive = positive or ANOMALY
    return TaskTerms(positive, parameters.horizon, parameters.order)


def _preload(method: str, base_model: str | None, modality: str, task: Task, parameters: Parameters) -> str:
    if isinstance(parameters, ClassicalParameters) and (parameters.tabm or parameters.thorough):
        return "optimizer" if is_installed("torch") else "classical"
    own = "networks" if method == "probe" else "optimizer"
    networks = "torch" if needs_whole_transformers(base_model, modality, task.name, method) else own
    return "language" if task.name in TEXT_TASKS else _PRELOAD.get(method, networks)


def _within(spec: TrainSpec, cores: int, price: float) -> TrainSpec:
    """What may be spent, as time: all cores that it computes on are paid for as long as it runs."""
    if spec.budget_usd is None or not price:
        return spec
    minutes = 60 * spec.budget_usd / (cores * price)
    return spec.model_copy(update={"budget_minutes": min(minutes, spec.budget_minutes or minutes)})


def _gpus(spec: TrainSpec, task: Task, capacity: Capacity) -> int:
    """GPUs together. INVALID where there is no way to have so many, or so many nodes."""
    nodes, gpus = spec.resources.nodes or 1, spec.resources.gpu
    if nodes > 1:
        _check_nodes(spec, task, nodes)
        return gpus if gpus is not None else nodes if capacity.gpu >= nodes else 0
    if spec.method not in _ON_GPU:
        if spec.resources.gpu:
            raise SpeciateError(
                Code.INVALID,
                f"resources.gpu is {spec.resources.gpu}, and {spec.method!r} computes on processors alone.",
                f"Leave it out, or choose a method that trains a network: {' or '.join(map(repr, _ON_GPU))}.",
            )
        return 0
    if (spec.method in LANGUAGE_PARAMETERS or task.name in TEXT_TASKS) and (spec.resources.gpu or 0) > 1:
        raise SpeciateError(
            Code.INVALID,
            f"resources.gpu is {spec.resources.gpu}, and {spec.method!r} trains on one.",
            "Leave it out, or set it to 1.",
        )
    return min(1, capacity.gpu) if spec.resources.gpu is None else spec.resources.gpu


def _check_nodes(spec: TrainSpec, task: Task, nodes: int) -> None:
    given = spec.resources.model_dump(exclude_none=True)
    one = [CallAgain("", {"resources": {**given, "nodes": None}})]
    if spec.method not in _IN_TEAMS or task.name in TEXT_TASKS:
        raise SpeciateError(
            Code.INVALID,
            f"resources.nodes is {nodes}, and {spec.method!r} learns in one process.",
            f"On several nodes these train: {', '.join(_IN_TEAMS)}.",
            next=one,
        )
    if (spec.resources.gpu or 0) % nodes:
        raise SpeciateError(
            Code.INVALID,
            f"resources.gpu is {spec.resources.gpu} in all, and {nodes} nodes have as many each.",
            next=[CallAgain("", {"resources": {**given, "gpu": nodes}}), *one],
        )


def _threads(capacity: Capacity, wanted: RequestedResources, place: str | None) -> int:
    """Threads of each process: two where there are two. More gain little at these sizes and would keep other jobs
    waiting."""
    there = capacity.cpu or cores()
    return max(1, int(wanted.cpu or min(2, there if place else there // (wanted.nodes or 1))))


KIND = Kind(
    name="train",
    spec=TrainSpec,
    plan=plan,
    run="speciate.training.train_run:run",
    collect=collect,
    commit=commit,
    limits=Limits(silence_seconds=1800),
)


_REQUIRED = ("name", "dataset", "method")


def resolve_recipe(spec: TrainSpec, workspace: Workspace) -> tuple[TrainSpec, RepeatedModel | None]:
    """The spec with what `like` and `continue_from` mean. INVALID where something is still missing.

    `like` alone repeats a training; with other data or another base model it is an update.
    """
    repeated = None
    if spec.like is not None:
        spec, repeated = _from_recipe(spec, spec.like, workspace)
    if spec.continue_from is not None:
        spec = _from_model(spec, spec.continue_from, workspace)
    missing = [name for name in _REQUIRED if not getattr(spec, name)]
    if missing:
        raise SpeciateError(
            Code.INVALID,
            f"train_model needs {' and '.join(missing)}.",
            "Name them, or a model version whose recipe is repeated: like='NAME@v1'.",
        )
    return spec, repeated


def _from_recipe(spec: TrainSpec, like: str, workspace: Workspace) -> tuple[TrainSpec, RepeatedModel]:
    card = registry.resolve(workspace.database, workspace.folders, like).card
    recorded = card.recipe.get("spec")
    if recorded is None:
        raise SpeciateError(
            Code.INVALID,
            f"{card.ref} was not trained here, so there is no recipe to repeat.",
            "Name a version that train_model or specialize made.",
        )
    given = {name: getattr(spec, name) for name in spec.model_fields_set if name != "like"}
    if "resources" in recorded:  # what it was made with, and not where
        recorded = {**recorded, "resources": {**recorded["resources"], "place": None, "nodes": None}}
    if spec.continue_from is not None:  # that recipe, from other weights than it began with
        recorded = recorded | {"base_model": None}
    merged = TrainSpec.model_validate({**recorded, "dataset": card.dataset, "like": card.ref, **given})
    repeated = RepeatedModel(
        model=card.ref,
        id=card.id,
        metrics=dict(card.metrics),
        environment=card.recipe.get("environment", {}),
        dataset=card.dataset,
    )
    return merged, repeated


def _from_model(spec: TrainSpec, model: str, workspace: Workspace) -> TrainSpec:
    """With the network of that version to begin with; its head, too, where the labels are the same."""
    version = registry.resolve(workspace.database, workspace.folders, model)
    streams = version.card.method == STREAMING and spec.method in (None, STREAMING)
    network = model_folder.has_backbone(version.path) or has_trained_head(version.path)
    if not network and not streams:
        task = task_named(version.card.task or "")
        if task is not None and task.family == "generation":
            raise SpeciateError(
                Code.INVALID,
                f"{version.ref} writes texts; such a model is trained on as a base model, not by continue_from.",
                "curate_dataset(steps=[{'op': 'merge', 'dataset': ...}]) brings earlier examples back beside new ones.",
                next=[CallAgain("train_model", {"base_model": version.ref, "method": "sft", "continue_from": None})],
            )
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} was made by {version.card.method!r}: there is no network to train on.",
            "Name a version made by 'full' or 'lora', or leave continue_from out.",
        )
    if spec.base_model not in (None, version.ref):
        raise SpeciateError(
            Code.INVALID,
            f"continue_from is {version.ref!r} and base_model {spec.base_model!r}: there can be only one beginning.",
            "Leave one of them out.",
        )
    return spec.model_copy(
        update={"base_model": version.ref, "method": spec.method or (STREAMING if streams else "full")}
    )
