"""What a model of a table knows of its columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.tasks.input_ranges import FILE, ColumnRange, joined, load, ranges_of, remarks_on, save


def test_ranges_are_read_as_they_were_written_and_the_same_rows_make_the_same_file(tmp_path: Path) -> None:
    rows = [{"age": age, "town": town, "flag": age > 3} for age in (1, 2.5, 9) for town in ("b", "a", "b", "a")]
    seen = ranges_of(rows, ["age", "town", "flag", "gone"])
    save(seen, tmp_path)
    assert load(tmp_path) == seen
    assert '"values":["a","b"]' in (tmp_path / FILE).read_text()
    assert seen["gone"] == ColumnRange(empty=True)


@pytest.mark.parametrize("text", [None, "", "[]", '{"age": {"low": "x"}}', "\xff"])
def test_a_model_without_ranges_remarks_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / FILE).write_text(text)
    assert load(tmp_path) == {}
    assert remarks_on({"age": 1e9}, load(tmp_path)) == []


def test_a_column_of_texts_has_no_odd_value() -> None:
    seen = ranges_of([{"note": f"text {number}"} for number in range(400)], ["note"])
    assert remarks_on({"note": "another"}, seen) == []


def test_a_model_that_went_on_from_another_knows_both() -> None:
    before = ranges_of([{"age": 70, "town": "c"}, {"age": 60, "town": "c"}], ["age", "town"])
    now = ranges_of([{"age": 1, "town": "a"}, {"age": 5, "town": "a"}, {"age": None, "town": "a"}], ["age", "town"])
    both = joined(now, before)
    assert (both["age"].low, both["age"].high, both["age"].empty) == (1, 70, True)
    assert remarks_on({"age": 30, "town": "c"}, both) == []
    assert len(remarks_on({"age": 30, "town": "x"}, both)) == 1


@pytest.mark.parametrize(
    ("trained", "cell", "remark"),
    [
        ([1, 2, 3], "nan", "is empty, which it never was in training"),  # as the model reads it
        ([1, 2, 3], "", "is empty, which it never was in training"),
        ([1, 2, None], "nan", None),
        ([1, 2, 3], "many", None),  # the model refuses it
        ([2, 2, 2], 2.5, "was always 2 in training"),
        ([True, True], False, "was always 1 in training"),
        ([20240101, 20241231], 20300101, "is far outside of what training saw: 20240101 to 20241231"),
        (["a", "b", None] * 2, "", None),
        (["a", "b", ""] * 2, None, None),
        (["a", "b"] * 2, "", "is empty, which it never was in training"),
        (["a" * 201] * 4, "b", None),
        (["1", "2"] * 2, 1, None),
    ],
)
def test_a_remark_is_of_the_cell_as_the_model_reads_it(trained: list[Any], cell: Any, remark: str | None) -> None:
    seen = ranges_of([{"x": each} for each in trained], ["x"])
    assert remarks_on({"x": cell}, seen) == ([] if remark is None else [f"'x' {remark}."])


def test_a_name_of_anybodys_is_cut_and_without_controls() -> None:
    (remark,) = remarks_on({}, {"\x1b\u202e" + "x" * 10_000: ColumnRange(low=0, high=1)})
    assert len(remark) < 150
    assert remark.isprintable()


def test_many_odd_columns_are_told_of_in_short() -> None:
    seen = {f"x{number}": ColumnRange(low=0, high=1) for number in range(9)}
    told = remarks_on(dict.fromkeys(seen, 50), seen)
    assert (len(told), told[-1]) == (4, "Other columns are odd, too.")
