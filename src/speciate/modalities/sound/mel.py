"""Sound as the power in bands that are as wide as the ear tells apart, over time."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Vector

SAMPLE_RATE = 16_000
BANDS = 64
_WINDOW, _HOP, _POINTS = 400, 160, 512  # 25 ms every 10 ms
_LOWEST = 50.0  # hertz
_FLOOR = 1e-10  # power: 16 bits end near here
_CHUNK = 4096

Bands = npt.NDArray[np.float32]  # (BANDS, F)


def log_mel(sound: Vector) -> Bands:
    """sound: (T,) -> (BANDS, F): log10 of the power, a frame every 10 ms; at least one frame."""
    padded = np.pad(sound, (0, max(_WINDOW - len(sound), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    weights = _weights()
    found = [
        (np.abs(np.fft.rfft(frames[at : at + _CHUNK] * window, _POINTS)) ** 2 / _WINDOW).astype(np.float32) @ weights.T
        for at in range(0, len(frames), _CHUNK)
    ]
    return np.log10(np.maximum(np.concatenate(found), _FLOOR)).T


@cache
def _weights() -> Bands:
    """(BANDS, _POINTS / 2 + 1): triangles, equally wide in mel = 2595 log10(1 + hertz / 700) (O'Shaughnessy 1987)."""
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (_LOWEST, SAMPLE_RATE / 2))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(_POINTS, 1 / SAMPLE_RATE)
    left, centre, right = edges[:-2, np.newaxis], edges[1:-1, np.newaxis], edges[2:, np.newaxis]
    rising, falling = (hertz - left) / (centre - left), (right - hertz) / (right - centre)
    weights = np.maximum(np.minimum(rising, falling), 0)
    narrow = weights.sum(axis=1) == 0  # the lowest triangles can lie between two frequencies
    weights[narrow, np.abs(hertz - centre[narrow]).argmin(axis=1)] = 1
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
