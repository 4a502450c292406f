"""What grows with the jobs of a workspace: a look at its status, its ledger, its jobs; a pass of the reconciler; a job
from its submit to its end.

And what grows with its registered models: a search, a plan, a registration, a trace.

Workspaces as `status.py` makes them, with 10^3, 10^4 and 10^5 jobs that ended. An exponent of 0 is flat, 1 is linear in
what did not change. CPU seconds; a look reads everything anew. The job's run is no process: it has ended at once, so
that only the engine is measured.

    python evals/bench/growth.py [--jobs 1000 10000 100000] [--rounds 5] [--row-bytes 0] [--models 100 1000 10000]
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from figures import note
from pydantic import BaseModel
from status import make, measured

from speciate.jobs.engine import Engine
from speciate.jobs.executors import Ended, Observation, RunSpec
from speciate.jobs.folder import Outcome
from speciate.jobs.job import RunHandle, State
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.lineage import trace
from speciate.loop.ledger import ledger
from speciate.loop.status import status
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.models.search import known_models
from speciate.models.search.search_query import Query
from speciate.privacy import gc
from speciate.training.planning.available_methods import all_candidates
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_EVENTS_OF_A_JOB = 8
_GOALS = {"get_status": 100.0}


_CARD = ModelCard(
    name="", task="text-classification", modality="text", method="probe", base_model="pkg:minilm", dataset="films@v1",
    labels=("good", "bad"), parameters=22_713_216, bytes=1 << 20, seconds=60.0, metrics={"accuracy": 0.9},
    recipe={"text": "y" * 2000},
)  # fmt: skip


class _Nothing(BaseModel):
    pass


class _AtOnce:
    """An executor whose runs have ended well as soon as they begin."""

    def handle(self, run_id: str) -> RunHandle:
        return {"run": run_id}

    def submit(self, run: RunSpec) -> None: ...

    def prepare(self, preload: str) -> None: ...

    def poll(self, handle: RunHandle) -> Observation:
        return Ended(Outcome(0, "ok"))

    def cancel(self, handle: RunHandle, force: bool) -> None: ...

    def logs(self, handle: RunHandle, offset: int) -> bytes:
        return b""


_KIND = Kind(name="growth", spec=_Nothing, plan=lambda spec, workspace: Plan(payload={}), run="growth:none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--row-bytes", type=int, default=0, help="of each job's result")
    parser.add_argument("--models", type=int, nargs="*", default=[100, 1_000, 10_000])
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, medians of {given.rounds}, CPU ms")
    _report("jobs", given.jobs, lambda path, count: _of_jobs(path, count, given.row_bytes, given.rounds))
    _report("models", given.models, lambda path, count: _of_models(path, count, given.rounds))


def _report(noun: str, sizes: Sequence[int], costs: Callable[[Path, int], dict[str, float]]) -> None:
    found: dict[str, list[float]] = {}
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for what, seconds in costs(Path(folder) / "workspace", count).items():
                found.setdefault(what, []).append(seconds)
    print(f"{noun:32}" + "".join(f"{count:>12,}" for count in sizes) + "    exponent")
    for what, seconds in found.items():
        note(f"{what} at {sizes[-1]:,} {noun}", [1000 * seconds[-1]], unit="ms of CPU", goal=_GOALS.get(what))
        line = f"{what:32}" + "".join(f"{1000 * each:12.2f}" for each in seconds)
        if len(seconds) > 1:
            grown = math.log(max(seconds[-1], 1e-6) / max(seconds[0], 1e-6))
            line += f"{grown / math.log(sizes[-1] / sizes[0]):12.2f}"
        print(line, flush=True)


def _of_jobs(path: Path, count: int, row_bytes: int, rounds: int) -> dict[str, float]:
    make(path, 10, count * _EVENTS_OF_A_JOB, row_bytes)
    return _looks(path, rounds)


def _of_models(path: Path, count: int, rounds: int) -> dict[str, float]:
    """Names with one version each, as trainings leave them, without weights."""
    workspace = Workspace(path)
    database, folders = workspace.database, workspace.folders

    def register(tx: Transaction, number: int) -> None:
        registry.register(
            tx, folders, _CARD.model_copy(update={"name": f"m{number:06d}", "id": f"{number:064d}"}), None
        )

    for first in range(0, count, 1000):
        numbers = range(first, min(count, first + 1000))
        database.transact(lambda tx, numbers=numbers: [register(tx, number) for number in numbers])  # type: ignore[misc]
    made = [count]

    def one_more() -> None:
        made[0] += 1
        database.transact(lambda tx: register(tx, made[0]))

    def search() -> None:
        known_models.search(workspace, Query(text="reviews", modality="text"), sort="relevance", limit=10, offset=0)

    def search_after_one_more() -> None:
        one_more()
        search()

    looks: dict[str, Callable[[], Any]] = {
        "resolve a model": lambda: registry.resolve(database, folders, f"m{count // 2:06d}@v1"),
        "register a model": one_more,
        "candidates of a plan": lambda: all_candidates(workspace, "text", "classification"),
        "search_models": search,
        "search_models, a new one": search_after_one_more,
        "get_status": lambda: status(workspace),
        "trace a model": lambda: trace.trace_model(workspace, f"m{count // 2:06d}@v1"),
        "what gc would delete": lambda: gc.survey(workspace),
    }
    found = {what: measured(workspace, look, rounds)[0] for what, look in looks.items()}
    workspace.close()
    return found


def _looks(path: Path, rounds: int) -> dict[str, float]:
    began = time.process_time()
    workspace = Workspace(path)
    found = {"open the workspace": time.process_time() - began}
    began = time.process_time()
    engine = Engine(workspace, Kinds(extra=[_KIND]), _AtOnce())
    engine.tick()
    found["begin the engine"] = time.process_time() - began
    (newest,) = engine.list(limit=1)
    looks: dict[str, Callable[[], Any]] = {
        "get_status": lambda: status(workspace),
        "get_status of a use case": lambda: status(workspace, "case0"),
        "ledger": lambda: ledger(workspace),
        "list_jobs": engine.list,
        "list_jobs that failed": lambda: engine.list(state="failed"),
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

    def live() -> None:
        job = engine.submit("growth", {}).id
        while engine.get(job).state is not State.SUCCEEDED:
            engine.tick()

    engine.tick()
    found["commit and a pass"], _ = measured(workspace, change, rounds)
    found["a job, submit to end"], _ = measured(workspace, live, rounds)
    workspace.close()
    return found


if __name__ == "__main__":
    main()
