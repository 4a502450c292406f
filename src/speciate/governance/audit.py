"""The trail of alias moves, changes of policy and consent, and data that left: append-only rows.

Each has the hash of the one before, so an edited or removed row breaks the chain from there on. A removed tail would
not, so `verify` also compares the chain with the event log, where each of them left its hash, and with heads that were
kept outside the catalog (`audit_heads`, or by a person). Somebody who rewrites all of it with care is found if people
sign (`approval_keys`) or a head was kept outside the workspace (`audit_heads`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict

from speciate.workspace.audit_rows import GENESIS, WORKSPACE, Evidence, Row, append_row, digest
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace

__all__ = ["GENESIS", "WORKSPACE", "Evidence", "Row", "append_row", "digest"]  # rows are appended from below, too
CANARY, CANARY_END = "canary", "canary_end"
_MOVES = ("promote", "rollback")
NEXT_STEP = (
    "restore a newer backup, or a person continues from this trail: speciate audit accept (signed where a key is "
    "enrolled, else with a typed yes)"
)
"""Advice where rows were lost."""
_COLUMNS = "seq, stamp, actor, action, use_case, before, after, evidence, previous_hash, hash"
_ALL = f"SELECT {_COLUMNS} FROM audit ORDER BY seq"
_OF_USE_CASE = f"SELECT {_COLUMNS} FROM audit WHERE use_case = ? ORDER BY seq"
_NEWEST = f"SELECT {_COLUMNS} FROM audit WHERE ? IS NULL OR use_case = ? ORDER BY seq DESC LIMIT ?"
_POINTED = "SELECT use_case || '@' || alias, model FROM aliases WHERE alias IN ('production', 'canary') ORDER BY ALL"
_ALIAS_EVENTS = """
SELECT data ->> 'audit' FROM events
WHERE type IN (
    'alias.moved', 'canary.set', 'canary.ended', 'policy.changed', 'consent.changed', 'key.changed', 'approval.decided',
    'token.changed', 'data.sent'
) AND data ->> 'audit' IS NOT NULL
ORDER BY seq
"""


class Proof(TypedDict, total=False):
    """Who answered, as evidence has it."""

    signed: Mapping[str, Any]
    """A `SignedAnswer`."""
    claimed: str
    """The name that a client gave, where it is not the account's."""


class Verdict(NamedTuple):
    """`problems` is empty where the chain is whole and agrees with aliases and events."""

    rows: int
    head: str
    problems: tuple[str, ...]


def of_use_case(database: Database, use_case: str) -> list[Row]:
    return [Row(*row) for row in database.read(_OF_USE_CASE, [use_case])]


def all_rows(database: Database) -> list[Row]:
    return [Row(*row) for row in database.read(_ALL)]


def newest(database: Database, use_case: str | None = None, most: int = 50) -> list[Row]:
    """The last rows, oldest first; of one use case where one is named (`*`: the workspace)."""
    return [Row(*row) for row in database.read(_NEWEST, [use_case, use_case, most])][::-1]


def verify(database: Database, heads: Mapping[int, str] | None = None) -> Verdict:
    """Recompute the whole chain and compare it with the aliases, the events, and heads that were kept elsewhere (number
    of a row -> its hash). The first problem names the first row that is not as it was."""
    rows = all_rows(database)
    hashes = [told for (told,) in database.read(_ALIAS_EVENTS)]
    pointed: dict[str, str] = dict(database.read(_POINTED))
    return Verdict(
        len(rows),
        rows[-1].hash if rows else GENESIS,
        (*broken_links(rows), *lost_heads(rows, heads or {}), *_disagreements(rows, hashes, pointed)),
    )


def lost_heads(rows: Sequence[Row], heads: Mapping[int, str]) -> list[str]:
    """What was the end of the chain once must still be in it."""
    there = {row.seq: row.hash for row in rows}
    for number, kept in sorted(heads.items()):
        if number not in there:
            return [f"row {number} is missing: the chain ends at row {len(rows)}, and it was longer once; {NEXT_STEP}"]
        if there[number] != kept:
            return [f"row {number} is another one than the one whose hash was kept ({kept[:16]}); {NEXT_STEP}"]
    return []


def broken_links(rows: Sequence[Row]) -> list[str]:
    problems, previous = [], GENESIS
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


def _disagreements(rows: list[Row], hashes: list[str], pointed: dict[str, str]) -> list[str]:
    problems = []
    if [row.hash for row in rows] != hashes:
        problems.append(f"{len(rows)} rows of audit, but {len(hashes)} such changes among the events, or other ones")
    told = _aliases_by_trail(rows)
    problems.extend(
        f"{alias} is {pointed.get(alias)!r}, but the trail ends at {told.get(alias)!r}"
        for alias in sorted({*told, *pointed})
        if told.get(alias) != pointed.get(alias)
    )
    return problems


def _aliases_by_trail(rows: Sequence[Row]) -> dict[str, str]:
    """Where `production` and `canary` of each use case are by the trail; a move of production ends the canary."""
    told: dict[str, str | None] = {}
    for row in rows:
        if row.action in _MOVES:
            told |= {f"{row.use_case}@production": row.after, f"{row.use_case}@canary": None}
        elif row.action in (CANARY, CANARY_END):
            told[f"{row.use_case}@canary"] = row.after
    return {alias: model for alias, model in told.items() if model is not None}


def record_model_signature(
    workspace: Workspace, model: str, identity: str, key: str, by: str, proof: Mapping[str, Any] = MappingProxyType({})
) -> Row:
    """The row that says that a model version was signed; the signature itself lies beside the version's files.

    `key`: sha256 of the public key. `proof`: more evidence for the row.
    """
    told = {"model": model, "id": identity, "key": key}

    def append(tx: Transaction) -> Row:
        row = append_row(
            tx, actor=by, action="sign", use_case=WORKSPACE, before=None, after=model,
            evidence={**told, **proof},
        )  # fmt: skip
        tx.event(f"model:{model.partition('@')[0]}", "policy.changed", {"action": "sign", **told, "audit": row.hash})
        return row

    return workspace.database.transact(append)
