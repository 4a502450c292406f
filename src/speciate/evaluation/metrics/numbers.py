"""Metrics of one number per example."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from speciate.evaluation.metrics.answers import Answers, Statistic
from speciate.evaluation.statistics import Codes, Floats

_FLAT = 1e-12


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


def _pearson(answers: Answers) -> Statistic:
    """0 where the answers are all the same; undefined where the truths are."""
    truth, given = answers.truth.astype(float), _numbers(answers)
    x, y = truth - truth.mean(), given - given.mean()
    parts = np.stack([np.ones_like(x), x, y, x**2, y**2, x * y], axis=1)
    return Statistic(parts, lambda sums: _correlation(*sums.T))


def _correlation(n: Floats, x: Floats, y: Floats, xx: Floats, yy: Floats, xy: Floats) -> Floats:
    """From sums. What is left of equal numbers by rounding is no spread."""
    spread, other = xx - x**2 / n, yy - y**2 / n
    flat, other_flat = spread <= _FLAT * xx, other <= _FLAT * yy
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.clip((xy - x * y / n) / np.sqrt(spread * other), -1.0, 1.0)
    return np.where(flat, math.nan, np.where(other_flat, 0.0, found))


def _spearman(answers: Answers, clusters: Codes) -> Callable[[Floats], Floats]:
    """Pearson's correlation of ranks, which each resample gives anew; equal numbers share the mean of theirs."""
    numbers = answers.truth.astype(float), _numbers(answers)

    def value(weights: Floats) -> Floats:
        drawn = weights[:, clusters]
        n = drawn.sum(1)
        x, y = (_mid_ranks(each, drawn) - (n[:, None] + 1) / 2 for each in numbers)
        return _correlation(
            n, (drawn * x).sum(1), (drawn * y).sum(1), (drawn * x**2).sum(1), (drawn * y**2).sum(1),
            (drawn * x * y).sum(1),
        )  # fmt: skip

    return lambda weights: np.concatenate([value(chunk) for chunk in _chunks(weights, len(clusters))])


def _mid_ranks(numbers: Floats, drawn: Floats) -> Floats:
    """(n,), (B, n) times drawn -> (B, n), from 1."""
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    order = np.argsort(places, kind="stable")
    each = np.add.reduceat(drawn[:, order], np.cumsum(counts) - counts, axis=1)
    ranks: Floats = (np.cumsum(each, 1) - (each - 1) / 2)[:, places]
    return ranks


def _median_ae(answers: Answers, clusters: Codes) -> Callable[[Floats], Floats]:
    """The mean of the two in the middle, where they are two."""
    errors = _mae(answers)
    order = np.argsort(errors, kind="stable")

    def value(weights: Floats) -> Floats:
        counts = np.cumsum(weights[:, clusters[order]], 1)
        n = counts[:, -1]
        middles = [errors[order][(counts > at[:, None] + 0.25).argmax(1)] for at in ((n - 1) // 2, n // 2)]
        return np.asarray((middles[0] + middles[1]) / 2, float)

    return lambda weights: np.concatenate([value(chunk) for chunk in _chunks(weights, len(clusters))])


def _chunks(weights: Floats, n: int) -> list[Floats]:
    return np.array_split(weights, max(1, weights.shape[0] * n // 4_000_000))


def _mape(answers: Answers) -> Floats:
    """A truth of 0 has no such error, and is not counted."""
    size = np.abs(answers.truth.astype(float))
    shares: Floats = np.divide(_mae(answers), size, out=np.full(len(size), math.nan), where=size > 0)
    return shares


def _nothing(answers: Answers) -> Floats:
    return np.full(len(answers.truth), math.nan)


def _numbers(answers: Answers) -> Floats:
    truth, given = answers.truth.astype(float), answers.given.astype(float)
    low, high = truth.min(), truth.max()
    farthest = np.where(truth - low > high - truth, low, high)
    return np.where(np.isnan(given), farthest, given)


MEANS: dict[str, Callable[[Answers], Floats]] = {"mae": _mae, "mape": _mape}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {"rmse": _rmse, "r2": _r2, "pearson": _pearson}
CORPORA: dict[str, Callable[[Answers, Codes], Callable[[Floats], Floats]]] = {
    "spearman": _spearman, "median_ae": _median_ae,
}  # fmt: skip
ALONE: dict[str, Callable[[Answers], Floats]] = {"median_ae": _mae, "spearman": _nothing, "pearson": _nothing}
"""What they are of each example by itself."""
