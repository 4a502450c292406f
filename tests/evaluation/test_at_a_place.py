"""An evaluation at a place: the same report as here, from what was moved there alone; and what stays here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate.evaluation.payload import EvaluationPayload
from speciate.governance import consents
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job, State
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.jobs.places.cluster import Double, allow, look_often
from tests.training.world import make_dataset, thirds

GOOD, BAD = ("a fine film", "lovely and warm", "great fun"), ("a dull film", "cold and awful", "great bore")


@pytest.fixture
def double(tmp_path: Path) -> Double:
    return Double(tmp_path / "cluster")


@pytest.fixture
def engine(tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    look_often(monkeypatch)
    place = double.place(lease_seconds=60, kinds=["evaluate"])
    engine = Engine(Workspace(tmp_path / "workspace", settings=Settings(policy="auto", executors={"lab": place})))
    engine.start()
    chance = random.Random(0)
    kinds = [(i // 4) % 2 if chance.random() < 0.8 else chance.randrange(2) for i in range(120)]
    rows = [f"{(GOOD, BAD)[each][i % 3]} number {i}" for i, each in enumerate(kinds)]
    labels = ["bad" if (i // 4) % 2 else "good" for i in range(120)]
    data: Any = {"labels": labels, "splits": thirds(120), "inputs": ["text"]}
    make_dataset(engine.workspace, "reviews", "text", {"text": rows}, **data)
    allow(engine.workspace, "reviews")
    yield engine
    engine.stop()
    engine.workspace.close()


def done(engine: Engine, kind: str, **spec: Any) -> Job:
    found = engine.wait(engine.submit(kind, spec).id, timeout=240)
    assert found.state is State.SUCCEEDED, (found.reason, found.error, engine.folder(found).log_tail(40))
    return found


def scores(engine: Engine, job: Job) -> Any:
    """All that does not depend on the machine: the leaderboard, the comparisons, and each answer."""
    assert job.result is not None
    report, folder = job.result["report"], engine.workspace.folders.evaluations / job.result["evaluation"]
    board = [
        {name: row[name] for name in ("model", "value", "interval", "n", "errors")} for row in report["leaderboard"]
    ]
    answers = pq.read_table(folder / "predictions.parquet").to_pylist()
    return board, report["comparisons"], answers


def test_the_report_is_the_one_that_is_made_here(
    engine: Engine, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(engine, "train", name="words", dataset="reviews", method="classical", resources={"cpu": 1})
    assert double.launches() == []
    spec = {"models": ["words@v1", "constant:", "nearest:"], "dataset": "reviews", "latency": False}
    there = done(engine, "evaluate", **spec)
    assert there.resources.place == "lab"
    assert len(double.launches()) == 1
    monkeypatch.setattr("speciate.evaluation.evaluation_place._is_closed", lambda *_: False)
    here = done(engine, "evaluate", **{**spec, "seed": 1})
    assert here.resources.place is None
    assert len(double.launches()) == 1
    assert there.result is not None
    assert here.result is not None
    assert scores(engine, there) == scores(engine, here)
    assert {row["value"] for row in here.result["report"]["leaderboard"]} != {1.0}, "or this shows little"


def plan_place(engine: Engine, **spec: Any) -> str | None:
    return engine.plan("evaluate", {"models": ["constant:"], "dataset": "reviews", **spec}).resources.place


def test_all_that_is_read_must_be_allowed_or_it_runs_here(engine: Engine) -> None:
    done(engine, "train", name="words", dataset="reviews", method="classical", resources={"cpu": 1})
    make_dataset(engine.workspace, "later", "text", {"text": ["a fine film", "a dull film"] * 30},
                 labels=["good", "bad"] * 30, splits=thirds(60), inputs=["text"])  # fmt: skip
    allow(engine.workspace, "later")
    spec = {"models": ["words@v1", "constant:"], "dataset": "later"}
    planned = engine.plan("evaluate", spec)
    assert planned.resources.place == "lab"
    assert [each.dataset for each in planned.departures] == ["later", "reviews"], "what it learned from is read, too"
    consents.disallow(engine.workspace, "reviews", "lab", "grace")
    planned = engine.plan("evaluate", spec)
    assert planned.resources.place is None
    assert planned.departures == planned.inputs == ()
    assert "speciate allow reviews --host lab" in planned.resolved["runs_here"]


def test_what_reads_more_than_is_moved_or_needs_a_key_stays_here(engine: Engine, tmp_path: Path) -> None:
    assert plan_place(engine) == "lab"
    code = tmp_path / "answer.py"
    code.write_text("def answer(example):\n    return 'good'\n")
    assert plan_place(engine, models=[f"code:{code}:answer"]) is None
    assert plan_place(engine, scorer=f"{code}:answer") is None


def test_a_place_takes_no_evaluation_without_a_word_of_a_person(engine: Engine) -> None:
    payload = EvaluationPayload.model_validate(
        engine.plan("evaluate", {"models": ["constant:"], "dataset": "reviews"}).payload
    )
    assert payload.remarks
    assert "node of lab" in payload.remarks[-1]
    silent = engine.workspace.settings.executors["lab"].model_copy(update={"kinds": ()})
    engine.workspace.settings.executors["lab"] = silent
    assert plan_place(engine) is None
