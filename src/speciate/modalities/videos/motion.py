"""What a video looks like and what moves in it, as numbers: made without weights, for classical learners and distances.

Motion is the optical flow of Lucas & Kanade (1981), solved by least squares over cells of a small gray picture and over
all frames of a segment: coarse, but it tells whither, how fast and where things move, which no single frame does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Pixels, Vector

_SIDE, _CELLS = 32, 4
"""Pixels and cells along a side of the small picture in which motion is looked for."""
_FORM, _COLOUR = 8, 4
_FASTEST = 4.0
"""Widths of the picture a second."""
_FLAT = 1e-3
"""Squared gradient of a cell that says little of motion, where white is 1; keeps what is flat at rest."""

Floats = npt.NDArray[np.float32]


def gray(frame: Pixels, side: int) -> Pixels:
    """(H, W, 3) -> (side, side)"""
    from PIL import Image

    small = Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small.convert("L"))


def looks(frames: Pixels) -> Vector:
    """(T, H, W, 3) -> (176,) between 0 and 1: mean of 8 x 8 gray values over time, their spread, 4 x 4 mean colours."""
    from PIL import Image

    grays = _grays(frames, _FORM)
    colour = np.stack(
        [np.asarray(Image.fromarray(frame).resize((_COLOUR, _COLOUR), Image.Resampling.BOX)) for frame in frames]
    ).mean(axis=0, dtype=np.float32)
    return np.concatenate([grays.mean(axis=0).ravel(), grays.std(axis=0).ravel(), colour.ravel() / 255]).astype(
        np.float32
    )


def motion(frames: Pixels, times: Vector, segments: int) -> Vector:
    """(T, H, W, 3), (T,) -> (52 * segments,), for each of so many parts of equally many frames.

    For 4 x 4 cells the mean change from frame to frame and the flow to the right and down, in widths of the picture a
    second; then for the whole picture the change, the flow and its speed. Zeros where there is a single frame.
    """
    found = np.zeros((segments, 3 * _CELLS * _CELLS + 4), np.float32)
    if len(frames) > 1:
        pictures = _grays(frames, _SIDE)
        steps = np.maximum(np.diff(times), 1e-3)[:, np.newaxis, np.newaxis]
        edges = np.linspace(0, len(steps), segments + 1)
        for segment in range(segments):
            low = min(int(edges[segment]), len(steps) - 1)
            high = max(int(np.ceil(edges[segment + 1])), low + 1)
            found[segment] = _of_segment(pictures[low : high + 1], steps[low:high])
    return found.ravel()


def _of_segment(pictures: Floats, steps: Floats) -> Floats:
    between = (pictures[1:] + pictures[:-1]) / 2
    down, right = np.gradient(between, axis=1), np.gradient(between, axis=2)
    change = np.diff(pictures, axis=0)
    changed = change / steps
    cells = [
        _cells(product)
        for product in (right * right, right * down, down * down, right * changed, down * changed, np.abs(change))
    ]
    xx, xy, yy, xt, yt, much = (cell.reshape(-1) for cell in cells)
    local = _solved(xx, xy, yy, xt, yt)
    whole = _solved(*(each.mean(keepdims=True) for each in (xx, xy, yy, xt, yt)))[:, 0]
    rest = [much.mean(), *whole, np.hypot(*whole)]
    return np.concatenate([much, local.ravel(), rest]).astype(np.float32)


def _solved(xx: Floats, xy: Floats, yy: Floats, xt: Floats, yt: Floats) -> Floats:
    """(N,) of each sum -> (2, N): the flow that explains the change best, in widths a second."""
    xx, yy = xx + _FLAT / _SIDE, yy + _FLAT / _SIDE
    determinant = xx * yy - xy * xy
    flow = np.stack([xy * yt - yy * xt, xy * xt - xx * yt]) / np.maximum(determinant, 1e-12) / _SIDE
    return np.asarray(np.clip(flow, -_FASTEST, _FASTEST))


def _cells(values: Floats) -> Floats:
    """(T, 32, 32) -> (4, 4), means."""
    side = _SIDE // _CELLS
    return np.asarray(values.reshape(len(values), _CELLS, side, _CELLS, side).mean(axis=(0, 2, 4)))


def _grays(frames: Pixels, side: int) -> Floats:
    """(T, side, side) between 0 and 1."""
    return np.stack([gray(frame, side) for frame in frames]).astype(np.float32) / np.float32(255)
