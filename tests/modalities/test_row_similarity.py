"""Rows of any numbers can be compared: none is too large, too small or no number."""

from __future__ import annotations

import random
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.modalities import isolated_copies, row_similarity
from speciate.modalities.contract import PackedCodes
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


def test_pairs_do_not_depend_on_how_many_rows_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(3)
    rows: list[dict[str, object]] = [
        {"x": float(x), "y": float(y), "n": int(n), "kind": f"k{n % 7}", **({"z": float(x)} if n % 3 else {})}
        for x, y, n in zip(chance.normal(size=600), chance.integers(0, 40, 600), range(600), strict=True)
    ]
    copies = [{**row, "x": float(str(row["x"])) + 1e-5} for row in rows[::9]]
    codes = sorted(code for row in [*rows, *copies] if (code := sketch_row(row)) is not None)
    whole = ROWS.pairs(codes)
    assert len(whole) > 30
    for name in ("_AT_ONCE", "_QUESTION"):
        monkeypatch.setattr(isolated_copies, name, 50)
    monkeypatch.setattr(row_similarity, "_CHUNK", 64)
    assert np.array_equal(ROWS.pairs(codes), whole)
    assert np.array_equal(ROWS.pairs(PackedCodes.of(codes)), whole)


def test_packed_codes_are_a_sequence_of_bytes() -> None:
    codes = [b"ab", b"", b"c"]
    packed = PackedCodes.of(codes)
    assert list(packed) == codes == packed[:]
    assert (packed[-1], packed[1:], len(packed)) == (b"c", [b"", b"c"], 3)
    with pytest.raises(IndexError):
        packed[3]
