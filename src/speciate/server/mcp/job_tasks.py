"""The Tasks extension of the protocol (`io.modelcontextprotocol/tasks`): a job seen as a task, taskId == job id.

A client that speaks it gets a task where others get a job's handle, and asks with `tasks/get` until it ends. Nothing is
kept here: what a task is at this moment is read from the engine's row, so tasks survive daemon and connection. Other
places that tasks can come from are `TaskSource`s. Left out: pushing `notifications/tasks`.

A job that failed is a task that completed with an error result, for the tool did answer; a job that the engine gave up
on is a task that failed.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import anyio.to_thread
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp_types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, RequestParams
from pydantic import Field

from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Job, State
from speciate.server.job_view import JobView, failure_error, job_view
from speciate.server.mcp.library import MODERN_VERSIONS, caller_in, named_in_header
from speciate.server.mcp.render import JOB, render, render_error

TASKS = "io.modelcontextprotocol/tasks"

_HEADER_MISMATCH = -32020
_INTERNAL = -32603
_SHORT_POLL_MS, _LONG_POLL_MS = 1_000, 15_000
_SOON_SECONDS = 60


class TaskParams(RequestParams):
    task_id: str


class UpdateParams(TaskParams):
    input_responses: Mapping[str, Any] = Field(default_factory=dict)


Task = dict[str, Any]
"""A task in the protocol's words: taskId, status, createdAt, lastUpdatedAt, ttlMs, pollIntervalMs and what else its
status brings (statusMessage, result, error, inputRequests)."""


class TaskSource(Protocol):
    """Where tasks come from. Called from worker threads."""

    def find(self, task_id: str) -> Task | None:
        """The task as it is now, None where it is not one of these."""
        ...

    def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        """Take answers to a task's open questions; what was not asked is ignored."""
        ...

    def cancel(self, task_id: str) -> None:
        """Ask for the end of a task; nothing happens where it ended already."""
        ...


class JobTasks:
    """The engine's jobs as tasks. They never ask a client: approvals are a person's, by other ways."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, task_id: str) -> Task | None:
        try:
            job = self._engine.get(task_id)
        except SpeciateError as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise
        return task_of(job, job_view(self._engine, job, log_lines=0))

    def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        return None

    def cancel(self, task_id: str) -> None:
        if self._engine.get(task_id).state not in ENDED:
            self._engine.control(task_id, "cancel")


def task_of(job: Job, shown: JobView) -> Task:
    """A job in the protocol's words."""
    soon = shown.eta_seconds is None or shown.eta_seconds < _SOON_SECONDS
    task: Task = {
        "taskId": job.id,
        "status": "working",
        "createdAt": _iso(job.created),
        "lastUpdatedAt": _iso(job.changed),
        "ttlMs": None,  # jobs are kept
        "pollIntervalMs": _SHORT_POLL_MS if soon else _LONG_POLL_MS,
        "statusMessage": _message(job, shown),
    }
    match job.state:
        case State.SUCCEEDED:
            return {**task, "status": "completed", "result": _dump(render(shown))}
        case State.FAILED:
            return {**task, "status": "completed", "result": _dump(render_error(job.kind, failure_error(job)))}
        case State.DEAD:
            return {**task, "status": "failed", "error": {"code": _INTERNAL, "message": str(failure_error(job))}}
        case State.CANCELLED:
            return {**task, "status": "cancelled"}
        case _:
            return task


def _message(job: Job, shown: JobView) -> str:
    if shown.progress is None:
        return job.reason or str(job.state)
    done, total = shown.progress.done, shown.progress.total
    amount = f"{done:g} of {total:g}" if total else f"{done:g}"
    return f"{job.state}: {amount} {shown.progress.unit}".strip()


class Tasks(Extension):
    """The server's half. `required` names tools that only clients which speak of tasks may call."""

    identifier = TASKS

    def __init__(self, sources: Sequence[TaskSource]) -> None:
        self.sources = list(sources)
        self.required: set[str] = set()

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, self._get, protocol_versions=MODERN_VERSIONS),
            MethodBinding("tasks/update", UpdateParams, self._update, protocol_versions=MODERN_VERSIONS),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, protocol_versions=MODERN_VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        speaks = _speaks(ctx)
        if params.name in self.required and not speaks:
            require_client_extension(ctx, TASKS)
        result = await call_next(ctx)
        if not speaks or not isinstance(result, CallToolResult) or result.is_error:
            return result
        job = (result.meta or {}).get(JOB)
        return result if job is None else await self._created(job)

    async def _created(self, task_id: str) -> HandlerResult:
        _, task = await self._find(task_id)
        outcome = ("result", "error", "inputRequests")
        handle = {key: value for key, value in task.items() if key not in outcome}
        status = "working" if task["status"] == "input_required" else task["status"]
        return {"resultType": "task", **handle, "status": status}

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        _, task = await self._named(ctx, params)
        return {"resultType": "complete", **task}

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: UpdateParams) -> HandlerResult:
        source, _ = await self._named(ctx, params)
        await anyio.to_thread.run_sync(source.answer, params.task_id, params.input_responses)
        return {"resultType": "complete"}

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        if not caller_in(ctx).may_call("control_job", read_only=False):
            raise MCPError(code=INVALID_PARAMS, message="The role of this token cancels no task.")
        source, _ = await self._named(ctx, params)
        await anyio.to_thread.run_sync(source.cancel, params.task_id)
        return {"resultType": "complete"}

    async def _named(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> tuple[TaskSource, Task]:
        require_client_extension(ctx, TASKS)
        if not named_in_header(ctx, params.task_id):
            raise MCPError(code=_HEADER_MISMATCH, message="The Mcp-Name header is not the taskId.")
        return await self._find(params.task_id)

    async def _find(self, task_id: str) -> tuple[TaskSource, Task]:
        for source in self.sources:
            if (task := await anyio.to_thread.run_sync(source.find, task_id)) is not None:
                return source, task
        raise MCPError(code=INVALID_PARAMS, message=f"There is no task {task_id!r}.")


def _speaks(ctx: ServerRequestContext[Any, Any]) -> bool:
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities else None
    return TASKS in (declared or {}) and ctx.protocol_version in MODERN_VERSIONS


def _dump(result: CallToolResult) -> Mapping[str, object]:
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")
