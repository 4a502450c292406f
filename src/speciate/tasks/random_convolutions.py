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
from speciate.errors import Code, SpeciateError
from speciate.tasks.representations import Scaling
from speciate.tasks.task import Arrays, RepresentationSettings, UnsuitableRepresentation

_LENGTH = 9
"""Weights of a kernel."""
KERNELS = tuple(combinations(range(_LENGTH), 3))
"""Places at which each kernel has a 2."""
_MOST_PER_KERNEL, _LEAST_PER_KERNEL, _MOST_DILATIONS = 119, 12, 32
"""84 times 119 features are the authors' 9,996."""
_WORK = 40_000_000_000
"""Comparisons: half a minute or so."""
_SHORTEST = 10
"""Steps."""
_CHUNK = 4_000_000
"""Values of a block, some 16 MB."""
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
            size = max(1, _CHUNK // (length * channels))
            for start in range(0, len(places), size):
                chosen = places[start : start + size]
                found[chosen] = self._shares(np.stack([series[place] for place in chosen]))
        return found

    def _shares(self, block: Series) -> npt.NDArray[np.float32]:
        """(N, C, T) -> (N, features)"""
        found, place = np.empty((len(block), len(self._thresholds)), np.float32), 0
        for count, valid, result in _results(self._plan, block):
            kept = np.ascontiguousarray(result[:, valid])
            for _ in range(count):
                above = np.count_nonzero(kept > self._thresholds[place], axis=1)
                found[:, place] = above / kept.shape[1]
                place += 1
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


def check_channels(series: Series, channels: int) -> None:
    """INVALID where it has others than the training series."""
    if len(series) != channels:
        raise SpeciateError(
            Code.INVALID,
            f"This series has {len(series)} channels; the model has learned from {channels}.",
            "Bring series with the channels of the training data, in their order.",
        )


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
    found, before = list[npt.NDArray[np.float32]](), 0
    for place, count in enumerate(plan.counts.tolist()):
        one = _Plan(plan.dilations[place : place + 1], plan.counts[place : place + 1], plan.members[place : place + 1])
        results = dict[int, list[tuple[slice, Series]]]()
        for kernel, chosen in enumerate(drawn[place].tolist()):
            if chosen not in results:
                made = _results(one, series[chosen][None], place)
                results[chosen] = [(valid, result[0]) for _, valid, result in made]
            valid, result = results[chosen][kernel]
            shares = (np.arange(before + 1, before + count + 1) * _GOLDEN) % 1
            found.append(np.quantile(result[valid], shares).astype(np.float32))
            before += count
    return np.concatenate(found)


def _results(plan: _Plan, block: Series, first_place: int = 0) -> Iterator[tuple[int, slice, Series]]:
    """For each dilation and kernel: how many features it has, the places that count, and what it gives at each place.

    `block`: (N, C, T); results: (N, T). Every other kernel counts only places at which it lies inside the series.
    `first_place`: where the plan's first dilation stands in the whole one.
    """
    steps = block.shape[2]
    for place, dilation in enumerate(plan.dilations.tolist()):
        moved = [_moved(block, (index - _LENGTH // 2) * dilation) for index in range(_LENGTH)]
        below = -np.add.reduce(moved)
        edge = _LENGTH // 2 * dilation
        inside = slice(edge, steps - edge) if steps > 2 * edge else slice(None)
        for kernel, (first, second, third) in enumerate(KERNELS):
            channels = np.flatnonzero(plan.members[place, kernel])
            result = np.zeros((len(block), steps), np.float32)
            for channel in channels.tolist():
                raised = moved[first][:, channel] + moved[second][:, channel] + moved[third][:, channel]
                result += below[:, channel] + 3 * raised
            yield int(plan.counts[place]), slice(None) if (first_place + place + kernel) % 2 == 0 else inside, result


def _moved(block: Any, by: int) -> Any:
    """Along time; zeros come in."""
    found = np.zeros_like(block)
    steps = block.shape[2]
    if abs(by) < steps:
        found[:, :, max(0, -by) : steps - max(0, by)] = block[:, :, max(0, by) : steps - max(0, -by)]
    return found
