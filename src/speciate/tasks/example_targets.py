"""The target of an example: one rule for models that learn from it and evaluations that score by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speciate.datasets.columns import class_name
from speciate.datasets.loading.loader import Example
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.tasks.families import preference
from speciate.tasks.families.forecasting import usual_horizon
from speciate.tasks.task import TaskExample, TaskTerms
from speciate.tasks.task_heads import TASK_HEADS
from speciate.vocabulary import TASKS, Family, find_task

_OF_CLASSES: tuple[Family, ...] = ("classification", "ordinal", "regression", "retrieval", "anomaly")
"""Families whose targets are labels or numbers as a dataset keeps them."""
TARGET_OPTIONAL = ("forecasting", "anomaly", "control")
"""Families whose examples teach without a label."""
TARGET_IN_MEDIA: tuple[Family, ...] = ("forecasting", "control")
"""Families whose targets are in the media."""


_NAMED: dict[Family, tuple[str, ...]] = {
    "detection": ("objects",),
    "segmentation": ("objects", "mask"),
    "generation": ("completion", "answer", "response", "output", "chosen"),
}
"""Columns as the COCO reader, the gatherers of volumes and data for language models name them."""
_TEXT_MODALITIES = {kind for task in TASKS.values() if task.family == "generation" for kind in task.modalities}


def is_label(manifest: Manifest, target: str | None) -> bool:
    """Whether the target is the dataset's label, and not a column beside it."""
    return target in (None, manifest.label, "label")


def usual_target(manifest: Manifest, task: str) -> str | None:
    """The column that targets come from where nobody names one; None: the dataset's label, or the examples teach."""
    family = find_task(task).family
    if family in TARGET_IN_MEDIA:
        return None
    named_so = _NAMED["generation"] if task == preference.PREFERENCE else _NAMED.get(family, ())
    given = [name for name in named_so if name in manifest.columns and name not in manifest.inputs]
    named = next(iter(given), None)
    return named or manifest.label


def answer_columns(manifest: Manifest) -> tuple[str, ...]:
    """The columns beside the question that hold what a language model is to say, and what it had better not; none where
    the label is all that is known, or what is asked is no text and no picture."""
    if manifest.modality not in _TEXT_MODALITIES:
        return ()
    named = dict.fromkeys((*_NAMED["generation"], preference.REJECTED))
    return tuple(
        name for name in named if name in manifest.columns and name not in manifest.inputs and name != manifest.label
    )


def settle_terms(terms: TaskTerms, task: str, learned: Sequence[Example]) -> TaskTerms:
    """With what was left open and the training examples decide. What a model was trained with is asked of it again."""
    if find_task(task).family == "forecasting" and terms.horizon is None:
        return terms._replace(horizon=usual_horizon([example.media for example in learned]))
    return terms


def evaluation_examples(
    examples: Sequence[Example], manifest: Manifest, target: str | None, task: str, terms: TaskTerms
) -> list[TaskExample]:
    """What models are asked, with the target; examples without one are left out. INVALID for a cell that is none."""
    task_head = TASK_HEADS[find_task(task).family]
    posed = (_pose(task_head.evaluation_example, example, manifest, target, task, terms) for example in examples)
    return [one for one in posed if one is not None]


def training_examples(
    examples: Sequence[Example], manifest: Manifest, target: str | None, task: str, terms: TaskTerms
) -> list[TaskExample]:
    """What training examples teach; from some there may be nothing to learn, or much."""
    task_head = TASK_HEADS[find_task(task).family]
    taught = (_pose(task_head.training_examples, example, manifest, target, task, terms) for example in examples)
    return [lesson for some in taught for lesson in some]


def _pose(pose: Any, example: Example, manifest: Manifest, target: str | None, task: str, terms: TaskTerms) -> Any:
    cell = _full_label(example, manifest, task) if is_label(manifest, target) else example.columns.get(target or "")
    try:
        if task == preference.PREFERENCE:
            example, cell = preference.pose_pair(example, cell, example.columns.get(preference.REJECTED))
        return pose(example, cell, terms._replace(modality=manifest.modality))
    except (ValueError, TypeError) as error:
        raise SpeciateError(
            Code.INVALID,
            f"{target or manifest.label!r} of {manifest.ref} is no target for {task!r} everywhere; untrusted says why.",
            "Use another task, or another column.",
            str(error),
        ) from error


def _full_label(example: Example, manifest: Manifest, task: str) -> Any:
    """A dataset keeps a label as a class: as text, and cut. Lists and long texts are whole in the column that it came
    from, unless somebody gave the example another label since."""
    column = example.columns.get(manifest.label or "")
    if find_task(task).family in _OF_CLASSES or column is None or class_name(column) != example.label:
        return example.label
    return column
