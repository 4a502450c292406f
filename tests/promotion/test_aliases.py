"""Compare-and-swap of what serves."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from speciate.errors import Code, SpeciateError
from speciate.governance import audit
from speciate.promotion import aliases
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock


def _move(workspace: Workspace, model: str, expected: str | None) -> aliases.AliasMove:
    return workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case="digits", model=model, expected=expected, action="promote", actor="ada", evidence={}
        )
    )


def test_the_version_before_is_kept_as_previous(workspace: Workspace) -> None:
    _move(workspace, "m@v1", aliases.NOTHING)
    moved = _move(workspace, "m@v2", "m@v1")
    assert (moved.before, moved.after, moved.generation) == ("m@v1", "m@v2", 2)
    assert aliases.of_use_case(workspace.database, "digits") == {"previous": "m@v1", "production": "m@v2"}


def test_a_move_from_a_wrong_belief_changes_nothing(workspace: Workspace) -> None:
    _move(workspace, "m@v1", aliases.NOTHING)
    with pytest.raises(SpeciateError, match=r"digits@production is 'm@v1', not 'm@v7'") as caught:
        _move(workspace, "m@v2", "m@v7")
    assert caught.value.code is Code.CONFLICT
    assert aliases.of_use_case(workspace.database, "digits") == {"production": "m@v1"}
    assert audit.verify(workspace.database).rows == 1


def test_of_many_movers_with_one_belief_exactly_one_wins(workspace: Workspace) -> None:
    _move(workspace, "m@v1", aliases.NOTHING)

    def attempt(number: int) -> bool:
        try:
            _move(workspace, f"m@v{number}", "m@v1")
        except SpeciateError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(2, 18))) == 1
    assert audit.verify(workspace.database) == audit.verify(workspace.database)._replace(rows=2, problems=())


def test_who_believes_that_nothing_serves_says_so_in_a_word(workspace: Workspace) -> None:
    """The tool's own description names it."""
    _move(workspace, "m@v1", "nothing")
    with pytest.raises(SpeciateError, match=r"is 'm@v1', not 'nothing'"):
        _move(workspace, "m@v2", "nothing")


def test_alias_audit_and_event_are_one_step(workspace: Workspace) -> None:
    moved = _move(workspace, "m@v1", aliases.NOTHING)
    event = workspace.database.events_after(0)[-1]
    assert event.type == "alias.moved"
    assert event.data["audit"] == moved.audit.hash


def _row(found: aliases.Alias | None) -> tuple[object, ...]:
    assert found is not None
    return tuple(found)


def _canary(
    workspace: Workspace, model: str, percent: float = 10.0, expected: str | None = None, use_case: str = "digits"
) -> aliases.AliasMove:
    return workspace.database.transact(
        lambda tx: aliases.set_canary(
            tx, use_case=use_case, model=model, percent=percent, expected=expected, actor="bob", evidence={"why": "x"}
        )
    )


def test_what_serves_is_read_with_when_it_moved(workspace: Workspace, clock: ManualClock) -> None:
    database, began = workspace.database, clock.now()
    assert aliases.read(database, "digits") is None
    assert aliases.everywhere(database) == []
    _move(workspace, "m@v1", aliases.NOTHING)
    clock.advance(5)
    _move(workspace, "m@v2", None)
    assert _row(aliases.read(database, "digits")) == ("digits", "production", "m@v2", 2, began + 5, None)
    assert _row(aliases.read(database, "digits", "previous")) == ("digits", "previous", "m@v1", 2, began + 5, None)
    assert aliases.read(database, "letters") is None
    clock.advance(5)
    _move(workspace, "m@v3", "m@v2")
    assert _row(aliases.read(database, "digits", "previous")) == ("digits", "previous", "m@v2", 3, began + 10, None)


def test_aliases_of_all_use_cases_are_told_at_one_moment(workspace: Workspace) -> None:
    database = workspace.database
    for use_case in ("words", "digits"):
        for model in ("m@v1", "m@v2"):
            workspace.database.transact(
                lambda tx, use_case=use_case, model=model: aliases.move(  # type: ignore[misc]
                    tx, use_case=use_case, model=model, expected=None, action="promote", actor="ada", evidence={}
                )
            )
    _canary(workspace, "m@v3")
    assert [(each.use_case, each.model) for each in aliases.everywhere(database)] == [
        ("digits", "m@v2"), ("words", "m@v2"),
    ]  # fmt: skip
    assert [each.use_case for each in aliases.everywhere(database, "canary")] == ["digits"]
    found = aliases.by_use_case(database)
    assert {name: [*each] for name, each in found.items()} == {
        "digits": ["canary", "previous", "production"], "words": ["previous", "production"],
    }  # fmt: skip
    assert found["digits"]["canary"] == aliases.read(database, "digits", "canary")
    serving = aliases.serving(database)
    assert {key: (each.use_case, each.alias, each.model) for key, each in serving.items()} == {
        ("digits", "production"): ("digits", "production", "m@v2"),
        ("digits", "canary"): ("digits", "canary", "m@v3"),
        ("words", "production"): ("words", "production", "m@v2"),
    }
    assert aliases.of_use_case(database, "words") == {"previous": "m@v1", "production": "m@v2"}


