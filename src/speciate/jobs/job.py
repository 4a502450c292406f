"""A job as data: the row, its states, limits and resources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NotRequired

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from typing_extensions import TypedDict

from speciate.refs import JobId


class State(StrEnum):
    WAITING = "waiting"
    """It waits for other jobs."""
    QUEUED = "queued"
    """It waits for room, or for a backoff to pass."""
    STARTING = "starting"
    """The start is on disk; the run has not been seen alive yet."""
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The run itself said so: the same spec would fail again."""
    CANCELLED = "cancelled"
    DEAD = "dead"
    """Given up by the engine: retries used up, a limit, a dependency. `reason` says which; `retry` revives it."""


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.DEAD})
LIVE = frozenset({State.STARTING, State.RUNNING})


StoredSpec = dict[str, Any]
"""A job's spec as its row has it: JSON that `Kind.spec` of its kind validates."""
JobResult = dict[str, Any]
"""A job's result as its row has it: JSON that `Kind.commit` of its kind returned."""


class RunHandle(TypedDict):
    """How an executor finds a run again."""

    run: str
    """JOB.ATTEMPT: the name of its folder."""
    place: NotRequired[str]
    """A place of settings.toml; without it the run is on this machine."""
    folder: NotRequired[str]
    """Folder of the run in the place's depot, relative to it: known however the workspace is moved or copied."""


JobError = TypedDict(
    "JobError",
    {
        "class": str,  # Outcome.kind
        "code": str,  # errors.Code, of an inline job
        "message": str,
        "recovery": str,
        "detail": str,  # may quote anything
        "next": Sequence[Mapping[str, Any]],  # calls, as `Call.document` writes them
    },
    total=False,
)
"""Why a job failed, in our words; `detail` is what a library or a plug-in said."""


class Resources(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    cpu: float = 1.0
    memory_mb: int = 0
    gpu: int = 0
    named: dict[str, int] = Field(default_factory=dict)
    """Slots that a workspace defines, such as {"hf-hub": 1}."""
    place: str | None = None
    """A place of settings.toml; None: this machine."""
    nodes: int = 1
    """Nodes of the place that the run has together; cores, memory and GPUs are the sum of theirs."""

    @model_serializer(mode="wrap")
    def _leave_usual_out(self, dump: SerializerFunctionWrapHandler) -> Mapping[str, Any]:
        """As it was stored before there were places and nodes, where it is about this machine, or one node."""
        found: Mapping[str, Any] = dump(self)
        usual = {"place": None, "nodes": 1}
        return {name: value for name, value in found.items() if value != usual.get(name, ...)}


class Limits(BaseModel):
    """Seconds; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    queue_seconds: float | None = None
    run_seconds: float | None = None
    silence_seconds: float | None = None
    """Seconds that it may be without a line of progress."""
    grace_seconds: float = 20.0
    """Seconds between the polite request to stop and the kill."""
    retries: int = 3
    """Retries after transient errors; also how often a run that ran out of memory is tried smaller."""


class Job(BaseModel):
    model_config = ConfigDict(frozen=True)
    id: JobId
    kind: str
    spec: StoredSpec
    fingerprint: str
    key: str | None = None
    state: State
    attempt: int = 0
    priority: int = 0
    resources: Resources = Resources()
    estimate: float | None = None
    """Seconds that the plan expected, where it knew."""
    limits: Limits = Limits()
    not_before: float = 0.0
    parent: JobId | None = None
    step: str | None = None
    use_case: str | None = None
    executor: str = "local"
    handle: RunHandle | None = None
    request: str | None = None
    request_at: float | None = None
    retries: int = 0
    """Transient errors and shortages of memory. An explicit `retry` sets these and `losses` back to 0."""
    shrinks: int = 0
    losses: int = 0
    """Runs lost in a row: one that came further than those before it counts as the first."""
    run_seconds: float = 0.0
    reason: str | None = None
    """Why it ended, is paused, is being stopped or was queued again. None once it has succeeded: what earlier attempts
    died of is in the events."""
    result: JobResult | None = None
    error: JobError | None = None
    created: float
    changed: float
    started: float | None = None
    ended: float | None = None

    @property
    def shown_state(self) -> State:
        """The state in clients' words: a job that the engine gave up failed; its reason begins with `timed_out`,
        `lost`, `needs_failed` or `gave up after`. Rows keep `dead`."""
        return State.FAILED if self.state is State.DEAD else self.state

    @property
    def run_id(self) -> str:
        """The name of the newest attempt's run folder, and the idempotency key of its launch."""
        return f"{self.id}.{self.attempt}"


_NOT_COMPARED = ("actor", "ways", "shortlist", "test_examples", "least_seconds", "looks", "at_once")
"""Who asks; and which candidates there were at the call, and looks at the test rows: the first call itself may have
changed them."""


def fingerprint(kind: str, spec: Mapping[str, Any]) -> str:
    """What makes two requests the same: sha256 over kind and spec, whatever the order of keys."""
    compared = {name: value for name, value in spec.items() if name not in _NOT_COMPARED}
    return hashlib.sha256(json.dumps([kind, compared], sort_keys=True, default=str).encode()).hexdigest()
