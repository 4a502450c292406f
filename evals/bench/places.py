"""Many live runs at a place: what a look of its thread, a pass over its snapshots and a whole pass of the reconciler
cost, also while a cluster hangs. Cores are counted, and the wall beside them: on a busy machine that tells of others.

python evals/bench/places.py --runs 1000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from speciate.jobs import reconcile
from speciate.jobs.egress import Permit
from speciate.jobs.engine import Engine, JobRequest
from speciate.jobs.executors import Alive, Observation, RunSpec, Unreachable
from speciate.jobs.job import Resources, RunHandle, State
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.jobs.places.cluster import Finding, Launch
from speciate.jobs.places.executor import LOOK_SECONDS, PlaceExecutor
from speciate.jobs.places.folder_depot import FolderRoom
from speciate.jobs.places.lease import Lease, claim, write_lease
from speciate.jobs.places.verdict import Status
from speciate.settings import Place, Settings
from speciate.workspace.workspace import Workspace


class Queue:
    """A cluster that takes everything; `hangs`: it does not answer until it is let go."""

    def __init__(self) -> None:
        self.asked, self.hangs, self.go = 0, False, threading.Event()

    def launch(self, launch: Launch) -> None:
        """Its turn is taken by whoever measures."""

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        self.asked += 1
        if self.hangs:
            self.go.wait()
        return dict.fromkeys(names, Status.RUNNING)

    def stop(self, name: str, *, force: bool, nodes: int = 1) -> None:
        """Nothing of it lives."""

    def log(self, launch: Launch) -> str:
        return ""

    def findings(self) -> Iterator[Finding]:
        yield from ()

    def findings_by_job(self, name: str, seconds: float) -> Iterator[Finding]:
        yield from ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--looks", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), given.runs, given.looks)
        measure_reconciler(Path(folder), given.runs)


def measure(folder: Path, runs: int, looks: int) -> None:
    for name in ("depot", "workspace"):
        (folder / name).mkdir()
    queue, names = Queue(), [f"job-{number}.1" for number in range(runs)]
    place = Place(kind="slurm", depot=str(folder / "depot"), python="/bin/python", lease_seconds=3600)
    executor = PlaceExecutor(
        "lab", place, queue, folder / "workspace", "speciate-a", lambda: names,
        permit=lambda spec: Permit(place.host, frozenset()),
    )  # fmt: skip
    for name in names:
        executor.submit(RunSpec(name, {"payload": {}, "resources": {}}))
    took, cpu = timed(executor.look)
    print(f"{runs} runs sent and launched: {took:.1f} s, {cpu:.1f} s of a core")
    before = queue.asked
    took, cpu = timed(executor.look)
    print(f"a look while all wait: {took:.2f} s, {cpu:.2f} s of a core, {queue.asked - before} listing of the cluster")

    rooms = [FolderRoom(folder / "depot" / "speciate-a" / "runs" / name) for name in names]
    for room in rooms:
        claim(room, "node")
        write_lease(room, Lease(1, held=True))
        (room.path / "log").write_text("step 1\n")
        (room.path / "progress.jsonl").write_text('{"at": 1, "done": 1, "total": 9, "unit": "steps", "message": ""}\n')
    spent, before = [], queue.asked
    for beat in range(looks):
        for room in rooms[:: max(1, looks // 2)]:  # a beat of 10 s falls into one of five looks
            write_lease(room, Lease(beat + 2, held=True))
        spent.append(timed(executor.look))
    assert all(isinstance(executor.poll(executor.handle(name)), Alive) for name in names)
    cores = statistics.median(cpu for _, cpu in spent) / LOOK_SECONDS
    print(
        f"a look while all live: {statistics.median(took for took, _ in spent):.2f} s, {100 * cores:.1f} % of a core "
        f"at one look in {LOOK_SECONDS:g} s, {queue.asked - before} questions to the cluster"
    )
    print(f"a pass over {runs} snapshots: {passes(executor, names)}")

    queue.hangs = True
    executor.submit(RunSpec("job-late.1", {"payload": {}, "resources": {}}))
    executor._asked = -1e9
    hung = threading.Thread(target=executor.look, daemon=True)
    hung.start()
    time.sleep(3 * LOOK_SECONDS + 0.5)
    assert isinstance(executor.poll(executor.handle(names[0])), Unreachable)
    print(f"a pass while the cluster hangs: {passes(executor, names)}")
    queue.go.set()
    hung.join()


def measure_reconciler(folder: Path, runs: int) -> None:
    place = Place(kind="slurm", depot=str(folder / "depot"), python="/bin/python", runs=runs)
    settings = Settings(policy="auto", executors={"lab": place})
    workspace = Workspace(folder / "reconciled", settings=settings)
    reconcile.USUAL_BYTES = 1  # or a small disk has no room for all of them at once
    engine, there = Engine(workspace, Kinds(extra=[Kind(name="rest", spec=Rest, plan=plan, run="x:y")])), Snapshots()
    engine.places.executor = lambda name: there  # type: ignore[method-assign]
    engine.submit_all([JobRequest("rest", {"number": number}) for number in range(runs)])
    while any(job.state is not State.RUNNING for job in engine.list(limit=runs)):
        engine.tick()
    print(f"a pass of the reconciler while all live: {percentiles(engine.tick)}")
    there.found = Unreachable("lab was not looked at")
    print(f"a pass of the reconciler while the cluster hangs: {percentiles(engine.tick)}")
    workspace.close()


class Rest(BaseModel):
    number: int


def plan(spec: Rest, workspace: Workspace) -> Plan:
    return Plan(resources=Resources(cpu=1, place="lab"))


class Snapshots:
    """An executor of a place that says the same of every run."""

    found: Observation = Alive()

    def handle(self, run_id: str) -> RunHandle:
        return {"run": run_id}

    def submit(self, run: RunSpec) -> None:
        """It runs."""

    def prepare(self, preload: str) -> None:
        """There is nothing to prepare."""

    def poll(self, handle: RunHandle) -> Observation:
        return self.found

    def cancel(self, handle: RunHandle, force: bool) -> None:
        """Nobody asks."""

    def logs(self, handle: RunHandle, offset: int) -> bytes:
        return b""


def passes(executor: PlaceExecutor, names: Sequence[str]) -> str:
    handles = [executor.handle(name) for name in names]
    return percentiles(lambda: [executor.poll(handle) for handle in handles])


def percentiles(act: Callable[[], object]) -> str:
    spent = [timed(act) for _ in range(200)]
    wall, cpu = (sorted(1000 * each for each in times) for times in zip(*spent, strict=True))
    return (
        f"p50 {cpu[100]:.2f}, p99 {cpu[197]:.2f} ms of a core; by the wall p50 {wall[100]:.2f}, p99 {wall[197]:.2f} ms"
    )


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall, and of a core of this thread."""
    began, cpu = time.perf_counter(), time.thread_time()
    act()
    return time.perf_counter() - began, time.thread_time() - cpu


if __name__ == "__main__":
    main()
