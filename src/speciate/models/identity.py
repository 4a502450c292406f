"""Nothing learned: the inputs are the answer, as where the nearest of vectors are wanted."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Identity(NamedTuple):
    width: npt.NDArray[Any]  # () D

    def scores(self, inputs: Any) -> npt.NDArray[np.float64]:
        """(N, D) dense -> the same."""
        return np.asarray(inputs, dtype=np.float64)

    @property
    def parameters(self) -> int:
        return 0
