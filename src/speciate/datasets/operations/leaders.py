"""Clusters around representatives: each item goes to a leader that it is itself near, or leads.

Items come in an order of preference; one that is near no leader so far becomes one (leader clustering, Hartigan 1975).
So leaders are near no other leader, and no chain of near pairs joins items that are not alike, as single link would.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
_BLOCK = 2048


def by_pairs(order: Sequence[int], kind: Places, pairs: Places) -> Places:
    """(N,) the place of each item's leader. Items of one `kind` (N,) are alike; `pairs` (M, 2) says which kinds are."""
    kinds = int(kind.max()) + 1 if len(kind) else 0
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], np.arange(kinds + 1))
    leader_of_kind = np.full(kinds, -1)
    for item in order:
        own = int(kind[item])
        if leader_of_kind[own] < 0:
            leader_of_kind[own] = item
            near = both[starts[own] : starts[own + 1], 1]
            leader_of_kind[near[leader_of_kind[near] < 0]] = item
    return np.asarray(leader_of_kind[kind])


def by_cosine(order: Sequence[int], units: npt.NDArray[np.float32], threshold: float) -> Places:
    """(N,) the place of each item's leader. `units`: (N, D) of length 1; exact, in blocks of matrix products."""
    leader = np.full(len(units), -1)
    leaders = np.zeros(0, np.int64)
    for start in range(0, len(order), _BLOCK):
        block = np.asarray(order[start : start + _BLOCK])
        _join(block, leaders, leader, units, threshold)
        rest = block[leader[block] < 0]
        alike = units[rest] @ units[rest].T >= threshold
        for row, item in enumerate(rest):
            if leader[item] < 0:
                free = rest[alike[row] & (leader[rest] < 0)]
                leader[free] = leader[item] = item
        leaders = np.concatenate([leaders, rest[leader[rest] == rest]])
    return leader


def _join(block: Places, leaders: Places, leader: Places, units: npt.NDArray[np.float32], threshold: float) -> None:
    """Each of the block to the most similar leader where one is near."""
    best, similarity = np.full(len(block), -1), np.full(len(block), -np.inf, np.float32)
    for start in range(0, len(leaders), _BLOCK):
        chunk = leaders[start : start + _BLOCK]
        found = units[block] @ units[chunk].T
        place = found.argmax(axis=1)
        value = found[np.arange(len(block)), place]
        closer = value > similarity
        best[closer], similarity[closer] = chunk[place[closer]], value[closer]
    near = similarity >= threshold
    leader[block[near]] = best[near]
