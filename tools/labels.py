"""Labels for single examples, by a person, an agent or a model."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from speciate.datasets import versions
from speciate.datasets.columns import SHORTENED, class_name, is_shortened
from speciate.datasets.label import KIND as LABEL
from speciate.datasets.label import LabelSpec, check_labels
from speciate.errors import Code, SpeciateError
from speciate.jobs.job import State
from speciate.server.job_view import failure_error, wait_until
from speciate.server.tool_api import App, IdempotencyKey, JobStarted, NextAction, Result, make_spec, start_job, tool
from speciate.workspace.blobs import Blobs

_SECONDS = 40.0
_OLDER = "This starts from {start}: it lacks the changes of later versions, up to {newest}."
_REMOVED = "{count} examples lost their label and are excluded until they have one."
_OR_NULL = WithJsonSchema({"type": ["string", "number", "null"]})
"""Required: an optional label would remove labels silently."""


class Label(Result):
    id: str
    label: Annotated[str | int | float | None, _OR_NULL]


class LabelResult(Result):
    version: str
    parent: str
    changed: int
    warnings: tuple[str, ...] = ()
    next_actions: tuple[NextAction, ...] = ()


@tool()
def label_examples(
    app: App,
    dataset: Annotated[str, Field(description="name or name@v3.")],
    labels: Annotated[
        list[Label], Field(min_length=1, max_length=10_000, description="[{id, label}]; label null removes it.")
    ],
    source: Annotated[Literal["human", "agent", "model"], Field(description="Who gave them.")],
    idempotency_key: IdempotencyKey = None,
) -> LabelResult | JobStarted:
    """Set labels of single examples: the next version.

    For whole classes, call curate_dataset (relabel); for answers of production, record_feedback.
    """
    wanted = {label.id: label.label for label in labels}
    if len(wanted) < len(labels):
        raise SpeciateError(Code.INVALID, "An id occurs twice in labels.", "Call again with each id once.")
    check_labels(wanted)
    newest = versions.newest(app.workspace.database, versions.resolve(app.workspace.database, dataset).name).ref
    content = Blobs(app.workspace.folders.blobs).put(json.dumps(wanted, sort_keys=True).encode())
    spec = make_spec(LabelSpec, dataset=dataset, labels=content, source=source)
    started = start_job(app, LABEL, spec, idempotency_key=idempotency_key)
    assert isinstance(started, JobStarted)
    job = wait_until(app, started.job, "end", _SECONDS)
    if job.state is State.SUCCEEDED and job.result is not None:
        version = job.result["dataset"]
        then = (NextAction(tool="describe_dataset", arguments={"dataset": version}),)
        parent, changed = job.result["parent"], job.result["changed"]
        warnings = _warnings(job.result, wanted, newest)
        return LabelResult(version=version, parent=parent, changed=changed, warnings=warnings, next_actions=then)
    if job.state in (State.FAILED, State.CANCELLED, State.DEAD):
        raise failure_error(job)
    return started


def _warnings(result: dict[str, Any], wanted: dict[str, Any], newest: str) -> tuple[str, ...]:
    warnings = [_OLDER.format(start=result["parent"], newest=newest)] if result["parent"] != newest else []
    if result.get("removed"):
        warnings.append(_REMOVED.format(count=result["removed"]))
    if long := sum(map(is_shortened, {class_name(label) for label in wanted.values() if label is not None})):
        warnings.append(SHORTENED.format(count=long))
    return tuple(warnings)
