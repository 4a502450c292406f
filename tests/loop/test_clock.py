"""Deletion by age, expiry and order while somebody sets the clock a year on, or back."""

from __future__ import annotations

import os

import pytest

from speciate.datasets import consent
from speciate.evaluation import decisions
from speciate.governance import approvals
from speciate.governance.approvals import Approval
from speciate.jobs import allowances, rows
from speciate.jobs.job import State
from speciate.loop.housekeeping import Housekeeper
from speciate.predictions import maintenance, reading
from speciate.privacy import gc
from speciate.settings import Log, Settings
from speciate.workspace.backup import AutomaticBackups, automatic_backups, superseded_backups
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.predictions import world as answers
from tests.promotion import world

DAY, YEAR = 86_400.0, 365 * 86_400.0
JUMPS = pytest.mark.parametrize("jump", [YEAR, -YEAR])


def _ended_job(workspace: Workspace, name: str, now: float) -> None:
    job = world.JOB.model_copy(
        update={"id": name, "state": State.SUCCEEDED, "attempt": 1, "created": now, "ended": now, "changed": now}
    )
    workspace.database.transact(lambda tx: rows.insert(tx, [job]))
    (workspace.folders.runs / f"{name}.1").mkdir()


@JUMPS
def test_nothing_is_deleted_early_for_a_clock_that_was_set(
    workspace: Workspace, clock: ManualClock, jump: float
) -> None:
    _ended_job(workspace, "job-before", clock.now())
    young = workspace.folders.packs / f"{'0a' * 16}.pack"
    young.write_bytes(b"x")
    os.utime(young, (clock.now(), clock.now()))
    clock.advance(3_600)
    clock.jump(jump)
    marked = gc._mark(workspace)
    assert marked.live.runs == frozenset()
    assert marked.live.checkpoints == frozenset()
    assert young.stat().st_mtime >= marked.custody.cutoff - 1
    assert gc.survey(workspace).bytes == 0
    _ended_job(workspace, "job-after", clock.now())
    clock.advance(40 * DAY)
    live = gc._mark(workspace).live
    assert live.runs <= {"job-before.1", "job-after.1"}
    clock.advance(workspace.settings.retention.runs_days * DAY)
    live = gc._mark(workspace).live
    assert live.runs == {"job-before.1", "job-after.1"}  # it is not kept for ever either


@JUMPS
def test_the_clock_being_set_while_no_daemon_ran_deletes_nothing(
    workspace: Workspace, clock: ManualClock, jump: float
) -> None:
    _ended_job(workspace, "job-before", clock.now())
    root = workspace.folders.root
    workspace.close()
    clock.jump(jump)
    again = Workspace(root, clock=clock, settings=Settings())
    live = gc._mark(again).live
    again.close()
    assert live.runs | live.checkpoints == frozenset()


def _asked(workspace: Workspace) -> Approval:
    def ask(tx: Transaction) -> Approval:
        return approvals.request(tx, "purge", {"x": 1}, {}, subject="dataset:x", hours=72)

    return workspace.database.transact(ask)


def test_an_approval_that_expired_stays_so_when_the_clock_goes_back(workspace: Workspace, clock: ManualClock) -> None:
    asked = _asked(workspace)
    clock.advance(73 * 3_600)
    assert approvals.expire(workspace) == [asked.id]
    clock.jump(-2 * DAY)
    assert approvals.get(workspace.database, asked.id).state_at(clock.now()) == "expired"
    with pytest.raises(Exception, match="is expired"):
        approvals.decide(workspace, asked.id, True, "ada")


def test_an_approval_expires_in_its_time_though_the_clock_went_back_a_year(
    workspace: Workspace, clock: ManualClock
) -> None:
    asked = _asked(workspace)
    workspace.elapsed.look()
    clock.jump(-YEAR)
    clock.advance(73 * 3_600)
    with pytest.raises(Exception, match="is expired"):  # before anybody marked it
        approvals.decide(workspace, asked.id, True, "ada")
    assert approvals.expire(workspace) == [asked.id]
    assert approvals.expire(workspace) == []


