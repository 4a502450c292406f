"""The shape of a surface or a cloud as numbers that rotation, translation and scaling do not change.

All numbers are computed from weighted points: those of a cloud, or points spread evenly over a surface, each with its
share of the area. *Invariants* are integrals, exact but for rounding, whatever the order of vertices and faces:
near-duplicates are found by them (`ShapeSketches`). *Distributions* (Osada et al. 2002, "Shape distributions") are
histograms over random points: they describe how a shape is built, for learners.

A shape and its mirror image are the same here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Sketches, Vector
from speciate.modalities.geometry.triangles import Doubles, areas, cross_products, halved, volume
from speciate.modalities.hashing import mix

_SPREAD = 2000
"""Points over a surface, at least about so many."""
_DRAWN = 20_000
_BINS = 32
_REACHES, _PLANES, _RAMP = np.linspace(0.3, 1.7, 8), np.linspace(0.1, 1.1, 6), 0.2

INVARIANTS = 23
"""How many numbers `invariants` gives."""
AREA, PLANES = 2, range(17, 23)
"""Which of them are the root of the area, and the shares of planes."""
DISTRIBUTIONS = 3 * _BINS


class Cloud(NamedTuple):
    """Points (N, 3) with weights (N,) that sum to 1; of a surface also the unit normals (N, 3) there."""

    points: Doubles
    weights: Doubles
    normals: Doubles | None = None


class Sampled(NamedTuple):
    points: npt.NDArray[np.float32]
    """(N, 3)"""
    normals: npt.NDArray[np.float32]
    """(N, 3), of length 1, or 0 on a face without area."""


def sampled(corners: Doubles, count: int, seed: int = 0) -> Sampled:
    """`count` points drawn evenly from a surface (F, 3, 3), with its normals there; the same for the same seed."""
    chance = np.random.default_rng(seed)
    chosen = _drawn(chance, areas(corners), count)
    u, v = chance.random((2, count))
    root = np.sqrt(u)
    weights = np.stack([1 - root, root * (1 - v), root * v], axis=1)  # Osada et al. 2002, section 4.2
    points = np.einsum("nk,nkd->nd", weights, corners[chosen])
    return Sampled(points.astype(np.float32), _unit(cross_products(corners))[chosen].astype(np.float32))


def of_surface(corners: Doubles) -> Cloud:
    """Triangles (F, 3, 3) are cut until none is longer than the resolution; each part is represented by its middle."""
    across = cross_products(corners)
    area = _length(across) / 2
    normals = across / np.maximum(2 * area, 1e-300)[:, None]
    parts, face, shares = halved(corners, 2 * float(np.sqrt(area.sum() / _SPREAD)))
    weights = area[face] * shares
    return Cloud(parts.mean(axis=1), weights / weights.sum(), normals[face])


def of_points(points: npt.NDArray[np.float32]) -> Cloud:
    """Each counts alike."""
    return Cloud(points.astype(np.float64), np.full(len(points), 1 / len(points)))


def invariants(cloud: Cloud, corners: Doubles | None = None) -> Doubles:
    """(INVARIANTS,): lengths in units of the root mean square distance from the middle.

    The spreads along the two shorter axes; of a surface the roots of its area and of the volume that it encloses;
    moments of third and fourth order, contracted so that no axis is named; which share of it lies within eight
    distances from the middle, and which share of the plane within six. Shares rise over a width of 0.2, so that
    what little noise moves changes them little. What a cloud does not have is 0.
    """
    centred, radius = _centred(cloud)
    weighted = centred * cloud.weights[:, None]
    spreads = np.sqrt(np.linalg.eigvalsh(weighted.T @ centred).clip(0))
    away = np.einsum("ni,ni->n", centred, centred)
    pairs = (centred[:, :, None] * centred[:, None, :]).reshape(-1, 9)
    third = (weighted.T @ pairs).reshape(3, 3, 3)
    skew = np.sqrt([(third**2).sum(), (np.einsum("iij->j", third) ** 2).sum()])
    fourth = np.linalg.eigvalsh((weighted * away[:, None]).T @ centred).clip(0) ** 0.25
    surface, planes = np.zeros(2), np.zeros(len(_PLANES))
    if corners is not None and cloud.normals is not None:
        surface = (
            np.array([np.sqrt(areas(corners).sum()), np.cbrt(abs(volume(corners, cloud.weights @ cloud.points)))])
            / radius
        )
        planes = _within(np.abs(np.einsum("ni,ni->n", cloud.normals, centred)), cloud.weights, _PLANES)
    reaches = _within(np.sqrt(away), cloud.weights, _REACHES)
    return np.concatenate([spreads[:2], surface, skew, fourth, reaches, planes])


def distributions(cloud: Cloud, seed: int = 0) -> Doubles:
    """(DISTRIBUTIONS,): D1, D2 and A3: how far a point lies from the middle, two from each other, and the angle that
    three make, as shares; distances in units of their mean."""
    chance = np.random.default_rng(seed)
    a, b, c = (cloud.points[_drawn(chance, cloud.weights, _DRAWN)] for _ in range(3))
    middle = cloud.weights @ cloud.points
    return np.concatenate([_histogram(_length(a - middle)), _histogram(_length(a - b)), _angles(a - b, c - b)])


def describe(invariants: Doubles, distributions: Doubles) -> Vector:
    """(120,): both; of shares the roots, so that distances between them are Hellinger's."""
    return np.concatenate([invariants, np.sqrt(distributions)]).astype(np.float32)


def _centred(cloud: Cloud) -> tuple[Doubles, float]:
    """(N, 3) around the middle, at a mean square distance of 1; and the distance before."""
    centred = cloud.points - cloud.weights @ cloud.points
    radius = float(np.sqrt(cloud.weights @ np.einsum("ni,ni->n", centred, centred)))
    return centred / max(radius, 1e-300), max(radius, 1e-300)


def _within(values: Doubles, weights: Doubles, bounds: Doubles) -> Doubles:
    """(K,): the share of each bound."""
    return np.array([weights @ ((bound - values) / _RAMP + 0.5).clip(0, 1) for bound in bounds])


def _drawn(chance: np.random.Generator, weights: Doubles, count: int) -> npt.NDArray[np.int64]:
    """(count,) places, as often as their weights say."""
    sums = np.cumsum(weights)
    if not sums[-1] > 0:
        return chance.integers(0, len(weights), count)
    return np.asarray(np.searchsorted(sums, chance.random(count) * sums[-1], side="right").clip(0, len(weights) - 1))


def _length(vectors: Doubles) -> Doubles:
    return np.asarray(np.linalg.norm(vectors, axis=1))


def _unit(vectors: Doubles) -> Doubles:
    return vectors / np.maximum(_length(vectors), 1e-300)[:, None]


def _histogram(distances: Doubles) -> Doubles:
    return np.histogram(distances / max(distances.mean(), 1e-300), _BINS, (0, 3))[0] / len(distances)


def _angles(first: Doubles, second: Doubles) -> Doubles:
    cosines = np.einsum("ni,ni->n", _unit(first), _unit(second)).clip(-1, 1)
    return np.histogram(np.arccos(cosines), _BINS, (0, np.pi))[0] / len(cosines)


_STEP = 1 / 4096
"""Step in which an invariant is stored, in root mean square distances from the middle."""
_GRIDS = 12


class ShapeSketches:
    """The invariants of a shape, two bytes each. Candidates share a cell of one of twelve shifted grids over the most
    telling of them; two shapes are near if all invariants differ by little: also after rotation, translation, scaling,
    renumbering or another triangulation."""

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

SHAPE_SKETCHES = ShapeSketches()
