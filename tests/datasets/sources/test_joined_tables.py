"""Two tables that share a key become one, or a warning says how."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.readers.rows import REASON
from speciate.datasets.sources.joined_tables import FoundJoin, NamedTable, apart_warning, find_join, join, keys_of
from speciate.errors import SpeciateError


def named(name: str, **columns: Any) -> NamedTable:
    return NamedTable(name, pa.table(columns))


TEXTS = named(
    "texts.jsonl", id=[f"d{i}" for i in range(6)], text=[f"a longer text with the number {i}" for i in range(6)]
)


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_each_row_gets_the_row_with_its_key_whatever_the_order(order: list[int], wanted: list[int]) -> None:
    first = named("a", key=wanted, x=list(range(len(wanted))))
    second = named("b", key=[str(i) for i in order], y=[10 * i for i in order])
    joined = join(first, second, "key")
    assert joined.table["y"].to_pylist() == [10 * i for i in wanted]
    assert joined.table["x"].to_pylist() == list(range(len(wanted)))
    unused = set(range(6)) - set(wanted)
    assert [note for note in joined.notes if note.startswith(f"{len(unused)} rows of 'b'")] == list(joined.notes)
    assert bool(joined.notes) == bool(unused)


def test_rows_without_a_partner_stay_and_are_counted() -> None:
    second = named("labels.csv", id=["d0", "d1", "d9"], kind=["x", "y", "z"])
    joined = join(TEXTS, second, "id")
    assert joined.table["kind"].to_pylist() == ["x", "y", None, None, None, None]
    assert joined.notes[0].startswith("4 of 6 rows have no row in 'labels.csv' with their 'id': 'd2', 'd3'")
    assert "1 rows of 'labels.csv'" in joined.notes[1]
    assert "'d9'" in joined.notes[1]


def test_a_column_of_both_gets_another_name_unless_they_agree() -> None:
    joined = join(named("a", k=[1, 2], v=[5, 6], w=[1, 1]), named("b", k=[1.0, 2.0], v=[5, 6], w=[2, 2]), "k")
    assert joined.table.column_names == ["k", "v", "w", "user_w"]
    assert joined.renamed == {"w": "user_w"}


def test_a_key_that_names_several_rows_or_none_is_refused() -> None:
    twice = named("b", id=["d1", "d1"], kind=["x", "y"])
    with pytest.raises(SpeciateError, match="1 keys name several different rows of 'b', such as 'd1'"):
        join(TEXTS, twice, "id")
    same = named("b", id=["d1", "d1"], kind=["x", "x"])
    assert join(TEXTS, same, "id").table["kind"].to_pylist()[1] == "x"
    with pytest.raises(SpeciateError, match="has no such column; did you mean 'id'"):
        join(TEXTS, same, "idd")
    bad = NamedTable("b", pa.table({"id": ["d1", None], "kind": ["x", None], REASON: [None, "Line 2 is bad."]}))
    assert join(TEXTS, bad, "id").notes[0].startswith("1 rows of 'b' could not be read")


def test_two_files_are_joined_only_by_a_plain_key() -> None:
    labels = {"id": [f"d{i}" for i in range(6)], "kind": list("ababab")}
    assert find_join(TEXTS.table, pa.table(labels)) == FoundJoin(0, 1, "id")
    assert find_join(pa.table(labels), TEXTS.table) == FoundJoin(1, 0, "id")
    several = pa.table({"id": [f"d{i % 3 + 1}" for i in range(5)] + ["d0"], "line": list(range(6))})
    assert find_join(several, pa.table(labels)) == FoundJoin(0, 1, "id")
    for other in (
        {"id": [f"e{i}" for i in range(6)], "kind": list("ababab")},
        {"id": [f"d{i % 3}" for i in range(6)], "kind": list("ababab")} | {"text": ["x"] * 6},
        {"id": [None, "d1", "d2", "d3", "d4", "d5"], "kind": list("ababab")},
        {"text": TEXTS.table["text"].to_pylist(), **labels},
        {"id": ["d0", "d1"], "kind": ["a", "b"]},
    ):
        assert find_join(TEXTS.table, pa.table(other)) is None


def test_files_that_stay_apart_come_with_the_call_that_joins_them(tmp_path: Path) -> None:
    labels = named("more/labels.csv", id=["d1"], kind=["a"])
    said = apart_warning([labels, TEXTS], tmp_path)
    assert f"source='{tmp_path}/texts.jsonl' and labels={{'path': '{tmp_path}/more/labels.csv', 'key': 'id'}}" in said
    assert "unpack the files" in apart_warning([labels, TEXTS], tmp_path / "set.zip")
    assert "'key': a column that both have" in apart_warning([named("b", x=[1]), TEXTS], tmp_path)
    train, test = named("train.csv", id=[1], text=["x"], label=["a"]), named("test.csv", id=[2], text=["y"])
    assert (
        apart_warning([train, test], tmp_path) == apart_warning([TEXTS], tmp_path) == apart_warning([], tmp_path) == ""
    )


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("text", [False, True])
def test_unrelated_tables_are_not_joined_by_the_numbers_of_their_rows(tmp_path: Path, start: int, text: bool) -> None:
    numbers = list(range(start, start + 8))
    people = named("people.csv", id=[str(each) if text else each for each in numbers], age=[30 + i for i in range(8)])
    towns = named("towns.csv", id=[*numbers[::-1], start + 8], town=[f"town {i}" for i in range(9)])
    assert find_join(people.table, towns.table) is find_join(towns.table, people.table) is None
    assert "'key': 'id'" in apart_warning([people, towns], tmp_path), "it says how to ask"
    assert join(people, towns, "id").table["town"].to_pylist()[0] == "town 7"
    visits = pa.table({"id": [start, start, *numbers[1:]], "visit": list(range(9))})
    assert find_join(visits, towns.table) == FoundJoin(0, 1, "id"), "numbers that refer to rows"
    code = [f"c{i}" for i in range(8)]
    both = pa.table({"Unnamed: 0": numbers, "code": code, "x": numbers})
    other = pa.table({"Unnamed: 0": numbers, "code": code, "y": numbers})
    assert find_join(both, other) == FoundJoin(0, 1, "code")


def test_equal_rows_with_missing_numbers_count_once() -> None:
    nan = float("nan")
    second = named("b", id=["d1", "d1"], v=[nan, nan], w=[[1.0, nan], [1.0, nan]])
    assert join(TEXTS, second, "id").table["v"].null_count == 5
    with pytest.raises(SpeciateError, match="several different rows"):
        join(TEXTS, named("b", id=["d1", "d1"], v=[nan, 1.0]), "id")


@pytest.mark.parametrize(("kind", "first"), [(pa.float64(), 2**53), (pa.float32(), 2**24)])
def test_numbers_that_stand_for_several_whole_ones_are_no_keys(kind: pa.DataType, first: int) -> None:
    good = pa.table({"k": pa.array([1 - first, None, first - 1, float("inf"), float("nan")], kind)})
    assert keys_of(good["k"]) == [str(1 - first), None, str(first - 1), "inf", None]
    for key in (first, -first):
        large = NamedTable("a", pa.table({"k": pa.array([1, key], kind), "x": [1, 2]}))
        with pytest.raises(
            SpeciateError, match=rf"1 keys are floating-point numbers of {first:,} or more, such as"
        ) as it:
            join(large, named("b", k=[1, key + 1], y=[1, 2]), "k")
        assert "int64" in str(it.value.advice)


def test_decimals_are_keys_as_numbers_are_and_texts_as_they_are_written() -> None:
    cells = [Decimal("1.00"), Decimal("1.50"), Decimal("-12345678901234567890.000"), Decimal("100"), None]
    assert keys_of(pa.chunked_array([cells])) == ["1", "1.5", "-12345678901234567890", "100", None]
    assert keys_of(pa.chunked_array([["1.0", " 1 "]])) == ["1.0", "1"]
