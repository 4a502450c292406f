"""Time series as thousands of features of fixed convolutions: MiniRocket (Dempster, Schmidt & Webb 2021).

Each of 84 kernels of nine weights (three of them 2, the others -1) is laid over a series at several dilations. A
feature is the share of places at which the result is above a threshold, which is a quantile of the results on a
training series. A linear model on them is as good as the best ensembles of its time, in a thousandth of their time.

Departures: several lengths at once, as places outside a series count as zeros; fewer features where there are many
values, so that the work is bounded; thresholds come from a generator with a fixed seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.tasks.representations import Scaling, check_channels
from speciate.tasks.task import Arrays, RepresentationSettings, UnsuitableRepresentation

_LENGTH = 9
"""Weights of a kernel."""
KERNELS = tuple(combinations(range(_LENGTH), 3))
"""Places at which each kernel has a 2."""
_PLACES = np.array(KERNELS)
_MOST_PER_KERNEL, _LEAST_PER_KERNEL, _MOST_DILATIONS = 119, 12, 32
"""84 times 119 features are the authors' 9,996."""
_WORK = 40_000_000_000
"""Comparisons: half a minute or so."""
_SHORTEST = 10
"""Steps."""
_CHUNK = 4_000_000
"""Results of kernels that are held at once, some 16 MB."""
_GOLDEN = (5**0.5 + 1) / 2

Series = npt.NDArray[np.float32]


class _Plan(NamedTuple):
    dilations: npt.NDArray[np.int64]  # (D,)
    counts: npt.NDArray[np.int64]  # (D,) features of each kernel at each dilation
    members: npt.NDArray[np.bool_]  # (D, 84, C) the channels that a kernel adds up


