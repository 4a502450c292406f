"""Changed requirements: a use case's next version, and the question to a person where it asks less of production."""

from __future__ import annotations

from typing import NamedTuple

from speciate import usecases
from speciate.production import approvals
from speciate.production.approvals import Approval
from speciate.settings import Settings
from speciate.usecases import Defined, Definition
from speciate.workspace.database import Transaction


class Required(NamedTuple):
    defined: Defined
    approval: Approval | None
    """What a person must answer before the new version is in force."""


def require(tx: Transaction, definition: Definition, settings: Settings) -> Required:
    """Define a use case, asking a person where `usecases.define` says that one must agree."""
    defined = usecases.define(tx, definition, policy=settings.policy)
    if defined.state != usecases.NEEDS_APPROVAL:
        return Required(defined, None)
    arguments = {"use_case": definition.name, "version": defined.use_case.version}
    evidence = {"changed": list(defined.changed), "loosened": list(defined.loosened)}
    subject = f"use_case:{definition.name}"
    asked = approvals.request(
        tx, "define_use_case", arguments, evidence, subject=subject, hours=settings.approval_hours
    )
    return Required(defined, asked)
