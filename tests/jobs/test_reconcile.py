"""The reconciler against an executor whose truth the test sets, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.jobs.engine import Engine
from speciate.jobs.executors import Alive, Ended, Gone, Observation, Pending, RunSpec, Unreachable
from speciate.jobs.folder import Outcome, RunFolder
from speciate.jobs.job import Job, Limits, State
from speciate.jobs.kinds import Kind, Kinds
from speciate.settings import Capacity, Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.jobs.work import ENTRY, KINDS, Work, plan

LIMITED = Kind(
    name="limited", spec=Work, plan=plan, run=ENTRY,
    limits=Limits(queue_seconds=100, run_seconds=50, silence_seconds=20, grace_seconds=10),
)  # fmt: skip


class Stage:
    """An executor that does what it is told."""

    def __init__(self) -> None:
        self.truth: dict[str, Observation] = {}
        self.submitted: list[str] = []
        self.cancelled: list[tuple[str, bool]] = []

    def handle(self, run_id: str) -> dict[str, Any]:
        return {"run": run_id}

    def submit(self, run: RunSpec) -> None:
        self.submitted.append(run.id)
        self.truth.setdefault(run.id, Pending())

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
    workspace = Workspace(tmp_path / "w", clock=clock, settings=Settings(capacity=Capacity(cpu=2, memory_mb=1000)))
    yield Engine(workspace, Kinds(extra=[*KINDS, LIMITED]), executor=stage)
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


def test_a_lost_run_is_followed_by_the_next_attempt(engine: Engine, stage: Stage) -> None:
    job = running(engine, stage)
    stage.truth[job.run_id] = Gone(progressed=True)
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


def test_one_job_in_trouble_does_not_stop_the_others(engine: Engine, stage: Stage) -> None:
    bad, good = running(engine, stage), running(engine, stage)
    stage.truth[bad.run_id] = Ended(Outcome(0, "ok"))  # and left no folder at all
    stage.truth[good.run_id] = Ended(Outcome(1, "user", "the label has one value"))
    engine.tick()
    assert engine.get(bad.id).state is State.SUCCEEDED
    assert engine.get(good.id).state is State.FAILED
