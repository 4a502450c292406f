"""Metrics of vectors: whether what belongs together lies near, by the cosine, among the examples that are judged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from speciate.evaluation.metrics.metric import Answers, Statistic
from speciate.evaluation.statistics import Floats

_CHUNK = 512
_EQUAL = 1e-9
"""Cosines that differ by less are ties."""
_DIGITS = 9


def _recall_at_1(answers: Answers) -> Floats:
    """(n,). Of neighbours that are equally near, the share that belongs; so a constant vector is chance.

    An example without a vector (an error, or another length than most have) is no neighbour, and finds none.
    """
    _, codes = np.unique(answers.references.astype(str), return_inverse=True)
    units, there = _units(answers)
    found = np.full(len(codes), math.nan)
    for start in range(0, len(codes), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(codes)))
        near = units[rows] @ units.T
        near[:, ~there] = -math.inf
        near[np.arange(len(rows)), rows] = -math.inf
        nearest = near >= near.max(axis=1, keepdims=True) - _EQUAL
        nearest &= np.isfinite(near)
        same = codes[rows, None] == codes[None, :]
        found[rows] = (nearest & same).sum(1) / np.maximum(nearest.sum(1), 1)
    found[~there] = 0.0
    found[np.bincount(codes)[codes] == 1] = math.nan
    return found


def _of_nearest(k: int, measure: Callable[[NDArray[np.bool_], Floats], Floats], answers: Answers) -> Floats:
    """(n,), of which of the k nearest others belong, nearest first, and how many belong in all. Among those that are
    equally near an order by chance, the same each time. Without a vector: 0. Nothing else belongs: not counted.
    """
    _, codes = np.unique(answers.references.astype(str), return_inverse=True)
    units, there = _units(answers)
    n, belonging = len(codes), (np.bincount(codes)[codes] - 1).astype(float)
    probability = np.random.default_rng(0).permutation(n)
    found = np.zeros(n)
    for start in range(0, n, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, n))
        near = np.round(units[rows] @ units.T, _DIGITS)
        near[:, ~there] = -math.inf
        near[np.arange(len(rows)), rows] = -math.inf
        order = np.lexsort((np.broadcast_to(probability, near.shape), -near), axis=1)[:, :k]
        seen = np.isfinite(np.take_along_axis(near, order, 1))
        hits = (codes[order] == codes[rows, None]) & seen
        with np.errstate(invalid="ignore", divide="ignore"):
            found[rows] = measure(hits, belonging[rows])
    return np.where(belonging > 0, np.where(there, found, 0.0), math.nan)


def _any(hits: NDArray[np.bool_], belonging: Floats) -> Floats:
    return hits.any(1).astype(float)


def _gain(hits: NDArray[np.bool_], belonging: Floats) -> Floats:
    """Normalised discounted cumulative gain (Jarvelin & Kekalainen 2002)."""
    weights = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    best = np.concatenate([[0.0], np.cumsum(weights)])[np.minimum(belonging, hits.shape[1]).astype(int)]
    gains: Floats = hits @ weights / best
    return gains


def _precision(hits: NDArray[np.bool_], belonging: Floats) -> Floats:
    """Average precision over the places that could be hits."""
    precision = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
    averages: Floats = (precision * hits).sum(1) / np.minimum(belonging, hits.shape[1])
    return averages


def _units(answers: Answers) -> tuple[Floats, NDArray[np.bool_]]:
    """(n, D) of unit length, zeros where there is none; and (n,) where there is one."""
    lengths = [0 if given is None else len(given) for given in answers.given]
    width = max(Counter(length for length in lengths if length).items(), key=lambda pair: pair[1], default=(1, 0))[0]
    units = np.zeros((len(lengths), width))
    there = np.array([length == width for length in lengths])
    for row in np.flatnonzero(there):
        units[row] = answers.given[row]
    norms = np.linalg.norm(units, axis=1, keepdims=True)
    return np.divide(units, norms, out=np.zeros_like(units), where=norms > 0), there


MEANS: dict[str, Callable[[Answers], Floats]] = {
    "recall_at_1": _recall_at_1,
    "recall_at_5": partial(_of_nearest, 5, _any),
    "ndcg_at_10": partial(_of_nearest, 10, _gain),
    "map_at_10": partial(_of_nearest, 10, _precision),
}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {}
