"""The job kind `embed`: computes the vectors that a version lacks, so that similar examples are found at once.

It changes no dataset and registers nothing: what it computes lies in the cache of features, part by part, where the
next attempt, other jobs and other datasets find it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from speciate.datasets import scan
from speciate.datasets.similarity import extractors, similar
from speciate.datasets.versions import Manifest, resolve
from speciate.environment import cores
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run, Stopped
from speciate.sandbox import check
from speciate.workspace.workspace import Workspace


class EmbedSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    extractor: str | None = None
    """None: a base model of the modality where one is installed, else its descriptor."""


def plan(spec: EmbedSpec, workspace: Workspace) -> Plan:
    manifest = resolve(workspace.database, spec.dataset)
    name = extractors.resolve(spec.extractor, manifest.modality, workspace)
    model = name != extractors.DESCRIPTOR
    if not manifest.inputs or not model:
        check(workspace.settings.cage)
    return Plan(
        payload={"manifest": manifest.model_dump(mode="json"), "extractor": name},
        resources=Resources(cpu=1, memory_mb=2048 if model else 1024),
        preload="torch" if model else "",
        resolved={"dataset": manifest.ref, "extractor": name},
    )


def run(run: Run) -> dict[str, Any]:
    manifest = Manifest.model_validate(run.payload["manifest"])
    extractor = extractors.load(run.payload["extractor"], manifest.modality, run.folders, cores())

    def progress(done: int, total: int) -> None:
        if run.stopping:
            raise Stopped
        run.progress(done, total, "examples", f"embedding with {extractor.name}")

    rows = scan.read(run.folders, manifest, usable=True)
    filled = similar.fill(run.folders, manifest, rows, extractor, progress)
    return {"dataset": manifest.ref, "extractor": extractor.name, "computed": filled.computed, "cached": filled.cached}


KIND = Kind(name="embed", spec=EmbedSpec, plan=plan, run="speciate.datasets.similarity.embed:run")
