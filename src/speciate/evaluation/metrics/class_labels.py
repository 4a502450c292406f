"""Metrics of labels: one per example, ordered ones, any number per example, and rankings by probability.

The definitions are scikit-learn's (the tests hold them to it). `Answers.labels` of ordered labels are in the order of
their ranks; an error, and a label of no rank, is as far from the reference as a label can be. F1 of label sets is
undefined without any label, referenced or predicted. Rankings need one sort, then cumulated weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from speciate.evaluation.metrics.metric import ERROR, Answers, Statistic
from speciate.evaluation.statistics import Codes, Floats
from speciate.vocabulary import RECALL_AT_PRECISIONS

_BINS = 15
_SMALLEST = float(np.finfo(np.float64).eps)  # as scikit-learn clips probabilities in log_loss


def _accuracy(answers: Answers) -> Floats:
    return np.asarray(answers.references == answers.given, np.float64)


def _recall(answers: Answers) -> Floats:
    return np.where(answers.references == answers.positive, answers.given == answers.positive, math.nan)


def _specificity(answers: Answers) -> Floats:
    alone = (answers.given != answers.positive) & (answers.given != ERROR)
    return np.where(answers.references != answers.positive, alone, math.nan)


def _log_loss(answers: Answers) -> Floats:
    table = answers.table
    total = table.sum(1)
    probability = table[np.arange(len(table)), answers.references.astype(np.int64)]
    share = np.divide(probability, total, out=np.zeros_like(probability), where=total > 0)
    losses: Floats = -np.log(np.clip(share, _SMALLEST, 1.0))
    return losses


def _brier(answers: Answers) -> Floats:
    """Brier (1950), halved, so that it lies between 0 and 1 whatever the number of labels. 1 for an error."""
    table = answers.table
    total = table.sum(1, keepdims=True)
    shares = np.divide(table, total, out=np.zeros_like(table), where=total > 0)
    shares[np.arange(len(table)), answers.references.astype(np.int64)] -= 1
    return np.where(total[:, 0] > 0, np.square(shares).sum(1) / 2, 1.0)


def _top_5_accuracy(answers: Answers) -> Floats:
    """Top-5 hit of each example, (N,), 0 to 1. Of equally probable labels as many count as there are places left. A
    reference without a probability scores 0."""
    table = answers.table
    true = table[np.arange(len(table)), answers.references.astype(np.int64)][:, None]
    before, equal = (table > true).sum(1), (table == true).sum(1)
    return np.where(true[:, 0] > 0, np.clip((5 - before) / equal, 0.0, 1.0), 0.0)


def _ece(answers: Answers) -> Statistic:
    """Expected calibration error (Guo et al. 2017) with as many examples in each bin (Nixon et al. 2019).

    The bins are those of all examples, also where they are drawn anew; equal confidences share one. An error is wrong
    and certain.
    """
    table = answers.table
    total = table.sum(1)
    sure = np.divide(table.max(1), total, out=np.ones_like(total), where=total > 0).round(12)  # equals stay equal
    right = (answers.references == answers.given).astype(float)
    edges = np.quantile(sure, np.arange(1, _BINS) / _BINS)
    bins = np.eye(_BINS)[np.searchsorted(edges, sure, side="right")]
    parts = np.hstack([np.ones((len(sure), 1)), bins * (right - sure)[:, None]])
    return Statistic(parts, lambda sums: np.abs(sums[:, 1:]).sum(1) / sums[:, 0])


def _counts(answers: Answers) -> Floats:
    """Per example and label: hit, given, true; (n, 3K)."""
    codes = np.arange(len(answers.labels))
    given, true = answers.given[:, None] == codes, answers.references[:, None] == codes
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


def _cohen_kappa(answers: Answers) -> Statistic:
    """Cohen (1960). Undefined where reference and answers are all of one label: scikit-learn's definition."""

    def combine(sums: Floats) -> Floats:
        n, (hit, given, true) = sums[:, 0], _thirds(sums[:, 1:])
        probability = (given * true).sum(1) / n**2
        return np.where(probability < 1, (hit.sum(1) / n - probability) / (1 - probability), math.nan)

    return Statistic(np.hstack([np.ones((len(answers.references), 1)), _counts(answers)]), combine)


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
    true = answers.references == answers.positive
    given = (answers.given == answers.positive) | ((answers.given == ERROR) & ~true)
    return np.stack([given & true, given, true], axis=1).astype(float)


