"""Whether the rows of a training can be learned from, as their stored cells tell, before there is a job.

A manifest counts the labels of all splits together, and knows nothing of the values of other columns. Here the cells of
the target are read, by the splits that a training looks at, and posed as the run would pose them. No medium is opened:
targets that lie in media are the run's to refuse.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import version_rows
from speciate.datasets.loading.loader import Example
from speciate.datasets.versions import Manifest
from speciate.errors import Call, CallAgain, Code, SpeciateError
from speciate.tasks.example_targets import TARGET_OPTIONAL, evaluation_examples, is_label, training_examples
from speciate.tasks.families import preference
from speciate.tasks.families.anomaly import NORMAL
from speciate.tasks.families.forecasting import enough_steps
from speciate.tasks.task import TaskExample, TaskTerms
from speciate.tasks.task_heads import PER_UNIT
from speciate.training.hyperparameters import Parameters
from speciate.training.language_hyperparameters import ReinforcementParameters, learns_unlabelled
from speciate.vocabulary import Family, Task
from speciate.workspace.workspace import Folders

_BY_CELLS: tuple[Family, ...] = ("classification", "ordinal", "regression", "retrieval", "multi-label", "anomaly")
"""Families whose targets are cells, whatever the medium."""
_LABELLED: tuple[Family, ...] = ("classification", "ordinal")
_MOST_ROWS = 200_000
"""Rows whose cells are posed here: a second or two. Labels of more are known by their counts alone."""

_MOST_BYTES = 256 << 20
"""Series up to this size are read for their lengths: the daemon holds them for that moment."""


def check_targets(
    folders: Folders, manifest: Manifest, target: str | None, task: Task, terms: TaskTerms, parameters: Parameters
) -> tuple[str, ...]:
    """What was not looked at, a sentence each. INVALID where the training would find that out."""
    if task.family == "forecasting":
        return _check_horizon(folders, manifest, terms)
    if task.family not in _BY_CELLS or task.name == preference.PREFERENCE:
        return (f"The targets of {task.name}, which lie in media or texts.",) if target is None else ()
    column = "label" if is_label(manifest, target) else str(target)
    if manifest.rows > _MOST_ROWS:
        return (f"The values of {column!r}: the dataset has more than {_MOST_ROWS:,} rows.",)
    rows = _examples(folders, manifest, column)
    learned = _posed(rows["train"], manifest, target, task, terms, learned=True)
    held = _posed(rows["validation"], manifest, target, task, terms, learned=False)
    asks = isinstance(parameters, ReinforcementParameters) or learns_unlabelled(parameters)
    check_distinct([each.target for each in learned], manifest.ref, target or manifest.label, task, asks=asks)
    if task.family == "anomaly" and held and all(each.target != NORMAL for each in held):
        raise SpeciateError(
            Code.INVALID,
            f"No validation example of {manifest.ref} is normal, so nothing would say how odd is odd.",
            "Move normal examples to the validation split, or leave that split out.",
        )
    if task.family in _LABELLED and not held and not asks:
        _check_folds(learned, manifest)
    return ()


def check_distinct(targets: Sequence[object], dataset: str, target: str | None, task: Task, *, asks: bool) -> None:
    """INVALID where what is learned from has too few different values. `asks`: none are needed."""
    values = [tag for tags in targets for tag in tags] if task.family in PER_UNIT else targets  # type: ignore[attr-defined]  # lists of tags
    distinct = len({repr(value) for value in values})
    if distinct < (0 if asks else 1 if task.family in TARGET_OPTIONAL else 2):
        raise SpeciateError(
            Code.INVALID,
            f"The training split of {dataset} has {distinct} different value(s) of {target!r}: there is nothing to "
            "learn.",
            next=[Call("describe_dataset", {"dataset": dataset})],
        )


def _examples(folders: Folders, manifest: Manifest, column: str) -> dict[str, list[Example]]:
    """By split, without media."""
    beside = [manifest.label] if column == "label" and manifest.label in manifest.columns else []
    wanted = list(dict.fromkeys(["id", "split", "group_key", "label", column, *filter(None, beside)]))
    rows = version_rows.read(folders, manifest, wanted, splits=("train", "validation"), usable=True)
    found: dict[str, list[Example]] = {"train": [], "validation": []}
    for row in rows.to_pylist():
        name = str(row["id"])
        group = str(row["group_key"] or name)
        found[row["split"]].append(Example(name, None, row["label"], group, row["split"], row))
    return found


def _posed(
    rows: Sequence[Example], manifest: Manifest, target: str | None, task: Task, terms: TaskTerms, *, learned: bool
) -> list[TaskExample]:
    """As the run poses them. INVALID for a cell that is no target."""
    pose = training_examples if learned else evaluation_examples
    return pose(rows, manifest, target, task.name, terms)


def _check_folds(learned: Sequence[TaskExample], manifest: Manifest) -> None:
    """Without a validation split, some two labels must be in several groups. Whether folds can be dealt so that each
    holds all labels, the run knows."""
    groups: dict[str, set[str]] = {}
    for each in learned:
        groups.setdefault(repr(each.target), set()).add(each.example.group)
    if len(set().union(*groups.values())) < 2 or max(map(len, groups.values())) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no validation split and too few groups per label to make one.",
            "Add examples from other groups with add_examples, or bring a validation split.",
        )


def _check_horizon(folders: Folders, manifest: Manifest, terms: TaskTerms) -> tuple[str, ...]:
    """Whether a series is long enough, where the series are cells."""
    if terms.horizon is None:
        return ()
    not_looked_at = ("Whether the series are long enough for the horizon.",)
    first = manifest.inputs[:1]
    if not first or version_rows.stored_bytes(folders, manifest, first) > _MOST_BYTES:
        return not_looked_at
    cells = version_rows.read(folders, manifest, first, splits=("train",), usable=True)[0]
    if not pa.types.is_list(cells.type):
        return not_looked_at
    if pa.types.is_list(cells.type.value_type):  # channels, of which all are as long
        cells = pc.list_element(cells.filter(pc.greater(pc.list_value_length(cells), 0)), 0)
    steps = [count or 0 for count in pc.list_value_length(cells).unique().to_pylist()]
    if not any(enough_steps(count, terms.horizon) for count in steps):
        raise too_short(manifest.ref, terms.horizon)
    return ()


def too_short(dataset: str, horizon: int | None) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"No series of the training split of {dataset} is long enough to learn from: a horizon of {horizon} steps "
        "comes off its end twice, for the question and for the targets.",
        next=[CallAgain("train_model", {"hyperparameters": {"horizon": None}}, "or with a smaller one")],
    )
