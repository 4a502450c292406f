"""Near-duplicates among rows of a table: the same categories, and numbers that differ by next to nothing.

A number's difference counts in units of its column's spread, so that grams and kilometres weigh alike; two rows are as
far apart as the column that differs most. What is next to nothing depends on the others: a pair must stand apart from
them (isolated_copies.py), at 5 % of the spread or less. In a table of one or two numbers rows lie so dense that only
copies with a tiny jitter stand apart. All other cells must be equal: texts, booleans, dates, lists, missing ones; a
row without a number has no sketch.

Measured (`evals/bench/near_rows.py`): how many of 200 jittered copies are found, and how many rows of ordinary tables
are taken for copies."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import PackedCodes
from speciate.modalities.isolated_copies import (
    Doubles,
    Edges,
    Places,
    isolated_pairs,
    least_ratio,
    neighbours_by_kind,
    unique_pairs,
)

TOLERANCE = 0.05
"""Most by which a number may differ, in spreads of its column."""
_COARSER = 4
"""A column in which twice as many rows agree at so many times the tolerance has a continuum of values."""
_MOST_NUMBERS = 256
"""Most numbers that are compared one by one: beyond it they are summed up in so many groups, each with a sign and made
smaller by the inverse hyperbolic sine."""
_NO_NUMBERS = (str, bool, bytes)
"""Kinds of cells that are no numbers even where they can be read as one."""
_HEADER = 10  # bytes: the count of numbers and the digest of all other cells
_NAME, _NUMBER = 4, 8  # bytes
_AXES, _OWN = 10, 6
"""Axes of the space in which neighbours are looked for, and how many of them are columns as they are."""
_SAMPLE, _PAIRS, _CHUNK = 20_000, 4000, 1 << 14
_FAR = 1e150
"""Numbers beyond count as this, so that differences and squares of them are finite."""
_NORMAL = 3.29
"""Standard deviations from the 5th to the 95th percentile of a normal distribution."""


def sketch_row(row: Mapping[str, object]) -> bytes | None:
    """Count of numbers, digest of the other cells, names' hashes, numbers by name; None for a row without a number."""
    numbers: list[float] = []
    named: list[str] = []
    others: list[str] = []
    for name in _sorted_names(tuple(row)):
        cell = row[name]
        if type(cell) is float and -math.inf < cell < math.inf:
            numbers.append(cell)
            named.append(name)
        elif cell is None or isinstance(cell, _NO_NUMBERS) or (number := _finite(cell)) is None:
            others.append(f"{name}={None if _is_nan(cell) else repr(cell)}")  # a text has quotes, so it equals no other
        else:
            numbers.append(number)
            named.append(name)
    if not numbers:
        return None
    if len(numbers) > _MOST_NUMBERS:
        numbers, named = _summed(numbers, named), [f"group {place}" for place in range(_MOST_NUMBERS)]
    values = struct.pack(f"<{len(numbers)}d", *numbers)
    return len(numbers).to_bytes(2, "little") + digest("\0".join(others)) + _hashes(tuple(named)) + values


def sketch_rows(names: Sequence[str], numbers: Doubles, digests: npt.NDArray[np.uint8]) -> PackedCodes | None:
    """`sketch_row` of many rows, an empty code for a row without a number; None where it cannot be had so.

    `numbers`: (N, D) of the columns `names`, which ascend, NaN where a row has none. `digests`: (N, 8) of its other
    cells, as sketch_row lists them.
    """
    if len(names) > _MOST_NUMBERS:
        return None
    there = ~np.isnan(numbers)
    counts = there.sum(axis=1)
    lengths = np.where(counts > 0, _HEADER + (_NAME + _NUMBER) * counts, 0)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    data = np.empty(int(starts[-1]), np.uint8)
    hashed = np.frombuffer(_hashes(tuple(names)), np.uint8).reshape(-1, _NAME)
    layouts, layout = np.unique(there, axis=0, return_inverse=True) if not there.all() else (there[:1], None)
    for number, has in enumerate(layouts):
        count = int(has.sum())
        rows = np.arange(len(there)) if layout is None else np.flatnonzero(layout.reshape(-1) == number)
        if not count or not len(rows):
            continue
        codes = np.empty((len(rows), int(lengths[rows[0]])), np.uint8)
        codes[:, :2] = np.frombuffer(count.to_bytes(2, "little"), np.uint8)
        codes[:, 2:_HEADER] = digests[rows]
        codes[:, _HEADER : _HEADER + _NAME * count] = hashed[has].reshape(-1)
        codes[:, _HEADER + _NAME * count :] = np.ascontiguousarray(numbers[rows][:, has], "<f8").view(np.uint8)
        data[starts[rows][:, np.newaxis] + np.arange(codes.shape[1])] = codes
    return PackedCodes(data, starts)


