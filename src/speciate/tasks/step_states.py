"""Each step of an episode as what was measured then, scaled; and where that is wanted with the squares and products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models.units import UnitRows
from speciate.tasks.contract import Arrays, Unsuited
from speciate.tasks.scaling import Scaling

MOST_MULTIPLIED = 48
"""Numbers of a state whose products are taken: of more they would be thousands."""


class StepStates:
    def __init__(self, scaling: Scaling, products: bool) -> None:
        self._scaling, self._products = scaling, products

    @classmethod
    def fit(cls, examples: Sequence[Example], *, products: bool = False) -> StepStates:
        widths = {example.media["state"].shape[1] for example in examples}
        if widths == {0}:
            raise Unsuited("the episodes have no state beside their cameras")
        if len(widths) > 1:
            raise SpeciateError(
                Code.INVALID,
                f"The training episodes measure from {min(widths)} to {max(widths)} numbers: not those of one robot.",
                "Keep those of one: curate_dataset(steps=[{'op': 'filter', 'where': 'state_width = ...'}]).",
            )
        if products and max(widths) > MOST_MULTIPLIED:
            raise Unsuited(f"products of more than {MOST_MULTIPLIED} numbers are thousands")
        return cls(Scaling.of(np.concatenate([example.media["state"] for example in examples])), products)

    def encode(self, examples: Sequence[Example]) -> UnitRows:
        width = len(self._scaling.centre)
        for example in examples:
            if example.media["state"].shape[1] != width:
                raise SpeciateError(
                    Code.INVALID,
                    f"This episode measures {example.media['state'].shape[1]} numbers; the model has learned from "
                    f"{width}.",
                    "Bring episodes of the robot that it was trained on.",
                )
        rows = self._scaling.apply(np.concatenate([example.media["state"] for example in examples]))
        counts = np.array([len(example.media["times"]) for example in examples], np.int64)
        return UnitRows(multiplied(rows) if self._products else rows, counts)

    def settings(self) -> dict[str, Any]:
        return {"kind": "step states", "products": self._products}

    def arrays(self) -> Arrays:
        return self._scaling.arrays()

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> StepStates:
        return cls(Scaling(**arrays), settings["products"])


def multiplied(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, D) -> (N, D + D (D + 1) / 2)"""
    low, high = np.triu_indices(rows.shape[1])
    return np.concatenate([rows, rows[:, low] * rows[:, high]], axis=1)
