"""The trail: whole after honest moves, and every kind of tampering is named."""

from __future__ import annotations

import pytest

from speciate.governance import audit, audit_heads
from speciate.promotion import aliases
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.governance.people import perform

pytestmark = pytest.mark.durable


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


def test_an_end_that_was_cut_off_everywhere_is_found_by_a_head_that_was_kept(workspace: Workspace) -> None:
    """Rows, their events and the alias alike: the catalog as it was one move before."""
    audit_heads.keep_heads(workspace)
    _moves(workspace, "digits-model@v1", "digits-model@v2")
    workspace.database.checkpoint()  # listeners hear of a commit after who waits for it; this comes after both
    heads = audit_heads.read_heads(workspace.folders.root / audit_heads.NAME)
    assert audit.verify(workspace.database, heads).problems == ()
    _tamper(workspace, "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)")
    _tamper(workspace, "UPDATE aliases SET model = 'digits-model@v1' WHERE alias = 'production'")
    assert _tamper(workspace, "DELETE FROM audit WHERE seq = 2") == ()
    [problem] = audit.verify(workspace.database, heads).problems
    assert problem.startswith("row 2 is missing: the chain ends at row 1, and it was longer once")
    assert "speciate audit accept" in problem, "the next step"
    _moves(workspace, "digits-model@v3")
    [problem] = audit.verify(workspace.database, heads).problems
    assert problem.startswith("row 2 is another one than the one whose hash was kept")
    perform(workspace, "accept")  # without a key a typed yes is enough, and the row says what was accepted
    assert audit.newest(workspace.database)[-1].action == "accept"
    assert perform(workspace, "audit")["problems"] == ()


def test_a_torn_line_among_the_heads_is_left_out(workspace: Workspace) -> None:
    path = workspace.folders.root / audit_heads.NAME
    path.write_text(f"1 {'a' * 64}\n2 {'b' * 20}")
    assert audit_heads.read_heads(path) == {1: "a" * 64}


def test_the_newest_rows_come_oldest_first(workspace: Workspace) -> None:
    _moves(workspace, "digits-model@v1", "digits-model@v2", "digits-model@v3")
    assert [row.seq for row in audit.newest(workspace.database, most=2)] == [2, 3]
    assert audit.newest(workspace.database, "other") == []


def test_a_torn_line_takes_the_next_one_not_along(workspace: Workspace) -> None:
    path = workspace.folders.root / audit_heads.NAME
    path.write_text(f"7 {'b' * 20}")
    _moves(workspace, "digits-model@v1")
    audit_heads.keep_heads(workspace)
    assert audit_heads.read_heads(path) == {1: audit.newest(workspace.database)[0].hash}
