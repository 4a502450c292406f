"""Durable no-op jobs per second with 1, 8 and 64 threads: this engine (inline executor) against fsync'd Huey.

Both sides do the same: a caller hands over a no-op and goes on when it is on disk and has been done. Ours is one call;
Huey's is enqueue, dequeue, execute (SqliteHuey, `fsync=True`). Rounds are interleaved, the figure is the median ratio.

    python evals/bench/jobs_per_second.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "workspace", settings=Settings())
        engine = Engine(workspace, Kinds(extra=[Kind(name="nothing", spec=Nothing, act=do_nothing)]))
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
            pairs = [(rate(threads, jobs, ours), rate(threads, jobs, theirs)) for _ in range(rounds)]
            mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(
                f"{threads:3} threads: speciate {mine:7.0f} jobs/s, Huey (fsync) {other:7.0f} jobs/s, ratio {ratio:.2f}"
            )
        engine.stop()
        workspace.close()


if __name__ == "__main__":
    main()
