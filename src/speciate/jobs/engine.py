"""The durable job engine: what the other rooms call.

Everything it is told is on disk when the call returns. Work happens elsewhere: runs in worker processes that the
reconciler watches, inline jobs and steps of composites inside the writer's transactions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple

from pydantic import ValidationError

from speciate import secrets
from speciate.environment import cores, memory_mb
from speciate.errors import Call, Code, SpeciateError, closest
from speciate.faults import fault
from speciate.jobs import egress, rows
from speciate.jobs.executors import Executor, LocalExecutor, executor_here
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import ENDED, Job, State, fingerprint
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.jobs.places.places import Places
from speciate.jobs.reconcile import Reconciler
from speciate.jobs.recovery import jobs_paused_as_copied, mark_stopped, pause_copied
from speciate.jobs.schedule import never_fits, never_fits_disk
from speciate.jobs.store import Enqueue, JobEvent, Store
from speciate.jobs.transitions import ActionRequested
from speciate.refs import JobId, id_from_key, new_id
from speciate.settings import Capacity
from speciate.workspace.database import Event
from speciate.workspace.filesystem import require_space
from speciate.workspace.workspace import Workspace

_BUSY_SECONDS, _CALM_SECONDS = 0.1, 2.0
_UNFINISHED = "state NOT IN ('succeeded', 'failed', 'cancelled', 'dead', 'paused')"
_log = logging.getLogger(__name__)


class JobRequest(NamedTuple):
    """A job that somebody wants: the arguments of `submit`."""

    kind: str
    spec: Mapping[str, Any]
    key: str | None = None
    after: tuple[str, ...] = ()
    priority: int = 0


class Engine:
    def __init__(self, workspace: Workspace, kinds: Kinds | None = None, executor: Executor | None = None) -> None:
        self.workspace = workspace
        self.kinds = kinds or Kinds()
        self.capacity = measure_capacity(workspace.settings.capacity)
        self._store = Store(self.kinds, workspace.settings)
        self._executor = executor or executor_here(workspace)
        self.places = Places(workspace, self.kinds)
        self._reconciler = Reconciler(workspace, self.kinds, self._store, self._executor, self.capacity, self.places)
        self._waiters = Waiters()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        pause_copied(workspace)  # before anything could begin
        workspace.database.listen(self._heard)

    # Life

    def start(self) -> None:
        """Begin to reconcile, in a thread."""
        self.places.start()
        if isinstance(self._executor, LocalExecutor):
            self._executor.listen(self._wake.set)
            if self.workspace.settings.fork_sandboxes:
                self._executor.offer()
        self._thread = threading.Thread(target=self._reconcile, name="reconciler", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Start nothing more; runs continue under their supervisors."""
        self._reconciler.draining = True

    def stop(self) -> None:
        """End the engine's threads. Runs live on and are adopted by the next engine."""
        self._stopping = True
        self._wake.set()
        if self._thread:
            self._thread.join()
        self.places.stop()
        if isinstance(self._executor, LocalExecutor):
            self._executor.close()

    def tick(self) -> int:
        """One pass of reconciliation in the caller's thread; for tests, and for engines that were not started."""
        return self._reconciler.tick()

    def _reconcile(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                active = self._reconciler.tick()
            except Exception:  # noqa: BLE001 - a full disk, say: the next pass may succeed
                _log.exception("reconciling failed")
                active = 1
                time.sleep(0.2)
            self._wake.wait(_BUSY_SECONDS if active else _CALM_SECONDS)
            if active:
                time.sleep(0.005)  # many changes at once are looked at together

    def _heard(self, events: Sequence[Event]) -> None:
        self._waiters.wake(event.subject for event in events)
        self.places.heard(events)
        for event in events:
            if event.type in {"job.paused", "job.cancelled"} and event.data.get("attempt"):
                mark_stopped(self.workspace, event.subject, event.data["attempt"])
        if any(event.type in {"job.queued", "job.cancel_requested", "job.pause_requested"} for event in events):
            self._wake.set()

    # Asking

    def plan(self, kind: str, spec: Mapping[str, Any]) -> Plan:
        """Check everything that can be checked, and start nothing."""
        declared = self.kinds[kind]
        plan = _plan(declared, _validate_spec(declared, spec), self.workspace)
        self._check_fits(declared, plan)
        self._check_leaving(plan)
        return plan

    def _check_leaving(self, plan: Plan) -> None:
        """Refuse what would send rows where nobody allowed it."""
        if leaving := plan.leaving(self.workspace.settings):
            egress.check(egress.consents(self.workspace.database), leaving)

    def _check_fits(self, declared: Kind, plan: Plan) -> None:
        """Refuse what would wait for ever: it asks for more than this machine has."""
        if declared.executor != "local":
            return
        place = plan.resources.place
        capacity = self.places.capacities.get(place) if place else self.capacity
        if capacity is None:
            raise SpeciateError(
                Code.REFUSED, f"The daemon does not know the place {place!r} yet.",
                "settings.toml is read when it starts: speciate stop, then call again.",
            )  # fmt: skip
        if lacking := never_fits(plan.resources, capacity):
            whose = f"[executors.{place}.capacity]" if place else "[capacity]"
            raise SpeciateError(
                Code.REFUSED,
                f"{place or 'This machine'} can never run it: {lacking}.",
                f"Ask for less, or raise {whose} in settings.toml, if the machine has more.",
            )
        if plan.bytes and not declared.gives_room and (full := never_fits_disk(plan.bytes, self.workspace.room.look())):
            raise SpeciateError(
                Code.REFUSED,
                f"This machine can never run it: {full}.",
                "Ask for less, or change [disk] in settings.toml.",
            )

    def submit(
        self,
        kind: str,
        spec: Mapping[str, Any],
        *,
        key: str | None = None,
        after: Sequence[str] = (),
        priority: int = 0,
    ) -> Job:
        """Enqueue a job; it is on disk on return. The same key and spec give the same job, in whatever state it is.

        Raises SpeciateError for all that can be checked beforehand; then no job exists.
        """
        known = None if key is None else self._made_by([key]).get(key)
        prepared = self._prepare(JobRequest(kind, spec, key, tuple(after), priority), known)
        if isinstance(prepared, Job):
            return prepared
        fault("submit_before_commit")
        stored = self.workspace.database.write(self._store.enqueue, prepared)
        fault("submit_after_commit")
        assert isinstance(stored, Job)  # errors are raised by `write`
        return stored

    def submit_all(self, asked: Sequence[JobRequest]) -> Sequence[Job | SpeciateError]:
        """`submit` of each, in few transactions; in the place of one that cannot be, why."""
        known = self._made_by([each.key for each in asked if each.key is not None])
        found: list[Job | SpeciateError | Future[Job | SpeciateError]] = []
        for each in asked:
            try:
                prepared = self._prepare(each, known.get(each.key or ""))
            except SpeciateError as error:
                found.append(error)
                continue
            found.append(
                prepared if isinstance(prepared, Job) else self.workspace.database.submit(self._store.enqueue, prepared)
            )
        return [_outcome(each) if isinstance(each, Future) else each for each in found]

    def _made_by(self, keys: Sequence[str]) -> Mapping[str, Job]:
        """Key -> the job that it made."""
        ids = {id_from_key("job", key): key for key in keys}
        return {ids[name]: job for name, job in rows.by_id(self.workspace.database, list(ids)).items()} if ids else {}

    def _prepare(self, asked: JobRequest, known: Job | None) -> Job | Enqueue:
        """The job that the same key made already (`known`: found before planning, for what it needed may be gone by
        now), or what makes one. Raises SpeciateError."""
        kind, spec, key, after, priority = asked
        declared = self.kinds[kind]
        if known is not None and known.fingerprint == fingerprint(kind, spec):
            return known
        if declared.executor != "inline":
            require_space(self.workspace.folders.root)
        checked = _validate_spec(declared, spec)
        plan = _plan(declared, checked, self.workspace) if not after else Plan()
        self._check_fits(declared, plan)
        self._check_leaving(plan)
        if declared.executor != "inline" and not plan.resources.gpu and not plan.resources.place:
            self.expect(declared.preload if plan.preload is None else plan.preload, *plan.preload_next)
        now = self.workspace.clock.now()
        job = Job.model_construct(
            id=JobId(id_from_key("job", key) if key is not None else new_id("job")),
            key=key, fingerprint=fingerprint(kind, spec), kind=kind, spec=dict(spec), state=State.QUEUED,
            priority=priority, resources=plan.resources, estimate=plan.seconds, limits=declared.limits,
            use_case=plan.use_case or (spec.get("use_case") if after else None), executor=declared.executor,
            created=now, changed=now,
        )  # fmt: skip
        kept = plan.model_dump_json(by_alias=True) if declared.executor == "local" and not after else None
        return Enqueue(job, after, kept)

    def expect(self, *preloads: str) -> None:
        """Runs with these imports are likely to be asked for soon. Returns at once."""
        for each in preloads:
            self._executor.prepare(each)

    def control(self, job: str, action: str, expected_attempt: int | None = None) -> Job:
        """Cancel, pause, resume or retry. Of a live run it is a request: it is done when the job's state says so."""
        self.get(job)
        answer = self.workspace.database.write(
            self._store.tell, JobEvent(job, ActionRequested(action, expected_attempt))
        )
        assert isinstance(answer, Job)  # errors are raised by `write`
        self._wake.set()
        return answer

    def resume_copied(self) -> list[Job]:
        """Resume what was paused because the workspace is a copy; those that were."""
        return [self.control(job, "resume") for job in jobs_paused_as_copied(self.workspace.database)]

    # Looking

    def get(self, job: str) -> Job:
        found = rows.by_id(self.workspace.database, [job]).get(job)
        if not found:
            names = [
                row[0] for row in self.workspace.database.read("SELECT id FROM jobs ORDER BY created DESC LIMIT 200")
            ]
            raise SpeciateError(
                Code.NOT_FOUND, f"There is no job {job!r}; {closest(job, names)}", next=[Call("list_jobs")]
            )
        return found

    def list(
        self, *, state: str | None = None, kind: str | None = None, use_case: str | None = None,
        parent: str | None = None, limit: int = 20, before: str | None = None,
    ) -> list[Job]:  # fmt: skip
        """Newest first. `before` is the id of the last job of the page before; state `failed` includes `dead`."""
        where, parameters = ["true"], list[object]()
        if state == State.FAILED:
            where.append("state IN ('failed', 'dead')")
            state = None
        for column, value in (("state", state), ("kind", kind), ("use_case", use_case), ("parent", parent)):
            if value is not None:
                where.append(f"{column} = ?")
                parameters.append(value)
        if before is not None:
            if (last := self.workspace.database.read_one("SELECT created FROM jobs WHERE id = ?", [before])) is None:
                return []
            where.append("created <= ? AND (created < ? OR id < ?)")  # by literals DuckDB skips what is newer
            parameters += [last[0], last[0], before]
        order = f"created DESC, id DESC LIMIT {int(limit)}"
        return rows.select(self.workspace.database, " AND ".join(where), parameters, order)

    def children(self, *jobs: str) -> Sequence[Job]:
        """Children of these jobs, in the order in which they were made."""
        return rows.children_of(self.workspace.database, [*jobs]) if jobs else ()

    def wait(self, job: str, *, until: str = "end", timeout: float) -> Job:
        """Block until the job ends (`until='end'`) or it or a child changes ('change'), at most `timeout` seconds."""
        end = time.monotonic() + timeout
        with self._waiters.on(job) as bell:
            first = current = self.get(job)
            while current.state not in ENDED and (left := end - time.monotonic()) > 0:
                rang = bell.wait(left)
                bell.clear()
                current = self.get(job)
                if until == "change" and (rang or current != first):
                    break
        return current

    def folder(self, job: Job) -> RunFolder:
        """The newest attempt's folder; it may not exist yet."""
        return RunFolder(self.workspace.folders.runs / job.run_id)

    def trouble(self, job: str) -> str | None:
        """Why an unfinished job does not get on, where the engine cannot do its part (a full disk, say)."""
        return self._reconciler.trouble(job)

    def waits(self, job: str) -> str | None:
        """What of the machine a queued job waits for, and who has it."""
        return self._reconciler.waits(job)

    def idle(self) -> bool:
        """Whether nothing waits or runs. A paused job needs no daemon."""
        return self.workspace.database.read_one(f"SELECT 1 FROM jobs WHERE {_UNFINISHED} LIMIT 1") is None


def _outcome(stored: Future[Job | SpeciateError]) -> Job | SpeciateError:
    try:
        return stored.result()
    except SpeciateError as error:
        return error


def measure_capacity(capacity: Capacity) -> Capacity:
    """The capacity with what was left open filled in from this machine."""
    return capacity.model_copy(
        update={"cpu": capacity.cpu or float(cores()), "memory_mb": capacity.memory_mb or int(memory_mb())}
    )


def _plan(kind: Kind, spec: Any, workspace: Workspace) -> Plan:
    """The plan, whose keys are all there now; its run gets them when it starts."""
    plan = kind.plan(spec, workspace)
    for name, host in plan.secrets:
        secrets.get(name, host)
    return plan


def _validate_spec(kind: Kind, spec: Mapping[str, Any]) -> Any:
    try:
        return kind.spec.model_validate(spec)
    except ValidationError as error:
        raise invalid_spec(error, kind.name) from error


def invalid_spec(error: ValidationError, kind: str = "this job") -> SpeciateError:
    """INVALID, naming each field that is wrong."""
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()
    )
    return SpeciateError(
        Code.INVALID, f"The request for {kind} is not valid: {problems}.", "Correct it and call again."
    )


class Waiters:
    """Lets threads sleep until something happens to a job, without polling the catalog."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[threading.Event]] = defaultdict(list)

    @contextmanager
    def on(self, subject: str) -> Iterator[threading.Event]:
        """An event that is set at the next change of `subject`. Enter before reading its state, to miss none."""
        bell = threading.Event()
        with self._lock:
            self._waiting[subject].append(bell)
        try:
            yield bell
        finally:
            with self._lock:
                self._waiting[subject].remove(bell)
                if not self._waiting[subject]:
                    del self._waiting[subject]

    def wake(self, subjects: Iterable[str]) -> None:
        with self._lock:
            if self._waiting:
                for subject in subjects:
                    for bell in self._waiting.get(subject, ()):
                        bell.set()
