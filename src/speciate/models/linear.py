"""One weighted sum per output: logistic regression, linear SVM, ridge, and every probe's head."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Linear(NamedTuple):
    weight: npt.NDArray[Any]  # (K, D)
    bias: npt.NDArray[Any]  # (K,)

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) dense or sparse -> (N, K)."""
        scores: npt.NDArray[np.float64] = np.asarray(inputs @ self.weight.T, dtype=np.float64) + self.bias
        return scores

    @property
    def parameters(self) -> int:
        return int(self.weight.size + self.bias.size)
