from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets.similarity import near_duplicates
from speciate.modalities.contract import Sketches, Sketching
from speciate.modalities.hashing import IMAGE_SKETCHES, TEXT_SKETCHES
from tests.drawn import drawn

KINDS = pytest.mark.parametrize("sketching", [IMAGE_SKETCHES, TEXT_SKETCHES], ids=["images", "shingles"])


def changed(base: Sketches, rng: np.random.Generator, bytes_changed: int) -> Sketches:
    """Copies of the same sketch, a few bytes of each changed a little."""
    codes = base.copy()
    rows = np.arange(len(codes))[:, np.newaxis]
    codes[rows, rng.integers(0, codes.shape[1], (len(codes), bytes_changed))] ^= 1
    return codes


def a_million(codes: Sketches) -> pa.ChunkedArray:
    width = codes.shape[1]
    array = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(codes), [None, pa.py_buffer(codes.tobytes())])
    return pa.chunked_array([array.cast(pa.binary())])


def eight(sketching: Sketching) -> list[bytes]:
    """Two strangers with three copies each, which differ in a few bytes."""
    rng = np.random.default_rng(7)
    bases = rng.integers(0, 256, (2, sketching.width), np.uint8)
    return [row.tobytes() for row in np.concatenate([bases, *(changed(bases, rng, amount) for amount in (1, 2, 5))])]


def as_set(pairs: near_duplicates.Places) -> set[tuple[int, int]]:
    return {(a, b) for a, b in pairs.tolist()}


def by_brute_force(codes: list[bytes | None], sketching: Sketching) -> set[tuple[int, int]]:
    """All near pairs of different sketches that share a key, by the first places of both; equals with their first."""
    expected = set()
    firsts: dict[bytes, int] = {}
    for place, code in enumerate(codes):
        if code is None:
            continue
        row = np.frombuffer(code, np.uint8)[np.newaxis]
        if code in firsts:
            expected.add((firsts[code], place))
            continue
        for other, at in firsts.items():
            before = np.frombuffer(other, np.uint8)[np.newaxis]
            if (sketching.keys(row) == sketching.keys(before)).any() and sketching.near(before, row)[0]:
                expected.add((at, place))
        firsts[code] = place
    return expected


@KINDS
@given(seed=st.integers(0, 2**32), bases=st.integers(1, 4), copies=st.integers(1, 8), amount=st.integers(0, 6))
@settings(deadline=None, max_examples=drawn(60))
def test_pairs_are_those_that_share_a_key_and_are_near(
    sketching: Sketching, seed: int, bases: int, copies: int, amount: int
) -> None:
    rng = np.random.default_rng(seed)
    base = np.repeat(rng.integers(0, 256, (bases, sketching.width), dtype=np.uint8), copies, axis=0)
    codes: list[bytes | None] = [code.tobytes() for code in changed(base, rng, amount)]
    codes.insert(seed % len(codes), None)
    rng.shuffle(codes)  # type: ignore[arg-type]  # a list is shuffled in place, too

    assert as_set(near_duplicates.near_duplicate_pairs(codes, sketching)) == by_brute_force(codes, sketching)


@KINDS
def test_a_list_and_a_column_give_the_same(sketching: Sketching) -> None:
    rng = np.random.default_rng(3)
    base = np.repeat(rng.integers(0, 256, (20, sketching.width), dtype=np.uint8), 3, axis=0)
    codes = [None, *(code.tobytes() for code in changed(base, rng, 2)), None]
    column = pa.chunked_array([pa.array(codes[:7], pa.binary()), pa.array(codes[7:], pa.binary())])

    pairs = near_duplicates.near_duplicate_pairs(codes, sketching)

    assert len(pairs) > 50
    assert np.array_equal(near_duplicates.near_duplicate_pairs(column, sketching), pairs)


def test_a_threshold_decides_which_pairs_are_near() -> None:
    a = np.arange(64, dtype=np.uint8)
    b = np.where(np.arange(64) < 20, a + 100, a).astype(np.uint8)  # 44 of 64 values agree
    codes: list[bytes | None] = [a.tobytes(), b.tobytes()]

    assert as_set(near_duplicates.near_duplicate_pairs(codes, TEXT_SKETCHES)) == set()
    assert as_set(near_duplicates.near_duplicate_pairs(codes, TEXT_SKETCHES, threshold=0.6)) == {(0, 1)}


@pytest.mark.parametrize("codes", [[], [None], [None, None], [b"a" * 64], [b"a" * 64, None]])
def test_nothing_is_near_alone(codes: list[bytes | None]) -> None:
    assert near_duplicates.near_duplicate_pairs(codes, TEXT_SKETCHES).shape == (0, 2)


@given(
    st.lists(st.none() | st.sampled_from(range(8)), max_size=12),
    st.lists(st.none() | st.sampled_from(range(8)), max_size=12),
    st.sampled_from([TEXT_SKETCHES, IMAGE_SKETCHES]),
)
@settings(deadline=None)
def test_whatever_is_equal_among_either_each_is_found_that_is_near_one_of_the_others(
    mine: list[int | None], theirs: list[int | None], sketching: Sketching
) -> None:
    codes = eight(sketching)
    here, there = ([None if each is None else codes[each] for each in side] for side in (mine, theirs))
    wanted = [
        any(len(near_duplicates.near_duplicate_pairs([one, other], sketching)) for other in there) for one in here
    ]
    assert near_duplicates.near_any_of(here, there, sketching).tolist() == wanted


