"""The job kind `predict`: a model's answers to all rows of a dataset or a file, as a file or a dataset.

Rows of a dataset are asked as an evaluation asks them: answers are kept in the same cache (evaluation/answer_cache.py),
so that neither an attempt after a kill nor another job asks a model of ours, or pays a hosted one, twice. Consent, keys
and money are settled before there is a job. The rows of a file belong to no dataset that a person let leave, so no
hosted model gets them; they are decoded and answered in a sandboxed process, and what is answered stays with the job.

The run is batch_predict_run.py. Answers of a batch are not in a use case's log: the job and the dataset say what made
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets import next_version, version_rows, versions
from speciate.datasets.next_version import NewVersion
from speciate.datasets.operations.operation import declare_columns, provenance_columns
from speciate.datasets.readers.formats import format_of
from speciate.datasets.readers.time_series import SERIES
from speciate.datasets.sources.sandbox_calls import check_named_columns
from speciate.datasets.versions import Manifest, packed_lanes
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation import answer_cache
from speciate.evaluation.endpoints import cost_check
from speciate.evaluation.endpoints.pricing import usd_per_core_hour
from speciate.evaluation.endpoints.prompts import Prompt
from speciate.evaluation.evaluated_models import EvaluatedModel, find_model
from speciate.jobs.atomic_folder import check_free
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Limits, Resources
from speciate.jobs.kinds import Kind, Plan, granted
from speciate.jobs.pool import Pool
from speciate.modalities import find
from speciate.models import registry
from speciate.models.model_card import ModelCard, needs_whole_transformers
from speciate.refs import check_name, dataset_ref
from speciate.sandbox import SandboxPolicy
from speciate.sandbox import check as check_sandbox
from speciate.serving.items import ModelInputs
from speciate.vocabulary import Family, Task, find_task, task_named
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Folders, Workspace

ANSWERED = ("model", "endpoint", "ensemble")
FORMATS = (".csv", ".jsonl", ".parquet")
PREDICTION = "prediction"
CONFIDENCE = f"{PREDICTION}_confidence"
_LABELLED: tuple[Family, ...] = ("classification", "ordinal", "multi-label")
_USUAL = "text-generation"
_START_SECONDS, _SECONDS_PER_ANSWER = 3.0, 0.002
_BYTES_PER_ROW = 4_000


class PredictSpec(BaseModel):
    """Rows of a `dataset` or of a `source`, a file of a table or a folder of files. Answers go to `path`, a new file,
    or for a dataset into the dataset `save_as`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    """A ref; USE_CASE@production is what serves when the job is planned."""
    dataset: str | None = None
    source: Path | None = None
    path: Path | None = None
    save_as: str | None = None
    budget_usd: float | None = Field(None, gt=0)


class RowsOfDataset(BaseModel):
    model_config = ConfigDict(frozen=True)
    kind: Literal["dataset"] = "dataset"
    manifest: Manifest
    split: str | None
    model: EvaluatedModel
    labels: tuple[str, ...]
    budget_usd: float | None
    allowances: dict[str, float]
    private_hosts: tuple[str, ...]
    usd_per_core_hour: float


class RowsOfFile(BaseModel):
    model_config = ConfigDict(frozen=True)
    kind: Literal["file"] = "file"
    source: Path
    folder: bool
    """Each file in it is an input; else each row of the file."""
    model: str
    model_folder: Path
    modality: str | None
    inputs: tuple[str, ...]
    parts: tuple[str, ...]
    ignored_parts: tuple[str, ...]
    cage: SandboxPolicy
    reader: str | None = None
    """That of the series that the model learned from."""
    channels: tuple[str, ...] = ()
    """Columns of lists that were joined into the series that the model learned from, in that order."""

    def about(self) -> ModelInputs:
        """How the model reads inputs."""
        return {
            "model": str(self.model_folder), "modality": self.modality, "inputs": list(self.inputs),
            "parts": list(self.parts), "ignored_parts": list(self.ignored_parts),
        }  # fmt: skip


class NewFile(BaseModel):
    model_config = ConfigDict(frozen=True)
    kind: Literal["file"] = "file"
    path: Path


