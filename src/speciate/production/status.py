"""What is going on in a workspace: use cases with their clocks, deliveries, who waits for a person, disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate import usecases
from speciate.models import registry
from speciate.production import aliases, approvals, ledger
from speciate.production.approvals import Approval
from speciate.production.ledger import Deliveries, TimeToModel
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

_LIFECYCLE = """
SELECT seq, stamp, subject, type, data FROM events
WHERE type IN ('use_case.created', 'dataset.created', 'model.created', 'decision.made', 'alias.moved',
               'production.answered')
ORDER BY seq
"""
_LIVE_JOBS = """
SELECT use_case, list(id ORDER BY created) FROM jobs
WHERE use_case IS NOT NULL AND state IN ('waiting', 'queued', 'starting', 'running', 'paused') AND parent IS NULL
GROUP BY use_case
"""


class Step(NamedTuple):
    """A call worth making next."""

    tool: str
    arguments: dict[str, Any]


class UseCaseStatus(NamedTuple):
    name: str
    version: int
    task: str
    production: str | None
    previous: str | None
    time_to_model: TimeToModel
    running_jobs: list[str]
    """Without the children of composites."""
    waiting_for_person: list[str]
    """Ids of approvals."""
    next_steps: list[Step]


class Disk(NamedTuple):
    """Bytes of the filesystem that holds the workspace, and of the catalog in it."""

    total: int
    free: int
    catalog: int


class Status(NamedTuple):
    use_cases: list[UseCaseStatus]
    deliveries: Deliveries
    disk: Disk


def status(workspace: Workspace, use_case: str | None = None) -> Status:
    """Of all use cases, or of one. Raises NOT_FOUND for one that is not there."""
    database, now = workspace.database, workspace.clock.now()
    names = [usecases.get(database, use_case).name] if use_case else usecases.names(database)
    events = _events(workspace)
    jobs: dict[str, list[str]] = dict(database.read(_LIVE_JOBS))
    pending = approvals.listed(database, now, approvals.PENDING)
    return Status(
        [_of_use_case(workspace, name, events, jobs.get(name, []), pending, now) for name in names],
        ledger.deliveries(events, now),
        _disk(workspace),
    )


def _events(workspace: Workspace) -> list[Event]:
    rows = workspace.database.read(_LIFECYCLE)
    return [Event(seq, stamp, subject, kind, json.loads(data)) for seq, stamp, subject, kind, data in rows]


def _of_use_case(
    workspace: Workspace,
    name: str,
    events: Sequence[Event],
    jobs: list[str],
    pending: Sequence[Approval],
    now: float,
) -> UseCaseStatus:
    definition = usecases.get(workspace.database, name)
    pointers = aliases.of_use_case(workspace.database, name)
    clock = ledger.time_to_model(name, events, now)
    if clock.model:
        clock = ledger.time_to_model(name, events, now, _dataset_of(workspace, clock.model))
    waiting = [item.id for item in pending if item.arguments.get("use_case") == name]
    return UseCaseStatus(
        name=name,
        version=definition.version,
        task=definition.task,
        production=pointers.get("production"),
        previous=pointers.get("previous"),
        time_to_model=clock,
        running_jobs=jobs,
        waiting_for_person=waiting,
        next_steps=next_steps(name, pointers.get("production"), clock, jobs, waiting),
    )


def next_steps(
    use_case: str, production: str | None, clock: TimeToModel, jobs: Sequence[str], waiting: Sequence[str]
) -> list[Step]:
    """What brings a use case nearer to its model: wait for what runs, then for people, then start something."""
    if jobs:
        return [Step("wait_for_job", {"job": jobs[-1]})]
    if waiting:
        return [Step("list_approvals", {"state": approvals.PENDING})]
    if production is None:
        return [Step("describe_dataset", {}), Step("list_options", {"kind": "method"})]
    if clock.state == "open":
        return [Step("predict", {"use_case": use_case})]
    return []


def _dataset_of(workspace: Workspace, model: str) -> str | None:
    """The version that a model was trained on, without its split."""
    dataset = registry.resolve(workspace.database, workspace.folders, model).card.dataset
    return dataset.partition(":")[0] if dataset else None


def _disk(workspace: Workspace) -> Disk:
    usage = shutil.disk_usage(workspace.folders.root)
    catalog = workspace.folders.catalog
    return Disk(usage.total, usage.free, catalog.stat().st_size if catalog.exists() else 0)
