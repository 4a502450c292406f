"""Near-duplicates among series: copies with noise, offset or gain, and excerpts of one another or of one recording.

Two series are compared over their overlap, at the offset that fits best, each scaled to mean 0 and spread 1 there (per
channel, or over all channels of a spectrogram). Their distance is the root mean square of the difference. Series of one
class look alike, so a distance tells a copy only if it stands apart from the others (isolated_copies.py): copies share
their noise, and recordings of one class do not.

Which offsets are tried: the same beginning, for series of the same length; and those at which two landmarks meet. A
landmark is an extreme of the smoothed series (of a spectrogram: of its change) in a window around it, which an excerpt
shares with the whole. Neighbours are looked for among the windows around landmarks. An overlap must be half of the
shorter series.

A long series is kept in averages of 2, 4, 8 ... steps, and is compared with others at the coarser of their
resolutions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from speciate.modalities.isolated_copies import (
    Doubles,
    Edges,
    Places,
    isolated_pairs,
    least_ratio,
    local_dimensions,
    neighbour_pairs,
    unique_pairs,
)

Floats = npt.NDArray[np.float32]

TOLERANCE = 0.25
"""Root mean square difference, in spreads: a correlation of 0.97."""
_LEAST_RATIOS = (2.0, 1.5)
"""Least ratio of the gap, for series and for spectrograms: waves without noise have fewer dimensions than they seem to
have."""
_MOST_VALUES = 8192
"""Most values of one sketch, all channels together."""
_LEAST_STEPS, _LEAST_OVERLAP, _SHARE = 8, 24, 0.5
_WINDOW, _POINTS = 24, 12
"""Steps around a landmark, and the means that stand for them."""
_WHOLE_POINTS = 48
_AXES = 8
_REACH, _WINDOW_REACH = 1.0, 0.6
"""Greatest distance between whole series, and between windows, that is looked into."""
_WINDOW_NEIGHBOURS, _MOST_LANDMARKS = 5, 200_000
_STEP = 4096
"""Steps of the stored integers in one spread."""
_HEADER = 8
_CHUNK = 2_000_000


def sketch_series(series: Floats, *, joint: bool = False) -> bytes | None:
    """(C, T) -> its channels, steps, stride and values.

    None without channels, for fewer than 8 steps, if nothing changes, or if a value is not finite.

    `joint`: one scale for all channels, which belong together as the bands of a spectrogram do.
    """
    channels, steps = series.shape
    if steps < _LEAST_STEPS or not 0 < channels <= _MOST_VALUES // _LEAST_STEPS or not np.isfinite(series).all():
        return None
    stride = 1
    while channels * (steps // stride) > _MOST_VALUES:
        stride *= 2
    values = _averaged(series.astype(np.float64), stride)
    axis = None if joint else 1
    centred = values - values.mean(axis=axis, keepdims=True)
    spread = centred.std(axis=axis, keepdims=True)
    if not (spread > 1e-9 * np.abs(values).max()).any():
        return None
    scaled = centred / np.where(spread > 0, spread, 1)
    stored = np.round(scaled * _STEP).clip(-32767, 32767).astype("<i2")
    header = (channels, stored.shape[1], stride.bit_length() - 1)
    head = b"".join(number.to_bytes(size, "little") for number, size in zip(header, (2, 4, 2), strict=True))
    rest: bytes = stored.tobytes()
    return head + rest


class SeriesSimilarity:
    """PairwiseSimilarity of series. `joint` as in `sketch_series`."""

    def __init__(self, *, joint: bool = False) -> None:
        self._joint = joint

    def pairs(self, codes: Sequence[bytes], threshold: float | None = None) -> Places:
        """(M, 2) places of near-duplicates; `threshold`: the least correlation, 0.97 by default; none from 1
        on.

        Whether two series are near depends on the others. Series of different numbers of channels are not compared.
        """
        tolerance = TOLERANCE if threshold is None else math.sqrt(max(0.0, 2 * (1 - threshold)))
        if len(codes) < 2 or tolerance <= 0:
            return np.zeros((0, 2), np.int64)
        headers = [(int.from_bytes(code[:2], "little"), int.from_bytes(code[6:8], "little")) for code in codes]
        found = [np.zeros((0, 2), np.int64)]
        for channels in sorted({channels for channels, _ in headers}):
            mine = np.array([place for place, header in enumerate(headers) if header[0] == channels], np.int64)
            for stride in sorted({headers[place][1] for place in mine.tolist()}):
                places = np.array([place for place in mine.tolist() if headers[place][1] <= stride], np.int64)
                values = [_read(codes[place], 1 << (stride - headers[place][1])) for place in places.tolist()]
                long = np.array([each.shape[1] >= _LEAST_STEPS for each in values], bool)
                kept = [each for each, enough in zip(values, long.tolist(), strict=True) if enough]
                found.append(places[long][_Stack(kept, self._joint).pairs(tolerance)])
        return unique_pairs(np.concatenate(found), len(codes))


class _Stack:
    """Series (C, T) of one number of channels, one after another."""

    def __init__(self, series: Sequence[Floats], joint: bool) -> None:
        self._series = series
        self._joint = joint
        self._lengths = np.array([each.shape[1] for each in series], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        self._values = np.concatenate(series, axis=1) if series else np.zeros((1, 0), np.float32)

    def pairs(self, tolerance: float) -> Places:
        count = len(self._series)
        if count < 2:
            return np.zeros((0, 2), np.int64)
        none = np.zeros((0, 3), np.int64)
        offsets = np.concatenate([none, *self._whole(), *self._landmarks()])  # (M, 3): first, second, offset
        edges = self._best(offsets)

        ratio = least_ratio(local_dimensions(count, edges), _LEAST_RATIOS[self._joint])
        return isolated_pairs(count, edges, tolerance, ratio, lambda members, radius: True)

    def _whole(self) -> Iterator[Places]:
        """Neighbours among series of the same length."""
        for length in np.unique(self._lengths).tolist():
            places = np.flatnonzero(self._lengths == length)
            if len(places) < 2:
                continue
            at = np.linspace(0, length, min(length, _WHOLE_POINTS) + 1).astype(int)[:-1]
            rows = np.stack([np.add.reduceat(self._series[place], at, axis=1) for place in places.tolist()])
            rows /= np.diff(np.append(at, length))
            near = places[neighbour_pairs(_projected(_scaled(rows, self._joint)), _REACH)]
            yield np.concatenate([near, np.zeros((len(near), 1), np.int64)], axis=1)

    def _landmarks(self) -> Iterator[Places]:
        """Neighbours among windows around landmarks, with the offset at which the landmarks meet."""
        owner, at = self._landmark_places()
        if len(owner) < 2:
            return
        begin = self._starts[owner] + at - _WINDOW // 2
        steps = begin[:, np.newaxis] + np.arange(_WINDOW)
        windows = self._values[:, steps].swapaxes(0, 1)  # (N, C, _WINDOW)
        means = windows.reshape(len(owner), windows.shape[1], _POINTS, -1).mean(axis=3)
        near = neighbour_pairs(_projected(_scaled(means, self._joint)), _WINDOW_REACH, _WINDOW_NEIGHBOURS)
        first, second = owner[near[:, 0]], owner[near[:, 1]]
        offset = at[near[:, 0]] - at[near[:, 1]]  # where the second begins in the first
        turned = first > second
        first, second = np.where(turned, second, first), np.where(turned, first, second)
        offset = np.where(turned, -offset, offset)
        found = np.unique(np.stack([first, second, offset], axis=1)[first != second], axis=0)
        yield found[self._overlap(found) >= self._least_overlap(found)]

    def _landmark_places(self) -> tuple[Places, Places]:
        """(N,), (N,): of which series, and at which step: extremes of the smoothed sum of channels.

        The ends of a series have none, for a window must lie within it.
        """
        if self._joint:
            change = np.abs(np.diff(self._values, axis=1, prepend=self._values[:, :1])).sum(axis=0)
        else:
            weights = np.cos(np.arange(len(self._values)) * 2.4)[:, np.newaxis] + 1.2  # channels in different shares
            change = (self._values * weights).sum(axis=0)
        kernel = np.hanning(9)[1:-1]
        smooth = np.convolve(change, kernel / kernel.sum(), "same")
        half = _WINDOW // 2
        if len(smooth) < 2 * half + 1:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        around = np.lib.stride_tricks.sliding_window_view(smooth, half + 1)
        middle = smooth[half // 2 : half // 2 + len(around)]
        extreme = (middle == around.max(axis=1)) | (middle == around.min(axis=1))
        places = np.flatnonzero(extreme) + half // 2
        owner = np.searchsorted(self._starts, places, side="right") - 1
        at = places - self._starts[owner]
        inside = (at >= half) & (at + half <= self._lengths[owner])
        owner, at = owner[inside], at[inside]
        if len(at) > _MOST_LANDMARKS:  # those around which most happens, in copies as in originals
            steps = (self._starts[owner] + at - half)[:, np.newaxis] + np.arange(0, _WINDOW, 4)
            chosen = np.sort(np.argsort(smooth[steps].std(axis=1), kind="stable")[-_MOST_LANDMARKS:])
            owner, at = owner[chosen], at[chosen]
        return owner.astype(np.int64), at.astype(np.int64)

    def _overlap(self, offsets: Places) -> Places:
        """(M,) common steps."""
        first, second, offset = offsets.T
        common: Places = np.minimum(self._lengths[first], offset + self._lengths[second]) - np.maximum(offset, 0)
        return common

    def _least_overlap(self, offsets: Places) -> Places:
        shorter = np.minimum(self._lengths[offsets[:, 0]], self._lengths[offsets[:, 1]])
        return np.maximum(np.ceil(_SHARE * shorter), np.minimum(_LEAST_OVERLAP, shorter)).astype(np.int64)

    def _best(self, offsets: Places) -> Edges:
        """Each pair at its best offset. Noise moves a landmark by a step or two, so offsets beside are tried, too."""
        offsets = np.unique(offsets, axis=0)
        distance = self._distances(offsets)
        near = offsets[distance <= 2 * _REACH]
        beside = np.concatenate([near + np.array([0, 0, shift]) for shift in (-2, -1, 1, 2)])
        beside = beside[self._overlap(beside) >= self._least_overlap(beside)]
        offsets = np.concatenate([offsets, beside])
        distance = np.concatenate([distance, self._distances(beside)])
        code = offsets[:, 0] * len(self._series) + offsets[:, 1]
        order = np.lexsort((distance, code))
        best = order[np.flatnonzero(np.append(True, np.diff(code[order]) > 0))] if len(order) else order
        return Edges(offsets[best, 0], offsets[best, 1], distance[best])

    def _distances(self, offsets: Places) -> Doubles:
        """(M,) root mean square differences over the overlap, each side scaled to mean 0 and spread 1 there."""
        found = np.zeros(len(offsets))
        overlap = self._overlap(offsets)
        chunk = np.cumsum(overlap * len(self._values)) // _CHUNK
        for places in np.split(np.arange(len(offsets)), np.flatnonzero(np.diff(chunk)) + 1) if len(offsets) else ():
            found[places] = self._chunk_distances(offsets[places], overlap[places])
        return found

    def _chunk_distances(self, offsets: Places, overlap: Places) -> Doubles:
        first, second, offset = offsets.T
        starts = np.concatenate([[0], np.cumsum(overlap)[:-1]])
        ahead = np.arange(int(overlap.sum())) - np.repeat(starts, overlap)
        a = self._values[:, np.repeat(self._starts[first] + np.maximum(offset, 0), overlap) + ahead].astype(np.float64)
        b = self._values[:, np.repeat(self._starts[second] + np.maximum(-offset, 0), overlap) + ahead].astype(
            np.float64
        )
        sums = [np.add.reduceat(each, starts, axis=1) for each in (a, b, a * a, b * b, a * b)]  # (C, M)
        count = overlap.astype(np.float64)
        if self._joint:
            sums, count = [each.sum(axis=0, keepdims=True) for each in sums], count * len(self._values)
        mean_a, mean_b, aa, bb, ab = (each / count for each in sums)
        var_a, var_b = (aa - mean_a**2).clip(0), (bb - mean_b**2).clip(0)
        varying = (var_a > 1e-6) & (var_b > 1e-6)
        flat = (var_a <= 1e-6) & (var_b <= 1e-6)
        product = np.where(varying, var_a * var_b, 1.0)
        correlation = np.where(varying, (ab - mean_a * mean_b) / np.sqrt(product), 0.0)
        squares = np.where(flat, 0.0, 2 * (1 - correlation.clip(-1, 1)))
        known = (~flat).sum(axis=0)
        return np.asarray(np.where(known > 0, np.sqrt(squares.sum(axis=0) / np.maximum(known, 1)), math.sqrt(2)))


def _scaled(rows: Floats, joint: bool) -> Doubles:
    """(N, C, P) -> (N, C * P): mean 0 and spread 1 of each channel, or of all; divided so that distances are root mean
    squares."""
    axis = (1, 2) if joint else 2
    centred = rows - rows.mean(axis=axis, keepdims=True)
    spread = centred.std(axis=axis, keepdims=True)
    flat = (centred / np.where(spread > 1e-3, spread, 1)).reshape(len(rows), -1)
    return np.asarray(flat / math.sqrt(flat.shape[1]), np.float64)


def _projected(rows: Doubles) -> Doubles:
    """(N, up to _AXES) along the directions in which they differ most: no pair is farther apart than before."""
    if rows.shape[1] <= _AXES:
        return rows
    centred = rows - rows.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, -_AXES:]
    return np.asarray(centred @ axes)


def _averaged(series: Doubles, stride: int) -> Doubles:
    """(C, T) -> (C, T // stride), a rest shorter than the stride left out."""
    if stride == 1:
        return series
    steps = series.shape[1] // stride
    return np.asarray(series[:, : steps * stride].reshape(len(series), steps, stride).mean(axis=2))


def _read(code: bytes, stride: int) -> Floats:
    channels = int.from_bytes(code[:2], "little")
    values = np.frombuffer(code[_HEADER:], "<i2").reshape(channels, -1).astype(np.float64) / _STEP
    return _averaged(values, stride).astype(np.float32)


SERIES = SeriesSimilarity()
SPECTROGRAMS = SeriesSimilarity(joint=True)
