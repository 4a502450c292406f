"""Chance that repeats: an order by hashes of a seed and a key, and whole numbers from shares."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence


def place(seed: int, key: str) -> bytes:
    """Where a key stands among others: independent of what the others are, so that a sample grows without moving."""
    return hashlib.sha256(f"{seed}/{key}".encode("utf-8", "surrogatepass")).digest()


def shuffled(keys: Sequence[str], seed: int) -> list[int]:
    """Places of the keys in the order of the seed."""
    return sorted(range(len(keys)), key=lambda i: place(seed, keys[i]))


def apportion(counts: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Of each kind a whole number, in proportion to `counts` and together `wanted`: largest remainders (Hamilton)."""
    total = sum(counts.values())
    exact = {name: wanted * count / total for name, count in counts.items()}
    given = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(counts, key=lambda name: (given[name] - exact[name], name))
    for name in by_remainder[: wanted - sum(given.values())]:
        given[name] += 1
    return given
