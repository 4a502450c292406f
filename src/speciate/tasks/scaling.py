"""Columns of numbers brought to mean 0 and spread 1; what is missing becomes the column's median."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.tasks.contract import Arrays


class Scaling(NamedTuple):
    fill: npt.NDArray[Any]  # (D,)
    centre: npt.NDArray[Any]
    spread: npt.NDArray[Any]

    @classmethod
    def of(cls, rows: npt.NDArray[Any], *, one_unit: bool = False) -> Scaling:
        """Fitted to (N, D), which may hold NaN. A column that is constant or wholly missing becomes zeros.

        `one_unit`: all columns are divided by their common spread, which keeps those small that hardly vary.
        """
        rows = rows.astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a wholly missing column has no median
            fill = np.nan_to_num(np.nanmedian(rows, axis=0))
        filled = np.where(np.isnan(rows), fill, rows)
        spread = filled.std(axis=0)
        if one_unit:
            spread = np.full_like(spread, np.sqrt(np.square(spread).mean()))
        return cls(fill, filled.mean(axis=0), np.where(spread > 0, spread, 1.0))

    def apply(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        filled = np.where(np.isfinite(rows), rows, self.fill)
        scaled: npt.NDArray[np.float64] = (filled - self.centre) / self.spread
        return scaled

    def arrays(self) -> Arrays:
        return dict(self._asdict())
