"""Points in space from PLY without faces, PCD, LAS, LAZ, NPY, NPZ and rows of numbers as text.

Decoded to points float32 (N, 3) and, where the file has them, colours uint8 (N, 3) and an intensity float32 (N,). The
order of points means nothing. Coordinates of LAS and LAZ are counted from the lowest corner that the header names,
which becomes the columns origin_x, origin_y and origin_z: single precision would round those of a map.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import LARGEST_THUMBNAIL, DecodeError, Header, Modality, Pixels, Vector
from speciate.modalities.geometry import point_files, shape_descriptors
from speciate.modalities.geometry.point_files import LoadedCloud
from speciate.modalities.geometry.rendering import cloud_views
from speciate.modalities.geometry.shape_descriptors import SHAPE_SKETCHES

_FEWEST = 32
"""Points that make a shape: fewer have no sketch."""
_CELLS = 1 << 16
"""Cells along the longest side, about: a fingerprint ignores finer differences."""


class PointCloudMedia(TypedDict):
    points: npt.NDArray[np.float32]
    """(N, 3)"""
    colors: NotRequired[npt.NDArray[np.uint8]]
    """(N, 3)"""
    intensity: NotRequired[npt.NDArray[np.float32]]
    """(N,)"""


class PointCloud(Modality[PointCloudMedia]):
    name = "point-cloud"
    suffixes = (".ply", ".pcd", ".las", ".laz", ".xyz", ".pts", ".npy", ".npz")
    sketching = SHAPE_SKETCHES
    thumbnail_side = LARGEST_THUMBNAIL

    def sniff(self, head: bytes, name: str) -> bool:
        return point_files.sniff(head, name)

    def inspect(self, data: bytes) -> Header:
        header = point_files.declared(data)
        fields: dict[str, str | int | float] = {"format": header.format, "points": header.points}
        if header.origin is not None:
            fields |= {f"origin_{axis}": value for axis, value in zip("xyz", header.origin, strict=True)}
        return Header(12 * header.points, fields)

    def decode(self, data: bytes) -> PointCloudMedia:
        return _checked(point_files.load(data))

    def admit(self, value: Any) -> PointCloudMedia:
        """`value`: encoded bytes, [N][3], or {"points": [N][3]}."""
        if isinstance(value, bytes):
            return self.decode(value)
        rows = value.get("points") if isinstance(value, Mapping) else value
        try:
            points = np.asarray(rows, np.float64)
        except (TypeError, ValueError) as error:
            raise DecodeError("error", "A cloud is a list of [x, y, z].") from error
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise DecodeError("error", "A cloud is a list of [x, y, z], and not empty.")
        if len(points) > point_files.MOST:
            raise DecodeError("refused", f"{len(points):,} points, more than {point_files.MOST:,}.")
        return _checked(LoadedCloud(points))

    def fingerprint(self, media: PointCloudMedia) -> str:
        """Count and hash of the points, rounded and sorted; their colours and intensities count, too."""
        points = media["points"].astype(np.float64)
        cell = 2.0 ** round(math.log2(max(float(np.ptp(points, axis=0).max()), 1e-30) / _CELLS))
        rows = [np.round(points / cell).astype(np.int64)]
        if "colors" in media:
            rows.append(media["colors"].astype(np.int64))
        if "intensity" in media:
            rows.append(media["intensity"].view(np.int32)[:, None].astype(np.int64))
        table = np.concatenate(rows, axis=1)
        ordered = np.ascontiguousarray(table[np.lexsort(table.T[::-1])], "<i8")
        return f"{len(points)} {hashlib.sha256(ordered.tobytes()).hexdigest()}"

    def measure(self, media: PointCloudMedia) -> dict[str, int | float]:
        """Points, whether they have colours and intensities; lowest corner and extent, in units of the file."""
        points = media["points"].astype(np.float64)
        low, extent = points.min(axis=0), np.ptp(points, axis=0)
        measures: dict[str, int | float] = {
            "points": len(points), "has_colors": int("colors" in media), "has_intensity": int("intensity" in media),
        }  # fmt: skip
        for place, axis in enumerate("xyz"):
            measures |= {f"low_{axis}": float(f"{low[place]:.7g}"), f"extent_{axis}": float(f"{extent[place]:.7g}")}
        return measures

    def describe(self, media: PointCloudMedia) -> Vector:
        """(120,): the invariants of its shape, and the roots of the shape distributions D1, D2 and A3."""
        return self.features(media)

    def features(self, media: PointCloudMedia) -> Vector:
        """(120,): the same."""
        cloud = shape_descriptors.of_points(media["points"])
        return shape_descriptors.describe(shape_descriptors.invariants(cloud), shape_descriptors.distributions(cloud))

    def thumbnail(self, media: PointCloudMedia) -> Pixels:
        return cloud_views(media["points"].astype(np.float64), media.get("colors"))

    def sketch(self, media: PointCloudMedia) -> bytes | None:
        if len(media["points"]) < _FEWEST or not np.ptp(media["points"], axis=0).any():
            return None
        return SHAPE_SKETCHES.sketch(shape_descriptors.invariants(shape_descriptors.of_points(media["points"])))


def _checked(loaded: LoadedCloud) -> PointCloudMedia:
    with np.errstate(over="ignore"):
        single = loaded.points.astype(np.float32)
    lost = int((~np.isfinite(single)).any(axis=1).sum())
    if lost or not np.abs(single).max() < 1e15:
        raise DecodeError("error", f"{lost:,} of {len(single):,} points are no finite numbers, or too large for any.")
    media = PointCloudMedia(points=single)
    if loaded.colours is not None:
        media["colors"] = loaded.colours
    if loaded.intensity is not None:
        if not np.isfinite(loaded.intensity).all():
            raise DecodeError("error", "An intensity is no finite number.")
        media["intensity"] = loaded.intensity
    return media


POINT_CLOUD = PointCloud()
