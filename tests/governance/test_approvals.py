"""An approval is for one action as it was shown, once, for a while."""

from __future__ import annotations

import pytest

from speciate.errors import Code, SpeciateError
from speciate.governance import approvals
from speciate.promotion import aliases
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.promotion import world


def _asked(workspace: Workspace) -> str:
    """A promotion that waits for a person."""
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1", policy="person")
    return approvals.list_approvals(workspace.database, workspace.clock.now())[0].id


def test_asking_twice_makes_one_question(workspace: Workspace) -> None:
    first = _asked(workspace)
    world.ask_promotion(workspace, "m@v1", policy="person")
    assert [item.id for item in approvals.list_approvals(workspace.database, workspace.clock.now())] == [first]


def test_an_approval_is_used_once(workspace: Workspace) -> None:
    question = _asked(workspace)
    approvals.decide(workspace, question, True, "grace")
    with pytest.raises(SpeciateError, match="is approved") as caught:
        approvals.decide(workspace, question, True, "grace")
    assert caught.value.code is Code.CONFLICT


def test_a_denial_moves_nothing(workspace: Workspace) -> None:
    question = _asked(workspace)
    decided = approvals.decide(workspace, question, False, "grace")
    assert (decided.approval.state, decided.approval.decided_by) == ("denied", "grace")
    assert aliases.of_use_case(workspace.database, "digits") == {}


def test_an_approval_expires(workspace: Workspace, clock: ManualClock) -> None:
    question = _asked(workspace)
    clock.advance(73 * 3600)
    assert approvals.list_approvals(workspace.database, clock.now(), "pending") == []
    with pytest.raises(SpeciateError, match="is expired"):
        approvals.decide(workspace, question, True, "grace")


def test_arguments_that_were_changed_after_the_question_are_refused(workspace: Workspace) -> None:
    question = _asked(workspace)

    def swap(tx: Transaction) -> None:
        tx.execute("UPDATE approvals SET arguments = replace(arguments, 'm@v1', 'evil@v1')")

    workspace.database.transact(swap)
    with pytest.raises(SpeciateError, match="no longer says") as caught:
        approvals.decide(workspace, question, True, "grace")
    assert caught.value.code is Code.REFUSED


def test_an_unknown_approval_names_the_known_ones(workspace: Workspace) -> None:
    question = _asked(workspace)
    with pytest.raises(SpeciateError, match=question):
        approvals.decide(workspace, "approval-nope", True, "grace")


def _three(workspace: Workspace) -> None:
    def ask(tx: Transaction) -> None:
        for number in range(3):
            approvals.request(tx, "promote", {"number": number}, {}, subject="use_case:digits", hours=1.0)

    workspace.database.transact(ask)


def test_pages_go_on_after_their_cursor_whatever_became_of_it(workspace: Workspace) -> None:
    _three(workspace)
    now = workspace.clock.now()
    first = approvals.page(workspace.database, now, "pending", limit=1, cursor=None)
    approvals.decide(workspace, str(first.next_cursor), False, "grace")
    rest = approvals.page(workspace.database, now, "pending", limit=5, cursor=first.next_cursor)
    assert len(rest.approvals) == 2
    assert first.approvals[0].id not in {item.id for item in rest.approvals}
    assert rest.next_cursor is None


def test_an_unknown_cursor_is_refused(workspace: Workspace) -> None:
    _three(workspace)
    with pytest.raises(SpeciateError, match="no cursor") as caught:
        approvals.page(workspace.database, workspace.clock.now(), None, limit=1, cursor="approval-nope")
    assert caught.value.code is Code.INVALID


def _ask(workspace: Workspace, model: str, note: str) -> str:
    arguments = {"use_case": "digits", "model": model, "note": note}
    return workspace.database.transact(
        lambda tx: approvals.request(tx, "promote", arguments, {}, subject="use_case:digits", hours=1.0)
    ).id


def test_a_model_is_asked_about_once_whatever_is_noted(workspace: Workspace) -> None:
    first = _ask(workspace, "m@v1", "please")
    assert _ask(workspace, "m@v1", "pretty please") == first
    assert _ask(workspace, "m@v2", "please") != first


def test_a_twin_of_what_was_done_is_void(workspace: Workspace) -> None:
    first = _asked(workspace)
    twin = "INSERT INTO approvals SELECT 'approval-twin', * EXCLUDE (id) FROM approvals"
    workspace.database.transact(lambda tx: tx.execute(twin))
    assert approvals.decide(workspace, first, True, "grace").approval.state == "approved"
    assert approvals.get(workspace.database, "approval-twin").state == "void"
