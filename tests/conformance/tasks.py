"""Tools of the conformance suite's `tasks-*` scenarios.

What only runs and ends is a real job of the engine, so that the suite sees the production path: rows, supervisor,
worker. What asks the client in the middle comes from a source in memory, for no job of ours does that.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import mcp_types as t
from mcp.server.mcpserver import Elicit, Resolve
from pydantic import BaseModel

from speciate.jobs.job import Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.server.mcp.app import Server
from speciate.server.mcp.job_tasks import Task
from speciate.server.mcp.render import JOB, render
from speciate.server.tool_api import show_started
from speciate.workspace.workspace import Workspace

WORK = Path(__file__).with_name("work.py")


class Sleep(BaseModel):
    seconds: float = 1.0
    label: str = ""


def plan(spec: Sleep, workspace: Workspace) -> Plan:
    return Plan(payload=spec.model_dump(), resources=Resources(cpu=0.0))


KINDS = (
    Kind(name="slow_compute", spec=Sleep, plan=plan, run=f"{WORK}:wait", limits=Limits(grace_seconds=1)),
    Kind(name="failing_job", spec=Sleep, plan=plan, run=f"{WORK}:fail"),
    # Given up by the engine: the nearest that a job comes to an error of the protocol.
    Kind(
        name="protocol_error_job", spec=Sleep, plan=plan, run=f"{WORK}:wait",
        limits=Limits(run_seconds=0.2, grace_seconds=0.2),
    ),
)  # fmt: skip


class Questions:
    """Tasks that wait for a client's answers and are complete with the last one."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._results: dict[str, str] = {}

    def open(self, result: str, *questions: str) -> str:
        task_id, now = secrets.token_urlsafe(16), _now()
        self._tasks[task_id] = {
            "taskId": task_id, "status": "input_required", "createdAt": now, "lastUpdatedAt": now,
            "ttlMs": 3_600_000, "pollIntervalMs": 500, "inputRequests": {name: _form(name) for name in questions},
        }  # fmt: skip
        self._results[task_id] = result
        if not questions:
            self._complete(task_id)
        return task_id

    def find(self, task_id: str) -> Task | None:
        return self._tasks.get(task_id)

    def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        asked = self._tasks[task_id].get("inputRequests", {})
        for name in responses:
            asked.pop(name, None)
        if not asked and self._tasks[task_id]["status"] == "input_required":
            self._complete(task_id)

    def cancel(self, task_id: str) -> None:
        if self._tasks[task_id]["status"] == "input_required":
            self._change(task_id, status="cancelled")

    def _complete(self, task_id: str) -> None:
        result = t.CallToolResult(content=[t.TextContent(type="text", text=self._results[task_id])])
        self._change(
            task_id, status="completed", result=result.model_dump(by_alias=True, mode="json", exclude_none=True)
        )

    def _change(self, task_id: str, **changes: Any) -> None:
        kept = {key: value for key, value in self._tasks[task_id].items() if key != "inputRequests"}
        self._tasks[task_id] = {**kept, **changes, "lastUpdatedAt": _now()}


def _form(name: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"confirm": {"type": "boolean"}}}
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": f"{name}?", "requestedSchema": schema},
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


def _handle(task_id: str) -> t.CallToolResult:
    return t.CallToolResult(content=[t.TextContent(type="text", text=f"{task_id} started")], _meta={JOB: task_id})


class Name(BaseModel):
    name: str


async def ask_name() -> Elicit[Name]:
    return Elicit("Your name?", Name)


def register(server: Server) -> None:
    questions, engine, mcp = Questions(), server.engine, server.mcp
    server.tasks.sources.append(questions)
    server.tasks.required.add("failing_job")
    for kind in KINDS:
        engine.kinds.add(kind)

    def job(kind: str, **spec: Any) -> t.CallToolResult:
        return render(show_started(engine.submit(kind, spec)))

    @mcp.tool()
    def greet(name: str) -> t.CallToolResult:
        """Answers at once."""
        return t.CallToolResult(content=[t.TextContent(type="text", text=f"Hello, {name}!")])

    @mcp.tool()
    def slow_compute(seconds: float = 1, label: str = "") -> t.CallToolResult:
        """A job that sleeps."""
        return job("slow_compute", seconds=seconds, label=label)

    @mcp.tool()
    def failing_job() -> t.CallToolResult:
        """A job that fails."""
        return job("failing_job")

    @mcp.tool()
    def protocol_error_job() -> t.CallToolResult:
        """A job that the engine gives up."""
        return job("protocol_error_job", seconds=60)

    @mcp.tool()
    def confirm_delete(filename: str = "x") -> t.CallToolResult:
        """Asks one thing."""
        return _handle(questions.open(f"deleted {filename}", "confirm"))

    @mcp.tool()
    def multi_input() -> t.CallToolResult:
        """Asks two things."""
        return _handle(questions.open("both answered", "first", "second"))

    @mcp.tool()
    async def test_tool_with_task(user: Annotated[Name, Resolve(ask_name)]) -> t.CallToolResult:
        """Asks first, then is a task."""
        return _handle(questions.open(f"hi {user.name}"))
