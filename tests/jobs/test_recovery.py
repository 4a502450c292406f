"""Jobs come back from their run folders when the catalog is gone; in a copied workspace they are paused."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.jobs.engine import Engine
from speciate.jobs.executors import Alive, Ended
from speciate.jobs.folder import Outcome, RunFolder
from speciate.jobs.job import State
from speciate.jobs.kinds import Kinds
from speciate.jobs.recovery import jobs_paused_as_copied, recover_jobs
from speciate.loop.status import status
from speciate.settings import Capacity, Settings
from speciate.workspace import catalog_identity
from speciate.workspace.backup import back_up, save_catalog
from speciate.workspace.catalog_identity import Place, is_copy
from speciate.workspace.rebuild import rebuild_catalog
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.jobs.test_reconcile import Stage
from tests.jobs.work import KINDS

pytestmark = pytest.mark.durable


def engine_over(workspace: Workspace) -> Engine:
    engine = Engine(workspace, Kinds(extra=KINDS))
    engine.start()
    return engine


def end(engine: Engine) -> None:
    engine.stop()
    engine.workspace.close()


def lose_catalog(root: Path) -> None:
    (root / "catalog.duckdb").unlink()
    (root / "catalog.duckdb.wal").unlink(missing_ok=True)


def test_a_job_that_ended_and_one_that_still_runs_are_both_there_again(tmp_path: Path) -> None:
    engine = engine_over(Workspace(tmp_path / "workspace"))
    done = engine.submit("work", {"value": 7})
    result = engine.wait(done.id, timeout=120).result
    live = engine.submit("work", {"seconds": 1.5, "value": 8})
    while engine.get(live.id).state is not State.RUNNING:
        engine.wait(live.id, until="change", timeout=120)
    end(engine)
    lose_catalog(tmp_path / "workspace")

    assert rebuild_catalog(tmp_path / "workspace").source == "nothing"
    workspace = Workspace(tmp_path / "workspace")
    recovered = recover_jobs(workspace)
    assert set(recovered.jobs) == {done.id, live.id}
    assert recovered.lost == ()
    assert recover_jobs(workspace).jobs == ()
    engine = engine_over(workspace)
    assert engine.wait(done.id, timeout=120).result == result
    again = engine.wait(live.id, timeout=120)
    assert (again.state, again.attempt) == (State.SUCCEEDED, 1)
    end(engine)


def test_a_backup_that_is_older_than_the_launch_is_brought_up_to_it(tmp_path: Path) -> None:
    engine = engine_over(Workspace(tmp_path / "workspace"))
    first = engine.submit("work", {})
    engine.wait(first.id, timeout=120)
    waits = engine.submit("work", {"value": 9}, after=[first.id])
    end_state = engine.wait(waits.id, timeout=120)
    save_catalog(engine.workspace.database, engine.workspace.folders.backups, 0)
    later = engine.submit("work", {"value": 10})
    engine.wait(later.id, timeout=120)
    end(engine)
    lose_catalog(tmp_path / "workspace")

    assert rebuild_catalog(tmp_path / "workspace").source.startswith("auto-")
    workspace = Workspace(tmp_path / "workspace")
    assert recover_jobs(workspace).jobs == (later.id,)
    engine = engine_over(workspace)
    assert engine.get(waits.id).result == end_state.result
    assert engine.wait(later.id, timeout=120).state is State.SUCCEEDED
    numbers = [seq for (seq,) in workspace.database.read("SELECT seq FROM events ORDER BY seq")]
    assert numbers == list(range(1, len(numbers) + 1))
    end(engine)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    (workspace.folders.runs / "job-x.1").mkdir()
    (workspace.folders.runs / "job-y.1").mkdir()
    (workspace.folders.runs / "job-y.1" / "spec.json").write_text('{"row": {"id": 5}}')
    lost = recover_jobs(workspace).lost
    assert [line.split(":")[0] for line in lost] == ["run job-x.1", "run job-y.1"]
    workspace.close()


_SETTINGS = Settings(policy="auto", capacity=Capacity(cpu=1, memory_mb=1000))


def _engine(root: Path, clock: ManualClock, stage: Stage) -> Engine:
    return Engine(Workspace(root, clock, _SETTINGS), Kinds(extra=KINDS), executor=stage)


@pytest.fixture
def original(tmp_path: Path, clock: ManualClock) -> Iterator[Engine]:
    """One job runs, one is queued, one waits for it, one has ended, and a composite has a child."""
    stage = Stage()
    engine = _engine(tmp_path / "w", clock, stage)
    ended = engine.submit("work", {})
    engine.control(ended.id, "cancel")
    running = engine.submit("work", {"value": 1})
    engine.tick()
    stage.truth[f"{running.id}.1"] = Alive()
    engine.tick()
    queued = engine.submit("work", {"value": 2})
    engine.submit("work", {"value": 3}, after=[queued.id])
    engine.submit("chain", {"works": [{}]})
    assert engine.get(running.id).state is State.RUNNING
    yield engine
    engine.workspace.close()


def _backed_up(original: Engine, target: Path) -> None:
    back_up(original.workspace, target)


def _copied(original: Engine, target: Path) -> None:
    original.workspace.close()
    shutil.copytree(original.workspace.folders.root, target)


@pytest.mark.parametrize("copy", [_backed_up, _copied], ids=["speciate_backup", "cp_r"])
def test_a_copy_runs_nothing_until_a_person_says_so(
    original: Engine, copy: Callable[[Engine, Path], None], tmp_path: Path, clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    unfinished = [job for job in original.list() if job.state is not State.CANCELLED]
    copy(original, tmp_path / "copy")
    stage = Stage()
    with caplog.at_level(logging.WARNING):
        engine = _engine(tmp_path / "copy", clock, stage)
    assert "is a copy of" in caplog.text
    for _ in range(3):
        engine.tick()
        clock.advance(100)
    assert (stage.submitted, stage.cancelled) == ([], [])
    assert {engine.get(job.id).state for job in unfinished} == {State.PAUSED}
    assert engine.idle()
    assert catalog_identity.original_of(engine.workspace.database) == str(tmp_path / "w")
    assert f"copy of {tmp_path / 'w'}: {len(unfinished)} jobs are paused" in "\n".join(status(engine.workspace).alerts)
    first = next(job for job in unfinished if job.spec.get("value") == 2)
    assert engine.control(first.id, "resume").state is State.QUEUED
    engine.tick()
    assert stage.submitted == [f"{first.id}.1"]
    engine.workspace.close()

    again = _engine(tmp_path / "copy", clock, stage)
    assert len(jobs_paused_as_copied(again.workspace.database)) == len(unfinished) - 1, "once, not at every start"
    again.resume_copied()
    assert not [job for job in again.list() if job.state is State.PAUSED]
    assert {job.state for job in again.list() if job.spec.get("value") == 3} == {State.WAITING}
    assert not status(again.workspace).alerts
    again.workspace.close()


def test_the_original_goes_on_and_so_does_one_that_was_moved(
    original: Engine, tmp_path: Path, clock: ManualClock
) -> None:
    before = {job.id: job.state for job in original.list()}
    back_up(original.workspace, tmp_path / "copy")
    original.workspace.close()
    (tmp_path / "w").rename(tmp_path / "moved")
    moved = _engine(tmp_path / "moved", clock, Stage())
    assert {job.id: job.state for job in moved.list()} == before
    assert moved.workspace.copied_from is None
    moved.workspace.close()
    (tmp_path / "moved").rename(tmp_path / "w")
    back = _engine(tmp_path / "w", clock, Stage())
    assert {job.id: job.state for job in back.list()} == before
    back.workspace.close()


@pytest.mark.parametrize("copy", [_backed_up, _copied], ids=["speciate_backup", "cp_r"])
def test_what_lies_in_the_place_of_the_original_is_a_copy_only_where_a_backup_marked_it(
    original: Engine, copy: Callable[[Engine, Path], None], tmp_path: Path, clock: ManualClock
) -> None:
    """A folder that is restored in place, or mounted anew, has another inode."""
    before = {job.id: job.state for job in original.list()}
    copy(original, tmp_path / "copy")
    original.workspace.close()
    (tmp_path / "w").rename(tmp_path / "kept")
    (tmp_path / "copy").rename(tmp_path / "w")
    engine = _engine(tmp_path / "w", clock, Stage())
    marked = copy is _backed_up
    assert bool(jobs_paused_as_copied(engine.workspace.database)) is marked
    assert marked or {job.id: job.state for job in engine.list()} == before
    engine.workspace.close()
    kept = _engine(tmp_path / "kept", clock, Stage())
    assert jobs_paused_as_copied(kept.workspace.database), "of two that could both run them, one waits"
    kept.workspace.close()


def test_a_copy_cancels_and_pauses_as_people_had_asked_and_resumes_only_what_the_copy_paused(
    tmp_path: Path, clock: ManualClock
) -> None:
    stage, settings = Stage(), Settings(policy="auto", capacity=Capacity(cpu=9, memory_mb=1000))
    engine = Engine(Workspace(tmp_path / "w", clock, settings), Kinds(extra=KINDS), executor=stage)
    chain = engine.submit("chain", {"works": [{}, {}]}).id
    cancels, pauses, paused, runs = (engine.submit("work", {"value": value}).id for value in range(4))
    child, sibling, _ = (each.id for each in engine.children(chain))
    engine.control(paused, "pause")
    engine.tick()
    stage.truth |= {f"{job}.1": Alive() for job in (cancels, pauses, child, sibling, runs)}
    engine.tick()
    engine.control(cancels, "cancel")
    engine.control(pauses, "pause")
    engine.control(child, "pause")
    engine.workspace.close()
    shutil.copytree(tmp_path / "w", tmp_path / "copy")

    copy = _engine(tmp_path / "copy", clock, Stage())
    assert copy.get(cancels).state is State.CANCELLED
    assert {copy.get(job).state for job in (chain, child, sibling, pauses, paused, runs)} == {State.PAUSED}
    assert copy.control(runs, "pause").state is State.PAUSED, "now a person did"
    resumed = {job.id for job in copy.resume_copied()}
    assert resumed == {chain, sibling, next(each.id for each in copy.children(chain) if each.step == "sum")}
    assert {job.id for job in copy.list() if job.state is State.PAUSED} == {child, pauses, paused, runs}
    copy.control(sibling, "pause")
    assert jobs_paused_as_copied(copy.workspace.database) == []
    copy.workspace.close()


@pytest.mark.parametrize("backed_up", [False, True], ids=["no_backup", "backup"])
def test_a_rebuilt_catalog_starts_nothing_that_was_stopped_between_two_attempts(
    tmp_path: Path, clock: ManualClock, backed_up: bool
) -> None:
    """Their newest run had ended, and a retry was to come."""
    stage = Stage()
    engine = _engine(tmp_path / "w", clock, stage)
    jobs = {action: engine.submit("work", {"value": n}).id for n, action in enumerate(("pause", "cancel", "none"))}
    for _ in jobs:  # one after the other: there is one core
        engine.tick()
        run = stage.submitted[-1]
        RunFolder(engine.workspace.folders.runs / run).create(stage.specs[run])
        stage.truth[run] = Ended(Outcome(1, "transient", "the network was away"))
        engine.tick()
    if backed_up:
        save_catalog(engine.workspace.database, engine.workspace.folders.backups, 0)
    assert engine.control(jobs["pause"], "pause").state is State.PAUSED
    assert engine.control(jobs["cancel"], "cancel").state is State.CANCELLED
    assert (engine.get(jobs["pause"]).attempt, engine.get(jobs["none"]).state) == (1, State.QUEUED)
    engine.workspace.close()
    lose_catalog(tmp_path / "w")

    rebuild_catalog(tmp_path / "w")
    workspace = Workspace(tmp_path / "w", clock, _SETTINGS)
    stopped = {jobs["pause"], jobs["cancel"]}
    assert set(recover_jobs(workspace).jobs) == (stopped if backed_up else {*jobs.values()})
    assert not recover_jobs(workspace).jobs, "once"
    again = Engine(workspace, Kinds(extra=KINDS), executor=stage)
    started = len(stage.submitted)
    for _ in range(3):
        clock.advance(100)
        again.tick()
    assert {*stage.submitted[started:]} == {f"{jobs['none']}.2"}
    for action in ("pause", "cancel"):
        found = again.get(jobs[action])
        assert (found.state, found.attempt) == (State.PAUSED, 1)
        assert "by whom is not known any more" in (found.reason or "")
    again.control(jobs["cancel"], "resume")
    stage.truth[f"{jobs['none']}.2"] = Ended(Outcome(0, "ok"))
    again.tick()
    again.tick()
    assert stage.submitted[-1] == f"{jobs['cancel']}.2"
    again.workspace.close()


_places = st.builds(Place, st.sampled_from(["/a", "/b"]), st.integers(1, 2))


@given(noted=st.none() | _places, now=_places, there=st.booleans())
def test_only_the_same_place_or_a_moved_folder_is_no_copy(noted: Place | None, now: Place, there: bool) -> None:
    found = is_copy(noted, now, original_there=there)
    assert found is (noted is not None and noted.path != now.path and (there or noted.inode != now.inode))
