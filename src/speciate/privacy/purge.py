"""Kind `forget`: an example or a group of examples out of everything that the workspace keeps, once a person agreed.

    erase-1 (erase-2 ...) -> sweep

`erase` rewrites the files and swaps what the catalog names; `sweep` deletes the old files and takes the request's own
words out of the catalog, of which the sha256 stays. Each step can be killed and repeated. What learned from the rows
cannot unlearn them: such models are named, to be deleted or trained again. docs/forgetting.md lists every place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TypedDict

from pydantic import BaseModel, ConfigDict

from speciate.datasets import versions
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError, unknown
from speciate.governance import approvals
from speciate.governance.approvals import Approval, ApprovalArguments
from speciate.governance.audit import Evidence
from speciate.jobs.job import ENDED, State
from speciate.jobs.kinds import Child, ChildRequest, Finished, Kind, NextStep
from speciate.jobs.pool import Pool
from speciate.jobs.store import enqueue_job
from speciate.privacy import erase, references
from speciate.privacy.erase import TrainedModel
from speciate.privacy.purge_datasets import RowCounts, SurveyRequest, Target
from speciate.refs import JobId
from speciate.workspace.database import Row, Transaction
from speciate.workspace.workspace import Workspace

_SURVEY = "speciate.privacy.purge_datasets:survey"
_SURVEY_SECONDS = 40.0
_MANIFESTS = "SELECT manifest FROM dataset_versions ORDER BY name, version"
_IDS = "SELECT name, version, id FROM dataset_versions ORDER BY name, version"
_ERASE, _SWEEP = "erase-", "sweep"
_PASSED_ON = ("since", "doomed")
"""Keys of what the first step found that the last one needs."""
_MOST_TRIES = 8


class ForgetSpec(BaseModel):
    """One of `group` and `example` until it is done; then only `sha256`, of which one they were."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    sha256: str
    group: str | None = None
    example: str | None = None
    as_of: str | None = None
    """A hash of the versions whose loss a person was shown; a changed one is refused."""

    @classmethod
    def of(cls, target: Target, as_of: str | None = None) -> ForgetSpec:
        text = json.dumps([target.dataset, target.group, target.example])
        return cls(**target.model_dump(), sha256=hashlib.sha256(text.encode()).hexdigest(), as_of=as_of)

    @property
    def target(self) -> Target:
        return Target(dataset=self.dataset, group=self.group, example=self.example)


class ExportedFile(BaseModel):
    model_config = ConfigDict(frozen=True)
    job: str
    dataset: str
    path: str


class PurgeSurvey(BaseModel):
    """What would go and which models saw it, as a person is shown it."""

    model_config = ConfigDict(frozen=True)
    examples: int
    not_asked_for_but_the_same: int
    versions: dict[str, int]
    """Ref -> rows that go."""
    models_that_saw_them: list[TrainedModel]
    evaluations: list[str]
    unreadable: list[str]
    """Damaged files, which nobody can search."""
    exports: list[ExportedFile]
    as_of: str
    """Hash of the versions that were searched."""
    also: str = (
        "Older backups, logs and run folders of jobs on these datasets are deleted, and answers about them in the logs "
        "of use cases. It cannot be undone."
    )

    def document(self) -> Evidence:
        return self.model_dump(mode="json", exclude=None if self.unreadable else {"unreadable"})


