"""The only mutable pointers: which model version serves a use case, moved by compare-and-swap.

A move changes `production`, keeps the one before as `previous`, writes the audit row and the event, all in one
transaction. There is no other way to change an alias, so pointer and trail cannot part. A `canary` stands beside one
version in production, with its share of the requests; when production moves, it is over.
"""

from __future__ import annotations

from typing import NamedTuple

from speciate.errors import Call, Code, SpeciateError
from speciate.faults import fault
from speciate.governance import audit
from speciate.workspace.database import Database, Transaction

NOTHING = "nothing"
"""How a caller says that it believes no model serves yet."""

CANARY = "canary"

_READ = "SELECT use_case, alias, model, generation, changed, percent FROM aliases WHERE use_case = ? AND alias = ?"
_OF_USE_CASE = "SELECT alias, model FROM aliases WHERE use_case = ? ORDER BY alias"
_ALL = "SELECT use_case, alias, model, generation, changed, percent FROM aliases WHERE alias = ? ORDER BY use_case"
_EVERY = "SELECT use_case, alias, model, generation, changed, percent FROM aliases ORDER BY use_case, alias"
_SERVING = (
    "SELECT use_case, alias, model, generation, changed, percent FROM aliases WHERE alias IN ('production', 'canary')"
)
_INSERT = "INSERT INTO aliases VALUES (?, ?, ?, ?, ?, ?)"
_UPDATE = "UPDATE aliases SET model = ?, generation = ?, changed = ?, percent = ? WHERE use_case = ? AND alias = ?"
_REMOVE = "DELETE FROM aliases WHERE use_case = ? AND alias = ?"


class Alias(NamedTuple):
    use_case: str
    alias: str
    model: str
    """A registered version, `name@v3`."""
    generation: int
    """Grows with each move; never used twice. A canary's is the number of the audit row that set it."""
    changed: float
    percent: float | None = None
    """Percent of the requests that a canary gets."""


class AliasMove(NamedTuple):
    before: str | None
    after: str
    generation: int
    audit: audit.Row


def read(reader: Database | Transaction, use_case: str, alias: str = "production") -> Alias | None:
    """The alias as committed, or, given a transaction, as the transaction sees it."""
    rows = reader.read(_READ, [use_case, alias])
    return Alias(*rows[0]) if rows else None


def everywhere(database: Database, alias: str = "production") -> list[Alias]:
    """This alias of every use case that has it."""
    return [Alias(*row) for row in database.read(_ALL, [alias])]


def serving(database: Database) -> dict[tuple[str, str], Alias]:
    """(Use case, `production` or `canary`) -> alias, of all use cases at one moment: a canary that comes into
    production is never seen in neither place."""
    return {(row[0], row[1]): Alias(*row) for row in database.read(_SERVING)}


def by_use_case(database: Database) -> dict[str, dict[str, Alias]]:
    """Use case -> alias -> where it stands, of all use cases at one moment."""
    found: dict[str, dict[str, Alias]] = {}
    for row in database.read(_EVERY):
        found.setdefault(row[0], {})[row[1]] = Alias(*row)
    return found


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
            next=[
                Call(
                    "get_status", {"use_case": use_case}, f", look again, and repeat with expected_current={serving!r}"
                )
            ],
        )


def move(
    tx: Transaction,
    *,
    use_case: str,
    model: str,
    expected: str | None,
    action: str,
    actor: str,
    evidence: audit.Evidence,
) -> AliasMove:
    """Let `model` serve `use_case`. Raises CONFLICT where another model than `expected` serves now."""
    current = read(tx, use_case)
    check_expected(current, use_case, expected)
    before = current.model if current else None
    generation = current.generation + 1 if current else 1
    canary = read(tx, use_case, CANARY)
    _set_alias(tx, use_case, "production", model, generation)
    if before is not None:
        _set_alias(tx, use_case, "previous", before, generation)
    if canary:
        tx.execute(_REMOVE, [use_case, CANARY])
    fault("promotion_between_alias_and_audit")
    row = audit.append_row(
        tx, actor=actor, action=action, use_case=use_case, before=before, after=model, evidence=evidence
    )
    tx.event(
        f"use_case:{use_case}",
        "alias.moved",
        {
            "alias": "production", "before": before, "after": model, "generation": generation,
            "action": action, "actor": actor, "audit": row.hash, "ended_canary": canary.model if canary else None,
        },
    )  # fmt: skip
    return AliasMove(before, model, generation, row)


def set_canary(
    tx: Transaction,
    *,
    use_case: str,
    model: str,
    percent: float,
    expected: str | None,
    actor: str,
    evidence: audit.Evidence,
) -> AliasMove:
    """Let `model` answer so many percent of the requests beside what is in production, or another share than before.

    Raises CONFLICT where another version than `expected` is in production, or none.
    """
    current = read(tx, use_case)
    check_expected(current, use_case, expected)
    if current is None:
        raise SpeciateError(
            Code.CONFLICT,
            f"Nothing is in production for {use_case!r}, so there is nothing for a canary to stand beside.",
            next=[Call("promote_model", {"use_case": use_case, "model": model}, "without canary_percent")],
        )
    before = read(tx, use_case, CANARY)
    shown = {**evidence, "percent": percent, "beside": current.model}
    was = before.model if before else None
    row = audit.append_row(
        tx, actor=actor, action=audit.CANARY, use_case=use_case, before=was, after=model, evidence=shown
    )  # fmt: skip
    generation = before.generation if before and before.model == model else row.seq
    _set_alias(tx, use_case, CANARY, model, generation, percent)
    tx.event(
        f"use_case:{use_case}",
        "canary.set",
        {
            "model": model, "percent": percent, "before": was, "beside": current.model, "generation": generation,
            "actor": actor, "audit": row.hash,
        },
    )  # fmt: skip
    return AliasMove(was, model, generation, row)


def end_canary(tx: Transaction, *, use_case: str, actor: str, evidence: audit.Evidence) -> AliasMove:
    """Send all requests to the production version (`after`) again. Raises NOT_FOUND if there is no canary."""
    canary, current = read(tx, use_case, CANARY), read(tx, use_case)
    if canary is None or current is None:
        raise SpeciateError(
            Code.NOT_FOUND, f"{use_case!r} has no canary.", next=[Call('get_status', {'use_case': use_case})]
        )  # fmt: skip
    tx.execute(_REMOVE, [use_case, CANARY])
    row = audit.append_row(
        tx, actor=actor, action=audit.CANARY_END, use_case=use_case, before=canary.model, after=None, evidence=evidence
    )  # fmt: skip
    tx.event(
        f"use_case:{use_case}", "canary.ended", {"model": canary.model, "actor": actor, "audit": row.hash}
    )  # fmt: skip
    return AliasMove(canary.model, current.model, current.generation, row)


def _set_alias(
    tx: Transaction, use_case: str, alias: str, model: str, generation: int, percent: float | None = None
) -> None:
    if read(tx, use_case, alias):
        tx.execute(_UPDATE, [model, generation, tx.now, percent, use_case, alias])
    else:
        tx.execute(_INSERT, [use_case, alias, model, generation, tx.now, percent])
