"""Metrics of one number per example."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from speciate.evaluation.metrics.answers import Answers, Statistic
from speciate.evaluation.statistics import Floats


def _mae(answers: Answers) -> Floats:
    misses: Floats = np.abs(_numbers(answers) - answers.truth.astype(float))
    return misses


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


def _numbers(answers: Answers) -> Floats:
    truth, given = answers.truth.astype(float), answers.given.astype(float)
    low, high = truth.min(), truth.max()
    farthest = np.where(truth - low > high - truth, low, high)
    return np.where(np.isnan(given), farthest, given)


MEANS: dict[str, Callable[[Answers], Floats]] = {"mae": _mae}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {"rmse": _rmse, "r2": _r2}
