"""Clouds of points from ASCII PLY files, decoded to float32 (N, 3): x, y and z of each vertex."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from speciate.modalities.contract import THUMBNAIL, DecodeError, Header, Modality, Pixels, Vector

_MOST_POINTS = 5_000_000
_HEADER = re.compile(rb"ply\s+format ascii 1\.0\s.*?element vertex (\d+)\s.*?end_header\s*?\n", re.DOTALL)


class PointCloud(Modality[Vector]):
    name = "point-cloud"
    suffixes = (".ply",)

    def sniff(self, head: bytes, name: str) -> bool:
        return head.startswith((b"ply\n", b"ply\r\n"))

    def inspect(self, data: bytes) -> Header:
        points = int(_header(data)[1])
        return Header(12 * points, {"points": points})

    def decode(self, data: bytes) -> Vector:
        header = _header(data)
        points = int(header[1])
        if points > _MOST_POINTS:
            raise DecodeError("refused", f"{points:,} points, more than {_MOST_POINTS:,}.")
        lines = data[header.end() :].split(b"\n")[:-1]
        if len(lines) < points:
            raise DecodeError("partial", f"{len(lines):,} points where the header declares {points:,}.")
        try:
            return self.admit(np.array([line.split()[:3] for line in lines[:points]]).astype(np.float32))
        except ValueError as error:
            raise DecodeError("error", f"Not a table of numbers: {error}.") from error

    def admit(self, value: Any) -> Vector:
        try:
            points = np.asarray(value, np.float32)
        except (TypeError, ValueError) as error:
            raise DecodeError("error", "A cloud is a list of [x, y, z].") from error
        if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
            raise DecodeError("error", "A cloud is [N][3], finite and not empty.")
        return points

    def fingerprint(self, media: Vector) -> str:
        return hashlib.sha256(media[np.lexsort(media.T)].tobytes()).hexdigest()  # their order means nothing

    def measure(self, media: Vector) -> dict[str, int | float]:
        return {"extent": float(np.ptp(media, axis=0).max())}

    def describe(self, media: Vector) -> Vector:
        """(32,): how far two of its points are apart, beside the mean (D2 shape distribution, Osada et al. 2002)."""
        first, second = np.random.default_rng(0).integers(0, len(media), (2, 20_000))
        apart = np.linalg.norm(media[first].astype(np.float64) - media[second], axis=1)
        return np.histogram(apart / max(apart.mean(), 1e-12), 32, (0, 3))[0].astype(np.float32) / 20_000

    features = describe  # it has the same length for all clouds

    def thumbnail(self, media: Vector) -> Pixels:
        """Seen from above; what is higher is darker."""
        picture = np.full((THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
        centred = media[media[:, 2].argsort()].astype(np.float64) - media.mean(axis=0)
        x, y, z = (centred / max(np.abs(centred).max(), 1e-12)).T
        picture[(79 * (1 - y)).astype(int), (79 * (1 + x)).astype(int)] = (110 - 100 * z)[:, np.newaxis]
        return picture


def _header(data: bytes) -> re.Match[bytes]:
    if (found := _HEADER.match(data)) is None:
        raise DecodeError("error", "Not an ASCII PLY file, or its header is damaged.")
    return found


POINT_CLOUD = PointCloud()
