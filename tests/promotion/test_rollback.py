"""Back only to what served, and only from what is believed to serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.governance import approvals, audit
from speciate.promotion import aliases
from speciate.promotion.rollback import RollbackResult, roll_back
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.promotion import world


@pytest.fixture(scope="module")
def in_a_row(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m@v1 served, m@v2 serves; closed, to be copied."""
    root = tmp_path_factory.mktemp("two") / "workspace"
    with data.to_copy(blank, root, ManualClock()) as workspace:
        world.promote_two(workspace)
    return root


@pytest.fixture
def two(in_a_row: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(in_a_row, tmp_path / "workspace", clock) as workspace:
        yield workspace


def _back(workspace: Workspace, expected: str | None, to: str | None = None) -> RollbackResult:
    return workspace.database.transact(
        lambda tx: roll_back(tx, "digits", expected=expected, to=to, reason="worse on Mondays", actor="ada")
    )


def test_the_version_before_serves_again(two: Workspace) -> None:
    done = _back(two, "m@v2")
    assert (done.before, done.after) == ("m@v2", "m@v1")
    assert aliases.of_use_case(two.database, "digits") == {"previous": "m@v2", "production": "m@v1"}
    assert audit.verify(two.database).problems == ()


def test_a_wrong_belief_is_a_conflict(two: Workspace) -> None:
    with pytest.raises(SpeciateError) as caught:
        _back(two, "m@v1")
    assert caught.value.code is Code.CONFLICT


def test_without_a_belief_the_newest_promotion_is_taken_back_and_a_repeat_moves_nothing(two: Workspace) -> None:
    world.judge(two, "m@v3", baseline="m@v2")
    world.ask_promotion(two, "m@v3")
    assert _back(two, None).after == "m@v2"
    with pytest.raises(SpeciateError, match="was rolled back to 'm@v2' already") as caught:
        _back(two, None)
    assert caught.value.code is Code.CONFLICT
    (further,) = caught.value.next
    assert further.arguments["expected_current"] == "m@v2"
    assert _back(two, "m@v2").after == "m@v1"


@pytest.mark.parametrize("to", [None, "m@v2"])
def test_a_second_rollback_does_not_return_to_the_bad_version(two: Workspace, to: str | None) -> None:
    _back(two, "m@v2")
    with pytest.raises(SpeciateError, match="was itself rolled back") as caught:
        _back(two, "m@v1", to=to)
    assert caught.value.code is Code.REFUSED


def test_a_second_rollback_goes_past_the_bad_version_to_the_one_before(two: Workspace) -> None:
    """In an incident nobody should have to look up what served before."""
    world.judge(two, "m@v3", baseline="m@v2")
    world.ask_promotion(two, "m@v3")
    assert _back(two, "m@v3").after == "m@v2"
    assert _back(two, "m@v2").after == "m@v1"


def test_a_version_that_earned_its_place_again_can_be_gone_back_to(two: Workspace, clock: ManualClock) -> None:
    _back(two, "m@v2")
    for model, baseline in (("m@v2", "m@v1"), ("m@v3", "m@v2")):
        clock.advance(1)
        world.judge(two, model, baseline=baseline, evaluation="evaluation-2")
        assert world.ask_promotion(two, model)["state"] == "applied"
    assert _back(two, "m@v3").after == "m@v2"


def test_a_version_that_never_passed_is_refused(two: Workspace) -> None:
    world.judge(two, "m@v3", baseline="m@v2", verdict="hold")
    with pytest.raises(SpeciateError, match="never served") as caught:
        _back(two, "m@v2", to="m@v3")
    assert caught.value.code is Code.REFUSED


def test_a_rollback_does_not_overrule_a_person_who_refused(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    world.judge(workspace, "m@v2", baseline="m@v1")
    assert world.ask_promotion(workspace, "m@v2", policy="person")["state"] == "needs_approval"
    (waiting,) = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")
    approvals.decide(workspace, waiting.id, False, "grace")
    with pytest.raises(SpeciateError, match="never served") as caught:
        _back(workspace, "m@v1", to="m@v2")
    assert caught.value.code is Code.REFUSED
    assert aliases.of_use_case(workspace.database, "digits") == {"production": "m@v1"}


def test_nothing_to_roll_back_is_said(workspace: Workspace) -> None:
    world.define(workspace)
    with pytest.raises(SpeciateError, match="No model serves"):
        _back(workspace, "m@v1")


@pytest.mark.parametrize(("waits", "serves"), [(100.0, 20.0), (20.0, 100.0)], ids=["canary", "production"])
def test_what_waited_to_promote_a_version_is_void_once_it_was_taken_back(
    workspace: Workspace, waits: float, serves: float
) -> None:
    """A person would say yes to evidence that does not tell of it."""
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    world.judge(workspace, "m@v2", baseline="m@v1")
    world.ask_promotion(workspace, "m@v2", policy="person", percent=waits)
    [old] = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")
    world.ask_promotion(workspace, "m@v2", percent=serves)
    _back(workspace, "m@v2")
    with pytest.raises(SpeciateError, match="is void"):
        approvals.decide(workspace, old.id, True, "grace")
    assert aliases.of_use_case(workspace.database, "digits")["production"] == "m@v1"
    assert world.ask_promotion(workspace, "m@v2", percent=waits)["state"] == "needs_approval"
    [new] = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")
    assert new.id != old.id
