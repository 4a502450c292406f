"""Money that people allowed, shared by jobs that run at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.datasets import consent
from speciate.jobs.allowances import Ledger, Spend
from speciate.jobs.engine import Engine
from speciate.jobs.executors import Alive, Ended, Gone
from speciate.jobs.folder import Outcome, RunFolder
from speciate.jobs.job import Job, State
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.settings import Capacity, Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.data import fresh
from tests.jobs.test_reconcile import Stage
from tests.jobs.work import ENTRY, Work

HOST = "api.example.com"


def plan(spec: Work, workspace: Workspace) -> Plan:
    """`value`: its budget in USD; 0 for none."""
    return Plan(spends=(Spend(dataset="lesions", host=HOST, usd=spec.value or None),))


def paid(folder: RunFolder) -> dict[tuple[str, str], float]:
    """Of all attempts, as journals have it."""
    runs = folder.path.parent.glob(f"{folder.spec()['job']}.*/paid")
    return {("lesions", HOST): sum(float(file.read_text()) for file in runs)}


ASKS = Kind(name="asks", spec=Work, plan=plan, run=ENTRY, paid=paid)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock, stage: Stage) -> Iterator[Engine]:
    workspace = Workspace(
        fresh(tmp_path / "w", manual=True), clock=clock, settings=Settings(capacity=Capacity(cpu=8, memory_mb=8000))
    )
    allow(workspace, 5.0)
    yield Engine(workspace, Kinds(extra=[ASKS]), executor=stage)
    workspace.close()


def allow(workspace: Workspace, usd: float, expires: float | None = None) -> None:
    row = ["lesions", HOST, usd, workspace.clock.now(), expires, "grace"]
    workspace.database.transact(lambda tx: tx.execute("INSERT OR REPLACE INTO consents VALUES (?, ?, ?, ?, ?, ?)", row))


def submit(engine: Engine, budget: int = 0) -> Job:
    """Each a second after the one before it: so the order is known."""
    clock = engine.workspace.clock
    assert isinstance(clock, ManualClock)
    clock.advance(1)
    return engine.submit("asks", {"value": budget, "seconds": clock.now()})


def pay(engine: Engine, stage: Stage, job: Job, usd: float) -> None:
    """Its newest attempt lives and has paid so much."""
    job = engine.get(job.id)
    folder = RunFolder(engine.workspace.folders.runs / job.run_id)
    folder.create(stage.specs[job.run_id])
    (folder.path / "supervisor").touch()
    (folder.path / "paid").write_text(str(usd))
    stage.truth[job.run_id] = Alive()


def share(stage: Stage, job: Job, attempt: int = 1) -> float:
    return float(stage.specs[f"{job.id}.{attempt}"]["allowances"][HOST])


def left(engine: Engine) -> float:
    return consent.check(engine.workspace.database, "lesions", HOST).left_usd


def test_jobs_at_once_cannot_exceed_a_cap_together(engine: Engine, stage: Stage) -> None:
    jobs = [submit(engine, 3) for _ in range(2)]
    engine.tick()
    assert [engine.get(job.id).state for job in jobs] == [State.STARTING, State.QUEUED]
    assert share(stage, jobs[0]) == 3.0
    assert "waits for money" in (engine.trouble(jobs[1].id) or "")
    pay(engine, stage, jobs[0], 2.75)
    stage.truth[f"{jobs[0].id}.1"] = Ended(Outcome(0, "ok"))
    engine.tick()
    engine.tick()
    assert share(stage, jobs[1]) == 2.25  # what is left is less than its budget, and nobody else holds it


def test_budgets_that_fit_run_at_once_and_one_without_waits_for_all_that_is_left(engine: Engine, stage: Stage) -> None:
    some = [submit(engine, 2) for _ in range(2)]
    whole = submit(engine)
    behind = submit(engine, 1)
    engine.tick()
    assert [share(stage, job) for job in some] == [2.0, 2.0]
    assert {engine.get(job.id).state for job in (whole, behind)} == {State.QUEUED}  # nobody overtakes who waits
    for job in some:
        pay(engine, stage, job, 0.5)
        stage.truth[f"{job.id}.1"] = Ended(Outcome(0, "ok"))
    engine.tick()
    engine.tick()
    assert share(stage, whole) == 4.0
    assert engine.get(behind.id).state is State.QUEUED


@pytest.mark.parametrize("ending", ["lost", "failed", "cancelled"])
def test_what_a_run_paid_counts_however_it_ends_and_the_rest_is_free(
    engine: Engine, stage: Stage, clock: ManualClock, ending: str
) -> None:
    job = submit(engine)
    engine.tick()
    pay(engine, stage, job, 4.0)
    engine.tick()
    if ending == "cancelled":
        engine.control(job.id, "cancel")
    failed = Ended(Outcome(1, "user", "no label", "Give one."))
    stage.truth[f"{job.id}.1"] = failed if ending == "failed" else Gone()
    engine.tick()
    assert left(engine) == 1.0
    if ending != "lost":
        other = submit(engine)
        engine.tick()
        assert share(stage, other) == 1.0
        return
    clock.advance(60)
    engine.tick()
    assert share(stage, job, attempt=2) == 5.0  # of both attempts: the run takes off what the first one paid
    pay(engine, stage, job, 0.5)
    stage.truth[f"{job.id}.2"] = Ended(Outcome(0, "ok"))
    engine.tick()
    assert left(engine) == 0.5


def test_a_run_whose_journals_are_damaged_has_spent_its_whole_share(engine: Engine, stage: Stage) -> None:
    job = submit(engine, 3)
    engine.tick()
    pay(engine, stage, job, 1.0)
    (engine.workspace.folders.runs / f"{job.id}.1" / "paid").write_text("not a number")
    stage.truth[f"{job.id}.1"] = Gone()
    engine.tick()
    assert left(engine) == 2.0


def test_a_share_is_the_same_when_a_daemon_that_died_left_the_run_unlaunched(engine: Engine, stage: Stage) -> None:
    job, other = submit(engine, 3), submit(engine, 3)
    engine.tick()
    stage.submitted.clear()
    again = Engine(engine.workspace, Kinds(extra=[ASKS]), executor=stage)
    again.tick()
    assert stage.submitted == [f"{job.id}.1"]
    assert share(stage, job) == 3.0
    assert again.get(other.id).state is State.QUEUED


def test_a_queued_job_whose_consent_was_taken_back_fails_and_says_what_to_do(engine: Engine, stage: Stage) -> None:
    job = submit(engine)
    engine.workspace.database.transact(lambda tx: tx.execute("DELETE FROM consents"))
    engine.tick()
    assert (engine.get(job.id).state, stage.submitted) == (State.FAILED, [])
    assert "speciate allow lesions" in json.dumps(engine.get(job.id).error)


@pytest.mark.parametrize(
    ("spent", "holding", "asked", "usd", "waits"),
    [
        ({}, {}, None, 5.0, False),
        ({"a": 5.0}, {}, None, 0.0, False),  # nobody to wait for: recorded answers cost nothing
        ({"me": 4.0}, {}, 2.0, 2.0, False),
        ({"a": 1.0}, {"a": 2.0}, 3.0, 3.0, False),  # what it paid already is not held once more
        ({"a": 1.0}, {"a": 2.0}, 3.5, 3.0, True),
        ({}, {"a": None}, 0.1, 0.0, True),
        ({"a": 9.0}, {"a": 1.0}, 1.0, 0.0, False),
    ],
)
def test_shares(
    spent: dict[str, float], holding: dict[str, float | None], asked: float | None, usd: float, waits: bool
) -> None:
    what = ("lesions", HOST)
    held = {job: [Spend(dataset="lesions", host=HOST, usd=usd)] for job, usd in holding.items()}
    found = Ledger({what: 5.0}, {what: spent}, held).share("me", Spend(dataset="lesions", host=HOST, usd=asked))
    assert found is not None
    assert (found.usd, found.waits) == (usd, waits)
