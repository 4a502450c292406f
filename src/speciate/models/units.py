"""Estimators that answer for each unit of an example, such as each word or step: one weighted sum per output, the most
alike units, or trees."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.models.linear import Linear
from speciate.models.neighbours import Neighbours
from speciate.models.trees import Trees


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
        return _apart(Linear(self.weight, self.bias).scores(inputs.matrix), inputs.counts)

    @property
    def parameters(self) -> int:
        return int(self.weight.size + self.bias.size)


class NeighboursPerUnit(Neighbours):
    def scores(self, inputs: UnitRows) -> npt.NDArray[Any]:
        """(N,) of arrays (units, K)."""
        return _apart(super().scores(inputs.matrix), inputs.counts)


class TreesPerUnit(Trees):
    def scores(self, inputs: UnitRows) -> npt.NDArray[Any]:
        """(N,) of arrays (units, K)."""
        return _apart(super().scores(inputs.matrix), inputs.counts)


def _apart(scores: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """(U, K) -> (N,) of arrays, those of each example."""
    found = np.empty(len(counts), object)
    found[:] = np.split(scores, np.cumsum(counts)[:-1])
    return found
