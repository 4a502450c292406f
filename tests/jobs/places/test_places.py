"""Runs at a place, with doubles of Slurm's programs: who dies, what is said, what comes back."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job, State
from speciate.jobs.places import executor
from speciate.jobs.places.executor import PlaceExecutor
from speciate.jobs.process_identity import identity
from tests.jobs.places.cluster import until
from tests.jobs.places.conftest import AnyDouble

Open = Callable[..., Engine]


class _Died(BaseException):
    """A daemon's end, as far as a place sees it."""


def there(double: AnyDouble, job: Job) -> Path:
    (found,) = double.depot.glob(f"speciate-*/runs/{job.id}.{job.attempt}")
    return found


def running(engine: Engine, double: AnyDouble, kind: str = "placed", **spec: object) -> Job:
    job = engine.submit(kind, {"seconds": 30, **spec})
    until(
        lambda: engine.get(job.id).state is State.RUNNING and engine.folder(engine.get(job.id)).progress() is not None
    )
    return engine.get(job.id)


def supervisor(double: AnyDouble, job: Job) -> int:
    return int(json.loads((there(double, job) / "claimed").read_text())["pid"])


def worker(double: AnyDouble, job: Job) -> int:
    return int((there(double, job) / "worker").read_text().split()[0])


def alive(pid: int) -> bool:
    return identity(pid) != ""


def test_a_run_goes_there_and_all_of_it_comes_back(open_engine: Open, double: AnyDouble) -> None:
    engine = open_engine()
    root = engine.workspace.folders.root
    (root / "datasets" / "rows.txt").write_text("rows")
    (double.jobs / "published").mkdir()
    outside = double.jobs / "published" / "weights.txt"
    outside.write_text("weights")
    reads = {"reads": ["datasets/rows.txt", str(outside.parent)], "trace": str(outside)}
    done = engine.wait(engine.submit("reads", reads).id, timeout=120)
    assert done.state is State.SUCCEEDED, done.reason
    assert done.result is not None
    assert done.result["there"] == {"datasets/rows.txt": "rows", "outside/1/published/weights.txt": "weights"}
    assert done.result["outside"] == "weights", "a path of the payload is the one that holds there"
    assert Path(*done.result["names"]).is_relative_to(double.scratch), "on the node's own disk"
    assert done.result["root"] == str(engine.workspace.folders.root), "it is told by its path here"
    assert not list(double.scratch.rglob("*.txt")), "nothing stays on the node"
    until(lambda: not list(double.depot.glob("speciate-*/runs/*")))
    assert oct(next(double.depot.iterdir()).stat().st_mode)[-3:] == "700"

    mover = engine.places.executor("lab")._mover  # type: ignore[attr-defined]
    before = mover.moved
    again = engine.wait(engine.submit("reads", {**reads, "value": 2}).id, timeout=120)
    assert again.state is State.SUCCEEDED
    assert mover.moved == before == len("rows") + len("weights"), "each file is moved once"
    objects = {path.name for path in double.depot.rglob("*") if len(path.name) == 64}
    assert len(objects) == 2

    (root / "datasets" / "rows.txt").unlink()
    engine.workspace.database.transact(lambda tx: tx.event("workspace", "data.forgotten"))
    until(lambda: len([path for path in double.depot.rglob("*") if len(path.name) == 64]) == 1)


@pytest.mark.slow
def test_a_damaged_object_is_moved_anew(open_engine: Open, double: AnyDouble) -> None:
    engine = open_engine()
    (engine.workspace.folders.root / "datasets" / "rows.txt").write_text("rows")
    spec = {"reads": ["datasets/rows.txt"]}
    assert engine.wait(engine.submit("reads", spec).id, timeout=120).state is State.SUCCEEDED
    (entry,) = (path for path in double.depot.rglob("*") if len(path.name) == 64)
    entry.chmod(0o644)
    entry.write_text("r0ws")
    done = engine.wait(engine.submit("reads", {**spec, "value": 2}).id, timeout=120)
    assert done.state is State.SUCCEEDED
    assert done.attempt == 2
    assert done.result is not None
    assert done.result["there"] == {"datasets/rows.txt": "rows"}


