"""The form of a surface or a cloud as numbers that turning, moving and scaling it do not change.

Everything is computed of weighted points: those of a cloud, or points spread evenly over a surface, each with its share
of the area. Two kinds of numbers come of them. *Invariants* are integrals, exact but for rounding, whatever the order
of vertices and faces: they tell near-duplicates (shape_sketches.py). *Distributions* (Osada et al. 2002, "Shape
distributions") are histograms over points drawn at random: they say how a form is built, and a learner sees them.

A form and its mirror image are the same here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Vector
from speciate.modalities.triangles import Doubles, areas, cross_products, volume

_SPREAD = 2000
"""Points over a surface, at least about so many."""
_FINEST = 24
"""In so many parts an edge is cut at most."""
_DRAWN = 20_000
_BINS = 32
_QUANTILES = np.linspace(0.05, 0.95, 10)
_SIDES = np.linspace(0.1, 0.9, 5)

INVARIANTS = 24
"""How many numbers `invariants` gives."""
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
    """Each triangle (F, 3, 3) is cut into small ones, each of which stands for its middle."""
    normals = _unit(cross_products(corners))
    area = areas(corners)
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    step = np.sqrt(2 * area.sum() / _SPREAD)
    cuts = np.ceil(longest / max(step, 1e-300)).clip(1, _FINEST).astype(np.int64)
    points, weights, facing = [], [], []
    for cut in np.unique(cuts):
        chosen = np.flatnonzero(cuts == cut)
        middles = _middles(int(cut))
        points.append(np.einsum("mk,fkd->fmd", middles, corners[chosen]).reshape(-1, 3))
        weights.append(np.repeat(area[chosen] / len(middles), len(middles)))
        facing.append(np.repeat(normals[chosen], len(middles), axis=0))
    total = np.concatenate(weights)
    even = np.full(len(total), 1 / len(total))
    return Cloud(np.concatenate(points), total / total.sum() if total.sum() > 0 else even, np.concatenate(facing))


def of_points(points: npt.NDArray[np.float32]) -> Cloud:
    """Each counts alike."""
    return Cloud(points.astype(np.float64), np.full(len(points), 1 / len(points)))


def invariants(cloud: Cloud, corners: Doubles | None = None) -> Doubles:
    """(INVARIANTS,): lengths in units of the root mean square distance from the middle.

    The spreads along the three axes; of a surface its area and the volume that it encloses; moments of third and
    fourth order, contracted so that no axis is named; how far its points lie from the middle, and how far the planes
    of its faces do (ten and five quantiles). What a cloud does not have is 0.
    """
    centred, radius = _centred(cloud)
    weighted = centred * cloud.weights[:, None]
    spreads = np.sqrt(np.linalg.eigvalsh(weighted.T @ centred).clip(0))
    away = np.einsum("ni,ni->n", centred, centred)
    third = np.einsum("ni,nj,nk->ijk", weighted, centred, centred, optimize=True)
    fourth = np.linalg.eigvalsh((weighted * away[:, None]).T @ centred)
    skew = np.cbrt(np.array([(third**2).sum(), (np.einsum("iij->j", third) ** 2).sum()]).clip(0) ** 0.5)
    surface = np.zeros(2)
    sides = np.zeros(len(_SIDES))
    if corners is not None and cloud.normals is not None:
        surface = np.array([np.sqrt(areas(corners).sum()), np.cbrt(abs(volume(corners)))]) / radius
        sides = _quantiles(np.abs(np.einsum("ni,ni->n", cloud.normals, centred)), cloud.weights, _SIDES)
    reach = _quantiles(np.sqrt(away), cloud.weights, _QUANTILES)
    return np.concatenate([spreads[:2], surface, skew, fourth.clip(0) ** 0.25, reach, sides])


def distributions(cloud: Cloud, seed: int = 0) -> Doubles:
    """(DISTRIBUTIONS,): D1, D2 and A3: how far a point lies from the middle, two from each other, and the angle that
    three make, as shares; distances in units of their mean."""
    chance = np.random.default_rng(seed)
    a, b, c = (cloud.points[_drawn(chance, cloud.weights, _DRAWN)] for _ in range(3))
    middle = cloud.weights @ cloud.points
    return np.concatenate([_histogram(_length(a - middle)), _histogram(_length(a - b)), _angles(a - b, c - b)])


def described(invariants: Doubles, distributions: Doubles) -> Vector:
    """(120,): both; of shares the roots, so that distances between them are Hellinger's."""
    return np.concatenate([invariants, np.sqrt(distributions)]).astype(np.float32)


def _middles(cut: int) -> Doubles:
    """(cut * cut, 3): barycentric places of the middles of a triangle's parts."""
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(cut), np.arange(cut), indexing="ij"))
    up, down = i + j < cut, i + j < cut - 1
    first = np.concatenate([i[up] + 1 / 3, i[down] + 2 / 3])
    second = np.concatenate([j[up] + 1 / 3, j[down] + 2 / 3])
    return np.stack([cut - first - second, first, second], axis=1) / cut


def _centred(cloud: Cloud) -> tuple[Doubles, float]:
    """(N, 3) around the middle, at a mean square distance of 1; and what that was."""
    centred = cloud.points - cloud.weights @ cloud.points
    radius = float(np.sqrt(cloud.weights @ np.einsum("ni,ni->n", centred, centred)))
    return centred / max(radius, 1e-300), max(radius, 1e-300)


def _quantiles(values: Doubles, weights: Doubles, shares: Doubles) -> Doubles:
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return np.interp(shares, (sums - weights[order] / 2) / sums[-1], values[order])


def _drawn(chance: np.random.Generator, weights: Doubles, count: int) -> npt.NDArray[np.int64]:
    """(count,) places, as often as their weights say."""
    sums = np.cumsum(weights)
    if not sums[-1] > 0:
        return chance.integers(0, len(weights), count)
    return np.searchsorted(sums, chance.random(count) * sums[-1], side="right").clip(0, len(weights) - 1)


def _length(vectors: Doubles) -> Doubles:
    return np.asarray(np.linalg.norm(vectors, axis=1))


def _unit(vectors: Doubles) -> Doubles:
    return vectors / np.maximum(_length(vectors), 1e-300)[:, None]


def _histogram(distances: Doubles) -> Doubles:
    return np.histogram(distances / max(distances.mean(), 1e-300), _BINS, (0, 3))[0] / len(distances)


def _angles(first: Doubles, second: Doubles) -> Doubles:
    cosines = np.einsum("ni,ni->n", _unit(first), _unit(second)).clip(-1, 1)
    return np.histogram(np.arccos(cosines), _BINS, (0, np.pi))[0] / len(cosines)