class Convolutions:
    def __init__(self, plan: _Plan, thresholds: npt.NDArray[np.float32], scaling: Scaling) -> None:
        self._plan, self._thresholds, self._scaling = plan, thresholds, scaling

    @classmethod
    def fit(cls, examples: Sequence[Example]) -> Convolutions:
        """UnsuitableRepresentation where training series differ in their channels, or are very short."""
        series = [np.asarray(example.media, np.float32) for example in examples]
        channels, usual = channels_and_length(series)
        values = sum(each.size for each in series)
        each_kernel = int(np.clip(_WORK // (values * len(KERNELS)), _LEAST_PER_KERNEL, _MOST_PER_KERNEL))
        generator = np.random.default_rng(0)
        plan = _plan(usual, channels, each_kernel, generator)
        thresholds = _thresholds(plan, series, generator)
        made = cls(plan, thresholds, Scaling(np.zeros(1), np.zeros(1), np.ones(1)))
        return cls(plan, thresholds, Scaling.of(made._raw(series)))

    def encode(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """(N, features)"""
        return self._scaling.apply(self._raw([np.asarray(example.media, np.float32) for example in examples]))

    def _raw(self, series: Sequence[Series]) -> npt.NDArray[np.float32]:
        """Shares, 0 to 1. Series of one length are computed together."""
        found = np.zeros((len(series), len(self._thresholds)), np.float32)
        by_length: dict[int, list[int]] = defaultdict(list)
        channels = self._plan.members.shape[2]
        for place, each in enumerate(series):
            check_channels(each, channels)
            by_length[each.shape[1]].append(place)
        for length, places in by_length.items():
            size = max(1, _CHUNK // (len(KERNELS) * length * channels))
            for start in range(0, len(places), size):
                chosen = places[start : start + size]
                found[chosen] = self._shares(np.stack([series[place] for place in chosen]))
        return found

    def _shares(self, block: Series) -> npt.NDArray[np.float32]:
        """(N, C, T) -> (N, features)"""
        found, first = np.empty((len(block), len(self._thresholds)), np.float32), 0
        for place, count in enumerate(self._plan.counts.tolist()):
            last = first + count * len(KERNELS)
            thresholds = self._thresholds[first:last].reshape(len(KERNELS), count)
            own = found[:, first:last].reshape(len(block), len(KERNELS), count)
            for kernels, valid, result in _results(self._plan, place, block):
                kept = np.ascontiguousarray(result[:, :, valid])
                for number in range(count):
                    above = np.count_nonzero(kept > thresholds[kernels, number, None, None], axis=2)
                    own[:, kernels, number] = above.T / kept.shape[2]
            first = last
        return found

    def settings(self) -> RepresentationSettings:
        return {"kind": "convolutions"}

    def arrays(self) -> Arrays:
        return {**self._plan._asdict(), "thresholds": self._thresholds, **self._scaling.arrays()}

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> Convolutions:
        plan = _Plan(arrays["dilations"], arrays["counts"], arrays["members"])
        return cls(plan, arrays["thresholds"], Scaling(arrays["fill"], arrays["centre"], arrays["spread"]))


def channels_and_length(series: Sequence[Series]) -> tuple[int, int]:
    """Channels C of training series (C, T), and the median of T. UnsuitableRepresentation as in `Convolutions.fit`."""
    channels = {len(each) for each in series}
    if len(channels) > 1:
        raise UnsuitableRepresentation("the series differ in their channels")
    lengths = sorted(each.shape[1] for each in series)
    usual = lengths[len(lengths) // 2]
    if usual < _SHORTEST:
        raise UnsuitableRepresentation(f"half of the series have fewer than {_SHORTEST} steps")
    return channels.pop(), usual


def _plan(steps: int, channels: int, each_kernel: int, generator: np.random.Generator) -> _Plan:
    """Dilations from 1 up to those whose kernel spans the series, on a logarithmic scale."""
    most = min(each_kernel, _MOST_DILATIONS)
    exponent = np.log2((steps - 1) / (_LENGTH - 1))
    drawn = np.logspace(0, max(exponent, 0.0), most, base=2).astype(np.int64)
    dilations, often = np.unique(drawn, return_counts=True)
    counts = (often * (each_kernel / most)).astype(np.int64)
    for place in range(each_kernel - int(counts.sum())):
        counts[place % len(counts)] += 1
    members = np.zeros((len(dilations), len(KERNELS), channels), np.bool_)
    for row in members.reshape(-1, channels):
        size = int(2 ** generator.uniform(0, np.log2(min(channels, _LENGTH) + 1)))
        row[generator.choice(channels, min(size, channels), replace=False)] = True
    return _Plan(dilations, counts, members)


def _thresholds(plan: _Plan, series: Sequence[Series], generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Thresholds (F,): for each feature a quantile of the results on a training series. Quantiles follow the golden
    ratio, so that they spread evenly."""
    drawn = generator.integers(len(series), size=(len(plan.dilations), len(KERNELS)))
    found, first = np.empty(int(plan.counts.sum()) * len(KERNELS), np.float32), 0
    for place, count in enumerate(plan.counts.tolist()):
        last = first + count * len(KERNELS)
        own = found[first:last].reshape(len(KERNELS), count)
        shares = (np.arange(first + 1, last + 1).reshape(own.shape) * _GOLDEN) % 1
        for chosen in np.unique(drawn[place]).tolist():
            for kernels, valid, result in _results(plan, place, series[chosen][None], drawn[place] == chosen):
                for kernel, made in zip(kernels.tolist(), result, strict=True):
                    own[kernel] = np.quantile(made[0, valid], shares[kernel])
        first = last
    return found


def _results(
    plan: _Plan, place: int, block: Series, wanted: npt.NDArray[np.bool_] | None = None
) -> Iterator[tuple[npt.NDArray[np.int64], slice, Series]]:
    """Some kernels at one dilation, the places that count for those, and what they give at each place.

    `block`: (N, C, T); results: (kernels, N, T). Every other kernel counts only places at which it lies inside the
    series. `wanted`: (84,) the kernels, else all of them.
    """
    steps, dilation, members = block.shape[2], int(plan.dilations[place]), plan.members[place]
    moved = np.stack([_moved(block, (index - _LENGTH // 2) * dilation) for index in range(_LENGTH)])
    below = -np.add.reduce(moved)
    edge = _LENGTH // 2 * dilation
    inside = slice(edge, steps - edge) if steps > 2 * edge else slice(None)
    every = np.arange(len(KERNELS))
    every = every if wanted is None else every[wanted]
    at_once = max(1, _CHUNK // (len(block) * steps))
    for side, valid in ((0, slice(None)), (1, inside)):
        kernels = every[(place + every) % 2 == side]
        for start in range(0, len(kernels), at_once):
            some = kernels[start : start + at_once]
            result = np.zeros((len(some), len(block), steps), np.float32)
            for channel in range(block.shape[1]):
                adds = np.flatnonzero(members[some, channel])
                first, second, third = _PLACES[some[adds]].T
                raised = moved[first, :, channel] + moved[second, :, channel] + moved[third, :, channel]
                result[adds] += below[:, channel] + 3 * raised
            yield some, valid, result


def _moved(block: Any, by: int) -> Any:
    """Along time; zeros come in."""
    found = np.zeros_like(block)
    steps = block.shape[2]
    if abs(by) < steps:
        found[:, :, max(0, -by) : steps - max(0, by)] = block[:, :, max(0, by) : steps - max(0, -by)]
    return found
