"""Table rows as numbers: numeric columns as they are, others one-hot, and a flag where a number is missing.

Values of a column beyond its `_MOST_CATEGORIES` most frequent, as in free text, are no category. Dates are inputs only
where somebody names them (datasets/roles.py), and then each is a category.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.modalities.tabular import number
from speciate.tasks.contract import Arrays
from speciate.tasks.scaling import Scaling

_MOST_CATEGORIES = 50


class Columns:
    def __init__(
        self, numbers: tuple[str, ...], flagged: tuple[str, ...], categories: dict[str, list[str]], scaling: Scaling
    ) -> None:
        self._numbers, self._flagged, self._categories, self._scaling = numbers, flagged, categories, scaling

    @classmethod
    def fit(cls, examples: Sequence[Example], inputs: Sequence[str]) -> Columns:
        """`inputs`: the columns that a model may see."""
        numbers, flagged, categories = [], [], {}
        for name in inputs:
            values = [_cell(example, name) for example in examples]
            present = [value for value in values if value is not None]
            if all(isinstance(value, int | float) for value in present):
                numbers.append(name)
                if len(present) < len(values):
                    flagged.append(name)
            else:
                common = Counter(str(value) for value in present).most_common(_MOST_CATEGORIES)
                categories[name] = sorted(value for value, _ in common)
        made = cls(tuple(numbers), tuple(flagged), categories, Scaling(np.zeros(0), np.zeros(0), np.ones(0)))
        return cls(tuple(numbers), tuple(flagged), categories, Scaling.of(made._raw(examples)))

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D). INVALID for text where training saw numbers."""
        return self._scaling.apply(self._raw(examples))

    def _raw(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        columns = [[number(name, _cell(example, name)) for example in examples] for name in self._numbers]
        columns += [[float(_cell(example, name) is None) for example in examples] for name in self._flagged]
        for name, values in self._categories.items():
            cells = [_cell(example, name) for example in examples]
            columns += [[float(cell is not None and str(cell) == value) for cell in cells] for value in values]
        return np.array(columns, dtype=np.float64).reshape(len(columns), len(examples)).T

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "columns", "numbers": list(self._numbers), "flagged": list(self._flagged),
            "categories": self._categories,
        }  # fmt: skip

    def arrays(self) -> Arrays:
        return self._scaling.arrays()

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> Columns:
        return cls(tuple(settings["numbers"]), tuple(settings["flagged"]), settings["categories"], Scaling(**arrays))


def _cell(example: Example, name: str) -> Any:
    """The value of a column; None where it is missing, NaN or not there."""
    value = example.media.get(name)
    return None if isinstance(value, float) and math.isnan(value) else value