def test_a_consent_whose_time_is_over_stays_so_when_the_clock_goes_back(
    workspace: Workspace, clock: ManualClock
) -> None:
    _allowed(workspace, days=3)
    clock.advance(4 * DAY)
    consent.end_those_over(workspace.database, workspace.elapsed.most)
    clock.jump(-3 * DAY)
    with pytest.raises(Exception, match="is over"):
        consent.check(workspace.database, "points", "h.example")


def test_a_cap_holds_though_the_clock_went_back(workspace: Workspace, clock: ManualClock) -> None:
    _allowed(workspace, days=None)
    clock.jump(-YEAR)
    workspace.database.transact(lambda tx: allowances.record(tx, "points", "h.example", 7.0, "job-x"))
    found = consent.find(workspace.database, "points", "h.example")
    assert found is not None
    assert found.spent_usd == 7.0


def _allowed(workspace: Workspace, days: float | None) -> None:
    row = ["points", "h.example", 5.0, workspace.clock.now(), None, "ada"]
    row[4] = None if days is None else workspace.clock.now() + days * DAY
    workspace.database.transact(lambda tx: tx.execute("INSERT INTO consents VALUES (?, ?, ?, ?, ?, ?)", row))


def test_the_newest_backup_is_the_one_that_was_made_last(workspace: Workspace, clock: ManualClock) -> None:
    backups = AutomaticBackups(workspace)
    made = []
    for jump in (0.0, -YEAR, YEAR / 2, -YEAR):
        clock.jump(jump)
        clock.advance(3_600)
        workspace.database.transact(lambda tx: tx.event("x", "y"))
        made.append(backups.save())
    assert automatic_backups(workspace.folders.backups) == made
    names = [path.name for path in made if path]
    assert superseded_backups(names) == []
    assert int(names[-1].rpartition("-")[2]) == workspace.database.last_seq


def test_the_decision_that_counts_is_the_last_one(workspace: Workspace, clock: ManualClock) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1", verdict="promote", evaluation="evaluation-1")
    clock.jump(-YEAR)
    world.judge(workspace, "m@v1", verdict="hold", evaluation="evaluation-2")
    found = decisions.newest(workspace.database, "digits", "m@v1")
    assert found is not None
    assert found.decision.verdict == "hold"


@JUMPS
def test_logged_answers_stay_for_their_time(workspace: Workspace, clock: ManualClock, jump: float) -> None:
    log = answers.log(workspace.folders.root, clock)
    answers.note(log, answers.texts("fine"))
    log.close()
    clock.advance(DAY)
    workspace.elapsed.look()
    clock.jump(jump)
    old = workspace.elapsed.cutoff(90 * DAY)
    maintenance.maintain(log.folder, Log(), clock.now(), old)
    assert reading.answers(log.folder).num_rows == 1
    if jump < 0:
        return  # what was said before the clock went back is kept until it has caught up
    clock.advance(91 * DAY)
    maintenance.maintain(log.folder, Log(), clock.now(), workspace.elapsed.cutoff(90 * DAY))
    assert reading.answers(log.folder).num_rows == 0


def test_housekeeping_goes_on_when_the_clock_went_back(workspace: Workspace, clock: ManualClock) -> None:
    class Asked:
        made = 0

        def submit(self, kind: str, spec: object, *, key: str) -> object:
            Asked.made += 1
            return world.JOB

    workspace.database.transact(lambda tx: tx.event("x", "y"))
    clock.jump(-YEAR)
    keeper = Housekeeper(workspace, Asked())  # type: ignore[arg-type]  # all that it uses of an engine
    keeper.look()
    assert Asked.made == 0
    clock.advance(25 * 3_600)
    keeper.look()
    assert Asked.made == 0  # the first time it only says what would go
    clock.advance(25 * 3_600)
    keeper.look()
    assert Asked.made == 1
