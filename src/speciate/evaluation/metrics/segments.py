"""Metrics of segments and of depths, an image at a time. Compared at the size of the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from speciate.evaluation.metrics.metric import Answers, Statistic
from speciate.evaluation.statistics import Floats
from speciate.modalities.depth_maps import from_map
from speciate.modalities.segmentation_masks import from_runs, resize_labels
from speciate.tasks.families.depth import aligned

_FOUND = 0.5
"""Overlap above which a segment is found: no other can overlap it as much."""
_FACTOR = 1.25
_WORST = 1.0
"""Error of an image that has no answer: as of one that says 0 everywhere."""


def _panoptic_quality(answers: Answers) -> Statistic:
    """Sums for each label: overlap of the segments that are found, their number, segments of the answer that are none,
    and those of the reference that are missed. A label that neither shows does not count."""
    names = sorted({label for target in answers.references for label in target["labels"]})
    extra = sorted({label for given in answers.given for label in _labels(given)} - set(names))
    place = {label: 4 * k for k, label in enumerate([*names, *extra])}
    parts = np.zeros((len(answers.references), 4 * len(place)))
    for row, reference, given in zip(parts, answers.references, answers.given, strict=True):
        _count_segments(row, place, reference, given)
    return Statistic(parts, _quality)


def _quality(sums: Floats) -> Floats:
    overlap, found, wrong, missed = (sums[:, each::4] for each in range(4))
    count = found + (wrong + missed) / 2
    qualities = np.divide(overlap, count, out=np.zeros_like(overlap), where=count > 0)
    shown = (count > 0).sum(1)
    means: Floats = np.divide(qualities.sum(1), shown, out=np.ones(len(sums)), where=shown > 0)
    return means


def _count_segments(row: Floats, place: Mapping[str, int], reference: Mapping[str, Any], given: Any) -> None:
    true = from_runs(reference["rle"], reference["size"]).astype(np.int64)
    said, labels = np.zeros_like(true), _labels(given)
    try:
        said = resize_labels(from_runs(given["rle"], given["size"]), reference["size"]).astype(np.int64)
        if said.max(initial=0) > len(labels):
            raise ValueError("a segment without a label")
    except (TypeError, KeyError, ValueError, IndexError, OverflowError):
        said, labels = np.zeros_like(true), []
    wide = len(labels) + 1
    table = np.bincount(true.ravel() * wide + said.ravel(), minlength=(len(reference["labels"]) + 1) * wide)
    table = table.reshape(-1, wide)
    matched = set[int]()
    for code, label in enumerate(reference["labels"], 1):
        unions = table[code].sum() + table.sum(0) - table[code]
        same = [k for k in range(1, wide) if labels[k - 1] == label]
        best = max(same, key=lambda k, row=table[code], of=unions: row[k] / of[k], default=0)  # type: ignore[misc]
        overlap = table[code, best] / unions[best] if best else 0.0
        start = place[label]
        if overlap > _FOUND:
            matched.add(best)
            row[start : start + 2] += overlap, 1
        else:
            row[start + 3] += 1
    for k in range(1, wide):
        if k not in matched and table[:, k].any():
            row[place[labels[k - 1]] + 2] += 1


def _labels(given: Any) -> list[str]:
    labels = given.get("labels") if isinstance(given, Mapping) else None
    return [str(label) for label in labels] if isinstance(labels, list | tuple) else []


def _abs_rel(answers: Answers) -> Floats:
    return np.array(
        [_compare(*pair, lambda said, true: np.abs(said - true) / true, _WORST) for pair in _pairs(answers)]
    )


def _delta_1(answers: Answers) -> Floats:
    def within(said: Floats, true: Floats) -> Floats:
        return (np.maximum(said / true, true / np.maximum(said, 1e-12)) < _FACTOR).astype(float)

    return np.array([_compare(*pair, within, 0.0) for pair in _pairs(answers)])


def _pairs(answers: Answers) -> list[tuple[Any, Any]]:
    return list(zip(answers.references, answers.given, strict=True))


def _compare(reference: Any, given: Any, measure: Callable[[Floats, Floats], Floats], worst: float) -> float:
    """Mean over the pixels that the reference knows; `worst` without an answer to all of them."""
    true = from_map(reference)
    try:
        said = aligned(from_map(given), true, relative=bool(given.get("relative", False)))
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, np.linalg.LinAlgError):
        return worst
    known = np.isfinite(true)
    if not np.isfinite(said[known]).all():
        return worst
    found = float(measure(said[known], true[known]).mean())
    return found if math.isfinite(found) else worst


MEANS: dict[str, Callable[[Answers], Floats]] = {"abs_rel": _abs_rel, "delta_1": _delta_1}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {"pq": _panoptic_quality}
