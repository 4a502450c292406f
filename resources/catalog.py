"""Resources of the catalog: dataset versions, models, evaluations, use cases, jobs, and the workspace's status.

Versions and evaluations never change; a subscription to a job brings each of its changes.
"""

from __future__ import annotations

from typing import Any

from speciate import use_cases
from speciate.datasets import versions
from speciate.evaluation.pages.page import render_page
from speciate.evaluation.pages.page_data import gather
from speciate.evaluation.reports.report import Report, find_report
from speciate.lineage.model_report import model_report
from speciate.loop.status import Status
from speciate.loop.status import status as workspace_status
from speciate.server.job_view import JobView, LogPiece, job_view, log_after
from speciate.server.tool_api import App, Result, resource
from speciate.use_cases import UseCase


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
    found = versions.version(app.workspace.database, f"{name}@v{version.removeprefix('v')}")
    manifest = found.manifest
    return DatasetVersion(
        version=manifest.ref, parents=tuple(found.parents), modality=manifest.modality, rows=manifest.rows,
        label=manifest.label, splits=manifest.splits, labels=manifest.labels, columns=manifest.columns,
        operation=found.operation, job=found.job,
    )  # fmt: skip


@resource("speciate://models/{name}/{version}", mime="text/markdown")
def model(app: App, name: str, version: str) -> str:
    """The card of a model version (v3): what made it, how good it was found, its licence and its limits."""
    return model_report(app.workspace, f"{name}@{version}").card


@resource("speciate://evaluations/{id}")
def evaluation(app: App, id: str) -> Report:  # noqa: A002 - the address's word
    """The whole report of one evaluation: leaderboard, comparisons and decision."""
    return find_report(app.workspace.database, id)


@resource("speciate://evaluations/{id}/page", mime="text/html")
def evaluation_page(app: App, id: str) -> str:  # noqa: A002 - the address's word
    """One evaluation for people, as one HTML file without scripts."""
    return render_page(gather(app.workspace, app.pool, id))


@resource("speciate://use-cases/{name}")
def use_case(app: App, name: str) -> UseCase:
    """The newest version of one use case: objective, limits, incumbent and gates."""
    return use_cases.get(app.workspace.database, name)


@resource("speciate://jobs/{job}")
def job(app: App, job: str) -> JobView:
    """State, progress, result and children of one job."""
    return job_view(app.engine, app.engine.get(job), log_lines=20)


@resource("speciate://jobs/{job}/log{?after}")
def job_log(app: App, job: str, after: int = 0) -> LogPiece:
    """The log of a job's newest attempt from byte `after` on; `next_after` continues it."""
    return log_after(app.engine, app.engine.get(job), after)


@resource("speciate://status")
def status(app: App) -> Status:
    """Use cases with their clocks, running jobs, pending approvals, and disk."""
    return workspace_status(app.workspace, sees_settings=False)
