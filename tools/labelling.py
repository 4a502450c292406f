"""Labels for single examples, by whoever looked at them."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from speciate.errors import Code, SpeciateError
from speciate.jobs.job import State
from speciate.server.jobview import failure, wait
from speciate.server.surface import App, IdempotencyKey, JobStarted, NextAction, Result, start_job, tool
from speciate.workspace.blobs import Blobs

_SECONDS = 40.0


class Label(Result):
    id: str
    label: str | float | None


class Labelled(Result):
    version: str
    changed: int
    next_actions: tuple[NextAction, ...] = ()


@tool()
def label_examples(
    app: App,
    dataset: str,
    labels: Annotated[list[Label], Field(min_length=1, max_length=10_000, description="null takes a label away.")],
    source: Literal["human", "agent", "model"],
    idempotency_key: IdempotencyKey = None,
) -> Labelled | JobStarted:
    """Set labels of single examples: the next version. To rename whole classes, call curate_dataset(op='relabel')."""
    wanted = {label.id: label.label for label in labels}
    if len(wanted) < len(labels):
        raise SpeciateError(Code.INVALID, "An id occurs twice in labels.", "Call again with each id once.")
    content = Blobs(app.workspace.folders.blobs).put(json.dumps(wanted, sort_keys=True).encode())
    spec = {"dataset": dataset, "labels": content, "source": source}
    started = start_job(app, "label", spec, idempotency_key=idempotency_key)
    assert isinstance(started, JobStarted)
    job = wait(app, started.job, "end", _SECONDS)
    if job.state is State.SUCCEEDED and job.result is not None:
        version = job.result["dataset"]
        then = (NextAction(tool="describe_dataset", arguments={"dataset": version}),)
        return Labelled(version=version, changed=job.result["changed"], next_actions=then)
    if job.state in (State.FAILED, State.CANCELLED, State.DEAD):
        raise failure(job)
    return started
