"""Sketches of videos: those of a few of their pictures, taken at the same shares of their length.

Two videos are near where each picture is near the other's, or blank in both. So a copy in another codec, size or
quality is found; a part that was cut out is not, for its pictures are others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Pixels, Sketches
from speciate.modalities.sketches import PICTURES


class Clips:
    """The sketch of each of `count` pictures (sketches.py), all zeros where nothing is to be seen."""

    count = 3
    width = count * PICTURES.width

    def sketch(self, pictures: Sequence[Pixels]) -> bytes | None:
        """pictures: `count` of (GRID, GRID), gray -> `width` bytes; None where all are blank."""
        codes = [PICTURES.sketch(picture) for picture in pictures]
        if not any(codes):
            return None
        return b"".join(code or bytes(PICTURES.width) for code in codes)

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, 16): of the last picture that is not blank; videos often begin alike."""
        parts = self._parts(sketches)
        seen = np.asarray(parts.any(axis=2))
        last = self.count - 1 - seen[:, ::-1].argmax(axis=1)
        return PICTURES.keys(np.ascontiguousarray(parts[np.arange(len(parts)), last]))

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        first, second = self._parts(a), self._parts(b)
        near: npt.NDArray[np.bool_] = np.ones(len(a), bool)
        for place in range(self.count):
            one, other = (np.ascontiguousarray(parts[:, place]) for parts in (first, second))
            blank = ~one.any(axis=1), ~other.any(axis=1)
            alike = PICTURES.near(one, other, threshold)
            near &= np.where(blank[0] | blank[1], blank[0] & blank[1], alike)
        return near

    def _parts(self, sketches: Sketches) -> Sketches:
        """(N, count, width of one)"""
        return sketches.reshape(len(sketches), self.count, PICTURES.width)


CLIPS = Clips()
