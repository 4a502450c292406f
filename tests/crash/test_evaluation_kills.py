"""kill -9 of an evaluation that asks a real server through a proxy that spoils a quarter of what it passes on: the same
answers as without, none of them asked again, and what was under way at a kill is counted."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate.evaluation import answer_cache
from speciate.evaluation.endpoints.concurrency import Bounds
from speciate.evaluation.reports import report
from speciate.jobs.engine import Engine
from speciate.models import registry
from speciate.models.endpoints import Endpoint
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.crash.runs import kill_run
from tests.evaluation.endpoints.real_server import model, served, spoiled  # noqa: F401 - fixtures
from tests.training.world import define, make_dataset

pytestmark = [pytest.mark.durable, pytest.mark.slow]

CALLS, KILLS = 1000, 5
FAULTS = ("429", "torn", "500", "malformed", "slow")
ONE_LIMIT = Bounds().most
TIMES_OUT = 1800


def register(workspace: Workspace, name: str, base: str, at: Path) -> str:
    endpoint = Endpoint(base_url=f"{base}/v1", model=str(at), usd_per_1m_input=1.0, usd_per_1m_output=2.0)
    card = registry.served_card(workspace, name, endpoint, task=None, license=None)
    return workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, None)).ref


def evaluated(workspace: Workspace, engine: Engine, name: str, kills: int = 0) -> tuple[dict[str, Any], int]:
    """The report and how many kills struck."""
    spec = {
        "models": ["constant:", name], "dataset": "words", "use_case": "writing", "latency": False,
        "prompt": {"template": "{input}", "max_tokens": 64},
    }  # fmt: skip
    job, chance, struck = engine.submit("evaluate", spec), random.Random(5), 0
    for at in sorted(chance.randrange(CALLS, 2 * CALLS) for _ in range(kills)):  # the constant's answers come first
        struck += kill_run(workspace, engine, job.id, at)
    ended = engine.wait(job.id, timeout=TIMES_OUT)
    assert ended.state == "succeeded", ended.error
    assert ended.result is not None
    return ended.result, struck


def answers(workspace: Workspace, result: dict[str, Any], name: str) -> dict[str, tuple[Any, Any]]:
    rows = pq.read_table(workspace.folders.evaluations / result["evaluation"] / "predictions.parquet").to_pylist()
    return {row["example"]: (row["output"], row["error"]) for row in rows if row["model"] == name}


def test_a_killed_evaluation_ends_as_one_that_was_not(
    tmp_path: Path,
    model: Path,  # noqa: F811
    served: str,  # noqa: F811
) -> None:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto", private_hosts=("127.0.0.1",)))
    texts = [f"{random.Random(n).choice('abcdefgh') * (1 + n % 9)} {n}" for n in range(CALLS)]
    make_dataset(
        workspace, "words", "text", {"text": texts, "said": texts[::-1]}, labels=texts[::-1],
        splits=["test"] * CALLS, inputs=["text"],
    )  # fmt: skip
    define(workspace, "writing", "text-generation", metric="exact_match")
    engine = Engine(workspace)
    engine.start()
    try:
        with spoiled(served, 20, FAULTS) as (proxy, address):
            torn = register(workspace, "torn", address, model)
            killed, struck = evaluated(workspace, engine, torn, KILLS)
            calls = proxy.calls
            again, _ = evaluated(workspace, engine, torn)
            assert proxy.calls == calls, "a recorded answer was asked again"
        whole = register(workspace, "whole", served, model)
        spared, _ = evaluated(workspace, engine, whole)
    finally:
        engine.stop()
    lost = sum(
        answer_cache.count_lost_calls(workspace.folders, path.name) for path in workspace.folders.predictions.iterdir()
    )
    print(f"{CALLS} calls, {struck} kills, {proxy.calls} requests, spoilt {proxy.spoilt}, {lost} lost in flight")
    mine, theirs = answers(workspace, killed, torn), answers(workspace, spared, whole)
    ended = (("killed", killed, torn), ("again", again, torn), ("spared", spared, whole))
    rows = {name: report.find_report(workspace.database, each["evaluation"]).row(ref) for name, each, ref in ended}
    workspace.close()
    assert struck >= KILLS - 1
    assert len(mine) == CALLS
    assert mine == theirs
    assert len({output for output, _ in mine.values()}) > 20, "answers that are all alike show little"
    for name in ("value", "interval", "n", "errors", "coverage"):
        assert getattr(rows["killed"], name) == getattr(rows["spared"], name) == getattr(rows["again"], name)
    assert rows["killed"].usd_per_1k == pytest.approx(rows["again"].usd_per_1k)
    assert 0 <= lost <= struck * ONE_LIMIT
    assert json.dumps(killed["report"]["notes"]).count("under way when a run was killed") == (1 if lost else 0)
