"""Columns are written at once to the very bytes that Python writes row by row: the ids of versions hang on them."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import math
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets import row_json
from speciate.datasets.columns import PROVENANCE
from speciate.datasets.content_hash import lanes, row_digests, version_id
from speciate.datasets.row_json import canonical_rows
from tests.datasets.drawn_tables import tables
from tests.drawn import drawn

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def by_row(table: pa.Table) -> list[str]:
    """The definition: JSON of the filled cells of each row, sorted by name; 1.0 in a column of fractions is 1."""
    found = []
    for row in table.select(sorted(table.column_names)).to_pylist():
        filled = {name: cell for name, cell in row.items() if cell is not None}
        for name, cell in filled.items():
            if pa.types.is_floating(table.schema.field(name).type) and cell.is_integer():
                filled[name] = int(cell)
        found.append(_encode(filled))
    return found


def float_of_bits(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


fractions = st.one_of(
    st.floats(width=64),
    st.integers(0, 2**64 - 1).map(float_of_bits),
    st.integers(-(2**54), 2**54).map(float),
    st.decimals(-(10**16), 10**16, places=3).map(float),
    st.sampled_from([0.0, -0.0, 1e15, 1e16, 1e-4, 9.999e-5, 1e22, 5e-324, 2.0**53, 0.1, math.nan, math.inf, -math.inf]),
)
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\x00\x1f\n\t\x7f\u2028{},:'), max_size=8)
kinds: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), texts),
    (pa.large_string(), texts),
    (pa.dictionary(pa.int32(), pa.string()), texts),
    (pa.float64(), fractions),
    (pa.float32(), st.floats(width=32)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.bool_(), st.booleans()),
    (pa.binary(), st.binary(max_size=4)),
    (pa.list_(pa.float64()), st.lists(fractions | st.none(), max_size=3)),
    (pa.struct([("a", pa.string()), ("b", pa.int64())]), st.fixed_dictionaries({"a": texts, "b": st.integers(0, 9)})),
    (pa.timestamp("us"), st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))),
    (pa.date32(), st.dates()),
    (pa.decimal128(9, 3), st.decimals(-1000, 1000, places=3)),
    (pa.null(), st.none()),
]


@settings(deadline=None, max_examples=drawn(400, 60))
@given(tables(kinds=kinds, names=texts, most=12))
def test_the_bytes_are_those_of_one_row_after_another(table: pa.Table) -> None:
    assert canonical_rows(table).to_pylist() == by_row(table)
    expected = [hashlib.sha256(row.encode()).digest() for row in by_row(table)]
    assert list(row_digests(table)) == expected


def test_any_fraction_is_written_as_python_writes_it() -> None:
    chance = np.random.default_rng(0)
    drawn_bits = chance.integers(0, 2**64, 20_000, np.uint64).view(np.float64)
    short = (chance.normal(size=20_000) * 10.0 ** chance.integers(-6, 18, 20_000)).round(3)
    edges = [edge * (1 + step * 2.0**-52) for edge in (1e-5, 1e-4, 1.0, 1e15, 1e16, 2.0**53) for step in range(-9, 9)]
    table = pa.table({"x": np.concatenate([drawn_bits, short, edges])})
    assert canonical_rows(table).to_pylist() == by_row(table)


def test_provenance_is_no_content_and_the_batches_of_long_texts_are_small() -> None:
    long = pa.table({"text": ["x" * 9_000_000, "y", 'z"' * 5_000_000, "w"], "id": list("abcd"), "_key": list("abcd")})
    assert {"id", "_key"} <= set(PROVENANCE)
    assert list(row_digests(long)) == [hashlib.sha256(row.encode()).digest() for row in by_row(long.select(["text"]))]
    assert list(row_digests(long.select(["id"]))) == []


@pytest.mark.parametrize("rows", [1, 3])
def test_ids_of_before_stay(rows: int) -> None:
    """Made by the release before rows were written by columns."""
    table = pa.table(
        {
            "id": ["ex-1", "ex-2", "ex-3"],
            "label": ["cat", None, 'a "b"\n'],
            "value": [1.0, -0.0, 1e-7],
            "when": [datetime.date(2026, 1, 2), None, None],
            "price": [decimal.Decimal("1.50"), None, decimal.Decimal("2.00")],
            "list": [[1.0, 2.5], None, []],
        }
    )
    expected = {
        1: "7691cb6601c6b62f8ab23776a40e5bfbafd00c2b09da4253a2fc43211dd09b96",
        3: "be6c482c70459e441372937790cc79ad41f573a1165b8dd83e8d74254c0703aa",
    }
    assert version_id(lanes(row_digests(table.slice(0, rows)), 1)) == expected[rows]


def test_where_arrow_writes_fractions_otherwise_python_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_json, "_arrow_writes_alike", lambda: False)
    table = pa.table({"x": [0.1, None, 2.0, 1e-9, math.nan, 12345.678]})
    assert canonical_rows(table).to_pylist() == by_row(table)
