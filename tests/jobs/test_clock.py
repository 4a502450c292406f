"""Jobs while somebody sets the clock: a year on, a year back, or it stands still."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.jobs.engine import Engine
from speciate.jobs.executors import Ended, Gone
from speciate.jobs.folder import Outcome
from speciate.jobs.job import State
from speciate.jobs.kinds import Kinds
from speciate.server import job_view
from speciate.settings import Capacity, Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.data import fresh
from tests.jobs.test_reconcile import LIMITED, Stage, running
from tests.jobs.work import KINDS

YEAR = 365 * 86_400.0
JUMPS = pytest.mark.parametrize("jump", [YEAR, -YEAR])


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock, stage: Stage) -> Iterator[Engine]:
    workspace = Workspace(
        fresh(tmp_path / "w", manual=True), clock=clock, settings=Settings(capacity=Capacity(cpu=2, memory_mb=1000))
    )
    yield Engine(workspace, Kinds(extra=[*KINDS, LIMITED]), executor=stage)
    workspace.close()


@JUMPS
def test_no_run_is_stopped_for_a_limit_that_has_not_passed_and_every_one_for_one_that_has(
    engine: Engine, stage: Stage, clock: ManualClock, jump: float
) -> None:
    job = running(engine, stage, "limited")
    clock.advance(15)
    clock.jump(jump)
    engine.tick()
    assert engine.get(job.id).request is None
    clock.advance(60)
    engine.tick()
    assert engine.get(job.id).request == "stop"


@JUMPS
def test_a_run_that_does_not_heed_a_request_is_ended_after_its_grace_neither_at_once_nor_in_a_year(
    engine: Engine, stage: Stage, clock: ManualClock, jump: float
) -> None:
    job = running(engine, stage, "limited")
    engine.control(job.id, "cancel")
    engine.tick()
    clock.jump(jump)
    engine.tick()
    assert stage.cancelled == [(f"{job.id}.1", False)]
    clock.advance(15)
    engine.tick()
    assert stage.cancelled[-1] == (f"{job.id}.1", True)


@JUMPS
def test_a_job_waits_as_long_as_it_may_and_no_longer(engine: Engine, clock: ManualClock, jump: float) -> None:
    holding = [engine.submit("work", {}) for _ in range(2)]
    engine.tick()
    job = engine.submit("limited", {})
    clock.advance(50)
    clock.jump(jump)
    engine.tick()
    assert engine.get(job.id).state is State.QUEUED
    clock.advance(90)
    engine.tick()
    assert engine.get(job.id).state is State.DEAD
    assert len(holding) == 2


@JUMPS
def test_a_pause_before_a_retry_ends(engine: Engine, stage: Stage, clock: ManualClock, jump: float) -> None:
    job = running(engine, stage)
    for attempt in (1, 2):
        stage.truth[f"{job.id}.{attempt}"] = Gone()
        engine.tick()
        engine.tick()
    assert engine.get(job.id).state is State.QUEUED
    clock.jump(jump)
    clock.advance(61)
    engine.tick()
    engine.tick()
    assert engine.get(job.id).state is State.STARTING


@JUMPS
def test_a_launch_that_nobody_saw_is_repeated(engine: Engine, stage: Stage, clock: ManualClock, jump: float) -> None:
    job = engine.submit("work", {})
    engine.tick()
    clock.jump(jump)
    engine.tick()
    assert stage.submitted == [f"{job.id}.1"]
    clock.advance(6)
    engine.tick()
    assert stage.submitted == [f"{job.id}.1"] * 2


@JUMPS
def test_run_time_is_what_it_was(engine: Engine, stage: Stage, clock: ManualClock, jump: float) -> None:
    job = running(engine, stage)
    clock.advance(1_000)
    clock.jump(jump)
    engine.tick()
    assert job_view.job_lines(engine, [engine.get(job.id)])[0].run_seconds == pytest.approx(1_000, abs=120)
    clock.advance(500)
    stage.truth[f"{job.id}.1"] = Ended(Outcome(0, "ok"))
    engine.tick()
    ended = engine.get(job.id)
    assert ended.state is State.SUCCEEDED
    assert ended.run_seconds == pytest.approx(1_500, abs=120)


def test_a_clock_that_stands_still_stops_nothing(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    job = running(engine, stage, "limited")
    for _ in range(20):
        clock.advance(10)
        clock.jump(-10)
        engine.tick()
    assert engine.get(job.id).request == "stop"  # its limit of 50 s passed, whatever the clock says
    assert stage.cancelled[-1] == (f"{job.id}.1", True)


@JUMPS
def test_events_keep_their_order(engine: Engine, stage: Stage, clock: ManualClock, jump: float) -> None:
    first = running(engine, stage)
    clock.jump(jump)
    second = engine.submit("work", {})
    engine.tick()
    events = engine.workspace.database.events_after(0)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    places = {(event.subject, event.type): event.seq for event in events}
    assert places[first.id, "job.running"] < places[second.id, "job.queued"] < places[second.id, "job.starting"]


def test_waiting_goes_by_no_wall_clock(engine: Engine, clock: ManualClock) -> None:
    job = engine.submit("work", {})
    clock.jump(-YEAR)
    assert engine.wait(job.id, timeout=0.05).state is State.QUEUED