def _mean_where(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    means: Floats = np.where(counted, values, 0.0).sum(1) / counted.sum(1)
    return means


def _rank_error(answers: Answers) -> Floats:
    misses: Floats = np.abs(_given_ranks(answers) - answers.references)
    return misses


def _quadratic_kappa(answers: Answers) -> Statistic:
    """Cohen (1968). Undefined where reference and answers are all of one label: scikit-learn's definition.

    The squares that chance would have are, over all pairs of a reference and an answer, n * sum(t^2) + n * sum(g^2)
    - 2 * sum(t) * sum(g).
    """
    true, given = answers.references.astype(float), _given_ranks(answers)
    parts = np.stack([np.ones_like(true), true, given, true**2, given**2, (true - given) ** 2], axis=1)

    def combine(sums: Floats) -> Floats:
        n, true, given, true_squares, given_squares, squares = sums.T
        probability = true_squares + given_squares - 2 * true * given / n
        return np.where(probability > 0, 1 - squares / probability, math.nan)

    return Statistic(parts, combine)


def _given_ranks(answers: Answers) -> Floats:
    last = len(answers.labels) - 1
    farthest = np.where(answers.references > last / 2, 0, last)
    return np.where(answers.given < 0, farthest, answers.given).astype(float)


def _subset_accuracy(answers: Answers) -> Floats:
    pairs = zip(answers.references, answers.given, strict=True)
    return np.array([given is not None and set(given) == set(reference) for reference, given in pairs], np.float64)


def _f1_micro(answers: Answers) -> Statistic:
    """An error counts as as many wrong labels as there are true ones, and at least as one."""
    parts = np.zeros((len(answers.references), 3))  # hit, given, true
    for row, (reference, given) in enumerate(zip(answers.references, answers.given, strict=True)):
        true = set(reference)
        found = None if given is None else set(given)
        said = max(1, len(true)) if found is None else len(found)
        parts[row] = len(true & (found or set())), said, len(true)
    return Statistic(parts, lambda sums: 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2]))


def _hamming_loss(answers: Answers) -> Floats:
    """An error is wrong about every label."""
    true, given, is_error = _tables(answers)
    return np.where(is_error, 1.0, (true != given).mean(1) if true.size else 0.0)


def _f1_macro_labels(answers: Answers) -> Statistic:
    """Over the labels that are true or given anywhere. An error gives every label that is not true, and no other."""
    true, given, is_error = _tables(answers)
    given = np.where(is_error[:, None], ~true, given)

    def combine(sums: Floats) -> Floats:
        hit, said, real = np.split(sums, 3, axis=1)
        counted = said + real > 0
        values = np.divide(2 * hit, said + real, out=np.zeros_like(hit), where=counted)
        means: Floats = values.sum(1) / counted.sum(1)
        return means

    return Statistic(np.hstack([true & given, given, true]).astype(float), combine)


def _tables(answers: Answers) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """(n, K) of what is true and what is given, of all labels that anybody knows; (n,) of errors."""
    sets = [[set(each or ()) for each in side] for side in (answers.references, answers.given)]
    labels = sorted(set(answers.labels).union(*sets[0], *sets[1]), key=repr)  # a model may answer numbers, too
    true, given = (np.array([[name in each for name in labels] for each in side], bool) for side in sets)
    shape = len(answers.references), len(labels)
    return true.reshape(shape), given.reshape(shape), np.array([each is None for each in answers.given])


def _ranking_metric(
    measure: Callable[[Floats, Floats], Floats], answers: Answers, clusters: Codes
) -> Callable[[Floats], Floats]:
    """A ranking metric as a function of resampling weights: of the positive label, else its mean over the labels that
    occur, each against the rest."""
    table = answers.table
    known = range(len(answers.labels)) if answers.positive is None else (answers.positive,)
    wanted = [label for label in known if (answers.references == label).any()]
    sides = [(_worst_for_errors(table[:, label], answers, label), answers.references == label) for label in wanted]

    def one(weights: Floats, scores: Floats, positive: NDArray[np.bool_]) -> Floats:
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last example of each tie
        drawn = weights[:, clusters[order]]
        hits = np.cumsum(drawn * positive[order], axis=1)[:, ends]
        alarms = np.cumsum(drawn * ~positive[order], axis=1)[:, ends]
        return measure(hits, alarms)

    def value(weights: Floats) -> Floats:
        if not sides:  # the positive label does not occur
            return np.full(len(weights), math.nan)
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
    return np.where(answers.given == ERROR, np.where(answers.references == label, -1.0, 2.0), scores)


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


def _recall_at(precision: float, hits: Floats, alarms: Floats) -> Floats:
    """The best recall of thresholds whose precision is at least this; 0 where there is none."""
    reached = hits >= precision * (hits + alarms) - 1e-9
    best: Floats = np.where(reached, hits / hits[:, -1:], 0.0).max(1)
    return best


CORPORA: dict[str, Callable[[Answers, Codes], Callable[[Floats], Floats]]] = {
    "auroc": partial(_ranking_metric, _auroc),
    "auprc": partial(_ranking_metric, _auprc),
    **{
        f"recall_at_precision_{percent}": partial(_ranking_metric, partial(_recall_at, percent / 100))
        for percent in RECALL_AT_PRECISIONS
    },
}


MEANS: dict[str, Callable[[Answers], Floats]] = {
    "accuracy": _accuracy,
    "recall": _recall,
    "specificity": _specificity,
    "log_loss": _log_loss,
    "brier": _brier,
    "top_5_accuracy": _top_5_accuracy,
    "rank_error": _rank_error,
    "subset_accuracy": _subset_accuracy,
    "hamming_loss": _hamming_loss,
}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
    "mcc": _mcc,
    "precision": _precision,
    "f1": _f1,
    "cohen_kappa": _cohen_kappa,
    "ece": _ece,
    "quadratic_kappa": _quadratic_kappa,
    "f1_micro": _f1_micro,
    "f1_macro_labels": _f1_macro_labels,
}
