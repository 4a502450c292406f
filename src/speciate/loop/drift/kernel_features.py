"""Vectors as features of a kernel, so that the mean of many is all that a comparison of two samples needs.

Vectors are whitened first: principal components of both samples together, each with variance 1. A shift of one weak
direction then counts as much as one of the strongest. As the components are those of all rows, whoever they belong to,
a test on them that relabels units stays one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from speciate.loop.drift.dependence import Units
from speciate.loop.drift.permutation import Rows, ShiftTest
from speciate.loop.drift.shift_tests import largest_distance

_COMPONENTS, _EXPLAINED = 32, 0.9
"""Components that whitening keeps: at most so many, until they explain so much of the variance."""
_WAVES = 64
_FOR_MEDIAN = 200
"""Rows whose distances give the kernel's width."""
_LEAST_FOR_AUC = 8


def whiten(rows: Rows) -> Rows:
    """(N, D) finite -> (N, K): principal components of unit variance; K is 1 where all rows are equal."""
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    narrow = centred.shape[1] <= len(rows)
    variance, vectors = np.linalg.eigh(centred.T @ centred if narrow else centred @ centred.T)  # ascending
    variance, vectors = np.maximum(variance[::-1], 0), vectors[:, ::-1]
    total = float(variance.sum())
    if total <= 1e-12 * max(1.0, float(np.square(rows, dtype=np.float64).sum())):
        return np.zeros((len(rows), 1), np.float32)
    explained = np.cumsum(variance) / total
    count = min(_COMPONENTS, int(np.searchsorted(explained, _EXPLAINED)) + 1, int((variance > 1e-10 * total).sum()))
    scores = centred @ (vectors[:, :count] / np.sqrt(variance[:count])) if narrow else vectors[:, :count]
    return np.ascontiguousarray(scores * np.sqrt(len(rows)), np.float32)


def kernel_features(rows: Rows, rng: np.random.Generator) -> Rows:
    """(N, K) -> (N, 2 * 64): random Fourier features (Rahimi & Recht, NIPS 2007) of exp(-|x - y|^2 / median), the
    median being that of squared distances (the median heuristic; Gretton et al. 2012, section 8)."""
    some = rows[rng.choice(len(rows), min(len(rows), _FOR_MEDIAN), replace=False)]
    squares = np.square(some).sum(1)
    distances = squares[:, None] + squares[None] - 2 * some @ some.T
    median = float(np.median(distances[np.triu_indices(len(some), 1)])) if len(some) > 1 else 1.0
    waves = rng.normal(size=(rows.shape[1], _WAVES)) * np.sqrt(2 / max(median, 1e-12))
    turned = rows @ waves.astype(np.float32)
    return np.asarray(np.hstack([np.cos(turned), np.sin(turned)]) / np.sqrt(_WAVES), np.float32)


def compare(
    reference: Rows, window: Rows, units: Units, rng: np.random.Generator
) -> tuple[ShiftTest, Novelty]:  # fmt: skip
    """Test vectors (M, D) and (N, D) for a shift, of `units` (M + N), by the MMD of two kernels of whitened vectors:
    the linear one, which sees a shift of the mean soonest, and the Gaussian one, which sees every change. The second
    result is the novelty of the window's rows."""
    white = whiten(np.vstack([reference, window]))
    seen = kernel_features(white, rng)
    cut = len(reference)
    return largest_distance([white, seen], units, rng), novelty(seen[:cut], seen[cut:])


class Novelty(NamedTuple):
    scores: Rows
    """(N,) of the window's rows: how much more they are like the window than like the reference."""
    auc: float
    """How well such scores, learned on one half, tell window from reference on the other: 0.5 is not at all."""


def novelty(reference: Rows, window: Rows) -> Novelty:
    """Novelty of the window's rows, from kernel features (M, F) and (N, F): the witness function of Gretton et al.
    2012, section 2.3. As a number that people can read: its area under the ROC curve on rows that it was not made of (a
    classifier two-sample test by halves; Lopez-Paz & Oquab, ICLR 2017). Evidence for people; it decides nothing."""
    scores = window @ (window.mean(0) - reference.mean(0))
    if min(len(reference), len(window)) < _LEAST_FOR_AUC:
        return Novelty(scores.astype(np.float32), 0.5)
    halves = [
        _auc(reference[1 - k :: 2] @ direction, window[1 - k :: 2] @ direction)
        for k in (0, 1)
        for direction in [window[k::2].mean(0) - reference[k::2].mean(0)]
    ]
    return Novelty(scores.astype(np.float32), float(np.mean(halves)))


def _auc(low: Rows, high: Rows) -> float:
    """The share of pairs in which the second is larger; ties count half."""
    order = np.sort(low)
    below, at_most = np.searchsorted(order, high, "left"), np.searchsorted(order, high, "right")
    return float(np.mean((below + at_most) / 2) / len(low))
