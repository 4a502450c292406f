"""Labels with very few test rows, where the metric counts every label alike: one answer moves it, and few know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from speciate.datasets import version_rows
from speciate.datasets.versions import Manifest
from speciate.tasks.example_targets import is_label
from speciate.use_cases import UseCase
from speciate.vocabulary import Metric, find_metric
from speciate.workspace.workspace import Folders

if TYPE_CHECKING:  # with it comes scipy, which a plan needs not
    from speciate.evaluation.metrics import Answers

_ALIKE = {"f1_macro": "F1", "balanced_accuracy": "recall"}
"""Metric -> what it averages over the labels."""
_FEW_ROWS = 10
_SHOWN = 3
_SHARES = {2: "a half", 3: "a third", 4: "a quarter", 5: "a fifth"}


def rare_label_warnings(metric: str, rows: Mapping[str, int]) -> list[str]:
    """`rows`: test rows by label. A label is rare where it has few, and less than half the rows that its weight is."""
    labels = {label: count for label, count in rows.items() if count}
    if metric not in _ALIKE or len(labels) < 2:
        return []
    fair = sum(labels.values()) / len(labels)
    rare = sorted((count, label) for label, count in labels.items() if count < _FEW_ROWS and 2 * count < fair)
    if not rare:
        return []
    named = [f"{label[:64]!r} has {count} test row{'' if count == 1 else 's'}" for count, label in rare[:_SHOWN]]
    more = f" and {len(rare) - _SHOWN} further labels have few" if len(rare) > _SHOWN else ""
    each, what = "counts" if len(rare) == 1 else "each counts", find_metric(metric).plain
    share = _SHARES.get(len(labels), f"1/{len(labels)}")
    return [
        f"{', '.join(named)}{more} and {each} for {share} of {what}: a single answer may decide a verdict. Add test "
        "rows of that label, or choose a metric that counts rows."
    ]


def frequent_label_warnings(use_case: UseCase | None, manifest: Manifest) -> list[str]:
    """Where one label is so frequent that to say it always has the accuracy that is wanted."""
    if use_case is None or use_case.metric.name != "accuracy" or not (target := use_case.objective.target):
        return []
    if not manifest.labels or not is_label(manifest, use_case.target_column):
        return []
    label, count = max(manifest.labels.items(), key=lambda each: each[1])
    share = count / sum(manifest.labels.values())
    if share < target:
        return []
    return [
        f"{share:.0%} of the rows have the label {label[:64]!r}: to say it always reaches the target {target:g} in "
        "accuracy. Ask for more, or choose a metric that counts every label alike, such as balanced_accuracy."
    ]


def count_test_rows(
    folders: Folders, manifest: Manifest, use_case: UseCase | None, split: str | None = "test"
) -> Mapping[str, int]:
    """Test rows by label, for a metric that counts every label alike; empty for others, and where the target is
    another column, or a number."""
    if use_case is None or use_case.metric.name not in _ALIKE or not manifest.labels:
        return {}
    if not is_label(manifest, use_case.target_column):
        return {}
    judged = version_rows.read(folders, manifest, ["label"], splits={split} if split else None, usable=True)
    return Counter(map(str, judged["label"].drop_null().to_pylist()))


def warnings_of_test_rows(
    folders: Folders, manifest: Manifest, use_case: UseCase | None, split: str | None = "test"
) -> list[str]:
    """`rare_label_warnings` of a version's rows."""
    tested = count_test_rows(folders, manifest, use_case, split)
    return rare_label_warnings(use_case.metric.name, tested) if use_case else []


def unfound_labels(metric: Metric, repeats: Sequence[Answers]) -> list[str]:
    """A remark for each label with test rows that no answer gets right, in any repeat."""
    if metric.name not in _ALIKE:
        return []
    references, labels, remarks = repeats[0].references, repeats[0].labels, []
    found = np.logical_or.reduce([answers.given == references for answers in repeats])
    for code in np.unique(references).tolist():
        asked = references == code
        if not found[asked].any():
            remarks.append(
                f"{labels[code][:64]!r}: 0 of {int(asked.sum())} found; its {_ALIKE[metric.name]} of 0 does not vary "
                f"when rows are drawn again, so the interval of {metric.plain} may be too narrow"
            )
    return remarks[:_SHOWN] + ([f"{len(remarks) - _SHOWN} further labels: none found"] if len(remarks) > _SHOWN else [])
