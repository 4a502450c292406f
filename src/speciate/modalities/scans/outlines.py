"""Outlines as regions: a pixel belongs to one where its centre lies inside. Pixels are 1 wide; the centre of the first
lies at 0.5, 0.5."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]  # (h, w)


def filled(points: npt.NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """(N, 2) of x and y -> `size`. The even-odd rule, a row at a time: an edge that crosses a row turns inside out
    all that is right of it."""
    (x, y), (to_x, to_y) = points.T, np.roll(points, -1, 0).T
    middles = np.arange(size[0]) + 0.5
    rows, edges = np.nonzero((y <= middles[:, None]) != (to_y <= middles[:, None]))
    along = (middles[rows] - y[edges]) / (to_y[edges] - y[edges])
    crossing = x[edges] + along * (to_x[edges] - x[edges])
    turns = np.zeros((size[0], size[1] + 1), np.int64)
    np.add.at(turns, (rows, np.clip(np.ceil(crossing - 0.5), 0, size[1]).astype(np.int64)), 1)
    inside: Mask = np.cumsum(turns, 1)[:, :-1] % 2 == 1
    return inside
