"""TabM (Gorishniy et al. 2025, "TabM: Advancing tabular deep learning with parameter-efficient ensembling") as arrays.

Many perceptrons in one: they share their layers, and each scales what goes into a layer and what comes out of it by
numbers of its own. The mean of their answers is the answer. Here the last layer is shared, too. It answers without
torch; training/recipes/tabm.py learns it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FARTHEST = 5.0
"""Spreads from the mean, beyond which a number counts as so far."""
_CHUNK = 512
"""Examples at a time."""
_LEAST = 1e-9
"""Probability."""


class Perceptrons(NamedTuple):
    """Two layers of `W` units for each of `M` members. D numbers are read, R of them also as ranks: I = D + R."""

    ranked: npt.NDArray[np.int64]  # (R,) columns
    knots: npt.NDArray[np.float64]  # (R, Q) quantiles of their training values, equally far apart in rank
    into_first: Floats  # (M, I)
    first: Floats  # (W, I)
    out_of_first: Floats  # (M, W)
    first_bias: Floats  # (M, W)
    into_second: Floats  # (M, W)
    second: Floats  # (W, W)
    out_of_second: Floats  # (M, W)
    second_bias: Floats  # (M, W)
    into_last: Floats  # (M, W)
    last: Floats  # (K, W)
    last_bias: Floats  # (K,)
    classes: npt.NDArray[Any]  # () 1 where the K outputs are log odds of classes; 0: numbers

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) -> (N, K) log probabilities, (N, 1) log odds of the second of two classes, or (N, K) numbers."""
        matrix = np.asarray(inputs, np.float64)
        parts = [self._chunk(matrix[at : at + _CHUNK]) for at in range(0, max(len(matrix), 1), _CHUNK)]
        return np.concatenate(parts)

    def _chunk(self, inputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        state = with_ranks(inputs, self.ranked, self.knots)[:, None]
        state = ((state * self.into_first) @ self.first.T) * self.out_of_first + self.first_bias
        state = ((np.maximum(state, 0) * self.into_second) @ self.second.T) * self.out_of_second + self.second_bias
        outputs = ((np.maximum(state, 0) * self.into_last) @ self.last.T + self.last_bias).astype(np.float64)
        if not self.classes:
            return np.asarray(outputs.mean(axis=1))
        powers = np.exp(outputs - outputs.max(axis=2, keepdims=True))
        shares = (powers / powers.sum(axis=2, keepdims=True)).mean(axis=1)
        logs: npt.NDArray[np.float64] = np.log(np.maximum(shares, _LEAST))
        return logs[:, 1:] - logs[:, :1] if logs.shape[1] == 2 else logs

    @property
    def parameters(self) -> int:
        return int(sum(array.size for array in self[2:-1]))


def with_ranks(
    inputs: npt.NDArray[np.float64], ranked: npt.NDArray[np.int64], knots: npt.NDArray[np.float64]
) -> Floats:
    """(N, D) -> (N, D + R): numbers as they are, but not farther than `FARTHEST`, and ranks from -1 to 1, which
    outliers and skew do not reach."""
    ranks = [_rank(inputs[:, column], own) for column, own in zip(ranked, knots, strict=True)]
    found: Floats = np.column_stack([np.clip(inputs, -FARTHEST, FARTHEST), *ranks]).astype(np.float32)
    return found


def _rank(values: npt.NDArray[np.float64], knots: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Between knots in proportion; of a value that many training rows share, the middle of their ranks."""
    different, first = np.unique(knots, return_index=True)
    last = len(knots) - 1 - np.unique(knots[::-1], return_index=True)[1]
    return np.interp(values, different, (first + last) / (len(knots) - 1) - 1)
