"""Jobs: list, show, wait for and control them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from speciate.server.job_view import (
    JobLine,
    JobView,
    job_lines,
    job_view,
    learning_curves,
    training_samples,
    wait_until,
)
from speciate.server.tool_api import App, Cursor, Limit, Result, ToolImage, tool

JobRef = Annotated[str, Field(description="Its id.")]
StateName = Literal["waiting", "queued", "starting", "running", "paused", "succeeded", "failed", "cancelled", "dead"]


class JobList(Result):
    jobs: tuple[JobLine, ...]
    next_cursor: str | None = None


class ControlResult(Result):
    job: str
    state: str
    request: str | None = None


@tool(read_only=True)
def list_jobs(
    app: App,
    state: Annotated[StateName | None, Field(description="Only these.")] = None,
    kind: Annotated[str | None, Field(description="ingest, curate, train, evaluate, specialize ...")] = None,
    use_case: Annotated[str | None, Field(description="Only jobs for it.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> JobList:
    """List jobs, newest first. For progress, result and log of one, call get_job; for a use case, get_status."""
    jobs = app.engine.list(state=state, kind=kind, use_case=use_case, limit=limit + 1, before=cursor)
    shown = job_lines(app.engine, jobs[:limit])
    return JobList(jobs=shown, next_cursor=shown[-1].job if len(jobs) > limit else None)


@tool(read_only=True)
def get_job(
    app: App,
    job: JobRef,
    log_lines: Annotated[int, Field(ge=0, le=1000, description="The last ones.")] = 20,
    metrics: Annotated[bool, Field(description="With learning curves and a plot.")] = False,
) -> tuple[JobView, *tuple[ToolImage, ...]]:
    """Show state, progress, result or error, and log of one job. To wait until it ends, call wait_for_job."""
    found = app.engine.get(job)
    shown = job_view(app.engine, found, log_lines)
    curves = learning_curves(app.engine, app.pool, found) if metrics else None
    if curves is None:
        return (shown,)
    samples = training_samples(app.engine, found)
    shown, drawn = shown.model_copy(update={"learning": curves.curves}), ToolImage(curves.png)
    return (shown, drawn, ToolImage(samples)) if samples else (shown, drawn)


@tool(read_only=True)
def wait_for_job(
    app: App,
    job: JobRef,
    until: Annotated[
        Literal["end", "change"], Field(description="change: the next state, child or checkpoint.")
    ] = "end",
    timeout_seconds: Annotated[float, Field(ge=0, le=45, description="Then: the state so far.")] = 30,
) -> JobView:
    """Wait until a job ends or changes, at most 45 s; call again if it still runs. To see it now, call get_job."""
    return job_view(app.engine, wait_until(app, job, until, timeout_seconds), log_lines=5)


@tool(destructive=True, idempotent=True)
def control_job(
    app: App,
    job: JobRef,
    action: Annotated[
        Literal["cancel", "pause", "resume", "retry"],
        Field(description="cancel, pause keep a checkpoint."),
    ],
    expected_attempt: Annotated[int | None, Field(ge=0, description="Refused if another runs.")] = None,
) -> ControlResult:
    """Cancel, pause, resume or retry a job and its children. A running one ends a moment later: call wait_for_job.

    To take back what a job promoted, call rollback_model.
    """
    changed = app.engine.control(job, action, expected_attempt)
    return ControlResult(job=changed.id, state=changed.shown_state, request=changed.request)
