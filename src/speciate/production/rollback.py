"""Back to a version that served: what let it serve then is enough, so no person is asked and nothing is waited for.

A verdict alone is not: a person may have refused the promotion that it would have allowed. Nor may a rollback bring
back what a rollback took away; that is a promotion, which asks for new evidence or a person.
"""

from __future__ import annotations

from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.production import aliases
from speciate.workspace.database import Transaction

# How a version that served and serves no more was last replaced.
_REPLACED_BY = "SELECT action FROM audit WHERE use_case = ? AND before = ? ORDER BY seq DESC LIMIT 1"


class RolledBack(NamedTuple):
    before: str
    after: str
    audit: str
    """Hash of the audit row."""


def roll_back(tx: Transaction, use_case: str, *, expected: str, to: str | None, reason: str, actor: str) -> RolledBack:
    """Move `production` from `expected` to `to` (default: the version before).

    Raises CONFLICT where another version serves, NOT_FOUND where there is nothing to go back to, and REFUSED for a
    version that never served this use case, or was itself rolled back when it last did.
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
    _check_served(tx, use_case, target)
    moved = aliases.move(
        tx, use_case=use_case, model=target, expected=expected, action="rollback", actor=actor,
        evidence={"reason": reason},
    )  # fmt: skip
    return RolledBack(current.model, target, moved.audit.hash)


def _default(tx: Transaction, use_case: str) -> str:
    previous = aliases.read(tx, use_case, "previous")
    if previous is None:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no version of {use_case!r} to go back to: no version served before.",
            f"Call get_status(use_case={use_case!r}).",
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
        f"Name one that served with `to`, or call promote_model(use_case={use_case!r}, model={model!r}).",
    )
