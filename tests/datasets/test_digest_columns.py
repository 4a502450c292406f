"""Digests are made, written and compared as whole columns."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets import digest_columns
from speciate.datasets.digest_columns import first_bits, hexadecimal, repeated, sha256_of


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.integers(0, 3))
def test_digests_are_those_of_each_text(texts: list[str], start: int) -> None:
    column = pa.array(texts, pa.large_string())[start:]
    expected = [hashlib.sha256(text.encode()).hexdigest() for text in texts[start:]]
    assert hexadecimal(sha256_of(column)).to_pylist() == expected


@given(st.lists(st.integers(0, 5)), st.integers(0, 4))
def test_the_first_bits_are_those_of_the_digest(numbers: list[int], cut: int) -> None:
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in numbers]
    column = pa.chunked_array([pa.array(digests[:cut], pa.string()), pa.array(["x", *digests[cut:]], pa.string())[1:]])
    found = first_bits(column)
    assert found is not None
    assert found.tolist() == [int(digest[:16], 16) for digest in digests]
    places = repeated(column)
    assert places.tolist() == [place for place, number in enumerate(numbers) if numbers.count(number) > 1]


@pytest.mark.parametrize(
    "odd", [None, "", "a" * 63, "a" * 65, "g" + "0" * 63, "0" * 62 + "é", " " + "0" * 63]
)  # fmt: skip
def test_what_is_no_digest_may_equal_anything(odd: str | None) -> None:
    column = pa.chunked_array([["0" * 64, odd, odd]], pa.string())
    assert first_bits(column) is None
    assert set(repeated(column).tolist()) >= ({1, 2} if odd is not None else set())
    assert digest_columns.codes(column).tolist() == [0, *([1, 1] if odd is not None else [-1, -1])]


def test_digests_that_share_their_first_bits_are_told_apart() -> None:
    column = pa.chunked_array([["0" * 64, "0" * 63 + "1", "1" * 64, "0" * 64]])
    places = repeated(column)
    assert places.tolist() == [0, 1, 3]
    assert np.array_equal(digest_columns.codes(column.take(pa.array(places))), [0, 1, 0])
