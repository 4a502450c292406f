"""What a person reads after an answer: what was approved, its effect, and the next step, of real approvals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.cli.approval_commands import format_answer
from speciate.governance import approvals
from speciate.models.fetch import StartedConversion
from speciate.privacy.purge import StartedPurge
from speciate.refs import JobId
from speciate.use_cases import ActivatedUseCase
from speciate.workspace.workspace import Workspace
from tests import forks
from tests.promotion import world
from tests.server.processes import CLI, Daemons
from tests.server.terminals import Screen, type_at


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    yield daemons
    daemons.close()


def call(daemons: Daemons, tool: str, **arguments: Any) -> dict[str, Any]:
    command = [*CLI, "call", tool, "--workspace", str(daemons.workspace), "--args", json.dumps(arguments)]
    done = forks.run([*command, *(["--wait"] if tool == "create_dataset" else [])])
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def answer(daemons: Daemons, *command: str, output: int | None = None) -> Screen:
    """What is shown after the typed yes."""
    shown = type_at([*command, "--workspace", str(daemons.workspace)], [("Type yes: ", "yes")], output=output)
    return shown._replace(text=shown.text.rpartition("Type yes: yes")[2].strip().replace("\r\n", "\n"))


def test_a_deletion_that_a_person_approved_is_told_in_two_lines_and_in_full_as_json(
    daemons: Daemons, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        call(daemons, "create_dataset", name=name, rows=[{"text": f"{name} {i}"} for i in range(9)])
    asked = [
        call(daemons, "manage_data", action="delete", ref=f"{name}@v1")["approval"]["id"]
        for name in ("first", "second")
    ]
    told = answer(daemons, "approve", asked[0])
    assert told.status == 0
    lines = re.fullmatch(
        r"Approved by \S+: first@v1 deleted; (job-\w+) removes the files\.\n"
        r"Next: (speciate call wait_for_job job=\1 --wait)",
        told.text,
    )
    assert lines, told.text
    done = forks.run([*CLI, *lines[2].split()[1:], "--workspace", str(daemons.workspace)])
    assert json.loads(done.stdout)["state"] == "succeeded", done.stderr
    with (tmp_path / "answer.json").open("w+") as file:  # the question stays on the terminal
        whole = answer(daemons, "approve", asked[1], "--json", output=file.fileno())
        assert (whole.status, whole.text) == (0, "")
        file.seek(0)
        assert json.load(file)["result"]["deleted"] == ["second@v1"]


def decided(workspace: Workspace, asked: dict[str, Any], *, approve: bool = True) -> str:
    """The answer that the command would tell."""
    question = approvals.get(workspace.database, asked["approval"]["id"])
    made = approvals.decide(workspace, question.id, approve, "ada")
    document = {"state": made.approval.state, "result": made.result, "reason": made.reason}
    return format_answer(question.action, question.arguments, json.loads(json.dumps(document)), "ada")


def asked_for(workspace: Workspace, model: str, **more: Any) -> dict[str, Any]:
    return dict(world.ask_promotion(workspace, model, policy="person", **more))


def test_a_promotion_says_what_serves_and_what_served_before(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    status = "\nNext: speciate call get_status use_case=digits"
    told = decided(workspace, asked_for(workspace, "m@v1"))
    assert told == f"Approved by ada: m@v1 serves digits, where nothing served before.{status}"
    world.judge(workspace, "m@v2", baseline="m@v1")
    told = decided(workspace, asked_for(workspace, "m@v2", percent=5))
    assert told == f"Approved by ada: m@v2 answers 5 % of the requests to digits.{status}"
    assert decided(workspace, asked_for(workspace, "m@v2"), approve=False) == "Denied by ada: nothing was changed."
    told = decided(workspace, asked_for(workspace, "m@v2"))
    assert told == f"Approved by ada: m@v2 serves digits, where m@v1 served before.{status}"


def test_what_can_no_longer_be_done_says_why(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.judge(workspace, "m@v3")
    late = asked_for(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v3")
    told = decided(workspace, late)
    assert told.startswith("Nothing was done, and the question is closed: ")
    assert "m@v3" in told


@pytest.mark.parametrize(
    ("action", "asked", "result", "effect"),
    [
        ("define_use_case", {}, ActivatedUseCase(use_case="triage", version=3, state="active"),
         "version 3 of triage is in force.\nNext: speciate call get_status use_case=triage"),
        ("purge", {"dataset": "notes"}, StartedPurge(job=JobId("job-1"), state="started"),
         "job-1 purges notes.\nNext: speciate call wait_for_job job=job-1 --wait"),
        ("convert", {}, StartedConversion(model="own", job=JobId("job-1")),
         "job-1 converts the weights of own.\nNext: speciate call wait_for_job job=job-1 --wait"),
    ],
)  # fmt: skip
def test_other_actions_say_what_they_began(
    action: str, asked: dict[str, Any], result: dict[str, Any], effect: str
) -> None:
    made = {"state": "approved", "result": result, "reason": ""}
    assert format_answer(action, asked, made, "ada") == f"Approved by ada: {effect}"