def test_a_move_is_told_in_the_audit_and_in_an_event(workspace: Workspace) -> None:
    _move(workspace, "m@v1", aliases.NOTHING)
    _canary(workspace, "m@v9")
    moved = workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case="digits", model="m@v2", expected="m@v1", action="rollback", actor="ada", evidence={"why": "x"}
        )
    )
    event = workspace.database.events_after(0)[-1]
    assert (event.subject, event.type) == ("use_case:digits", "alias.moved")
    assert event.data == {
        "alias": "production", "before": "m@v1", "after": "m@v2", "generation": 2, "action": "rollback",
        "actor": "ada", "audit": moved.audit.hash, "ended_canary": "m@v9",
    }  # fmt: skip
    row = moved.audit
    assert (row.actor, row.action, row.use_case, row.before, row.after, json.loads(row.evidence)) == (
        "ada", "rollback", "digits", "m@v1", "m@v2", {"why": "x"},
    )  # fmt: skip
    assert aliases.read(workspace.database, "digits", "canary") is None
    assert workspace.database.events_after(0)[0].data["ended_canary"] is None


def test_a_canary_stands_beside_what_is_in_production(workspace: Workspace) -> None:
    _move(workspace, "m@v1", aliases.NOTHING)
    first = _canary(workspace, "m@v2", 10.0, "m@v1")
    assert (first.before, first.after, first.generation) == (None, "m@v2", first.audit.seq)
    row = first.audit
    assert (row.actor, row.action, row.use_case, row.before, row.after, json.loads(row.evidence)) == (
        "bob", "canary", "digits", None, "m@v2", {"why": "x", "percent": 10.0, "beside": "m@v1"},
    )  # fmt: skip
    event = workspace.database.events_after(0)[-1]
    assert (event.subject, event.type) == ("use_case:digits", "canary.set")
    assert event.data == {
        "model": "m@v2", "percent": 10.0, "before": None, "beside": "m@v1", "generation": first.generation,
        "actor": "bob", "audit": row.hash,
    }  # fmt: skip
    more = _canary(workspace, "m@v2", 50.0)
    assert (more.before, more.generation) == ("m@v2", first.generation), "the same one with another share"
    assert _row(aliases.read(workspace.database, "digits", "canary"))[5] == 50.0
    other = _canary(workspace, "m@v3", 5.0)
    assert (other.before, other.generation) == ("m@v2", other.audit.seq)
    assert workspace.database.events_after(0)[-1].data["before"] == other.audit.before == "m@v2"
    assert _row(aliases.read(workspace.database, "digits"))[2:4] == ("m@v1", 1), "production has not moved"


def test_a_canary_is_refused_beside_nothing_and_beside_another_than_believed(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError, match="Nothing is in production for 'digits'") as caught:
        _canary(workspace, "m@v2")
    assert caught.value.code is Code.CONFLICT
    assert [(call.tool, call.arguments) for call in caught.value.next] == [
        ("promote_model", {"use_case": "digits", "model": "m@v2"})
    ]
    _move(workspace, "m@v1", aliases.NOTHING)
    with pytest.raises(SpeciateError, match="is 'm@v1', not 'm@v7'") as caught:
        _canary(workspace, "m@v2", expected="m@v7")
    assert caught.value.code is Code.CONFLICT
    assert [(call.tool, call.arguments) for call in caught.value.next] == [("get_status", {"use_case": "digits"})]
    assert aliases.read(workspace.database, "digits", "canary") is None


def test_after_a_canary_all_requests_go_to_production_again(workspace: Workspace) -> None:
    def end() -> aliases.AliasMove:
        return workspace.database.transact(
            lambda tx: aliases.end_canary(tx, use_case="digits", actor="eve", evidence={"why": "slow"})
        )

    with pytest.raises(SpeciateError, match="'digits' has no canary") as caught:
        end()
    _move(workspace, "m@v1", aliases.NOTHING)
    with pytest.raises(SpeciateError, match="'digits' has no canary") as caught:
        end()
    assert caught.value.code is Code.NOT_FOUND
    assert [(call.tool, call.arguments) for call in caught.value.next] == [("get_status", {"use_case": "digits"})]
    _canary(workspace, "m@v2")
    ended = end()
    row = ended.audit
    assert (ended.before, ended.after, ended.generation) == ("m@v2", "m@v1", 1)
    assert (row.actor, row.action, row.use_case, row.before, row.after, json.loads(row.evidence)) == (
        "eve", "canary_end", "digits", "m@v2", None, {"why": "slow"},
    )  # fmt: skip
    event = workspace.database.events_after(0)[-1]
    assert (event.subject, event.type) == ("use_case:digits", "canary.ended")
    assert event.data == {"model": "m@v2", "actor": "eve", "audit": row.hash}
    assert aliases.of_use_case(workspace.database, "digits") == {"production": "m@v1"}


def test_alias_and_audit_part_at_no_fault(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks between the two leaves neither."""
    points = list[str]()

    def broken(point: str) -> None:
        points.append(point)
        raise RuntimeError(point)

    monkeypatch.setattr(aliases, "fault", broken)
    with pytest.raises(RuntimeError):
        _move(workspace, "m@v1", aliases.NOTHING)
    assert points == ["promotion_between_alias_and_audit"]
    assert aliases.of_use_case(workspace.database, "digits") == {}
    assert audit.verify(workspace.database).rows == 0
