"""How far away each pixel of an image is: as an array, and as the cell of a table.

A map is `{size: [height, width], low, high, values}`. `values` are uint16, little-endian, row by row, packed by zlib
and written in base64: 0 where nothing is known, else from 1 for `low` to 65535 for `high`, evenly. So a value is kept
to 1/131068 of the map's range. A cell holds the map as JSON text. The unit is the caller's, usually metres.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

Distances = npt.NDArray[np.float64]
"""(H, W); NaN where nothing is known."""

DEPTH = "depth"
"""The usual column of such cells."""
_MOST_PIXELS = 64_000_000
_STEPS = 65_534


class DepthMap(TypedDict):
    size: list[int]
    low: float
    high: float
    values: str
    relative: NotRequired[bool]
    """Only in an answer: whether it is nearness up to an unknown scale and shift, and no distance."""


def to_map(distances: npt.NDArray[Any]) -> DepthMap:
    """The depth map of (H, W) distances; what is not finite is not known."""
    values = np.asarray(distances, np.float64)
    if values.ndim != 2:
        raise ValueError(f"a depth map has two axes, and this has {values.ndim}")
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
    codes = np.zeros(values.shape, np.uint16)
    codes[known] = 1 + np.rint((values[known] - low) / ((high - low) or 1.0) * _STEPS).astype(np.uint16)
    packed = base64.b64encode(zlib.compress(codes.astype("<u2").tobytes(), 6)).decode()
    return {"size": [int(side) for side in values.shape], "low": low, "high": high, "values": packed}


def from_map(given: Mapping[str, Any]) -> Distances:
    """The inverse of `to_map`. Raises ValueError for anything else."""
    try:
        height, width = (int(side) for side in given["size"])
        low, high, packed = float(given["low"]), float(given["high"]), str(given["values"])
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(base64.b64decode(packed, validate=True), 2 * _MOST_PIXELS)
    except (TypeError, KeyError, ValueError, zlib.error) as error:
        raise ValueError("it is no depth map: {size, low, high, values}") from error
    if min(height, width) < 1 or len(data) != 2 * height * width or not unpacking.eof:
        raise ValueError(f"the values of a depth map do not fill {height} x {width} pixels")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError("low and high of a depth map are no range")
    codes = np.frombuffer(data, "<u2").astype(np.float64).reshape(height, width)
    return np.where(codes > 0, low + (codes - 1) / _STEPS * (high - low), np.nan)


def depth_cell(distances: npt.NDArray[Any]) -> str:
    return json.dumps(to_map(distances))


def depth_of(cell: Any) -> Distances:
    """The inverse of `depth_cell`. Raises ValueError for any other cell."""
    try:
        found = json.loads(cell)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("the cell is no depth map as JSON: {size, low, high, values}") from error
    if not isinstance(found, dict):
        raise ValueError("the cell is no depth map as JSON: {size, low, high, values}")
    return from_map(found)
