"""What somebody paused or cancelled starts only when somebody resumes or retries it, whatever it meets meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from speciate.jobs.engine import Engine
from speciate.jobs.executors import Alive, Ended, Gone, Observation
from speciate.jobs.folder import Outcome
from speciate.jobs.job import ENDED, LIVE, Job, State
from speciate.jobs.kinds import Kind, Kinds
from speciate.jobs.store import JobEvent
from speciate.jobs.transitions import PAUSED_REASON, ActionRequested
from speciate.settings import Capacity, Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.data import fresh
from tests.jobs.test_engine import LONG, until_running
from tests.jobs.test_reconcile import LIMITED, Stage, running, without_plug_in
from tests.jobs.work import KINDS, Work

ENDS: dict[str, Observation] = {
    **{kind: Ended(Outcome(1, kind, "said so")) for kind in ("user", "transient", "memory", "full")},
    **{kind: Ended(Outcome(-9, kind, "said so")) for kind in ("killed", "starved")},
    "ok": Ended(Outcome(0, "ok")), "stopped": Ended(Outcome(85, "stopped")), "lost": Gone(),
}  # fmt: skip


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def acted() -> list[str]:
    return []


@pytest.fixture
def staged(tmp_path: Path, clock: ManualClock, stage: Stage, acted: list[str]) -> Iterator[Engine]:
    """Stepped by hand, over runs that end as the test says. The inline kind `noting` leaves its job in `acted`."""

    def note(tx: Transaction, spec: Work, job: Job, settings: Settings) -> dict[str, Any]:
        acted.append(job.id)
        return {}

    workspace = Workspace(
        fresh(tmp_path / "w", manual=True), clock=clock, settings=Settings(capacity=Capacity(cpu=2, memory_mb=1000))
    )
    noting = Kind(name="noting", spec=Work, act=note)
    yield Engine(workspace, Kinds(extra=[*KINDS, LIMITED, noting]), executor=stage)
    workspace.close()


def pass_time(engine: Engine, clock: ManualClock) -> None:
    """Every pause before a retry is over."""
    for _ in range(3):
        clock.advance(400)
        engine.tick()


@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_a_request_that_meets_each_end_of_a_run(staged: Engine, stage: Stage, clock: ManualClock, action: str) -> None:
    asked = State.PAUSED if action == "pause" else State.CANCELLED
    own_end = {"ok": State.SUCCEEDED} | ({"user": State.FAILED} if action == "pause" else {})
    for how, end in ENDS.items():
        job = running(staged, stage)
        staged.control(job.id, action)
        stage.truth[job.run_id] = end
        pass_time(staged, clock)
        found = staged.get(job.id)
        assert (found.state, found.attempt) == (own_end.get(how, asked), 1), how
        assert stage.submitted == [job.run_id], how
        if found.state is not State.SUCCEEDED:
            staged.control(job.id, "resume" if found.state is State.PAUSED else "retry")
            staged.tick()
            assert stage.submitted == [job.run_id, f"{job.id}.2"], how
            stage.truth[f"{job.id}.2"] = Ended(Outcome(0, "ok"))
            staged.tick()
        stage.submitted.clear()


def test_a_request_that_meets_a_start_ends_it_before_it_begins(
    staged: Engine, stage: Stage, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim and the request are committed together."""
    job, database = staged.submit("work", {}), staged.workspace.database
    submit_all, request = database.submit_all, JobEvent(job.id, ActionRequested("pause"))
    monkeypatch.setattr(
        database, "submit_all", lambda tell, events: submit_all(tell, [*events, request])[: len(events)]
    )
    staged.tick()
    monkeypatch.undo()
    found = staged.get(job.id)
    assert (found.state, found.request, stage.submitted) == (State.STARTING, "pause", [])
    staged.tick()
    assert stage.cancelled == [(f"{job.id}.1", False)], "it can no longer begin"
    stage.truth[f"{job.id}.1"] = Gone()
    pass_time(staged, clock)
    assert (staged.get(job.id).state, stage.submitted) == (State.PAUSED, [])


def test_a_pause_is_withdrawn_while_its_run_still_stops(staged: Engine, stage: Stage, clock: ManualClock) -> None:
    for action, back in (("pause", "resume"), ("cancel", "retry")):
        job = running(staged, stage)
        staged.control(job.id, action)
        staged.tick()
        assert stage.cancelled[-1] == (job.run_id, False)
        assert staged.control(job.id, back).request is None
        clock.advance(3600)
        staged.tick()
        assert stage.cancelled[-1] == (job.run_id, False), "its grace is over, but nobody wants its end any more"
        stage.truth[job.run_id] = Ended(Outcome(85, "stopped"))
        staged.tick()
        staged.tick()
        assert staged.get(job.id).state is State.STARTING, "it resumes from the checkpoint by itself"
        stage.truth[f"{job.id}.2"] = Ended(Outcome(0, "ok"))
        staged.tick()


