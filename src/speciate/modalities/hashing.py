"""Runs of characters and words as numbers, all of a text at once. Python's own `hash` differs between processes.

Hashes are polynomials modulo 2**64, mixed. They spread well; they do not resist somebody who makes collisions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Vector

Hashes = npt.NDArray[np.uint64]

WIDTH = 512
"""Of the vectors of `hashed`."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SPACE = ord(" ")


def mix(x: Hashes) -> Hashes:
    """A bijection that spreads every bit over all 64: the finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def characters(text: str) -> Hashes:
    """(T,): the code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)


def words(text: str) -> Hashes:
    """(W,): a hash of each word of a text whose words are divided by single spaces."""
    codes = np.append(characters(text), np.uint64(_SPACE))
    ends = np.flatnonzero(codes == _SPACE)
    codes[ends] = 0
    starts = np.concatenate([[0], ends[:-1] + 1])
    powers = np.cumprod(np.full((ends - starts).max() + 1, _BASE))
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    return mix(np.add.reduceat(codes * powers[place], starts))


def runs(items: Hashes, length: int) -> Hashes:
    """(T,) -> (T - length + 1,): a hash of every run of `length` items; empty where there are fewer."""
    count = max(len(items) - length + 1, 0)
    found = np.full(count, np.uint64(length))
    for place in range(length):
        found = found * _BASE + items[place : place + count]
    return mix(found)


def hashed(text: str, shortest: int, longest: int) -> Vector:
    """(WIDTH,) of length 1: the runs of characters in `text` by signed feature hashing (Weinberger et al. 2009).

    The sign keeps collisions from adding up. Counts enter by their root, so that common runs do not drown the others.
    """
    items = characters(text)
    found, counts = np.unique(
        np.concatenate([runs(items, n) for n in range(shortest, longest + 1)]), return_counts=True
    )
    signs = np.where(found & np.uint64(1), 1.0, -1.0)
    sums = np.bincount((found >> np.uint64(55)).astype(np.intp), signs * np.sqrt(counts), WIDTH)
    return (sums / max(float(np.linalg.norm(sums)), 1e-12)).astype(np.float32)
