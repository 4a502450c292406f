"""Outlines: one polygon as well-known text (ISO 19125), decoded to float32 (N, 2), its corners in order."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from speciate.modalities.contract import THUMBNAIL, DecodeError, Header, Modality, Pixels, Vector

_MOST_CORNERS = 100_000
_WKT = re.compile(rb"\s*POLYGON\s*\(\s*\(([^()]*)(\)\s*\))?\s*", re.IGNORECASE)


class Outline(Modality[Vector]):
    name = "outline"
    suffixes = (".wkt",)

    def sniff(self, head: bytes, name: str) -> bool:
        return _WKT.match(head) is not None

    def inspect(self, data: bytes) -> Header:
        return Header(len(data), {"corners": _ring(data)[1].count(b",")})

    def decode(self, data: bytes) -> Vector:
        ring = _ring(data)
        corners = ring[1].count(b",")
        if corners > _MOST_CORNERS:
            raise DecodeError("refused", f"{corners:,} corners, more than {_MOST_CORNERS:,}.")
        if not ring[2]:
            raise DecodeError("partial", "The polygon has no end.")
        try:
            points = np.array([corner.split() for corner in ring[1].split(b",")]).astype(np.float32)
        except ValueError as error:
            raise DecodeError("error", f"Not a list of corners: {error}.") from error
        if len(points) < 4 or (points[0] != points[-1]).any():
            raise DecodeError("error", "A ring ends where it began, and has three corners or more.")
        return self.admit(points[:-1])

    def admit(self, value: Any) -> Vector:
        try:
            points = np.asarray(value, np.float32)
        except (TypeError, ValueError) as error:
            raise DecodeError("error", "An outline is a list of [x, y].") from error
        if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
            raise DecodeError("error", "An outline is [N][2], finite and not empty.")
        return points

    def fingerprint(self, media: Vector) -> str:
        first = np.lexsort(media.T)[0]  # a ring begins anywhere
        return hashlib.sha256(np.roll(media, -first, axis=0).tobytes()).hexdigest()

    def measure(self, media: Vector) -> dict[str, int | float]:
        return {"extent": float(np.ptp(media, axis=0).max())}

    def describe(self, media: Vector) -> Vector:
        """(32,): how far its corners are from the middle, as shares, in units of their mean."""
        away = np.linalg.norm(media - media.mean(axis=0), axis=1)
        return (np.histogram(away / max(away.mean(), 1e-12), 32, (0, 2))[0] / len(away)).astype(np.float32)

    features = describe  # it has the same length for all outlines

    def thumbnail(self, media: Vector) -> Pixels:
        image = np.full((THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
        centred = media.astype(np.float64) - media.mean(axis=0)
        x, y = (centred / max(np.abs(centred).max(), 1e-12)).T
        image[(79 * (1 - y)).astype(int), (79 * (1 + x)).astype(int)] = 0
        return image


def _ring(data: bytes) -> re.Match[bytes]:
    if found := _WKT.match(data):
        return found
    raise DecodeError("error", "Not a polygon as well-known text.")


OUTLINE = Outline()
