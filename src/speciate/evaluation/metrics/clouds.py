"""How far two clouds of points are from each other: for scorers of one's own, of models whose answers are forms.

For two meshes, of points drawn from their surfaces (`speciate.modalities.geometry.mesh.sampled`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.floating[Any]]


def chamfer(a: Points, b: Points) -> float:
    """(N, 3), (M, 3) -> the mean distance from a point of either cloud to the nearest of the other, in their unit: both
    ways are averaged and their sum is halved. The published form (Fan et al. 2017) sums squares; this one keeps the
    unit. ValueError where a cloud is empty."""
    there, back = _nearest(a, b)
    return float((there.mean() + back.mean()) / 2)


def f_score(a: Points, b: Points, threshold: float) -> float:
    """Harmonic mean of the shares of either cloud that lie within `threshold` of the other, 0 to 1 (Knapitsch et al.
    2017). ValueError where a cloud is empty."""
    there, back = _nearest(a, b)
    precision, recall = float((there <= threshold).mean()), float((back <= threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _nearest(a: Points, b: Points) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(N,), (M,): from each point to the nearest of the other cloud."""
    from scipy.spatial import cKDTree

    if not len(a) or not len(b):
        raise ValueError("an empty cloud is no distance from anything")
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return cKDTree(second).query(first)[0], cKDTree(first).query(second)[0]
