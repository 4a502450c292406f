"""A real Slurm of two nodes: a training, a request to stop, and kill -9 of everything that a run rests on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from speciate.jobs.job import ENDED, Job, State
from speciate.jobs.process_identity import identity
from tests.jobs.places.cluster import until
from tests.jobs.places.house import House
from tests.jobs.places.slurm_cluster import NODES, SlurmCluster, why_not
from tests.jobs.places.test_kills import Witness, alive
from tests.training.test_at_a_place import processes

JOBS, KILLS = 10, 40
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not() or "there")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    found = SlurmCluster(tmp_path_factory.mktemp("slurm") / "state")
    yield found
    found.close()


@pytest.fixture
def house(tmp_path: Path, cluster: SlurmCluster) -> Iterator[House]:
    house = House(tmp_path, kind="slurm", programs=cluster.programs)
    yield house
    house.close()


def all_idle(cluster: SlurmCluster) -> None:
    """A controller that was away asks a node only after a minute whether a job is over there."""
    until(lambda: cluster.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"], 180)


def test_a_training_there_makes_the_model_that_it_makes_here(house: House) -> None:
    house.check_same_model_here_and_there()


def test_two_nodes_take_the_steps_that_one_process_takes(house: House) -> None:
    house.check_two_nodes_take_the_same_steps()


def test_two_nodes_take_those_steps_without_a_controller(house: House, cluster: SlurmCluster) -> None:
    done = house.check_two_nodes_take_the_same_steps(lambda job: cluster.kill("slurmctld"))
    cluster.begin("slurmctld")
    assert done.attempt == 1
    all_idle(cluster)


def test_where_one_of_two_nodes_dies_the_next_attempt_waits_for_it_and_goes_on(
    house: House, cluster: SlurmCluster
) -> None:
    """slurmd, slurmstepd and the run of that node at once, as of a machine without power."""

    def die(job: Job) -> None:
        (supervisor,) = processes(job.run_id)["node 1"]
        run = psutil.Process(supervisor)
        name = next(name for name in NODES if name != cluster.ask("squeue", "-h", "-t", "R", "-o", "%B").strip())
        cluster.kill(name)
        for process in [run.parents()[0], *run.children(recursive=True), run]:
            process.kill()
        until(lambda: not processes(job.run_id), 120)
        assert house.engine.get(job.id).attempt == 1 or not processes(f"{job.id}.2"), "there is one node"
        cluster.begin(name)

    done = house.check_two_nodes_take_the_same_steps(die)
    assert done.attempt == 2
    all_idle(cluster)


def test_stops_on_request_and_goes_on(house: House) -> None:
    job = house.run(30, 1)
    house.engine.control(job.id, "pause")
    until(lambda: house.engine.get(job.id).state is State.PAUSED, 30)
    before = int((house.engine.folder(job).checkpoints / "step").read_text())
    house.engine.control(job.id, "resume")
    until(lambda: house.engine.get(job.id).attempt == 2 and house.engine.folder(house.engine.get(job.id)).progress() is not None, 30)  # fmt: skip  # noqa: E501
    found = house.engine.folder(house.engine.get(job.id)).progress()
    assert found is not None
    assert found.done > before


@pytest.mark.parametrize("victim", ["worker", "supervisor", "stepd"])
def test_whoever_is_killed_the_run_goes_on_once(house: House, victim: str) -> None:
    job = house.run(12, 2)
    who = json.loads((house.there(job) / "claimed").read_text())["pid"]
    worker = int((house.there(job) / "worker").read_text().split()[0])
    stat = Path(f"/proc/{who}/stat").read_text()
    parent = int(stat.rpartition(")")[2].split()[1])
    os.kill({"worker": worker, "supervisor": who, "stepd": parent}[victim], signal.SIGKILL)
    until(lambda: not identity(worker), 5)
    done = house.engine.wait(job.id, timeout=90)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
    assert done.result is not None
    assert done.result["resumed_at"] > 0
    assert house.overlaps() == []


def test_slurmd_killed_its_run_lives_and_ends_well_whatever_slurm_says(house: House, cluster: SlurmCluster) -> None:
    job = house.run(45, 3)
    pid = int((house.there(job) / "worker").read_text().split()[0])
    node = cluster.node_of(f"{job.id}.1")
    cluster.kill(node)
    said, end = set[str](), time.monotonic() + 100
    while time.monotonic() < end and house.engine.get(job.id).state not in ENDED:
        said |= set(cluster.ask("squeue", "-h", "--states=all", "-o", "%T").split())
        with contextlib.suppress(TimeoutError):
            house.engine.wait(job.id, timeout=1)
    cluster.begin(node)
    done = house.engine.get(job.id)
    assert "NODE_FAIL" in said, "or this test shows nothing"
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    assert done.result is not None
    assert done.result["pid"] == pid
    all_idle(cluster)


def test_without_controller_and_daemon_the_run_ends_and_is_found(house: House, cluster: SlurmCluster) -> None:
    job = house.run(15, 4)
    cluster.kill("slurmctld")
    house.end()
    time.sleep(2)
    house.begin()
    done = house.engine.wait(job.id, timeout=60)
    cluster.begin("slurmctld")
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    all_idle(cluster)


def test_kills_at_random_lose_nothing_and_start_nothing_twice(house: House, cluster: SlurmCluster) -> None:
    """Workers, what watches over them, Slurm's own beside them, its nodes, its controller, and our daemon."""
    chance, witness, done = random.Random(0), Witness(house), Counter[str]()
    spec = {"place": "hpc", "seconds": 8, "trace": str(house.trace)}
    jobs = [house.engine.submit("placed", {**spec, "value": 100 + number}).id for number in range(JOBS)]
    witness.start()
    while done.total() < KILLS and any(house.engine.get(job).state not in ENDED for job in jobs):
        what = chance.choices(["worker", "supervisor", "stepd", "slurmd", "slurmctld", "daemon"], [5, 4, 3, 1, 1, 1])[0]
        if what in ("slurmd", "slurmctld"):
            name = chance.choice(NODES) if what == "slurmd" else what
            cluster.kill(name)
            cluster.begin(name)
        elif what == "daemon":
            house.end()
            house.begin()
        elif there := alive(house):
            try:
                process = psutil.Process(chance.choice(sorted(there.values())))
                above = {"worker": 0, "supervisor": 1, "stepd": 2}[what]
                [process, *process.parents()][above].send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        else:
            time.sleep(0.2)
            continue
        done[what] += 1
        time.sleep(chance.random())
    for number, job in enumerate(jobs):
        ended = house.engine.wait(job, timeout=240)
        assert ended.state is State.SUCCEEDED, (ended, house.engine.trouble(job))
        assert ended.result is not None
        assert ended.result["value"] == 100 + number
    witness.over.set()
    witness.join()
    assert witness.looks > 20
    assert witness.seen == set()
    begun = Counter(line.split()[0] for line in (house.trace / "lives").read_text().splitlines() if "began" in line)
    assert set(begun.values()) == {1}, "an attempt begins once"
    assert done.total() == KILLS
    print(f"\n{KILLS} kills ({dict(done)}) over {JOBS} jobs, {len(begun)} attempts: each job ended well")


def test_scancel_by_somebody_else_is_a_preemption(house: House, cluster: SlurmCluster) -> None:
    job = house.run(20, 5)
    cluster.ask("scancel", f"--name={house.there(job).parents[1].name}-{job.id}.1")
    until(lambda: house.engine.get(job.id).attempt == 2, 40)
    now = house.engine.get(job.id)
    assert (now.retries, now.losses) == (0, 0), now.reason
    done = house.engine.wait(job.id, timeout=60)
    assert done.state is State.SUCCEEDED
    assert house.overlaps() == []
