from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from speciate import features
from speciate.errors import SpeciateError
from speciate.models.encoders import Vectors
from speciate.workspace.workspace import Workspace


class Lengths:
    """An encoder of texts to (length, number of words), in batches of two, that counts what it is asked."""

    id = cache = "lengths-1"
    width, parameters, precision = 2, 0, "float32"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        for start in range(0, len(media), 2):
            places = list(range(start, min(start + 2, len(media))))
            self.asked += [media[place] for place in places]
            yield places, np.array([[len(media[p]), len(media[p].split())] for p in places], np.float32)


TEXTS = ["one", "one two", "one two three"]


def test_what_was_embedded_once_is_read_and_the_rest_computed(workspace: Workspace) -> None:
    encoder = Lengths()
    first = features.embed(workspace.folders, encoder, ["a", "b"], TEXTS[:2])
    again = features.embed(workspace.folders, encoder, ["c", "a", "b"], [TEXTS[2], *TEXTS[:2]])
    assert encoder.asked == TEXTS
    np.testing.assert_array_equal(again[1:], first)
    np.testing.assert_array_equal(again[:, 1], [3, 1, 2])


@pytest.mark.parametrize("odd", [[np.nan, 1], [1, np.inf], [1], [1, 2, 3]])
def test_vectors_that_are_none_are_an_error_of_the_model_and_not_kept(workspace: Workspace, odd: list[float]) -> None:
    class Broken(Lengths):
        def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
            yield [0], np.array([odd], np.float32)

    with pytest.raises(SpeciateError, match="lengths-1"):
        features.embed(workspace.folders, Broken(), ["a"], TEXTS[:1])
    assert not features.known(workspace.folders, "lengths-1", ["a"]).any()


def test_each_run_writes_one_part_and_none_where_all_is_known(workspace: Workspace) -> None:
    for _ in range(2):
        features.embed(workspace.folders, Lengths(), ["a", "b", "c"], TEXTS)
    assert len(list((workspace.folders.features / "lengths-1").iterdir())) == 1


def test_an_encoder_of_which_everything_is_known_is_not_asked(workspace: Workspace) -> None:
    class Unloadable(Lengths):
        def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
            raise AssertionError("its network would be loaded")

    known = features.embed(workspace.folders, Lengths(), ["a", "b"], TEXTS[:2])
    again = features.embed(workspace.folders, Unloadable(), ["b", "a"], TEXTS[1::-1])
    np.testing.assert_array_equal(again, known[::-1])


def test_an_item_that_occurs_twice_is_computed_once(workspace: Workspace) -> None:
    encoder = Lengths()
    vectors = features.embed(workspace.folders, encoder, ["a", "a"], [TEXTS[0]] * 2)
    assert vectors.shape == (2, 2)
    assert encoder.asked == TEXTS[:1]


def test_an_id_that_stands_for_another_medium_is_not_believed(workspace: Workspace) -> None:
    features.embed(workspace.folders, Lengths(), ["a"], TEXTS[:1])
    vectors = features.embed(workspace.folders, Lengths(), ["a", "a"], TEXTS[1:])
    np.testing.assert_array_equal(vectors[:, 1], [2, 3])


def test_a_run_that_is_stopped_keeps_what_it_computed(workspace: Workspace) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.embed(workspace.folders, Lengths(), ["a", "b", "c"], TEXTS, stop)
    encoder = Lengths()
    features.embed(workspace.folders, encoder, ["a", "b", "c"], TEXTS)
    assert encoder.asked == TEXTS[2:]


def test_a_run_that_is_stopped_lets_go_of_its_batches_at_once(workspace: Workspace) -> None:
    """Threads that compute them would work on while the stop is handled."""
    over = list[bool]()

    class Closing(Lengths):
        def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
            try:
                yield from super().embed(media)
            finally:
                over.append(True)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as handled:
        features.embed(workspace.folders, Closing(), ["a", "b", "c"], TEXTS, stop)
    assert (over, handled.tb is not None) == ([True], True)


