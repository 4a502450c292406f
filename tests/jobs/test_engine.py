"""The engine from outside: real supervisors, workers and zygotes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs import executors
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job, Resources, State
from speciate.jobs.kinds import Kinds, Plan
from speciate.jobs.zygote import SUPERVISORS
from speciate.settings import Capacity, Settings
from speciate.workspace.disk_space import GB
from speciate.workspace.workspace import Workspace
from tests.jobs.work import KINDS, WORK, Work

LONG = 120.0
"""Seconds that no test waits for unless something is broken."""


def until_running(engine: Engine, job: str) -> Job:
    """Until its run has made a step."""
    current = engine.get(job)
    while current.state in {State.QUEUED, State.STARTING} or engine.folder(current).progress() is None:
        current = engine.wait(job, until="change", timeout=0.05)
        assert current.state in {State.QUEUED, State.STARTING, State.RUNNING}, current.reason
    return current


def finished(engine: Engine, kind: str, spec: dict[str, object]) -> Job:
    return engine.wait(engine.submit(kind, spec).id, timeout=LONG)


def test_a_run_brings_its_result_home(engine: Engine) -> None:
    job = finished(engine, "work", {"value": 3})
    assert job.state is State.SUCCEEDED
    assert job.result is not None
    assert job.result["value"] == 3


@pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")
def test_the_end_of_a_run_is_heard_and_not_looked_for(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(engine, "work", {})  # the zygote has made its imports
    monkeypatch.setattr("speciate.jobs.engine._BUSY_SECONDS", LONG)
    monkeypatch.setattr("speciate.jobs.engine._CALM_SECONDS", LONG)
    engine.submit("work", {})  # ends a wait of before
    job = finished(engine, "work", {"value": 5})
    assert job.result is not None
    assert job.result["value"] == 5


def test_an_inline_job_has_ended_when_submit_returns(engine: Engine) -> None:
    job = engine.submit("inline", {"value": 4})
    assert (job.state, job.result) == (State.SUCCEEDED, {"value": 4})


def test_an_inline_job_that_refuses_has_failed_with_the_next_call(engine: Engine) -> None:
    job = engine.submit("inline", {"refuse": True})
    assert job.state is State.FAILED
    assert job.error == {
        "class": "user", "code": "invalid", "message": "refused on request", "recovery": "Do not ask for it.",
    }  # fmt: skip


def test_a_plan_that_refuses_leaves_no_job_behind(engine: Engine) -> None:
    with pytest.raises(SpeciateError, match="refused on request"):
        engine.submit("work", {"refuse": True})
    with pytest.raises(SpeciateError, match="seconds"):
        engine.submit("work", {"seconds": "many"})
    with pytest.raises(SpeciateError, match="did you mean 'work'"):
        engine.submit("wrok", {})
    assert engine.list() == []


def test_the_same_key_gives_the_same_job_and_other_arguments_a_conflict(engine: Engine) -> None:
    first = engine.submit("inline", {"value": 1}, key="k")
    assert engine.submit("inline", {"value": 1}, key="k").id == first.id
    with pytest.raises(SpeciateError, match="used before with other arguments") as refusal:
        engine.submit("inline", {"value": 2}, key="k")
    assert refusal.value.code is Code.CONFLICT
    assert len(engine.list()) == 1


def test_many_callers_with_one_key_make_one_job(engine: Engine) -> None:
    made: list[str] = []
    callers = [
        threading.Thread(target=lambda: made.append(engine.submit("inline", {"value": 1}, key="same").id))
        for _ in range(16)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(made) == 16
    assert len(set(made)) == 1
    assert sum(event.type == "job.succeeded" for event in engine.workspace.database.events_after(0)) == 1


@pytest.mark.parametrize(
    ("ending", "says"), [("mistake", "one value"), ("bug", "ZeroDivisionError"), ("silent-exit", "code 3")]
)
def test_a_mistake_is_never_retried_and_says_why(engine: Engine, ending: str, says: str) -> None:
    job = finished(engine, "work", {"ending": ending})
    assert (job.state, job.attempt) == (State.FAILED, 1)
    assert job.error is not None
    assert says in job.error["message"]


def test_a_run_out_of_memory_is_tried_again_smaller(engine: Engine) -> None:
    job = finished(engine, "work", {"ending": "memory"})
    assert job.state is State.SUCCEEDED
    assert job.attempt == 3
    assert job.result is not None
    assert job.result["shrinks"] == 2


def test_a_transient_error_is_retried_later(engine: Engine) -> None:
    job = engine.submit("work", {"ending": "transient"})
    while job.retries == 0:
        job = engine.wait(job.id, until="change", timeout=LONG)
    assert job.state is State.QUEUED
    assert job.not_before > job.changed


def test_jobs_wait_for_what_they_need_and_die_with_it(engine: Engine) -> None:
    first = engine.submit("work", {"seconds": 0.3})
    second = engine.submit("inline", {"value": 2}, after=[first.id])
    assert second.state is State.WAITING
    assert engine.wait(second.id, timeout=LONG).state is State.SUCCEEDED
    bad = engine.submit("work", {"ending": "mistake", "seconds": 0.2})
    orphan = engine.submit("work", {}, after=[bad.id])
    heir = engine.submit("inline", {}, after=[orphan.id])
    assert engine.wait(heir.id, timeout=LONG).state is State.DEAD
    assert bad.id in (engine.get(orphan.id).reason or "")


def test_pause_keeps_the_work_and_resume_goes_on_from_it(engine: Engine) -> None:
    job = engine.submit("work", {"seconds": 1.5})
    until_running(engine, job.id)
    engine.control(job.id, "pause")
    while engine.get(job.id).state is not State.PAUSED:
        engine.wait(job.id, until="change", timeout=LONG)
    engine.control(job.id, "resume")
    done = engine.wait(job.id, timeout=LONG)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
    assert done.result is not None
    assert done.result["resumed_at"] > 0


def test_cancel_stops_the_whole_group_and_says_so_only_when_it_is_true(engine: Engine) -> None:
    job = engine.submit("work", {"seconds": 60})
    until_running(engine, job.id)
    engine.control(job.id, "cancel")
    done = engine.wait(job.id, timeout=LONG)
    assert done.state is State.CANCELLED
    assert not engine.folder(done).alive()
    assert engine.control(job.id, "cancel").state is State.CANCELLED


def test_a_run_that_exceeds_its_limit_is_stopped(engine: Engine) -> None:
    job = finished(engine, "brief", {"seconds": 60})
    assert job.state is State.DEAD
    assert "0.3 s (run)" in (job.reason or "")


def test_a_killed_worker_is_resumed_by_the_next_attempt(engine: Engine) -> None:
    job = engine.submit("work", {"seconds": 1.0})
    running = until_running(engine, job.id)
    worker = int((engine.folder(running).path / "worker").read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    done = engine.wait(job.id, timeout=LONG)
    assert (done.state, done.attempt, done.retries) == (State.SUCCEEDED, 2, 0)
    assert done.result is not None
    assert done.result["resumed_at"] > 0


def test_another_engine_adopts_what_runs(tmp_path: Path) -> None:
    settings = Settings(policy="auto", capacity=Capacity(cpu=4))
    workspace = Workspace(tmp_path / "w", settings=settings)
    engine = Engine(workspace, Kinds(extra=KINDS))
    engine.start()
    job = engine.submit("work", {"seconds": 1.0, "value": 5})
    until_running(engine, job.id)
    engine.stop()
    workspace.close()
    workspace = Workspace(tmp_path / "w", settings=settings)
    engine = Engine(workspace, Kinds(extra=KINDS))
    engine.start()
    done = engine.wait(job.id, timeout=LONG)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    engine.stop()
    workspace.close()


def test_a_composite_makes_its_children_and_ends_with_them(engine: Engine) -> None:
    job = finished(engine, "chain", {"works": [{"value": 1}, {"value": 2}]})
    assert job.result == {"values": [1, 2], "sum": 7}
    assert [child.step for child in engine.children(job.id)] == ["work/0", "work/1", "sum"]


def test_a_failed_child_ends_its_composite_and_retry_repeats_only_what_failed(engine: Engine) -> None:
    job = finished(engine, "chain", {"works": [{"value": 1}, {"ending": "mistake"}]})
    assert job.state is State.FAILED
    assert job.reason == "the sum is dead"
    engine.control(job.id, "retry")
    again = engine.wait(job.id, timeout=LONG)
    assert again.state is State.FAILED
    assert [child.attempt for child in engine.children(job.id)] == [1, 2, 0]


def test_cancel_pause_and_resume_of_a_composite_are_its_childrens(engine: Engine) -> None:
    job = engine.submit("chain", {"works": [{"seconds": 1.0, "value": 1}, {"seconds": 60}]})
    first, second, _ = engine.children(job.id)
    until_running(engine, second.id)
    engine.control(job.id, "pause")
    # the first one may have ended before it was asked to pause
    while {engine.get(first.id).state, engine.get(second.id).state} - {State.SUCCEEDED} != {State.PAUSED}:
        engine.wait(job.id, until="change", timeout=LONG)
    assert engine.get(job.id).state is State.PAUSED
    engine.control(job.id, "resume")
    assert engine.wait(first.id, timeout=LONG).state is State.SUCCEEDED
    engine.control(job.id, "cancel")
    assert engine.wait(job.id, timeout=LONG).state is State.CANCELLED
    assert engine.get(second.id).state is State.CANCELLED


@pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")
def test_a_zygotes_child_holds_the_claim_and_outlives_the_zygote(engine: Engine) -> None:
    job = engine.submit("work", {"seconds": 1.0, "preload": "classical"})
    running = until_running(engine, job.id)
    worker = int((engine.folder(running).path / "worker").read_text().split()[0])
    zygote = int(Path(f"/proc/{worker}/stat").read_text().split()[3])
    assert b"speciate.jobs.zygote" in Path(f"/proc/{zygote}/cmdline").read_bytes()
    os.kill(zygote, signal.SIGKILL)
    assert engine.folder(running).alive()
    done = engine.wait(job.id, timeout=LONG)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")
def test_the_imports_of_a_training_are_asked_for_while_a_run_reads_its_data(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, prepare = list[str](), executors._Zygotes.prepare
    monkeypatch.setattr(executors._Zygotes, "prepare", lambda own, family: asked.append(family) or prepare(own, family))
    job = engine.submit("work", {"seconds": LONG, "preload": "data"})
    running = until_running(engine, job.id)
    while "classical" not in asked:
        assert engine.wait(job.id, until="change", timeout=0.05).state is State.RUNNING
    assert asked[:2] == [SUPERVISORS, "data"], "its own first"
    assert (engine.folder(running).path / "worker").exists()
    engine.control(job.id, "cancel")


def test_the_imports_that_a_plan_expects_are_asked_for_behind_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expecting(spec: Work, workspace: Workspace) -> Plan:
        return Plan(payload=spec.model_dump(), preload="data", preload_next=("networks",))

    asked = list[str]()
    monkeypatch.setattr(executors.LocalExecutor, "prepare", lambda own, preload: asked.append(preload))
    workspace = Workspace(tmp_path / "w", settings=Settings())
    Engine(workspace, Kinds(extra=[replace(WORK, name="expecting", plan=expecting)])).submit("expecting", {})
    assert asked == ["data", "networks"]
    workspace.close()


def test_an_unknown_job_is_answered_with_near_names(engine: Engine) -> None:
    job = engine.submit("inline", {})
    with pytest.raises(SpeciateError, match=f"did you mean '{job.id}'"):
        engine.get(job.id[:-1])


def test_pages_of_jobs_are_newest_first_and_complete(engine: Engine) -> None:
    made = [engine.submit("inline", {"value": i}).id for i in range(5)]
    first = [job.id for job in engine.list(limit=2)]
    rest = [job.id for job in engine.list(limit=10, before=first[-1])]
    assert sorted(first + rest) == sorted(made)
    assert len(set(first) & set(rest)) == 0


def test_what_this_machine_can_never_run_is_refused_at_the_call(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w", settings=Settings(capacity=Capacity(cpu=0.5)))
    engine = Engine(workspace, Kinds(extra=[WORK]))
    with pytest.raises(SpeciateError, match=r"1 of cpu asked, 0\.5 there"):
        engine.submit("work", {})
    workspace.close()


def test_what_could_never_have_room_is_refused_at_the_call_and_in_its_dry_run(tmp_path: Path) -> None:
    def large(spec: Work, workspace: Workspace) -> Plan:
        return Plan(payload=spec.model_dump(), bytes=50 * GB)

    workspace = Workspace(tmp_path / "w", settings=Settings())
    workspace.room.usage = lambda folder: (40 * GB, 39 * GB)
    engine = Engine(workspace, Kinds(extra=[replace(WORK, name="large", plan=large)]))
    for ask in (engine.submit, engine.plan):
        with pytest.raises(SpeciateError, match=r"can never run it: it may write 50 GB"):
            ask("large", {})
    assert engine.list(limit=5) == []
    workspace.close()


@pytest.mark.parametrize(("cpu", "gpu"), [(1e6, 0), (float("nan"), 0), (1, 99)])
def test_a_dry_run_refuses_what_the_call_would(tmp_path: Path, cpu: float, gpu: int) -> None:
    def greedy(spec: Work, workspace: Workspace) -> Plan:
        return Plan(payload=spec.model_dump(), resources=Resources(cpu=cpu, gpu=gpu))

    workspace = Workspace(tmp_path / "w", settings=Settings())
    engine = Engine(workspace, Kinds(extra=[replace(WORK, name="greedy", plan=greedy)]))
    for ask in (engine.submit, engine.plan):
        with pytest.raises(SpeciateError, match="can never run it"):
            ask("greedy", {})
    workspace.close()


def test_a_real_run_stops_for_a_full_disk_and_goes_on_from_its_checkpoint(engine: Engine) -> None:
    free = [100 * GB]
    engine.workspace.room.usage = lambda folder: (200 * GB, free[0])
    job = engine.submit("work", {"seconds": 1.5, "value": 9})
    until_running(engine, job.id)
    free[0] = 0
    while (held := engine.get(job.id)).state is not State.QUEUED:
        engine.wait(job.id, until="change", timeout=1)
        assert held.state is State.RUNNING
    assert (held.attempt, held.retries, held.losses) == (1, 0, 0)
    assert "with room it resumes by itself" in (held.reason or "")
    free[0] = 100 * GB
    engine._wake.set()  # it would look again within two seconds
    ended = engine.wait(job.id, timeout=LONG)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
    assert ended.result is not None
    assert (ended.result["value"], ended.result["resumed_at"] > 0) == (9, True)
