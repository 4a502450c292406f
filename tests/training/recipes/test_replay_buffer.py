"""What is drawn to be replayed: fair to labels, the same each time, and more of it holds what less of it held."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from speciate.training.recipes.replay_buffer import BUFFER_SUFFIX, buffer_name, choose_places, shares

LABELS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=40)


@given(LABELS, st.integers(0, 50), st.integers(0, 3))
def test_a_draw_takes_as_many_as_there_are_and_of_each_label_as_many_as_of_others(
    labels: list[str], size: int, seed: int
) -> None:
    keys = [f"row-{place}" for place in range(len(labels))]
    drawn = choose_places(keys, labels, size, seed)
    assert drawn == choose_places(keys, labels, size, seed) == sorted(set(drawn))
    assert len(drawn) == min(size, len(labels))
    taken, there = Counter(labels[place] for place in drawn), Counter(labels)
    short = [taken[label] for label in there if taken[label] < there[label]]
    assert max(taken.values(), default=0) <= min(short, default=len(labels)) + 1


@given(LABELS, st.integers(0, 40), st.integers(0, 3))
def test_a_larger_buffer_holds_the_smaller_one(labels: list[str], size: int, seed: int) -> None:
    keys = [f"row-{place}" for place in range(len(labels))]
    assert set(choose_places(keys, labels, size, seed)) <= set(choose_places(keys, labels, size + 1, seed))


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=30, unique=True), st.integers(0, 3))
def test_an_example_has_its_place_whatever_else_there_is(numbers: list[int], seed: int) -> None:
    keys = [f"row-{number}" for number in numbers]
    drawn = {keys[place] for place in choose_places(keys, [""] * len(keys), len(keys) // 2, seed)}
    fewer = [key for key in keys if key in drawn or key == keys[0]]
    assert drawn == {fewer[place] for place in choose_places(fewer, [""] * len(fewer), len(drawn), seed)}


def test_what_rare_labels_lack_goes_to_the_others() -> None:
    assert shares({"a": 2, "b": 50, "c": 50}, 20) == {"a": 2, "b": 9, "c": 9}


def test_the_name_of_a_buffer_fits() -> None:
    assert buffer_name("net") == f"net{BUFFER_SUFFIX}"
    assert len(buffer_name("n" * 64)) == 64
