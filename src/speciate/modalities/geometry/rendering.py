"""Images of meshes and point clouds without a display or graphics library: points, nearest first, in numpy.

A surface becomes so many points that no pixel stays empty; the nearest one is seen (a z-buffer, Catmull 1974). It is
drawn twice as large and shrunk, with light from the upper left, in four views.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import LARGEST_THUMBNAIL, Pixels
from speciate.modalities.geometry.triangles import Doubles, areas, cross_products

Floats = npt.NDArray[np.floating[Any]]

_VIEW = LARGEST_THUMBNAIL // 2
_SUPER = 2
_MARGIN = 0.9
_TURNS = ((-60, 25), (120, 25), (30, -30), (-90, 90))
"""Viewpoints in degrees: around the z axis, and up. Two sides, from below, and from above."""
_LIGHT = np.array([-0.45, 0.55, 0.7])
_GREY = np.array([150.0, 170.0, 195.0])
_MOST_POINTS = 1_500_000
_LOW, _MIDDLE, _HIGH = np.array([49, 54, 149.0]), np.array([60, 160, 120.0]), np.array([250, 190, 50.0])


def surface_views(corners: Doubles, colours: npt.NDArray[np.uint8] | None) -> Pixels:
    """(320, 320, 3) of triangles (F, 3, 3), with the colours of their corners (F, 3, 3) if there are any."""
    centred = _fitted(corners)
    points, face, weights = _covered(centred, 1.0 / (_VIEW * _SUPER))
    points = points.astype(np.float32)  # a pixel is a five-hundredth
    normals = cross_products(centred)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    if colours is None:
        paint = np.broadcast_to(_GREY, (len(points), 3))
    else:
        paint = np.einsum("nk,nkd->nd", weights, colours[face].astype(np.float64))
    return _sheet([_surface_view(points, normals[face], paint, *turn) for turn in _TURNS])


def cloud_views(points: Doubles, colours: npt.NDArray[np.uint8] | None) -> Pixels:
    """(320, 320, 3) of points (N, 3) in their own colours (N, 3), else by their height."""
    if len(points) > _MOST_POINTS:
        step = -(-len(points) // _MOST_POINTS)
        points, colours = points[::step], None if colours is None else colours[::step]
    centred = _fitted(points).astype(np.float32)
    height = (points[:, 2] - points[:, 2].min()) / max(float(np.ptp(points[:, 2])), 1e-300)
    paint = _by_height(height) if colours is None else colours.astype(np.float64)
    return _sheet([_cloud_view(centred, paint, *turn) for turn in _TURNS])


def _fitted(points: Doubles) -> Doubles:
    """(..., 3) moved and scaled into the ball of diameter 1 around the middle of their box."""
    flat = points.reshape(-1, 3)
    centred = points - (flat.min(axis=0) + flat.max(axis=0)) / 2
    reach = float(np.linalg.norm(centred.reshape(-1, 3), axis=1).max())
    return np.asarray(centred / max(2 * reach, 1e-300))


def _covered(corners: Doubles, step: float) -> tuple[Doubles, npt.NDArray[np.int64], Doubles]:
    """Points not farther from each other than `step`, the face of each, and where in it they lie (N, 3).

    A face is cut along its longest side and across it, each as finely as that needs: many faces are slivers.
    """
    sides = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
    longest, along = sides.argmax(axis=1), sides.max(axis=1)
    area = areas(corners)
    across = 2 * area / np.maximum(along, 1e-300)
    step = max(step, math.sqrt(float(area.sum()) / _MOST_POINTS))
    cuts = np.stack([along, across], axis=1) / step
    cuts = np.ceil(2 ** (np.ceil(2 * np.log2(cuts.clip(1, 1024))) / 2)).astype(np.int64)  # few kinds of them
    kinds, kind = np.unique(cuts, axis=0, return_inverse=True)
    points, faces, weights = [], [], []
    for number, (length, height) in enumerate(kinds.tolist()):
        grid = _grid(length, height)
        for first in range(3):
            chosen = np.flatnonzero((kind.ravel() == number) & (longest == first))
            turned = np.roll(grid, first, axis=1)
            points.append(np.einsum("mk,fkd->fmd", turned, corners[chosen]).reshape(-1, 3))
            faces.append(np.repeat(chosen, len(grid)))
            weights.append(np.tile(turned, (len(chosen), 1)))
    return np.concatenate(points), np.concatenate(faces), np.concatenate(weights)


def _grid(length: int, height: int) -> Doubles:
    """Barycentric places over a triangle: rows along its first side, fewer in number towards the third corner."""
    rows = []
    for row in range(height + 1):
        up = row / height
        count = max(math.ceil(length * (1 - up)), 1)
        right = np.linspace(0, 1, count + 1) * (1 - up)
        rows.append(np.stack([1 - up - right, right, np.full(count + 1, up)], axis=1))
    return np.concatenate(rows)


def _turned(vectors: Floats, around: float, up: float) -> Floats:
    """(N, 3): to the right, up, and towards the eye."""
    a, b = math.radians(around), math.radians(up)
    right = np.array([-math.sin(a), math.cos(a), 0.0])
    eye = np.array([math.cos(a) * math.cos(b), math.sin(a) * math.cos(b), math.sin(b)])
    axes = np.stack([right, np.cross(eye, right), eye]).astype(vectors.dtype)
    return np.asarray(np.einsum("nd,kd->nk", vectors, axes))  # a product of matrices this thin only starts threads


def _surface_view(points: Floats, normals: Floats, paint: Floats, around: float, up: float) -> Doubles:
    """(side, side, 3)"""
    seen = _turned(points, around, up)
    nearest, depth = _closed(*_nearest(seen, 0))
    image = np.full((*nearest.shape, 3), 255.0)
    there = nearest >= 0
    facing = _turned(normals[nearest[there]], around, up)
    facing *= np.where(facing[:, 2:] < 0, -1, 1)  # both sides of a face are seen
    light = 0.35 + 0.65 * (facing @ (_LIGHT / np.linalg.norm(_LIGHT))).clip(0)
    image[there] = (paint[nearest[there]] * light[:, None] * 1.15).clip(0, 255)
    image[_edges(depth)] *= 0.45
    return image


def _cloud_view(points: Floats, paint: Floats, around: float, up: float) -> Doubles:
    """Few points are drawn large; what is farther away is paler."""
    seen = _turned(points, around, up)
    nearest, depth = _nearest(seen, 2 if len(points) < 20_000 else 1 if len(points) < 200_000 else 0)
    image = np.full((*nearest.shape, 3), 255.0)
    there = nearest >= 0
    pale = ((depth[there] + 0.5).clip(0, 1) * 0.6 + 0.4)[:, None]
    image[there] = paint[nearest[there]] * pale + 235 * (1 - pale)
    return image


def _nearest(seen: Floats, reach: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """(side, side) the number of the visible point, -1 without one, and how near it is.

    `reach`: by how many pixels a point is larger to each side.
    """
    side = _VIEW * _SUPER
    x = ((0.5 + seen[:, 0] * _MARGIN) * (side - 1)).round().astype(np.int64)
    y = ((0.5 - seen[:, 1] * _MARGIN) * (side - 1)).round().astype(np.int64)
    near = ((seen[:, 2] + 1) * np.float32(1 << 30)).astype(np.uint64) << np.uint64(32)
    key = near | np.arange(1, len(seen) + 1, dtype=np.uint64)
    buffer = np.zeros(side * side, np.uint64)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            place = (y + dy).clip(0, side - 1) * side + (x + dx).clip(0, side - 1)
            np.maximum.at(buffer, place, key)
    found = (buffer & np.uint64(0xFFFFFFFF)).astype(np.int64).reshape(side, side) - 1
    depth = np.where(found >= 0, seen[:, 2][found], -np.inf)
    return found, depth


def _closed(nearest: npt.NDArray[np.int64], depth: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Closes gaps of a single pixel, which a grid of points leaves where it is turned against the pixels."""
    for axis in (0, 1):
        before, after = np.roll(depth, 1, axis), np.roll(depth, -1, axis)
        gap = np.minimum(before, after) > np.where(np.isfinite(depth), depth, -2) + 0.01
        nearest = np.where(gap, np.roll(nearest, 1, axis), nearest)
        depth = np.where(gap, before, depth)
    return nearest, depth


def _edges(depth: Floats) -> npt.NDArray[np.bool_]:
    """Edges of what lies behind: drawn darker."""
    step = 0.03
    found = np.zeros(depth.shape, bool)
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            for shift in (1, -1):
                found |= depth - np.roll(depth, shift, axis) > step
    return found & np.isfinite(depth)


def _by_height(height: Doubles) -> Doubles:
    """(N,) 0 to 1 -> (N, 3): blue, green, yellow."""
    low, high = (2 * height).clip(0, 1)[:, None], (2 * height - 1).clip(0, 1)[:, None]
    below = (height < 0.5)[:, None]
    return np.asarray(np.where(below, _LOW + (_MIDDLE - _LOW) * low, _MIDDLE + (_HIGH - _MIDDLE) * high))


def _sheet(views: list[Doubles]) -> Pixels:
    """Four views in a square."""
    small = [view.reshape(_VIEW, _SUPER, _VIEW, _SUPER, 3).mean(axis=(1, 3)) for view in views]
    rows = [np.concatenate(small[start : start + 2], axis=1) for start in (0, 2)]
    return np.asarray(np.concatenate(rows).round().clip(0, 255), np.uint8)
