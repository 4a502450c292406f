"""Jobs in the words of the Tasks extension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from speciate.jobs.job import Job, State
from speciate.server.job_view import job_view
from speciate.server.mcp.job_tasks import JobTasks, task_of
from speciate.server.tool_api import App
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app


@pytest.fixture
def app(workspace: Workspace) -> App:
    return make_app(workspace)


def as_task(app: App, job: Job, **changes: Any) -> Mapping[str, Any]:
    changed = job.model_copy(update=changes)
    return task_of(changed, job_view(app.engine, changed, 0))


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.WAITING, "working"), (State.QUEUED, "working"), (State.STARTING, "working"), (State.RUNNING, "working"),
        (State.PAUSED, "working"), (State.SUCCEEDED, "completed"), (State.FAILED, "completed"),
        (State.CANCELLED, "cancelled"), (State.DEAD, "failed"),
    ],
)  # fmt: skip
def test_every_state_has_a_status(app: App, state: State, status: str) -> None:
    task = as_task(app, app.engine.submit("greet", {}), state=state)
    assert task["status"] == status
    assert ("result" in task) == (status == "completed")
    assert ("error" in task) == (status == "failed")


def test_a_failed_job_is_a_task_with_an_error_result(app: App) -> None:
    task = as_task(app, app.engine.submit("greet", {"name": "nobody"}))
    assert task["result"]["isError"] is True
    assert "Nobody can be greeted" in task["result"]["content"][0]["text"]


def test_a_task_is_found_by_its_jobs_id_and_survives_us(app: App) -> None:
    job = app.engine.submit("greet", {})
    found = JobTasks(app.engine).find(job.id)
    assert found is not None
    assert found["taskId"] == job.id
    assert found["result"]["structuredContent"]["result"] == {"greeting": "hello world"}
    assert JobTasks(app.engine).find("job-no") is None


def test_cancelling_twice_is_no_error(app: App) -> None:
    job, tasks = app.engine.submit("wait", {"name": "for ever"}), JobTasks(app.engine)
    for _ in range(2):
        tasks.cancel(job.id)
    assert app.engine.get(job.id).state is State.CANCELLED
