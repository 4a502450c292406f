"""What to do with a dataset version that a job has just made: look at it, split it, define a use case, find a model."""

from __future__ import annotations

from speciate import usecases
from speciate.datasets import versions
from speciate.datasets.versions import Manifest
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
        manifest = versions.resolve(database, ref)
    except SpeciateError:
        return ()
    look = NextAction(tool="describe_dataset", arguments={"dataset": ref})
    if not set(SPLITS) <= manifest.splits.keys():
        steps = [{"op": "split", "fractions": _FRACTIONS}]
        return (look, NextAction(tool="curate_dataset", arguments={"dataset": ref, "steps": steps}))
    return (look, *_a_model(database, manifest))


def _a_model(database: Database, manifest: Manifest) -> tuple[NextAction, ...]:
    """`specialize` where a use case could take it, else the use case; nothing for what is unlabelled."""
    if manifest.label is None:
        return ()
    for name in usecases.names(database):
        task = task_named(usecases.get(database, name).task)
        if task is not None and _suits(task, manifest):
            asked = {"use_case": name, "dataset": manifest.name, "budget_minutes": _MINUTES}
            return (NextAction(tool="specialize", arguments=asked),)
    task = next((task for task in TASKS.values() if _suits(task, manifest)), None)
    if task is None:
        return ()
    asked = {
        "name": f"{manifest.name}-use", "task": task.name, "objective": {"metric": task.default_metric},
    }  # fmt: skip
    return (NextAction(tool="define_use_case", arguments=asked),)


def _suits(task: Task, manifest: Manifest) -> bool:
    family = "regression" if manifest.numeric else "classification"
    return manifest.modality in task.modalities and task.family == family
