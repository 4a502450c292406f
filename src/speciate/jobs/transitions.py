"""Every change of a job's state, as one pure function: `decide(job, event, now) -> job`.

Nothing else decides about states; the store only writes down what this returns. An event that no longer applies (the
job has ended meanwhile, a second look at the same exit) returns the job unchanged, so that each may be told again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.folder import Outcome
from speciate.jobs.job import ENDED, LIVE, Job, JobError, JobResult, Resources, RunHandle, State

MAX_LOSSES = 20
"""Runs lost one after the other without a line of progress before a job is given up."""
CANCELLED_REASON = "cancelled on request"
PAUSED_REASON = "paused on request"
COPIED_REASON = "paused, because this workspace is a copy of another one, which may run it itself"
"""`speciate resume` starts paused jobs with this reason and no others."""


@dataclass(frozen=True)
class NeedsMet:
    """All jobs that it waited for have succeeded."""


@dataclass(frozen=True)
class NeedsFailed:
    reason: str


@dataclass(frozen=True)
class Claimed:
    """Room was found: the next attempt is on disk before anything is launched."""

    handle: RunHandle
    resources: Resources = field(default_factory=Resources)
    """What its plan asks for: a child's is known only now."""


@dataclass(frozen=True)
class SeenAlive:
    attempt: int


@dataclass(frozen=True)
class Exited:
    """The run of `attempt` ended with an outcome, and its claim is free."""

    attempt: int
    outcome: Outcome
    result: JobResult | None = None
    progressed: bool = False
    """Whether it came further than the attempts before it."""
    ran: float | None = None
    """Seconds, by what counts on however the clock is set; None: by the clock."""


@dataclass(frozen=True)
class Lost:
    """The run of `attempt` left no outcome and its claim is free."""

    attempt: int
    progressed: bool
    ran: float | None = None


@dataclass(frozen=True)
class Abandoned:
    """The run of `attempt` was to be cancelled and its place cannot be seen any more: nobody waits for its word."""

    attempt: int
    why: str
    ran: float | None = None
    """Seconds until something was last heard of it."""


@dataclass(frozen=True)
class Acted:
    """An inline job was done, or a composite came to its end."""

    result: Mapping[str, object]


@dataclass(frozen=True)
class Failed:
    """The job cannot be run: its plan was refused, or its inline act or composite step failed."""

    error: JobError


@dataclass(frozen=True)
class Overdue:
    """A limit passed: 'queue', 'run' or 'silence'."""

    limit: str
    seconds: float


@dataclass(frozen=True)
class NoRoom:
    """The disk is nearly full, or somebody waits for what a run in the background holds: it stops at a checkpoint, and
    resumes when there is room."""

    reason: str


@dataclass(frozen=True)
class Stepped:
    """A composite asked for its first children."""


@dataclass(frozen=True)
class ChildrenGone:
    """A composite that was asked to stop has no child left."""


@dataclass(frozen=True)
class WorkspaceCopied:
    """It is found in a copy of its workspace: what runs of it is the original's, and nothing here may touch that."""


@dataclass(frozen=True)
class ActionRequested:
    """Somebody wants it: 'cancel', 'pause', 'resume' or 'retry'."""

    action: str
    expected_attempt: int | None = None


Happening = (
    NeedsMet
    | NeedsFailed
    | Claimed
    | SeenAlive
    | Exited
    | Lost
    | Abandoned
    | Acted
    | Failed
    | Overdue
    | NoRoom
    | Stepped
    | ChildrenGone
    | WorkspaceCopied
    | ActionRequested
)


def backoff(retry: int) -> float:
    """Seconds before retry number `retry` (from 1): 1, 4, 16, 64, at most 5 minutes."""
    return min(300.0, 4.0 ** (retry - 1))


def decide(job: Job, event: Happening, now: float) -> Job:
    """The job after `event`. Raises SpeciateError only for an `ActionRequested` that makes no sense."""
    if job.state in ENDED and not isinstance(event, ActionRequested):
        return job
    if isinstance(event, Exited | Lost | Abandoned) and event.ran is not None and _is_of(job, event.attempt):
        return _with_run_time(job, event, now, event.ran)
    return _decide(job, event, now)


