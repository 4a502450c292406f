"""From scores to probabilities that mean what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.tasks.contract import Scores

TEMPERATURES = np.geomspace(0.02, 20, 61)


def softmax(scores: Scores, temperature: float = 1.0) -> Scores:
    """(N, K), or (N, 1) for two labels (positive: the second) -> (N, labels)."""
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    scaled = scores / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    chances: Scores = powers / powers.sum(axis=1, keepdims=True)
    return chances


def sigmoid(scores: npt.NDArray[Any]) -> Scores:
    """Of any shape."""
    chances: Scores = 1.0 / (1.0 + np.exp(-np.clip(scores.astype(np.float64), -500, 500)))
    return chances


def temperature(scores: Scores, targets: npt.NDArray[Any]) -> float | None:
    """Temperature scaling (Guo et al. 2017): the one with the least log loss. `targets` (N,), -1: does not count.

    None where no example counts.
    """
    rows = np.flatnonzero(targets >= 0)
    if not len(rows):
        return None
    losses = [-np.log(softmax(scores, t)[rows, targets[rows]] + 1e-12).mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])
