"""Metrics of boxes: average precision as pycocotools computes it, at one overlap or the mean over ten.

The library's own matching is per image too, but it ranks and averages within one call that takes no weights, so
that a resample would have to be evaluated anew, copies of images under new ids: thousands of times seconds. So this
is ours, and the tests hold it to the library. Boxes are matched within their image, whatever its weight; a resample
only weighs the images anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from speciate.evaluation.metrics.metric import Answers
from speciate.evaluation.statistics import Codes, Floats

_MOST = 100
_OVERLAPS = tuple(percent / 100 for percent in range(50, 100, 5))
_EQUAL = 1e-10  # as pycocotools starts from min(overlap, 1 - 1e-10)
_RECALLS = np.linspace(0, 1, 101)


class _Meeting(NamedTuple):
    """The boxes of one label in one image, surest first, beside its objects, of which those of crowds come last."""

    scores: list[float]  # (D,)
    overlaps: Floats  # (D, objects)
    real: int
    """Objects that are no crowd."""
    cluster: int


class _Ranked(NamedTuple):
    """The boxes of one label over all images, surest first: what each is, and the cluster that it lies in."""

    hit: NDArray[np.bool_]  # (D,)
    clusters: Codes  # (D,)
    true: Floats  # (C,): true boxes of each cluster


def _mean_average_precision(overlaps: Sequence[float], answers: Answers, clusters: Codes) -> Callable[[Floats], Floats]:
    """Mean over the labels that a resample's references have; NaN where they have none."""
    labels = sorted(
        {each["label"] for reference in answers.references for each in reference["objects"] if not each.get("crowd")}
    )
    given = [_readable(answer) for answer in answers.given]
    met, count = [_meetings(answers.references, given, label, clusters) for label in labels], int(clusters.max()) + 1
    ranked = [_rank(meetings, count, least) for meetings in met for least in overlaps]

    def value(weights: Floats) -> Floats:
        if not ranked:
            return np.full(len(weights), math.nan)
        each = np.stack([_average_precision(one, weights) for one in ranked], 1)  # (B, labels x overlaps)
        counted = ~np.isnan(each)
        with np.errstate(invalid="ignore"):
            means: Floats = np.where(counted, each, 0.0).sum(1) / counted.sum(1)
        return means

    return value


class _Box(TypedDict):
    label: str
    score: float
    box: Floats
    """(4,)"""


def _readable(answer: Any) -> list[_Box] | None:
    """None where that is not what was answered. Stored answers may be written as COCO does."""
    try:
        return [
            {
                "label": str(each["label"] if "label" in each else each["category"]),
                "score": float(each.get("score", 1.0)),
                "box": np.array(each["box"] if "box" in each else each["bbox"], float).reshape(4),
            }
            for each in answer
        ]
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        return None


def _meetings(
    references: NDArray[Any], given: Sequence[list[_Box] | None], label: str, clusters: Codes
) -> list[_Meeting]:
    """Images that neither show nor are said to show the label count for nothing."""
    met = []
    for reference, answer, cluster in zip(references, given, clusters, strict=True):
        objects = [each for each in reference["objects"] if each["label"] == label]
        objects.sort(key=lambda each: bool(each.get("crowd")))
        real = sum(not each.get("crowd") for each in objects)
        if answer is None:  # finds nothing, and where there is nothing is the surest of false alarms
            met.append(_Meeting([] if real else [math.inf], np.zeros((0 if real else 1, 0)), real, cluster))
            continue
        boxes = sorted((each for each in answer if each["label"] == label), key=lambda box: -box["score"])[:_MOST]
        if objects or boxes:
            met.append(_Meeting([box["score"] for box in boxes], _overlaps(boxes, objects, real), real, cluster))
    return met


def _rank(meetings: Sequence[_Meeting], clusters: int, least: float) -> _Ranked:
    hits, scores, places = [], [], []
    true = np.zeros(clusters)
    for met in meetings:
        true[met.cluster] += met.real
        for score, hit in _matched(met, least):
            scores.append(score)
            hits.append(hit)
            places.append(met.cluster)
    order = np.argsort(-np.array(scores), kind="stable")
    return _Ranked(np.array(hits, bool)[order], np.array(places, np.int64)[order], true)


def _matched(met: _Meeting, least: float) -> list[tuple[float, bool]]:
    """Score and whether it is a hit, of each box that counts: the surest first takes the free object that it overlaps
    most. What lies in a crowd counts neither way.
    """
    real = met.real
    free = np.ones(real, bool)
    found = []
    for score, row in zip(met.scores, met.overlaps, strict=True):
        probabilities = np.where(free, row[:real], -1.0)
        if real and probabilities.max() >= least - _EQUAL:
            free[int(real - 1 - np.argmax(probabilities[::-1]))] = False  # of equals the last, as in pycocotools
            found.append((score, True))
        elif not (row[real:] >= least - _EQUAL).any():
            found.append((score, False))
    return found


def _overlaps(boxes: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]], real: int) -> Floats:
    """(boxes, objects): intersection over union; of crowds, which come last, over the box itself."""
    if not boxes or not objects:
        return np.zeros((len(boxes), len(objects)))
    one = np.array([box["box"] for box in boxes], float)[:, None]
    other = np.array([each["box"] for each in objects], float)[None, :]
    sides = np.minimum(one[..., :2] + one[..., 2:], other[..., :2] + other[..., 2:]) - np.maximum(
        one[..., :2], other[..., :2]
    )
    common = np.clip(sides, 0, None).prod(-1)
    alone = one[..., 2:].prod(-1)
    whole = np.where(np.arange(len(objects)) < real, alone + other[..., 2:].prod(-1) - common, alone)
    overlaps: Floats = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return overlaps


def _average_precision(ranked: _Ranked, weights: Floats) -> Floats:
    """(B, C) -> (B,): precision at 101 recalls, each the best that is reached there or beyond."""
    total = weights @ ranked.true
    drawn = weights[:, ranked.clusters]
    hits = np.cumsum(drawn * ranked.hit, 1)
    alarms = np.cumsum(drawn * ~ranked.hit, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / total[:, None]
        precision = np.nan_to_num(hits / (hits + alarms))
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    best = np.hstack([best, np.zeros((len(best), 1))])
    values = np.full(len(weights), math.nan)
    for row in np.flatnonzero(total > 0):
        values[row] = best[row, np.searchsorted(recall[row], _RECALLS)].mean()
    return values


CORPORA: dict[str, Callable[[Answers, Codes], Callable[[Floats], Floats]]] = {
    "map_50": partial(_mean_average_precision, (0.5,)), "map": partial(_mean_average_precision, _OVERLAPS),
}  # fmt: skip
