"""Datasets for other tools and other people: a version as files."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from speciate.server.roots import check_writable
from speciate.server.surface import App, DryRun, DryRunFlag, IdempotencyKey, JobStarted, start_job, tool


@tool()
def export_dataset(
    app: App,
    dataset: Annotated[str, Field(description="`name`, `name@v3` or `name@v3:test`.")],
    format: Annotated[str, Field(description="list_options(kind='format')")],  # noqa: A002 - the tool's argument
    path: Annotated[str, Field(description="New folder.")],
    identified: Annotated[bool, Field(description="DICOM files leave with the names of people in them.")] = False,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Write a dataset's usable rows, their media and a card to a new folder; starts a job. Never overwrites."""
    spec = {"dataset": dataset, "format": format, "path": str(check_writable(app, path)), "identified": identified}
    return start_job(app, "export", spec, idempotency_key=idempotency_key, dry_run=dry_run)
