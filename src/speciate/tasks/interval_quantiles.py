"""Time series as sorted values of their parts: QUANT (Dempster, Schmidt & Webb 2024).

A series, its first and second difference and the amplitudes of its Fourier transform are cut into 1, 2, 4, ... 32 parts
of one length, and again by half a part later. Of each part every fourth place in the sorted values is a feature; every
other one of those is taken less the part's mean. Extremely randomised trees on them find where in time a value differs.

Departures: a series of another length than usual is stretched or squeezed to it; fewer quantiles a part where there are
many channels, so that features stay below a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.tasks.representations import stretch
from speciate.tasks.task import Arrays, RepresentationSettings, UnsuitableRepresentation

_DEPTH, _PER_QUANTILE = 6, 4
_SMOOTHED = 5
"""Steps over which a first difference is averaged."""
_MOST_FEATURES = 16_000
_SHORTEST = 8
"""Steps."""

Block = npt.NDArray[np.float32]


class IntervalQuantiles:
    def __init__(self, channels: int, steps: int, per_quantile: int) -> None:
        """`per_quantile`: values of a part for each of its features."""
        self._channels, self._steps, self._per_quantile = channels, steps, per_quantile

    @classmethod
    def fit(cls, examples: Sequence[Example]) -> IntervalQuantiles:
        """UnsuitableRepresentation where training series differ in their channels, or are very short."""
        channels = {len(example.media) for example in examples}
        if len(channels) > 1:
            raise UnsuitableRepresentation("the series differ in their channels")
        lengths = sorted(example.media.shape[1] for example in examples)
        steps = lengths[len(lengths) // 2]
        if steps < _SHORTEST:
            raise UnsuitableRepresentation(f"half of the series have fewer than {_SHORTEST} steps")
        made, per_quantile = cls(channels.pop(), steps, _PER_QUANTILE), _PER_QUANTILE
        blank = np.zeros((1, made._channels, steps), np.float32)
        while per_quantile < steps and made._raw(blank).shape[1] > _MOST_FEATURES:
            per_quantile *= 2
            made = cls(made._channels, steps, per_quantile)
        return made

    def encode(self, examples: Sequence[Example]) -> npt.NDArray[np.float32]:
        """(N, features)"""
        block = np.stack([self._fitted(np.asarray(example.media, np.float32)) for example in examples])
        return self._raw(np.nan_to_num(block))

    def _fitted(self, media: Block) -> Block:
        return stretch(media, self._channels, self._steps).astype(np.float32, copy=False)

    def _raw(self, block: Block) -> npt.NDArray[np.float32]:
        """(N, C, T) -> (N, features)"""
        first = np.diff(block, axis=2)
        window = np.ones(min(_SMOOTHED, first.shape[2])) / min(_SMOOTHED, first.shape[2])
        smoothed = np.apply_along_axis(np.convolve, 2, first, window, "same")
        forms = (block, smoothed, np.diff(block, n=2, axis=2), np.abs(np.fft.rfft(block, axis=2)))
        found = [
            _quantiles(form[:, :, start:end].astype(np.float32), self._per_quantile)
            for form in forms
            for start, end in intervals(form.shape[2])
        ]
        return np.concatenate(found, axis=1)

    def settings(self) -> RepresentationSettings:
        return {
            "kind": "quantiles", "channels": self._channels, "steps": self._steps, "per_quantile": self._per_quantile
        }  # fmt: skip

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> IntervalQuantiles:
        return cls(settings["channels"], settings["steps"], settings["per_quantile"])


def intervals(steps: int) -> list[tuple[int, int]]:
    """Intervals [begin, end) of a series: at each depth the parts of one length, and those that begin half a part
    later.

    >>> intervals(4)
    [(0, 4), (0, 2), (2, 4), (1, 3), (0, 1), (1, 2), (2, 3), (3, 4)]
    """
    found: list[tuple[int, int]] = []
    for depth in range(_DEPTH):
        count = 2**depth
        if count > steps:
            break
        bounds = np.linspace(0, steps, count + 1).astype(int).tolist()
        found += list(pairwise(bounds))
        half = int(np.ceil(steps / count / 2))
        if depth and bounds[1] > 1:
            found += [(a + half, b + half) for a, b in pairwise(bounds) if b + half <= steps]
    return found


def _quantiles(part: Block, per_quantile: int) -> npt.NDArray[np.float32]:
    """(N, C, m) -> (N, C * k): k = 1 + (m - 1) // per_quantile of its sorted values, evenly spaced."""
    width = part.shape[2]
    count = 1 + (width - 1) // per_quantile
    shares = np.array([0.5]) if count == 1 else np.linspace(0, 1, count)
    values = _at(np.sort(part, axis=2), shares)  # (k, N, C)
    if count > 1:
        values[1::2] -= part.mean(axis=2)
    return np.ascontiguousarray(np.moveaxis(values, 0, 2)).reshape(len(part), -1)


def _at(ordered: Block, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Quantiles (k, N, C) of sorted values (N, C, m): those of `np.quantile`, which takes twice as long for a few
    values."""
    places = shares * (ordered.shape[2] - 1)
    before = np.floor(places).astype(np.int64)
    low = np.moveaxis(ordered[:, :, before], 2, 0)
    high = np.moveaxis(ordered[:, :, np.minimum(before + 1, ordered.shape[2] - 1)], 2, 0)
    after = (places - before)[:, None, None]
    step = high - low
    found: npt.NDArray[np.float64] = np.where(after < 0.5, low + step * after, high - step * (1 - after))
    return found.astype(np.float32)
