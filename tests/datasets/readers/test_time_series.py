"""Series in wide and long tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.readers.delimited import read_csv
from speciate.datasets.readers.formats import Reader, parse_reader
from speciate.datasets.readers.rows import REASON
from speciate.datasets.readers.time_series import reshape_series
from speciate.errors import SpeciateError


def series(table: pa.Table, reader: str = "auto", modality: str = "time-series") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = reshape_series(table, parse_reader(reader), modality, Path("a.csv")).to_pylist()
    return found


LONG = pa.table({
    "recording": ["b", "a", "b", "a", "a"],
    "time": [2, 3, 1, 1, 2],
    "x": [12.0, 3.0, 11.0, 1.0, None],
    "y": [2, 3, 1, 1, 2],
    "age": [30, 40, 30, 40, 40],
    "activity": ["run", "sit", "run", "sit", "sit"],
    "remark": ["q", "r", "p", "s", "t"],
})  # fmt: skip


@pytest.mark.parametrize("reader", ["auto", "long", "long:recording,time"])
def test_long_form_is_sorted_and_what_is_constant_is_kept(reader: str) -> None:
    found = series(LONG, reader)
    assert [row["recording"] for row in found] == ["a", "b"]
    assert [row["activity"] for row in found] == ["sit", "run"]
    assert [row["age"] for row in found] == [40, 30]
    assert str(found[0]["series"]) == "[[1.0, nan, 3.0], [1.0, 2.0, 3.0]]"
    assert found[1]["series"] == [[11, 12], [1, 2]]
    assert found[0]["remark"] == ["s", "t", "r"]


@given(st.permutations(range(LONG.num_rows)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    assert str(series(LONG.take(pa.array(order)))) == str(series(LONG))


def test_a_table_about_something_else_is_left_alone() -> None:
    assert series(LONG, "auto", "auto") == LONG.to_pylist()


def test_rows_without_id_or_time_and_bad_rows_stay_with_their_reason() -> None:
    table = LONG.append_column(REASON, pa.array(["broken", None, None, None, None], pa.string()))
    table = table.set_column(1, "time", pa.array([2, None, 1, 1, 2]))
    found = series(table, "long:recording,time")
    assert [row["recording"] for row in found] == ["a", "b", None, None]
    assert [row[REASON] for row in found][2:] == ["'a.csv' has no 'recording' or 'time' in a row.", "broken"]


@pytest.mark.parametrize("kinds", [["u", "v"], [7, 8]])
def test_a_series_whose_label_changes_stays_with_a_reason_and_the_others_keep_theirs(kinds: list[Any]) -> None:
    kind = [kinds[int(i // 4 == 1)] for i in range(12)]
    kind[5], kind[10] = kinds[0], None  # one cell of the second series deviates, one of the third says nothing
    table = pa.table({"who": [i // 4 for i in range(12)], "t": [i % 4 for i in range(12)], "kind": kind})
    table = table.append_column("x", pa.array([float(i) for i in range(12)]))
    found = reshape_series(table, parse_reader("long:who,t"), "auto", Path("a.csv"), "kind").to_pylist()
    assert [row["kind"] for row in found] == [kinds[0], None, kinds[0]]
    assert [row[REASON] for row in found] == [None, "Its label 'kind' changes within the series.", None]
    assert [row["series"][0] for row in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_time_that_comes_twice_in_a_series_is_no_further_step() -> None:
    table = pa.table({"who": ["a", "a", "b", "b"], "t": [1, 1, 1, 2], "x": [1.0, 2.0, 3.0, 4.0]})
    assert [row[REASON] for row in series(table, "long:who,t")] == ["Its 't' has a value twice.", None]


def test_wide_form_keeps_what_is_no_step() -> None:
    table = pa.table({"id": [1, 2], "t0": [0.0, 1.0], "t1": [2, None], "t2": [3, 4], "name": ["p", "q"], "y": [0, 1]})
    found = series(table)
    assert [(row["id"], row["name"], row["label"]) for row in found] == [(1, "p", 0), (2, "q", 1)]
    assert str([row["series"] for row in found]) == "[[[0.0, 2.0, 3.0]], [[1.0, nan, 4.0]]]"


def test_wide_form_without_a_header_has_its_class_first(tmp_path: Path) -> None:
    path = tmp_path / "X_TRAIN.csv"
    path.write_text("1,0.5,0.25,0.1\n2,0.5,0.5,0.5\n1,0.1,0.2,0.3\n2,0.3,0.2,0.1\n")
    found = series(read_csv(path, ()))
    assert [row["label"] for row in found] == [1, 2, 1, 2]
    assert found[0]["series"] == [[0.5, 0.25, 0.1]]


def test_many_steps(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [",".join([*(f"t{i}" for i in range(30_000)), "label"])]
    lines += [",".join([*(str(i % 7) for i in range(30_000)), kind]) for kind in ("a", "b")]
    path.write_text("\n".join(lines))
    found = reshape_series(read_csv(path, ()), Reader(layout="wide"), "auto", path)
    assert found.column_names == ["label", "series"]
    assert len(found["series"][1].as_py()[0]) == 30_000


def test_lists_in_several_columns_are_channels() -> None:
    table = pa.table({"x": [[1.0, 2.0], [3.0]], "y": [[4.0, 5.0], [6.0]], "label": ["a", "b"]})
    assert series(table) == [
        {"label": "a", "series": [[1, 2], [4, 5]], "channel_names": "x, y"},
        {"label": "b", "series": [[3], [6]], "channel_names": "x, y"},
    ]


def test_named_lists_are_the_channels_in_their_order_and_the_others_stay() -> None:
    table = pa.table({"x": [[1.0, 2.0]], "y": [[4.0, 5.0]], "z": [[7.0, 8.0]], "label": ["a"]})

    def shaped(*channels: str) -> list[Any]:
        return reshape_series(table, Reader(), "time-series", Path("t"), None, channels).to_pylist()

    assert shaped("z", "x") == [{"y": [4, 5], "label": "a", "series": [[7, 8], [1, 2]], "channel_names": "z, x"}]
    assert shaped("y") == table.to_pylist() == shaped("x", "typo")
    assert shaped("series") == [{"label": "a", "series": [[1, 2], [4, 5], [7, 8]], "channel_names": "x, y, z"}]


@pytest.mark.parametrize(
    ("table", "reader", "why"),
    [
        (LONG, "long:recording,when", "no column 'when'"),
        (LONG.select(["x", "age"]), "long", "no two columns are clearly"),
        (LONG.select(["recording", "time", "age"]), "long", "no numeric column changes"),
        (LONG.select(["x", "remark"]), "wide", "1 numeric columns"),
    ],
)
def test_a_layout_that_does_not_fit_is_one_clear_error(table: pa.Table, reader: str, why: str) -> None:
    with pytest.raises(SpeciateError, match=why) as raised:
        series(table, reader)
    assert "reader=" in raised.value.recovery


@pytest.mark.parametrize("text", ["auto", "csv", "wide", "long", "long:id,t", "files", "csv+long", "parquet+wide"])
def test_a_reader_reads_back(text: str) -> None:
    assert str(parse_reader(text)) == text


@pytest.mark.parametrize("text", ["excel", "long:id", "wide:a,b", "csv+json", "csv+files", "+", "", "long:,"])
def test_a_reader_that_is_none_says_which_there_are(text: str) -> None:
    with pytest.raises(SpeciateError, match="There is no reader"):
        parse_reader(text)
