"""Kind `erase`, the heavy step of a purge: rewrites every file that holds forgotten rows, then has the catalog name the
new files instead of the old ones.

    plan     every version of every dataset, as it is now; the run has the machine to itself
    run      finds the rows, writes sealed files, packs, caches and answers without them (privacy/purge_datasets.py)
    commit   in one transaction: manifests, reports and whatever else quotes the rows; nothing is deleted yet

The result lists what may now be deleted (`gc` does it). A kill before the commit leaves the catalog as it was, and the
repeat writes the same files. Where a version came meanwhile, or a job that waits has resolved one that changes, nothing
is committed: the result says `again`, and the purge takes another step of this kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict

from speciate.datasets.content_hash import pack_lanes, unpack_lanes
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation import suites
from speciate.jobs.engine import measure_capacity
from speciate.jobs.folder import RunFolder, write_whole
from speciate.jobs.job import Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.models.model_card import ModelCard
from speciate.privacy import purge_catalog, purge_datasets, purge_logs, references
from speciate.privacy.purge_datasets import PurgeResult, Target
from speciate.privacy.purge_evaluations import UNREADABLE, check_damage, purge_cached_answers, purge_examples
from speciate.privacy.references import PURGE_KINDS, JobReference
from speciate.workspace.blobs import Blobs
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Folders, Workspace

_ERASED = "erased.json"
_MEMORY_MB = 1024
_VERSIONS = "SELECT name, version, id, manifest, lanes FROM dataset_versions ORDER BY name, version"
_IDS = "SELECT name, version, id FROM dataset_versions ORDER BY name, version"
_REPORT = "SELECT report FROM dataset_versions WHERE name = ? AND version = ?"
_SWAP = "UPDATE dataset_versions SET id = ?, lanes = ?, manifest = ?, report = ? WHERE name = ? AND version = ?"
_SERVING = "SELECT model, use_case || '@' || alias FROM aliases ORDER BY use_case, alias"
_FORGET_REQUESTS = "DELETE FROM label_requests WHERE prediction IN (SELECT unnest(?::VARCHAR[]))"
"""Whom a watch asked about what went: nobody waits for a label that cannot come."""
_FORGET_PLAN = "DELETE FROM job_plans WHERE job = ?"


class EraseSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    target: Target


class PlannedVersion(BaseModel):
    """A version of a dataset as it is at the time of the plan."""

    model_config = ConfigDict(frozen=True)
    manifest: Manifest
    lanes: str
    """Hexadecimal."""


class ErasePayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    target: Target
    versions: list[PlannedVersion]
    seen: list[tuple[str, int, str]]
    """Name, version and id of all versions of all datasets."""
    since: float


class ErasedVersion(PlannedVersion):
    """A version that changed, with its new manifest."""

    rows: int
    """Rows that went."""
    learned: int
    """How many of the purged rows a training on it reads."""
    qualities: dict[str, int]
    """Rows of each quality that went."""

    @property
    def ref(self) -> str:
        return f"{self.manifest.name}@v{self.manifest.version}"


class EraseOutput(BaseModel):
    """What a run found and wrote: `erased.json`."""

    model_config = ConfigDict(frozen=True)
    versions: list[ErasedVersion]
    seen: list[tuple[str, int, str]]
    """`seen` of the payload: name, version and id of all versions of all datasets."""
    texts: list[str]
    evaluations: list[str]
    logged: dict[str, int] = {}
    """Use case -> answers that went from its log."""
    answers: list[str] = []
    """Ids of these."""
    obsolete: list[str]
    unreadable: list[str]
    since: float


class CollectedErase(NamedTuple):
    root: Path
    output: EraseOutput


class TrainedModel(BaseModel):
    """A model that saw some rows."""

    model_config = ConfigDict(frozen=True)
    model: str
    dataset: str | None
    serves: list[str]
    """Aliases."""


def plan(spec: EraseSpec, workspace: Workspace) -> Plan[ErasePayload]:
    rows = workspace.database.read(_VERSIONS)
    payload = ErasePayload(
        target=spec.target,
        versions=[
            PlannedVersion(manifest=Manifest.model_validate_json(manifest), lanes=lanes.hex())
            for *_, manifest, lanes in rows
        ],
        seen=[(name, version, id) for name, version, id, *_ in rows],  # noqa: A001 - the column
        since=workspace.clock.now(),
    )
    capacity = measure_capacity(workspace.settings.capacity)
    return Plan(payload=payload, resources=Resources(cpu=capacity.cpu, memory_mb=_MEMORY_MB))


def run(run: Run) -> None:
    """Writes the new files, and `outputs/erased.json` with what the commit needs."""
    payload = run.read_payload(ErasePayload)
    versions = [(each.manifest, unpack_lanes(bytes.fromhex(each.lanes))) for each in payload.versions]
    purged = purge_datasets.purge(run.folders, versions, payload.target, run.progress)
    answers, damaged = _purge_evaluations(run.folders, purged)
    names = set().union(*purged.keys.values())
    gone = purge_logs.purge_logs(run.folders, names, purged.texts, purged.cells) if purged.keys["id"] else {}
    output = EraseOutput(
        versions=[
            ErasedVersion(
                manifest=each.manifest,
                lanes=pack_lanes(each.lanes).hex(),
                rows=each.rows,
                learned=each.training_rows,
                qualities=each.qualities,
            )
            for each in purged.versions
        ],
        seen=payload.seen,
        texts=sorted({*purged.texts, *(value for values in purged.keys.values() for value in values)}),
        evaluations=answers,
        logged={use_case: len(ids) for use_case, ids in gone.items()},
        answers=sorted(set().union(*gone.values())),
        obsolete=purged.obsolete,
        unreadable=[*purged.unreadable, *damaged],
        since=payload.since,
    )
    write_whole(run.outputs / _ERASED, output.model_dump_json())


def _purge_evaluations(folders: Folders, purged: PurgeResult) -> tuple[list[str], list[str]]:
    """Ids of the evaluations with answers to purged rows, and folders of damaged evaluations."""
    found: list[str] = []
    damaged: list[str] = []
    for path in sorted(path for path in folders.evaluations.glob("*") if path.is_dir()):
        try:
            if purge_examples(path, purged.keys["id"], purged.labels):
                found.append(path.name)
        except UNREADABLE as error:
            check_damage(error)
            damaged.append(path.relative_to(folders.root).as_posix())
    purge_cached_answers(folders, purged.keys["id"], purged.labels)
    return found, damaged


def collect(folder: RunFolder) -> CollectedErase:
    output = EraseOutput.model_validate_json((folder.outputs / _ERASED).read_text())
    root = Path(folder.spec()["workspace"])
    for each in output.versions:
        missing = [name for part in each.manifest.parts if not (root / (name := part.file)).exists()]
        if missing:
            raise SpeciateError(
                Code.INTERNAL,
                f"{missing[0]} is missing.",
                next=[Call("control_job", {"action": "retry"}, ": it is written again")],
            )
    return CollectedErase(root, output)


class ExportOutside(TypedDict):
    """An export that we cannot reach."""

    job: str
    dataset: str
    path: str


class EraseAgain(TypedDict):
    """Nothing was erased: the purge takes another step."""

    again: str
    """Why."""


class EraseReport(TypedDict):
    versions: dict[str, int]
    """Ref -> rows that went."""
    models: Sequence[Mapping[str, object]]
    """`TrainedModel`s."""
    evaluations: list[str]
    logged_answers: dict[str, int]
    exports_outside: Sequence[ExportOutside]
    exports_deleted: int
    unreadable: list[str]
    since: float
    doomed: list[str]


def commit(tx: Transaction, job: Job, collected: CollectedErase) -> EraseAgain | EraseReport:
    root, erased = collected
    names = sorted({each.manifest.name for each in erased.versions})
    if [tuple(row) for row in tx.execute(_IDS)] != erased.seen:
        return {"again": "versions of datasets were made or deleted meanwhile"}
    if busy := references.unfinished_jobs(tx, names):
        return {"again": f"{references.describe_jobs(busy)} would have been left without what they work with"}
    for each in erased.versions:
        _swap_manifest(tx, each)
    ended = [other for other in references.jobs_naming(tx, names) if other.ended and other.kind not in PURGE_KINDS]
    for other in ended:
        tx.execute(_FORGET_PLAN, [other.id])  # a retry resolves the versions as they are now
    purge_catalog.redact_catalog(tx, erased.texts)
    suites.forget(tx, erased.texts)
    tx.execute(_FORGET_REQUESTS, [erased.answers])
    for name in names:
        tx.event(f"dataset:{name}", "dataset.purged", {"job": job.parent or job.id})
    exports = [other for other in ended if other.kind == "export" and other.named]
    inside, outside = _exports_inside_and_outside(Folders(root), exports)
    trained = models_that_saw(tx, [each.ref for each in erased.versions if each.learned])
    for model in trained:  # a watch with the trigger `recall` replaces what serves
        tx.event(f"model:{model.model}", "model.recalled", {"model": model.model, "job": job.parent or job.id})
    inputs = _input_blobs(Folders(root), ended)
    return {
        "versions": {each.ref: each.rows for each in erased.versions if each.rows},
        "models": [each.model_dump() for each in trained],
        "evaluations": erased.evaluations,
        "logged_answers": erased.logged,
        "exports_outside": outside,
        "exports_deleted": len(inside),
        "unreadable": erased.unreadable,
        "since": erased.since,
        "doomed": [*erased.obsolete, *inputs, *_run_folders([*ended, *_purge_jobs(tx, job)]), *inside],
    }


def models_that_saw(tx: Transaction, versions: Sequence[str]) -> list[TrainedModel]:
    """Models trained on one of these dataset versions, or made from a model that was."""
    serving: dict[str, list[str]] = {}
    for model, alias in tx.execute(_SERVING):
        serving.setdefault(model, []).append(alias)
    found: dict[str, ModelCard] = {}
    for each in references.model_origins(tx):  # oldest first
        if not each.datasets.isdisjoint(versions) or any(text in found for text in each.made_from):
            found[each.card.ref] = each.card
    return [
        TrainedModel(model=ref, dataset=card.dataset, serves=serving.get(ref, [])) for ref, card in found.items()
    ]  # fmt: skip


def _swap_manifest(tx: Transaction, version: ErasedVersion) -> None:
    """The catalog names the new files; the version's report says how many rows were purged, and when last."""
    manifest = version.manifest
    report = json.loads(tx.execute(_REPORT, [manifest.name, manifest.version])[0][0])
    for quality, gone in version.qualities.items():
        report[quality] = max(0, report.get(quality, 0) - gone)
    if version.rows:
        before = report.get("purged", {}).get("rows", 0)
        report["purged"] = {"rows": before + version.rows, "when": tx.now}
    cells = [manifest.id, bytes.fromhex(version.lanes), manifest.model_dump_json(), json.dumps(report)]
    tx.execute(_SWAP, [*cells, manifest.name, manifest.version])


