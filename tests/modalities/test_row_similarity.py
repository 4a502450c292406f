"""Rows of any numbers can be compared: none is too large, too small or no number."""

from __future__ import annotations

import random
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.modalities.row_similarity import ROWS, sketch_row

_numbers = st.one_of(st.floats(), st.integers(-(10**400), 10**400), st.sampled_from([1.7e308, -1.7e308, 5e-324, 0.0]))
_cells = st.one_of(_numbers, st.none(), st.booleans(), st.text(max_size=3))
_rows = st.lists(st.dictionaries(st.sampled_from("abcde"), _cells, max_size=5), max_size=40)


@given(_rows)
def test_any_rows_can_be_compared(rows: list[dict[str, object]]) -> None:
    codes = [code for code in map(sketch_row, rows) if code is not None]
    assert all(0 <= first < second < len(codes) for first, second in ROWS.pairs(codes).tolist())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (date(2024, 1, 1), date(2024, 1, 2)), ([1, 2], [1, 3]), (b"12", b"13"), ({"x": 1}, {"x": 2}),
        ("True", True), ("None", None), ("nan", float("nan")), (b"12", "12"), ("2024-01-01", date(2024, 1, 1)),
    ],
)  # fmt: skip
def test_rows_that_differ_in_a_cell_that_is_no_number_are_not_near(a: object, b: object) -> None:
    chance = random.Random(0)
    rows: list[dict[str, object]] = [{"x": chance.random(), "y": chance.random(), "z": a} for _ in range(50)]
    codes = [sketch_row(row) or b"" for row in [*rows, rows[3], rows[4] | {"z": b}]]
    assert ROWS.pairs(codes).tolist() == [[3, 50]]


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan")])
def test_a_missing_cell_equals_a_missing_cell(missing: object) -> None:
    assert sketch_row({"x": 1.0, "y": missing}) == sketch_row({"x": 1.0, "y": None})