def _with_run_time(job: Job, event: Happening, now: float, ran: float) -> Job:
    """With the run's time as it was measured, where the clock says another one."""
    after = _decide(job, event, now)
    if job.started is None or after is job:
        return after
    return after.model_copy(update={"run_seconds": job.run_seconds + ran})


def _decide(job: Job, event: Happening, now: float) -> Job:
    match event:
        case ActionRequested():
            return _act_on_request(job, event, now)
        case NeedsMet():
            return _to(job, State.QUEUED, now) if job.state is State.WAITING else job
        case NeedsFailed(reason):
            return _end(job, State.DEAD, now, reason=f"needs_failed: {reason}") if job.state is State.WAITING else job
        case Claimed(handle, resources):
            if job.state is not State.QUEUED:
                return job
            return _to(
                job, State.STARTING, now, attempt=job.attempt + 1, handle=handle, resources=resources, started=now
            )  # fmt: skip
        case SeenAlive(attempt):
            if job.state is not State.STARTING or job.attempt != attempt:
                return job
            begun = {"started": now} if job.resources.place else {}  # its turn in a cluster's queue is no run time
            return _to(job, State.RUNNING, now, **begun)
        case Exited(attempt):
            return _exited(job, event, now) if _is_of(job, attempt) else job
        case Lost(attempt, progressed):
            return _lost(job, progressed, now) if _is_of(job, attempt) else job
        case Abandoned(attempt, why, _):
            if not _is_of(job, attempt) or job.request != "cancel":
                return job
            return _end(job, State.CANCELLED, now, reason=f"{job.reason or CANCELLED_REASON}; {why}")
        case Acted(result):
            if job.state not in {State.QUEUED, State.RUNNING}:
                return job
            return _end(
                job, State.SUCCEEDED, now, attempt=max(job.attempt, 1), result=result, error=None, reason=None
            )  # fmt: skip
        case Failed(error):
            return _failed(job, error, now)
        case Stepped():
            if job.state is not State.QUEUED:
                return job
            return _to(job, State.RUNNING, now, attempt=max(job.attempt, 1), started=job.started or now)
        case ChildrenGone():
            return _end(job, State.CANCELLED, now) if job.request == "cancel" else job
        case WorkspaceCopied():
            return _copied(job, now)
        case Overdue(limit, seconds):
            return _overdue(job, limit, seconds, now)
        case NoRoom(reason):
            if job.state not in LIVE or job.request:
                return job
            return job.model_copy(update={"request": "hold", "request_at": now, "reason": reason, "changed": now})


def _is_of(job: Job, attempt: int) -> bool:
    return job.state in LIVE and job.attempt == attempt


def _exited(job: Job, event: Exited, now: float) -> Job:
    outcome = event.outcome
    if outcome.kind == "ok":
        # Done before it could be stopped; what earlier attempts died of is in the events.
        return _end(job, State.SUCCEEDED, now, result=event.result or {}, error=None, reason=None)
    if outcome.kind in {"killed", "starved"}:
        return _lost(job, event.progressed, now, starved=outcome.kind == "starved")
    error: JobError = {"class": outcome.kind, "message": outcome.message, "recovery": outcome.recovery}
    if outcome.detail:
        error["detail"] = outcome.detail
    if outcome.next:
        error["next"] = outcome.next
    if job.request in {"cancel", "stop"} or outcome.kind == "stopped":
        return _stopped(job, now)
    if outcome.kind == "full":
        return _full(job, event.progressed, now, error)
    if outcome.kind not in {"transient", "memory"}:
        reason = outcome.message or f"its run ended with code {outcome.code}"
        return _end(job, State.FAILED, now, error=error, reason=reason)
    retry = job.retries + 1
    if retry > job.limits.retries:
        reason = f"gave up after {job.limits.retries} retries: {outcome.message}"
        return _end(job, State.DEAD, now, error=error, reason=reason)
    if outcome.kind == "memory":
        again = {"shrinks": job.shrinks + 1, "not_before": now, "reason": "ran out of memory; tried again smaller"}
    else:
        again = {"not_before": now + backoff(retry), "reason": f"retry {retry}: {outcome.message}"}
    return _try_again(job, now, retries=retry, error=error, **again)


