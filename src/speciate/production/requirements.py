"""Changed requirements: a use case's next version, and the question to a person where it asks less of production."""

from __future__ import annotations

from typing import NamedTuple

from speciate import modalities, usecases
from speciate.errors import Code, SpeciateError, closest
from speciate.models import registry
from speciate.production import approvals
from speciate.production.approvals import Approval
from speciate.settings import Settings
from speciate.usecases import COLUMN, CONSTANT, Defined, Definition
from speciate.vocabulary import METRICS, TASKS
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_ELSEWHERE = (COLUMN, CONSTANT)
"""Incumbents that are no models of ours."""


class Required(NamedTuple):
    defined: Defined
    approval: Approval | None
    """What a person must answer before the new version is in force."""


def check_possible(workspace: Workspace, definition: Definition) -> None:
    """Refuse what nothing installed can do, and an incumbent that is not there.

    Raises NOT_FOUND for the task, with the one that was probably meant, and whatever keeps the incumbent from being
    found.
    """
    usable = modalities.table()
    possible = [task.name for task in TASKS.values() if usable.keys() & set(task.modalities)]
    if definition.task not in possible:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"No installed modality has a task {definition.task!r}; {_meant(definition, possible)}",
            f"Call list_options(kind='task'): {', '.join(possible)}.",
        )
    if definition.incumbent and not definition.incumbent.startswith(_ELSEWHERE):
        registry.resolve(workspace.database, workspace.folders, definition.incumbent)


def _meant(definition: Definition, possible: list[str]) -> str:
    """For a modality alone its task with the metric's family: tabular -> tabular-classification."""
    metric = METRICS.get(definition.objective.metric)
    whole = f"{definition.task}-{metric.families[0] if metric else 'classification'}"
    return f"did you mean {whole!r}?" if whole in possible else closest(definition.task, possible)


def require(tx: Transaction, definition: Definition, settings: Settings) -> Required:
    """Define a use case, asking a person where `usecases.define` says that one must agree."""
    defined = usecases.define(tx, definition, policy=settings.policy_of(definition.name))
    if defined.state != usecases.NEEDS_APPROVAL:
        return Required(defined, None)
    arguments = {"use_case": definition.name, "version": defined.use_case.version}
    evidence = {"changed": list(defined.changed), "loosened": list(defined.loosened)}
    subject = f"use_case:{definition.name}"
    asked = approvals.request(
        tx, "define_use_case", arguments, evidence, subject=subject, hours=settings.approval_hours
    )
    return Required(defined, asked)
