"""Labels for single examples, by whoever looked at them."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from speciate.datasets import versions
from speciate.errors import Code, SpeciateError
from speciate.jobs.job import State
from speciate.server.jobview import failure, wait
from speciate.server.surface import App, IdempotencyKey, JobStarted, NextAction, Result, start_job, tool
from speciate.workspace.blobs import Blobs

_SECONDS = 40.0
_OLDER = "This starts from {start}: what the versions after it changed, up to {newest}, is not in it."


class Label(Result):
    id: str
    label: str | float | None = None


class Labelled(Result):
    version: str
    parent: str
    changed: int
    warnings: tuple[str, ...] = ()
    next_actions: tuple[NextAction, ...] = ()


@tool()
def label_examples(
    app: App,
    dataset: str,
    labels: Annotated[list[Label], Field(min_length=1, max_length=10_000, description="No `label` takes it away.")],
    source: Literal["human", "agent", "model"],
    idempotency_key: IdempotencyKey = None,
) -> Labelled | JobStarted:
    """Set labels of single examples: the next version. For whole classes, curate_dataset(steps=[{'op': 'relabel'}])."""
    wanted = {label.id: label.label for label in labels}
    if len(wanted) < len(labels):
        raise SpeciateError(Code.INVALID, "An id occurs twice in labels.", "Call again with each id once.")
    newest = versions.newest(app.workspace.database, versions.resolve(app.workspace.database, dataset).name).ref
    content = Blobs(app.workspace.folders.blobs).put(json.dumps(wanted, sort_keys=True).encode())
    spec = {"dataset": dataset, "labels": content, "source": source}
    started = start_job(app, "label", spec, idempotency_key=idempotency_key)
    assert isinstance(started, JobStarted)
    job = wait(app, started.job, "end", _SECONDS)
    if job.state is State.SUCCEEDED and job.result is not None:
        version = job.result["dataset"]
        then = (NextAction(tool="describe_dataset", arguments={"dataset": version}),)
        parent, changed = job.result["parent"], job.result["changed"]
        warnings = (_OLDER.format(start=parent, newest=newest),) if parent != newest else ()
        return Labelled(version=version, parent=parent, changed=changed, warnings=warnings, next_actions=then)
    if job.state in (State.FAILED, State.CANCELLED, State.DEAD):
        raise failure(job)
    return started
