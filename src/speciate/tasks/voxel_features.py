"""A row of numbers for each voxel of a volume made small: its value, what surrounds it at three scales, and its place.

Nothing is learned. Values have median 0 and a spread (from the 5th to the 95th percentile) of 1 within their volume; as
they are, they stand beside that in a scale that knows bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.modalities.scans.volumes import Volume, resampled
from speciate.models.units import UnitRows
from speciate.tasks.contract import Arrays

_FARTHEST = 5.0
_COARSER = (2, 4)  # voxels that are one, along each axis


class VoxelFeatures:
    def __init__(self, side: int) -> None:
        """`side`: of the cube that a volume becomes."""
        self._side = side

    def encode(self, examples: Sequence[Example]) -> UnitRows:
        """A row for each voxel of each cube, slice by slice and row by row."""
        rows = np.concatenate([_rows(example.media, self._side) for example in examples])
        return UnitRows(rows, np.full(len(examples), self._side**3, np.int64))

    def settings(self) -> dict[str, Any]:
        return {"kind": "voxel features", "side": self._side}

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> VoxelFeatures:
        return cls(settings["side"])


def _rows(volume: Volume, side: int) -> npt.NDArray[np.float32]:
    """(side**3, 14)"""
    cube = resampled(volume["voxels"], (side, side, side))
    low, middle, high = np.percentile(cube, (5, 50, 95))
    own = np.clip((cube - middle) / max(high - low, float(np.ptp(cube)) / 100, 1e-6), -_FARTHEST, _FARTHEST)
    own = own.astype(np.float32)
    around = [_coarse(own, max(side // length, 1)) for length in _COARSER]
    steep = np.sqrt(np.square(np.asarray(np.gradient(own))).sum(axis=0))
    places = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")
    columns = [own, own**2, *around, *(own - each for each in around), steep, np.arcsinh(cube) / _FARTHEST]
    columns += [*places, *(place**2 for place in places)]
    return np.stack(columns, axis=-1).reshape(side**3, len(columns)).astype(np.float32)


def _coarse(cube: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    return resampled(resampled(cube, (side, side, side)), (cube.shape[0], cube.shape[1], cube.shape[2]))
