"""Datasets and models for other tools and other people: a version as files."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from speciate.production.export_model import ModelFormat
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


@tool()
def export_model(
    app: App,
    model: Annotated[str, Field(description="name, name@v3, USE_CASE@production or pkg:NAME.")],
    path: Annotated[str, Field(description="New folder.")],
    format: ModelFormat = "safetensors",  # noqa: A002 - the tool's argument
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Write a model and its card to a new folder, as transformers loads it where it has a class for it; starts a job.

    `register_model(source='path:...')` takes such a folder back. Never overwrites.
    """
    spec = {"model": model, "format": format, "path": str(check_writable(app, path))}
    return start_job(app, "export_model", spec, idempotency_key=idempotency_key, dry_run=dry_run)
