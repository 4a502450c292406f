from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from speciate import features
from speciate.models.encoders import Vectors
from speciate.workspace.workspace import Workspace


class Lengths:
    """An encoder of texts to (length, number of words), in batches of two, that counts what it is asked."""

    id, width, parameters, precision = "lengths-1", 2, 0, "float32"

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


def test_each_run_writes_one_part_and_none_where_all_is_known(workspace: Workspace) -> None:
    for _ in range(2):
        features.embed(workspace.folders, Lengths(), ["a", "b", "c"], TEXTS)
    assert len(list((workspace.folders.features / "lengths-1").iterdir())) == 1


def test_an_item_that_occurs_twice_is_computed_once(workspace: Workspace) -> None:
    encoder = Lengths()
    vectors = features.embed(workspace.folders, encoder, ["a", "a"], [TEXTS[0]] * 2)
    assert vectors.shape == (2, 2)
    assert encoder.asked == TEXTS[:1]


def test_a_run_that_is_stopped_keeps_what_it_computed(workspace: Workspace) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.embed(workspace.folders, Lengths(), ["a", "b", "c"], TEXTS, stop)
    encoder = Lengths()
    features.embed(workspace.folders, encoder, ["a", "b", "c"], TEXTS)
    assert encoder.asked == TEXTS[2:]


def test_duplicate_parts_are_harmless(workspace: Workspace) -> None:
    vectors = features.embed(workspace.folders, Lengths(), ["a"], TEXTS[:1])
    (part,) = (workspace.folders.features / "lengths-1").iterdir()
    part.with_name("part-copy.parquet").write_bytes(part.read_bytes())
    np.testing.assert_array_equal(features.embed(workspace.folders, Lengths(), ["a"], TEXTS[:1]), vectors)


def test_no_items_give_no_rows(workspace: Workspace) -> None:
    assert features.embed(workspace.folders, Lengths(), [], []).shape == (0, 2)
