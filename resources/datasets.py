"""Dataset versions as resources. They never change."""

from __future__ import annotations

from typing import Any

from speciate.datasets.versions import version as find
from speciate.server.surface import App, Result, resource


class DatasetVersion(Result):
    version: str
    parents: tuple[str, ...]
    modality: str
    rows: int
    label: str | None = None
    splits: dict[str, int]
    labels: dict[str, int]
    columns: dict[str, str]
    operation: dict[str, Any]
    job: str | None = None


@resource("speciate://datasets/{name}/{version}")
def dataset_version(app: App, name: str, version: str) -> DatasetVersion:
    """What one version (`v3`) holds, and how it was made."""
    found = find(app.workspace.database, f"{name}@v{version.removeprefix('v')}")
    manifest = found.manifest
    return DatasetVersion(
        version=manifest.ref, parents=tuple(found.parents), modality=manifest.modality, rows=manifest.rows,
        label=manifest.label, splits=manifest.splits, labels=manifest.labels, columns=manifest.columns,
        operation=found.operation, job=found.job,
    )  # fmt: skip
