"""The job kind `ingest`: from a folder, a table or inline rows to the first or next version of a dataset.

Foreign bytes are decoded in caged processes only, several at a time; what this process reads is what they wrote and
the raw bytes that it packs. Every item gets a quality (ok, partial, refused, error) with a reason, and stays in the
version whatever it is: only rows of quality ok are ever loaded. Files are named by content, so that a repeated run
seals the same ones again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from speciate.datasets.lthash import Lanes
from speciate.datasets.rows import assemble
from speciate.datasets.sealing import seal
from speciate.datasets.sources import check_source, listing
from speciate.datasets.survey import survey_media, survey_rows, survey_tables
from speciate.datasets.versions import Manifest, register
from speciate.errors import Code, SpeciateError
from speciate.ids import check_name
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.modalities import find
from speciate.settings import Settings
from speciate.workspace.database import Transaction
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

    @model_validator(mode="after")
    def _one_source(self) -> IngestSpec:
        if (self.source is None) == (self.rows is None):
            raise ValueError("give either source or rows")
        return self


def plan(spec: IngestSpec, workspace: Workspace) -> Plan:
    """Checks all that names and sizes can tell."""
    check_name("dataset", spec.name)
    if spec.modality != "auto":
        find(spec.modality)
    size = 0
    if spec.source is not None:
        size = check_source(spec.source)
    elif not spec.rows:
        raise SpeciateError(Code.INVALID, "rows is empty: there is nothing to ingest.", "Call again with rows.")
    if spec.labels is not None:
        check_source(spec.labels.path)
    payload = {"spec": spec.model_dump(mode="json"), "cage": workspace.settings.cage}
    return Plan(payload=payload, resources=Resources(cpu=1, memory_mb=1024), bytes=size or None)


def run(run: Run) -> dict[str, Any]:
    spec = IngestSpec.model_validate(run.payload["spec"])
    settings = Settings(cage=run.payload["cage"])
    pool = Pool(run.folders, settings, size=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    try:
        if spec.rows is not None:
            surveyed = survey_rows(list(spec.rows))
        else:
            assert spec.source is not None
            found = listing(spec.source, spec.modality, skip=spec.labels.path if spec.labels else None)
            survey = survey_media if found.layout == "media" else survey_tables
            surveyed = survey(found, pool, run)
    finally:
        pool.close()
    raise NotImplementedError


KIND = Kind(name="ingest", spec=IngestSpec, plan=plan, run="speciate.datasets.ingest:run")
