"""Texts that are written freely, beside their truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation.metrics import contributions, judged
from speciate.evaluation.metrics.generation import last_number
from speciate.vocabulary import find_metric


def scores(name: str, truth: list[str], said: list[str | None]) -> np.ndarray:
    return contributions(find_metric(name), judged("generation", truth, said, [None] * len(truth), ()))


def test_white_space_is_no_difference_and_all_else_is() -> None:
    got = scores("exact_match", ["two words"] * 5, [" two\n words", "Two words", "two words.", "", None])
    assert got.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 42", 42), ("It is 1,234.50 in all.", 1234.5), ("from 10-20", 20), ("it is -3", -3), ("x=-3.", -3),
        ("(-3)", -3), ("f(2)-3", 3), ("1e-3", 0.001), ("12,34", 34), ("7 of 9 apples", 9), ("v2", 2), ("none", None),
        ("", None), ("١", None),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    assert last_number(text) == number


@given(st.floats(-1e12, 1e12), st.sampled_from(["{}", "so {}.", "1 + 1 = {}", "**{}** apples", "${}"]))
def test_a_number_is_found_however_it_is_wrapped(number: float, text: str) -> None:
    assert last_number(text.format(repr(number))) == pytest.approx(number)
    assert last_number(text.format(f"{number:,.3f}")) == pytest.approx(number, abs=6e-4)


def test_numbers_match_in_other_notations_and_a_truth_without_one_is_not_counted() -> None:
    got = scores("numeric_match", ["#### 1200", "5", "5", "5", "yes"], ["so 1,200.0", "6", "none", None, "5"])
    assert got.tolist()[:4] == [1, 0, 0, 0]
    assert math.isnan(got[4])
