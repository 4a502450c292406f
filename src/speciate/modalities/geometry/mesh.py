"""Surfaces made of triangles, from OBJ (with materials and textures beside it), PLY, STL, OFF, GLB and glTF files.

Decoded to vertices float32 (V, 3), faces int32 (F, 3) and, where the file has any, a colour uint8 (V, 3) per vertex.
Polygons become triangles; every node of a glTF is put where the file puts it. Numbers keep the units of the file, which
only glTF names (metres).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import (
    LARGEST_THUMBNAIL,
    DecodeError,
    FileSummary,
    Header,
    Modality,
    Pixels,
    Vector,
)
from speciate.modalities.geometry import mesh_files, shape_descriptors, triangles
from speciate.modalities.geometry.obj_and_gltf import LoadedMesh
from speciate.modalities.geometry.rendering import surface_views
from speciate.modalities.geometry.shape_descriptors import SHAPE_SKETCHES

_CELLS = 1 << 16
"""Share of the longest side, about: a fingerprint ignores finer differences, such as those of a text of six digits."""


class MeshMedia(TypedDict):
    vertices: npt.NDArray[np.float32]
    """(V, 3)"""
    faces: npt.NDArray[np.int32]
    """(F, 3)"""
    colors: NotRequired[npt.NDArray[np.uint8]]
    """(V, 3)"""


class Mesh(Modality[MeshMedia]):
    name = "mesh"
    suffixes = (".obj", ".ply", ".stl", ".off", ".glb", ".gltf")
    sketching = SHAPE_SKETCHES
    thumbnail_side = LARGEST_THUMBNAIL

    def sniff(self, head: bytes, name: str) -> bool:
        return mesh_files.sniff(head, name)

    def inspect(self, data: bytes) -> Header:
        header = mesh_files.declared(data)
        return Header(
            12 * (header.vertices + header.faces),
            {"format": header.format, "vertices": header.vertices, "faces": header.faces, "units": header.units},
        )

    def decode(self, data: bytes) -> MeshMedia:
        return _checked(mesh_files.load(data))

    def admit(self, value: Any) -> MeshMedia:
        """`value`: encoded bytes, or {"vertices": [[x, y, z]], "faces": [[a, b, c]]}."""
        if isinstance(value, bytes):
            return self.decode(value)
        if not isinstance(value, Mapping) or not {"vertices", "faces"} <= value.keys():
            raise DecodeError("error", "A mesh must be the bytes of a file, or have `vertices` and `faces`.")
        try:
            vertices = np.asarray(value["vertices"], np.float64)
            faces = np.asarray(value["faces"], np.int64)
        except (TypeError, ValueError) as error:
            raise DecodeError("error", "Vertices are [V][3] numbers and faces [F][3] places of them.") from error
        if vertices.ndim != 2 or faces.ndim != 2 or vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
            raise DecodeError("error", "Vertices are [V][3] numbers and faces [F][3] places of them.")
        return _checked(LoadedMesh(vertices, faces))

    def summarize(self, data: bytes) -> FileSummary:
        media = self.decode(data)
        corners = triangles.corners_of(media)
        sketch = SHAPE_SKETCHES.sketch(shape_descriptors.invariants(shape_descriptors.of_surface(corners), corners))
        return FileSummary(self.inspect(data), self.fingerprint(media), _measures(media, corners), sketch)

    def fingerprint(self, media: MeshMedia) -> str:
        """Count and hash of the triangles, rounded and sorted: a file may number or repeat vertices as it likes."""
        corners = _rounded(media["vertices"])[media["faces"]]
        if "colors" in media:
            corners = np.concatenate([corners, media["colors"][media["faces"]]], axis=2)
        corners = _from_the_least(corners).reshape(len(corners), -1)
        return f"{len(corners)} {hashlib.sha256(_sorted(corners).tobytes()).hexdigest()}"

    def measure(self, media: MeshMedia) -> dict[str, int | float]:
        """Vertices at different places, faces, parts that hang together, whether it is closed; area and, where closed,
        volume; its lowest corner and its extent: in units of the file."""
        return _measures(media, triangles.corners_of(media))

    def describe(self, media: MeshMedia) -> Vector:
        """(D,): the invariants of its shape, and the shape distributions D1, D2 and A3."""
        return self.features(media)

    def features(self, media: MeshMedia) -> Vector:
        """(120,): the same; distances between distributions are taken between their roots (Hellinger)."""
        corners = triangles.corners_of(media)
        cloud = shape_descriptors.of_surface(corners)
        return shape_descriptors.describe(
            shape_descriptors.invariants(cloud, corners), shape_descriptors.distributions(cloud)
        )

    def thumbnail(self, media: MeshMedia) -> Pixels:
        colours = media["colors"][media["faces"]] if "colors" in media else None
        return surface_views(triangles.corners_of(media), colours)

    def sketch(self, media: MeshMedia) -> bytes | None:
        corners = triangles.corners_of(media)
        return SHAPE_SKETCHES.sketch(shape_descriptors.invariants(shape_descriptors.of_surface(corners), corners))


def sampled(media: MeshMedia, count: int, seed: int = 0) -> shape_descriptors.Sampled:
    """Points drawn evenly from the surface of a mesh, and the normals there; the same for the same seed."""
    return shape_descriptors.sampled(triangles.corners_of(media), count, seed)


def _checked(loaded: LoadedMesh) -> MeshMedia:
    """Faces that point at vertices that are not there make it partial; so do vertices that are nowhere."""
    vertices, faces = loaded.vertices, loaded.faces
    if not len(vertices) or not len(faces):
        raise DecodeError("error", "There is not a single face.")
    outside = int(((faces < 0) | (faces >= len(vertices))).any(axis=1).sum())
    if outside:
        raise DecodeError("partial", f"{outside:,} of {len(faces):,} faces point at vertices that are not there.")
    with np.errstate(over="ignore"):
        single = vertices.astype(np.float32)
    lost = int((~np.isfinite(single)).any(axis=1).sum())
    if lost:
        raise DecodeError("error", f"{lost:,} of {len(vertices):,} vertices are no finite numbers.")
    extent = np.ptp(single.astype(np.float64), axis=0)
    if (
        not 0 < float(extent.max()) < 1e15
        or not np.sqrt(triangles.areas(single.astype(np.float64)[faces]).sum()) > 1e-18
    ):
        raise DecodeError("error", "Its faces have no area, or no size that can be computed with.")
    media = MeshMedia(vertices=single, faces=faces.astype(np.int32))
    if loaded.colours is not None:
        media["colors"] = loaded.colours
    return media


def _measures(media: MeshMedia, corners: triangles.Doubles) -> dict[str, int | float]:
    welded = triangles.welded(media["vertices"], media["faces"])
    found = triangles.topology(welded)
    low, extent = corners.reshape(-1, 3).min(axis=0), np.ptp(corners.reshape(-1, 3), axis=0)
    measures: dict[str, int | float] = {
        "vertices": len(np.unique(welded)), "faces": len(corners), "components": found.components,
        "watertight": int(found.watertight), "area": _short(triangles.areas(corners).sum()),
    }  # fmt: skip
    if found.oriented:
        measures["volume"] = _short(abs(triangles.volume(corners, corners[0, 0])))
    for axis, place in zip("xyz", range(3), strict=True):
        measures |= {f"low_{axis}": _short(low[place]), f"extent_{axis}": _short(extent[place])}
    return measures


def _short(value: float) -> float:
    """Seven digits, as float32 has them."""
    return float(f"{float(value):.7g}")


def _rounded(points: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """(N, 3) in cells whose side is a power of two, so that a last digit of the extent does not change it."""
    extent = float(np.ptp(points.astype(np.float64), axis=0).max())
    cell = 2.0 ** round(math.log2(max(extent, 1e-30) / _CELLS))
    return np.asarray(np.round(points.astype(np.float64) / cell), np.int64)


def _from_the_least(corners: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(F, 3, K): each face from its least corner on, in the direction that it had."""
    first = np.zeros(len(corners), np.int64)
    for other in (1, 2):
        best = np.take_along_axis(corners, first[:, None, None], axis=1)[:, 0]
        first = np.where(_less(corners[:, other], best), other, first)
    turns = (first[:, None] + np.arange(3)) % 3
    return np.take_along_axis(corners, turns[:, :, None], axis=1)


def _less(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(F,): row by row, in the order of their columns."""
    less, equal = np.zeros(len(a), bool), np.ones(len(a), bool)
    for column in range(a.shape[1]):
        less |= equal & (a[:, column] < b[:, column])
        equal &= a[:, column] == b[:, column]
    return less


def _sorted(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(rows[np.lexsort(rows.T[::-1])], "<i8")


MESH = Mesh()