class RowSimilarity:
    """PairwiseSimilarity of rows."""

    def pairs(self, codes: Sequence[bytes], threshold: float | None = None) -> Places:
        """(M, 2) places of near-duplicates; `threshold`: 1 less the tolerance, 0.95 by default.

        Whether two rows are near depends on the spread and the density of all `codes`.
        """
        tolerance = TOLERANCE if threshold is None else 1 - threshold
        if len(codes) < 2 or tolerance <= 0:
            return np.zeros((0, 2), np.int64)
        scaled, kinds = _table(PackedCodes.of(codes))
        spreads = _spreads(scaled)
        varying = spreads > 0
        if not varying.any():
            return np.zeros((0, 2), np.int64)
        scaled = scaled if varying.all() else scaled[:, varying]
        with np.errstate(over="ignore"):  # by a spread that is next to nothing
            scaled /= spreads[varying]
        np.nan_to_num(scaled, copy=False).clip(-_FAR, _FAR, out=scaled)
        axes = _axes(scaled)
        bound = axes.ratio * tolerance
        apart = kinds[:, np.newaxis] * (4 * bound)  # rows of other categories are out of reach
        points = np.concatenate([axes.points, apart], axis=1)
        found = [np.zeros((0, 2), np.int64)]
        for places, pairs in neighbours_by_kind(points, kinds, bound):
            mine = scaled if len(places) == len(codes) else scaled[places]
            edges = Edges(pairs[:, 0], pairs[:, 1], _distances(mine, pairs))

            def is_compact(members: Places, radius: float, mine: Doubles = mine) -> bool:
                return bool(np.ptp(mine[members], axis=0).max() <= 3 * radius)

            near = isolated_pairs(len(places), edges, tolerance, axes.ratio, is_compact, total=len(codes))
            found.append(places[near])
        return unique_pairs(np.concatenate(found), len(codes))


class _Table(NamedTuple):
    numbers: Doubles
    """(N, D) NaN where a row lacks the column."""
    kinds: npt.NDArray[np.int64]
    """(N,) equal for rows with the same columns of numbers and the same other cells."""


class _Axes(NamedTuple):
    points: Doubles
    """(N, A) near for rows that are near."""
    ratio: float


def _table(codes: PackedCodes) -> _Table:
    """Rows may have different columns of numbers: one that is missing in a row is no number there."""
    layouts = _layouts(codes)
    each = [layout[at : at + _NAME] for layout in layouts for at in range(0, len(layout), _NAME)]
    names = sorted(set(each))
    column = {name: place for place, name in enumerate(names)}
    numbers = np.full((len(codes), len(names)), np.nan)
    kinds, layout_of = np.zeros(len(codes), np.int64), np.zeros(len(codes), np.int64)
    for number, (layout, places) in enumerate(layouts.items()):
        at = [column[layout[begin : begin + _NAME]] for begin in range(0, len(layout), _NAME)]
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            rows = _rows(codes, some)
            numbers[some[:, np.newaxis], at] = np.ascontiguousarray(rows[:, _HEADER + len(layout) :]).view("<f8")
            kinds[some] = np.ascontiguousarray(rows[:, 2:_HEADER]).view("<i8")[:, 0]
        layout_of[places] = number
    kinds = np.unique(kinds, return_inverse=True)[1].astype(np.int64)
    if len(layouts) > 1:
        kinds = np.unique(layout_of * (kinds.max() + 1) + kinds, return_inverse=True)[1].astype(np.int64)
    return _Table(numbers.clip(-_FAR, _FAR, out=numbers), kinds)


def _layouts(codes: PackedCodes) -> dict[bytes, Places]:
    """The hashes of the names of a row's numbers -> the places of such rows, in the order of their first ones."""
    found: dict[bytes, list[Places]] = {}
    lengths = np.diff(codes.starts)
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        width = length - _HEADER - (length - _HEADER) // (_NAME + _NUMBER) * _NUMBER
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            named = _rows(codes, some)[:, _HEADER : _HEADER + width]
            for layout, rows in _equal_rows(named):
                found.setdefault(layout, []).append(some[rows])
    together = {layout: np.concatenate(places) for layout, places in found.items()}
    return dict(sorted(together.items(), key=lambda pair: int(pair[1][0])))


