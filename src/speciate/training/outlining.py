"""Classical segmentation of volumes: the label of each voxel from what it and its surroundings look like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.scans.label_maps import resized
from speciate.models.units import PerUnit, UnitRows
from speciate.tasks.segmentation import Segmentation
from speciate.tasks.voxel_features import VoxelFeatures
from speciate.training.selection import Learner, Way
from speciate.training.structured import Learn, one_versus_rest

_LARGEST = 32  # voxels along each axis
_MOST_OF_EACH = 30_000
"""Voxels of each label, and of background, that are learned from."""


def ways(readout: Segmentation, logistic: Learn) -> list[Way]:
    """`logistic`: a learner of yes and no."""
    side = min(readout.side, _LARGEST)
    learner = Learner("logistic", _of_voxels(one_versus_rest(logistic), len(readout.labels), side))
    return [Way("voxels and their surroundings", lambda examples: VoxelFeatures(side), (learner,))]


def _of_voxels(learn: Learn, labels: int, side: int) -> Callable[[UnitRows, Any, int], PerUnit]:
    """From some voxels of each label; what is no label of the training examples is not learned from."""

    def learn_voxels(inputs: UnitRows, targets: Sequence[npt.NDArray[Any]], seed: int) -> PerUnit:
        codes = np.concatenate([resized(each, (side,) * each.ndim).ravel() for each in targets])
        chance = np.random.default_rng(seed)
        chosen = [_some(np.flatnonzero(codes == code), chance) for code in range(labels + 1)]
        places = np.sort(np.concatenate(chosen))
        made = learn(inputs.matrix[places], codes[places, None] == np.arange(labels + 1), seed)
        return PerUnit(made.weight.astype(np.float32), made.bias)

    return learn_voxels


def _some(places: npt.NDArray[np.int64], chance: np.random.Generator) -> npt.NDArray[np.int64]:
    return places if len(places) <= _MOST_OF_EACH else chance.choice(places, _MOST_OF_EACH, replace=False)
