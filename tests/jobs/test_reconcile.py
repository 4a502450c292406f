"""The reconciler against an executor whose truth the test sets, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from speciate.jobs import reconcile
from speciate.jobs.engine import Engine
from speciate.jobs.executors import Abandoned, Alive, Ended, Gone, Observation, Pending, RunSpec, Unreachable
from speciate.jobs.folder import Outcome, RunFolder
from speciate.jobs.job import Job, Limits, Resources, State
from speciate.jobs.kinds import Child, ChildRequest, Kind, Kinds, NextStep, Plan
from speciate.jobs.run import Run
from speciate.jobs.transitions import MAX_LOSSES
from speciate.settings import Capacity, Settings
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.data import fresh
from tests.jobs.work import ENTRY, KINDS, Work, plan


def commit_never(tx: Transaction, job: Job, collected: Any) -> dict[str, Any]:
    raise OSError("the folder is read-only")


def plan_now(spec: Work, workspace: Workspace) -> Plan:
    """Resolves to the time of the plan, as a bare ref resolves to the newest version."""
    return Plan(payload={"planned": workspace.clock.now()})


def plan_by_failures(spec: Work, workspace: Workspace) -> Plan:
    """Resolves to how many jobs the catalog says failed by the time of the plan."""
    (failed,) = workspace.database.read("SELECT count(*) FROM jobs WHERE state = 'failed'")
    return Plan(payload={"failed": failed[0]})


STUBBORN = Kind(name="stubborn", spec=Work, plan=plan, run=ENTRY, commit=commit_never)
DATED = Kind(name="dated", spec=Work, plan=plan_now, run=ENTRY)
COUNTING = Kind(name="counting", spec=Work, plan=plan_by_failures, run=ENTRY)
LIMITED = Kind(
    name="limited", spec=Work, plan=plan, run=ENTRY,
    limits=Limits(queue_seconds=100, run_seconds=50, silence_seconds=20, grace_seconds=10),
)  # fmt: skip


def plan_of_all_cores(spec: Work, workspace: Workspace) -> Plan:
    return Plan(payload=spec.model_dump(), resources=Resources(cpu=workspace.settings.capacity.cpu))


WHOLE = Kind(name="whole", spec=Work, plan=plan_of_all_cores, run=ENTRY)


def one_child(spec: Work, children: Sequence[Child], now: float) -> NextStep:
    return [ChildRequest(step="limited", kind="limited", spec=spec.model_dump())]


PARENT = Kind(name="parent", spec=Work, next=one_child)
"""Of a plug-in that is removed in some tests: nothing can be told any more that its jobs must follow up."""


class Stage:
    """An executor that does what it is told."""

    def __init__(self) -> None:
        self.truth: dict[str, Observation] = {}
        self.submitted: list[str] = []
        self.specs: dict[str, dict[str, Any]] = {}
        self.preloads: dict[str, str] = {}
        self.cancelled: list[tuple[str, bool]] = []

    def handle(self, run_id: str) -> dict[str, Any]:
        return {"run": run_id}

    def submit(self, run: RunSpec) -> None:
        self.submitted.append(run.id)
        self.specs[run.id] = run.spec
        self.preloads[run.id] = run.preload
        self.truth.setdefault(run.id, Pending())

    def prepare(self, preload: str) -> None:
        """It needs no imports."""

    def poll(self, handle: dict[str, Any]) -> Observation:
        return self.truth.get(handle["run"], Pending())

    def cancel(self, handle: dict[str, Any], force: bool) -> None:
        self.cancelled.append((handle["run"], force))

    def logs(self, handle: dict[str, Any], offset: int) -> bytes:
        return b""


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock, stage: Stage) -> Iterator[Engine]:
    workspace = Workspace(
        fresh(tmp_path / "w", manual=True), clock=clock, settings=Settings(capacity=Capacity(cpu=2, memory_mb=1000))
    )
    yield Engine(workspace, Kinds(extra=[*KINDS, LIMITED, STUBBORN, DATED, COUNTING, PARENT]), executor=stage)
    workspace.close()


def running(engine: Engine, stage: Stage, kind: str = "work") -> Job:
    job = engine.submit(kind, {})
    engine.tick()
    stage.truth[f"{job.id}.1"] = Alive()
    engine.tick()
    return engine.get(job.id)


def test_a_start_is_on_disk_before_it_is_launched_and_seen_before_it_runs(engine: Engine, stage: Stage) -> None:
    job = engine.submit("work", {})
    engine.tick()
    assert engine.get(job.id).state is State.STARTING
    assert stage.submitted == [f"{job.id}.1"]
    stage.truth[f"{job.id}.1"] = Alive()
    engine.tick()
    assert engine.get(job.id).state is State.RUNNING


def test_a_job_of_when_there_were_more_cores_runs_on_those_that_are_left(
    tmp_path: Path, clock: ManualClock, stage: Stage
) -> None:
    """A virtual machine was made smaller, or a container got a quota, while it waited or was paused."""
    root = fresh(tmp_path / "w", manual=True)
    for cores in (8, 1):
        workspace = Workspace(root, clock=clock, settings=Settings(capacity=Capacity(cpu=cores, memory_mb=1000)))
        engine = Engine(workspace, Kinds(extra=[WHOLE]), executor=stage)
        job = engine.submit("whole", {}, key="purge")
        if cores == 1:
            engine.tick()
            job = engine.get(job.id)
            assert (job.state, job.resources.cpu, stage.submitted) == (State.STARTING, 1, [f"{job.id}.1"])
        workspace.close()


def test_the_catalog_is_left_alone_while_nothing_is_written_to_it(
    engine: Engine, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass comes every few hundredths of a second; queries would take a tenth of a core from what runs."""
    job = running(engine, stage)
    engine.tick()
    asked: list[str] = []
    read = Database.read
    monkeypatch.setattr(Database, "read", lambda self, sql, given=(): asked.append(sql) or read(self, sql, given))
    for _ in range(10):
        engine.tick()
    assert asked == []
    other = engine.submit("work", {})
    engine.tick()
    assert asked
    assert stage.submitted == [job.run_id, f"{other.id}.1"]


