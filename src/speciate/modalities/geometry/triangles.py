"""Triangles as arrays: from polygons, and exact measures of a surface made of them.

A mesh is vertices (V, 3) and faces (F, 3); its corners are (F, 3, 3). Corners that lie at one place are one, however
often a file writes them: an STL file writes each six times.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.connected_components import unite

Places = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


class Topology(NamedTuple):
    watertight: bool
    """Every edge lies between exactly two faces."""
    oriented: bool
    """Whether it is watertight and the two faces of each edge go along it in opposite directions, so that inside and
    outside are known."""
    components: int
    """Parts that share no corner."""


def fans(lengths: Places, corners: Places) -> Places:
    """(P,) corners of each polygon, and all of them one after another -> (T, 3): from its first corner on."""
    count = np.maximum(lengths - 2, 0)
    starts = np.repeat(np.cumsum(lengths) - lengths, count)
    step = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return np.stack([corners[starts], corners[starts + step + 1], corners[starts + step + 2]], axis=1)


def cross_products(corners: Doubles) -> Doubles:
    """(F, 3): along the normal of each, twice as long as its area."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def areas(corners: Doubles) -> Doubles:
    """(F,)"""
    return np.asarray(np.linalg.norm(cross_products(corners), axis=1) / 2)


class Parts(NamedTuple):
    corners: Doubles
    """(P, 3, 3)"""
    face: Places
    """(P,) of which triangle each is a part."""
    shares: Doubles
    """(P,) of that triangle's area."""


def halved(corners: Doubles, longest: float) -> Parts:
    """Triangles (F, 3, 3) cut through the middle of their longest side (Rivara 1984) until none is longer than
    `longest`, at most sixteen times."""
    face, shares = np.arange(len(corners)), np.ones(len(corners))
    done: list[Parts] = []
    for _ in range(16):
        sides = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
        whole = sides.max(axis=1) <= longest
        done.append(Parts(corners[whole], face[whole], shares[whole]))
        if whole.all():
            break
        first = sides[~whole].argmax(axis=1)
        turned = np.take_along_axis(corners[~whole], ((first[:, None] + np.arange(3)) % 3)[:, :, None], axis=1)
        middle = turned[:, :2].mean(axis=1)
        a, b, c = turned.transpose(1, 0, 2)
        corners = np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])
        face, shares = np.tile(face[~whole], 2), np.tile(shares[~whole] / 2, 2)
    else:
        done.append(Parts(corners, face, shares))
    return Parts(*(np.concatenate(each) for each in zip(*done, strict=True)))


def volume(corners: Doubles, middle: Doubles) -> float:
    """Enclosed, by the divergence theorem; negative if the faces look inwards. For a surface that is not closed this is
    the volume between it and `middle` (3,)."""
    a, b, c = (corners - middle).transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def welded(vertices: npt.NDArray[np.float32], faces: npt.NDArray[np.int32]) -> Places:
    """(F, 3): the faces with one number for all vertices at one place."""
    exact = np.ascontiguousarray(vertices + np.float32(0))  # one of the two zeros
    key = exact.view([("x", "f4"), ("y", "f4"), ("z", "f4")]).ravel()
    order = np.lexsort((key["z"], key["y"], key["x"]))
    new = np.append(True, (exact[order][1:] != exact[order][:-1]).any(axis=1))
    number = np.empty(len(exact), np.int64)
    number[order] = np.cumsum(new) - 1
    return np.asarray(number[faces])


def topology(faces: Places) -> Topology:
    """Topology of welded faces, (F, 3). Faces with two corners at one place have no area and are passed over."""
    real = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    if not len(real):
        return Topology(watertight=False, oriented=False, components=0)
    most = int(faces.max()) + 1
    ends = np.concatenate([real[:, [0, 1]], real[:, [1, 2]], real[:, [2, 0]]])
    low, high = ends.min(axis=1), ends.max(axis=1)
    edges, number, times = np.unique(low * most + high, return_inverse=True, return_counts=True)
    along = np.bincount(number, np.where(ends[:, 0] == low, 1, -1), len(edges))
    watertight = bool((times == 2).all())
    return Topology(watertight, watertight and not along.any(), _components(most, np.divmod(edges, most), real))


def _components(count: int, edges: tuple[Places, Places], faces: Places) -> int:
    """How many parts the corners of `faces` hang together in."""
    parent = unite(np.arange(count), *edges)
    return len(np.unique(parent[faces[:, 0]]))


def corners_of(media: Any) -> Doubles:
    """(F, 3, 3) of a mesh."""
    return np.asarray(media["vertices"].astype(np.float64)[media["faces"]])
