"""Compare-and-swap of what serves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from speciate.errors import Code, SpeciateError
from speciate.governance import audit
from speciate.promotion import aliases
from speciate.workspace.workspace import Workspace


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
    with pytest.raises(SpeciateError, match=r"is 'm@v1', not 'm@v7'") as caught:
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


def test_alias_audit_and_event_are_one_step(workspace: Workspace) -> None:
    moved = _move(workspace, "m@v1", aliases.NOTHING)
    event = workspace.database.events_after(0)[-1]
    assert event.type == "alias.moved"
    assert event.data["audit"] == moved.audit.hash
