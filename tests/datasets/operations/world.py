"""Operations run as jobs on small datasets, or called alone with a context of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets import version_rows
from speciate.datasets.curate import parse_steps
from speciate.datasets.operations.context import Context
from speciate.datasets.versions import Manifest, resolve
from speciate.jobs.folder import RunFolder
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.workspace.workspace import Workspace
from tests import data


class Curated(NamedTuple):
    manifest: Manifest
    rows: pa.Table
    steps: list[dict[str, Any]]

    def column(self, name: str, key: str = "id") -> dict[str, Any]:
        """Key -> cell."""
        return dict(zip(self.rows[key].to_pylist(), self.rows[name].to_pylist(), strict=True))


def read(workspace: Workspace, ref: str) -> pa.Table:
    return version_rows.read(workspace.folders, resolve(workspace.database, ref))


def curate(workspace: Workspace, dataset: str, *steps: dict[str, Any]) -> Curated:
    """The version that the steps made."""
    result = data.run_job(workspace, "curate", dataset=dataset, steps=steps)
    manifest = resolve(workspace.database, result["dataset"])
    return Curated(manifest, read(workspace, manifest.ref), result["steps"])


def context_of(workspace: Workspace, manifest: Manifest, pool: Pool, name: str = "job-alone") -> Context:
    folder = RunFolder(workspace.folders.runs / f"{name}.1")
    folder.create({"payload": {}, "job": name, "workspace": str(workspace.folders.root)})
    return Context(Run(folder), manifest, pool, {}, {}, {})


def apply(rows: pa.Table, context: Context, **step: Any) -> pa.Table:
    """The rows that one step makes of others."""
    (parsed,) = parse_steps([step])
    return parsed.operation.apply(rows, parsed.parameters, context).rows.sort_by("id")
