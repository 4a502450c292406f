"""Metrics of a label for each pixel, an image at a time. Compared at the size of the truth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from speciate.evaluation.metrics.answers import Answers
from speciate.evaluation.statistics import Floats
from speciate.tasks.masks import from_runs, resized


def _of_images(measure: Callable[[Floats, Floats], Floats], answers: Answers) -> Floats:
    return np.array(
        [_of_image(measure, truth, given) for truth, given in zip(answers.truth, answers.given, strict=True)]
    )


def _of_image(measure: Callable[[Floats, Floats], Floats], truth: dict[str, Any], given: Any) -> float:
    """Mean over the labels that truth or answer show, background aside; 1 where neither shows any."""
    labels: dict[str, int] = {label: place for place, label in enumerate(truth["labels"], 1)}
    try:
        codes = np.array([0, *(labels.setdefault(label, len(labels) + 1) for label in given["labels"])])
        said = codes[resized(from_runs(given["rle"], given["size"]), truth["size"])]
    except (TypeError, KeyError, ValueError, IndexError):  # no answer, or none of this kind
        return 0.0
    true = from_runs(truth["rle"], truth["size"]).astype(np.int64)
    count = len(labels) + 1
    table = np.bincount(true.ravel() * count + said.ravel(), minlength=count * count).reshape(count, count)
    both, sums = np.diag(table)[1:].astype(float), (table.sum(0) + table.sum(1))[1:].astype(float)
    shown = sums > 0
    return float(measure(both[shown], sums[shown]).mean()) if shown.any() else 1.0


def _dice(both: Floats, sums: Floats) -> Floats:
    return 2 * both / sums


def _iou(both: Floats, sums: Floats) -> Floats:
    return both / (sums - both)


MEANS: dict[str, Callable[[Answers], Floats]] = {
    "dice": partial(_of_images, _dice),
    "mean_iou": partial(_of_images, _iou),
}
