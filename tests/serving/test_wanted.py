"""What a keeper tells slots: where the aliases are at one moment, at a cost that does not grow with the slots."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.production import aliases
from speciate.serving.folder import Target, Wanted, slot_folder
from speciate.serving.keeper import Keeper
from speciate.workspace.workspace import Workspace
from tests.serving.fakes import target

USE_CASES = [f"case-{number}" for number in range(8)]


def promoted(workspace: Workspace, use_case: str, model: str) -> None:
    about: dict[str, Any] = {"use_case": use_case, "model": model, "actor": "ada", "evidence": {}, "expected": None}
    workspace.database.transact(lambda tx: aliases.move(tx, action="promote", **about))


def canary(workspace: Workspace, use_case: str, model: str) -> None:
    about: dict[str, Any] = {"use_case": use_case, "model": model, "actor": "ada", "evidence": {}, "expected": None}
    workspace.database.transact(lambda tx: aliases.set_canary(tx, percent=5, **about))


@pytest.fixture
def keeper(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """Of slots whose processes are not started."""
    keeper = Keeper(workspace, None)  # type: ignore[arg-type]  # nobody gathers examples
    monkeypatch.setattr(keeper, "_keep_alive", lambda folder, watched: None)
    monkeypatch.setattr(keeper, "_target", lambda folder, alias, before: named(alias.model, alias.generation))
    for use_case in USE_CASES:
        folder = slot_folder(workspace.folders, use_case)
        folder.create()
        folder.want(Wanted(use_case=use_case, options=workspace.settings.serving))
        promoted(workspace, use_case, "words@v1")
    return keeper


def named(model: str, generation: int) -> Target:
    return target(1).model_copy(update={"model": model, "generation": generation})


def wanted(workspace: Workspace, use_case: str = USE_CASES[0]) -> Wanted:
    found = slot_folder(workspace.folders, use_case).wanted()
    assert found
    return found


def test_aliases_of_all_slots_are_read_at_once(
    workspace: Workspace, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.look()
    assert all((told := wanted(workspace, each).target) and told.model == "words@v1" for each in USE_CASES)
    asked: list[str] = []
    read = workspace.database.read
    monkeypatch.setattr(workspace.database, "read", lambda sql, *rest: (asked.append(sql), read(sql, *rest))[1])
    monkeypatch.setattr(keeper._baker, "look", lambda: None)
    keeper.look()
    assert len(asked) == 1


def test_a_canary_that_comes_into_production_is_never_in_neither_place(
    workspace: Workspace, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary(workspace, USE_CASES[0], "words@v2")
    keeper.look()
    assert wanted(workspace).canary
    read, moved = workspace.database.read, list[str]()

    def then_promoted(sql: str, *rest: Any) -> Any:
        """It moves right after the keeper has read something of it."""
        rows = read(sql, *rest)
        if "aliases" in sql and not moved:
            moved.append("words@v2")
            promoted(workspace, USE_CASES[0], "words@v2")
        return rows

    monkeypatch.setattr(workspace.database, "read", then_promoted)
    keeper.look()
    assert moved
    assert (model(wanted(workspace).target), model(wanted(workspace).canary)) == ("words@v1", "words@v2")
    keeper.look()
    assert (model(wanted(workspace).target), model(wanted(workspace).canary)) == ("words@v2", None)


def model(found: Target | None) -> str | None:
    return found.model if found else None
