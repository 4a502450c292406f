"""A label for each pixel of an image or voxel of a volume: as an array, as runs, as the cell of a table, from a
polygon.

The cell of a volume is JSON text, `{"labels": [names], "size": [D, H, W], "runs": text}`. `runs` is made of pairs of
int32, little-endian: the place of a label in `labels`, from 1 on (0 is background), and how many voxels have it, slice
by slice and row by row; packed by zlib and written in base64. A mask of 512 x 512 x 300 voxels has some 100 KB. The
axes lie as those of the volume (volumes.py).
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]
"""Places of labels; 0 is background."""
Mask = npt.NDArray[np.bool_]  # (h, w)

MASK = "mask"
"""The column that gatherers of volumes write such cells into."""
MOST_PLACES = 160_000_000
MOST_LABELS = 254
_MOST_RUNS = 20_000_000


class LabelMap(NamedTuple):
    pixels: Labels
    """(D, H, W)"""
    labels: list[str]
    """The k-th is what k stands for, from 1 on."""


def to_runs(labels: Labels) -> list[int]:
    """Row by row: a label's place, how many pixels have it, the next label's place, ..."""
    runs: list[int] = _runs(labels).ravel().tolist()
    return runs


def from_runs(runs: Sequence[int], size: Sequence[int]) -> Labels:
    """The inverse of `to_runs`, of shape `size`. Raises ValueError if the runs do not fill it."""
    return _filled(np.array(runs, np.int64).reshape(-1, 2), tuple(map(int, size)))


def resize_labels(pixels: npt.NDArray[Any], size: Sequence[int]) -> npt.NDArray[Any]:
    """An array of labels -> shape `size`, each place as the one that its centre lies in."""
    places = [
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for new, old in zip(size, pixels.shape, strict=True)
    ]
    found: npt.NDArray[Any] = pixels[np.ix_(*places)]
    return found


def mask_cell(labels: Labels, names: Sequence[str]) -> str:
    """The cell of labels (D, H, W), of which k is `names[k - 1]`; names without a voxel are left out.

    If regions overlap, the caller has put the smaller one on top. Raises ValueError for a label without a name.
    """
    shown = [code for code in np.unique(labels).tolist() if code]
    if shown and shown[-1] > len(names):
        raise ValueError(f"{shown[-1]} is the label of a voxel, and there are {len(names)} names")
    places = np.zeros(256, np.uint8)
    places[shown] = np.arange(1, len(shown) + 1)
    packed = base64.b64encode(zlib.compress(_runs(places[labels]).astype("<i4").tobytes(), 6)).decode()
    return json.dumps({"labels": [names[code - 1] for code in shown], "size": list(labels.shape), "runs": packed})


def mask_of(cell: Any, most_runs: int = _MOST_RUNS) -> LabelMap:
    """The inverse of `mask_cell`. Raises ValueError for any other cell, and for one of more runs."""
    try:
        found = json.loads(cell)
        names, size, packed = found["labels"], found["size"], base64.b64decode(found["runs"], validate=True)
        shape = tuple(int(side) for side in size)
        unpacking = zlib.decompressobj()
        runs = unpacking.decompress(packed, 8 * most_runs)
    except (TypeError, KeyError, ValueError, OverflowError, zlib.error, RecursionError) as error:
        raise ValueError(f"{cell!r:.60} is no mask: {{labels, size, runs}} as JSON") from error
    if not unpacking.eof or len(runs) % 8:
        raise ValueError("the runs of a mask end early or are too many")
    if len(shape) != 3 or not isinstance(names, list) or len(names) > MOST_LABELS:
        raise ValueError(f"a mask of the size {size!r:.40} with labels {names!r:.40} is none of a volume")
    pixels = _filled(np.frombuffer(runs, "<i4").astype(np.int64).reshape(-1, 2), shape)
    if pixels.max(initial=0) > len(names):
        raise ValueError(f"{pixels.max()} is the label of a voxel, and there are {len(names)} names")
    return LabelMap(pixels, [str(name) for name in names])


def fill_polygon(points: npt.NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """(N, 2) of x and y -> `size`. A pixel is inside if its centre is; pixels are 1 wide, and the first centre is at
    0.5, 0.5. The even-odd rule, a row at a time: an edge that crosses a row flips all pixels to its right."""
    (x, y), (to_x, to_y) = points.T, np.roll(points, -1, 0).T
    middles = np.arange(size[0]) + 0.5
    rows, edges = np.nonzero((y <= middles[:, None]) != (to_y <= middles[:, None]))
    along = (middles[rows] - y[edges]) / (to_y[edges] - y[edges])
    crossing = x[edges] + along * (to_x[edges] - x[edges])
    turns = np.zeros((size[0], size[1] + 1), np.int64)
    np.add.at(turns, (rows, np.clip(np.ceil(crossing - 0.5), 0, size[1]).astype(np.int64)), 1)
    inside: Mask = np.cumsum(turns, 1)[:, :-1] % 2 == 1
    return inside


def _runs(labels: Labels) -> npt.NDArray[np.int64]:
    """(R, 2)"""
    flat = labels.ravel()
    if not len(flat):
        return np.zeros((0, 2), np.int64)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=len(flat))
    return np.stack([flat[starts].astype(np.int64), lengths], 1)


def _filled(runs: npt.NDArray[np.int64], size: tuple[int, ...]) -> Labels:
    places = math.prod(size)
    if (
        min(size, default=0) < 0
        or places > MOST_PLACES
        or ((runs < 0) | (runs > (255, places))).any()
        or runs[:, 1].sum() != places
    ):
        raise ValueError(f"the runs do not fill {' x '.join(map(str, size))} pixels")
    return np.repeat(runs[:, 0].astype(np.uint8), runs[:, 1]).reshape(size)