def test_duplicate_parts_are_harmless(workspace: Workspace) -> None:
    vectors = features.embed(workspace.folders, Lengths(), ["a"], TEXTS[:1])
    (part,) = (workspace.folders.features / "lengths-1").iterdir()
    part.with_name("part-copy.parquet").write_bytes(part.read_bytes())
    np.testing.assert_array_equal(features.embed(workspace.folders, Lengths(), ["a"], TEXTS[:1]), vectors)


def test_no_items_give_no_rows(workspace: Workspace) -> None:
    assert features.embed(workspace.folders, Lengths(), [], []).shape == (0, 2)


def a_part(workspace: Workspace, names: Sequence[str], start: int = 0) -> Vectors:
    """Vectors (start, 0), (start + 1, 1) ... as one part."""
    rows = np.arange(len(names))
    vectors = np.stack([rows + start, rows], axis=1).astype(np.float32)
    features.write(workspace.folders, "any-1", names, vectors)
    return vectors


def test_vectors_come_back_in_the_order_of_the_keys(workspace: Workspace) -> None:
    a_part(workspace, ["d", "b"])
    a_part(workspace, ["a", "c"], start=10)

    cached = features.read(workspace.folders, "any-1", ["a", "x", "b", "c", "a", "d"])

    assert cached.known.tolist() == [True, False, True, True, True, True]
    assert cached.vectors[:, 0].tolist() == [10, 1, 11, 10, 0]
    assert features.known(workspace.folders, "any-1", ["x", "d"]).tolist() == [False, True]


def test_nothing_is_known_of_an_extractor_that_never_ran(workspace: Workspace) -> None:
    cached = features.read(workspace.folders, "none-1", ["a"])

    assert cached.known.tolist() == [False]
    assert cached.vectors.shape == (0, 0)


def test_a_merge_leaves_one_part_with_each_key_once(workspace: Workspace) -> None:
    names = [f"{i:03}" for i in range(90)]
    for start in range(0, 90, 10):
        some = names[start : start + 20]  # half of them again in the next part
        features.write(workspace.folders, "any-1", some, np.full((len(some), 3), 1.5, np.float32))

    features.merge(workspace.folders, "any-1")

    (part,) = (workspace.folders.features / "any-1").glob("*.parquet")
    assert pq.read_table(part)["key"].to_pylist() == names
    cached = features.read(workspace.folders, "any-1", names)
    assert cached.known.all()
    assert (cached.vectors == 1.5).all()


def test_a_merge_leaves_large_parts_alone(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    a_part(workspace, ["a", "b"])
    a_part(workspace, ["c", "d"])
    before = set((workspace.folders.features / "any-1").glob("*.parquet"))
    monkeypatch.setattr(features, "_PART_BYTES", next(iter(before)).stat().st_size + 1)

    features.merge(workspace.folders, "any-1")

    assert set((workspace.folders.features / "any-1").glob("*.parquet")) == before


def test_readers_and_writers_go_on_while_parts_are_merged(workspace: Workspace) -> None:
    """Every key that was written is found by every read that begins later, whatever a merge takes away meanwhile."""
    written: list[str] = []
    done = threading.Event()

    def merge() -> None:
        while not done.is_set():
            features.merge(workspace.folders, "any-1")

    with ThreadPoolExecutor() as threads:
        merging = threads.submit(merge)
        try:
            for number in range(40):
                names = [f"{number}-{i}" for i in range(5)]
                features.write(workspace.folders, "any-1", names, np.zeros((5, 2), np.float32))
                written += names
                assert features.read(workspace.folders, "any-1", written).known.all()
        finally:
            done.set()
        merging.result()


def test_what_a_key_is_about_stands_beside_it(workspace: Workspace) -> None:
    """A purge finds the windows of a medium by its content."""
    a_part(workspace, ["abc:0.5:1.5", "abd"])

    (part,) = (workspace.folders.features / "any-1").glob("*.parquet")
    assert pq.read_table(part)["content"].to_pylist() == ["abc", "abd"]
