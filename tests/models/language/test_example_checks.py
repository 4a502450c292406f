"""Checks of training examples: truncation, one answer for all, duplicates, leaks."""

from __future__ import annotations

import pytest

from speciate.models.language import example_checks

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen"


def test_truncated_examples_are_counted_with_a_sufficient_length() -> None:
    found = example_checks.truncation([10] * 90 + [50] * 10, [1] * 95 + [0] * 5, 20)
    assert (found.cut, found.lost, found.enough, found.hopeless) == (10, 5, 50, False)
    assert example_checks.truncation([50] * 10, [0] * 6 + [1] * 4, 20).hopeless


@pytest.mark.parametrize(
    ("answers", "found"),
    [(["a"] * 10 + ["b"] * 10, ("a", 0.5)), (["A "] * 15 + list("bcdef"), ("a", 0.75)), (["a"] * 19, None),
     ([str(at) for at in range(40)], None)],
)  # fmt: skip
def test_an_answer_for_half_of_many_examples_is_found(answers: list[str], found: object) -> None:
    assert example_checks.most_common_answer(answers) == found


def test_pairs_that_repeat_are_counted_once_each() -> None:
    assert example_checks.count_duplicates([("a", "b"), ("A", " b"), ("a", "c")]) == 1


@pytest.mark.parametrize(
    ("held_out", "places"),
    [
        (["what  IS this"], [0]),
        (["what is that"], []),
        (["new", f"he said: {LONG}, and left"], [1]),
        ([LONG.rpartition(" ")[0]], []),  # twelve words are shared by chance
    ],
)
def test_leaked_held_out_texts_are_found(held_out: list[str], places: list[int]) -> None:
    assert example_checks.find_leaks(["what is this", f"it began with {LONG} words"], held_out) == places