def test_who_is_asked_to_stop_leaves_a_checkpoint_and_one_that_waits_never_begins(
    open_engine: Open, double: AnyDouble
) -> None:
    engine = open_engine()
    job = running(engine, double)
    engine.control(job.id, "pause")
    assert engine.wait(job.id, until="change", timeout=120).state is not State.SUCCEEDED
    until(lambda: engine.get(job.id).state is State.PAUSED)
    step = engine.folder(job).checkpoints / "step"
    assert int(step.read_text()) > 0

    double.set("full")
    waits = engine.submit("placed", {"seconds": 30, "value": 1})
    until(lambda: bool(double.launches()[1:]))
    engine.control(waits.id, "cancel")
    assert engine.wait(waits.id, timeout=120).state is State.CANCELLED
    late = next(path for path in double.jobs.glob(f"*{waits.id}*.sh"))
    assert os.waitstatus_to_exitcode(os.system(f"sh {late} > /dev/null 2>&1")) == 76, "its turn comes too late"
    double.unset("full")
    engine.control(job.id, "resume")
    until(lambda: engine.get(job.id).attempt == 2)
    until(lambda: engine.folder(engine.get(job.id)).progress() is not None)
    assert engine.folder(engine.get(job.id)).progress().done > int(step.read_text())  # type: ignore[union-attr]


def test_term_without_a_request_is_a_preemption(open_engine: Open, double: AnyDouble) -> None:
    engine = open_engine()
    job = running(engine, double)
    os.kill(supervisor(double, job), signal.SIGTERM)
    until(lambda: engine.get(job.id).attempt == 2)
    now = engine.get(job.id)
    assert (now.retries, now.losses) == (0, 0)


@pytest.mark.parametrize("victim", [pytest.param("worker", marks=pytest.mark.slow), "supervisor"])
def test_whoever_is_killed_the_next_attempt_goes_on(open_engine: Open, double: AnyDouble, victim: str) -> None:
    engine = open_engine(lease_seconds=1)
    job = running(engine, double)
    first = worker(double, job)
    os.kill(first if victim == "worker" else supervisor(double, job), signal.SIGKILL)
    until(lambda: not alive(first), 2)
    until(lambda: engine.get(job.id).attempt == 2 and engine.get(job.id).state is State.RUNNING)
    assert engine.get(job.id).losses == 1
    until(lambda: engine.folder(engine.get(job.id)).progress() is not None)
    assert engine.folder(engine.get(job.id)).progress().done > 1  # type: ignore[union-attr]


def test_a_cluster_that_lies_or_is_away_ends_nothing(open_engine: Open, double: AnyDouble) -> None:
    engine = open_engine(lease_seconds=1)
    job = running(engine, double, seconds=2)
    double.set("says", "NODE_FAIL")
    pid = worker(double, job)
    until(lambda: (engine.folder(job).progress() or job).done > 10)  # type: ignore[union-attr]
    double.set("away")
    done = engine.wait(job.id, timeout=120)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    assert done.result is not None
    assert done.result["pid"] == pid
    waits = engine.submit("placed", {"value": 1})
    until(
        lambda: (
            "Nothing is started" in (engine.trouble(waits.id) or "")
            or "asked again" in (engine.trouble(waits.id) or "")
        )
    )
    double.unset("says")
    double.unset("away")


def test_a_daemon_that_comes_back_adopts_what_runs(open_engine: Open, double: AnyDouble) -> None:
    engine = open_engine()
    job = running(engine, double, seconds=3)
    pid = worker(double, job)
    engine = open_engine()
    done = engine.wait(job.id, timeout=120)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    assert done.result is not None
    assert done.result["pid"] == pid
    assert len(double.launches()) == 1


def test_launched_twice_it_runs_once(open_engine: Open, double: AnyDouble) -> None:
    engine = open_engine()
    job = running(engine, double)
    (script,) = double.jobs.glob("*.sh")
    assert os.waitstatus_to_exitcode(os.system(f"sh {script} > /dev/null 2>&1")) == 76
    assert alive(worker(double, job))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["placed", "computes"])
