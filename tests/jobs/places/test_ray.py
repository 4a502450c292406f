"""A real Ray of two nodes: a training, a request to stop, kill -9 of everything that a run rests on, and the probe."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.jobs.job import ENDED, State
from speciate.jobs.places.probe import look_from_here, look_from_there
from speciate.jobs.places.ray_jobs import RayJobs
from speciate.jobs.places.verdict import Status
from speciate.jobs.process_identity import identity
from tests.jobs.places.cluster import until
from tests.jobs.places.house import House
from tests.jobs.places.ray_cluster import RayCluster, why_not
from tests.training.test_at_a_place import check_specialize_trains_at_once

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.skipif(bool(why_not()), reason=why_not() or "there")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    found = RayCluster()
    yield found
    found.close()


@pytest.fixture
def house(tmp_path: Path, cluster: RayCluster) -> Iterator[House]:
    house = House(tmp_path, kind="ray", address=cluster.address, token_file=cluster.token)
    yield house
    house.close()


def test_a_training_there_makes_the_model_that_it_makes_here(house: House) -> None:
    house.check_same_model_here_and_there()


def test_two_nodes_take_the_steps_that_one_process_takes(house: House) -> None:
    house.check_two_nodes_take_the_same_steps()


def test_specialize_trains_there_at_once(tmp_path: Path, cluster: RayCluster) -> None:
    ray = {"kind": "ray", "address": cluster.address, "token_file": cluster.token}
    house = House(tmp_path, **ray, kinds=["train"], runs=2)
    check_specialize_trains_at_once(house.engine, "hpc")
    house.close()


def test_the_probe_names_what_the_place_is_able_to_do(house: House, cluster: RayCluster) -> None:
    place = house.workspace.settings.place("hpc")
    found = {each.name: each for each in (*look_from_here(place), *look_from_there(place, 120))}
    assert all(found[name].ok for name in ("cluster", "token", "job", "shared", "speciate", "delay", "head")), found
    assert "401" not in found["token"].what
    assert "rocksdb" in found["head"].what
    said = json.dumps(cluster.ask("/api/jobs/"))
    assert cluster.token.read_text() not in said, "whoever may read a job reads all that it was given"


def test_stops_on_request_and_goes_on(house: House) -> None:
    job = house.run(30, 1)
    house.engine.control(job.id, "pause")
    until(lambda: house.engine.get(job.id).state is State.PAUSED, 60)
    before = int((house.engine.folder(job).checkpoints / "step").read_text())
    house.engine.control(job.id, "resume")
    until(lambda: house.engine.get(job.id).attempt == 2, 60)
    until(lambda: house.engine.folder(house.engine.get(job.id)).progress() is not None, 60)
    found = house.engine.folder(house.engine.get(job.id)).progress()
    assert found is not None
    assert found.done > before


@pytest.mark.parametrize("victim", ["worker", "supervisor", "actor"])
def test_whoever_is_killed_the_run_goes_on_once(house: House, victim: str) -> None:
    job = house.run(12, 2)
    who = json.loads((house.there(job) / "claimed").read_text())["pid"]
    worker = int((house.there(job) / "worker").read_text().split()[0])
    parent = int(Path(f"/proc/{who}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill({"worker": worker, "supervisor": who, "actor": parent}[victim], signal.SIGKILL)
    until(lambda: not identity(worker), 10)
    done = house.engine.wait(job.id, timeout=150)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
    assert done.result is not None
    assert done.result["resumed_at"] > 0
    assert house.overlaps() == []


def test_without_the_head_and_the_daemon_the_run_ends_and_is_found(house: House, cluster: RayCluster) -> None:
    job = house.run(20, 4)
    lost = cluster.kill_head()
    assert len(lost) >= 2
    house.end()
    time.sleep(2)
    house.begin()
    with contextlib.suppress(TimeoutError):
        house.engine.wait(job.id, timeout=8)
    with pytest.raises(OSError, match=cluster.address):
        RayJobs(house.workspace.settings.place("hpc")).statuses(["a"])
    done = house.engine.wait(job.id, timeout=90)
    cluster.begin_again(lost)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    assert house.engine.wait(house.run(1, 6).id, timeout=120).state is State.SUCCEEDED, "it takes runs again"


def test_a_node_cut_off_lives_on_whatever_ray_says(house: House, cluster: RayCluster) -> None:
    job = house.run(110, 3)
    pid = int((house.there(job) / "worker").read_text().split()[0])
    name = f"{house.there(job).parents[1].name}-{job.id}.1"
    ray, raylet = RayJobs(house.workspace.settings.place("hpc")), cluster.raylet_of_the_node()
    os.kill(raylet, signal.SIGSTOP)
    said, end = set[Status](), time.monotonic() + 160
    try:
        while time.monotonic() < end and house.engine.get(job.id).state not in ENDED:
            said |= {ray.statuses([name])[name]} if identity(pid) else set()
            with contextlib.suppress(TimeoutError):
                house.engine.wait(job.id, timeout=1)
        done = house.engine.get(job.id)
        assert Status.DEAD in said, "or this test shows nothing"
        assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
        assert done.result is not None
        assert done.result["pid"] == pid
    finally:
        os.kill(raylet, signal.SIGCONT)


def test_a_head_that_forgets_is_named(tmp_path: Path) -> None:
    cluster = RayCluster(rocksdb=False)
    try:
        house = House(tmp_path, kind="ray", address=cluster.address, token_file=cluster.token)
        try:
            place = house.workspace.settings.place("hpc")
            found = {each.name: each for each in look_from_there(place, 120)}
            assert not found["head"].ok
            assert "in memory" in found["head"].what
            job = house.run(15, 7)
            done = house.engine.wait(job.id, timeout=120)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
        finally:
            house.close()
    finally:
        cluster.close()
