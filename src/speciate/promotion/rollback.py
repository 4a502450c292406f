"""Back to a version that served: what let it serve then is enough, so no person is asked and nothing is waited for.

A verdict alone is not: a person may have refused the promotion that it would have allowed. Nor may a rollback bring
back what a rollback took away; that is a promotion, which asks for new evidence or a person.
"""

from __future__ import annotations

from typing import NamedTuple

from speciate.errors import Call, Code, SpeciateError
from speciate.governance import approvals, audit
from speciate.promotion import aliases
from speciate.workspace.database import Database, Transaction

_SERVED = """
SELECT before FROM audit
WHERE use_case = ? AND action IN ('promote', 'rollback') AND before IS NOT NULL ORDER BY seq DESC
"""
_REPLACED_BY = """
SELECT action FROM audit WHERE use_case = ? AND before = ? AND action IN ('promote', 'rollback')
ORDER BY seq DESC LIMIT 1
"""
"""How a version that served and serves no more was last replaced."""
_NEWEST_MOVE = """
SELECT action FROM audit WHERE use_case = ? AND action IN ('promote', 'rollback') ORDER BY seq DESC LIMIT 1
"""


class RollbackResult(NamedTuple):
    before: str
    after: str
    audit: str
    """Hash of the audit row."""


def roll_back(
    tx: Transaction,
    use_case: str,
    *,
    expected: str | None,
    to: str | None,
    reason: str,
    actor: str,
    evidence: audit.Evidence | None = None,
) -> RollbackResult:
    """Move `production` from `expected` to `to` (default: `last_good`), or end the canary where `expected` is it.

    `expected` None is the version that the newest promotion brought, so that a repeat moves nothing further. A canary
    beside `production` is over in both cases: what it was compared with serves no more. Promotions of `expected` that
    wait for a person are void: their evidence is from before.

    Raises CONFLICT where another version serves, or where None could mean two things; NOT_FOUND where there is nothing
    to go back to, and REFUSED for a version that never served this use case, or was itself rolled back then.
    """
    current, canary = aliases.read(tx, use_case), aliases.read(tx, use_case, aliases.CANARY)
    shown = {**(evidence or {}), "reason": reason}
    if expected is None and current:
        expected = _only_meaning(tx, use_case, current.model, canary.model if canary else None, reason)
    if current and canary and expected == canary.model != current.model and to in (None, current.model):
        ended = aliases.end_canary(tx, use_case=use_case, actor=actor, evidence=shown)
        approvals.withdraw(tx, "promote", use_case, canary.model, actor)
        return RollbackResult(canary.model, current.model, ended.audit.hash)
    if current is None:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"No model serves {use_case!r}, so there is nothing to roll back.",
            next=[Call("get_status", {"use_case": use_case})],
        )
    aliases.check_expected(current, use_case, expected)
    target = to or last_good(tx, use_case) or _previous_version(tx, use_case)
    if target == current.model:
        raise SpeciateError(
            Code.INVALID, f"{target!r} is what serves {use_case!r} now.", "Name another version with `to`."
        )
    _check_served(tx, use_case, target)
    moved = aliases.move(
        tx, use_case=use_case, model=target, expected=expected, action="rollback", actor=actor,
        evidence=shown,
    )  # fmt: skip
    approvals.withdraw(tx, "promote", use_case, current.model, actor)
    return RollbackResult(current.model, target, moved.audit.hash)


def _only_meaning(tx: Transaction, use_case: str, current: str, canary: str | None, reason: str) -> str:
    """The version that a rollback without one means. Raises CONFLICT beside a canary and after a rollback."""
    call = {"use_case": use_case, "reason": reason}
    if canary and canary != current:
        raise SpeciateError(
            Code.CONFLICT,
            f"A canary, {canary!r}, stands beside {current!r} in production: which one shall go?",
            next=[
                Call("rollback_model", {**call, "expected_current": canary}, ", which ends the canary"),
                Call("rollback_model", {**call, "expected_current": current}, ", which ends both"),
            ],
        )
    if tx.execute(_NEWEST_MOVE, [use_case]) == [("rollback",)]:
        raise SpeciateError(
            Code.CONFLICT,
            f"{use_case}@production was rolled back to {current!r} already, so nothing was changed.",
            next=[Call("rollback_model", {**call, "expected_current": current}, ", to go further back")],
        )
    return current


def last_good(reader: Database | Transaction, use_case: str) -> str | None:
    """The version that served before the present one and was not rolled back."""
    current = aliases.read(reader, use_case)
    seen = {current.model} if current else set()
    for (model,) in reader.read(_SERVED, [use_case]):
        if model not in seen and reader.read(_REPLACED_BY, [use_case, model]) != [("rollback",)]:
            return str(model)
        seen.add(model)
    return None


def _previous_version(tx: Transaction, use_case: str) -> str:
    """The version before, whose rollback is refused: so that it is said why."""
    previous = aliases.read(tx, use_case, "previous")
    if previous is None:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no version of {use_case!r} to go back to: no version served before.",
            next=[Call("get_status", {"use_case": use_case})],
        )
    return previous.model


def _check_served(tx: Transaction, use_case: str, model: str) -> None:
    replaced = tx.execute(_REPLACED_BY, [use_case, model])
    if not replaced:
        why = f"{model!r} never served {use_case!r}; a rollback goes only to a version that did."
    elif replaced == [("rollback",)]:
        why = f"{model!r} was itself rolled back; production saw what its evidence did not."
    else:
        return
    raise SpeciateError(
        Code.REFUSED,
        why,
        "Name one that served with `to`.",
        next=[Call("promote_model", {"use_case": use_case, "model": model})],
    )