def survey(workspace: Workspace, pool: Pool, target: Target) -> PurgeSurvey:
    """Raises NOT_FOUND where no version holds such a row, CONFLICT where a job that has not ended works with one."""
    database = workspace.database
    if target.dataset not in versions.names(database):
        known = versions.names(database)
        raise unknown("dataset", target.dataset, known, next=[Call("describe_dataset", {}, "for all")])
    as_of = _versions_hash(database.read(_IDS))
    request = SurveyRequest(
        root=workspace.folders.root,
        versions=[Manifest.model_validate_json(text) for (text,) in database.read(_MANIFESTS)],
        target=target,
    )
    answer = pool.ask(_SURVEY, request.model_dump(mode="json"), timeout=_SURVEY_SECONDS)
    found = RowCounts.model_validate(answer)
    if not found.versions:
        by_group = target.group is not None
        noun, value = ("group", target.group) if by_group else ("example", target.example)
        there = "SELECT DISTINCT group_key FROM examples" if by_group else "SELECT id FROM examples"
        raise SpeciateError(
            Code.NOT_FOUND,
            f"No version of {target.dataset!r} holds the {noun} {value!r}.",
            next=[Call("query_dataset", {"dataset": target.dataset, "sql": there})],
        )
    rows = {ref: count for ref, count, _ in found.versions}
    names = sorted({ref.partition("@")[0] for ref in rows})
    references.refuse_busy(database, names)
    trained_on = [ref for ref, _, count in found.versions if count]
    return PurgeSurvey(
        examples=found.examples,
        not_asked_for_but_the_same=found.outside,
        versions=rows,
        models_that_saw_them=database.transact(lambda tx: erase.models_that_saw(tx, trained_on)),
        evaluations=found.evaluations,
        unreadable=found.unreadable,
        exports=[
            ExportedFile(job=job.id, dataset=str(job.spec["dataset"]), path=str(job.spec["path"]))
            for job in references.jobs_naming(database, names)
            if job.kind == "export" and job.named
        ],
        as_of=as_of,
    )


def request_purge(tx: Transaction, target: Target, found: PurgeSurvey, hours: float) -> Approval:
    """Ask a person to approve it; a pending question is not asked again."""
    arguments = ForgetSpec.of(target, found.as_of).model_dump(exclude_none=True)
    return approvals.request(tx, "purge", arguments, found.document(), subject=f"dataset:{target.dataset}", hours=hours)


class StartedPurge(TypedDict):
    job: JobId
    state: str


def apply_approved(tx: Transaction, arguments: ApprovalArguments, by: str) -> StartedPurge:
    """What `approvals.decide` calls once a person said yes. Raises CONFLICT where a job works with the dataset now, or
    where versions came or went since: a person agreed to what was shown, and there may be more."""
    spec = ForgetSpec.model_validate(arguments)
    if spec.as_of != _versions_hash(tx.execute(_IDS)):
        raise SpeciateError(
            Code.CONFLICT,
            "Versions of datasets were made or deleted since this was shown, so other rows may go.",
            f"Call manage_data(action='purge', ref={spec.dataset!r}, ...) to ask again.",
        )
    references.refuse_busy(tx, [spec.dataset])
    return {"job": enqueue_job(tx, KIND, spec.model_dump(exclude_none=True, exclude={"as_of"})), "state": "started"}


def _versions_hash(versions: Sequence[Row]) -> str:
    """What tells these versions (name, version, id) from any others."""
    return hashlib.sha256(json.dumps([list(row) for row in versions]).encode()).hexdigest()[:16]


def next_step(spec: ForgetSpec, children: Sequence[Child], now: float) -> NextStep:
    """Erase until nothing came between, then sweep. Pure."""
    if any(child.state not in ENDED for child in children):
        return []
    if failed := next((child for child in children if child.state != State.SUCCEEDED), None):
        said = (failed.error or {}).get("message") or f"it is {failed.state}"
        return Finished(error=f"{failed.step}: {said}", recovery="Call control_job(action='retry') on this job.")
    tries = [child for child in children if child.step.startswith(_ERASE)]
    erased = next((child.result for child in tries if child.result and "again" not in child.result), None)
    if erased is None:
        if len(tries) < _MOST_TRIES:
            return [
                ChildRequest(step=f"{_ERASE}{len(tries) + 1}", kind="erase", spec={"target": spec.target.model_dump()})
            ]
        why = (tries[-1].result or {}).get("again")
        return Finished(error=f"Nothing was forgotten: {why}.", recovery="Wait for those jobs, then ask again.")
    swept = next((child.result for child in children if child.step == _SWEEP), None)
    if swept is None:
        passed_on = {name: erased[name] for name in _PASSED_ON}
        return [ChildRequest(step=_SWEEP, kind="gc", spec={"purge": True, **passed_on})]
    report = {key: value for key, value in erased.items() if key not in _PASSED_ON}
    return Finished(result={"report": {**report, "bytes_freed": swept["bytes"], "catalog": _CATALOG}})


_CATALOG = (
    "Deleted cells stay readable in catalog.duckdb until it is rewritten: the daemon leaves now and does so; the next "
    "call starts another. Copies that were made outside this workspace (speciate backup, exports) were not reached."
)

KIND = Kind(name="forget", spec=ForgetSpec, next=next_step)
