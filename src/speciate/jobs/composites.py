"""One step of a composite: what its pure `next` wants, as jobs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from speciate.ids import JobId, id_from_key
from speciate.jobs.fingerprint import fingerprint
from speciate.jobs.job import Job, State
from speciate.jobs.kinds import Child, ChildRequest, Finished, Kind, Kinds, NextStep


def step(kind: Kind, job: Job, children: Sequence[Job], now: float) -> NextStep:
    """What the composite asks for now. A defect in `next` ends the composite, not the daemon."""
    assert kind.next is not None, f"{kind.name} is not a composite"
    try:
        return kind.next(kind.spec.model_validate(job.spec), [_view(child) for child in children], now)
    except Exception as error:  # plug-ins may raise anything
        logging.getLogger(__name__).exception("%s: next() failed", job.id)
        return Finished(
            error=f"the next step of {kind.name} could not be found: {type(error).__name__}",
            recovery="This is a defect; the daemon's log has the traceback.",
        )


def child_jobs(
    kinds: Kinds, parent: Job, requests: Sequence[ChildRequest], now: float
) -> list[tuple[Job, tuple[str, ...]]]:
    """The children as jobs with what each waits for. Ids follow from parent and step: asking twice makes one."""
    jobs: list[tuple[Job, tuple[str, ...]]] = []
    for place, request in enumerate(requests):
        kind = kinds[request.kind]
        limits = kind.limits
        if request.run_seconds is not None:
            limits = limits.model_copy(update={"run_seconds": request.run_seconds})
        job = Job(
            id=child_id(parent, request.step),
            kind=request.kind,
            spec=request.spec,
            fingerprint=fingerprint(request.kind, request.spec),
            state=State.QUEUED,
            priority=max(request.priority, parent.priority),
            limits=limits,
            parent=parent.id,
            step=request.step,
            use_case=parent.use_case,
            executor=kind.executor,
            created=now + place * 1e-6,  # one transaction has one time; children keep the order they were asked in
            changed=now,
        )
        jobs.append((job, tuple(child_id(parent, other) for other in request.after)))
    return jobs


def child_id(parent: Job, step_name: str) -> JobId:
    return JobId(id_from_key("job", f"{parent.id}/{step_name}"))


def _view(job: Job) -> Child:
    return Child(
        id=job.id,
        step=job.step or "",
        kind=job.kind,
        spec=job.spec,
        state=str(job.state),
        result=job.result,
        error=job.error,
        run_seconds=job.run_seconds,
    )
