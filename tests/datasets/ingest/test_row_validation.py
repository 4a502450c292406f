"""Rows of a table get the same verdicts at once as one after another: ids, splits and versions hang on each of them."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from speciate.datasets.columns import class_name
from speciate.datasets.identity import sha256
from speciate.datasets.ingest import row_validation
from speciate.datasets.ingest.row_validation import VERDICTS, row_verdicts, tabular_verdicts
from speciate.datasets.roles import LabelColumn, label_array, label_column, mapped
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.drawn_tables import tables
from tests.drawn import drawn

texts = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("'\"\\\x00\x1f\n\t\x7f\x80\u2028{},:= é\U0001f600"),
    max_size=8,
) | st.sampled_from(["None", "nan", "True", "1", "x=None"])
floats = st.one_of(
    st.floats(), st.integers(-(2**54), 2**54).map(float),
    st.sampled_from([0.0, -0.0, 1e16, 1e22, 1e300, 5e-324, 1e-5, 0.1, math.nan, math.inf, -math.inf]),
)  # fmt: skip
plain: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), texts),
    (pa.large_string(), texts),
    (pa.float64(), floats),
    (pa.float32(), st.floats(width=32)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int8(), st.integers(-3, 3)),
    (pa.bool_(), st.booleans()),
    (pa.null(), st.none()),
]
others: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.float16(), st.floats(width=16)),
    (pa.list_(pa.float64()), st.lists(floats | st.none(), max_size=3)),
    (pa.list_(pa.string()), st.lists(texts, max_size=2)),
    (pa.struct([("a", pa.string()), ("b", pa.float64())]), st.fixed_dictionaries({"a": texts, "b": floats})),
    (pa.date32(), st.dates()),
    (pa.timestamp("us"), st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))),
    (pa.decimal128(9, 3), st.decimals(-1000, 1000, places=3)),
    (pa.binary(), st.binary(max_size=4)),
    (pa.dictionary(pa.int32(), pa.string()), texts),
]


def key_of(row: dict[str, Any], kinds: pa.Schema) -> str:
    """The definition: sha256 of the filled cells as texts, sorted by name."""

    def text(cell: Any) -> Any:
        if isinstance(cell, list):
            return [text(item) for item in cell]
        return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)

    empty = {name for name, cell in row.items() if cell in (None, "") or (isinstance(cell, float) and math.isnan(cell))}
    pairs = [(name, text(row[name])) for name in sorted(row) if name not in empty]
    return sha256(repr(pairs))


@settings(deadline=None, max_examples=drawn(400, 80))
@given(tables(kinds=plain, names=texts, most=10), st.data())
def test_rows_of_numbers_and_texts_get_the_verdicts_of_one_after_another(table: pa.Table, data: st.DataObject) -> None:
    inputs = data.draw(st.permutations(table.column_names))[: data.draw(st.integers(1, table.num_columns))]
    assert tabular_verdicts(table.select(inputs)) is not None
    found = row_verdicts(table, "tabular", inputs)
    expected = row_validation._verdicts_one_by_one(table, "tabular", inputs)
    for name, column in expected.items():
        assert found[name].to_pylist() == list(column), name
    assert found["key"].to_pylist() == [key_of(row, table.schema) for row in table.to_pylist()]
    assert found.schema == VERDICTS


@settings(deadline=None, max_examples=drawn(200, 50))
@given(tables(kinds=[*plain, *others], names=texts, most=10))
def test_keys_of_rows_of_any_cells_are_those_of_one_after_another(table: pa.Table) -> None:
    assert row_verdicts(table, "tabular", table.column_names)["key"].to_pylist() == [
        key_of(row, table.schema) for row in table.to_pylist()
    ]


@pytest.mark.parametrize("count", [256, 257, 300])
def test_rows_of_many_numbers_get_the_same_verdicts(count: int) -> None:
    table = pa.table({f"x{place:03}": [place / 7, None, float(place), math.inf if place == 5 else 1.0]
                      for place in range(count)} | {"t": list("abcd")})  # fmt: skip
    expected = row_validation._verdicts_one_by_one(table, "tabular", table.column_names)
    found = row_verdicts(table, "tabular", table.column_names)
    assert {name: found[name].to_pylist() for name in expected} == {name: list(each) for name, each in expected.items()}


def test_a_cell_that_is_neither_number_nor_text_is_looked_at_alone() -> None:
    table = pa.table({"x": [1.0, 2.0], "when": [datetime.date(2026, 1, 2), None]})
    assert tabular_verdicts(table) is None
    assert row_verdicts(table, "tabular", ["x", "when"])["quality"].to_pylist() == ["error", "ok"]
    assert tabular_verdicts(pa.table({"x": pa.array([decimal.Decimal("1.5")])})) is None


labels = [*plain, *[kind for kind in others if not pa.types.is_dictionary(kind[0])]]


@settings(deadline=None, max_examples=drawn(300, 60))
@given(tables(kinds=labels, names=texts, most=10))
@example(pa.table({"a": [float(n % 51) for n in range(60)]}))
@example(pa.table({"a": [n % 50 for n in range(60)]}))
@example(pa.table({"a": [-0.0, 0.0, *map(float, range(50))]}))
def test_labels_of_a_column_are_those_of_one_after_another(table: pa.Table) -> None:
    for column in table.columns:
        cells = column.to_pylist()
        found, expected = label_array(column), label_column(cells)
        assert LabelColumn(found.values.to_pylist(), found.numeric) == expected
        assert found.infinite.tolist() == [isinstance(cell, float) and math.isinf(cell) for cell in cells]
        if expected.numeric:  # classes, as a dataset with classes takes them
            named = mapped(found.values, lambda value: class_name(value) or None).to_pylist()
            assert named == [None if value is None else class_name(value) for value in expected.values]


def test_versions_of_before_keep_their_ids(workspace: Workspace, tmp_path: Path) -> None:
    """Made by the release before rows were validated, split and numbered by columns."""
    chance = random.Random(1)

    def row(number: int) -> dict[str, Any]:
        return {
            "a": chance.choice([chance.random(), float(chance.randint(0, 9)), None]),
            "n": chance.choice([2**53 + number, -number, 2**62]),
            "t": chance.choice(["é\u2028x", "it's", 'say "x"', "", None, f"w{number}"]),
            "f": chance.choice([True, False, None]),
            "city": f"c{number % 7}",
            "label": chance.choice(["x", "y", "z", None]),
            "tags": [number, None],
            "d": {"k": number},
        }

    rows = [row(number) for number in range(400)]
    rows += [*rows[:50], *({**one, "label": "q"} for one in rows[:30]), *({**one, "a": 0.5} for one in rows[50:60])]
    more = [*(row(number) for number in range(1000, 1100)), *rows[:40], *({**one, "label": "q"} for one in rows[90:99])]
    more += [{**rows[5], "city": "new"}] * 3
    for name, some in (("first", rows), ("more", more)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
    first = data.ingest(workspace, "set", source=tmp_path / "first.jsonl", label="label")
    grouped = data.ingest(workspace, "grouped", source=tmp_path / "first.jsonl", label="label", group_by="city")
    second = data.ingest(workspace, "set", source=tmp_path / "more.jsonl", add=True)
    numbers = data.ingest(workspace, "numbers", source=tmp_path / "first.jsonl", label="a")
    assert [each.id[:12] for each in (first, grouped, second, numbers)] == [
        "98f0eb343710",
        "a925d2c52282",
        "e710254eaaef",
        "c910bc1c43c0",
    ]
