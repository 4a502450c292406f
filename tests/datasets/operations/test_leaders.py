"""Clusters around representatives, against a slow and obvious reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.operations import leaders


def slowly(order: list[int], near: list[list[bool]]) -> set[int]:
    """The leaders."""
    found: list[int] = []
    for item in order:
        if not any(near[item][leader] for leader in found):
            found.append(item)
    return set(found)


@given(st.data())
def test_by_pairs_leaders_are_near_no_other_and_everyone_is_near_its_own(data: st.DataObject) -> None:
    kinds = data.draw(st.integers(1, 6))
    kind = data.draw(st.lists(st.integers(0, kinds - 1), min_size=1, max_size=10))
    pairs = data.draw(
        st.sets(st.tuples(st.integers(0, kinds - 1), st.integers(0, kinds - 1)).filter(lambda p: p[0] < p[1]))
    )
    order = data.draw(st.permutations(range(len(kind))))
    near = [[a == b or (min(a, b), max(a, b)) in pairs for b in kind] for a in kind]
    codes = np.unique(kind, return_inverse=True)
    known = {k: i for i, k in enumerate(codes[0].tolist())}
    edges = np.array([(known[a], known[b]) for a, b in sorted(pairs) if a in known and b in known], np.int64).reshape(
        -1, 2
    )
    leader = leaders.by_pairs(order, codes[1].astype(np.int64), edges)
    assert {i for i in range(len(kind)) if leader[i] == i} == slowly(order, near)
    assert all(near[i][leader[i]] for i in range(len(kind)))


@given(st.integers(1, 40), st.integers(0, 10), st.floats(0.3, 0.99), st.integers(1, 7))
def test_by_cosine_the_size_of_blocks_changes_nothing(count: int, seed: int, threshold: float, block: int) -> None:
    random = np.random.default_rng(seed)
    units = random.normal(size=(count, 3)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    order = random.permutation(count).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaders, "_BLOCK", block)
        leader = leaders.by_cosine(order, units, threshold)
    near = (units @ units.T >= threshold).tolist()
    assert {i for i in range(count) if leader[i] == i} == slowly(order, near)
    assert all(units[i] @ units[leader[i]] >= threshold - 1e-6 for i in range(count))