def _equal_rows(rows: npt.NDArray[np.uint8]) -> list[tuple[bytes, Places]]:
    """The different ones of (N, W), each with the places where it stands."""
    if not rows.shape[1] or (rows == rows[0]).all():
        return [(rows[0].tobytes(), np.arange(len(rows)))]
    different, which = np.unique(rows, axis=0, return_inverse=True)
    return [(row.tobytes(), np.flatnonzero(which.reshape(-1) == number)) for number, row in enumerate(different)]


def _rows(codes: PackedCodes, places: Places) -> npt.NDArray[np.uint8]:
    """(N, W) codes of one length."""
    starts = codes.starts[places]
    return np.asarray(codes.data[starts[:, np.newaxis] + np.arange(int(codes.starts[places[0] + 1] - starts[0]))])


def _spreads(numbers: Doubles) -> Doubles:
    """(D,) what a standard deviation would be without outliers; 0 for a column of one value."""
    sample = numbers[:: max(1, len(numbers) // _SAMPLE)]
    return np.array([_spread(np.sort(column[~np.isnan(column)])) for column in sample.T])


def _spread(values: Doubles) -> float:
    """Spread of sorted values. Where one value prevails, zero say, it is how far the others are from it."""
    if not len(values):
        return 0.0
    starts = np.flatnonzero(np.append(True, np.diff(values) > 0))
    sizes = np.diff(np.append(starts, len(values)))
    low, high = np.quantile(values, (0.05, 0.95))
    if 2 * sizes.max() < len(values) and high > low:
        return float(high - low) / _NORMAL
    most = values[starts[sizes.argmax()]]
    away = np.abs(values[values != most] - most)
    return float(max(np.quantile(away, 0.95), away.max() / 10)) / 2 if len(away) else 0.0


def _axes(scaled: Doubles) -> _Axes:
    """Columns that tell rows apart, and sums of all columns with random signs where there are more of them."""
    count, width = scaled.shape
    chance = np.random.default_rng(0)
    first, second = chance.integers(0, count, (2, _PAIRS))
    differences = np.abs(scaled[first] - scaled[second])[first != second]
    equal = (differences <= TOLERANCE).mean(axis=0)
    scaling = (differences <= _COARSER * TOLERANCE).mean(axis=0) >= 2 * equal  # others have steps, as categories have
    sample = scaled[chance.integers(0, count, min(count, _PAIRS))]
    ratio = least_ratio(dimensions(sample[:, scaling]) if scaling.any() else width)
    if width <= _AXES:
        return _Axes(scaled, ratio)
    own = [place for place in np.argsort(equal, kind="stable")[:_OWN].tolist() if equal[place] <= 0.5]
    signs = chance.choice([-1.0, 1.0], (width, _AXES - len(own)))
    return _Axes(np.concatenate([scaled[:, own], scaled @ signs / math.sqrt(width)], axis=1), ratio)


def dimensions(sample: Doubles) -> float:
    """About how many independent numbers (N, D) has: between D and the participation ratio of its correlations."""
    clipped = np.clip(sample - np.median(sample, axis=0), -5, 5)
    clipped = clipped[:, clipped.std(axis=0) > 0]
    if clipped.shape[1] < 2:
        return 1.0
    parts = np.linalg.eigvalsh(np.corrcoef(clipped.T)).clip(0)
    return float(np.sqrt(clipped.shape[1] * parts.sum() ** 2 / (parts**2).sum()))


def _distances(scaled: Doubles, pairs: Places) -> Doubles:
    """(M,) the largest difference of a column."""
    parts = [
        np.abs(scaled[pairs[start : start + _CHUNK, 0]] - scaled[pairs[start : start + _CHUNK, 1]]).max(axis=1)
        for start in range(0, len(pairs), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _finite(cell: Any) -> float | None:
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_nan(cell: object) -> bool:
    return isinstance(cell, float | np.floating) and math.isnan(cell)


def _summed(numbers: Sequence[float], names: Sequence[str]) -> list[float]:
    """(_MOST_NUMBERS,)"""
    hashes = np.frombuffer(_hashes(tuple(names)), "<u4")
    signs = np.where(hashes & 1, 1.0, -1.0)
    places = (hashes >> 1) % _MOST_NUMBERS
    sums: list[float] = np.bincount(places, signs * np.arcsinh(numbers), _MOST_NUMBERS).tolist()
    return sums


@lru_cache(4096)
def digest(others: str) -> bytes:
    return hashlib.blake2b(others.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@lru_cache(1024)
def _sorted_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(names))


@lru_cache(1024)
def _hashes(names: tuple[str, ...]) -> bytes:
    digests = (hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_NAME) for name in names)
    return b"".join(each.digest() for each in digests)


ROWS = RowSimilarity()