def test_a_job_that_is_paused_while_it_waits_is_judged_when_it_is_resumed(
    staged: Engine, stage: Stage, clock: ManualClock
) -> None:
    for end, then in (("ok", State.STARTING), ("user", State.DEAD)):
        need = running(staged, stage)
        waits = staged.submit("work", {}, after=[need.id])
        staged.control(waits.id, "pause")
        stage.truth[need.run_id] = ENDS[end]
        pass_time(staged, clock)
        assert staged.get(waits.id).state is State.PAUSED
        staged.control(waits.id, "resume")
        staged.tick()
        assert staged.get(waits.id).state is then
    assert (staged.get(waits.id).reason or "").startswith("needs_failed: ")
    again = staged.submit("work", {}, after=[staged.submit("work", {}).id])
    staged.control(again.id, "pause")
    assert staged.control(again.id, "resume").state is State.WAITING


def test_a_paused_job_is_not_too_late_in_the_queue(staged: Engine, clock: ManualClock) -> None:
    job = staged.submit("limited", {})
    staged.control(job.id, "pause")
    pass_time(staged, clock)
    assert staged.get(job.id).state is State.PAUSED
    assert staged.control(job.id, "resume").state is State.QUEUED


def test_no_room_and_a_limit_leave_a_pause_as_it_is(staged: Engine, stage: Stage, clock: ManualClock) -> None:
    held, late = running(staged, stage), running(staged, stage, "limited")
    staged.workspace.room.usage = lambda root: (1 << 40, 0)
    staged.tick()
    assert [staged.get(job.id).request for job in (held, late)] == ["hold", "hold"]
    for job in (held, late):
        paused = staged.control(job.id, "pause")
        assert (paused.request, paused.reason) == ("pause", PAUSED_REASON), "it does not resume by itself"
    clock.advance(60)
    staged.tick()
    assert staged.get(late.id).request == "pause", "it stops already"
    staged.workspace.room.usage = lambda root: (1 << 40, 1 << 40)
    stage.truth |= {held.run_id: ENDS["killed"], late.run_id: ENDS["stopped"]}
    pass_time(staged, clock)
    assert [staged.get(job.id).state for job in (held, late)] == [State.PAUSED, State.PAUSED]
    assert stage.submitted == [held.run_id, late.run_id]


# Inline jobs


def _tell_together(engine: Engine, job: str, actions: Sequence[str]) -> None:
    events = [JobEvent(job, ActionRequested(action)) for action in actions]
    for answer in engine.workspace.database.submit_all(engine._store.tell, events):
        answer.result()


@pytest.mark.parametrize(
    ("actions", "state", "times"),
    [
        (["resume", "pause"], State.PAUSED, 0),
        (["resume", "cancel"], State.CANCELLED, 0),
        (["resume", "pause", "resume"], State.SUCCEEDED, 1),
        (["resume"], State.SUCCEEDED, 1),
    ],
)
def test_an_inline_job_that_is_stopped_in_the_commit_that_would_do_it_is_not_done(
    staged: Engine, acted: list[str], actions: Sequence[str], state: State, times: int
) -> None:
    """Requests of many callers are committed together."""
    need = staged.submit("work", {})
    job = staged.submit("noting", {}, after=[need.id])
    staged.control(job.id, "pause")
    staged.control(need.id, "cancel")
    staged.workspace.database.transact(
        lambda tx: tx.execute("UPDATE jobs SET state = 'succeeded' WHERE id = ?", [need.id])
    )
    _tell_together(staged, job.id, actions)
    assert (staged.get(job.id).state, acted) == (state, [job.id] * times)


# Composites


def chain(engine: Engine, stage: Stage) -> tuple[str, list[Job]]:
    """A composite with two runs that live, and their sum."""
    parent = engine.submit("chain", {"works": [{}, {}]}).id
    for truth in ({}, {f"{child.id}.1": Alive() for child in engine.children(parent)[:2]}):
        stage.truth |= truth
        engine.tick()
    return parent, list(engine.children(parent))


