"""Enqueue and transitions as batched transactions: the only code that writes jobs.

Each function takes what many callers want at once, decides with `transitions.decide`, and writes the rows that changed
with their events. What follows from a change follows in the same transaction: jobs that waited for one that ended,
composites that make their next step, inline jobs that are done on the spot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from speciate.errors import Call, Code, SpeciateError
from speciate.jobs import rows
from speciate.jobs.job import ENDED, Job, JobError, State, StoredSpec, fingerprint
from speciate.jobs.kinds import Child, ChildRequest, Finished, Kind, Kinds, NextStep, Plan
from speciate.jobs.transitions import (
    COPIED_REASON,
    Acted,
    ActionRequested,
    ChildrenGone,
    Failed,
    Happening,
    NeedsFailed,
    NeedsMet,
    Stepped,
    decide,
)
from speciate.refs import JobId, id_from_key, new_id
from speciate.settings import Settings
from speciate.workspace.database import Database, Transaction

_INSERT_PLANS = "INSERT INTO job_plans SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]) ON CONFLICT DO NOTHING"
_PLAN = "SELECT plan FROM job_plans WHERE job = ?"
_PLANS = "SELECT job, plan FROM job_plans WHERE job IN (SELECT unnest(?::VARCHAR[]))"
_INSERT_NEEDS = "INSERT INTO job_needs SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[])"
_DEPENDENTS = "SELECT DISTINCT job FROM job_needs WHERE needs IN (SELECT unnest(?::VARCHAR[]))"
_NEEDS_OF = "SELECT job, needs FROM job_needs WHERE job IN (SELECT unnest(?::VARCHAR[]))"


_RETRIED = {State.FAILED, State.CANCELLED, State.DEAD}


class Enqueue(NamedTuple):
    job: Job
    needs: tuple[str, ...] = ()
    plan: str | None = None
    """JSON of what was resolved at the call; kept, so that the run works on just that."""


class JobEvent(NamedTuple):
    """Something happened to a job; `register` writes what its run made, in the same transaction."""

    job: str
    event: Happening
    register: Callable[[Transaction, Job], Mapping[str, object] | None] | None = None


def plan_of(database: Database, job: str) -> Plan | None:
    """What was resolved for the job, at the call or at its first start."""
    row = database.read_one(_PLAN, [job])
    return Plan.model_validate_json(row[0]) if row else None


def stored_plans(database: Database, jobs: Sequence[str]) -> dict[str, str]:
    """Job -> JSON of its plan, where it has one."""
    if len(jobs) == 1:
        row = database.read_one(_PLAN, [jobs[0]])
        return {jobs[0]: row[0]} if row else {}
    return dict(database.read(_PLANS, [jobs]))


def keep_plan(tx: Transaction, job: str, plan: Plan) -> None:
    """The first one stays."""
    tx.execute(_INSERT_PLANS, [[job], [plan.model_dump_json(by_alias=True)]])


class Store:
    def __init__(self, kinds: Kinds, settings: Settings) -> None:
        self._kinds, self._settings = kinds, settings

    def enqueue(self, tx: Transaction, requests: list[Enqueue]) -> list[Job | SpeciateError]:
        """New jobs, or those that the same keys already made."""
        batch = _Batch(tx, self._kinds, self._settings)
        keyed = [request.job.id for request in requests if request.job.key is not None]
        known = rows.by_id(tx, keyed) if keyed else {}
        answers: list[str | SpeciateError] = []
        plans: dict[str, str] = {}
        for request in requests:
            job = request.job
            old = known.get(job.id)
            if old is None:
                known[job.id] = job
                batch.add(job, request.needs)
                if request.plan:
                    plans[job.id] = request.plan
                answers.append(job.id)
            elif old.fingerprint == job.fingerprint:
                answers.append(job.id)
            else:
                answers.append(_other_arguments_error(job, old))
        batch.settle()
        if plans:
            tx.execute(_INSERT_PLANS, [list(plans), list(plans.values())])
        return [
            answer if isinstance(answer, SpeciateError) else batch.jobs.get(answer) or known[answer]
            for answer in answers
        ]

    def tell(self, tx: Transaction, tells: list[JobEvent]) -> list[Job | SpeciateError]:
        """Apply events; each answer is the job afterwards, or why the request makes no sense."""
        batch = _Batch(tx, self._kinds, self._settings)
        batch.load([tell.job for tell in tells])
        answers: list[Job | SpeciateError] = []
        for tell in tells:
            before = batch.jobs.get(tell.job)
            if before is None:
                answers.append(
                    SpeciateError(Code.NOT_FOUND, f"There is no job {tell.job!r}.", next=[Call("list_jobs")])
                )
                continue
            try:
                if isinstance(tell.event, ActionRequested):
                    answers.append(batch.ask(before, tell.event))
                    continue
                after = decide(before, tell.event, tx.now)
            except SpeciateError as error:
                answers.append(error)
                continue
            if tell.register and after is not before:
                made = tell.register(tx, after)
                after = after.model_copy(update={"result": {**(after.result or {}), **made}}) if made else after
            batch.change(after)
            answers.append(after)
        batch.settle()
        return [batch.jobs.get(answer.id, answer) if isinstance(answer, Job) else answer for answer in answers]


def enqueue_job(tx: Transaction, kind: Kind, spec: StoredSpec) -> JobId:
    """A job that begins with this transaction."""
    job = Job(
        id=JobId(new_id("job")), kind=kind.name, spec=spec, fingerprint=fingerprint(kind.name, spec),
        state=State.QUEUED, limits=kind.limits, executor=kind.executor, created=tx.now, changed=tx.now,
    )  # fmt: skip
    (stored,) = Store(Kinds(), Settings()).enqueue(tx, [Enqueue(job)])
    if isinstance(stored, SpeciateError):
        raise stored
    return stored.id


def _other_arguments_error(new: Job, old: Job) -> SpeciateError:
    return SpeciateError(
        Code.CONFLICT,
        f"idempotency_key {new.key!r} was used before with other arguments, for {old.id} ({old.kind}).",
        "Repeat the call with the arguments of then, or with a new key.",
    )


def _is_meant(child: Job, parent: Job, action: str) -> bool:
    """Whether a request to the composite is one to the child, too. `parent`: before the request."""
    if action == "retry":
        return child.state in _RETRIED or child.request == "cancel"
    if action == "resume" and parent.reason == COPIED_REASON:  # what a person had paused before the copy stays paused
        return child.state not in ENDED and child.reason == COPIED_REASON
    return child.state not in ENDED


class _Batch:
    """The jobs that one transaction touches, and what follows from their changes."""

    def __init__(self, tx: Transaction, kinds: Kinds, settings: Settings) -> None:
        self._tx, self._kinds, self._settings = tx, kinds, settings
        self.jobs: dict[str, Job] = {}
        self._new: set[str] = set()
        self._changed: dict[str, None] = {}  # ordered
        self._needs: list[tuple[str, str]] = []
        self._ended: list[str] = []  # not yet followed up
        self._ready: list[str] = []  # inline jobs and composites that can go on

    def load(self, ids: Sequence[str]) -> None:
        missing = [i for i in dict.fromkeys(ids) if i not in self.jobs]
        if missing:
            self.jobs |= rows.by_id(self._tx, missing)

    def add(self, job: Job, needs: tuple[str, ...] = ()) -> None:
        self._new.add(job.id)
        self.jobs[job.id] = job
        if needs:
            self.load(needs)
            job = self._judge_needs(job, needs)
            self._needs += [(job.id, need) for need in needs]
        self._note(job)

    def _judge_needs(self, job: Job, needs: Sequence[str]) -> Job:
        waiting = job.model_copy(update={"state": State.WAITING})
        for need in needs:
            needed = self.jobs.get(need)
            if needed is None:
                return decide(waiting, NeedsFailed(f"there is no job {need!r} to wait for"), self._tx.now)
            if needed.state in ENDED and needed.state is not State.SUCCEEDED:
                return decide(waiting, NeedsFailed(f"{need}, which it needs, is {needed.shown_state}"), self._tx.now)
        if all(self.jobs[need].state is State.SUCCEEDED for need in needs):
            return decide(waiting, NeedsMet(), self._tx.now)
        return waiting

    def change(self, job: Job) -> None:
        if self.jobs[job.id] is not job:
            self._note(job)

    def ask(self, job: Job, event: ActionRequested) -> Job:
        """Apply a request; those to a composite go on to its children."""
        after = decide(job, event, self._tx.now)
        if after is not job and after.state is State.QUEUED:
            needs = [need for _, need in self._tx.execute(_NEEDS_OF, [[job.id]])]
            self.load(needs)
            after = self._judge_needs(after, needs) if needs else after
        self.change(after)
        if job.executor == "composite" and after is not job:
            for child in self._children(job):
                if _is_meant(child, job, event.action):
                    self.ask(child, ActionRequested(event.action))
        return after

    def _note(self, job: Job) -> None:
        """Record a new state of a job, its event, and what there is to follow up."""
        before = self.jobs[job.id]
        self.jobs[job.id] = job
        self._changed[job.id] = None
        requested = job.request and job.request != before.request
        happened = f"{job.request}_requested" if requested else str(job.state)
        data = {"attempt": job.attempt} | ({"reason": job.reason} if job.reason else {})
        self._tx.event(job.id, f"job.{happened}", data)
        if job.parent:
            self._tx.event(job.parent, "job.child", {"child": job.id, "step": job.step, "state": str(job.state)})
        if job.state in ENDED:
            self._ended.append(job.id)
        elif job.executor == "composite" or (job.executor == "inline" and job.state is State.QUEUED):
            self._ready.append(job.id)

    def settle(self) -> None:
        """Follow up until nothing more follows, then write."""
        while self._ended or self._ready:
            if self._ready:
                self._go_on(self.jobs[self._ready.pop(0)])
            else:
                self._follow_ends()
        old = [self.jobs[i] for i in self._changed if i not in self._new]
        new = [self.jobs[i] for i in self._changed if i in self._new]
        if new:
            rows.insert(self._tx, new)
        if old:
            rows.update(self._tx, old)
        if self._needs:
            self._tx.execute(_INSERT_NEEDS, [[job for job, _ in self._needs], [need for _, need in self._needs]])

    def _follow_ends(self) -> None:
        ended, self._ended = self._ended, []
        stored = [job for job in ended if job not in self._new]  # of what is new nothing that is stored can wait
        dependents = [job for (job,) in self._tx.execute(_DEPENDENTS, [stored])] if stored else []
        dependents += [job for job, need in self._needs if need in ended]
        if dependents:
            self._release(list(dict.fromkeys(dependents)))
        parents = [self.jobs[i].parent for i in ended]
        self.load([parent for parent in parents if parent])
        for parent in dict.fromkeys(parents):
            if parent and parent in self.jobs and self.jobs[parent].state is State.RUNNING:
                self._ready.append(parent)

    def _release(self, dependents: list[str]) -> None:
        needs: dict[str, list[str]] = {job: [] for job in dependents}
        for job, need in [*self._tx.execute(_NEEDS_OF, [dependents]), *self._needs]:
            if job in needs:
                needs[job].append(need)
        self.load([*dependents, *(need for some in needs.values() for need in some)])
        for job in dependents:
            if self.jobs[job].state is State.WAITING:
                after = self._judge_needs(self.jobs[job], needs[job])
                if after.state is not State.WAITING:
                    self._note(after)

    def _go_on(self, job: Job) -> None:
        if job.executor == "inline":
            if job.state is State.QUEUED:  # it may have been done, paused or cancelled since, in this very batch
                self._note(decide(job, self._act(job), self._tx.now))
        elif job.request == "cancel":
            if all(child.state in ENDED for child in self._children(job)):
                self._note(decide(job, ChildrenGone(), self._tx.now))
        elif job.state is State.QUEUED:
            self._note(decide(job, Stepped(), self._tx.now))  # and from there to its first step
        elif job.state is State.RUNNING:
            self._step(job)

    def _act(self, job: Job) -> Happening:
        kind = self._kinds[job.kind]
        try:
            assert kind.act is not None, f"{kind.name} is not an inline kind"
            return Acted(kind.act(self._tx, kind.spec.model_validate(job.spec), job, self._settings))
        except SpeciateError as error:
            failure: JobError = {
                "class": "user", "code": error.code, "message": error.message, "recovery": error.recovery,
            }  # fmt: skip
            if error.foreign:
                failure["detail"] = error.foreign
            if error.next:
                failure["next"] = error.next_documents()
            return Failed(failure)

    def _children(self, job: Job) -> list[Job]:
        stored = {child.id: child for child in rows.children_of(self._tx, [job.id])}
        self.jobs = stored | self.jobs  # what this batch has changed already is newer
        return sorted(
            (child for child in self.jobs.values() if child.parent == job.id),
            key=lambda child: (child.created, child.id),
        )

    def _step(self, job: Job) -> None:
        children = self._children(job)
        outcome = next_step(self._kinds[job.kind], job, children, self._tx.now)
        if isinstance(outcome, Finished):
            self._note(decide(job, _end_of(outcome), self._tx.now))
            for child in children:
                if child.state not in ENDED:  # nobody will ask for what it finds
                    self.ask(child, ActionRequested("cancel"))
            return
        for child, needs in child_jobs(self._kinds, job, outcome, self._tx.now):
            if child.id not in self.jobs:
                self.add(child, needs)


def _end_of(outcome: Finished) -> Happening:
    if outcome.error:
        return Failed({"class": "user", "message": outcome.error, "recovery": outcome.recovery})
    return Acted(outcome.result)


def next_step(kind: Kind, job: Job, children: Sequence[Job], now: float) -> NextStep:
    """What the composite asks for now. A defect in `next` ends the composite, not the daemon."""
    assert kind.next is not None, f"{kind.name} is not a composite"
    try:
        return kind.next(kind.spec.model_validate(job.spec), [_child_view(child) for child in children], now)
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


def _child_view(job: Job) -> Child:
    return Child(
        id=job.id,
        step=job.step or "",
        kind=job.kind,
        spec=job.spec,
        state=str(job.state),
        result=job.result,
        error=job.error,
        reason=job.reason,
        run_seconds=job.run_seconds,
    )
