"""Labels that do not fit the task, as far as a version's manifest tells: refused before a job exists. Pure.

What only the cells tell (tags that are not as many as words) is refused by the run: see `pose` of the task."""

from __future__ import annotations

import math
from collections.abc import Callable

from speciate.datasets.columns import is_shortened
from speciate.datasets.versions import Manifest
from speciate.errors import Call, CallAgain, Code, SpeciateError, near_names
from speciate.tasks.example_targets import is_label
from speciate.tasks.families.multi_label import labels_of
from speciate.tasks.families.ordinal import check_order
from speciate.tasks.task import TaskTerms
from speciate.vocabulary import Family, Task

_LEAST_PER_LABEL = 2
_NUMBERS = ("BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP", "DATE")
_COLUMNS_WITHOUT_TARGETS: dict[Family, tuple[str, ...]] = {
    "multi-label": ("DOUBLE", "BOOLEAN", "TIMESTAMP", "DATE", "BLOB"),
    "tokens": (*_NUMBERS, "BLOB"),
    "transcription": (*_NUMBERS, "BLOB"),
    "image-generation": (*_NUMBERS, "BLOB"),
    "speech-synthesis": (*_NUMBERS, "BLOB"),
    "regression": ("BLOB", "DATE", "TIMESTAMP"),
}
"""Types of columns in which there can be no label."""


def check_labels(manifest: Manifest, target: str | None, task: Task, terms: TaskTerms) -> None:
    """Raises INVALID with the call that would work. `target` None: the examples themselves teach."""
    if target is None:
        return
    kind = manifest.columns.get(target)
    if kind in _COLUMNS_WITHOUT_TARGETS.get(task.family, ()):
        raise _unfit_target(
            manifest, f"The column {target!r} of {manifest.ref} is {kind}, which cannot be labels for", task
        )
    if is_label(manifest, target) and task.family in _CHECKS:
        _CHECKS[task.family](manifest, task, terms)


def _check_classes(manifest: Manifest, task: Task, terms: TaskTerms) -> None:
    if manifest.numeric:
        raise SpeciateError(
            Code.INVALID,
            f"The labels of {manifest.ref} are numbers of any size, and {task.name} needs classes.",
            f"Or make a column of classes, curate_dataset(dataset={manifest.ref!r}, steps=[{{'op': 'derive', ...}}]), "
            "to be the target.",
            next=[CallAgain("", {"task": f"{task.name.removesuffix('-classification')}-regression"})],
        )
    if len(manifest.labels) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has {len(manifest.labels)} label value(s) ({', '.join(manifest.labels) or 'none'}); "
            "a classifier needs at least two.",
            next=[Call("describe_dataset", {"dataset": manifest.ref}, "; create_dataset takes another label column")],
        )
    _check_label_counts(manifest)


def _check_label_counts(manifest: Manifest) -> None:
    """Two labels must be on both sides of a division. Counts are of all splits, so the run may find too few yet."""
    if manifest.splits.get("validation"):
        return
    common = [label for label, count in manifest.labels.items() if count >= _LEAST_PER_LABEL]
    if len(common) < 2 or manifest.splits["train"] < 2 * _LEAST_PER_LABEL:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no validation split, so its split 'train' needs at least {_LEAST_PER_LABEL} examples "
            f"of each label, to learn from one and be judged on another; it has {manifest.splits['train']}, and all "
            f"splits together have by label {dict(list(manifest.labels.items())[:5])}.",
            "Add examples with add_examples, or bring a validation split.",
        )


def _check_ranks(manifest: Manifest, task: Task, terms: TaskTerms) -> None:
    if manifest.numeric:
        raise _unfit_target(
            manifest, f"The labels of {manifest.ref} are numbers of any size, which are no ranks for", task
        )
    _check_classes(manifest, task, terms)
    check_order(manifest.labels, terms.order)
    if terms.order and (missing := [label for label in manifest.labels if label not in terms.order]):
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has labels that the order lacks, such as {missing[0]!r}: {' < '.join(terms.order)}.",
            f"Call train_model with hyperparameters={{'order': [...]}}, or specialize with order=[...], of "
            f"{', '.join(sorted(manifest.labels)[:20])}.",
        )


def _check_numbers(manifest: Manifest, task: Task, terms: TaskTerms) -> None:
    words = [label for label in manifest.labels if not _is_number(label)]
    if words:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has labels that are no numbers, such as {words[0]!r}; {task.name} needs numbers.",
            f"Use the task '{task.name.removesuffix('-regression')}-classification', or another label column.",
        )


def _check_label_lists(manifest: Manifest, task: Task, terms: TaskTerms) -> None:
    _check_not_shortened(manifest, task, terms)
    if manifest.label in manifest.columns:
        return
    for label in manifest.labels:
        try:
            labels_of(label)
        except ValueError as error:
            raise _unfit_target(
                manifest, f"{manifest.ref} has a label that is no list: {error}. It does not do for", task
            ) from error


def _check_not_shortened(manifest: Manifest, task: Task, terms: TaskTerms) -> None:
    """What has more in it than a label is read from the column that it came from; labels are cut."""
    if manifest.numeric:
        raise _unfit_target(manifest, f"The labels of {manifest.ref} are numbers, which cannot be labels for", task)
    if manifest.label not in manifest.columns and any(map(is_shortened, manifest.labels)):
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} keeps the beginning of long labels only, and {task.name} needs whole labels.",
            "Call create_dataset again with the column called otherwise than 'label', and name it with target.",
        )


def _check_groups(manifest: Manifest, task: Task, terms: TaskTerms) -> None:
    if manifest.numeric:
        raise _unfit_target(
            manifest, f"The labels of {manifest.ref} are numbers, and not what belongs together, for", task
        )
    if max(manifest.labels.values(), default=0) < _LEAST_PER_LABEL:
        raise SpeciateError(
            Code.INVALID,
            f"No two examples of {manifest.ref} have the same label, so nothing says what belongs together.",
            next=[Call("describe_dataset", {"dataset": manifest.ref}, "; create_dataset takes another label column")],
        )


def _check_positive_label(manifest: Manifest, task: Task, terms: TaskTerms) -> None:
    """If there are several labels, one must be known not to be normal: all others are learned as normal."""
    if len(manifest.labels) > 1 and terms.positive_label not in manifest.labels:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has the labels {', '.join(list(manifest.labels)[:5])}, and none is "
            f"{terms.positive_label!r}: which one is not normal is not known.",
            "Or name a use case that says positive_label.",
            next=[CallAgain("train_model", {"hyperparameters": {"positive_label": _rarest(manifest, terms)}})],
        )


_CHECKS: dict[Family, Callable[[Manifest, Task, TaskTerms], None]] = {
    "classification": _check_classes,
    "ordinal": _check_ranks,
    "anomaly": _check_positive_label,
    "regression": _check_numbers,
    "multi-label": _check_label_lists,
    "tokens": _check_not_shortened,
    "transcription": _check_not_shortened,
    "retrieval": _check_groups,
}


def _unfit_target(manifest: Manifest, why: str, task: Task) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{why} {task.name} ({task.what}).",
        f"Name another column with target, or use another task: describe_dataset(dataset={manifest.ref!r}) shows both.",
    )


def _rarest(manifest: Manifest, terms: TaskTerms) -> str:
    """The label that was meant, it seems: the nearest, else the one with the fewest examples."""
    near = near_names(terms.positive_label or "", manifest.labels, 1)
    return near[0] if near else min(manifest.labels, key=lambda label: manifest.labels[label])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
