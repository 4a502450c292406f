"""Estimators that answer for each unit of an example, such as each word: one weighted sum per tag."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.models.linear import Linear


class UnitRows(NamedTuple):
    """The units of N examples, one after another."""

    matrix: Any  # (U, D), dense or sparse
    counts: npt.NDArray[np.int64]  # (N,) units of each example

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.matrix.shape
        return rows, columns


class PerUnit(NamedTuple):
    weight: npt.NDArray[Any]  # (K, D)
    bias: npt.NDArray[Any]  # (K,)

    def scores(self, inputs: UnitRows) -> npt.NDArray[Any]:
        """(N,) of arrays (units, K)."""
        scores = Linear(self.weight, self.bias).scores(inputs.matrix)
        found = np.empty(len(inputs.counts), object)
        found[:] = np.split(scores, np.cumsum(inputs.counts)[:-1])
        return found

    @property
    def parameters(self) -> int:
        return int(self.weight.size + self.bias.size)
