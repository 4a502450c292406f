"""How a tool answers that a person must approve first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from speciate.governance import approval_keys
from speciate.governance.approvals import Approval
from speciate.server.tool_api import NextAction, Result
from speciate.workspace.database import Transaction


class ApprovalQuestion(Result):
    id: str
    expires: float
    until: str
    """`expires` as ISO time, UTC."""
    how: str


class NeedsApproval(Result):
    """Nothing was changed. The job begins when a person approves; `speciate approve` prints its id."""

    state: Literal["needs_approval"] = "needs_approval"
    approval: ApprovalQuestion
    evidence: dict[str, Any]
    next_actions: tuple[NextAction, ...] = ()


def needs_approval(tx: Transaction, approval: Approval) -> NeedsApproval:
    how = approval_keys.answer_instructions(tx, approval.id)
    until = datetime.fromtimestamp(approval.expires, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return NeedsApproval(
        approval=ApprovalQuestion(id=approval.id, expires=approval.expires, until=until, how=how),
        evidence=approval.evidence,
        next_actions=(NextAction(tool="list_approvals", arguments={"state": "pending"}),),
    )
