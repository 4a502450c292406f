"""The texts of rows that digests are taken of, made column by column.

They are canonical JSON, JSON as `json.dumps` writes it, and pairs of columns and cells as `repr` writes them. The bytes
of a row are those that Python gives for its cells in the order of their names. The ids of versions and rows hang on
each of them, so they never change. What Arrow writes alike it writes for a whole column at once: texts, whole numbers,
fractions, booleans. Python writes all other cells.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
_dump = json.JSONEncoder(sort_keys=True, default=str).encode
_TEXT = pa.large_string()  # a batch may hold more than 2 GiB
_COMMA, _BACKSLASH, _BRACE, _FIRST_PRINTED = b",\\{ "
_EXACT = 2.0**53
"""Whole numbers below it are exact as float64, and fractions from it on there are none."""
_LEAST, _MOST = 1e-3, 1e9
"""Bounds between which Arrow writes a fraction as Python does, as its shortest decimal without an exponent. Arrow
promises nothing of the kind: `_arrow_writes_alike` asks."""


class _Writing(NamedTuple):
    """How cells are written."""

    quote: str
    odd: str
    """A pattern that finds the texts that are not written as they are."""
    greatest: int
    """The greatest byte of those that are."""
    text: Callable[[str], str]
    number: Callable[[int | float], str]


_CANONICAL = _Writing('"', r'["\\\x00-\x1f]', 0xFF, _encode, _encode)
_ASCII = _Writing('"', r'["\\]|[^ -~]', 0x7E, _dump, _dump)
_REPR = _Writing("'", r"['\\]|[^ -~]", 0x7E, repr, str)


class _Cells(NamedTuple):
    cells: pa.LargeStringArray
    """Cells of a column as they are written, without `quote`."""
    quote: str = ""


def canonical_rows(batch: pa.RecordBatch | pa.Table) -> pa.LargeStringArray:
    """(N,) the JSON of each row. Empty cells are left out, and a whole number is the same in any numeric column."""
    pieces, begun = list[Any](), ""
    for name in sorted(batch.column_names):
        cells = _column(batch, name)
        if cells.null_count == len(cells):
            continue
        field = _field(cells)
        before, after = f",{_encode(name)}:{field.quote}", field.quote
        if cells.null_count:  # with an empty cell all of its field is left out
            pieces += [_scalar(begun), _between(before, field.cells, after)]
            begun = ""
        else:
            pieces += [_scalar(begun + before), field.cells]
            begun = after
    pieces.append(_scalar(begun + "}"))
    if len(pieces) == 1:
        return pa.array(["{}"] * batch.num_rows, _TEXT)
    rows = _joined(pieces)
    _, offsets, data = rows.buffers()
    starts, written = np.frombuffer(offsets, np.int64)[: len(rows)], np.frombuffer(data, np.uint8).copy()
    if (written[starts] != _COMMA).any():  # a row without any cell
        return pa.array(["{" + row.removeprefix(",") for row in rows.to_pylist()], _TEXT)
    written[starts] = _BRACE
    return pa.LargeStringArray.from_buffers(len(rows), offsets, pa.py_buffer(written))


def is_plain(kind: pa.DataType) -> bool:
    """Whether `object_rows` writes columns of this type."""
    return bool(_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_fraction(kind)
                or pa.types.is_null(kind))  # fmt: skip


def object_rows(table: pa.Table) -> pa.LargeStringArray:
    """(N,) what `json.dumps(row, sort_keys=True)` writes of each row; a whole number is the same in any numeric column.
    All columns are plain."""
    pieces, begun = list[Any](), "{"
    for name in sorted(table.column_names):
        cells, key = _column(table, name), f"{_dump(name)}: "
        if cells.null_count == len(cells):
            begun += f"{key}null, "
            continue
        field = _field(cells, _ASCII)
        if cells.null_count:
            written = _between(field.quote, field.cells, field.quote) if field.quote else field.cells
            pieces += [_scalar(begun + key), pc.fill_null(written, "null")]
            begun = ", "
        else:
            pieces += [_scalar(begun + key + field.quote), field.cells]
            begun = f"{field.quote}, "
    last = _scalar(begun.removesuffix(", ") + "}")
    if not pieces:
        return pa.array([last.as_py()] * table.num_rows, _TEXT)
    return _joined([*pieces, last])


def pair_rows(table: pa.Table) -> pa.LargeStringArray:
    """(N,) what `repr` writes of each row as a list of pairs, a column's name and its cell as text. Empty cells, empty
    texts and NaN are left out, and a whole number is the same in any numeric column."""
    pieces, begun = list[Any](), ""
    for name in sorted(table.column_names):
        field = _pair_field(_column(table, name))
        if field.cells.null_count == len(field.cells):
            continue
        before, after = f", ({name!r}, {field.quote}", f"{field.quote})"
        if field.cells.null_count:
            pieces += [_scalar(begun), _between(before, field.cells, after)]
            begun = ""
        else:
            pieces += [_scalar(begun + before), field.cells]
            begun = after
    if not pieces:
        return pa.array(["[]"] * table.num_rows, _TEXT)
    rows = pc.utf8_slice_codeunits(_joined([*pieces, _scalar(begun)]), start=2)
    return _between("[", rows, "]")


def repr_cells(cells: pa.Array) -> pa.LargeStringArray:
    """(N,) what `repr` writes of each cell of a column of texts or booleans; null for an empty cell."""
    field = _field(cells, _REPR)
    return _between(field.quote, field.cells, field.quote) if field.quote else field.cells


def _pair_field(cells: pa.Array) -> _Cells:
    kind = cells.type
    if pa.types.is_null(kind):
        return _Cells(cells.cast(_TEXT))
    if _is_text(kind):
        return _field(pc.if_else(pc.equal(cells, pa.scalar("", kind)), pa.scalar(None, kind), cells), _REPR)
    if _is_fraction(kind):
        return _field(pc.if_else(pc.is_nan(cells), pa.scalar(None, kind), cells), _REPR)._replace(quote="'")
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return _field(cells, _REPR)._replace(quote="'")
    texts = [None if _is_missing(cell) else repr(_without_types(cell)) for cell in cells.to_pylist()]
    return _Cells(pa.array(texts, _TEXT))


def _is_missing(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _without_types(cell: Any) -> Any:
    """A column of whole numbers becomes one of fractions or of text when rows are added that need it."""
    if isinstance(cell, list):
        return [_without_types(item) for item in cell]
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _column(table: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _field(cells: pa.Array, writing: _Writing = _CANONICAL) -> _Cells:
    kind = cells.type
    if pa.types.is_dictionary(kind) and _is_text(kind.value_type):
        cells, kind = cells.dictionary_decode(), kind.value_type
    if _is_text(kind):
        return _texts(cells.cast(_TEXT), writing)
    if pa.types.is_boolean(kind) and writing is _REPR:
        return _Cells(pc.if_else(cells, _scalar("True"), _scalar("False")))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return _Cells(cells.cast(_TEXT))
    if pa.types.is_floating(kind):
        return _Cells(_fractions(cells.cast(pa.float64()), writing))
    return _Cells(pa.array([None if cell is None else _encode(cell) for cell in cells.to_pylist()], _TEXT))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_fraction(kind: pa.DataType) -> bool:
    return bool(pa.types.is_float32(kind) or pa.types.is_float64(kind))


def _texts(cells: pa.LargeStringArray, writing: _Writing) -> _Cells:
    if not _may_be_odd(cells, writing):
        return _Cells(cells, writing.quote)
    odd = pc.fill_null(pc.match_substring_regex(cells, writing.odd), False)
    written = [writing.text(cell) for cell in cells.filter(odd).to_pylist()]
    if not written:
        return _Cells(cells, writing.quote)
    if writing is not _REPR:
        unquoted = pa.array([text[1:-1] for text in written], _TEXT)
        return _Cells(pc.replace_with_mask(cells, odd, unquoted), writing.quote)
    quoted = _between(writing.quote, cells, writing.quote)  # which quotes repr takes depends on the text
    return _Cells(pc.replace_with_mask(quoted, odd, pa.array(written, _TEXT)))


def _may_be_odd(cells: pa.LargeStringArray, writing: _Writing) -> bool:
    """Whether any byte of a column is one that is not written as it is: a hundredth of the time of asking cell by
    cell."""
    _, offsets, data = cells.buffers()
    bounds = np.frombuffer(offsets, np.int64)[cells.offset : cells.offset + len(cells) + 1]
    held = np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]]
    if not len(held):
        return False
    if held.min() < _FIRST_PRINTED or held.max() > writing.greatest:
        return True
    return bool((held == ord(writing.quote)).any() or (held == _BACKSLASH).any())


def _fractions(cells: pa.DoubleArray, writing: _Writing) -> pa.LargeStringArray:
    texts = cells.cast(_TEXT)
    numbers: npt.NDArray[np.float64] = np.asarray(pc.fill_null(cells, 0.5))  # Arrow leaves an empty cell empty
    size = np.abs(numbers)
    with np.errstate(invalid="ignore"):  # of NaN nothing below is true
        whole = (np.trunc(numbers) == numbers) & (size < _EXACT)
        alike = (size >= _LEAST) & (size < _MOST) & ~whole
    if not _arrow_writes_alike():
        alike = np.asarray(cells.is_null())
    if whole.any():
        integers = pa.array(np.where(whole, numbers, 0).astype(np.int64))
        texts = pc.if_else(pa.array(whole), integers.cast(_TEXT), texts)
    odd = ~(whole | alike)
    if odd.any():
        written = [writing.number(_without_type(cell)) for cell in numbers[odd].tolist()]
        texts = pc.replace_with_mask(texts, pa.array(odd), pa.array(written, _TEXT))
    return texts


@lru_cache(maxsize=1)
def _arrow_writes_alike() -> bool:
    """Whether this release of Arrow writes fractions as Python does: tried with a thousand of all lengths and sizes."""
    bits = np.arange(1, 1001, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    sizes = 10.0 ** (bits % np.uint64(12)).astype(np.float64)
    numbers = _LEAST + (bits >> np.uint64(11)) * 2.0**-53 * _LEAST * sizes
    numbers = np.concatenate([numbers, numbers.round(3) + 0.0625, [_LEAST, 0.1, _MOST - 0.1]])
    numbers = np.concatenate([numbers, -numbers])
    return bool(list(map(repr, numbers.tolist())) == pa.array(numbers).cast(_TEXT).to_pylist())


def _without_type(cell: float) -> int | float:
    return int(cell) if cell.is_integer() else cell


def _joined(pieces: list[Any]) -> Any:
    return pc.binary_join_element_wise(*pieces, _scalar(""), null_handling="replace", null_replacement="")


def _between(before: str, cells: Any, after: str) -> Any:
    return pc.binary_join_element_wise(_scalar(before), cells, _scalar(after), _scalar(""))


def _scalar(text: str) -> pa.LargeStringScalar:
    return pa.scalar(text, _TEXT)
