"""Metrics of a label for each pixel or voxel, an image or volume at a time. Compared at the size of the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speciate.evaluation.metrics.metric import Answers
from speciate.evaluation.statistics import Codes, Floats
from speciate.modalities.segmentation_masks import from_runs, resize_labels

Mask = NDArray[np.bool_]


class _Maps(NamedTuple):
    """(h, w) or (d, h, w) codes of `labels` labels from 1, 0 for background. `predicted` None: no answer, or one of
    another kind. `spacing`: from one place to the next along each axis, in pixels, or in millimetres of a volume."""

    true: Codes
    predicted: Codes | None
    labels: int
    spacing: tuple[float, ...]


def _of_images(measure: Callable[[_Maps], float], answers: Answers) -> Floats:
    return np.array([measure(_maps(*pair)) for pair in zip(answers.references, answers.given, strict=True)])


def _maps(reference: Mapping[str, Any], given: Any) -> _Maps:
    labels: dict[str, int] = {label: place for place, label in enumerate(reference["labels"], 1)}
    true = from_runs(reference["rle"], reference["size"]).astype(np.int64)
    try:
        codes = np.array([0, *(labels.setdefault(label, len(labels) + 1) for label in given["labels"])])
        predicted = codes[resize_labels(from_runs(given["rle"], given["size"]), reference["size"])]
    except (TypeError, KeyError, ValueError, IndexError, OverflowError):
        predicted = None
    return _Maps(true, predicted, len(labels), tuple(reference.get("spacing", (1.0,) * true.ndim)))


def _overlap(measure: Callable[[Floats, Floats], Floats], maps: _Maps) -> float:
    """Mean over the labels that reference or answer show, background aside; 1 where neither shows any."""
    if maps.predicted is None:
        return 0.0
    count = maps.labels + 1
    table = np.bincount(maps.true.ravel() * count + maps.predicted.ravel(), minlength=count * count).reshape(
        count, count
    )
    both, sums = np.diag(table)[1:].astype(float), (table.sum(0) + table.sum(1))[1:].astype(float)
    shown = sums > 0
    return float(measure(both[shown], sums[shown]).mean()) if shown.any() else 1.0


def _dice(both: Floats, sums: Floats) -> Floats:
    return 2 * both / sums


def _iou(both: Floats, sums: Floats) -> Floats:
    return both / (sums - both)


def _pixel_accuracy(maps: _Maps) -> float:
    return 0.0 if maps.predicted is None else float((maps.true == maps.predicted).mean())


def _hausdorff_95(maps: _Maps) -> float:
    """Mean over the labels that reference or answer show. The image's diagonal for a label that only one of them shows,
    and where there is no answer; 0 where neither shows any."""
    farthest = math.hypot(*(length * apart for length, apart in zip(maps.true.shape, maps.spacing, strict=True)))
    if maps.predicted is None:
        return farthest
    each = [_distance(maps.true == k, maps.predicted == k, farthest, maps.spacing) for k in range(1, maps.labels + 1)]
    shown = [distance for distance in each if distance is not None]
    return float(np.mean(shown)) if shown else 0.0


def _distance(true: Mask, predicted: Mask, farthest: float, spacing: Sequence[float]) -> float | None:
    if not true.any() or not predicted.any():
        return farthest if true.any() or predicted.any() else None
    edges = border(true), border(predicted)
    return max(float(np.percentile(gaps(*pair, spacing), 95)) for pair in (edges, edges[::-1]))


def border(mask: Mask) -> Mask:
    """The pixels of a mask with a side to what is not it; beyond the image is not it."""
    from scipy.ndimage import binary_erosion

    edge: Mask = mask & ~binary_erosion(mask)
    return edge


def gaps(one: Mask, other: Mask, spacing: Sequence[float] | None = None) -> Floats:
    """Distance from each pixel of one to the nearest of the other, in pixels or in what `spacing` counts in."""
    from scipy.ndimage import distance_transform_edt

    distances: Floats = distance_transform_edt(~other, sampling=spacing)[one]
    return distances


MEANS: dict[str, Callable[[Answers], Floats]] = {
    "dice": partial(_of_images, partial(_overlap, _dice)),
    "mean_iou": partial(_of_images, partial(_overlap, _iou)),
    "pixel_accuracy": partial(_of_images, _pixel_accuracy),
    "hausdorff_95": partial(_of_images, _hausdorff_95),
}
