"""The target of an example: one rule for models that learn from it and evaluations that score by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speciate.datasets.columns import class_name
from speciate.datasets.loading.loader import Example
from speciate.datasets.targets import natural_target, usual_columns
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.tasks.families import preference
from speciate.tasks.families.forecasting import usual_horizon
from speciate.tasks.task import TaskExample, TaskTerms
from speciate.tasks.task_heads import TASK_HEADS
from speciate.vocabulary import TASKS, Family, find_task, task_named

_OF_CLASSES: tuple[Family, ...] = ("classification", "ordinal", "regression", "retrieval", "anomaly")
"""Families whose targets are labels or numbers as datasets store them."""
TARGET_OPTIONAL = ("forecasting", "anomaly", "control")
"""Families that learn from examples without a label."""
TARGET_IN_MEDIA: tuple[Family, ...] = ("forecasting", "control")
"""Families whose targets are in the media."""


_VOLUMES = ("dicom", "nifti")
_TEXT_MODALITIES = {kind for task in TASKS.values() if task.family == "generation" for kind in task.modalities}


def is_label(manifest: Manifest, target: str | None) -> bool:
    """Whether the target is the dataset's label and not another column."""
    return target in (None, manifest.label, "label")


def usual_target(manifest: Manifest, task: str) -> str | None:
    """The target column if the caller names none; None: the dataset's label, or targets in the media."""
    family = find_task(task).family
    if family in TARGET_IN_MEDIA:
        return None
    named_so = usual_columns("generation" if task == preference.PREFERENCE else family, manifest.modality)
    given = [name for name in named_so if name in manifest.columns and name not in manifest.inputs]
    named = next(iter(given), None)
    return named or manifest.label


def usual_task(manifest: Manifest) -> str | None:
    """The task that the examples are made for; None where they have no label and nothing else tells.

    Whole numbers are classes, as a dataset stores them.
    """
    prefix = task_prefix(manifest.modality)
    of_label = f"{prefix}-{'regression' if manifest.numeric else 'classification'}"
    if manifest.label is not None and task_named(of_label) is not None:
        return of_label
    natural = natural_target(manifest.modality, manifest.inputs, manifest.columns)
    return natural.task if natural else None


def task_prefix(modality: str) -> str:
    """How names of tasks on one label begin."""
    return "volume" if modality in _VOLUMES else modality


def answer_columns(manifest: Manifest) -> tuple[str, ...]:
    """The columns with the answers that a language model should give, and should not. Empty if only the label is known,
    or if the examples are neither text nor images."""
    if manifest.modality not in _TEXT_MODALITIES:
        return ()
    named = dict.fromkeys((*usual_columns("generation", manifest.modality), preference.REJECTED))
    return tuple(
        name for name in named if name in manifest.columns and name not in manifest.inputs and name != manifest.label
    )


def settle_terms(terms: TaskTerms, task: str, training: Sequence[Example]) -> TaskTerms:
    """Open terms settled by the training examples: the horizon of forecasts."""
    if find_task(task).family == "forecasting" and terms.horizon is None:
        return terms._replace(horizon=usual_horizon([example.media for example in training]))
    return terms


def evaluation_examples(
    examples: Sequence[Example], manifest: Manifest, target: str | None, task: str, terms: TaskTerms
) -> list[TaskExample]:
    """Examples as models see them, with their targets. Examples without one are left out; INVALID for a bad cell."""
    task_head = TASK_HEADS[find_task(task).family]
    made = (_make(task_head.evaluation_example, example, manifest, target, task, terms) for example in examples)
    return [one for one in made if one is not None]


def texts_as_media(examples: Sequence[Example], manifest: Manifest, target: str | None, task: str) -> list[Example]:
    """Examples as a model sees them that makes the media of a dataset from texts (images from captions, speech from
    what is spoken). An example without a text stays as it is, and so does every example of texts."""
    if not find_task(task).suits(manifest.modality):
        return list(examples)
    column = target or usual_target(manifest, task)
    of_label = is_label(manifest, column)
    texts = [_full_label(each, manifest, task) if of_label else each.columns.get(column or "") for each in examples]
    return [
        each._replace(media=text) if isinstance(text, str) and text.strip() else each
        for each, text in zip(examples, texts, strict=True)
    ]


def training_examples(
    examples: Sequence[Example], manifest: Manifest, target: str | None, task: str, terms: TaskTerms
) -> list[TaskExample]:
    """What models learn from the training examples: none, one or several TaskExamples from each."""
    task_head = TASK_HEADS[find_task(task).family]
    made = (_make(task_head.training_examples, example, manifest, target, task, terms) for example in examples)
    return [one for several in made for one in several]


def _make(make: Any, example: Example, manifest: Manifest, target: str | None, task: str, terms: TaskTerms) -> Any:
    cell = _full_label(example, manifest, task) if is_label(manifest, target) else example.columns.get(target or "")
    try:
        if task == preference.PREFERENCE:
            example, cell = preference.pose_pair(example, cell, example.columns.get(preference.REJECTED))
        return make(example, cell, terms._replace(modality=manifest.modality))
    except (ValueError, TypeError) as error:
        raise SpeciateError(
            Code.INVALID,
            f"{target or manifest.label!r} of {manifest.ref} is no target for {task!r} everywhere; untrusted says why.",
            "Use another task, or another column.",
            str(error),
        ) from error


def _full_label(example: Example, manifest: Manifest, task: str) -> Any:
    """The label in full. A dataset stores it as a class, which cuts long texts; the column that it came from has it
    whole, unless the example got another label since."""
    column = example.columns.get(manifest.label or "")
    if find_task(task).family in _OF_CLASSES or column is None or class_name(column) != example.label:
        return example.label
    return column
