"""Whether a training keeps the head that its base model was published with, or puts a new one on its network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from speciate.datasets.columns import class_name
from speciate.datasets.versions import Manifest
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.models.backbones.architectures import suits
from speciate.models.published.architectures import PublishedHead, check_head, find_head
from speciate.models.published.label_rows import kept_labels, row_sources
from speciate.models.published.manifest import read_manifest
from speciate.models.published.network import TRAINABLE, is_trainable
from speciate.tasks.example_targets import is_label
from speciate.training.hyperparameters import FullParameters, Parameters
from speciate.training.planning.base_models import Base
from speciate.vocabulary import TASKS, Family, Task, find_task

KEEPING = ("full", "lora")
"""Methods that can keep a published head."""


class HeadChoice(NamedTuple):
    head: Literal["published", "new"]
    new_labels: tuple[str, ...] | None = None
    """Labels of the dataset that the published head lacks; None where only the run knows them."""


def can_keep_head(base: Base, method: str | None, family: Family, modality: str) -> bool:
    """Whether a base model could be trained with its own head, though no backbone of ours may read it."""
    tasks = [name for name, task in TASKS.items() if task.family == family]
    head = _head_for(base, tasks)
    return (
        method in KEEPING
        and head is not None
        and head.adapter in TRAINABLE
        and head.engine == "torch"
        and find_task(head.task).family == family
        and head.reads(modality)
    )


def _head_for(base: Base, tasks: Sequence[str]) -> PublishedHead | None:
    """The head of a base model; of one that does several tasks that for the first of these."""
    if base.head is None or base.folder is None:
        return base.head
    return next((head for task in tasks if (head := find_head(base.folder, task)) and head.task == task), base.head)


def choose_head(
    base: Base | None, method: str, task: Task, manifest: Manifest, target: str | None, parameters: Parameters
) -> HeadChoice | None:
    """None where there is nothing to choose. By default the published head is kept if it is one for the task and, of
    classifiers, if any of its labels is known to mean one of the dataset's.

    Raises INVALID where the head that was asked for cannot be.
    """
    asked = parameters.head if isinstance(parameters, FullParameters) else "auto"
    head = _head_for(base, [task.name]) if base is not None and method in KEEPING else None
    if base is None or base.folder is None or head is None or not is_trainable(head, task.name, manifest.modality):
        if asked == "published":
            raise _nothing_to_keep(base, method, task, head)
        return None
    readable = suits(base.modality, manifest.modality)
    if asked == "new":
        if not readable:
            raise SpeciateError(
                Code.INVALID,
                f"No head of ours can be put on {base.ref}: its network ({head.model_type}) is read as published only.",
                next=[CallAgain("train_model", {"hyperparameters": {"head": "published"}})],
            )
        return HeadChoice("new")
    try:
        check_head(base.folder, base.ref, task.name)
    except SpeciateError:
        if asked == "published" or not readable:
            raise
        return HeadChoice("new")
    wanted = _known_labels(manifest, target, task)
    if head.zero_shot:
        return HeadChoice("new" if asked == "auto" and readable else "published")
    if not wanted or head.labels is None:
        return HeadChoice("published")
    table = read_manifest(base.folder)
    sources = row_sources(head.labels, sorted(wanted), head.adapter, table.label_map if table else None)
    kept = kept_labels(sources)
    if asked == "auto" and not kept and readable:
        return HeadChoice("new")
    return HeadChoice("published", tuple(class_name(label) for label in sources if label not in kept))


def _known_labels(manifest: Manifest, target: str | None, task: Task) -> Collection[str]:
    """Empty where only the run knows them: in another column, or several in a cell."""
    return manifest.labels if task.family == "classification" and is_label(manifest, target) else ()


def _nothing_to_keep(base: Base | None, method: str, task: Task, head: PublishedHead | None) -> SpeciateError:
    named = base.ref if base is not None else "no base model"
    if method not in KEEPING:
        why = f"{method!r} trains a head of its own; {' and '.join(map(repr, KEEPING))} can keep a published one"
    elif head is None:
        why = f"{named} was published without a head that can be trained further"
    else:
        why = f"{named} was published with a head for {head.task!r}, and the task is {task.name!r}"
    return SpeciateError(
        Code.INVALID,
        f"hyperparameters.head is 'published', but {why}.",
        next=[CallAgain("train_model", {"hyperparameters": {"head": "auto"}})],
    )
