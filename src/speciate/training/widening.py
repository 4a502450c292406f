"""Vectors that differ little are made to differ more before a head learns from them.

The penalty on a head's weights is about vectors that lie about 1 apart: of some base models all vectors lie near one
point, and a head with that penalty can hardly tell them apart. Vectors that are spread already stay as they are, as
their scale may say how much each of them says; nor is each number scaled by itself, which makes noise of those that
hardly differ as large as the rest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.models.linear import Linear
from speciate.training.structured import Learn


def factor(inputs: npt.NDArray[Any]) -> float:
    """(N, D) -> what brings their mean squared distance from their mean to 1; 1 where that is more, or nothing."""
    spread = math.sqrt(float(np.var(inputs, axis=0, dtype=np.float64).sum()))
    return max(1.0, 1 / spread) if spread > 0 and math.isfinite(spread) else 1.0


def widened(learn: Learn) -> Learn:
    """The same learner of lines, on vectors that are spread; its line is for vectors as they were."""

    def learn_wide(inputs: Any, targets: npt.NDArray[Any], seed: int) -> Linear:
        times = factor(inputs)
        if times == 1:
            line: Linear = learn(inputs, targets, seed)
            return line
        middle = inputs.mean(axis=0, dtype=np.float64)  # far from 0 beside their spread, a solver loses its digits
        found = learn((inputs - middle) * times, targets, seed)
        weight = found.weight * times
        return Linear(weight, found.bias - weight @ middle)

    return learn_wide