def _input_blobs(folders: Folders, jobs: Sequence[JobReference]) -> list[str]:
    """Blobs that the jobs were given: inline rows, labels."""
    blobs = Blobs(folders.blobs)
    named = {text for job in jobs for text in references.string_values(job.spec) if len(text) == 64 and text.isalnum()}
    return [blobs.path(text).relative_to(folders.root).as_posix() for text in sorted(named) if _is_hex(text)]


def _is_hex(text: str) -> bool:
    return set(text) <= set("0123456789abcdef")


def _run_folders(jobs: Sequence[JobReference]) -> list[str]:
    return [f"runs/{job.id}.{attempt}" for job in jobs for attempt in range(1, job.attempts + 1)]


def _purge_jobs(tx: Transaction, job: Job) -> list[JobReference]:
    """This purge's own runs so far, and those of earlier ones: they name what they looked for."""
    rows = tx.execute("SELECT id, kind, state, attempt FROM jobs WHERE kind IN ('erase', 'gc')")
    own = [JobReference(id, kind, state, attempts, {}, named=True) for id, kind, state, attempts in rows]  # noqa: A001
    return [other for other in own if other.ended or other.id == job.id]


def _exports_inside_and_outside(
    folders: Folders, exports: Sequence[JobReference]
) -> tuple[list[str], list[ExportOutside]]:
    """Paths of exports inside the workspace, and `{job, dataset, path}` of exports outside, beyond our reach."""
    inside: list[str] = []
    outside: list[ExportOutside] = []
    for job in exports:
        path = Path(str(job.spec["path"]))
        if path.is_relative_to(folders.exports):
            inside.append(path.relative_to(folders.root).as_posix())
        else:
            outside.append({"job": job.id, "dataset": str(job.spec["dataset"]), "path": str(path)})
    return inside, outside


KIND = Kind(name="erase", spec=EraseSpec, plan=plan, run="speciate.privacy.erase:run", collect=collect, commit=commit)
