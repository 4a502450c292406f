"""From answers to scores: each example's own score, or what a corpus metric needs of each example.

The definitions are scikit-learn's (the tests hold them to it); they are written over sums of per-example counts, so
that thousands of weighted resamples are one matrix product. An error is an answer like any other: the worst one. It
is wrong as a label (a miss, or a false alarm), has no probability for the truth, and as a number lies at the far end
of the truth's range.

Shapes: n examples, K labels, C clusters, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speciate.evaluation.statistics import Codes, Floats
from speciate.vocabulary import Metric

_SMALLEST = float(np.finfo(np.float64).eps)  # as scikit-learn clips probabilities in log_loss
UNKNOWN, ERROR = -1, -2
"""Codes of an answer that is no known label, and of no answer at all."""


class Answers(NamedTuple):
    """One model's answers to n examples, beside the truth.

    `truth` and `given` are codes into `labels` (classification) or numbers (regression; an error is NaN).
    `probabilities` is (n, K); rows of models without probabilities are one-hot.
    """

    truth: NDArray[np.generic]
    given: NDArray[np.generic]
    labels: tuple[str, ...] = ()
    positive: int | None = None
    probabilities: Floats | None = None


class Statistic(NamedTuple):
    """A corpus metric as sums: `combine` maps weighted sums of `parts`, (B, S), to values, (B,)."""

    parts: Floats
    combine: Callable[[Floats], Floats]


def label_answers(
    truth: Sequence[str],
    given: Sequence[str | None],
    probabilities: Sequence[dict[str, float] | None],
    labels: Sequence[str],
    positive: str | None = None,
) -> Answers:
    """Answers of a classifier; `given` None is an error. Labels that only the truth knows are added."""
    names = tuple(labels) + tuple(sorted(set(truth) - set(labels)))
    code = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(truth), len(names)))
    for row, (answer, chances) in enumerate(zip(given, probabilities, strict=True)):
        if answer is None:
            continue
        for name, chance in (chances or {answer: 1.0}).items():
            if name in code:
                table[row, code[name]] = chance
    return Answers(
        np.array([code[name] for name in truth], np.int64),
        np.array([ERROR if answer is None else code.get(answer, UNKNOWN) for answer in given], np.int64),
        names,
        code.get(positive) if positive is not None else None,
        table,
    )


def number_answers(truth: Sequence[float], given: Sequence[float | None]) -> Answers:
    """Answers of a regressor; `given` None (or not finite) is an error."""
    numbers = np.array([math.nan if answer is None else answer for answer in given], float)
    numbers[~np.isfinite(numbers)] = math.nan
    return Answers(np.array(truth, float), numbers)


# Means: a score per example, NaN where the metric does not count the example


def contributions(metric: Metric, answers: Answers) -> Floats:
    """Scores (n,) whose mean is the metric. Only for metrics of shape `mean`."""
    return _MEANS[metric.name](answers)


def _accuracy(answers: Answers) -> Floats:
    return np.asarray(answers.truth == answers.given, np.float64)


def _recall(answers: Answers) -> Floats:
    return np.where(answers.truth == answers.positive, answers.given == answers.positive, math.nan)


def _specificity(answers: Answers) -> Floats:
    alone = (answers.given != answers.positive) & (answers.given != ERROR)
    return np.where(answers.truth != answers.positive, alone, math.nan)


def _log_loss(answers: Answers) -> Floats:
    table = _table(answers)
    total = table.sum(1)
    chance = table[np.arange(len(table)), answers.truth.astype(np.int64)]
    share = np.divide(chance, total, out=np.zeros_like(chance), where=total > 0)
    losses: Floats = -np.log(np.clip(share, _SMALLEST, 1.0))
    return losses


def _mae(answers: Answers) -> Floats:
    misses: Floats = np.abs(_numbers(answers) - answers.truth.astype(float))
    return misses


_MEANS: dict[str, Callable[[Answers], Floats]] = {
    "accuracy": _accuracy, "recall": _recall, "specificity": _specificity, "log_loss": _log_loss, "mae": _mae,
}  # fmt: skip


# Corpus metrics


def corpus(metric: Metric, answers: Answers, clusters: Codes) -> Callable[[Floats], Floats]:
    """The metric as a function of cluster weights, (B, C) -> (B,). Only for metrics of shape `corpus`.

    NaN where a resample leaves the metric undefined.
    """
    if metric.name in _RANKS:
        return _ranked(_RANKS[metric.name], answers, clusters)
    parts, combine = _STATISTICS[metric.name](answers)
    sums = np.zeros((int(clusters.max()) + 1, parts.shape[1]))
    np.add.at(sums, clusters, parts)

    def value(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return combine(weights @ sums)

    return value


def _counts(answers: Answers) -> Floats:
    """Per example and label: hit, given, true; (n, 3K)."""
    codes = np.arange(len(answers.labels))
    given, true = answers.given[:, None] == codes, answers.truth[:, None] == codes
    return np.hstack([given & true, given, true]).astype(float)


def _thirds(sums: Floats) -> tuple[Floats, Floats, Floats]:
    hit, given, true = np.split(sums, 3, axis=1)
    return hit, given, true


def _balanced_accuracy(answers: Answers) -> Statistic:
    def combine(sums: Floats) -> Floats:
        hit, _, true = _thirds(sums)
        return _mean_where(hit / true, true > 0)

    return Statistic(_counts(answers), combine)


def _f1_macro(answers: Answers) -> Statistic:
    def combine(sums: Floats) -> Floats:
        hit, given, true = _thirds(sums)
        return _mean_where(2 * hit / (given + true), given + true > 0)

    return Statistic(_counts(answers), combine)


def _mcc(answers: Answers) -> Statistic:
    """Gorodkin (2004) for K labels. Errors count among the examples, and under no label that was given."""

    def combine(sums: Floats) -> Floats:
        hit, given, true = _thirds(sums)
        n = true.sum(1)
        covariance = hit.sum(1) * n - (given * true).sum(1)
        spread = (n**2 - np.square(given).sum(1)) * (n**2 - np.square(true).sum(1))
        return np.where(spread > 0, covariance / np.sqrt(spread), 0.0)

    return Statistic(_counts(answers), combine)


def _precision(answers: Answers) -> Statistic:
    """0 where there was no alarm."""

    def combine(sums: Floats) -> Floats:
        return np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], 0.0)

    return Statistic(_of_positive(answers), combine)


def _f1(answers: Answers) -> Statistic:
    def combine(sums: Floats) -> Floats:
        return 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2])

    return Statistic(_of_positive(answers), combine)


def _of_positive(answers: Answers) -> Floats:
    """An error on a negative counts as an alarm."""
    true = answers.truth == answers.positive
    given = (answers.given == answers.positive) | ((answers.given == ERROR) & ~true)
    return np.stack([given & true, given, true], axis=1).astype(float)


def _rmse(answers: Answers) -> Statistic:
    error = _numbers(answers) - answers.truth.astype(float)
    return Statistic(np.stack([np.ones_like(error), error**2], 1), lambda sums: np.sqrt(sums[:, 1] / sums[:, 0]))


def _r2(answers: Answers) -> Statistic:
    truth = answers.truth.astype(float)
    truth_centred = truth - truth.mean()  # for the precision of the sums of squares
    error = _numbers(answers) - truth
    parts = np.stack([np.ones_like(error), error**2, truth_centred, truth_centred**2], axis=1)

    def combine(sums: Floats) -> Floats:
        spread = sums[:, 3] - np.square(sums[:, 2]) / sums[:, 0]
        return np.where(spread > 0, 1 - sums[:, 1] / spread, math.nan)

    return Statistic(parts, combine)


_STATISTICS: dict[str, Callable[[Answers], Statistic]] = {
    "balanced_accuracy": _balanced_accuracy, "f1_macro": _f1_macro, "mcc": _mcc, "precision": _precision, "f1": _f1,
    "rmse": _rmse, "r2": _r2,
}  # fmt: skip


# Metrics of ranks: one sort, then cumulated weights


def _ranked(
    measure: Callable[[Floats, Floats], Floats], answers: Answers, clusters: Codes
) -> Callable[[Floats], Floats]:
    """Of the positive label, else the mean over the labels that occur, each against the rest."""
    table = _table(answers)
    known = range(len(answers.labels)) if answers.positive is None else (answers.positive,)
    wanted = [label for label in known if (answers.truth == label).any()]
    sides = [(_worst_for_errors(table[:, label], answers, label), answers.truth == label) for label in wanted]

    def one(weights: Floats, scores: Floats, positive: NDArray[np.bool_]) -> Floats:
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last example of each tie
        drawn = weights[:, clusters[order]]
        hits = np.cumsum(drawn * positive[order], axis=1)[:, ends]
        alarms = np.cumsum(drawn * ~positive[order], axis=1)[:, ends]
        return measure(hits, alarms)

    def value(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.concatenate(
                [
                    np.mean([one(chunk, scores, positive) for scores, positive in sides], axis=0)
                    for chunk in np.array_split(weights, max(1, weights.shape[0] * len(clusters) // 4_000_000))
                ]
            )

    return value


def _worst_for_errors(scores: Floats, answers: Answers, label: int) -> Floats:
    """An error ranks a positive last and a negative first."""
    return np.where(answers.given == ERROR, np.where(answers.truth == label, -1.0, 2.0), scores)


def _auroc(hits: Floats, alarms: Floats) -> Floats:
    """Trapezoids below the ROC curve; (B, thresholds) of cumulated positives and negatives -> (B,)."""
    found, false = hits / hits[:, -1:], alarms / alarms[:, -1:]
    step = np.diff(false, axis=1, prepend=0.0)
    before = np.hstack([np.zeros((len(found), 1)), found[:, :-1]])
    area: Floats = (step * (found + before) / 2).sum(1)
    return area


def _auprc(hits: Floats, alarms: Floats) -> Floats:
    """Average precision: precision weighted by each threshold's gain in recall, without interpolation."""
    alerts = hits + alarms
    precision = np.divide(hits, alerts, out=np.zeros_like(hits), where=alerts > 0)
    average: Floats = (np.diff(hits / hits[:, -1:], axis=1, prepend=0.0) * precision).sum(1)
    return average


_RANKS: dict[str, Callable[[Floats, Floats], Floats]] = {"auroc": _auroc, "auprc": _auprc}


# Errors as the worst answers


def _numbers(answers: Answers) -> Floats:
    truth, given = answers.truth.astype(float), answers.given.astype(float)
    low, high = truth.min(), truth.max()
    farthest = np.where(truth - low > high - truth, low, high)
    return np.where(np.isnan(given), farthest, given)


def _table(answers: Answers) -> Floats:
    if answers.probabilities is None:
        raise TypeError("label answers carry a table of probabilities")
    return answers.probabilities


def _mean_where(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    means: Floats = np.where(counted, values, 0.0).sum(1) / counted.sum(1)
    return means