def _full(job: Job, progressed: bool, now: float, error: JobError) -> Job:
    """It met a full disk before it was told to stop. That uses up no retry: it begins again only when there is room."""
    losses = 1 if progressed else job.losses + 1
    if losses >= MAX_LOSSES:
        reason = f"lost: its run met a full disk {losses} times without progress"
        return _end(job, State.DEAD, now, losses=losses, error=error, reason=reason)
    pause = min(60.0, 2.0 ** (losses - 1))
    return _try_again(job, now, losses=losses, not_before=now + pause, error=error, reason=error["message"])


def _lost(job: Job, progressed: bool, now: float, *, starved: bool = False) -> Job:
    """`starved`: the system killed it for want of memory, maybe another program's; that passes, so no retry is used."""
    if job.request:  # the kill may be ours, when its grace had passed: it counts for nothing
        return _stopped(job, now)
    losses = 1 if progressed else job.losses + 1
    if losses >= MAX_LOSSES:
        why = "for want of memory" if starved else "(see the log; out of memory?)"
        reason = f"lost: its run was killed {losses} times without progress {why}"
        return _end(job, State.DEAD, now, losses=losses, reason=reason)
    pause = min(60.0, 2.0 ** (losses - 1) - 1)
    killed = "the system ended its run for want of memory" if starved else "its run was killed"
    return _requeue(
        job,
        now,
        losses=losses,
        shrinks=job.shrinks + (starved or losses > 1),  # killed twice at one place: most likely for want of memory, too
        not_before=now + pause,
        reason=f"{killed}; it resumes from its last checkpoint, or starts again if there is none yet",
    )


def _stopped(job: Job, now: float) -> Job:
    """The run is gone, on request or by a shutdown. Who requested it has said why in `reason`."""
    match job.request:
        case "cancel":
            return _end(job, State.CANCELLED, now)
        case "stop":
            return _end(job, State.DEAD, now)
        case "pause":
            return _to_pause(job, now)
        case "hold":
            return _requeue(job, now, not_before=now)
        case _:
            return _requeue(job, now, not_before=now, reason="its run was stopped; it resumes from the last checkpoint")


def _copied(job: Job, now: float) -> Job:
    """Nothing of its run is here, so a request is met at once; and what somebody paused is not resumed with the rest.
    How long its run took is for the original to know."""
    if job.state is State.PAUSED:
        return job
    asked = job.request in {"cancel", "stop", "pause"}
    after = _stopped(job, now) if asked else _to_pause(job, now, reason=COPIED_REASON)
    return after.model_copy(update={"handle": None, "run_seconds": job.run_seconds})


def _failed(job: Job, error: JobError, now: float) -> Job:
    if job.state in {State.WAITING, State.PAUSED}:
        return job  # taken from the queue meanwhile: its next start finds out whether it still cannot be run
    if job.request in {"cancel", "stop"}:
        return _stopped(job, now)
    return _end(job, State.FAILED, now, error=error, reason=error.get("message") or "it could not be run")


def _overdue(job: Job, limit: str, seconds: float, now: float) -> Job:
    reason = f"timed_out: its limit of {seconds:g} s ({limit}) passed"
    if limit == "queue":
        waits = job.state in {State.QUEUED, State.WAITING}
        return _end(job, State.DEAD, now, reason=reason) if waits else job
    if job.state in LIVE and not job.request:
        return job.model_copy(update={"request": "stop", "request_at": now, "reason": reason, "changed": now})
    return job


def _act_on_request(job: Job, event: ActionRequested, now: float) -> Job:
    if event.expected_attempt is not None and event.expected_attempt != job.attempt:
        raise SpeciateError(
            Code.CONFLICT,
            f"{job.id} is at attempt {job.attempt}, not {event.expected_attempt}.",
            next=[Call("get_job", {"job": f"{job.id}"}, "and decide again")],
        )
    match event.action:
        case "cancel":
            return _cancel(job, now)
        case "pause":
            return _pause(job, now)
        case "resume" if job.state is State.PAUSED:
            state = State.RUNNING if _goes_by_children(job) else State.QUEUED
            return _to(job, state, now, not_before=now, reason=None)
        case "resume" if job.request == "pause":
            return _without_request(job, now)
        case "retry" if job.request == "cancel":
            return _without_request(job, now)
        case "resume" if job.state not in ENDED:
            return job
        case "retry" if job.state in {State.FAILED, State.CANCELLED, State.DEAD}:
            state = State.RUNNING if _goes_by_children(job) else State.QUEUED
            return _to(
                job, state, now, handle=None, not_before=now, retries=0, losses=0, reason=None, error=None, ended=None
            )  # fmt: skip
        case "resume" | "retry":
            raise SpeciateError(
                Code.CONFLICT,
                f"{job.id} is {job.state}, so there is nothing to {event.action}.",
                next=_calls_instead(job),
            )
        case _:
            raise SpeciateError(
                Code.INVALID, f"There is no action {event.action!r}.", "Use cancel, pause, resume or retry."
            )


