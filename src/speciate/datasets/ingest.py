"""The job kind `ingest`: from a folder, a table or inline rows to the first or next version of a dataset.

Foreign bytes are decoded in caged processes only, several at a time; what this process reads is what they wrote and
the raw bytes that it packs. Every item gets a quality (ok, partial, refused, error) with a reason, and stays in the
version whatever it is: only rows of quality ok are ever loaded. Files are named by content, so that a repeated run
seals the same ones again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets.columns import KEY
from speciate.datasets.labels import Labelled, with_labels
from speciate.datasets.loader import read_rows
from speciate.datasets.lthash import Lanes, version_id
from speciate.datasets.rows import Rows, Wishes, assemble, counts, user_columns
from speciate.datasets.sealing import seal
from speciate.datasets.sources import Listing, check_source, listing
from speciate.datasets.survey import Survey, survey_media, survey_rows, survey_tables
from speciate.datasets.versions import Manifest, names, register, version
from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.ids import check_name
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.modalities import find
from speciate.sandbox import check
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.packs import PackWriter
from speciate.workspace.workspace import Workspace


class Labels(BaseModel):
    """A table of labels beside the media."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path = Field(description="CSV, JSONL or Parquet.")
    key: str = Field(description="Column with the path relative to this file or the source, or the file name.")
    column: str = Field(description="Column with the label.")


class IngestSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    source: Path | None = None
    """Absolute; a folder or a file."""
    rows: tuple[dict[str, Any], ...] | None = None
    modality: str = "auto"
    label: str | None = None
    """A column, or `folder`: the first folder below the source (and below train/, test/)."""
    labels: Labels | None = None
    inputs: tuple[str, ...] = ()
    group_by: str | None = None
    """A column, `folder`, or a regular expression whose first group is the key."""
    seed: int = 0


def plan(spec: IngestSpec, workspace: Workspace) -> Plan:
    """Checks all that names and sizes can tell."""
    check_name("dataset", spec.name)
    if (spec.source is None) == (spec.rows is None):
        given = "Neither source nor rows was" if spec.source is None else "Both source and rows were"
        raise SpeciateError(Code.INVALID, f"{given} given.", "Call create_dataset with one of source and rows.")
    if spec.rows is not None and not spec.rows:
        raise SpeciateError(Code.INVALID, "rows is empty: there is nothing to ingest.", "Call again with rows.")
    if spec.modality != "auto":
        find(spec.modality)
    size = check_source(spec.source) if spec.source is not None else 0
    if spec.labels is not None:
        check_source(spec.labels.path)
    check(workspace.settings.cage)
    resolved = {"name": spec.name, "source": str(spec.source or "rows"), "modality": spec.modality}
    earlier = _earlier(workspace, spec)
    payload = {
        "spec": spec.model_dump(mode="json"),
        "cage": workspace.settings.cage,
        "earlier": earlier and earlier.model_dump(mode="json"),
    }
    return Plan(payload=payload, resources=Resources(cpu=1, memory_mb=1024), bytes=size or None, resolved=resolved)


def _earlier(workspace: Workspace, spec: IngestSpec) -> Manifest | None:
    """The version whose rows keep their split in this one; another seed asks for another split."""
    if spec.name not in names(workspace.database):
        return None
    found = version(workspace.database, spec.name)
    return found.manifest if found.operation.get("seed", 0) == spec.seed else None


def run(run: Run) -> dict[str, Any]:
    """Reads, seals, and returns what `commit` registers."""
    spec = IngestSpec.model_validate(run.payload["spec"])
    rows, pack = _read(spec, run)
    file = seal(rows.table, run.folders.datasets / spec.name)
    root = run.folders.root
    manifest = Manifest(
        name=spec.name,
        version=0,
        id=version_id(rows.lanes),
        modality=rows.modality,
        files=(file.relative_to(root).as_posix(),),
        packs=(pack.relative_to(root).as_posix(),) if pack else (),
        columns=user_columns(rows.table),
        inputs=rows.inputs,
        label=rows.label,
        numeric=rows.numeric,
        splits=counts(rows.table, "split"),
        labels={} if rows.numeric else counts(rows.table, "label"),
        rows=rows.table.num_rows,
    )
    operation = {"op": "ingest", **spec.model_dump(mode="json", exclude={"name", "rows"}, exclude_none=True)}
    return {
        "manifest": manifest.model_dump(mode="json"),
        "lanes": rows.lanes.astype("<u2").tobytes().hex(),
        "operation": operation,
        "report": rows.report,
    }