def test_a_launch_that_nobody_saw_is_repeated_as_the_same_attempt(
    engine: Engine, stage: Stage, clock: ManualClock
) -> None:
    job = engine.submit("work", {})
    engine.tick()
    engine.tick()
    assert stage.submitted == [f"{job.id}.1"], "not at every pass"
    clock.advance(6)
    engine.tick()
    assert stage.submitted == [f"{job.id}.1"] * 2
    assert engine.get(job.id).attempt == 1


def test_a_run_that_cannot_be_seen_is_not_taken_for_lost(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    job = running(engine, stage)
    stage.truth[job.run_id] = Unreachable("the network is away")
    for _ in range(10):
        clock.advance(3600)
        engine.tick()
    assert (engine.get(job.id).state, engine.get(job.id).attempt) == (State.RUNNING, 1)
    assert stage.submitted == [job.run_id]


def test_a_run_that_is_gone_for_ever_ends_once_somebody_cancels_it_and_its_record_says_so(
    engine: Engine, stage: Stage, clock: ManualClock
) -> None:
    job = running(engine, stage, "limited")
    stage.truth[job.run_id] = Abandoned("nobody knows whether it ended")
    engine.tick()
    engine.control(job.id, "pause")
    engine.tick()
    assert engine.get(job.id).state is State.RUNNING, "only who wants its end gives it up"
    engine.control(job.id, "cancel")
    engine.tick()
    done = engine.get(job.id)
    assert (done.state, done.reason) == (State.CANCELLED, "cancelled on request; nobody knows whether it ended")
    assert stage.submitted == [job.run_id]


def test_a_lost_run_is_followed_by_the_next_attempt(engine: Engine, stage: Stage) -> None:
    job = running(engine, stage)
    stage.truth[job.run_id] = Gone()
    engine.tick()
    engine.tick()
    assert stage.submitted == [f"{job.id}.1", f"{job.id}.2"]


def test_cancel_asks_first_and_kills_after_the_grace(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    job = running(engine, stage, "limited")
    engine.control(job.id, "cancel")
    engine.tick()
    engine.tick()
    assert stage.cancelled == [(job.run_id, False)], "asked once"
    clock.advance(11)
    engine.tick()
    assert stage.cancelled[-1] == (job.run_id, True)
    assert engine.get(job.id).state is State.RUNNING, "not cancelled while it lives"
    stage.truth[job.run_id] = Ended(Outcome(-9, "killed"))
    engine.tick()
    assert engine.get(job.id).state is State.CANCELLED


def test_a_job_that_waits_too_long_for_room_is_given_up(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    running(engine, stage)
    running(engine, stage)
    late = engine.submit("limited", {})
    clock.advance(101)
    engine.tick()
    assert engine.get(late.id).state is State.DEAD
    assert "(queue)" in (engine.get(late.id).reason or "")


def test_a_queued_job_says_which_runs_have_what_it_waits_for(engine: Engine, stage: Stage) -> None:
    first, second = running(engine, stage), running(engine, stage)
    late = engine.submit("work", {})
    engine.tick()
    said = engine.waits(late.id) or ""
    assert "It waits for 1 CPU core (0 free)" in said
    assert first.id in said
    assert second.id in said
    assert engine.waits(first.id) is None
    stage.truth[first.run_id] = Ended(Outcome(0, "ok"))
    engine.tick()
    engine.tick()
    assert engine.waits(late.id) is None


@pytest.mark.parametrize(("heard", "limit"), [(True, "run"), (False, "silence")])
def test_a_run_that_takes_too_long_or_falls_silent_is_stopped(
    engine: Engine, stage: Stage, clock: ManualClock, heard: bool, limit: str
) -> None:
    job = running(engine, stage, "limited")
    folder = RunFolder(engine.workspace.folders.runs / job.run_id)
    folder.path.mkdir(parents=True)
    for _ in range(6):
        clock.advance(10)
        if heard:
            line = f'{{"at": {clock.now()}, "done": 1, "total": null, "unit": "", "message": ""}}\n'
            (folder.path / "progress.jsonl").write_text(line)
        engine.tick()
    assert (job.run_id, False) in stage.cancelled
    stage.truth[job.run_id] = Ended(Outcome(85, "stopped"))
    engine.tick()
    ended = engine.get(job.id)
    assert ended.state is State.DEAD
    assert f"({limit})" in (ended.reason or "")


LIVED = {"job": "job-x", "workspace": "/w", "payload": {}}


def _keep(job: Job, engine: Engine, attempt: int, value: int) -> None:
    folder = RunFolder(engine.workspace.folders.runs / f"{job.id}.{attempt}")
    folder.create({**LIVED, "job": job.id})
    Run(folder).keep_best(lambda outputs: {"value": value, "written_to": outputs.name})


@pytest.mark.parametrize("end", [Ended(Outcome(85, "stopped")), Ended(Outcome(-9, "killed")), Gone()])
def test_a_limit_ends_in_the_best_that_the_run_kept(
    engine: Engine, stage: Stage, clock: ManualClock, end: Observation
) -> None:
    job = running(engine, stage, "limited")
    _keep(job, engine, 1, 7)
    clock.advance(51)
    engine.tick()
    stage.truth[job.run_id] = end
    engine.tick()
    ended = engine.get(job.id)
    assert (ended.state, ended.reason) == (State.SUCCEEDED, None)
    assert ended.result == {"value": 7, "written_to": "best-1"}


def test_a_limit_ends_in_what_an_earlier_attempt_kept(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    job = running(engine, stage, "limited")
    _keep(job, engine, 1, 7)
    stage.truth[job.run_id] = Gone()
    engine.tick()
    engine.tick()
    stage.truth[f"{job.id}.2"] = Alive()
    engine.tick()
    assert engine.get(job.id).state is State.RUNNING, "lost without a limit: it goes on"
    clock.advance(51)
    engine.tick()
    stage.truth[f"{job.id}.2"] = Gone()
    engine.tick()
    assert engine.get(job.id).result == {"value": 7, "written_to": "best-1"}


def test_what_was_cancelled_leaves_no_result_though_it_kept_one(engine: Engine, stage: Stage) -> None:
    job = running(engine, stage, "limited")
    _keep(job, engine, 1, 7)
    engine.control(job.id, "cancel")
    stage.truth[job.run_id] = Ended(Outcome(85, "stopped"))
    engine.tick()
    assert (engine.get(job.id).state, engine.get(job.id).result) == (State.CANCELLED, None)


def test_while_draining_nothing_starts_and_what_ends_is_still_written_down(engine: Engine, stage: Stage) -> None:
    job = running(engine, stage)
    waiting = engine.submit("work", {})
    engine.drain()
    folder = RunFolder(engine.workspace.folders.runs / job.run_id)
    folder.outputs.mkdir(parents=True)
    (folder.outputs / "result.json").write_text('{"value": 9}')
    stage.truth[job.run_id] = Ended(Outcome(0, "ok"))
    engine.tick()
    assert engine.get(job.id).result == {"value": 9}
    assert engine.get(waiting.id).state is State.QUEUED


def test_outputs_that_cannot_be_read_fail_the_job_and_nothing_is_registered(engine: Engine, stage: Stage) -> None:
    job = running(engine, stage)
    folder = RunFolder(engine.workspace.folders.runs / job.run_id)
    folder.outputs.mkdir(parents=True)
    (folder.outputs / "result.json").write_text("{torn")
    stage.truth[job.run_id] = Ended(Outcome(0, "ok"))
    engine.tick()
    failed = engine.get(job.id)
    assert failed.state is State.FAILED
    assert failed.result is None
    assert "outputs cannot be used" in (failed.reason or "")


def test_one_job_in_trouble_does_not_stop_the_others(
    engine: Engine, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = running(engine, stage), running(engine, stage)
    poll = stage.poll

    def troubled(handle: dict[str, Any]) -> Observation:
        if handle["run"] == bad.run_id:
            raise OSError("its folder cannot be read")
        return poll(handle)

    monkeypatch.setattr(stage, "poll", troubled)
    stage.truth[good.run_id] = Ended(Outcome(1, "user", "the label has one value"))
    engine.tick()
    assert engine.get(bad.id).state is State.RUNNING
    assert engine.trouble(bad.id) == "its folder cannot be read"
    assert engine.get(good.id).state is State.FAILED


def without_plug_in(engine: Engine, stage: Stage, *, of: Kind) -> Engine:
    """The same workspace after a restart without the plug-in that brought a kind of job."""
    return Engine(engine.workspace, Kinds(extra=[kind for kind in [*KINDS, LIMITED] if kind != of]), executor=stage)


def test_a_queue_limit_that_cannot_be_told_does_not_stop_the_others(
    engine: Engine, stage: Stage, clock: ManualClock
) -> None:
    ends, _, parent = running(engine, stage), running(engine, stage), engine.submit("parent", {})
    (child,) = engine.list(parent=parent.id)
    engine = without_plug_in(engine, stage, of=PARENT)
    clock.advance(101)
    waits = engine.submit("work", {}, priority=1)
    stage.truth[ends.run_id] = Ended(Outcome(1, "user", "enough"))
    engine.tick()
    assert (engine.get(ends.id).state, engine.get(waits.id).state) == (State.FAILED, State.STARTING)
    assert "'parent'" in (engine.trouble(child.id) or "")
    engine.control(parent.id, "cancel")
    engine.tick()
    assert engine.get(child.id).state is State.CANCELLED
    assert engine.trouble(child.id) is None, "nothing is kept of a job that is over"


def test_a_refused_plan_that_cannot_be_told_does_not_stop_the_others(engine: Engine, stage: Stage) -> None:
    parent = engine.submit("parent", {"refuse": True})
    (child,) = engine.list(parent=parent.id)
    engine = without_plug_in(engine, stage, of=PARENT)
    waits = engine.submit("work", {})
    engine.tick()
    assert (engine.get(child.id).state, engine.get(waits.id).state) == (State.QUEUED, State.STARTING)
    assert "'parent'" in (engine.trouble(child.id) or "")


def test_a_run_whose_plug_in_is_gone_does_not_stop_the_others_on_a_full_disk(engine: Engine, stage: Stage) -> None:
    unknown, stops = running(engine, stage, "limited"), running(engine, stage)
    engine = without_plug_in(engine, stage, of=LIMITED)
    engine.workspace.room.usage = lambda root: (1 << 40, 0)
    engine.tick()
    assert stage.cancelled == [(stops.run_id, False)]
    stage.truth[stops.run_id] = Ended(Outcome(85, "stopped"))
    engine.control(unknown.id, "cancel")
    engine.tick()
    assert engine.get(stops.id).state is State.QUEUED, "it resumes when there is room"
    assert stage.cancelled[-1] == (unknown.run_id, False), "who asks for it can still end it"


def test_what_ends_and_what_starts_in_one_pass_is_one_commit(engine: Engine, stage: Stage) -> None:
    ends, lives = running(engine, stage), engine.submit("work", {})
    engine.tick()
    waits = engine.submit("work", {})  # there is room for two
    engine.tick()
    assert engine.get(waits.id).state is State.QUEUED
    stage.truth |= {ends.run_id: Ended(Outcome(1, "user", "enough")), f"{lives.id}.1": Alive()}
    before = engine.workspace.database.commits
    engine.tick()
    assert engine.workspace.database.commits == before + 1
    assert [engine.get(each.id).state for each in (ends, lives, waits)] == [
        State.FAILED, State.RUNNING, State.STARTING,
    ]  # fmt: skip


def test_an_end_is_committed_before_anything_is_planned_that_may_take_long(engine: Engine, stage: Stage) -> None:
    ends, needed = running(engine, stage), engine.submit("inline", {})
    follows = engine.submit("counting", {}, after=[needed.id])
    stage.truth[ends.run_id] = Ended(Outcome(1, "user", "enough"))
    engine.tick()
    assert stage.specs[f"{follows.id}.1"]["payload"] == {"failed": 1}


def test_an_end_is_committed_though_nothing_can_be_started(
    engine: Engine, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, waits = running(engine, stage), engine.submit("work", {})
    stage.truth[ends.run_id] = Ended(Outcome(1, "user", "enough"))

    def no_room(*given: object) -> None:
        raise OSError("the folders of runs cannot be measured")

    monkeypatch.setattr(reconcile, "start_within_space", no_room)
    with pytest.raises(OSError, match="cannot be measured"):
        engine.tick()
    assert (engine.get(ends.id).state, engine.get(waits.id).state) == (State.FAILED, State.QUEUED)


def test_the_plan_of_a_job_that_is_not_due_is_not_read(
    engine: Engine, stage: Stage, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = engine.submit("work", {})
    for attempt in (1, 2):
        clock.advance(100)
        engine.tick()
        stage.truth[f"{job.id}.{attempt}"] = Gone()
        engine.tick()
    assert engine.get(job.id).state is State.QUEUED
    assert engine.get(job.id).not_before > clock.now()
    read, asked = Database.read, list[str]()
    monkeypatch.setattr(Database, "read", lambda self, sql, given=(): asked.append(sql) or read(self, sql, given))
    for _ in range(5):
        engine.submit("inline", {})
        engine.tick()
    assert not [sql for sql in asked if "job_plans" in sql]
    clock.advance(100)
    engine.tick()
    assert [sql for sql in asked if "job_plans" in sql], "due, it is read and starts"
    assert stage.submitted[-1] == f"{job.id}.3"


def test_a_plan_that_cannot_be_read_fails_its_job_alone(engine: Engine, stage: Stage) -> None:
    bad, good = engine.submit("work", {}), engine.submit("work", {})
    engine.workspace.database.transact(
        lambda tx: tx.execute("UPDATE job_plans SET plan = '{\"payload\"' WHERE job = ?", [bad.id])
    )
    engine.tick()
    assert (engine.get(bad.id).state, engine.get(good.id).state) == (State.FAILED, State.STARTING)


def test_every_attempt_works_on_what_was_resolved_at_the_call(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    called = clock.now()
    job = engine.submit("dated", {})
    clock.advance(60)
    engine.tick()
    stage.truth[f"{job.id}.1"] = Gone()
    engine.tick()
    clock.advance(60)
    engine.tick()
    assert [stage.specs[f"{job.id}.{i}"]["payload"] for i in (1, 2)] == [{"planned": called}] * 2


def test_a_cancelled_start_is_over_only_when_it_can_no_longer_begin(engine: Engine, stage: Stage) -> None:
    job = engine.submit("work", {})
    engine.tick()
    engine.control(job.id, "cancel")
    engine.tick()
    assert stage.cancelled == [(f"{job.id}.1", False)]
    assert engine.get(job.id).state is State.STARTING, "its supervisor may still be on its way"
    stage.truth[f"{job.id}.1"] = Gone()
    engine.tick()
    assert engine.get(job.id).state is State.CANCELLED


def test_runs_that_die_at_the_same_place_are_given_up(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    job = engine.submit("work", {})
    for attempt in range(1, MAX_LOSSES + 2):
        clock.advance(100)
        engine.tick()
        folder = RunFolder(engine.workspace.folders.runs / f"{job.id}.{attempt}")
        folder.path.mkdir(parents=True)
        line = '{"at": 0, "done": 3, "total": 9, "unit": "", "message": ""}\n'
        (folder.path / "progress.jsonl").write_text(line)
        stage.truth[f"{job.id}.{attempt}"] = Gone()
        engine.tick()
        if engine.get(job.id).state is State.DEAD:
            break
    assert engine.get(job.id).state is State.DEAD
    assert "without progress" in (engine.get(job.id).reason or "")


def test_outputs_that_cannot_be_registered_are_tried_again_and_then_fail_the_job(
    engine: Engine, stage: Stage, clock: ManualClock
) -> None:
    job = running(engine, stage, "stubborn")
    RunFolder(engine.workspace.folders.runs / job.run_id).outputs.mkdir(parents=True)
    stage.truth[job.run_id] = Ended(Outcome(0, "ok"))
    passes = 0
    while engine.get(job.id).state is State.RUNNING:
        passes += 1
        assert passes < 20
        clock.advance(61)
        engine.tick()
    assert passes > 3, "what may pass by itself is tried again"
    assert "could not be registered: OSError" in (engine.get(job.id).reason or "")
