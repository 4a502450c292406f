"""The trail of alias moves and changes of policy and consent: append-only rows, each with the hash of the one before.

An edited or removed row breaks the chain from there on. A removed tail would not, so `verify` also compares the chain
with the event log, where each of them left its hash. It does not defend against somebody who rewrites both with care:
that needs a signature by a key that is not on this machine.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from speciate.workspace.database import Database, Transaction

WORKSPACE = "*"
"""What stands for a use case in rows about the whole workspace; no name has this sign."""
_GENESIS = "0" * 64
_COLUMNS = "seq, stamp, actor, action, use_case, before, after, evidence, previous_hash, hash"
_LAST = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
_APPEND = "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ALL = f"SELECT {_COLUMNS} FROM audit ORDER BY seq"
_OF_USE_CASE = f"SELECT {_COLUMNS} FROM audit WHERE use_case = ? ORDER BY seq"
_PRODUCTION = "SELECT use_case, model FROM aliases WHERE alias = 'production' ORDER BY use_case"
_TOLD = "SELECT data FROM events WHERE type IN ('alias.moved', 'policy.changed', 'consent.changed') ORDER BY seq"


class Row(NamedTuple):
    seq: int
    stamp: float
    actor: str
    action: str
    """promote, rollback, policy, allow or disallow."""
    use_case: str
    before: str | None
    after: str | None
    evidence: str
    """JSON: the decision, the approval, the note."""
    previous_hash: str
    hash: str


class Verdict(NamedTuple):
    """`problems` is empty where the chain is whole and agrees with aliases and events."""

    rows: int
    head: str
    problems: tuple[str, ...]


def append(
    tx: Transaction,
    *,
    actor: str,
    action: str,
    use_case: str,
    before: str | None,
    after: str | None,
    evidence: dict[str, Any],
) -> Row:
    """Add a row to the chain, in the transaction that makes the change that it tells of."""
    last = tx.execute(_LAST)
    seq, previous = (last[0][0] + 1, last[0][1]) if last else (1, _GENESIS)
    row = Row(seq, tx.now, actor, action, use_case, before, after, json.dumps(evidence, sort_keys=True), previous, "")
    row = row._replace(hash=digest(row))
    tx.execute(_APPEND, row)
    return row


def digest(row: Row) -> str:
    """sha256 of the row as a JSON array without its last column; the previous hash is among the columns."""
    return hashlib.sha256(json.dumps(row[:-1]).encode()).hexdigest()


def of_use_case(database: Database, use_case: str) -> list[Row]:
    return [Row(*row) for row in database.read(_OF_USE_CASE, [use_case])]


def verify(database: Database) -> Verdict:
    """Recompute the whole chain and compare it with the aliases and the events."""
    rows = [Row(*row) for row in database.read(_ALL)]
    hashes = [json.loads(data)["audit"] for (data,) in database.read(_TOLD)]
    production: dict[str, str] = dict(database.read(_PRODUCTION))
    return Verdict(
        len(rows),
        rows[-1].hash if rows else _GENESIS,
        (*_broken_links(rows), *_disagreements(rows, hashes, production)),
    )


def _broken_links(rows: list[Row]) -> list[str]:
    problems, previous = [], _GENESIS
    for number, row in enumerate(rows, 1):
        if row.seq != number:
            problems.append(f"row {number} is missing: the next one is numbered {row.seq}")
            return problems
        if row.previous_hash != previous:
            problems.append(f"row {number} does not follow the row before it")
        if digest(row) != row.hash:
            problems.append(f"row {number} was changed after it was written")
        previous = row.hash
    return problems


def _disagreements(rows: list[Row], hashes: list[str], production: dict[str, str]) -> list[str]:
    problems = []
    if [row.hash for row in rows] != hashes:
        problems.append(f"{len(rows)} rows of audit, but {len(hashes)} such changes among the events, or other ones")
    served = {row.use_case: row.after for row in rows if row.use_case != WORKSPACE}
    problems.extend(
        f"{use_case}@production is {production.get(use_case)!r}, but the trail ends at {served.get(use_case)!r}"
        for use_case in sorted({*served, *production})
        if served.get(use_case) != production.get(use_case)
    )
    return problems
