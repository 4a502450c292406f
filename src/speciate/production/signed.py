"""That a model version was signed: a row of the audit. The signature itself lies beside the version's files."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from speciate.production import audit
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def record(
    workspace: Workspace, model: str, identity: str, key: str, by: str, proof: Mapping[str, Any] = _NOTHING
) -> audit.Row:
    """`key`: sha256 of the public key. `proof`: what the row's evidence has, too."""
    told = {"model": model, "id": identity, "key": key}

    def append(tx: Transaction) -> audit.Row:
        row = audit.append(
            tx, actor=by, action="sign", use_case=audit.WORKSPACE, before=None, after=model,
            evidence={**told, **proof},
        )  # fmt: skip
        tx.event(f"model:{model.partition('@')[0]}", "policy.changed", {"action": "sign", **told, "audit": row.hash})
        return row

    return workspace.database.transact(append)
