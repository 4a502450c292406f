"""That a model version was signed: a row of the audit. The signature itself lies beside the version's files."""

from __future__ import annotations

from speciate.production import audit
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace


def record(workspace: Workspace, model: str, identity: str, key: str, by: str) -> audit.Row:
    """`key`: sha256 of the public key."""
    told = {"model": model, "id": identity, "key": key}

    def append(tx: Transaction) -> audit.Row:
        row = audit.append(
            tx, actor=by, action="sign", use_case=audit.WORKSPACE, before=None, after=model, evidence=told
        )  # fmt: skip
        tx.event(f"model:{model.partition('@')[0]}", "policy.changed", {"action": "sign", **told, "audit": row.hash})
        return row

    return workspace.database.transact(append)
