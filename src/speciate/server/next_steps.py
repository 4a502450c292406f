"""What to do with a dataset version that a job has just made: look at it, split it, define a use case, find a model."""

from __future__ import annotations

from speciate import usecases
from speciate.datasets import versions
from speciate.datasets.intake.lineage import ancestors
from speciate.datasets.sources import answered
from speciate.datasets.versions import Manifest, Version
from speciate.errors import SpeciateError
from speciate.refs import SPLITS
from speciate.server.surface import NextAction
from speciate.vocabulary import TASKS, Task, task_named
from speciate.workspace.database import Database

_FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
_MINUTES = 10
"""A budget that suits a first try; the caller knows better."""


def after_dataset(database: Database, ref: str) -> tuple[NextAction, ...]:
    """Calls that work as they stand; none where the version is gone."""
    try:
        found = versions.version(database, ref)
    except SpeciateError:
        return ()
    look = NextAction(tool="describe_dataset", arguments={"dataset": ref})
    if not set(SPLITS) <= found.manifest.splits.keys():
        steps = [{"op": "split", "fractions": _FRACTIONS}]
        return (look, NextAction(tool="curate_dataset", arguments={"dataset": ref, "steps": steps}))
    return (look, *_a_model(database, found))


def _a_model(database: Database, found: Version) -> tuple[NextAction, ...]:
    """`specialize` where a use case could take it, else the use case; nothing for what is unlabelled. What was logged
    is for the use case that was asked, whatever task its labels look like."""
    manifest = found.manifest
    if manifest.label is None:
        return ()
    names = usecases.names(database)
    if (asker := _logged_for(database, found)) in names:
        return (_specialize(asker, manifest),)
    for name in names:
        task = task_named(usecases.get(database, name).task)
        if task is not None and _suits(task, manifest):
            return (_specialize(name, manifest),)
    task = next((task for task in TASKS.values() if _suits(task, manifest)), None)
    if task is None:
        return ()
    asked = {
        "name": f"{manifest.name}-use", "task": task.name, "objective": {"metric": task.default_metric},
    }  # fmt: skip
    return (NextAction(tool="define_use_case", arguments=asked),)


def _specialize(use_case: str, manifest: Manifest) -> NextAction:
    asked = {"use_case": use_case, "dataset": manifest.name, "budget_minutes": _MINUTES}
    return NextAction(tool="specialize", arguments=asked)


def _logged_for(database: Database, found: Version) -> str:
    """The use case whose log the examples come from, the latest where there are several; empty where there is none."""
    for each in (found, *ancestors(database, found)):
        source = str(each.operation.get("source") or "")
        if source.startswith(f"{answered.KIND}:"):
            return answered.parse(source).use_case
    return ""


def _suits(task: Task, manifest: Manifest) -> bool:
    family = "regression" if manifest.numeric else "classification"
    return manifest.modality in task.modalities and task.family == family
