"""Media as the short vector that their modality's `describe` makes of them: grey pixels, summary features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.tasks.contract import Arrays
from speciate.tasks.description import describe
from speciate.tasks.scaling import Scaling


class Vectors:
    def __init__(self, modality: str, scaling: Scaling) -> None:
        self._modality, self._scaling = modality, scaling

    @classmethod
    def fit(cls, examples: Sequence[Example], modality: str, *, one_unit: bool = False) -> Vectors:
        """`one_unit`: the numbers of the description are of one kind, as pixels are."""
        return cls(modality, Scaling.of(np.stack(describe(modality, examples)), one_unit=one_unit))

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D)"""
        return self._scaling.apply(np.stack(describe(self._modality, examples)))

    def settings(self) -> dict[str, Any]:
        return {"kind": "vectors", "modality": self._modality}

    def arrays(self) -> Arrays:
        return self._scaling.arrays()

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> Vectors:
        return cls(settings["modality"], Scaling(**arrays))