class NewRows(BaseModel):
    """The rows that were asked as a new dataset, or all rows of the dataset as its next version, with the answers."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["dataset"] = "dataset"
    name: str
    lanes: str
    report: Mapping[str, Any]
    onto: int | None
    """The version that the answers are added to; None for a new dataset."""
    beside: bool
    """Whether it is another dataset than that of the rows."""


class PredictPayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    task: str
    rows: RowsOfDataset | RowsOfFile = Field(discriminator="kind")
    answers: NewFile | NewRows = Field(discriminator="kind")


class PredictOutputs(NamedTuple):
    paid: Mapping[str, float]
    """USD by host, of all attempts."""
    result: dict[str, Any]
    version: NewVersion | None


def plan(spec: PredictSpec, workspace: Workspace) -> Plan[PredictPayload]:
    """Raises INVALID for what fits together not, NOT_FOUND, and what a consent, a key or a price that is missing
    raises."""
    if (spec.dataset is None) == (spec.source is None):
        raise SpeciateError(
            Code.INVALID, "A batch is about either a dataset or a source.", "Call predict again with one of them."
        )
    if (spec.path is None) == (spec.save_as is None):
        raise _nowhere(spec)
    if spec.path is not None:
        _check_path(spec.path)
    if spec.dataset is None:
        return _plan_file(spec, workspace)
    return _plan_dataset(spec, workspace)


def _plan_dataset(spec: PredictSpec, workspace: Workspace) -> Plan[PredictPayload]:
    ref = dataset_ref(spec.dataset or "")
    version = versions.version(workspace.database, ref)
    manifest = version.manifest
    model = find_model(workspace, spec.model, tuple(manifest.columns))
    task = _task(model, manifest)
    _check_inputs(model, manifest)
    count = sum(manifest.splits.values()) if ref.split is None else manifest.splits.get(ref.split, 0)
    count = count or manifest.rows
    labels = tuple(sorted(manifest.labels)) if task.family in _LABELLED and not manifest.numeric else ()
    calls = cost_check.PlannedCalls(manifest, task.family, labels, Prompt(), count, 1, 0)
    cost = cost_check.check_cost(workspace, calls, [model], spec.budget_usd)
    rows = RowsOfDataset(
        manifest=manifest, split=ref.split, model=model.model_copy(update={"learned_from": ()}), labels=labels,
        budget_usd=spec.budget_usd, allowances=cost.allowances,
        private_hosts=tuple(workspace.settings.private_hosts), usd_per_core_hour=usd_per_core_hour(workspace.settings),
    )  # fmt: skip
    answers = (
        NewFile(path=spec.path) if spec.path is not None
        else _new_rows(workspace, manifest, version.report, spec.save_as or "", pinned=bool(ref.version or ref.tag))
    )  # fmt: skip
    local = cost.usd == 0.0 and not model.base_model and task.family != "generation"
    made = Plan[PredictPayload](
        payload=PredictPayload(task=task.name, rows=rows, answers=answers),
        resources=Resources(cpu=1, memory_mb=_memory_mb(count, model.bytes)),
        secrets=cost.secrets,
        usd=cost.usd,
        spends=cost.spends(manifest.name, spec.budget_usd),
        departures=cost.departures,
        seconds=_START_SECONDS + _SECONDS_PER_ANSWER * count if local else None,
        preload=_preload(model, task),
        resolved={
            "dataset": str(ref._replace(version=manifest.version, tag=None)), "rows": count, "model": model.name,
            "task": task.name, **_place(spec), **cost.resolved,
        },
    )  # fmt: skip
    return granted(made, cost.missing)


def _preload(model: EvaluatedModel, task: Task) -> str:
    if not model.base_model and task.family != "generation":
        return "classical"
    return "torch" if needs_whole_transformers(model.base_model, model.modality, task.name) else "networks"


def _plan_file(spec: PredictSpec, workspace: Workspace) -> Plan[PredictPayload]:
    assert spec.source is not None
    source = spec.source
    if spec.path is None:
        raise SpeciateError(
            Code.INVALID,
            f"The answers to {source.name!r} leave as a file: its rows belong to no dataset yet.",
            next=[
                Call(
                    "predict",
                    {"model": spec.model, "source": str(source), "path": answers_beside(source)},
                    "for a file",
                ),
                Call("create_dataset", {"name": spec.save_as, "source": str(source)}, "and predict(dataset=...) then"),
            ],
        )
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    card = version.card
    if card.endpoint is not None:
        raise SpeciateError(
            Code.REFUSED,
            f"{card.ref} is served by others, and data leave only where a person allowed that dataset for that host: "
            f"{source.name!r} is in no dataset.",
            next=[
                Call("create_dataset", {"name": "asked", "source": str(source)}, "and predict(dataset='asked', ...)")
            ],
        )
    task = _known_task(card.task, card.ref)
    check_sandbox(workspace.settings.cage)
    folder = source.is_dir()
    _check_source(source, card, folder=folder)
    rows = RowsOfFile(
        source=source, folder=folder, model=card.ref, model_folder=version.path, modality=card.modality,
        inputs=card.inputs, parts=card.parts, ignored_parts=card.ignored_parts, cage=workspace.settings.cage,
        reader=series_reader(workspace, card), channels=_joined_channels(workspace, card),
    )  # fmt: skip
    return Plan(
        payload=PredictPayload(task=task.name, rows=rows, answers=NewFile(path=spec.path)),
        resources=Resources(cpu=1, memory_mb=1024 + 2 * ((card.bytes or 0) >> 20)),
        bytes=None if folder else source.stat().st_size,
        resolved={"source": str(source), "model": card.ref, "task": task.name, **_place(spec)},
    )


def _check_source(source: Path, card: ModelCard, *, folder: bool) -> None:
    table = None if folder else format_of(source.name)
    if not folder and table is None:
        raise SpeciateError(
            Code.INVALID,
            f"{source.name!r} is one file and no table: csv, tsv, jsonl, json and parquet are.",
            next=[Call("predict", {"model": card.ref, "inputs": [{"path": str(source)}]}, "for a single input")],
        )
    if table is not None and (card.parts or not reads_rows(card)):
        raise SpeciateError(
            Code.INVALID,
            f"{card.ref} reads files of {card.modality}, and {source.name!r} is a table.",
            "Name the folder of the files as source; or make a dataset of them and call predict(dataset=...).",
        )
    if folder and reads_rows(card) and card.modality == "tabular":
        raise SpeciateError(
            Code.INVALID,
            f"{card.ref} reads rows of a table, and {source.name!r} is a folder.",
            "Name a csv, jsonl or parquet file as source.",
        )


def check_columns_of_source(workspace: Workspace, pool: Pool, spec: PredictSpec) -> None:
    """INVALID where the header of a table lacks a column that the model reads; passes where only the run can tell.

    Beside the plan: a foreign table is opened in a service process alone."""
    source = spec.source
    if source is None or not source.is_file():
        return
    card = registry.resolve(workspace.database, workspace.folders, spec.model).card
    if card.modality == "time-series" or not card.inputs:
        return
    try:
        check_named_columns(pool, source, None, card.inputs)
    except SpeciateError as error:
        raise SpeciateError(
            error.code,
            f"{card.ref} reads the columns {', '.join(card.inputs[:8])}: {error.message}",
            "Name a file with the columns that the model was trained on: describe_model shows them.",
        ) from error


def series_reader(workspace: Workspace, card: ModelCard) -> str | None:
    """How the series that a model learned from were read from a table, such as `long:window,tick`; None if they were
    not, or nobody knows any more."""
    return next((str(each["reader"]) for each in _operations(workspace, card) if each.get("reader")), None)


def _joined_channels(workspace: Workspace, card: ModelCard) -> tuple[str, ...]:
    """The columns that became the one series that a model reads; empty where it reads them as they are, or where nobody
    said which they were: another file may have them in another order."""
    named = (each.get("inputs") or () for each in _operations(workspace, card))
    found: tuple[str, ...] = tuple(next(filter(None, named), ()))
    return found if len(found) > 1 and card.inputs == (SERIES,) else ()


def _operations(workspace: Workspace, card: ModelCard) -> list[Mapping[str, Any]]:
    """How the series were made that a model learned from, the newest first; empty for other media."""
    if card.modality != "time-series" or not card.dataset:
        return []
    try:
        found = versions.version(workspace.database, card.dataset)
    except SpeciateError:  # deleted since
        return []
    return [each.operation for each in (found, *version_rows.ancestors(workspace.database, found))]


def steps_as_series(source: Path, reader: str | None) -> Call:
    """The call that makes series of a table with one step a row."""
    arguments = {"name": "asked", "source": str(source), "modality": "time-series"}
    purpose = "" if reader else "with reader='long:ID,TIME' where each row is one step"
    return Call("create_dataset", arguments | ({"reader": reader} if reader else {}), purpose)


def reads_rows(card: ModelCard) -> bool:
    """Whether an input can be a row of a table: its columns, or a text in one of them."""
    if card.inputs or card.modality == "tabular":
        return True
    return bool(card.modality) and find(card.modality or "").analyzer is not None  # an endpoint may have none


def _new_rows(
    workspace: Workspace, manifest: Manifest, report: Mapping[str, Any], name: str, *, pinned: bool
) -> NewRows:
    check_name("dataset", name)
    beside = name != manifest.name
    if beside and versions.history(workspace.database, name, 1):
        raise SpeciateError(
            Code.CONFLICT,
            f"There is a dataset {name!r} already.",
            f"Call predict again with another save_as, or with save_as={manifest.name!r}: then the answers become "
            "columns of its next version.",
        )
    declare_columns(manifest, dict.fromkeys((PREDICTION, CONFIDENCE, *provenance_columns(PREDICTION)), "VARCHAR"))
    return NewRows(
        name=name,
        lanes=packed_lanes(workspace.database, manifest).hex(),
        report=report,
        onto=None if beside or pinned else manifest.version,
        beside=beside,
    )


def _task(model: EvaluatedModel, manifest: Manifest) -> Task:
    if model.source not in ANSWERED:
        raise SpeciateError(
            Code.INVALID,
            f"{model.name!r} is no model that can be asked here.",
            "Name a registered model, USE_CASE@production, ensemble:A+B, or api:PROVIDER/MODEL.",
        )
    task = _known_task(model.task or _USUAL, model.name)
    if model.source == "model" and not task.suits(manifest.modality) and task.reads != manifest.modality:
        raise SpeciateError(
            Code.INVALID,
            f"{model.name} is made for {task.name!r}, and {manifest.ref} holds {manifest.modality}.",
            f"Name a model that reads {manifest.modality}.",
        )
    if model.source != "model" and task.family in _LABELLED and not manifest.labels:
        raise SpeciateError(
            Code.INVALID,
            f"{task.name!r} needs labels to choose from, and {manifest.ref} has none.",
            "Name a model that was trained here.",
        )
    return task


def _known_task(name: str | None, model: str) -> Task:
    if task_named(name or "") is None:
        raise SpeciateError(
            Code.INVALID,
            f"{model} is registered for {name or 'no task'}: it gives no answers.",
            next=[Call("describe_model", {"model": model}, "for what it is")],
        )
    return find_task(name or "")


def _check_inputs(model: EvaluatedModel, manifest: Manifest) -> None:
    lacking = [name for name in model.inputs if name not in (*manifest.columns, *manifest.inputs)]
    if lacking:
        raise SpeciateError(
            Code.INVALID,
            f"{model.name} reads the column {lacking[0]!r}, which {manifest.ref} lacks.",
            next=[Call("describe_dataset", {"dataset": manifest.name}, "for its columns")],
        )


def _check_path(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise SpeciateError(
            Code.INVALID,
            f"{path.name!r} tells no format of answers.",
            f"Call predict again with a path that ends in {', '.join(FORMATS)}.",
        )
    check_free(path, "answers")


def _nowhere(spec: PredictSpec) -> SpeciateError:
    asked = _asked(spec)
    name = Path(spec.dataset.partition(":")[0].partition("@")[0] if spec.dataset else str(spec.source))
    calls = [Call("predict", {**asked, "path": answers_beside(name)}, "for a file")]
    if spec.dataset:
        calls.append(Call("predict", {**asked, "save_as": f"{name.name}-answers"}, "for a dataset"))
    return SpeciateError(Code.INVALID, "A batch puts its answers either at a path or into a dataset.", next=calls)


def _asked(spec: PredictSpec) -> dict[str, Any]:
    return {"model": spec.model, **({"dataset": spec.dataset} if spec.dataset else {"source": str(spec.source)})}


def answers_beside(source: Path) -> str:
    """A path for the answers to it."""
    return str(source.with_name(f"{source.name.partition('.')[0]}-answers.jsonl"))


def _place(spec: PredictSpec) -> dict[str, Any]:
    return {"path": str(spec.path)} if spec.path is not None else {"save_as": spec.save_as}


def _memory_mb(rows: int, size: int | None) -> int:
    return 1024 + (2 * (size or 0) >> 20) + rows * _BYTES_PER_ROW // 2**20


def collect(folder: RunFolder) -> PredictOutputs:
    found = folder.result()
    if found is None:
        raise SpeciateError(
            Code.INTERNAL, f"{folder.run_id} left no result.", next=[Call("control_job", {"action": "retry"})]
        )
    spent = {host: round(usd, 6) for (_, host), usd in sorted(paid(folder).items())}
    version = next_version.unpack_version(found["version"]) if "version" in found else None
    return PredictOutputs(spent, found["result"], version)


def paid(folder: RunFolder) -> dict[tuple[str, str], float]:
    """USD by dataset and host, of all attempts until now at most."""
    spec = folder.spec()
    payload = PredictPayload.model_validate(spec["payload"])
    if payload.rows.kind == "file" or not payload.rows.allowances:
        return {}  # nothing leaves this machine
    spent = answer_cache.paid(Folders(Path(spec["workspace"])), spec["job"])
    return {(payload.rows.manifest.name, host): usd for host, usd in spent.items()}


def commit(tx: Transaction, job: Job, outputs: PredictOutputs) -> dict[str, Any]:
    """The job's result: `path` or `dataset`, and the report."""
    made = {} if outputs.version is None else next_version.commit(tx, job, outputs.version)
    return made | outputs.result | ({"spent_usd": dict(outputs.paid)} if outputs.paid else {})


KIND = Kind(
    name="predict",
    spec=PredictSpec,
    plan=plan,
    run="speciate.serving.batch_predict_run:run",
    collect=collect,
    commit=commit,
    paid=paid,
    limits=Limits(silence_seconds=1800),
)