def test_a_crowd_of_equal_sketches_has_one_pair_each() -> None:
    codes = np.repeat(np.arange(64, dtype=np.uint8)[np.newaxis], 300_000, axis=0)

    pairs = near_duplicates.near_duplicate_pairs(a_million(codes), TEXT_SKETCHES)

    assert np.array_equal(pairs[:, 0], np.zeros(299_999, np.int64))
    assert np.array_equal(pairs[:, 1], np.arange(1, 300_000))


def test_a_crowd_of_like_sketches_is_one_cluster_and_its_pairs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_COMPARISONS", 0)
    monkeypatch.setattr(near_duplicates, "_MANY", 5_000)
    rng = np.random.default_rng(1)
    codes = changed(np.repeat(rng.integers(0, 256, (1, 64), dtype=np.uint8), 3_000, axis=0), rng, 5)

    pairs = near_duplicates.near_duplicate_pairs(a_million(codes), TEXT_SKETCHES)

    assert len(pairs) < 200_000  # of four and a half million
    assert set(near_duplicates.clusters(len(codes), pairs)) == {0}


def test_another_order_of_the_rows_gives_the_same_clusters() -> None:
    rng = np.random.default_rng(7)
    base = np.repeat(rng.integers(0, 256, (30, 72), dtype=np.uint8), 4, axis=0)
    codes = [code.tobytes() for code in changed(base, rng, 1)]
    order = rng.permutation(len(codes))

    straight = near_duplicates.clusters(len(codes), near_duplicates.near_duplicate_pairs(codes, IMAGE_SKETCHES))
    shuffled = near_duplicates.clusters(
        len(codes), near_duplicates.near_duplicate_pairs([codes[place] for place in order], IMAGE_SKETCHES)
    )

    back = np.empty_like(shuffled)
    back[order] = shuffled
    assert partition(back) == partition(straight)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
@settings(deadline=None)
def test_clusters_are_the_connected_components(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    expected: list[set[int]] = [{place} for place in range(count)]
    for a, b in edges:
        joined = next(part for part in expected if a in part) | next(part for part in expected if b in part)
        expected = [part for part in expected if not part & joined] + [joined]

    found = near_duplicates.clusters(count, np.array(edges, np.int64).reshape(-1, 2))

    assert partition(found) == {frozenset(part) for part in expected}
    firsts = [int(np.flatnonzero(found == number)[0]) for number in range(found.max() + 1)]
    assert firsts == sorted(firsts)


def partition(numbers: near_duplicates.Places) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(numbers == number).tolist()) for number in set(numbers.tolist())}


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
    leader = near_duplicates.leaders_by_pairs(order, codes[1].astype(np.int64), edges)
    assert {i for i in range(len(kind)) if leader[i] == i} == slowly(order, near)
    assert all(near[i][leader[i]] for i in range(len(kind)))


@given(st.integers(1, 40), st.integers(0, 10), st.floats(0.3, 0.99), st.integers(1, 7))
def test_by_cosine_the_size_of_blocks_changes_nothing(count: int, seed: int, threshold: float, block: int) -> None:
    random = np.random.default_rng(seed)
    units = random.normal(size=(count, 3)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    order = random.permutation(count).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_BLOCK", block)
        leader = near_duplicates.leaders_by_cosine(order, units, threshold)
    near = (units @ units.T >= threshold).tolist()
    assert {i for i in range(count) if leader[i] == i} == slowly(order, near)
    assert all(units[i] @ units[leader[i]] >= threshold - 1e-6 for i in range(count))


@given(st.integers(1, 60), st.integers(0, 10), st.floats(0.3, 0.99), st.integers(1, 7), st.integers(2, 5))
def test_by_cosine_the_number_of_threads_changes_nothing(
    count: int, seed: int, threshold: float, block: int, threads: int
) -> None:
    random = np.random.default_rng(seed)
    units = random.normal(size=(count, 3)).astype(np.float32).round(0) + np.float32(0.5)  # with ties
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    order = random.permutation(count).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_BLOCK", block)
        alone = near_duplicates.leaders_by_cosine(order, units, threshold)
        together = near_duplicates.leaders_by_cosine(order, units, threshold, threads)
    np.testing.assert_array_equal(together, alone)


def test_by_cosine_the_threads_take_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    class Pool(ThreadPoolExecutor):
        def map(self, fn: Any, *iterables: Any, **more: Any) -> Any:
            taken.append((self._max_workers, len(iterables[0])))
            return super().map(fn, *iterables, **more)

    monkeypatch.setattr(near_duplicates, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(near_duplicates, "_BLOCK", 2)
    units = np.eye(6, dtype=np.float32)
    assert near_duplicates.leaders_by_cosine(range(6), units, 0.9).tolist() == list(range(6))
    assert not taken
    assert near_duplicates.leaders_by_cosine(range(6), units, 0.9, 3).tolist() == list(range(6))
    assert taken == [(3, 0), (3, 1), (3, 2)]