def _calls_instead(job: Job) -> list[Call]:
    """What can be asked of a job that cannot be resumed, or retried."""
    look = Call("get_job", {"job": f"{job.id}"}, "for what it did")
    if job.state is State.PAUSED:
        return [Call("control_job", {"job": f"{job.id}", "action": "resume"}, "to run it from its checkpoint"), look]
    if job.state in ENDED and job.state is not State.SUCCEEDED:
        again = Call("control_job", {"job": f"{job.id}", "action": "retry"}, "to run it again from its checkpoint")
        return [again, look]
    return [look]


def _cancel(job: Job, now: float) -> Job:
    if job.state in ENDED or job.request == "cancel":
        return job  # asked twice is asked once
    if job.state in LIVE or (job.state is State.PAUSED and _goes_by_children(job)):
        # Of a paused composite, runs of children may still be stopping: it is cancelled when none is left.
        state = job.state if job.state in LIVE else State.RUNNING
        return _to(job, state, now, request="cancel", request_at=now, reason=CANCELLED_REASON)
    return _end(job, State.CANCELLED, now, reason=CANCELLED_REASON)


def _pause(job: Job, now: float) -> Job:
    if job.state in ENDED:
        raise SpeciateError(
            Code.CONFLICT,
            f"{job.id} is {job.state}, so it cannot be paused.",
            next=[Call("get_job", {"job": f"{job.id}"}, "for what it did")],
        )
    if job.request not in {None, "hold"} or (job.state is State.PAUSED and job.reason == PAUSED_REASON):
        return job
    if job.state in LIVE and job.executor != "composite":
        return _to(job, job.state, now, request="pause", request_at=now, reason=PAUSED_REASON)
    return _to(job, State.PAUSED, now, reason=PAUSED_REASON)  # as well where a copy had paused it: now a person did


def _goes_by_children(job: Job) -> bool:
    """Whether it is a composite that has made its first step."""
    return job.executor == "composite" and job.started is not None


def _without_request(job: Job, now: float) -> Job:
    """Its run may have been told to stop: then it is queued again once it has."""
    return _to(job, job.state, now, request=None, request_at=None, reason=None)


def _ran(job: Job, now: float) -> float:
    if job.executor == "composite":
        return 0.0  # its children run, it does not
    return job.run_seconds + (max(0.0, now - job.started) if job.state in LIVE and job.started is not None else 0.0)


def _to(job: Job, state: State, now: float, **changes: Any) -> Job:
    return job.model_copy(update={"state": state, "changed": now, **changes})


def _to_pause(job: Job, now: float, **changes: Any) -> Job:
    """Only `resume` starts it from there."""
    return _to(
        job, State.PAUSED, now, handle=None, run_seconds=_ran(job, now), request=None, request_at=None, **changes
    )  # fmt: skip


def _try_again(job: Job, now: float, **changes: Any) -> Job:
    """Its run failed in a way that may pass, and that counts: the job is queued, unless somebody paused it."""
    if job.request == "pause":
        return _to_pause(job, now, **{name: value for name, value in changes.items() if name != "reason"})
    return _requeue(job, now, **changes)


def _requeue(job: Job, now: float, **changes: Any) -> Job:
    return _to(
        job, State.QUEUED, now, handle=None, run_seconds=_ran(job, now), request=None, request_at=None, **changes
    )


def _end(job: Job, state: State, now: float, **changes: Any) -> Job:
    ran = _ran(job, now)
    return _to(job, state, now, ended=now, request=None, request_at=None, run_seconds=ran, **changes)
