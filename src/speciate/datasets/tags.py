"""Kind `tag`: a readable name for one version of a dataset, `lesions@gold`. Setting a tag again moves it."""

from __future__ import annotations

from typing import Literal, TypedDict

from pydantic import BaseModel, ConfigDict

from speciate.datasets.versions import resolve, tags
from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.job import Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.refs import check_tag, dataset_ref
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_EXISTS = "SELECT 1 FROM dataset_versions WHERE name = ? AND version = ?"


class TagSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    action: Literal["tag", "untag"]
    ref: str
    """`name@v3`, or for `untag` the bare name."""
    tag: str


class TagResult(TypedDict):
    dataset: str
    """Ref that the tag names, or named."""
    tag: str
    was: str | None
    """Ref that it named before."""


def plan(spec: TagSpec, workspace: Workspace) -> Plan:
    check_tag(spec.tag)
    manifest = resolve(workspace.database, spec.ref)
    if spec.action == "untag" and spec.tag not in tags(workspace.database, manifest.name):
        raise SpeciateError(
            Code.NOT_FOUND,
            f"Dataset {manifest.name!r} has no tag {spec.tag!r}.",
            next=[Call("describe_dataset", {"dataset": manifest.name}, "for its tags")],
        )
    payload = {"name": manifest.name, "version": manifest.version}
    return Plan(payload=payload, resources=Resources(cpu=0), seconds=0.0, resolved={"dataset": manifest.ref})


def act(tx: Transaction, spec: TagSpec, job: Job, settings: Settings) -> TagResult:
    ref = dataset_ref(spec.ref)
    before = tx.execute("SELECT version FROM dataset_tags WHERE name = ? AND tag = ?", [ref.name, spec.tag])
    if spec.action == "untag":
        tx.execute("DELETE FROM dataset_tags WHERE name = ? AND tag = ?", [ref.name, spec.tag])
        version = before[0][0] if before else None
    else:
        version = ref.version or (_tagged(tx, ref.name, ref.tag) if ref.tag else _newest(tx, ref.name))
        if not tx.execute(_EXISTS, [ref.name, version]):
            raise SpeciateError(Code.NOT_FOUND, f"There is no {ref.name}@v{version}.", next=[Call("describe_dataset")])
        tx.execute("INSERT OR REPLACE INTO dataset_tags VALUES (?, ?, ?)", [ref.name, spec.tag, version])
    moved_from = before[0][0] if before else None
    tx.event(f"dataset:{ref.name}", f"dataset.{spec.action}", {"tag": spec.tag, "version": version, "was": moved_from})
    return {"dataset": f"{ref.name}@v{version}", "tag": spec.tag, "was": moved_from and f"{ref.name}@v{moved_from}"}


def _tagged(tx: Transaction, name: str, tag: str) -> int | None:
    rows = tx.execute("SELECT version FROM dataset_tags WHERE name = ? AND tag = ?", [name, tag])
    return rows[0][0] if rows else None


def _newest(tx: Transaction, name: str) -> int:
    return int(tx.execute("SELECT max(version) FROM dataset_versions WHERE name = ?", [name])[0][0])


KIND = Kind(name="tag", spec=TagSpec, plan=plan, act=act)