def test_without_the_shared_disk_the_node_ends_its_run_before_it_counts_as_lost(
    open_engine: Open, double: AnyDouble, kind: str
) -> None:
    """One that writes dies of it by itself; one that computes is killed there."""
    engine = open_engine(lease_seconds=2)
    job = running(engine, double, kind)
    pid = worker(double, job)
    double.depot.rename(double.depot.with_name("away"))
    double.depot.mkdir()  # as a disk that is not mounted
    until(lambda: not alive(pid), 4)
    until(lambda: "cannot be seen" in (engine.trouble(job.id) or ""))
    assert engine.get(job.id).attempt == 1
    assert not list(double.depot.iterdir()), "nothing is made there in its stead"
    assert len(double.launches()) == 1
    double.depot.rmdir()
    double.depot.with_name("away").rename(double.depot)
    until(lambda: engine.get(job.id).attempt == 2)


@pytest.mark.slow
def test_what_no_place_can_hold_or_nobody_named_is_refused(open_engine: Open) -> None:
    engine = open_engine(capacity={"gpu": 0}, runs=1)
    with pytest.raises(SpeciateError) as refused:
        engine.submit("placed", {"place": "moon"})
    assert refused.value.code is Code.NOT_FOUND
    assert "lab" in refused.value.message
    first = engine.submit("placed", {"seconds": 30})
    until(lambda: engine.get(first.id).state is State.RUNNING)
    second = engine.submit("placed", {"seconds": 30, "value": 1})
    until(lambda: "1 runs at once" in (engine.waits(second.id) or ""))
    here = engine.wait(engine.submit("placed", {"place": None}).id, timeout=120)
    assert here.state is State.SUCCEEDED, "this machine is as free as before"


@pytest.mark.parametrize(
    "point",
    [
        "place_launched",
        *(pytest.param(point, marks=pytest.mark.slow) for point in ("place_brought", "place_sent", "place_ended")),
    ],
)  # fmt: skip
def test_a_daemon_that_dies_anywhere_loses_and_repeats_nothing(
    open_engine: Open, double: AnyDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    died, dead, look = threading.Event(), list[PlaceExecutor](), PlaceExecutor.look

    def fault(name: str) -> None:
        if name == point and not died.is_set():
            died.set()
            raise _Died

    def look_while_alive(place: PlaceExecutor) -> None:
        try:
            if place not in dead:
                look(place)
        except _Died:
            dead.append(place)

    monkeypatch.setattr(executor, "fault", fault)
    monkeypatch.setattr(PlaceExecutor, "look", look_while_alive)
    job = open_engine().submit("placed", {"seconds": 0.2, "value": 7, "trace": str(tmp_path)})
    until(died.is_set)
    done = open_engine().wait(job.id, timeout=120)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    assert done.result is not None
    assert done.result["value"] == 7
    assert (tmp_path / "lives").read_text().count("began") == 1


def test_a_launch_that_dies_before_it_begins_says_why(open_engine: Open, double: AnyDouble, tmp_path: Path) -> None:
    wrong = tmp_path / "python"
    wrong.write_text("#!/bin/sh\necho No module named speciate >&2\nexit 1\n")
    wrong.chmod(0o755)
    engine = open_engine(python=str(wrong))
    job = engine.submit("placed", {})
    until(lambda: engine.get(job.id).retries == 1)
    error = engine.get(job.id).error
    assert error is not None
    assert "before it began" in error["message"]
    assert "places --probe lab" in error["recovery"]
    assert "No module named speciate" in error["detail"]


@pytest.mark.slow
def test_one_that_does_not_listen_is_killed_after_its_grace(open_engine: Open, double: AnyDouble) -> None:
    engine = open_engine(lease_seconds=60)
    job = running(engine, double)
    pid = worker(double, job)
    os.kill(pid, signal.SIGSTOP)
    engine.control(job.id, "cancel")
    assert engine.wait(job.id, timeout=120).state is State.CANCELLED
    assert not alive(pid)
