"""Rows of any numbers can be compared: none is too large, too small or no number."""

from __future__ import annotations

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
