"""Metrics of one label per example.

The definitions are scikit-learn's (the tests hold them to it).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from speciate.evaluation.metrics.answers import ERROR, Answers, Statistic
from speciate.evaluation.statistics import Floats

_BINS = 15
_SMALLEST = float(np.finfo(np.float64).eps)  # as scikit-learn clips probabilities in log_loss


def _accuracy(answers: Answers) -> Floats:
    return np.asarray(answers.truth == answers.given, np.float64)


def _recall(answers: Answers) -> Floats:
    return np.where(answers.truth == answers.positive, answers.given == answers.positive, math.nan)


def _specificity(answers: Answers) -> Floats:
    alone = (answers.given != answers.positive) & (answers.given != ERROR)
    return np.where(answers.truth != answers.positive, alone, math.nan)


def _log_loss(answers: Answers) -> Floats:
    table = answers.table
    total = table.sum(1)
    chance = table[np.arange(len(table)), answers.truth.astype(np.int64)]
    share = np.divide(chance, total, out=np.zeros_like(chance), where=total > 0)
    losses: Floats = -np.log(np.clip(share, _SMALLEST, 1.0))
    return losses


def _brier(answers: Answers) -> Floats:
    """Brier (1950), halved, so that it lies between 0 and 1 whatever the number of labels. 1 for an error."""
    table = answers.table
    total = table.sum(1, keepdims=True)
    shares = np.divide(table, total, out=np.zeros_like(table), where=total > 0)
    shares[np.arange(len(table)), answers.truth.astype(np.int64)] -= 1
    return np.where(total[:, 0] > 0, np.square(shares).sum(1) / 2, 1.0)


def _top_5_accuracy(answers: Answers) -> Floats:
    """Of labels that are equally probable as many count as there are places left; none without a probability."""
    table = answers.table
    true = table[np.arange(len(table)), answers.truth.astype(np.int64)][:, None]
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
    right = (answers.truth == answers.given).astype(float)
    edges = np.quantile(sure, np.arange(1, _BINS) / _BINS)
    bins = np.eye(_BINS)[np.searchsorted(edges, sure, side="right")]
    parts = np.hstack([np.ones((len(sure), 1)), bins * (right - sure)[:, None]])
    return Statistic(parts, lambda sums: np.abs(sums[:, 1:]).sum(1) / sums[:, 0])


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


def _cohen_kappa(answers: Answers) -> Statistic:
    """Cohen (1960). Undefined where truth and answers are all of one label: scikit-learn's definition."""

    def combine(sums: Floats) -> Floats:
        n, (hit, given, true) = sums[:, 0], _thirds(sums[:, 1:])
        chance = (given * true).sum(1) / n**2
        return np.where(chance < 1, (hit.sum(1) / n - chance) / (1 - chance), math.nan)

    return Statistic(np.hstack([np.ones((len(answers.truth), 1)), _counts(answers)]), combine)


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


def _mean_where(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    means: Floats = np.where(counted, values, 0.0).sum(1) / counted.sum(1)
    return means


MEANS: dict[str, Callable[[Answers], Floats]] = {
    "accuracy": _accuracy, "recall": _recall, "specificity": _specificity, "log_loss": _log_loss, "brier": _brier,
    "top_5_accuracy": _top_5_accuracy,
}  # fmt: skip
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {
    "balanced_accuracy": _balanced_accuracy, "f1_macro": _f1_macro, "mcc": _mcc, "precision": _precision, "f1": _f1,
    "cohen_kappa": _cohen_kappa, "ece": _ece,
}  # fmt: skip