def test_a_paused_composite_starts_nothing_until_it_is_resumed(
    staged: Engine, stage: Stage, clock: ManualClock
) -> None:
    parent, (first, second, total) = chain(staged, stage)
    staged.control(parent, "pause")
    stage.truth |= {first.run_id: ENDS["transient"], second.run_id: ENDS["ok"]}
    pass_time(staged, clock)
    states = [staged.get(each.id).state for each in (first, second, total)]
    assert (staged.get(parent).state, states) == (State.PAUSED, [State.PAUSED, State.SUCCEEDED, State.PAUSED])
    assert len(stage.submitted) == 2
    staged.control(parent, "resume")
    staged.tick()
    assert stage.submitted[2:] == [f"{first.id}.2"]


def test_a_paused_composite_is_cancelled_when_its_last_run_has_stopped(staged: Engine, stage: Stage) -> None:
    parent, (first, second, total) = chain(staged, stage)
    staged.control(parent, "pause")
    cancelled = staged.control(parent, "cancel")
    assert (cancelled.state, cancelled.request) == (State.RUNNING, "cancel")
    stage.truth |= {first.run_id: ENDS["stopped"]}
    staged.tick()
    assert staged.get(parent).state is State.RUNNING
    stage.truth |= {second.run_id: ENDS["stopped"]}
    staged.tick()
    assert {staged.get(each).state for each in (parent, first.id, second.id, total.id)} == {State.CANCELLED}


def test_a_paused_composite_without_a_run_is_cancelled_at_once(staged: Engine, stage: Stage) -> None:
    parent, (first, second, _) = chain(staged, stage)
    staged.control(parent, "pause")
    stage.truth |= {first.run_id: ENDS["stopped"], second.run_id: ENDS["stopped"]}
    staged.tick()
    assert staged.control(parent, "cancel").state is State.CANCELLED


def test_a_retry_of_a_composite_takes_back_what_still_stops(staged: Engine, stage: Stage) -> None:
    parent, (first, second, total) = chain(staged, stage)
    staged.control(parent, "cancel")
    staged.control(parent, "retry")
    assert [staged.get(each.id).request for each in (first, second)] == [None, None]
    assert staged.get(total.id).state is State.WAITING
    stage.truth |= {first.run_id: ENDS["stopped"], second.run_id: ENDS["ok"]}
    staged.tick()
    staged.tick()
    stage.truth[f"{first.id}.2"] = ENDS["ok"]
    staged.tick()
    assert staged.get(first.id).state is State.SUCCEEDED
    assert staged.get(parent).state in ENDED, "its last step was made"


# What has no plan any more


def test_a_start_without_a_plan_is_called_off_before_it_is_refused(staged: Engine, stage: Stage) -> None:
    """Its plug-in went. Its supervisor may be on its way: a retry must not start a second one beside it."""
    job = staged.submit("limited", {})
    staged.tick()
    engine = without_plug_in(staged, stage, of=LIMITED)
    engine.tick()
    assert (engine.get(job.id).state, stage.cancelled) == (State.STARTING, [(f"{job.id}.1", False)])
    stage.truth[f"{job.id}.1"] = Gone()
    for _ in range(2):
        engine.tick()
    assert engine.get(job.id).state is State.FAILED
    assert stage.submitted == [f"{job.id}.1"]


# Real runs


def test_real_runs_that_are_paused_stay_paused_however_they_end(engine: Engine) -> None:
    crash = {"transient", "memory", "full", "killed", "crash", ""}  # '': it stops at its checkpoint
    ends = dict.fromkeys(crash, State.PAUSED) | {"mistake": State.FAILED, "ok": State.SUCCEEDED}
    jobs = {at_stop: engine.submit("work", {"seconds": LONG, "at_stop": at_stop}).id for at_stop in ends}
    for job in jobs.values():
        until_running(engine, job)
    for job in jobs.values():
        engine.control(job, "pause")
    for at_stop, job in jobs.items():
        while (found := engine.get(job)).state in {*LIVE, State.QUEUED}:
            assert found.attempt == 1, at_stop
            engine.wait(job, until="change", timeout=1)
    engine._wake.set()
    later = {at_stop: engine.get(job) for at_stop, job in jobs.items()}
    assert {at_stop: job.state for at_stop, job in later.items()} == ends
    assert {job.attempt for job in later.values()} == {1}
    said = {at_stop: (job.error or {}).get("class") for at_stop, job in later.items() if job.state is State.PAUSED}
    assert said == {
        "transient": "transient", "memory": "memory", "full": "full", "crash": "transient", "killed": None, "": None,
    }  # fmt: skip
    assert signal.SIGSEGV.name in (later["crash"].error or {})["message"]
