"""Back to a version that once passed: no new evidence is needed, so no person is asked and nothing is waited for."""

from __future__ import annotations

from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.production import aliases
from speciate.workspace.database import Transaction

_PASSED = """
SELECT count(*) FROM decisions WHERE use_case = ? AND candidate = ? AND verdict = 'promote'
"""
_SERVED = "SELECT count(*) FROM audit WHERE use_case = ? AND after = ?"
_ROLLED_BACK = "SELECT DISTINCT before FROM audit WHERE use_case = ? AND action = 'rollback'"


class RolledBack(NamedTuple):
    before: str
    after: str
    audit: str
    """Hash of the audit row."""


def roll_back(tx: Transaction, use_case: str, *, expected: str, to: str | None, reason: str, actor: str) -> RolledBack:
    """Move `production` from `expected` to `to` (default: the version before, unless it was itself rolled back).

    Raises CONFLICT where another version serves, NOT_FOUND where there is nothing to go back to, and REFUSED for a
    version that never passed the gates of this use case.
    """
    current = aliases.read(tx, use_case)
    if current is None:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"No model serves {use_case!r}, so there is nothing to roll back.",
            f"Call get_status(use_case={use_case!r}).",
        )
    aliases.check_expected(current, use_case, expected)
    target = to or _default(tx, use_case)
    if target == current.model:
        raise SpeciateError(
            Code.INVALID, f"{target!r} is what serves {use_case!r} now.", "Name another version with `to`."
        )
    _check_passed(tx, use_case, target)
    moved = aliases.move(
        tx, use_case=use_case, model=target, expected=expected, action="rollback", actor=actor,
        evidence={"reason": reason},
    )  # fmt: skip
    return RolledBack(current.model, target, moved.audit.hash)


def _default(tx: Transaction, use_case: str) -> str:
    previous = aliases.read(tx, use_case, "previous")
    bad = {row[0] for row in tx.execute(_ROLLED_BACK, [use_case])}
    if previous is None or previous.model in bad:
        why = f"{previous.model!r} was itself rolled back" if previous else "no version served before"
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no obvious version of {use_case!r} to go back to: {why}.",
            "Name one that passed before with `to`.",
        )
    return previous.model


def _check_passed(tx: Transaction, use_case: str, model: str) -> None:
    counts = [tx.execute(sql, [use_case, model])[0][0] for sql in (_PASSED, _SERVED)]
    if not any(counts):
        raise SpeciateError(
            Code.REFUSED,
            f"{model!r} never passed the gates of {use_case!r}; a rollback goes only to a version that did.",
            f"Call promote_model(use_case={use_case!r}, model={model!r}) after evaluating it.",
        )
