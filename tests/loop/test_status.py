"""What get_status is made of."""

from __future__ import annotations

import pytest

from speciate import use_cases
from speciate.errors import SpeciateError
from speciate.governance import approvals, consents
from speciate.governance.approvals import Approval
from speciate.loop.ledger import ledger
from speciate.loop.status import Canary, Jobs, Step, _questions_of_the_workspace, alerts, next_steps, status
from speciate.loop.time_to_model import TimeToModel
from speciate.settings import Settings
from speciate.use_cases import Definition, Objective
from speciate.workspace.disk_space import GB, DiskSpace
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.promotion import world

_NO_JOBS = Jobs([], [])
_OPEN, _ANSWERED = TimeToModel("open", 5.0, {}, None), TimeToModel("provisional", 5.0, {}, "m@v1")


def test_a_use_case_shows_its_clock_and_what_serves(workspace: Workspace, clock: ManualClock) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    clock.advance(60)
    world.ask_promotion(workspace, "m@v1")
    (shown,) = status(workspace).use_cases
    assert (shown.name, shown.version, shown.production) == ("digits", 1, "m@v1")
    assert (shown.time_to_model.state, shown.time_to_model.seconds) == ("open", 60.0)
    assert shown.time_to_model.stages == {"idle": 60.0}


def test_the_catalog_is_asked_as_often_for_ten_use_cases_as_for_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each query about events scans all of them."""
    asked, read = list[str](), workspace.database.read
    monkeypatch.setattr(workspace.database, "read", lambda sql, *more: asked.append(sql) or read(sql, *more))

    def reads() -> list[int]:
        counts = []
        for look in (status, ledger):
            asked.clear()
            look(workspace)
            counts.append(len(asked))
        return counts

    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    reads()  # the first one reads the trail, too, which is read once for each opened workspace
    before = reads()
    for number in range(9):
        definition = Definition(
            name=f"digits{number}", task="image-classification", objective=Objective(metric="accuracy", target=0.9)
        )
        workspace.database.transact(lambda tx, definition=definition: use_cases.define(tx, definition, policy="auto"))  # type: ignore[misc]
    assert reads() == before
    assert len(status(workspace).use_cases) == len(ledger(workspace).lines) == 10


def test_each_use_case_has_its_own_canary_bake_and_evaluation(workspace: Workspace) -> None:
    world.define(workspace)
    other = Definition(name="letters", task="image-classification", objective=Objective(metric="accuracy", target=0.9))
    workspace.database.transact(lambda tx: use_cases.define(tx, other, policy="auto"))
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    world.judge(workspace, "m@v2", baseline="m@v1")
    world.ask_promotion(workspace, "m@v2", percent=5)
    shown = {each.name: each for each in status(workspace).use_cases}
    digits, letters = shown["digits"], shown["letters"]
    assert (digits.production, digits.bake, letters.production, letters.bake) == ("m@v1", "provisional", None, None)
    assert digits.canary == Canary("m@v2", 5, "provisional")
    assert letters.canary is None
    assert shown == {each.name: each for name in shown for each in status(workspace, name).use_cases}


def test_who_waits_for_a_person_is_shown(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1", policy="person")
    (shown,) = status(workspace, "digits").use_cases
    assert len(shown.waiting_for_person) == 1
    assert [step.tool for step in shown.next_steps] == ["list_approvals"]


def test_an_unknown_use_case_names_the_known_ones(workspace: Workspace) -> None:
    world.define(workspace)
    with pytest.raises(SpeciateError, match="did you mean 'digits'"):
        status(workspace, "digit")


@pytest.mark.parametrize(
    ("production", "clock", "jobs", "waiting", "rejected", "tools"),
    [
        (None, _OPEN, Jobs(["job-a"], ["job-b"]), [], None, ["wait_for_job"]),
        (None, _OPEN, Jobs([], ["job-b"]), [], None, ["control_job"]),
        (None, _OPEN, _NO_JOBS, ["approval-a"], "evaluation-a", ["list_approvals"]),
        (None, _OPEN, _NO_JOBS, [], "evaluation-a", ["describe_evaluation"]),
        (None, _OPEN, _NO_JOBS, [], None, ["describe_dataset", "list_options"]),
        ("m@v1", _OPEN, _NO_JOBS, [], None, ["predict"]),
        ("m@v1", _ANSWERED, _NO_JOBS, [], None, []),
    ],
)
def test_the_next_call_is_the_one_that_brings_the_model_nearer(
    production: str | None,
    clock: TimeToModel,
    jobs: Jobs,
    waiting: list[str],
    rejected: str | None,
    tools: list[str],
) -> None:
    assert [step.tool for step in next_steps("digits", production, clock, jobs, waiting, rejected)] == tools


def test_a_question_of_no_use_case_is_an_alert() -> None:
    asked = [Approval(f"approval-{name}", name, arguments, {}, "", "pending", 0, 1) for name, arguments in
             (("purge", {"ref": "scans"}), ("promote", {"use_case": "digits", "model": "m@v1"}))]  # fmt: skip
    (told,) = _questions_of_the_workspace(asked)
    assert "approval-purge (purge)" in told
    assert "approval-promote" not in told
    assert _questions_of_the_workspace(asked[1:]) == []


def test_a_version_that_broke_its_bake_is_rolled_back_by_the_next_call_as_it_stands() -> None:
    (step,) = next_steps("digits", "m@v2", _ANSWERED, _NO_JOBS, [], None, broken=True)
    assert step.tool == "rollback_model"
    assert step.arguments["expected_current"] == "m@v2"


def test_what_a_person_denied_leads_to_its_evaluation(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1", policy="person")
    asked = approvals.list_approvals(workspace.database, workspace.clock.now())[0]
    approvals.decide(workspace, asked.id, False, "grace")
    (shown,) = status(workspace, "digits").use_cases
    assert shown.next_steps == [Step("describe_evaluation", {"evaluation": "evaluation-1"})]


def test_an_evaluation_whose_best_serves_rejected_nothing(workspace: Workspace) -> None:
    world.define(workspace)
    for model, verdict in (("m@v2", "promote"), ("m@v1", "inconclusive")):
        world.judge(workspace, model, verdict=verdict)  # type: ignore[arg-type]
    world.ask_promotion(workspace, "m@v2")
    (shown,) = status(workspace, "digits").use_cases
    assert [step.tool for step in shown.next_steps] == ["predict"]


def test_a_nearly_full_disk_is_an_alert_with_what_to_call() -> None:
    assert alerts(DiskSpace(total=1 << 40, free=1 << 32, floor=GB)) == []
    (early,) = alerts(DiskSpace(total=1 << 40, free=3 * GB // 2, floor=GB))
    assert "There is little room: the workspace's disk has 1.5 GB free, and 1 GB must stay free" in early
    (late,) = alerts(DiskSpace(total=1 << 40, free=GB // 2, floor=GB))
    assert "Runs stop and wait" in late
    assert "manage_data(action='gc', dry_run=true)" in late
    (quota,) = alerts(DiskSpace(total=1 << 40, free=1 << 39, floor=GB, quota=GB, used=2 * GB))
    assert "the workspace takes 2 GB of the 1 GB" in quota


def test_while_runs_wait_for_room_the_next_call_makes_some() -> None:
    steps = next_steps("digits", None, _OPEN, Jobs(["job-a"], []), [], None, low=True)
    assert steps == [Step("manage_data", {"action": "gc"}), Step("wait_for_job", {"job": "job-a"})]


def test_the_disk_is_shown_as_the_engine_sees_it(workspace: Workspace) -> None:
    workspace.room.usage = lambda folder: (10 * GB, GB // 4)
    found = status(workspace)
    assert (found.disk.total, found.disk.free, found.disk.floor, found.disk.low) == (10 * GB, GB // 4, GB // 2, True)
    assert any("Runs stop and wait" in alert for alert in found.alerts)


def test_a_place_to_which_no_dataset_may_go_is_named(workspace: Workspace) -> None:
    keys = {"kind": "slurm", "depot": "/shared/depot", "python": "/bin/python"}
    places = {"asked": keys, "taking": {**keys, "depot": "/shared/other", "kinds": ["train"]}}
    workspace.settings = Settings.model_validate({"executors": places})
    (alert,) = status(workspace).alerts
    assert alert.endswith("speciate allow DATASET --host taking")
    assert "/shared" not in alert
    consents.allow(workspace, "scans", "taking", by="grace")
    assert status(workspace).alerts == []
