"""Jobs come back from their run folders alone: the catalog is gone, and the next engine goes on."""

from __future__ import annotations

from pathlib import Path

from speciate.jobs.engine import Engine
from speciate.jobs.job import State
from speciate.jobs.kinds import Kinds
from speciate.jobs.recover import recover_jobs
from speciate.workspace.backup import save_catalog
from speciate.workspace.rebuild import rebuild_catalog
from speciate.workspace.workspace import Workspace
from tests.jobs.work import KINDS


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
    result = engine.wait(done.id, timeout=30).result
    live = engine.submit("work", {"seconds": 3, "value": 8})
    while engine.get(live.id).state is not State.RUNNING:
        engine.wait(live.id, until="change", timeout=30)
    end(engine)
    lose_catalog(tmp_path / "workspace")

    assert rebuild_catalog(tmp_path / "workspace").source == "nothing"
    workspace = Workspace(tmp_path / "workspace")
    recovered = recover_jobs(workspace)
    assert set(recovered.jobs) == {done.id, live.id}
    assert recovered.lost == ()
    assert recover_jobs(workspace).jobs == ()
    engine = engine_over(workspace)
    assert engine.wait(done.id, timeout=30).result == result
    again = engine.wait(live.id, timeout=30)
    assert (again.state, again.attempt) == (State.SUCCEEDED, 1)
    end(engine)


def test_a_backup_that_is_older_than_the_launch_is_brought_up_to_it(tmp_path: Path) -> None:
    engine = engine_over(Workspace(tmp_path / "workspace"))
    first = engine.submit("work", {})
    engine.wait(first.id, timeout=30)
    waits = engine.submit("work", {"value": 9}, after=[first.id])
    end_state = engine.wait(waits.id, timeout=30)
    save_catalog(engine.workspace.database, engine.workspace.folders.backups, 0)
    later = engine.submit("work", {"value": 10})
    engine.wait(later.id, timeout=30)
    end(engine)
    lose_catalog(tmp_path / "workspace")

    assert rebuild_catalog(tmp_path / "workspace").source.startswith("auto-")
    workspace = Workspace(tmp_path / "workspace")
    assert recover_jobs(workspace).jobs == (later.id,)
    engine = engine_over(workspace)
    assert engine.get(waits.id).result == end_state.result
    assert engine.wait(later.id, timeout=30).state is State.SUCCEEDED
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
