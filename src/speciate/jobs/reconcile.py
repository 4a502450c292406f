"""Brings what the catalog says of runs and what is true of them together, over and over.

There is no recovery at start that differs from normal work: a daemon that has just come back does exactly what it did
a second before it died. Each pass looks at every live run, applies limits and requests, and starts what has room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.faults import fault
from speciate.jobs import allowances, egress, rows, transitions
from speciate.jobs.allowances import Ledger
from speciate.jobs.egress import Consents
from speciate.jobs.executors import Abandoned, Alive, Ended, Executor, Gone, Pending, RunSpec, Unreachable
from speciate.jobs.folder import PROGRESS, Outcome, RunDocument, RunFolder
from speciate.jobs.job import Job, JobError, RunHandle, State
from speciate.jobs.kinds import Kinds, Plan
from speciate.jobs.places.places import Places
from speciate.jobs.schedule import (
    USUAL_BYTES,
    choose,
    is_due,
    make_way,
    never_fits,
    never_fits_disk,
    start_within_space,
    waiting,
)
from speciate.jobs.store import JobEvent, Store, keep_plan, plan_of, stored_plans
from speciate.jobs.transitions import Claimed, Exited, Failed, Happening, Lost, NoRoom, Overdue, SeenAlive
from speciate.settings import Capacity, safety
from speciate.workspace.database import Transaction
from speciate.workspace.disk_space import DiskSpace, measure_used
from speciate.workspace.workspace import Workspace

_ACTIVE = "state IN ('queued', 'waiting', 'starting', 'running') AND executor = 'local'"
_LAST_RUNS = """
SELECT id, attempt FROM jobs WHERE kind = ? AND state = 'succeeded' AND executor = 'local' ORDER BY ended DESC LIMIT 3
"""
_LAST_SAID = "SELECT type FROM events WHERE subject = ? ORDER BY seq DESC LIMIT 1"
DISK = "workspace:disk"
"""The subject of the events `disk.low` and `disk.enough`."""
_RELAUNCH_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 60.0
_COMMIT_TRIES = 8
_log = logging.getLogger(__name__)


_Register = Callable[[Transaction, Job], Mapping[str, object] | None]
_Answer = Future[Job | SpeciateError]


class _Step(NamedTuple):
    """Something that a pass tells of a job."""

    job: Job
    event: JobEvent
    then: Callable[[_Answer], object]
    """What follows once it is committed, or refused."""
    ends: bool = False
    """Whether nothing of the run lives any more."""


class Trouble(NamedTuple):
    """How often in a row a job could not be reconciled, and when to try again."""

    times: int = 0
    until: float = 0.0
    why: str = ""


class _SpaceLeft(NamedTuple):
    bytes: int
    until: float


class Reconciler:
    """Used by one thread."""

    def __init__(
        self,
        workspace: Workspace,
        kinds: Kinds,
        store: Store,
        executor: Executor,
        capacity: Capacity,
        places: Places | None = None,
    ) -> None:
        self._workspace, self._kinds, self._store = workspace, kinds, store
        self._executor, self._capacity = executor, capacity
        self._places = places or Places(workspace)
        self._reader = rows.Reader(_ACTIVE)
        self._jobs: list[Job] = []
        self._read_at: int | None = None  # the commit after which `_jobs` was read
        # What this process remembers of its own acts; all of it may be forgotten.
        self._now = 0.0  # by the uptime: what this process remembers goes by that
        self._launched: dict[str, float] = {}  # run -> when
        self._signalled: dict[str, str] = {}  # run -> 'asked' or 'forced'
        self._plans: dict[str, Plan] = {}
        self._stored: set[str] = set()  # jobs whose plan is in the catalog
        self._texts: dict[str, str | None] = {}  # job -> its plan in the catalog, not read yet
        self._troubles: dict[str, Trouble] = {}
        self._held: dict[str, str] = {}  # queued job -> why the disk has no room for it, or others hold its money
        self._ledger: tuple[int, Ledger] | None = None  # as of so many commits
        self._consents: tuple[int, Consents] | None = None  # the same
        self._asked: tuple[list[Job], list[Job], list[Job]] = ([], [], [])  # queued, chosen of them, and live before
        self._low: bool | None = None  # what the last event about the disk said; None: not read yet
        self._bytes: dict[str, int] = {}  # queued or live job -> what it may write
        self._left: dict[str, _SpaceLeft] = {}  # kind -> what its last runs left
        self.draining = False

    def tick(self) -> int:
        """One pass. Returns how many jobs are live or may start, so that the caller knows how soon to look again; who
        waits for the disk is not among them."""
        now, self._now = self._workspace.clock.now(), self._workspace.clock.monotonic()
        self._workspace.elapsed.save()
        jobs = self._active()
        known = {job.id for job in jobs}
        self._plans = {name: plan for name, plan in self._plans.items() if name in known}
        self._bytes = {name: count for name, count in self._bytes.items() if name in known}
        self._texts = {name: text for name, text in self._texts.items() if name in known}
        self._troubles = {name: trouble for name, trouble in self._troubles.items() if name in known}
        self._stored &= known
        live = [job for job in jobs if job.state in {State.STARTING, State.RUNNING}]
        room = self._workspace.room.look()
        self._tell_of_disk(room)
        if room.low:
            live = [self._hold(job, room) for job in live]
        steps = list[_Step]()  # what ends, lives and starts in one pass is committed together
        try:
            for job in live:
                self._guard(job, lambda job=job: self._observe(job, steps))  # type: ignore[misc]
            ended = {step.job.id for step in steps if step.ends}
            live = [job for job in live if job.id not in ended]  # their room is free
            queued = [job for job in jobs if job.state is State.QUEUED]
            steps += [
                _Step(job, JobEvent(job.id, overdue), _told)
                for job in jobs
                if (overdue := self._queue_limit_passed(job)) and not self._is_paused(job)
            ]
            if not self.draining:
                due = [job for job in queued if is_due(job, now) and not self._is_paused(job)]
                self._read_plans(due)
                if any(job.id not in self._plans and self._texts[job.id] is None for job in due):
                    self._submit(steps)  # a plan may take long
                steps += self._start(due, live, room, now)
        finally:
            self._submit(steps)
        return len(live) + len(queued) - len(self._held)

    def _submit(self, steps: list[_Step]) -> None:
        """Commits these together, and empties the list."""
        now, steps[:] = list(steps), []
        sent = self._workspace.database.submit_all(self._store.tell, [step.event for step in now])
        for step, answer in zip(now, sent, strict=True):
            self._guard(step.job, lambda step=step, answer=answer: step.then(answer))  # type: ignore[misc]

    def _active(self) -> list[Job]:
        """Asked of the catalog only once something was committed: a pass comes ten times a second, on the cores
        that the runs compute on."""
        commits = self._workspace.database.commits
        if commits != self._read_at:
            self._jobs = self._reader.read(self._workspace.database)
            self._read_at = commits
        return self._jobs

    def trouble(self, job: str) -> str | None:
        found = self._troubles.get(job)
        if found or job in self._held:
            return found.why if found else self._held[job]
        return next((self._places.trouble(each) for each in self._jobs if each.id == job), None)

    def waits(self, job: str) -> str | None:
        """Written when it is asked for, by whatever thread: a pass comes ten times a second."""
        found: dict[str, str] = {}
        for place, capacity in self._rooms():
            queued, chosen, live = (_at(place, jobs) for jobs in self._asked)
            found |= waiting(queued, chosen, live, capacity)
            if place and len(chosen) + len(live) >= self._places.runs[place]:
                full = f"It waits for its turn: {place} takes {self._places.runs[place]} runs at once."
                found |= {each.id: full for each in queued if each not in chosen}
        return found.get(job)

    def _rooms(self) -> Iterator[tuple[str | None, Capacity]]:
        """Each place with its capacity; this machine is None and comes first."""
        yield None, self._capacity
        yield from self._places.capacities.items()

    def _executor_of(self, job: Job) -> Executor:
        return self._places.executor(job.resources.place) if job.resources.place else self._executor

    def _is_paused(self, job: Job) -> bool:
        trouble = self._troubles.get(job.id)
        return trouble is not None and self._now < trouble.until

    def _guard(self, job: Job, act: Callable[[], object]) -> None:
        """One job's trouble must not stop the others'; it is looked at again after a pause that grows. `act` returns
        True where it is not known yet whether it went well."""
        if self._is_paused(job):
            return
        try:
            pending = act()
        except Exception as error:  # noqa: BLE001 - logged; a later pass may succeed
            trouble = self._troubles.get(job.id, Trouble())
            _log.warning("%s could not be reconciled", job.id, exc_info=not isinstance(error, SpeciateError))
            pause = min(60.0, 0.1 * 2.0**trouble.times)
            self._troubles[job.id] = Trouble(trouble.times + 1, self._now + pause, str(error))
        else:
            if pending is not True:
                self._troubles.pop(job.id, None)

    def _tell(self, job: Job, event: Happening, register: _Register | None = None) -> Job:
        return _told(self._workspace.database.submit(self._store.tell, JobEvent(job.id, event, register)))

    # Runs that live, or should

    def _observe(self, job: Job, steps: list[_Step]) -> bool:
        """Whether it is not known yet how it went: what is to be committed is added to `steps`."""
        executor = self._executor_of(job)
        handle = job.handle or executor.handle(job.run_id)
        match executor.poll(handle):
            case Alive() if job.state is State.STARTING:
                event = JobEvent(job.id, SeenAlive(job.attempt))
                steps.append(_Step(job, event, lambda answer: self._look_after(_told(answer), handle)))
                return True
            case Alive():
                self._look_after(job, handle)
            case Ended(outcome):
                steps.append(self._finish(job, outcome))
                return True
            case Gone() if self._best_at_limit(job):
                steps.append(self._finish(job, Outcome(-1, "killed")))
                return True
            case Gone():
                paid = self._paid(job)
                fault("lost_before_commit")
                self._tell(job, Lost(job.attempt, self._progressed(job), self._ran(job)), paid)
                self._forget(job)
            case Abandoned(why) if job.request == "cancel":
                self._tell(job, transitions.Abandoned(job.attempt, why, self._heard(job)), self._paid(job))
                self._forget(job)
            case Pending() | Unreachable() | Abandoned() if job.request:
                self._pass_on_request(job, handle)
            case Pending():
                self._relaunch(job)
        return False

    def _look_after(self, job: Job, handle: RunHandle) -> None:
        self._pass_on_request(self._check_limits(job), handle)

    def _ran(self, job: Job) -> float | None:
        """Seconds of the newest attempt until now, whatever the clock says."""
        return self._workspace.elapsed.least(job.started) if job.started is not None else None

    def _heard(self, job: Job) -> float | None:
        """Seconds of the newest attempt until its progress last came here, of a run that was given up."""
        ran = self._ran(job)
        if ran is None or job.started is None:
            return None
        try:
            at = (self._workspace.folders.runs / job.run_id / PROGRESS).stat().st_mtime
        except OSError:
            return 0.0
        return min(ran, max(0.0, at - job.started))

    def _check_limits(self, job: Job) -> Job:
        limits = job.limits
        if limits.run_seconds is not None and (self._ran(job) or 0.0) > limits.run_seconds:
            return self._tell(job, Overdue("run", limits.run_seconds))
        if limits.silence_seconds is not None:
            progress = RunFolder(self._workspace.folders.runs / job.run_id).progress()
            heard = progress.at if progress else job.started
            if heard is not None and self._workspace.elapsed.least(heard) > limits.silence_seconds:
                return self._tell(job, Overdue("silence", limits.silence_seconds))
        return job

    def _pass_on_request(self, job: Job, handle: RunHandle) -> None:
        if not job.request or job.request_at is None:
            return
        sent = self._signalled.get(job.run_id)
        if sent is None:
            self._executor_of(job).cancel(handle, force=False)
            self._signalled[job.run_id] = "asked"
        elif self._workspace.elapsed.least(job.request_at) > job.limits.grace_seconds:
            self._executor_of(job).cancel(handle, force=True)  # again each pass, until its claim is free

    def _progressed(self, job: Job) -> bool:
        """Whether the newest attempt came further than those before it."""
        folders = [RunFolder(self._workspace.folders.runs / f"{job.id}.{i}") for i in range(job.attempt, 0, -1)]
        newest, *before = [progress.done if (progress := folder.progress()) else 0.0 for folder in folders]
        return newest > max(before, default=0.0)

    def _finish(self, job: Job, outcome: Outcome) -> _Step:
        kind = self._kinds[job.kind]
        register = None
        folder = RunFolder(self._workspace.folders.runs / job.run_id)
        if outcome.kind != "ok" and (best := self._best_at_limit(job)):
            outcome, folder = Outcome(0, "ok"), best
        if outcome.kind == "ok":
            try:
                collected = kind.collect(folder)
                register = lambda tx, job: kind.commit(tx, job, collected)  # noqa: E731
            except SpeciateError as error:
                _log.warning("%s: its outputs cannot be used: %s", job.id, error.message)
                sentence = f"its outputs cannot be used: {error.message}"
                outcome = Outcome(1, "user", sentence, error.recovery, error.foreign, error.next_documents())
            except Exception as error:  # noqa: BLE001 - whatever a file can be wrong in
                _log.exception("%s: its outputs cannot be used", job.id)
                sentence = f"its outputs cannot be used: {type(error).__name__}"
                outcome = Outcome(1, "user", sentence, "The daemon's log has the traceback.", str(error))
        paid = self._paid(job)
        fault("finish_before_commit")
        exited = Exited(job.attempt, outcome, progressed=self._progressed(job), ran=self._ran(job))

        def end(answer: _Answer) -> None:
            self._commit(job, answer, paid)
            fault("finish_after_commit")
            self._forget(job)

        return _Step(job, JobEvent(job.id, exited, _both(paid, register)), end, ends=True)

    def _best_at_limit(self, job: Job) -> RunFolder | None:
        """What the newest attempt that kept anything kept, where a limit stops the job: a budget is not lost."""
        if job.request != "stop":
            return None
        folders = (RunFolder(self._workspace.folders.runs / f"{job.id}.{i}") for i in range(job.attempt, 0, -1))
        return next((best for folder in folders if (best := folder.best_so_far())), None)

    def _paid(self, job: Job) -> _Register | None:
        """Records what the job's attempts paid until now: with the end of each, or its share would be free unspent."""
        database, folder = self._workspace.database, RunFolder(self._workspace.folders.runs / job.run_id)
        if not folder.started():
            return None  # it never began
        try:
            paid = dict(self._kinds[job.kind].paid(folder))
        except Exception:  # noqa: BLE001 - damaged files must not keep the job alive: then its whole share is spent
            _log.exception("%s: what it paid cannot be read", job.id)
            plan = plan_of(database, job.id) or Plan()
            shares = allowances.by_host(allowances.ledger(database), job.id, plan.spends)
            paid = {(each.dataset, each.host): shares[each.host] for each in plan.spends}

        def register(tx: Transaction, job: Job) -> None:
            for (dataset, host), usd in paid.items():
                if usd:
                    allowances.record(tx, dataset, host, usd, job.id)

        return register if paid else None

    def _commit(self, job: Job, answer: _Answer, paid: _Register | None) -> None:
        """`answer`: of what the run made and its end, together. A refusal is the job's error; what may pass is tried
        again."""
        try:
            _told(answer)
        except SpeciateError as error:
            if error.code is Code.UNAVAILABLE:  # a full disk: nothing is lost, the run's folder waits
                raise
            refused = Outcome(1, "user", error.message, error.recovery, error.foreign, error.next_documents())
            self._tell(job, Exited(job.attempt, refused, ran=self._ran(job)), paid)
        except Exception as error:
            if self._troubles.get(job.id, Trouble()).times < _COMMIT_TRIES:
                raise
            _log.exception("%s: its outputs could not be registered", job.id)
            sentence = f"its outputs could not be registered: {type(error).__name__}"
            outcome = Outcome(1, "user", sentence, "The daemon's log has the traceback.", str(error))
            self._tell(job, Exited(job.attempt, outcome, ran=self._ran(job)), paid)

    def _forget(self, job: Job) -> None:
        self._places.forget(job)
        self._launched.pop(job.run_id, None)
        self._signalled.pop(job.run_id, None)
        self._plans.pop(job.id, None)

    def _relaunch(self, job: Job) -> None:
        """The start is on disk, but no supervisor has been seen: launch the same attempt (again)."""
        launched = self._launched.get(job.run_id)
        if launched is None or self._now - launched > _RELAUNCH_SECONDS:
            plan = self._plan(job)
            if isinstance(plan, Failed):
                # It may yet begin: called off, it is lost, queued, and refused there.
                executor = self._executor_of(job)
                executor.cancel(job.handle or executor.handle(job.run_id), force=False)
            else:
                self._launch(job, plan)

    # The disk

    def _hold(self, job: Job, room: DiskSpace) -> Job:
        """Whoever writes stops at a checkpoint, and is queued again; it starts when there is room."""
        if job.request or self._gives_room(job):
            return job
        try:
            return self._tell(
                job,
                NoRoom(f"Stopped at a checkpoint for want of room ({room.short()}); with room it resumes by itself."),
            )
        except Exception:  # noqa: BLE001 - no room even for that, say: the next pass may find some
            _log.exception("%s could not be told to stop", job.id)
            return job

    def _gives_room(self, job: Job) -> bool:
        """Whether a full disk does not hold it up; nor does it hold up a kind that has gone with its plug-in."""
        try:
            return self._kinds[job.kind].gives_room
        except SpeciateError:
            return True

    def _tell_of_disk(self, room: DiskSpace) -> None:
        """An event whenever that changes, once, also over the death of a daemon."""
        database = self._workspace.database
        if self._low is None:
            sentence = database.read_one(_LAST_SAID, [DISK])
            self._low = sentence is not None and sentence[0] == "disk.low"
        low = room.low or (self._low and not room.enough)
        if low == self._low:
            return
        shown = {"free": room.free, "floor": room.floor, "used": room.used, "quota": room.quota}
        try:
            database.transact(lambda tx: tx.event(DISK, "disk.low" if low else "disk.enough", shown))
        except SpeciateError:  # no room even for that
            _log.exception("%s", room.short())
        self._low = low

    def _needed(self, job: Job, plan: Plan) -> int | None:
        """Bytes that it may write; None where the disk's state does not matter."""
        if self._gives_room(job):
            return None
        if job.id not in self._bytes:
            self._bytes[job.id] = max(plan.bytes or 0, self._left_by(job.kind)) or USUAL_BYTES
        return self._bytes[job.id]

    def _left_by(self, kind: str) -> int:
        """The most bytes that one of the last runs of this kind left in its folder; 0 where none is there."""
        now, known = self._workspace.clock.monotonic(), self._left.get(kind)
        if known is None or now >= known.until:
            runs, last = self._workspace.folders.runs, self._workspace.database.read(_LAST_RUNS, [kind])
            most = max((measure_used(runs / f"{name}.{attempt}") for name, attempt in last), default=0)
            known = self._left[kind] = _SpaceLeft(most, now + _LOOK_AGAIN_SECONDS)
        return known.bytes

    # Jobs that wait for room

    def _queue_limit_passed(self, job: Job) -> Overdue | None:
        limit = job.limits.queue_seconds
        if limit is None or job.state not in {State.QUEUED, State.WAITING}:
            return None
        return Overdue("queue", limit) if self._workspace.elapsed.least(job.changed) > limit else None

    def _start(self, due: list[Job], live: list[Job], room: DiskSpace, now: float) -> list[_Step]:
        """`due`: queued jobs whose pause is over, whose stored plans were read."""
        planned, refused, held = list[Job](), list[tuple[Job, Failed]](), dict[str, str]()
        for job in due:
            if isinstance(plan := self._plan(job), Failed):
                refused.append((job, plan))
            else:
                if job.resources != plan.resources:  # what it asks is known now
                    job = job.model_copy(update={"resources": plan.resources})  # noqa: PLW2901
                place = plan.resources.place
                if place and place not in self._places.capacities:
                    held[job.id] = f"It waits for the place {place!r}, which settings.toml names no more."
                    continue
                never = never_fits(plan.resources, self._places.capacities[place] if place else self._capacity)
                if never is None and plan.bytes and not self._gives_room(job):
                    never = never_fits_disk(plan.bytes, room)
                if never:
                    error: JobError = {
                        "class": "user", "message": f"{place or 'this machine'} can never run it: {never}",
                        "recovery": "Ask for less, or change [capacity] or [disk] in settings.toml.",
                    }  # fmt: skip
                    refused.append((job, Failed(error)))
                elif refusal := self._refuse_leaving(job, plan):
                    refused.append((job, refusal))
                else:
                    planned.append(job)
        planned, unpaid = self._with_money(planned, refused)
        needs: dict[str, int] = {
            job.id: need for job in planned if (need := self._needed(job, self._plans[job.id])) is not None
        }
        needs |= {job.id: self._bytes[job.id] for job in live if job.id in self._bytes}
        rooming = start_within_space(planned, live, needs, room)
        self._held = rooming.held | unpaid | held
        chosen, leaving = list[Job](), list[Job]()
        for place, capacity in self._rooms():
            waits, there = _at(place, rooming.start), _at(place, live)
            if not waits:  # what lives need not be counted
                continue
            begin = choose(waits, there, capacity, now)
            if place:
                begin = begin[: max(0, self._places.runs[place] - len(there))]
            chosen += begin
            leaving += make_way(waits, begin, there, capacity, now)
        self._asked = (rooming.start, chosen, live)
        for job in leaving:
            self._guard(job, lambda job=job: self._yield(job))  # type: ignore[misc]
        failing = [_Step(job, JobEvent(job.id, why), _told) for job, why in refused]
        return [*failing, *(self._claim(job) for job in chosen)]

    def _yield(self, job: Job) -> None:
        """What nobody waits for stops at a checkpoint; it resumes when there is room."""
        self._tell(job, NoRoom("Stopped at a checkpoint for a job that somebody waits for; it resumes by itself."))

    def _refuse_leaving(self, job: Job, plan: Plan) -> Failed | None:
        """What a person allowed at the call may have been taken back, or be over, by now."""
        database = self._workspace.database
        try:
            if leaving := plan.leaving(self._workspace.settings):
                if self._consents is None or self._consents[0] != database.commits:
                    self._consents = database.commits, egress.consents(database)
                egress.check(self._consents[1]._replace(now=database.now()), leaving, job=job.id)
        except SpeciateError as error:
            return Failed(_refusal(error))
        return None

    def _with_money(
        self, planned: list[Job], refused: list[tuple[Job, Failed]]
    ) -> tuple[list[Job], dict[str, str]]:  # fmt: skip
        """Jobs whose share of what people allowed is free, and why others wait; what can never be paid is `refused`. In
        the order in which they start: who waits holds its share against those behind it, so that it cannot starve."""
        if not any(self._plans[job.id].spends for job in planned):
            return planned, {}
        database = self._workspace.database
        if self._ledger is None or self._ledger[0] != database.commits:
            commits = database.commits  # before it is read: what is committed meanwhile is read again
            self._ledger = commits, allowances.ledger(database)
        ledger, start, held = self._ledger[1], list[Job](), dict[str, str]()
        for job in sorted(planned, key=lambda job: (-job.priority, job.created, job.id)):
            if spends := self._plans[job.id].spends:
                try:
                    why = ledger.why_it_waits(job.id, spends)
                except SpeciateError as error:
                    refused.append((job, Failed(_refusal(error))))
                    continue
                ledger = ledger.with_holder(job.id, spends)
                if why is not None:
                    held[job.id] = why
                    continue
            start.append(job)
        return start, held

    def _read_plans(self, jobs: Sequence[Job]) -> None:
        """Those that were resolved at the call and are not known yet, in one statement."""
        missing = [job.id for job in jobs if job.id not in self._plans and job.id not in self._texts]
        if missing:
            found = stored_plans(self._workspace.database, missing)
            self._texts |= {name: found.get(name) for name in missing}
            self._stored |= found.keys()

    def _plan(self, job: Job) -> Plan | Failed:
        """The plan of a job, or why it has none."""
        if job.id not in self._plans:
            try:
                kind = self._kinds[job.kind]
                if job.id not in self._texts:
                    self._read_plans([job])
                if (text := self._texts.pop(job.id)) is not None:
                    self._plans[job.id] = self._within_cores(Plan.model_validate_json(text))
                else:
                    self._plans[job.id] = kind.plan(kind.spec.model_validate(job.spec), self._workspace)
            except SpeciateError as error:
                return Failed(_refusal(error))
            except Exception as error:  # noqa: BLE001 - a plug-in's plan may raise anything
                _log.exception("%s: its plan failed", job.id)
                sentence = f"{type(error).__name__} in its plan"
                return Failed({"class": "internal", "message": sentence, "detail": str(error)})
        return self._plans[job.id]

    def _within_cores(self, plan: Plan) -> Plan:
        """A plan of when this machine had more cores than it has now: with fewer the run takes longer."""
        asked, there = plan.resources, self._capacity.cpu
        if asked.place or asked.cpu <= there:
            return plan
        return plan.model_copy(update={"resources": asked.model_copy(update={"cpu": there})})

    def _claim(self, job: Job) -> _Step:
        handle, plan = self._executor_of(job).handle(f"{job.id}.{job.attempt + 1}"), self._plans[job.id]
        keep: _Register | None = None if job.id in self._stored else lambda tx, job: keep_plan(tx, job.id, plan)
        leaving = plan.leaving(self._workspace.settings)
        admit: _Register | None = (lambda tx, job: egress.admit(tx, job.id, job.attempt, leaving)) if leaving else None

        def launch(answer: _Answer) -> None:
            claimed = _told(answer)
            self._stored.add(job.id)
            fault("claim_after_commit")
            if claimed.state is State.STARTING and not claimed.request:  # else it never needs to begin
                self._launch(claimed, plan)

        return _Step(job, JobEvent(job.id, Claimed(handle, job.resources), _both(admit, keep)), launch)

    def _launch(self, job: Job, plan: Plan) -> None:
        kind = self._kinds[job.kind]
        preload = kind.preload if plan.preload is None else plan.preload
        runs = self._workspace.folders.runs
        earlier = [runs / f"{job.id}.{attempt}" for attempt in range(job.attempt - 1, 0, -1)]
        spec: RunDocument = {
            "job": job.id,
            "kind": job.kind,
            "attempt": job.attempt,
            "entry": kind.run,
            "payload": plan.payload_json(),
            "secrets": plan.secrets,  # their names and hosts
            "workspace": str(self._workspace.folders.root),
            "settings": safety(self._workspace.settings),
            "resources": plan.resources.model_dump(),
            "preload": preload,
            "memory_retries": job.shrinks,
            "resume_from": [str(path) for path in earlier if path.is_dir()],
            "row": job.model_dump(mode="json", exclude={"result", "error"}),  # what `rebuild` needs
        }
        if plan.inputs:
            spec["inputs"] = plan.inputs
        if plan.sources:
            spec["sources"] = plan.sources
        if leaving := plan.leaving(self._workspace.settings):
            spec["permits"] = egress.permits(leaving)
        if plan.spends:
            ledger = allowances.ledger(self._workspace.database)
            spec["allowances"] = allowances.by_host(ledger, job.id, plan.spends)
        self._launched[job.run_id] = self._now
        self._executor_of(job).submit(RunSpec(job.run_id, spec, "" if plan.resources.gpu else preload))
        fault("launched")


def _at(place: str | None, jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.resources.place == place]


def _told(answer: _Answer) -> Job:
    job = answer.result()
    assert isinstance(job, Job)  # errors are raised
    return job


def _both(first: _Register | None, second: _Register | None) -> _Register | None:
    if first is None or second is None:
        return first or second

    def register(tx: Transaction, job: Job) -> Mapping[str, object] | None:
        first(tx, job)
        return second(tx, job)

    return register


def _refusal(error: SpeciateError) -> JobError:
    """What a job that was refused says of it."""
    said: JobError = {"class": "user", "message": error.message, "recovery": error.recovery}
    if error.next:
        said["next"] = error.next_documents()
    return said