def _read(spec: IngestSpec, run: Run) -> tuple[Rows, Path | None]:
    """The rows, and the pack of their media where those are files."""
    wishes = Wishes(spec.label, spec.inputs, spec.group_by, spec.seed, _kept(run))
    if spec.rows is not None:
        return assemble(survey_rows(list(spec.rows), spec.modality), wishes), None
    assert spec.source is not None
    found = listing(spec.source, spec.modality, skip=spec.labels.path if spec.labels else None)
    survey, renamed = _surveyed(found, spec, run)
    if spec.labels is not None:
        column, group = spec.labels.column, spec.group_by or ""
        wishes = wishes._replace(label=renamed.get(column, column), group_by=renamed.get(group, spec.group_by))
    rows = assemble(survey, wishes)
    rows.report["untrusted"]["renamed"] |= renamed
    return rows, _pack(survey, run) if survey.paths else None


def _kept(run: Run) -> dict[str, str]:
    """Key -> split of every row of the earlier version."""
    if run.payload["earlier"] is None:
        return {}
    rows = read_rows(run.folders, Manifest.model_validate(run.payload["earlier"])).select([KEY, "split"])
    return {row[KEY]: row["split"] for row in rows.to_pylist() if row["split"] is not None}


def _surveyed(found: Listing, spec: IngestSpec, run: Run) -> Labelled:
    unit = "files"

    def progress(done: int, total: int) -> None:
        if run.stopping:
            raise Stopped
        run.progress(done, total, unit, f"reading {spec.name}")

    pool = Pool(run.folders, Settings(cage=run.payload["cage"]), size=cores())
    try:
        survey = (survey_media if found.layout == "media" else survey_tables)(found, pool, progress)
        if spec.labels is None:
            return Labelled(survey, {})
        assert spec.source is not None
        return with_labels(survey, pool, spec.source, spec.labels.path, spec.labels.key)
    finally:
        pool.close()


def _pack(survey: Survey, run: Run) -> Path:
    """The bytes of what decoded wholly or in part. A file that changed since it was judged is refused."""
    with PackWriter(run.folders.packs) as writer:
        for path, sha256, quality in zip(survey.paths, survey.contents, survey.qualities, strict=True):
            if quality in ("ok", "partial") and writer.add(path.read_bytes()) != sha256:
                raise SpeciateError(
                    Code.CONFLICT,
                    f"{str(path)!r} changed while it was read.",
                    "Call create_dataset again once nothing writes there.",
                )
        return writer.seal()


class Collected(NamedTuple):
    manifest: Manifest
    lanes: Lanes
    operation: dict[str, Any]
    report: dict[str, Any]


def collect(folder: RunFolder) -> Collected:
    """Reads back what `run` returned."""
    result = folder.result()
    if result is None:
        raise SpeciateError(Code.INTERNAL, f"{folder.run_id} left no result.", "Call control_job(action='retry').")
    lanes = np.frombuffer(bytes.fromhex(result["lanes"]), "<u2").astype(np.uint16)
    return Collected(Manifest.model_validate(result["manifest"]), lanes, result["operation"], result["report"])


def commit(tx: Transaction, job: Job, collected: Collected) -> dict[str, Any]:
    manifest = register(
        tx,
        collected.manifest,
        collected.lanes,
        operation=collected.operation,
        report=collected.report,
        job=job.id,
    )
    return {"dataset": manifest.ref, "report": collected.report}


KIND = Kind(
    name="ingest", spec=IngestSpec, plan=plan, run="speciate.datasets.ingest:run", collect=collect, commit=commit
)
