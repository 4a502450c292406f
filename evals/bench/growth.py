"""What grows with the jobs of a workspace: a look at its status, its ledger, its jobs; a pass of the reconciler.

Workspaces as `status.py` makes them, with 10^3, 10^4 and 10^5 jobs that ended. An exponent of 0 is flat, 1 is linear in
what did not change. CPU seconds; a look reads everything anew.

    python evals/bench/growth.py [--jobs 1000 10000 100000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import note
from status import make, measured

from speciate.jobs.engine import Engine
from speciate.loop.ledger import ledger
from speciate.loop.status import status
from speciate.workspace.workspace import Workspace

_EVENTS_OF_A_JOB = 8
_GOALS = {"get_status": 100.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, medians of {given.rounds}, CPU ms")
    found: dict[str, list[float]] = {}
    for count in given.jobs:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "workspace"
            make(path, 10, count * _EVENTS_OF_A_JOB)
            for what, seconds in _looks(path, given.rounds).items():
                found.setdefault(what, []).append(seconds)
    print(f"{'jobs':32}" + "".join(f"{count:>12,}" for count in given.jobs) + "    exponent")
    for what, seconds in found.items():
        note(f"{what} at {given.jobs[-1]:,} jobs", [1000 * seconds[-1]], unit="ms of CPU", goal=_GOALS.get(what))
        line = f"{what:32}" + "".join(f"{1000 * each:12.2f}" for each in seconds)
        if len(seconds) > 1:
            grown = math.log(max(seconds[-1], 1e-6) / max(seconds[0], 1e-6))
            line += f"{grown / math.log(given.jobs[-1] / given.jobs[0]):12.2f}"
        print(line)


def _looks(path: Path, rounds: int) -> dict[str, float]:
    began = time.process_time()
    workspace = Workspace(path)
    found = {"open the workspace": time.process_time() - began}
    engine = Engine(workspace)
    (newest,) = engine.list(limit=1)
    looks: dict[str, Callable[[], Any]] = {
        "get_status": lambda: status(workspace),
        "get_status of a use case": lambda: status(workspace, "case0"),
        "ledger": lambda: ledger(workspace),
        "list_jobs": engine.list,
        "list_jobs of a use case": lambda: engine.list(use_case="case0"),
        "list_jobs, a later page": lambda: engine.list(before=newest.id),
        "get_job": lambda: engine.get(newest.id),
        "events after a number": lambda: workspace.database.events_after(workspace.database.last_seq - 10),
        "whether anything is to do": engine.idle,
    }
    for what, look in looks.items():
        found[what], _ = measured(workspace, look, rounds)

    def change(number: list[int] = [0]) -> None:  # noqa: B006 - counts
        number[0] += 1
        workspace.database.transact(lambda tx: tx.event("growth", "tried", {"number": number[0]}))
        engine.tick()

    engine.tick()
    found["commit and a pass"], _ = measured(workspace, change, rounds)
    workspace.close()
    return found


if __name__ == "__main__":
    main()
