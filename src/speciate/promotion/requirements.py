"""Changed requirements: a use case's next version, and the question to a person where it asks less of production."""

from __future__ import annotations

from typing import NamedTuple

from speciate import modalities, use_cases
from speciate.errors import Call, Code, SpeciateError, closest
from speciate.governance import approvals
from speciate.governance.approvals import Approval
from speciate.models import registry
from speciate.settings import Settings
from speciate.use_cases import COLUMN, CONSTANT, DefineResult, Definition
from speciate.vocabulary import METRICS, TASKS
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_ELSEWHERE = (COLUMN, CONSTANT)
"""Incumbents that are no models of ours."""


class RequirementChange(NamedTuple):
    defined: DefineResult
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
            f"No installed modality has a task {definition.task!r}; {_suggest_task(definition, possible)}",
            next=[Call("list_options", {"kind": "task"}, f": {', '.join(possible)}")],
        )
    if definition.incumbent and not definition.incumbent.startswith(_ELSEWHERE):
        registry.resolve(workspace.database, workspace.folders, definition.incumbent)


def _suggest_task(definition: Definition, possible: list[str]) -> str:
    """For a modality alone its task with the metric's family: tabular -> tabular-classification."""
    metric = METRICS.get(definition.objective.metric)
    whole = f"{definition.task}-{metric.families[0] if metric else 'classification'}"
    return f"did you mean {whole!r}?" if whole in possible else closest(definition.task, possible)


def change_requirements(tx: Transaction, definition: Definition, settings: Settings) -> RequirementChange:
    """Define a use case, asking a person where `use_cases.define` says that one must agree."""
    defined = use_cases.define(tx, definition, policy=settings.policy_of(definition.name))
    if defined.state != use_cases.NEEDS_APPROVAL:
        return RequirementChange(defined, None)
    arguments = {"use_case": definition.name, "version": defined.use_case.version}
    evidence = {"changed": list(defined.changed), "loosened": list(defined.loosened)}
    subject = f"use_case:{definition.name}"
    asked = approvals.request(
        tx, "define_use_case", arguments, evidence, subject=subject, hours=settings.approval_hours
    )
    return RequirementChange(defined, asked)
