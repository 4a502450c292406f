"""Rows of the audit: how one is appended to the chain, whoever does something that belongs there.

`governance/audit.py` reads and verifies them, and says what the chain is worth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from speciate.workspace.database import Transaction

WORKSPACE = "*"
"""What stands for a use case in rows about the whole workspace; no name has this sign."""
GENESIS = "0" * 64
_LAST = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
_APPEND = "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Row(NamedTuple):
    seq: int
    stamp: float
    actor: str
    action: str
    """promote, rollback, canary, canary_end, policy, allow, disallow, send, sign, approve, deny, key_enroll,
    key_revoke, token_create, token_revoke, settings or accept, or the name of a setting."""
    use_case: str
    before: str | None
    after: str | None
    evidence: str
    """JSON: the decision, the approval, the note."""
    previous_hash: str
    hash: str


Evidence = Mapping[str, Any]
"""Why a row is there, as JSON; its keys depend on the action. From a row that was read, anything may stand in it."""


def append_row(
    tx: Transaction,
    *,
    actor: str,
    action: str,
    use_case: str,
    before: str | None,
    after: str | None,
    evidence: Evidence,
) -> Row:
    """Add a row to the chain, in the transaction that makes the change that it tells of."""
    last = tx.execute(_LAST)
    seq, previous = (last[0][0] + 1, last[0][1]) if last else (1, GENESIS)
    row = Row(seq, tx.now, actor, action, use_case, before, after, json.dumps(evidence, sort_keys=True), previous, "")
    row = row._replace(hash=digest(row))
    tx.execute(_APPEND, row)
    return row


def digest(row: Row) -> str:
    """sha256 of the row as a JSON array without its last column; the previous hash is among the columns."""
    return hashlib.sha256(json.dumps(row[:-1]).encode()).hexdigest()
