"""Durable no-op jobs per second with 1, 8 and 64 threads: this engine (inline executor) against fsync'd Huey.

Both sides do the same: a caller hands over a no-op and goes on when it is on disk and has been done. Ours is one call;
Huey's is enqueue, dequeue, execute (SqliteHuey, `fsync=True`). Rounds are interleaved, the figure is the median ratio.

Then jobs as users have them: each is claimed, gets a supervisor and a worker of its own, runs, and is committed.

    python evals/bench/jobs_per_second.py [--rounds 5] [--workers 100]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from figures import note
from huey import SqliteHuey
from pydantic import BaseModel

from speciate.jobs.engine import Engine
from speciate.jobs.job import Job
from speciate.jobs.kinds import Kind, Kinds
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

JOBS = {1: 300, 8: 1200, 64: 4096}


class Nothing(BaseModel):
    pass


def do_nothing(tx: Transaction, spec: Nothing, job: Job, settings: Settings) -> dict[str, object]:
    return {}


def rate(threads: int, jobs: int, one: Callable[[], object]) -> float:
    """Jobs per second of `threads` callers that share `jobs` between them."""

    def call() -> None:
        for _ in range(jobs // threads):
            one()

    callers = [threading.Thread(target=call) for _ in range(threads)]
    began = time.perf_counter()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return jobs / (time.perf_counter() - began)


def worker_rate(engine: Engine, jobs: int) -> float:
    """Jobs per second from the first submit to the last commit."""
    began = time.perf_counter()
    for job in [engine.submit("work", {}).id for _ in range(jobs)]:
        ended = engine.wait(job, timeout=600)
        assert ended.result == {}, ended.error
    return jobs / (time.perf_counter() - began)


def _spent(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds of zygotes and of all that they forked and waited for."""
    return sum(sum(each.cpu_times()[:4]) for each in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--jobs", type=int, help="no-op jobs of each round; default: 300 to 4,096, by threads")
    given = parser.parse_args()
    rounds: int = given.rounds
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "workspace", settings=Settings())
        work = Kind(name="work", spec=Nothing, run=f"{Path(__file__).resolve().parent / 'arms' / 'nothing.py'}:run")
        engine = Engine(workspace, Kinds(extra=[Kind(name="nothing", spec=Nothing, act=do_nothing), work]))
        huey = SqliteHuey(filename=str(Path(folder) / "huey.db"), fsync=True, results=False)

        @huey.task()  # type: ignore[untyped-decorator]
        def nothing() -> None:
            pass

        def ours() -> None:
            engine.submit("nothing", {})

        def theirs() -> None:
            nothing()
            huey.execute(huey.dequeue())

        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {rounds} interleaved rounds, medians")
        for threads, jobs in JOBS.items():
            count = given.jobs or jobs
            pairs = [(rate(threads, count, ours), rate(threads, count, theirs)) for _ in range(rounds)]
            mine, other = zip(*pairs, strict=True)
            found = note(
                f"durable no-op jobs, {threads} threads", mine, other, unit="1/s", peer="Huey, fsync", more=True,
                goal=1.0 if threads == 64 else 0.5,
            )  # fmt: skip
            print(
                f"{threads:3} threads: speciate {found.ours:7.0f} jobs/s, Huey (fsync) {found.theirs:7.0f} jobs/s, "
                f"ratio {found.ratio:.2f}"
            )
        engine.start()
        worker_rate(engine, 1)
        forks = psutil.Process().children(recursive=True)
        cpu, forked = os.times(), _spent(forks)
        rates = [worker_rate(engine, given.workers) for _ in range(rounds)]
        spent, forked = sum(os.times()[:2]) - sum(cpu[:2]), _spent(forks) - forked
        shown = ", ".join(f"{rate:.1f}" for rate in sorted(rates))
        note("jobs with a worker each", rates, unit="1/s", goal=20.0, more=True)
        each = 1000 * (spent + forked) / (rounds * given.workers)
        note("CPU of such a job, all processes", [each], unit="ms")
        print(
            f"with a worker each: {statistics.median(rates):.1f} jobs/s ({shown}); "
            f"CPU of one: {each:.0f} ms, of which the engine's {1000 * spent / (rounds * given.workers):.0f}"
        )
        engine.stop()
        workspace.close()


if __name__ == "__main__":
    main()
