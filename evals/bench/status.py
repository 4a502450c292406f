"""`get_status` and the ledger over a large catalog: CPU seconds of one look, and how often the catalog is asked.

A workspace as a busy year leaves it: each use case with three promotions that held, and jobs with eight events each,
written in bulk beside the tools. A look reads everything anew; the first one is not counted. To compare two versions of
the code, keep the workspace (`--keep PATH`) and run this with either, in turns.

    python evals/bench/status.py [--use-cases 100] [--events 500000] [--rounds 5] [--keep PATH]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from speciate import use_cases as usecases
from speciate.loop.ledger import ledger
from speciate.loop.status import status
from speciate.settings import Settings
from speciate.use_cases import Definition, Objective
from speciate.workspace.workspace import Workspace

_DAY = 86_400.0
_OF_A_JOB = (
    "job.created", "job.queued", "job.starting", "job.running", "job.progress", "job.checkpoint", "job.left",
    "job.succeeded",
)  # fmt: skip
_KINDS = ("train", "evaluate", "ingest", "curate")
_JOBS_MADE = """
CREATE TEMP TABLE jobs_made AS SELECT format('job-{:012d}', n) AS id, 'case' || n % $use_cases AS use_case,
$kinds[n // $use_cases % 4 + 1] AS kind, n // $use_cases // 4 + 1 AS number,
$began + ($now - $began) * n / $jobs AS began FROM range($jobs) jobs(n)
"""
_JOBS = """
INSERT INTO jobs SELECT id, NULL, 'f', kind, '{}', 'succeeded', 1, 0, '{}', NULL, '{}', 0, NULL, NULL, use_case,
'local', NULL, NULL, NULL, 0, 0, 0, 60.0, NULL,
'{"text": "' || list_aggregate([sha256(id || n::VARCHAR) for n in range(?)], 'string_agg', '') || '"}', NULL, began,
began + 70, began, began + 70 FROM jobs_made ORDER BY began
"""
_EVENTS = """
INSERT INTO events SELECT $before + row_number() OVER (ORDER BY stamp, subject, type, data), stamp, subject, type, data
FROM (
    SELECT began + 10 * (place - 1) AS stamp, id AS subject, $types[place] AS type,
    '{"attempt": 1, "kind": "' || kind || '"}' AS data FROM jobs_made, unnest(range(1, len($types) + 1)) each(place)
    UNION ALL
    SELECT began + 69, 'model:of-' || use_case, 'model.created',
    format('{{"model": "of-{}@v{}", "id": "x", "job": "{}"}}', use_case, number, id) FROM jobs_made WHERE kind = 'train'
    UNION ALL FROM promoted
) ORDER BY stamp, subject, type, data
"""


class _Event(NamedTuple):
    stamp: float
    subject: str
    type: str
    data: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--use-cases", type=int, default=100)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="the workspace; it is made where it is not there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = given.keep or Path(scratch) / "workspace"
        if not path.exists():
            make(path, given.use_cases, given.events)
        workspace = Workspace(path)
        looks: dict[str, Callable[[], Any]] = {
            "status": lambda: status(workspace),
            "status of one": lambda: status(workspace, "case0"),
            "ledger": lambda: ledger(workspace),
        }
        for name, look in looks.items():
            took, asked = measured(workspace, look, given.rounds)
            print(f"{name}: {took:.3f} CPU seconds (median of {given.rounds}), {asked} queries")
        workspace.close()


def measured(workspace: Workspace, look: Callable[[], Any], rounds: int) -> tuple[float, int]:
    asked, read = list[str](), workspace.database.read
    workspace.database.read = lambda sql, *more: asked.append(sql) or read(sql, *more)  # type: ignore[method-assign]
    look()
    queries, took = len(asked), list[float]()
    for _ in range(rounds):
        began = time.process_time()
        look()
        took.append(time.process_time() - began)
    workspace.database.read = read  # type: ignore[method-assign]
    return statistics.median(took), queries


def make(path: Path, use_cases: int, count: int, row_bytes: int = 0) -> None:
    """`row_bytes`: of a job's result, which does not compress."""
    workspace = Workspace(path, settings=Settings(policy="auto"))
    for number in range(use_cases):
        objective = Objective(metric="accuracy", target=0.9)
        definition = Definition(name=f"case{number}", task="text-classification", objective=objective)
        workspace.database.transact(lambda tx, definition=definition: usecases.define(tx, definition, policy="auto"))  # type: ignore[misc]
    now, catalog = workspace.clock.now(), workspace.folders.catalog
    workspace.close()
    began = now - 300 * _DAY
    promotions = [
        each for number in range(use_cases) for each in _promotions(f"case{number}", began + _DAY + 600 * number)
    ]
    columns = dict(zip(_Event._fields, map(list, zip(*promotions, strict=True)), strict=True))
    with duckdb.connect(str(catalog)) as connection:
        connection.execute("UPDATE use_cases SET created = ?", [began])
        connection.execute("UPDATE events SET stamp = ?", [began])
        promoted = pa.table(columns)  # noqa: F841 - DuckDB finds it by its name
        given = {"jobs": count // 8, "use_cases": use_cases, "kinds": list(_KINDS), "began": began, "now": now}
        connection.execute(_JOBS_MADE, given)
        connection.execute(_JOBS, [row_bytes // 64])
        connection.execute(_EVENTS, {"types": list(_OF_A_JOB), "before": use_cases})
        card = json.dumps({"method": "classical", "dataset": "films@v1", "parents": [], "recipe": {"text": "y" * 2000}})
        trained = "INSERT INTO model_versions SELECT 'of-' || use_case, number, 'id', ?, id, began FROM jobs_made"
        connection.execute(f"{trained} WHERE kind = 'train'", [card])
        for number in range(use_cases):
            name, model = f"case{number}", f"of-case{number}@v3"
            connection.execute("INSERT INTO aliases VALUES (?, 'production', ?, 3, ?, NULL)", [name, model, began])


def _promotions(use_case: str, began: float) -> list[_Event]:
    subject, found, before = f"use_case:{use_case}", list[_Event](), None
    for generation in (1, 2, 3):
        model, at = f"of-{use_case}@v{generation}", began + 20 * _DAY * generation
        moved = {"alias": "production", "generation": generation, "action": "promote", "before": before, "after": model}
        held = {"alias": "production", "generation": generation, "model": model, "reasons": []}
        told = [
            (at - 100, "decision.made", {"candidate": model, "verdict": "promote"}), (at, "alias.moved", moved),
            (at + 50, "slot.serving", {"model": model}), (at + 60, "production.answered", {"model": model}),
            (at + _DAY, "promotion.survived", held),
        ]  # fmt: skip
        found += [_Event(moment, subject, kind, json.dumps(data)) for moment, kind, data in told]
        before = model
    return found


if __name__ == "__main__":
    main()
