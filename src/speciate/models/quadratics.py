"""Second-order scores as arrays: numbers, their squares and the products of pairs, each with a weight.

A quadratic discriminant is of this form, and so is a line through interactions. It answers with NumPy alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
FARTHEST = 5.0
"""Spreads from the mean, beyond which a number counts as so far: its square would rule alone."""
_CHUNK = 1024
"""Examples at a time."""


class Quadratic(NamedTuple):
    weight: Floats  # (K, D + D (D + 1) / 2)
    bias: Floats  # (K,)

    def scores(self, inputs: Any) -> Floats:
        """(N, D) -> (N, K)."""
        starts = range(0, max(len(inputs), 1), _CHUNK)
        return np.concatenate([with_products(inputs[at : at + _CHUNK]) @ self.weight.T + self.bias for at in starts])

    @property
    def parameters(self) -> int:
        return int(self.weight.size + self.bias.size)


def clipped(inputs: Any) -> Floats:
    """(N, D) as it is read before it is multiplied."""
    return np.clip(np.asarray(inputs, np.float64), -FARTHEST, FARTHEST)


def with_products(inputs: Any) -> Floats:
    """(N, D) -> (N, D + D (D + 1) / 2): the numbers, then each times itself and those after it."""
    kept = clipped(inputs)
    first, second = np.triu_indices(kept.shape[1])
    return np.hstack([kept, kept[:, first] * kept[:, second]])


def width_of(columns: int) -> int:
    return columns + columns * (columns + 1) // 2


def from_gaussians(means: Floats, covariances: Floats, shares: Floats) -> Quadratic:
    """The log densities of K Gaussians, (K, D) and (K, D, D), times the classes' shares (K,); of two classes the log
    odds of the second."""
    first, second = np.triu_indices(means.shape[1])
    weights, biases = [], []
    for mean, covariance, share in zip(means, covariances, shares, strict=True):
        precision = np.linalg.inv(covariance)
        pairs = precision[first, second] * np.where(first == second, -0.5, -1.0)
        weights.append(np.concatenate([precision @ mean, pairs]))
        biases.append(-0.5 * mean @ precision @ mean - 0.5 * np.linalg.slogdet(covariance)[1] + np.log(share))
    weight, bias = np.array(weights), np.array(biases)
    if len(bias) == 2:
        return Quadratic(weight[1:] - weight[:1], bias[1:] - bias[:1])
    return Quadratic(weight, bias)
