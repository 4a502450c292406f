"""The trail: whole after honest moves, and every kind of tampering is named."""

from __future__ import annotations

from speciate.production import aliases, audit
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace


def _moves(workspace: Workspace, *models: str) -> None:
    for model in models:
        workspace.database.transact(
            lambda tx, model=model: aliases.move(  # type: ignore[misc]  # mypy cannot infer a lambda's default
                tx, use_case="digits", model=model, expected=None, action="promote", actor="ada", evidence={"note": "x"}
            )
        )


def _tamper(workspace: Workspace, sql: str) -> tuple[str, ...]:
    def change(tx: Transaction) -> None:
        tx.execute(sql)

    workspace.database.transact(change)
    return audit.verify(workspace.database).problems


def test_an_honest_trail_has_no_problems(workspace: Workspace) -> None:
    _moves(workspace, "digits-model@v1", "digits-model@v2", "digits-model@v3")
    verdict = audit.verify(workspace.database)
    assert verdict.rows == 3
    assert verdict.problems == ()
    assert verdict.head == audit.of_use_case(workspace.database, "digits")[-1].hash


def test_an_empty_trail_is_whole(workspace: Workspace) -> None:
    assert audit.verify(workspace.database) == audit.Verdict(0, "0" * 64, ())


def test_an_edited_row_is_found(workspace: Workspace) -> None:
    _moves(workspace, "digits-model@v1", "digits-model@v2")
    assert _tamper(workspace, "UPDATE audit SET actor = 'eve' WHERE seq = 1") == (
        "row 1 was changed after it was written",
    )


def test_a_removed_row_is_found(workspace: Workspace) -> None:
    _moves(workspace, "digits-model@v1", "digits-model@v2", "digits-model@v3")
    assert "row 2 is missing" in _tamper(workspace, "DELETE FROM audit WHERE seq = 2")[0]


def test_a_removed_tail_is_found_by_the_events(workspace: Workspace) -> None:
    _moves(workspace, "digits-model@v1", "digits-model@v2")
    problems = _tamper(workspace, "DELETE FROM audit WHERE seq = 2")
    assert any("2 such changes among the events" in problem for problem in problems)


def test_an_alias_that_was_moved_behind_the_trail_is_found(workspace: Workspace) -> None:
    _moves(workspace, "digits-model@v1")
    problems = _tamper(workspace, "UPDATE aliases SET model = 'other@v9' WHERE alias = 'production'")
    assert problems == ("digits@production is 'other@v9', but the trail ends at 'digits-model@v1'",)
