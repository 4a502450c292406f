"""The only mutable pointers: which model version serves a use case, moved by compare-and-swap.

A move changes `production`, keeps the one before as `previous`, writes the audit row and the event, all in one
transaction. There is no other way to change an alias, so pointer and trail cannot part.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.production import audit
from speciate.workspace.database import Database, Transaction

NOTHING = "nothing"
"""How a caller says that it believes no model serves yet."""

_READ = "SELECT use_case, alias, model, generation, changed FROM aliases WHERE use_case = ? AND alias = ?"
_OF_USE_CASE = "SELECT alias, model FROM aliases WHERE use_case = ? ORDER BY alias"
_INSERT = "INSERT INTO aliases VALUES (?, ?, ?, ?, ?)"
_UPDATE = "UPDATE aliases SET model = ?, generation = ?, changed = ? WHERE use_case = ? AND alias = ?"


class Alias(NamedTuple):
    use_case: str
    alias: str
    model: str
    """A registered version, `name@v3`."""
    generation: int
    """Grows by one with each move; never used twice."""
    changed: float


class Moved(NamedTuple):
    before: str | None
    after: str
    generation: int
    audit: audit.Row


def read(reader: Database | Transaction, use_case: str, alias: str = "production") -> Alias | None:
    """The alias as committed, or, given a transaction, as the transaction sees it."""
    query = reader.execute if isinstance(reader, Transaction) else reader.read
    rows = query(_READ, [use_case, alias])
    return Alias(*rows[0]) if rows else None


def of_use_case(database: Database, use_case: str) -> dict[str, str]:
    """Alias -> model."""
    return dict(database.read(_OF_USE_CASE, [use_case]))


def check_expected(current: Alias | None, use_case: str, expected: str | None) -> None:
    """Raise CONFLICT where another model serves than the caller believes. `expected` None: the caller does not say."""
    if expected is None:
        return
    serving = current.model if current else NOTHING
    if expected != serving:
        raise SpeciateError(
            Code.CONFLICT,
            f"{use_case}@production is {serving!r}, not {expected!r} as expected: it moved in the meantime.",
            f"Call get_status(use_case={use_case!r}), look again, and repeat with expected_current={serving!r}.",
        )


def move(
    tx: Transaction,
    *,
    use_case: str,
    model: str,
    expected: str | None,
    action: str,
    actor: str,
    evidence: dict[str, Any],
) -> Moved:
    """Let `model` serve `use_case`. Raises CONFLICT where another model than `expected` serves now."""
    current = read(tx, use_case)
    check_expected(current, use_case, expected)
    before = current.model if current else None
    generation = current.generation + 1 if current else 1
    _point(tx, use_case, "production", model, generation)
    if before is not None:
        _point(tx, use_case, "previous", before, generation)
    row = audit.append(tx, actor=actor, action=action, use_case=use_case, before=before, after=model, evidence=evidence)
    tx.event(
        f"use_case:{use_case}",
        "alias.moved",
        {
            "alias": "production", "before": before, "after": model, "generation": generation,
            "action": action, "actor": actor, "audit": row.hash,
        },
    )  # fmt: skip
    return Moved(before, model, generation, row)


def _point(tx: Transaction, use_case: str, alias: str, model: str, generation: int) -> None:
    if read(tx, use_case, alias):
        tx.execute(_UPDATE, [model, generation, tx.now, use_case, alias])
    else:
        tx.execute(_INSERT, [use_case, alias, model, generation, tx.now])
