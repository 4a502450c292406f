"""The job kind `refresh`: asks the sources of models again, and rebuilds the table that `search_models` searches.

If a source is unavailable, its known entries stay, and the result says so.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict, cast

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from speciate.errors import SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run, Stopped
from speciate.models import packaged
from speciate.models.search import embeddings, index, package_sources, sources
from speciate.models.search.index import SourceListing
from speciate.workspace.blobs import write_durably
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Folders, Workspace

_MOST_NEW = 500


class RefreshSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    sources: tuple[str, ...] = ()
    """Empty: all that are installed, and the hub."""
    vectors: bool = False
    """Embed descriptions, too: minutes for the whole table, later only new ones."""


class RefreshPayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    sources: tuple[str, ...]
    vectors: bool = False


def plan(spec: RefreshSpec, workspace: Workspace) -> Plan[RefreshPayload]:
    for name in spec.sources:
        sources.find(name)
    wanted = spec.sources or tuple(sources.table())
    if spec.vectors:
        packaged.locate(embeddings.PACKAGE)  # refused here, before there is a job
    return Plan(
        payload=RefreshPayload(sources=wanted, vectors=spec.vectors),
        resolved={"sources": list(wanted)},
        preload="torch",
    )


class NewModel(TypedDict):
    """A model that the table before did not have."""

    ref: str
    modalities: list[str]
    license: str | None
    parameters: int | None


class RefreshResult(TypedDict):
    models: int
    new: NotRequired[list[NewModel]]
    """The most fetched first, at most 500; not in results of earlier versions."""
    new_count: NotRequired[int]
    asked: list[str]
    """Sources."""
    missed: dict[str, str]
    """Source -> why."""
    embedded: NotRequired[int]


def run(run: Run) -> RefreshResult:
    payload = run.read_payload(RefreshPayload)
    before = index.read(newest(run.folders))
    sizes, date = index.known_sizes(before), time.strftime("%Y-%m-%d", time.gmtime())
    listings: list[SourceListing] = []
    missed: dict[str, str] = {}
    for number, name in enumerate(payload.sources):
        if run.stopping:
            raise Stopped
        run.progress(number, len(payload.sources), "sources", name)
        source = sources.find(name)
        if not source.installed():
            if source.package is not None:
                missed[name] = f"The package {source.package!r} is not installed."
            continue
        try:
            listings.append(SourceListing(name, source.origin(), date, list(source.entries())))
        except SpeciateError as error:
            missed[name] = error.message
        if name == "timm":
            sizes |= _sizes(run, sizes)
    listed = sorted(each.source for each in listings)
    made = index.merge(listings, sizes, before)
    index.write(made, run.folder.outputs / index.SHIPPED.name)
    new = new_models(before, made)
    result: RefreshResult = {
        "models": made.num_rows, "asked": listed, "missed": missed, "new": new[:_MOST_NEW], "new_count": len(new),
    }  # fmt: skip
    if payload.vectors:
        result["embedded"] = _embed(run, made)
    return result


def new_models(before: pa.Table, after: pa.Table) -> list[NewModel]:
    """Rows of `after` whose ref `before` has not, the most fetched first."""
    known = set(before["ref"].to_pylist())
    rows = after.select(["ref", "modalities", "license", "parameters", "downloads"]).to_pylist()
    fresh = sorted(
        (row for row in rows if row["ref"] not in known), key=lambda row: (-(row["downloads"] or 0), row["ref"])
    )
    return [
        {"ref": row["ref"], "modalities": list(row["modalities"] or ()), "license": row["license"],
         "parameters": row["parameters"]}
        for row in fresh
    ]  # fmt: skip


def _embed(run: Run, table: pa.Table) -> int:
    """Embed new texts of the index; returns how many."""

    def progress(done: int, total: int) -> None:
        if run.stopping:
            raise Stopped
        run.progress(done, total, "models", "embedding descriptions")

    return embeddings.embed_texts(run.folders.cache / "models", embeddings.texts(table), progress)


def _sizes(run: Run, known: dict[str, int]) -> dict[str, int]:
    """Architecture -> parameters, for networks that are not counted yet."""
    found = {}
    for architecture, count in package_sources.timm_parameters(known):
        if run.stopping:
            raise Stopped
        found[architecture] = count
    return found


def newest(folders: Folders) -> Path:
    """The table that a refresh made, else the one that came with the package."""
    refreshed = folders.cache / "models" / index.SHIPPED.name
    return refreshed if refreshed.is_file() else index.SHIPPED


class RefreshedTable(NamedTuple):
    table: Path
    result: RefreshResult
    root: Path


def collect(folder: RunFolder) -> RefreshedTable:
    table = folder.outputs / index.SHIPPED.name
    assert pc.count(index.read(table)["ref"]).as_py()
    result = cast(RefreshResult, folder.result() or {})
    return RefreshedTable(table=table, result=result, root=Path(folder.spec()["workspace"]))


def commit(tx: Transaction, job: Job, made: RefreshedTable) -> RefreshResult:
    target = Folders(made.root).cache / "models" / index.SHIPPED.name
    target.parent.mkdir(parents=True, exist_ok=True)
    write_durably(target, made.table.read_bytes())
    tx.event("models", "models.refreshed", {"models": made.result["models"], "job": job.id})
    return made.result


KIND = Kind(
    name="refresh",
    spec=RefreshSpec,
    plan=plan,
    run="speciate.models.search.refresh:run",
    collect=collect,
    commit=commit,
)
