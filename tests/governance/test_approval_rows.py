"""Questions to a person from row to row: what is asked again, what is void, what is told, and until when."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from speciate.errors import Call, CallAgain, Code, SpeciateError
from speciate.governance import approvals, audit
from speciate.governance.approvals import Approval
from speciate.workspace.database import Event, Transaction
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock

MODEL = {"use_case": "digits", "model": "m@v1", "decision": "d1"}
done: list[tuple[Mapping[str, Any], str]] = []


def apply_stub(tx: Transaction, arguments: Mapping[str, Any], by: str) -> Mapping[str, object]:
    """An action that a person approved."""
    if arguments.get("gone"):
        raise SpeciateError(Code.CONFLICT, "It is gone.")
    done.append((arguments, by))
    return {"did": arguments["use_case"]}


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(approvals.ACTIONS, "stub", "tests.governance.test_approval_rows:apply_stub")
    done.clear()


def ask(
    workspace: Workspace, arguments: Mapping[str, Any] = MODEL, action: str = "stub", hours: float = 2.0
) -> Approval:
    return workspace.database.transact(
        lambda tx: approvals.request(tx, action, arguments, {"seen": 1}, subject="use_case:digits", hours=hours)
    )


def last_event(workspace: Workspace) -> Event:
    return workspace.database.events_after(0)[-1]


def states(workspace: Workspace) -> dict[str, str]:
    return {each.id: each.state for each in approvals.list_approvals(workspace.database, workspace.clock.now())}


def test_a_question_is_kept_and_told_with_all_that_it_shows(workspace: Workspace, clock: ManualClock) -> None:
    asked = ask(workspace)
    now = clock.now()
    digest = approvals.fingerprint("stub", MODEL, {"seen": 1})
    assert asked == Approval(asked.id, "stub", MODEL, {"seen": 1}, digest, "pending", now, now + 7200, None, None)
    assert asked.id.startswith("approval-")
    assert approvals.get(workspace.database, asked.id) == asked
    event = last_event(workspace)
    assert (event.subject, event.type) == ("use_case:digits", "approval.requested")
    assert event.data == {"approval": asked.id, "action": "stub", "expires": now + 7200}


def test_the_hash_is_of_what_is_shown_in_any_order() -> None:
    one = approvals.fingerprint("a", {"x": 1, "y": 2}, {})
    assert one == approvals.fingerprint("a", {"y": 2, "x": 1}, {})
    assert (
        len({one, *(approvals.fingerprint(*other) for other in (("b", {"x": 1, "y": 2}, {}), ("a", {}, {"x": 1})))})
        == 3
    )


def test_a_question_by_another_decision_takes_the_place_of_the_first(workspace: Workspace, clock: ManualClock) -> None:
    first = ask(workspace)
    assert ask(workspace, {**MODEL, "note": "please"}) == first
    second = ask(workspace, {**MODEL, "decision": "d2"})
    assert states(workspace) == {first.id: "void", second.id: "pending"}
    void = approvals.get(workspace.database, first.id)
    assert (void.decided_by, void.decided_at) == ("", clock.now())
    event = workspace.database.events_after(0)[-2]
    assert (event.subject, event.type) == (f"approval:{first.id}", "approval.decided")
    assert event.data == {"state": "void", "by": "", "action": "stub"}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({**MODEL, "canary_percent": 100}, True),
        ({**MODEL, "canary_percent": 10}, False),
        ({**MODEL, "model": "m@v2"}, False),
        ({**MODEL, "use_case": "letters"}, False),
    ],
)
def test_the_same_question_is_for_the_same_model_use_case_and_share(
    workspace: Workspace, other: dict[str, Any], same: bool
) -> None:
    assert (ask(workspace).id == ask(workspace, other).id) == same
    assert set(states(workspace).values()) == {"pending"}


def test_what_names_no_model_is_the_same_where_all_is(workspace: Workspace, clock: ManualClock) -> None:
    for arguments in ({"use_case": "digits"}, {"model": "m@v1"}, {"number": 1}):
        first = ask(workspace, arguments)
        clock.advance(1)
        assert ask(workspace, arguments) == first
        assert ask(workspace, {**arguments, "note": "x"}).id != first.id
        assert ask(workspace, arguments, action="promote").id != first.id


def test_what_has_expired_is_asked_again(workspace: Workspace, clock: ManualClock) -> None:
    for arguments in (MODEL, {"number": 1}):
        first = ask(workspace, arguments, hours=1.0)
        clock.advance(3600)
        assert ask(workspace, arguments).id != first.id


def test_approved_is_done_once_and_its_twins_are_void(workspace: Workspace, clock: ManualClock) -> None:
    asked = ask(workspace)
    twin = "INSERT INTO approvals SELECT 'approval-twin', * EXCLUDE (id) FROM approvals"
    workspace.database.transact(lambda tx: tx.execute(twin))
    clock.advance(60)
    found = approvals.decide(workspace, asked.id, True, "grace")
    assert (found.result, found.reason) == ({"did": "digits"}, "")
    assert done == [(MODEL, "grace")]
    assert found.approval == asked._replace(state="approved", decided_by="grace", decided_at=clock.now())
    assert approvals.get(workspace.database, asked.id) == found.approval
    other = approvals.get(workspace.database, "approval-twin")
    assert (other.state, other.decided_by) == ("void", "grace")
    told = [each.data for each in workspace.database.events_after(0) if each.subject == f"approval:{asked.id}"]
    assert told == [{"state": "approved", "by": "grace", "action": "stub"}]
    assert audit.verify(workspace.database).rows == 0, "an answer without a signature has no row of its own"


def test_what_cannot_be_done_any_more_is_void_and_says_why(workspace: Workspace) -> None:
    gone = ask(workspace, {**MODEL, "gone": True})
    found = approvals.decide(workspace, gone.id, True, "grace")
    assert (found.approval.state, found.approval.decided_by, found.result) == ("void", "grace", None)
    assert "It is gone." in found.reason
    assert approvals.get(workspace.database, gone.id).state == "void"


@pytest.mark.parametrize(
    ("approve", "gone", "action", "after"),
    [(True, False, "approve", "approved"), (False, False, "deny", "denied"), (True, True, "approve", "void")],
)
@pytest.mark.parametrize("use_case", ["digits", None])
def test_a_signed_answer_has_a_row_in_the_audit(
    workspace: Workspace, approve: bool, gone: bool, action: str, after: str, use_case: str | None
) -> None:
    asked = ask(workspace, {"use_case": use_case, "gone": gone})
    found = approvals.decide(workspace, asked.id, approve, "grace", {"signed": "s", "key": "k"})
    [row] = [audit.Row(*each) for each in workspace.database.read("SELECT * FROM audit")]
    assert (row.actor, row.action, row.use_case) == ("grace", action, use_case or audit.WORKSPACE)
    assert (row.before, row.after) == (None, after)
    assert json.loads(row.evidence) == {"approval": asked.id, "signed": "s", "key": "k"}
    assert last_event(workspace).data["audit"] == row.hash
    assert found.approval.state == after


def test_an_action_of_another_version_is_refused_and_names_the_known_ones(workspace: Workspace) -> None:
    asked = ask(workspace, action="promot")
    with pytest.raises(SpeciateError, match=r"no action 'promot'.*promote") as caught:
        approvals.decide(workspace, asked.id, True, "grace")
    assert caught.value.code is Code.NOT_FOUND
    assert states(workspace) == {asked.id: "pending"}


def test_every_action_leads_to_a_function() -> None:
    names = {"promote", "define_use_case", "purge", "delete", "convert"}
    assert approvals.ACTIONS.keys() - {"stub"} == names
    for name in names:
        module, _, attribute = approvals.ACTIONS[name].partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_an_approval_lasts_until_its_last_moment_by_any_clock(workspace: Workspace, clock: ManualClock) -> None:
    first, second, third = (ask(workspace, {"number": number}) for number in range(3))
    clock.advance(7199)
    assert approvals.decide(workspace, first.id, False, "grace").approval.state == "denied"
    clock.advance(1)
    assert second.state_at(clock.now()) == "expired"
    clock.jump(-5000)  # who sets the clock back gains no time
    with pytest.raises(SpeciateError, match="is expired"):
        approvals.decide(workspace, second.id, True, "grace")
    assert {*approvals.expire(workspace)} == {second.id, third.id}


@pytest.mark.parametrize(
    ("passes", "jumps", "over"),
    [(7199, 0, False), (7200, 0, True), (7200, -7000, True), (7199, -7000, False), (100, 7100, True), (0, 7199, False)],
)
def test_what_nobody_answered_in_its_time_is_marked_once(
    workspace: Workspace, clock: ManualClock, passes: float, jumps: float, over: bool
) -> None:
    asked, late = ask(workspace), ask(workspace, {"number": 1}, hours=48.0)
    denied = ask(workspace, {"number": 2})
    approvals.decide(workspace, denied.id, False, "grace")
    clock.advance(passes)
    clock.jump(jumps)
    before = workspace.database.last_seq
    assert approvals.expire(workspace) == ([asked.id] if over else [])
    told = [(each.subject, each.type, each.data) for each in workspace.database.events_after(before)]
    assert told == ([(f"approval:{asked.id}", "approval.expired", {})] if over else [])
    clock.jump(-jumps)
    clock.jump(-passes)
    assert states(workspace) == {asked.id: "expired" if over else "pending", late.id: "pending", denied.id: "denied"}
    assert approvals.expire(workspace) == []


def test_what_another_process_marked_meanwhile_is_not_told_again(
    workspace: Workspace, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(workspace)
    clock.advance(7200)
    transact = workspace.database.transact

    def first_another(work: Any) -> Any:
        transact(lambda tx: tx.execute("UPDATE approvals SET state = 'denied'"))
        return transact(work)

    monkeypatch.setattr(workspace.database, "transact", first_another)
    assert approvals.expire(workspace) == []
    assert states(workspace) == {asked.id: "denied"}
    assert last_event(workspace).type == "approval.requested"


def test_a_question_is_withdrawn_for_its_action_use_case_and_model(workspace: Workspace) -> None:
    asked = ask(workspace)
    others = [ask(workspace, {**MODEL, name: "other"}) for name in ("use_case", "model")] + [
        ask(workspace, action="promote")
    ]
    workspace.database.transact(lambda tx: approvals.withdraw(tx, "stub", "digits", "m@v1", "eve"))
    assert states(workspace) == {asked.id: "void", **dict.fromkeys([each.id for each in others], "pending")}
    assert approvals.get(workspace.database, asked.id).decided_by == "eve"
    assert last_event(workspace).data == {"state": "void", "by": "eve", "action": "stub"}


def test_after_a_purge_questions_that_showed_its_words_are_void(workspace: Workspace) -> None:
    asked, other, denied = (ask(workspace, {"number": number}) for number in range(3))
    approvals.decide(workspace, denied.id, False, "grace")
    workspace.database.transact(lambda tx: approvals.withdraw_changed(tx, {asked.id, denied.id}))
    assert states(workspace) == {asked.id: "void", other.id: "pending", denied.id: "denied"}
    assert approvals.get(workspace.database, asked.id).decided_by == ""
    assert last_event(workspace).subject == f"approval:{asked.id}"


def test_pages_hold_what_is_in_a_state_now(workspace: Workspace, clock: ManualClock) -> None:
    made = []
    for number in range(4):
        made.append(ask(workspace, {"number": number}, hours=1.0 if number == 1 else 9.0).id)
        clock.advance(1)
    newest = made[::-1]
    clock.advance(3600)

    def page(state: str | None, limit: int, cursor: str | None = None) -> tuple[list[str], str | None]:
        found = approvals.page(workspace.database, clock.now(), state, limit=limit, cursor=cursor)
        return [each.id for each in found.approvals], found.next_cursor

    assert page(None, 4) == (newest, None)
    assert page(None, 3) == (newest[:3], newest[2])
    assert page("pending", 2) == ([newest[0], newest[1]], newest[1])
    assert page("pending", 3) == ([newest[0], newest[1], newest[3]], None)
    assert page("expired", 3) == ([newest[2]], None)
    assert page(None, 2, newest[0]) == (newest[1:3], newest[2])
    assert page(None, 2, newest[3]) == ([], None)
    with pytest.raises(SpeciateError) as caught:
        page(None, 2, "approval-nope")
    assert caught.value.next == (CallAgain("list_approvals", {"cursor": None}),)


def test_an_unknown_approval_leads_to_the_list(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError, match="no approval 'approval-nope'") as caught:
        approvals.get(workspace.database, "approval-nope")
    assert caught.value.next == (Call("list_approvals"),)


def test_an_error_waits_until_the_answer_is_asked_for() -> None:
    def wrong() -> int:
        raise SpeciateError(Code.INVALID, "no")

    assert approvals.postponed(lambda: 3)() == 3
    later = approvals.postponed(wrong)
    with pytest.raises(SpeciateError, match="no"):
        later()
    calls = list[int]()
    approvals.postponed(lambda: calls.append(1))
    assert calls == [1], "called now"
