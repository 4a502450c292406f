"""From answers to scores: each example's own score, or what a corpus metric needs of each example.

Metrics are written over sums of per-example counts, so that thousands of weighted resamples are one matrix product. An
error is an answer like any other: the worst one. It is wrong as a label (a miss, or a false alarm), has no probability
for the reference, and as a number lies at the far end of the references' range.

A file per kind of answer; each has tables of its metrics by name: MEANS, STATISTICS, CORPORA. A new metric: its
function and a line in a table of its file, its entry in speciate/vocabulary.py (METRICS), and its row in
docs/metrics.md; what else must know of it reads that entry (whether it counts right answers, say). A file's first table
of a kind is joined with the others' below. clouds.py and structure_scores.py are used by name: by a scorer that takes a
library's function. A caller's own scorers: ../scorers/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from speciate.evaluation.metrics import boxes, class_labels, images, numbers, pixels, segments, speech, texts, vectors
from speciate.evaluation.metrics.metric import Answers, Statistic, judged, label_answers, number_answers
from speciate.evaluation.statistics import Codes, Floats
from speciate.vocabulary import Metric

__all__ = [
    "Answers", "Statistic", "alone", "averaged", "contributions", "corpus", "corpus_mean", "judged", "label_answers",
    "number_answers",
]  # fmt: skip

_MEANS: dict[str, Callable[[Answers], Floats]] = (
    class_labels.MEANS
    | numbers.MEANS
    | texts.MEANS
    | vectors.MEANS
    | pixels.MEANS
    | segments.MEANS
    | images.MEANS
    | speech.MEANS
)
_STATISTICS: dict[str, Callable[[Answers], Statistic]] = (
    class_labels.STATISTICS
    | numbers.STATISTICS
    | texts.STATISTICS
    | vectors.STATISTICS
    | segments.STATISTICS
    | images.STATISTICS
)
_CORPORA: dict[str, Callable[[Answers, Codes], Callable[[Floats], Floats]]] = (
    class_labels.CORPORA | numbers.CORPORA | boxes.CORPORA
)
"""Metrics that are not a function of sums."""


def contributions(metric: Metric, answers: Answers) -> Floats:
    """Scores (n,) whose mean is the metric, NaN where it does not count the example. Only for shape `mean`."""
    return answers.scores[metric.name] if metric.name in answers.scores else _MEANS[metric.name](answers)


def averaged(metric: Metric, repeats: Sequence[Answers]) -> Floats:
    """(n,): each example's own score under a mean metric, the mean of its repeats; NaN where none counts it."""
    scores = np.stack([contributions(metric, answers) for answers in repeats])
    counted = ~np.isnan(scores)
    total = np.where(counted, scores, 0.0).sum(0)
    means: Floats = np.divide(total, counted.sum(0), out=np.full(scores.shape[1], np.nan), where=counted.any(0))
    return means


def corpus_mean(metric: Metric, repeats: Sequence[Answers], clusters: Codes) -> Callable[[Floats], Floats]:
    """`corpus`, as the mean over the repeats."""
    each = [corpus(metric, answers, clusters) for answers in repeats]
    return lambda weights: np.asarray(np.mean([value(weights) for value in each], axis=0), float)


def alone(metric: Metric, answers: Answers) -> Floats:
    """(n,): what the metric is of each example by itself; NaN where it is nothing then."""
    if metric.shape == "mean":
        return contributions(metric, answers)
    if metric.name in numbers.ALONE:
        return numbers.ALONE[metric.name](answers)
    if metric.name in _CORPORA:
        if answers.probabilities is not None:  # one example is no ranking
            return np.full(len(answers.references), np.nan)
        one, made = np.zeros(1, np.int64), _CORPORA[metric.name]
        singles = (
            answers._replace(references=answers.references[[i]], given=answers.given[[i]])
            for i in range(len(answers.references))
        )
        return np.array([made(single, one)(np.ones((1, 1)))[0] for single in singles])
    parts, combine = _STATISTICS[metric.name](answers)
    with np.errstate(invalid="ignore", divide="ignore"):
        return combine(parts)


def corpus(metric: Metric, answers: Answers, clusters: Codes) -> Callable[[Floats], Floats]:
    """The metric as a function of cluster weights, (B, C) -> (B,). Only for metrics of shape `corpus`.

    NaN where a resample leaves the metric undefined.
    """
    if metric.name in _CORPORA:
        return _CORPORA[metric.name](answers, clusters)
    parts, combine = _STATISTICS[metric.name](answers)
    sums = np.zeros((int(clusters.max()) + 1, parts.shape[1]))
    np.add.at(sums, clusters, parts)

    def value(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return combine(weights @ sums)

    return value
