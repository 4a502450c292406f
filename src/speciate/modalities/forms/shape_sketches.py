"""Sketches of forms: near are those of the same form turned, moved, scaled, numbered or cut into triangles anew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Sketches
from speciate.modalities.forms.shapes import AREA, INVARIANTS, PLANES
from speciate.modalities.forms.triangles import Doubles
from speciate.modalities.hashing import mix

_STEP = 1 / 4096
"""Of an invariant, in root mean square distances from the middle."""
_GRIDS = 12


class Shapes:
    """The invariants of a form (shapes.py), two bytes each. Candidates share a cell of one of twelve shifted grids over
    the most telling of them; near are those whose invariants all differ by little."""

    width = 2 * INVARIANTS
    threshold = 0.98
    """Similarity: 1 less the largest difference, in root mean square distances from the middle; of area and planes,
    which any roughness changes, 0.4 of it."""
    cell = 0.06
    """Side of a grid's cells."""
    telling = (0, 1, 2, 3, 4, 7, 8, 12, 15)
    """The invariants that grids are laid over: spreads, area, volume, skewness, fourth moments, two quantiles."""

    def sketch(self, invariants: Doubles) -> bytes:
        return np.round(invariants / _STEP).clip(0, 65535).astype("<u2").tobytes()

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, 12)"""
        values = _values(sketches)[:, self.telling] / self.cell
        found = np.empty((len(sketches), _GRIDS), np.uint64)
        for grid in range(_GRIDS):
            key = np.full(len(sketches), np.uint64(grid))
            for column, shift in zip(np.floor(values + _SHIFTS[grid, : values.shape[1]]).T, range(99), strict=False):
                key = mix(key * np.uint64(31) + column.astype(np.int64).view(np.uint64) + np.uint64(shift))
            found[:, grid] = key
        return found

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        least = self.threshold if threshold is None else threshold
        return np.asarray(1 - (np.abs(_values(a) - _values(b)) * _WEIGHTS).max(axis=1) >= least)


def _values(sketches: Sketches) -> Doubles:
    """(N, INVARIANTS)"""
    return np.ascontiguousarray(sketches).view("<u2").astype(np.float64) * _STEP


_WEIGHTS = np.where(np.isin(np.arange(INVARIANTS), [AREA, *PLANES]), 0.4, 1.0)
_SHIFTS = np.modf(np.outer(np.arange(1, _GRIDS + 1), np.sqrt([2, 3, 5, 7, 11, 13, 17, 19, 23])))[0]

SHAPES = Shapes()
