"""A change of policy is in the settings and in the audit."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from speciate.governance import audit, policy
from speciate.settings import load
from speciate.workspace.workspace import Workspace
from tests.promotion import world


def test_a_change_of_policy_is_written_and_leaves_a_row_in_the_audit(workspace: Workspace) -> None:
    settings = workspace.folders.root / "settings.toml"
    settings.write_text('policy = "auto"\napproval_hours = 5.0\n')
    policy.change(workspace, "person", "grace")
    assert (load(workspace.folders.root).policy, load(workspace.folders.root).approval_hours) == ("person", 5.0)
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    (row,) = audit.of_use_case(workspace.database, audit.WORKSPACE)
    assert (row.actor, row.action, row.before, row.after) == ("grace", "policy", "auto", "person")
    verdict = audit.verify(workspace.database)
    assert (verdict.rows, verdict.problems) == (2, ())


def test_a_policy_that_there_is_not_changes_nothing(workspace: Workspace) -> None:
    with pytest.raises(ValidationError):
        policy.change(workspace, "anarchy", "grace")
    assert audit.verify(workspace.database).rows == 0
