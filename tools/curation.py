"""Curation: a dataset cleaned, chosen from, split and merged, as its next version."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from speciate.server.roots import check_refs
from speciate.server.surface import (
    App,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    JobStarted,
    NextAction,
    start_job,
    tool,
)

Steps = Annotated[
    list[dict[str, Any]],
    Field(
        min_length=1,
        max_length=20,
        description="In order, such as {op: 'filter', where: 'width > 64'}; ops: list_options(kind='operation').",
    ),
]


@tool()
def curate_dataset(
    app: App,
    dataset: Annotated[str, Field(description="name, name@v3 or name@TAG.")],
    steps: Steps,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Make the next version of a dataset by operations; starts a job. To change single labels call label_examples."""
    then = (NextAction(tool="describe_dataset", arguments={"dataset": dataset.partition("@")[0]}),)
    spec = {"dataset": dataset, "steps": [_checked(app, step) for step in steps]}
    return start_job(app, "curate", spec, idempotency_key=idempotency_key, dry_run=dry_run, next_actions=then)


def _checked(app: App, step: dict[str, Any]) -> dict[str, Any]:
    """With the whole path of a file that its model names; in other fields such words are data."""
    return {name: check_refs(app, value) if name == "model" else value for name, value in step.items()}
