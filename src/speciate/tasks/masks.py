"""Regions of pictures: COCO's outlines and run lengths as arrays.

A pixel belongs to an outline where its centre lies inside.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.scans.label_maps import resized
from speciate.modalities.scans.outlines import Mask, filled

Size = tuple[int, int]  # height, width

_MOST_PIXELS = 50_000_000


def region(outline: Any, picture: Size, size: Size) -> Mask:
    """What COCO calls a segmentation, of a picture of `picture` pixels, drawn in `size` pixels.

    `outline`: polygons `[[x, y, x, y, ...], ...]`, or run lengths `{size, counts}`, plain or compressed; also as JSON.
    ValueError: neither.
    """
    if isinstance(outline, str):
        try:
            outline = json.loads(outline)
        except ValueError as error:
            raise ValueError(f"{outline!r:.60} is no JSON of polygons or run lengths") from error
    if isinstance(outline, dict):
        return resized(_from_runs(outline), size)
    if not isinstance(outline, list) or not outline:
        raise ValueError(f"{outline!r:.60} is neither polygons nor run lengths")
    mask = np.zeros(size, bool)
    for ring in outline:
        mask |= filled(_points(ring) * (size[1] / picture[1], size[0] / picture[0]), size)
    return mask


def _points(ring: Any) -> npt.NDArray[np.float64]:
    try:
        points = np.array(ring, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the polygon {ring!r:.60} is no list [x, y, x, y, ...]") from error
    if len(points) < 3 or not np.isfinite(points).all():
        raise ValueError(f"the polygon {ring!r:.60} has no three points")
    return points


def _from_runs(outline: dict[str, Any]) -> Mask:
    """COCO's run lengths: column by column, outside first."""
    try:
        height, width = (int(side) for side in outline["size"])
        counts = outline["counts"]
        runs = np.array(_uncompressed(counts) if isinstance(counts, str) else counts, np.int64)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{outline!r:.60} is not {{size: [height, width], counts: run lengths}}") from error
    if min(height, width) < 1 or height * width > _MOST_PIXELS or runs.ndim != 1 or (runs < 0).any():
        raise ValueError(f"run lengths of {height} x {width} pixels with counts {counts!r:.40} cannot be")
    if runs.sum() != height * width:
        raise ValueError(f"run lengths of {runs.sum():,} pixels do not fill {height} x {width}")
    mask: Mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    return mask


def _uncompressed(text: str) -> list[int]:
    """Five bits a character, lowest first, the sixth says that more follow; from the third on, the difference to the
    count two before (pycocotools' maskApi).
    """
    counts: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[place]) - 48
            if not 0 <= bits < 64:
                raise ValueError(text[place])
            value |= (bits & 0x1F) << shift
            more, shift, place = bool(bits & 0x20), shift + 5, place + 1
            if not more and bits & 0x10:
                value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts
