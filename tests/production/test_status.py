"""What get_status is made of."""

from __future__ import annotations

import pytest

from speciate.errors import SpeciateError
from speciate.production.ledger import TimeToModel
from speciate.production.status import next_steps, status
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.production import world

_OPEN, _ANSWERED = TimeToModel("open", 5.0, {}, None), TimeToModel("provisional", 5.0, {}, "m@v1")


def test_a_use_case_shows_its_clock_and_what_serves(workspace: Workspace, clock: ManualClock) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    clock.advance(60)
    world.ask_promotion(workspace, "m@v1")
    (shown,) = status(workspace).use_cases
    assert (shown.name, shown.version, shown.production) == ("digits", 1, "m@v1")
    assert (shown.time_to_model.state, shown.time_to_model.seconds) == ("open", 60.0)
    assert shown.time_to_model.stages["promote"] == 60.0


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
    ("production", "clock", "jobs", "waiting", "tools"),
    [
        (None, _OPEN, ["job-a"], [], ["wait_for_job"]),
        (None, _OPEN, [], ["approval-a"], ["list_approvals"]),
        (None, _OPEN, [], [], ["describe_dataset", "list_options"]),
        ("m@v1", _OPEN, [], [], ["predict"]),
        ("m@v1", _ANSWERED, [], [], []),
    ],
)
def test_the_next_call_is_the_one_that_brings_the_model_nearer(
    production: str | None, clock: TimeToModel, jobs: list[str], waiting: list[str], tools: list[str]
) -> None:
    assert [step.tool for step in next_steps("digits", production, clock, jobs, waiting)] == tools
