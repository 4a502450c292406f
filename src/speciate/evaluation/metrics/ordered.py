"""Metrics of labels that have an order. `Answers.labels` are in the order of their ranks.

An error, and a label of no rank, lie as far from the truth as a label can.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from speciate.evaluation.metrics.answers import Answers, Statistic
from speciate.evaluation.statistics import Floats


def _rank_error(answers: Answers) -> Floats:
    misses: Floats = np.abs(_ranks(answers) - answers.truth)
    return misses


def _quadratic_kappa(answers: Answers) -> Statistic:
    """Cohen (1968). Undefined where truth and answers are all of one label: scikit-learn's definition.

    The squares that chance would have are, over all pairs of a truth and an answer, n * sum(t^2) + n * sum(g^2)
    - 2 * sum(t) * sum(g).
    """
    true, given = answers.truth.astype(float), _ranks(answers)
    parts = np.stack([np.ones_like(true), true, given, true**2, given**2, (true - given) ** 2], axis=1)

    def combine(sums: Floats) -> Floats:
        n, true, given, true_squares, given_squares, squares = sums.T
        chance = true_squares + given_squares - 2 * true * given / n
        return np.where(chance > 0, 1 - squares / chance, math.nan)

    return Statistic(parts, combine)


def _ranks(answers: Answers) -> Floats:
    last = len(answers.labels) - 1
    farthest = np.where(answers.truth > last / 2, 0, last)
    return np.where(answers.given < 0, farthest, answers.given).astype(float)


MEANS: dict[str, Callable[[Answers], Floats]] = {"rank_error": _rank_error}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {"quadratic_kappa": _quadratic_kappa}
