"""Rows go to a place only where a person allowed their dataset for it: at the call, the start, and as they move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.governance import audit, consents
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job, State
from tests.jobs.places.cluster import Double, until

Open = Callable[..., Engine]
ROWS = "datasets/lesions/part.parquet"


@pytest.fixture
def double(tmp_path: Path) -> Double:
    return Double(tmp_path / "cluster")


def with_rows(engine: Engine) -> Engine:
    (engine.workspace.folders.root / ROWS).parent.mkdir()
    (engine.workspace.folders.root / ROWS).write_text("rows")
    return engine


def allow(engine: Engine, dataset: str = "lesions") -> None:
    consents.allow(engine.workspace, dataset, "lab", by="grace")


def submit(engine: Engine, value: int = 0) -> Job:
    return engine.submit("reads", {"reads": [ROWS], "value": value})


def objects(double: Double) -> list[Path]:
    return [path for path in double.depot.rglob("*") if len(path.name) == 64]


def test_without_a_persons_word_a_job_is_refused_at_the_call_and_no_row_is_moved(
    open_engine: Open, double: Double
) -> None:
    engine = with_rows(open_engine())
    for ask in (engine.plan, engine.submit):
        with pytest.raises(SpeciateError) as caught:
            ask("reads", {"reads": [ROWS]})
        assert caught.value.code is Code.REFUSED
        assert caught.value.message == ("No example of 'lesions' may be sent to lab: no person allowed it.")
        assert caught.value.recovery == "A person decides, on a terminal: speciate allow lesions --host lab"
    assert engine.list() == []
    assert objects(double) == []
    allow(engine)
    done = engine.wait(submit(engine).id, timeout=120)
    assert done.state is State.SUCCEEDED, done.error
    rows = [row for row in audit.of_use_case(engine.workspace.database, audit.WORKSPACE) if row.action == "send"]
    assert [(row.actor, row.after) for row in rows] == [(done.id, f"lesions to {double.depot}")]
    assert audit.verify(engine.workspace.database).problems == ()


def test_a_consent_that_is_taken_back_while_a_job_waits_ends_it(open_engine: Open, double: Double) -> None:
    engine = with_rows(open_engine(runs=1))
    allow(engine)
    first = engine.submit("placed", {"seconds": 30})
    until(lambda: engine.get(first.id).state is State.RUNNING)
    waits = submit(engine)
    assert engine.get(waits.id).state is State.QUEUED
    consents.disallow(engine.workspace, "lesions", "lab", "ada")
    done = engine.wait(waits.id, timeout=20)
    assert done.state is State.FAILED
    assert done.error is not None
    assert "no person allows it now" in done.error["message"]
    assert "speciate allow lesions --host lab" in done.error["recovery"]
    assert objects(double) == []
    engine.control(first.id, "cancel")
    allow(engine)
    engine.control(waits.id, "retry")
    assert engine.wait(waits.id, timeout=120).state is State.SUCCEEDED


def test_a_consent_that_is_taken_back_between_the_start_and_the_move_moves_nothing(
    open_engine: Open, double: Double
) -> None:
    """The start is in the catalog, but the depot was not there: files would go hours later."""
    engine = with_rows(open_engine())
    allow(engine)
    double.depot.rename(double.depot.with_name("away"))
    job = submit(engine)
    until(lambda: "No such file" in (engine.trouble(job.id) or ""))
    assert engine.get(job.id).state is State.STARTING
    consents.disallow(engine.workspace, "lesions", "lab", "ada")
    done = engine.wait(job.id, timeout=20)
    assert (done.state, done.attempt) == (State.FAILED, 1)
    assert done.error is not None
    assert "no person allows it now" in done.error["message"]
    double.depot.with_name("away").rename(double.depot)
    assert list(double.depot.iterdir()) == []


def test_a_job_of_which_nothing_tells_whose_files_it_sends_is_refused(open_engine: Open) -> None:
    engine = with_rows(open_engine())
    with pytest.raises(SpeciateError, match="sends files and does not say so"):
        engine.submit("reads", {"reads": ["packs/0.pack"]})
