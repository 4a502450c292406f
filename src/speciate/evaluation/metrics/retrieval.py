"""Metrics of vectors: whether what belongs together lies near, by the cosine, among the examples that are judged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from speciate.evaluation.metrics.answers import Answers, Statistic
from speciate.evaluation.statistics import Floats

_CHUNK = 512
_EQUAL = 1e-9
"""Cosines that differ by less are ties."""


def _recall_at_1(answers: Answers) -> Floats:
    """(n,). Of neighbours that are equally near, the share that belongs; so a constant vector is chance.

    An example without a vector (an error, or another length than most have) is no neighbour, and finds none.
    """
    _, codes = np.unique(answers.truth.astype(str), return_inverse=True)
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


MEANS: dict[str, Callable[[Answers], Floats]] = {"recall_at_1": _recall_at_1}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {}
