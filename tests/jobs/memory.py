"""A reconciler over rows in memory: a pass takes a fraction of a millisecond, and a test says all that is true."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from speciate.errors import SpeciateError
from speciate.jobs import egress, reconcile, rows
from speciate.jobs.executors import Alive, Executor, Observation
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import LIVE, Job, Resources, State, fingerprint
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.jobs.reconcile import Reconciler
from speciate.jobs.store import JobEvent, Store
from speciate.jobs.transitions import decide
from speciate.refs import JobId
from speciate.settings import Capacity, Settings
from speciate.workspace.disk_space import GB, DiskSpace
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.jobs.test_reconcile import Stage

ROOMY = DiskSpace(total=400 * GB, free=300 * GB, floor=1 * GB)
_ACTIVE = {State.QUEUED, State.WAITING, *LIVE}


class MemoryCatalog:
    """Of the catalog, what the reconciler asks. Each call of `submit_all` is a commit."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.commits = clock, 0
        self.jobs: dict[str, Job] = {}
        self.plans: dict[str, str] = {}
        self.events: list[tuple[str, str, Mapping[str, object]]] = []
        self.asked: list[str] = []
        self.paid: list[tuple[object, ...]] = []
        self.given: list[tuple[object, ...]] = []
        """Rows of consents."""
        self.refuses: Exception | None = None
        """Raised by transactions of others, as long as it is set."""

    def submit_all(self, tell: object, events: Sequence[JobEvent]) -> list[Future[Job | SpeciateError]]:
        answers = [self.submit(tell, event, alone=False) for event in events]
        self.commits += bool(events)
        return answers

    def submit(self, tell: object, event: JobEvent, *, alone: bool = True) -> Future[Job | SpeciateError]:
        assert getattr(tell, "__func__", None) is Store.tell
        answer: Future[Job | SpeciateError] = Future()
        paid, told, plans = len(self.paid), len(self.events), dict(self.plans)
        try:
            before = self.jobs[event.job]
            after = decide(before, event.event, self.clock.now())
            if event.register and after is not before:
                made = event.register(cast(Any, self), after)
                after = after.model_copy(update={"result": {**(after.result or {}), **made}}) if made else after
            self.jobs[event.job] = after
            answer.set_result(after)
        except Exception as error:  # noqa: BLE001 - as the writer's thread does
            del self.paid[paid:], self.events[told:]
            self.plans = plans
            answer.set_exception(error)
        self.commits += alone
        return answer

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self.asked.append(sql)
        if "FROM job_plans" in sql:
            wanted = parameters[0] if "unnest" in sql else [parameters[0]]
            found = [(name, self.plans[name]) for name in wanted if name in self.plans]
            return found if "unnest" in sql else [(plan,) for _, plan in found]
        if sql == egress._GIVEN:
            return list(self.given)
        if sql == reconcile._LAST_RUNS:
            ended = [job for job in self.jobs.values() if (job.kind, job.state) == (parameters[0], State.SUCCEEDED)]
            return [(job.id, job.attempt) for job in ended[:3]]
        if sql == reconcile._LAST_SAID:
            return [(kind,) for subject, kind, _ in self.events if subject == parameters[0]][-1:]
        assert sql == f"{rows._SELECT} WHERE {reconcile._ACTIVE} ORDER BY created, id", sql
        active = [job for job in self.jobs.values() if job.state in _ACTIVE]
        active.sort(key=lambda job: (job.created, job.id))
        return [tuple(rows._cell(job, name) for name in rows._COLUMNS) for job in active]

    def read_one(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        return next(iter(self.read(sql, parameters)), None)

    def transact(self, write: Callable[[Any], object]) -> None:
        if self.refuses is not None:
            raise self.refuses
        write(self)

    def now(self) -> float:
        return self.clock.now()

    # As a transaction

    def event(self, subject: str, kind: str, data: Mapping[str, object]) -> None:
        self.events.append((subject, kind, data))

    def execute(self, sql: str, parameters: Sequence[Any]) -> None:
        assert "job_plans" in sql
        for name, plan in zip(*parameters, strict=True):
            self.plans.setdefault(name, plan)


class MemoryPlaces:
    """One place with room for so many runs, which live on a stage of its own."""

    def __init__(self, runs: int = 2, capacity: Capacity | None = None) -> None:
        self.stage = Stage()
        self.capacities, self.runs = {"far": capacity or Capacity(cpu=8, memory_mb=1000)}, {"far": runs}
        self.forgotten: list[str] = []

    def executor(self, name: str) -> Executor:
        assert name == "far"
        return cast(Executor, self.stage)

    def forget(self, job: Job) -> None:
        self.forgotten.append(job.run_id)

    def trouble(self, job: Job) -> str | None:
        return f"{job.id}: nobody answers" if job.resources.place else None


class World:
    """`disk` is what the disk has; `stage.truth` is what is true of runs here."""

    def __init__(
        self, folder: Path, kinds: Sequence[Kind], *, cpu: float = 2, places: MemoryPlaces | None = None
    ) -> None:
        self.clock, self.stage, self.disk = ManualClock(), Stage(), ROOMY
        self.catalog, self.places = MemoryCatalog(self.clock), places or MemoryPlaces()
        self.jumped, self.saved, self.runs, self.kinds = 0.0, 0, folder / "runs", Kinds(extra=kinds)
        self.capacity = Capacity(cpu=cpu, memory_mb=1000)
        self.reconciler = self.restarted()

    def restarted(self) -> Reconciler:
        """Another daemon over the same rows."""
        workspace = SimpleNamespace(
            clock=self.clock, settings=Settings(), database=self.catalog,
            elapsed=SimpleNamespace(save=self._save, least=self._least),
            room=SimpleNamespace(look=lambda: self.disk),
            folders=SimpleNamespace(runs=self.runs, root=self.runs.parent),
        )  # fmt: skip
        return Reconciler(
            cast(Workspace, workspace), self.kinds, Store(self.kinds, Settings()), cast(Executor, self.stage),
            self.capacity, cast(Any, self.places),
        )  # fmt: skip

    def _least(self, stamp: float) -> float:
        return max(0.0, self.clock.now() - self.jumped - stamp)

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock; no time passes."""
        self.jumped += seconds
        self.clock.jump(seconds)

    def _save(self) -> None:
        self.saved += 1

    def add(self, kind: str = "plain", state: State = State.QUEUED, **changes: Any) -> str:
        """A job, whose plan is not stored unless `plan` is given. Each is later than the one before."""
        now, number = self.clock.now(), len(self.catalog.jobs)
        job = Job(
            id=JobId(f"job-{number:02}"), kind=kind, spec={}, fingerprint=fingerprint(kind, {}), state=state,
            created=now - 1 + number * 1e-3, changed=now, limits=self.kinds[kind].limits,
        )  # fmt: skip
        if plan := changes.pop("plan", None):
            self.catalog.plans[job.id] = plan.model_dump_json(by_alias=True)
            changes = {"resources": plan.resources} | changes
        if state in LIVE:
            handle = {"run": f"{job.id}.{changes.get('attempt', 1)}"}
            changes = {"attempt": 1, "started": now, "handle": handle} | changes
        self.put(job.model_copy(update=changes))
        return str(job.id)

    def put(self, job: Job) -> None:
        self.catalog.jobs[job.id] = job
        self.catalog.commits += 1

    def change(self, job: str, **changes: Any) -> None:
        self.put(self.job(job).model_copy(update=changes))

    def live(self, kind: str = "plain", **changes: Any) -> str:
        """A job that runs, here and in truth."""
        job = self.add(kind, State.RUNNING, **changes)
        place = self.job(job).resources.place
        (self.places.stage if place else self.stage).truth[self.job(job).run_id] = Alive()
        return job

    def job(self, name: str) -> Job:
        return self.catalog.jobs[name]

    def is_true(self, job: str, truth: Observation) -> None:
        self.stage.truth[self.job(job).run_id] = truth

    def folder(self, job: str, attempt: int = 1) -> RunFolder:
        folder = RunFolder(self.runs / f"{job}.{attempt}")
        folder.outputs.mkdir(parents=True, exist_ok=True)
        return folder

    def progress(self, job: str, done: float, attempt: int = 1) -> None:
        line = f'{{"at": {self.clock.now()}, "done": {done}, "total": null, "unit": "", "message": ""}}\n'
        (self.folder(job, attempt).path / "progress.jsonl").write_text(line)

    def tick(self, seconds: float = 0.0) -> int:
        self.clock.advance(seconds)
        return self.reconciler.tick()

    def states(self, *jobs: str) -> list[State]:
        return [self.job(name).state for name in jobs or self.catalog.jobs]


def a_plan(cpu: float = 1.0, place: str | None = None, **given: Any) -> Plan[Any]:
    return Plan(resources=Resources(cpu=cpu, place=place), **given)
