"""Time series as counts of which random kernel fits best where: Hydra (Dempster, Schmidt & Webb 2023).

Kernels come in groups of eight. At each step the kernel of a group with the largest result has its result added to its
count, and the one with the smallest has one more of another count; that again for several dilations, and for the
differences of the series. The counts are a dictionary of patterns, as bags of words are for texts. They are learned
from beside MiniRocket's features, as the authors advise: each finds what the other misses.

Departures: counts of series of other lengths are brought to the usual one; fewer groups where there are many values, so
that the work is bounded; kernels come from a generator with a fixed seed, and are stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.tasks.random_convolutions import channels_and_length
from speciate.tasks.representations import check_channels
from speciate.tasks.task import Arrays, RepresentationSettings

_LENGTH, _KERNELS, _GROUPS, _FEWEST_GROUPS = 9, 8, 64, 8
"""Weights of a kernel, kernels of a group, groups: half of them for the series, half for its differences."""
_MOST_CHANNELS = 8
"""Channels that a group adds up, at most."""
_WORK = 10_000_000_000
"""Results of kernels: about a minute."""
_CHUNK = 4_000_000
"""Results of a block, some 16 MB."""
_RARE_POWER = 4

Series = npt.NDArray[np.float32]


class _Kernels(NamedTuple):
    weights: npt.NDArray[np.float32]  # (D, 2, G, 8, 9): by dilation, of the series and of its differences
    channels: npt.NDArray[np.int64]  # (D, 2, G, C') the channels that a group adds up
    usual: npt.NDArray[np.int64]  # () steps of the usual series
    learned: npt.NDArray[np.int64]  # () channels of each series


class _SparseScaling(NamedTuple):
    """Scaling of counts: zeros stay zeros, others come to mean 0 by a spread that is wider for rare ones."""

    mean: npt.NDArray[np.float32]  # (features,)
    spread: npt.NDArray[np.float32]

    @classmethod
    def of(cls, counts: npt.NDArray[np.float32]) -> _SparseScaling:
        roots = np.sqrt(np.maximum(counts, 0))
        rare = (roots == 0).mean(axis=0) ** _RARE_POWER + 1e-8
        return cls(roots.mean(axis=0), (roots.std(axis=0) + rare).astype(np.float32))

    def apply(self, counts: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        roots = np.sqrt(np.maximum(counts, 0))
        return np.where(roots != 0, (roots - self.mean) / self.spread, 0).astype(np.float32)


class CompetingConvolutions:
    def __init__(self, kernels: _Kernels, scaling: _SparseScaling) -> None:
        self._kernels, self._scaling = kernels, scaling

    @classmethod
    def fit(cls, examples: Sequence[Example]) -> CompetingConvolutions:
        """UnsuitableRepresentation where training series differ in their channels, or are very short."""
        series = [np.asarray(example.media, np.float32) for example in examples]
        channels, usual = channels_and_length(series)
        kernels = _draw(usual, channels, sum(each.shape[1] for each in series))
        return cls(kernels, _SparseScaling.of(_counts(kernels, series)))

    def encode(self, examples: Sequence[Example]) -> npt.NDArray[np.float32]:
        """(N, features)"""
        return self._scaling.apply(
            _counts(self._kernels, [np.asarray(example.media, np.float32) for example in examples])
        )

    def settings(self) -> RepresentationSettings:
        return {"kind": "competing convolutions"}

    def arrays(self) -> Arrays:
        return {**self._kernels._asdict(), **self._scaling._asdict()}

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> CompetingConvolutions:
        return cls(
            _Kernels(arrays["weights"], arrays["channels"], arrays["usual"], arrays["learned"]),
            _SparseScaling(arrays["mean"], arrays["spread"]),
        )


def _draw(usual: int, channels: int, steps: int) -> _Kernels:
    """Dilations are powers of two, up to those whose kernel spans the series. `steps`: of all series together."""
    generator = np.random.default_rng(0)
    dilations = max(1, int(np.log2((usual - 1) / (_LENGTH - 1))) + 1)
    groups = int(np.clip(_WORK // (steps * dilations * _KERNELS), _FEWEST_GROUPS, _GROUPS)) // 2
    shape = dilations, 2, groups
    weights = generator.normal(size=(*shape, _KERNELS, _LENGTH))
    weights -= weights.mean(axis=-1, keepdims=True)
    weights /= np.abs(weights).sum(axis=-1, keepdims=True)
    chosen = generator.integers(channels, size=(*shape, int(np.clip(channels // 2, 1, _MOST_CHANNELS))))
    return _Kernels(weights.astype(np.float32), chosen, np.asarray(usual), np.asarray(channels))


def _counts(kernels: _Kernels, series: Sequence[Series]) -> npt.NDArray[np.float32]:
    """(N, D * 2 * G * 16), in the order of the kernels: sums of largest results, then how often the smallest."""
    depth, _, groups = kernels.weights.shape[:3]
    found = np.zeros((len(series), depth * 2 * groups * 2 * _KERNELS), np.float32)
    by_length: dict[int, list[int]] = defaultdict(list)
    channels = int(kernels.learned)
    for place, each in enumerate(series):
        check_channels(each, channels)
        by_length[each.shape[1]].append(place)
    for length, places in by_length.items():
        size = max(1, _CHUNK // (length * groups * _KERNELS))
        for start in range(0, len(places), size):
            chosen = places[start : start + size]
            block = np.nan_to_num(np.stack([series[place] for place in chosen]))
            made = np.concatenate(list(_block_counts(kernels, block)), axis=1)
            found[chosen] = made * (float(kernels.usual) / length)
    return found


def _block_counts(kernels: _Kernels, block: Series) -> Iterator[npt.NDArray[np.float32]]:
    """(N, C, T) -> for each dilation and form (N, G * 16)"""
    forms = (block, np.diff(block, axis=2) if block.shape[2] > 1 else block)
    for place, weights in enumerate(kernels.weights):
        for form, values in enumerate(forms):
            chosen = kernels.channels[place, form]  # (G, C')
            yield _compete(_results(values, weights[form], chosen, 2**place))


def _results(values: Series, weights: Series, channels: npt.NDArray[np.int64], dilation: int) -> Series:
    """(N, C, T), (G, 8, 9), (G, C') -> (N, T, G, 8). Places outside a series count as zeros."""
    count, _, steps = values.shape
    edge = _LENGTH // 2 * dilation
    padded = np.pad(values, ((0, 0), (0, 0), (edge, edge)))
    windows = np.stack([padded[:, :, at * dilation : at * dilation + steps] for at in range(_LENGTH)], axis=-1)
    if values.shape[1] == 1:
        rows = windows[:, 0].reshape(-1, _LENGTH)
        made: Series = rows @ weights.reshape(-1, _LENGTH).T
        return made.reshape(count, steps, *weights.shape[:2])
    found = np.empty((count, steps, *weights.shape[:2]), np.float32)
    for group, (own, chosen) in enumerate(zip(weights, channels, strict=True)):
        found[:, :, group] = windows[:, chosen].sum(axis=1) @ own.T
    return found


def _compete(results: Series) -> npt.NDArray[np.float32]:
    """(N, T, G, 8) -> (N, G * 16)"""
    count, _, groups, kernels = results.shape
    most, least = results.argmax(axis=3), results.argmin(axis=3)
    largest = np.take_along_axis(results, most[..., None], axis=3)[..., 0]
    own = (np.arange(count)[:, None, None] * groups + np.arange(groups)) * kernels  # (N, 1, G)
    size = count * groups * kernels
    sums = np.bincount((own + most).ravel(), largest.ravel(), size).reshape(count, -1)
    often = np.bincount((own + least).ravel(), minlength=size).reshape(count, -1)
    return np.concatenate([sums, often], axis=1).astype(np.float32)
