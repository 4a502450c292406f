"""Near-duplicates and leaders against a plain search, with sketches of a few bytes, so that every rule is met often."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets.similarity import known_pairs, near_duplicates
from speciate.datasets.similarity.near_duplicates import (
    leaders_by_cosine,
    leaders_by_pairs,
    near_any_of,
    near_duplicate_pairs,
)
from speciate.modalities.contract import SketchColumn, Sketches
from speciate.workspace.workspace import Folders
from tests.drawn import drawn

BLANK = 9
"""A sketch that begins with this is near nothing, not even its equals."""
Pairs = set[tuple[int, int]]


class Nearby:
    """Sketches with the first or the last byte in common that differ by no more than `far` in all others together."""

    def __init__(self, width: int, far: int = 2) -> None:
        self.width, self.far = width, far

    def keys(self, sketches: Sketches) -> Any:
        return np.stack([sketches[:, 0], sketches[:, -1].astype(np.uint64) + 1000], axis=1).astype(np.uint64)

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> Any:
        far = self.far if threshold is None else 10 * (1 - threshold)
        apart = np.abs(a.astype(int) - b.astype(int)).sum(axis=1)
        return (apart <= far) & (a[:, 0] != BLANK) & (b[:, 0] != BLANK)


class ByLength:
    """A similarity of codes of any length: near are those whose lengths differ by less than two."""

    def __init__(self) -> None:
        self.asked: list[list[bytes]] = []

    def pairs(self, codes: Sequence[bytes], threshold: float | None = None) -> Any:
        self.asked.append([*codes])
        found = [
            (a, b)
            for a in range(len(codes))
            for b in range(a + 1, len(codes))
            if abs(len(codes[a]) - len(codes[b])) < (2 if threshold is None else 10 * threshold)
        ]
        return np.array(found, np.int64).reshape(-1, 2)


class TwoParts:
    """Two bytes each of two parts, the second of which may be missing."""

    def columns(self, sketches: Sequence[bytes | None], part: str | None = None) -> dict[str, SketchColumn]:
        places = {"a": slice(0, 2), "b": slice(2, 4)}
        return {
            name: SketchColumn([(each or b"")[at] or None for each in sketches], Nearby(2, far=0))
            for name, at in places.items()
            if part in (None, name)
        }

    def is_valid(self, sketch: bytes) -> bool:
        return True


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    known_pairs._latest.clear()


def pairs_of(codes: Any, rule: Any, threshold: float | None = None, **more: Any) -> list[tuple[int, int]]:
    known_pairs._latest.clear()
    found = near_duplicate_pairs(codes, rule, threshold, **more)
    assert found.dtype == np.int64
    assert found.shape == (len(found), 2)
    return [(a, b) for a, b in found.tolist()]


def forms(codes: Sequence[bytes | None]) -> Iterator[Any]:
    """The same sketches as callers have them."""
    yield list(codes)
    yield pa.chunked_array([pa.array([b"ab", *codes], pa.binary())[1:]])
    yield pa.chunked_array([pa.array(codes[:2], pa.large_binary()), pa.array(codes[2:], pa.large_binary())])


def near(rule: Nearby, one: bytes, other: bytes, threshold: float | None = None) -> bool:
    rows = [np.frombuffer(code, np.uint8)[np.newaxis] for code in (one, other)]
    return bool(rule.near(*rows, threshold)[0])


def plain_pairs(
    codes: Sequence[bytes | None], rule: Nearby, threshold: float | None = None, reach: int = 1_000_000
) -> Pairs:
    """Equal ones with their first; different ones that have a key in common, in which no more than `reach` stand
    between them."""
    firsts: dict[bytes, int] = {}
    found = Pairs()
    for place, code in enumerate(codes):
        if code is not None and firsts.setdefault(code, place) != place and near(rule, code, code, threshold):
            found.add((firsts[code], place))
    line = sorted(firsts, key=lambda code: (code[:8].ljust(8, b"\0"), firsts[code]))
    for key in (lambda code: code[0]), (lambda code: code[-1]):
        for value in {key(code) for code in line}:
            crowd = [code for code in line if key(code) == value]
            for at, one in enumerate(crowd):
                for other in crowd[at + 1 : at + 1 + reach]:
                    if near(rule, one, other, threshold):
                        found.add((min(firsts[one], firsts[other]), max(firsts[one], firsts[other])))
    return found


def plain_clusters(count: int, pairs: Pairs) -> list[int]:
    found = list(range(count))
    for a, b in sorted(pairs):
        found = [min(found[a], found[b]) if each in (found[a], found[b]) else each for each in found]
    return found


def byte_strings(width: int, letters: Sequence[int]) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(letters), min_size=width, max_size=width).map(bytes)


@st.composite
def sketches(draw: st.DrawFn) -> tuple[list[bytes | None], Nearby]:
    width = draw(st.sampled_from([1, 2, 3, 8, 10]))
    one = byte_strings(width, draw(st.sampled_from([(0, 1), (0, 1, 2, BLANK), (0, 1, 200, 255)])))
    return draw(st.lists(st.none() | one, max_size=14)), Nearby(width, draw(st.integers(0, 4)))


@given(sketches(), st.sampled_from([None, 0.5, 0.9]), st.sampled_from([1, 2, 7, 65536]))
@settings(deadline=None, max_examples=drawn(200, 60))
def test_pairs_are_those_of_a_plain_search(
    case: tuple[list[bytes | None], Nearby], threshold: float | None, chunk: int
) -> None:
    codes, rule = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_CHUNK", chunk)
        for form in forms(codes):
            assert pairs_of(form, rule, threshold) == sorted(plain_pairs(codes, rule, threshold))


@given(sketches(), st.integers(1, 3), st.sampled_from([0, 1, 40, 200]))
@settings(deadline=None, max_examples=drawn(200, 60))
def test_in_a_crowd_each_is_compared_with_the_next_ones(
    case: tuple[list[bytes | None], Nearby], least: int, comparisons: int
) -> None:
    codes, rule = case
    different = len({code for code in codes if code is not None})
    reach = max(comparisons // (2 * different or 1), least)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_LEAST", least)
        patch.setattr(near_duplicates, "_COMPARISONS", comparisons)
        assert pairs_of(codes, rule) == sorted(plain_pairs(codes, rule, reach=reach))


@given(sketches(), st.integers(0, 6), st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=drawn(200, 60))
def test_from_many_pairs_on_the_clusters_are_still_those_of_all(
    case: tuple[list[bytes | None], Nearby], many: int, chunk: int
) -> None:
    codes, rule = case
    expected = plain_pairs(codes, rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_MANY", many)
        patch.setattr(near_duplicates, "_CHUNK", chunk)
        found = pairs_of(codes, rule)
    assert found == sorted(set(found))
    assert expected >= set(found)
    assert plain_clusters(len(codes), set(found)) == plain_clusters(len(codes), expected)
    if len(expected) <= many:
        assert found == sorted(expected)


def test_from_many_pairs_on_only_those_are_searched_that_join_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    class Counted(Nearby):
        def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> Any:
            compared.append(len(a))
            return super().near(a, b, threshold)

    codes = [bytes([7, at]) for at in range(40)]  # all with one key, and all near
    monkeypatch.setattr(near_duplicates, "_CHUNK", 39)
    for many, pairs, asked in ((40, 39 + 38, 39 + 38), (38, 39, 39), (77, 39 + 38 + 37, 39 + 38 + 37), (780, 780, 780)):
        compared.clear()
        monkeypatch.setattr(near_duplicates, "_MANY", many)
        assert len(pairs_of(codes, Counted(2, far=100))) == pairs
        assert sum(compared) == asked


def test_the_limits_are_those_that_are_promised() -> None:
    assert (near_duplicates._COMPARISONS, near_duplicates._LEAST, near_duplicates._MANY) == (20_000_000, 32, 2_000_000)


def test_two_sketches_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "mix", np.zeros_like)
    codes: list[bytes | None] = [b"\0\0", b"\5\5", b"\5\5", b"\0\1", None, b"\0\0"]
    assert pairs_of(codes, Nearby(2, far=0)) == [(0, 5), (1, 2)]
    assert pairs_of(codes, Nearby(2, far=1)) == [(0, 3), (0, 5), (1, 2), (3, 5)]


# Parts and similarities of pairs


@given(st.lists(st.none() | byte_strings(4, (0, 1)) | byte_strings(2, (0, 1)), max_size=9))
@settings(deadline=None)
def test_of_mixed_rows_those_are_near_of_which_any_part_is(codes: list[bytes | None]) -> None:
    expected = {
        part: plain_pairs([(code or b"")[at] or None for code in codes], Nearby(2, far=0))
        for part, at in (("a", slice(0, 2)), ("b", slice(2, 4)))
    }
    for form in forms(codes):
        assert pairs_of(form, TwoParts()) == sorted(expected["a"] | expected["b"])
        for part, found in expected.items():
            assert pairs_of(form, TwoParts(), part=part) == sorted(found)
    assert pairs_of(codes, TwoParts(), part="c") == []


def test_parts_are_compared_by_the_threshold_that_is_given() -> None:
    codes = [b"\0\0\0\0", b"\0\1\5\5"]
    assert pairs_of(codes, TwoParts()) == []
    assert pairs_of(codes, TwoParts(), 0.8) == [(0, 1)]


@given(st.lists(st.none() | st.binary(max_size=5), max_size=9), st.sampled_from([None, 0.1, 0.4]))
@settings(deadline=None)
def test_a_similarity_of_pairs_sees_each_code_once_in_order(codes: list[bytes | None], threshold: float | None) -> None:
    there = sorted({code for code in codes if code is not None})
    expected = {(codes.index(code), at) for at, code in enumerate(codes) if code is not None} - {
        (at, at) for at in range(len(codes))
    }
    for a, b in ByLength().pairs(there, threshold).tolist():
        one, other = sorted((codes.index(there[a]), codes.index(there[b])))
        expected.add((one, other))
    for form in forms(codes):
        rule = ByLength()
        assert pairs_of(form, rule, threshold) == sorted(expected)
        assert rule.asked == ([there] if there else [])


# Near any of others


@given(st.data(), st.sampled_from([2, 3]))
@settings(deadline=None, max_examples=drawn(200, 60))
def test_each_is_found_that_is_near_one_of_the_others(data: st.DataObject, width: int) -> None:
    one = st.none() | byte_strings(width, (0, 1, 2, BLANK))
    mine, theirs = (data.draw(st.lists(one, max_size=8)) for _ in range(2))
    rule = Nearby(width, data.draw(st.integers(0, 2)))
    everybody = [*dict.fromkeys(code for code in [*mine, *theirs] if code is not None)]
    together = plain_pairs(everybody, rule)
    expected = [
        code is not None
        and any(
            other is not None
            and (
                near(rule, code, other)
                if code == other
                else {(everybody.index(code), everybody.index(other)), (everybody.index(other), everybody.index(code))}
                & together
                != set()
            )
            for other in theirs
        )
        for code in mine
    ]
    for here, there in zip(forms(mine), forms(theirs), strict=True):
        known_pairs._latest.clear()
        found = near_any_of(here, there, rule)
        assert found.tolist() == expected
        assert found.dtype == bool


@given(*[st.lists(st.none() | byte_strings(4, (0, 1, 2)), max_size=5)] * 2)
@settings(deadline=None)
def test_of_mixed_rows_each_is_found_of_which_a_part_is_near_one_of_the_others(
    mine: list[bytes | None], theirs: list[bytes | None]
) -> None:
    expected = [
        one is not None
        and any(other is not None and (one[:2] == other[:2] or one[2:] == other[2:]) for other in theirs)
        for one in mine
    ]
    found = near_any_of(mine, theirs, TwoParts())
    assert found.tolist() == expected
    assert found.dtype == bool


def test_the_folders_are_asked_that_remember_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    asked, folders = [], Folders(tmp_path)

    def ask(rule: object, threshold: float | None, codes: Sequence[object], find: Callable[[], Any], at: object) -> Any:
        asked.append((threshold, at, len(codes)))
        return find()

    monkeypatch.setattr(known_pairs, "ask", ask)
    codes = [b"\0\0", b"\0\1", b"\0\0"]
    near_duplicate_pairs(codes, Nearby(2), 0.5, folders=folders)
    near_duplicate_pairs(codes, ByLength(), 0.5, folders=folders)
    near_duplicate_pairs(codes, TwoParts(), 0.5, folders=folders)
    near_any_of(codes, codes, Nearby(2), folders)
    near_any_of(codes, codes, TwoParts(), folders)
    assert [each[:2] for each in asked] == [
        *[(0.5, folders)] * 4, *[(None, folders)] * 2,
    ]  # fmt: skip


# Leaders


class Kinds(NamedTuple):
    order: list[int]
    kind: list[int]
    pairs: list[tuple[int, int]]


@st.composite
def kinds(draw: st.DrawFn) -> Kinds:
    number = draw(st.integers(1, 6))
    kind = draw(st.lists(st.integers(0, number - 1), max_size=10))
    numbers = {each: at for at, each in enumerate(sorted({*kind}))}
    kind = [numbers[each] for each in kind]
    places = st.integers(0, max(len(numbers) - 1, 0))
    pairs = draw(st.sets(st.tuples(places, places).filter(lambda pair: pair[0] < pair[1]), max_size=8))
    return Kinds(draw(st.permutations(range(len(kind)))), kind, sorted(pairs))


@given(kinds())
@settings(deadline=None, max_examples=drawn(100, 50))
def test_the_first_of_the_order_that_is_near_leads(case: Kinds) -> None:
    leader = list[int | None]([None] * len(case.kind))
    near_ones = {*case.pairs, *((b, a) for a, b in case.pairs), *((at, at) for at in case.kind)}
    for item in case.order:
        if leader[item] is None:
            for other, kind in enumerate(case.kind):
                if leader[other] is None and (case.kind[item], kind) in near_ones:
                    leader[other] = item
    pairs = np.array(case.pairs, np.int64).reshape(-1, 2)
    assert leaders_by_pairs(case.order, np.array(case.kind, np.int64), pairs).tolist() == leader


@given(st.data(), st.integers(1, 7), st.sampled_from([None, 2]), st.integers(-1, 3))
@settings(deadline=None, max_examples=drawn(100, 50))
def test_by_cosine_a_block_follows_the_most_similar_leader_of_those_before_and_then_its_own_first(
    data: st.DataObject, block: int, threads: int | None, threshold: int
) -> None:
    """Whole numbers, which are exact: nothing hangs on their length."""
    vectors = data.draw(st.lists(st.tuples(*[st.integers(-1, 2)] * 3), max_size=14))
    units = np.array(vectors, np.float32).reshape(-1, 3)
    order = data.draw(st.permutations(range(len(units))))
    leader, leaders = dict[int, int](), list[int]()
    for start in range(0, len(order), block):
        fresh = list[int]()
        for item in order[start : start + block]:
            alike = [float(units[item] @ units[each]) for each in leaders]
            if alike and max(alike) >= threshold:
                leader[item] = leaders[alike.index(max(alike))]
        rest = [item for item in order[start : start + block] if item not in leader]
        for item in rest:
            if item not in leader:
                fresh.append(item)
                leader |= {
                    other: item for other in rest if other not in leader and units[item] @ units[other] >= threshold
                }
                leader[item] = item
        leaders += fresh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_BLOCK", block)
        found = leaders_by_cosine(order, units, threshold, *([threads] if threads else []))
    assert found.tolist() == [leader[item] for item in range(len(units))]


def test_by_cosine_threads_take_the_products_of_the_blocks_before(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    class Pool(near_duplicates.ThreadPoolExecutor):
        def map(self, fn: Any, *iterables: Any, **more: Any) -> Any:
            taken.append((self._max_workers, [len(each) for each in iterables[0]]))
            return super().map(fn, *iterables, **more)

    monkeypatch.setattr(near_duplicates, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(near_duplicates, "_BLOCK", 2)
    units = np.eye(5, dtype=np.float32)
    for threads, expected in ((1, []), (2, [(2, []), (2, [2]), (2, [2, 2])])):
        assert leaders_by_cosine(range(5), units, 0.9, threads).tolist() == list(range(5))
        assert taken == expected
