"""kill -9 of a batch of 10,000 rows, time and again: the answers of one that was not killed, and no row asked twice."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate.evaluation import answer_cache
from speciate.jobs.engine import Engine
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.crash.runs import kill_run
from tests.serving.world import trained
from tests.training.world import make_dataset

pytestmark = [pytest.mark.durable, pytest.mark.slow]

ROWS, KILLS, TIMES_OUT = 10_000, 4, 900
MODEL = "films-model@v1"
TEXTS = [f"a {'good' if n % 3 else 'bad'} film {n}" for n in range(ROWS)]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    made = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    trained(made)
    make_dataset(made, "many", "text", {"text": TEXTS}, labels=["good"] * ROWS, splits=["test"] * ROWS, inputs=["text"])
    yield made
    made.close()


@pytest.fixture
def engine(workspace: Workspace) -> Iterator[Engine]:
    made = Engine(workspace)
    made.start()
    yield made
    made.stop()


def answer(workspace: Workspace, engine: Engine, kills: int, **spec: Any) -> tuple[list[dict[str, Any]], int]:
    """The lines of the file of answers, and how many kills struck."""
    job, chance, struck = engine.submit("predict", {"model": MODEL, **spec}), random.Random(5), 0
    for at in sorted(chance.randrange(ROWS) for _ in range(kills)):
        struck += kill_run(workspace, engine, job.id, at)
    ended = engine.wait(job.id, timeout=TIMES_OUT)
    assert ended.state == "succeeded", ended.error
    assert ended.result is not None
    assert ended.result["report"]["answered"] == ROWS
    assert ended.attempt == struck + 1
    return [json.loads(line) for line in Path(spec["path"]).read_text().splitlines()], struck


def test_a_killed_batch_of_a_dataset_asks_no_row_twice(workspace: Workspace, engine: Engine, tmp_path: Path) -> None:
    killed, struck = answer(workspace, engine, KILLS, dataset="many", path=str(tmp_path / "killed.jsonl"))
    asked: Counter[str] = Counter()
    for path in answer_cache.sealed(workspace.folders):
        asked.update(pq.read_table(path)["key"].to_pylist())
    spared, _ = answer(workspace, engine, 0, dataset="many", path=str(tmp_path / "spared.jsonl"))
    print(f"{ROWS} rows, {struck} kills, {asked.total()} answers recorded")
    assert struck >= 1
    assert killed == spared
    assert len(killed) == ROWS
    assert (len(asked), set(asked.values())) == (ROWS, {1})


def test_a_killed_batch_of_a_file_asks_no_chunk_twice(workspace: Workspace, engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "films.csv"
    source.write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))
    killed, struck = answer(workspace, engine, KILLS, source=str(source), path=str(tmp_path / "killed.jsonl"))
    chunks = Counter(path.name for path in workspace.folders.runs.glob("job-*/checkpoints/chunk-*.json"))
    spared, _ = answer(workspace, engine, 0, source=str(source), path=str(tmp_path / "spared.jsonl"))
    print(f"{ROWS} rows, {struck} kills, {chunks.total()} chunks")
    assert struck >= 1
    assert killed == spared
    assert [each["id"] for each in killed] == [str(n + 1) for n in range(ROWS)]
    assert set(chunks.values()) == {1}
