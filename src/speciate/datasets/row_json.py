"""The canonical JSON of rows, which their digests are taken of, made column by column.

The bytes of a row are those that `_encode` below gives for its filled cells in the order of their names. The ids of
versions hang on each of them, so they never change. What Arrow writes alike it writes for a whole column at once:
texts, whole numbers, fractions, booleans. Python's encoder writes all other cells.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
_TEXT = pa.large_string()  # a batch may hold more than 2 GiB
_ESCAPED = r'["\\\x00-\x1f]'
_QUOTE, _COMMA, _BACKSLASH, _BRACE, _FIRST_PRINTED = b'",\\{ '
_EXACT = 2.0**53
"""Whole numbers below it are exact as float64, and fractions from it on there are none."""
_LEAST, _MOST = 1e-3, 1e9
"""Bounds between which Arrow writes a fraction as Python does, as its shortest decimal without an exponent. Arrow
promises nothing of the kind: `_arrow_writes_alike` asks."""


def canonical_rows(batch: pa.RecordBatch | pa.Table) -> pa.LargeStringArray:
    """(N,) the JSON of each row. Empty cells are left out, and a whole number is the same in any numeric column."""
    pieces, begun = list[Any](), ""
    for name in sorted(batch.column_names):
        column = batch[name]
        cells = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
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
    rows = pc.binary_join_element_wise(*pieces, _scalar(""), null_handling="replace", null_replacement="")
    _, offsets, data = rows.buffers()
    starts, written = np.frombuffer(offsets, np.int64)[: len(rows)], np.frombuffer(data, np.uint8).copy()
    if (written[starts] != _COMMA).any():  # a row without any cell
        return pa.array(["{" + row.removeprefix(",") for row in rows.to_pylist()], _TEXT)
    written[starts] = _BRACE
    return pa.LargeStringArray.from_buffers(len(rows), offsets, pa.py_buffer(written))


class _Cells(NamedTuple):
    cells: pa.LargeStringArray
    """Cells of a column as JSON, without the quotes of texts."""
    quote: str = ""


def _field(cells: pa.Array) -> _Cells:
    kind = cells.type
    if pa.types.is_dictionary(kind) and _is_text(kind.value_type):
        cells, kind = cells.dictionary_decode(), kind.value_type
    if _is_text(kind):
        return _Cells(_escaped(cells.cast(_TEXT)), '"')
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return _Cells(cells.cast(_TEXT))
    if pa.types.is_floating(kind):
        return _Cells(_fractions(cells.cast(pa.float64())))
    return _Cells(pa.array([None if cell is None else _encode(cell) for cell in cells.to_pylist()], _TEXT))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _escaped(cells: pa.LargeStringArray) -> pa.LargeStringArray:
    if not _may_need_escapes(cells):
        return cells
    odd = pc.fill_null(pc.match_substring_regex(cells, _ESCAPED), False)
    written = [_encode(cell)[1:-1] for cell in cells.filter(odd).to_pylist()]
    return pc.replace_with_mask(cells, odd, pa.array(written, _TEXT)) if written else cells


def _may_need_escapes(cells: pa.LargeStringArray) -> bool:
    """Whether any byte of a column is one that JSON escapes: a hundredth of the time of asking cell by cell."""
    _, offsets, data = cells.buffers()
    bounds = np.frombuffer(offsets, np.int64)[cells.offset : cells.offset + len(cells) + 1]
    held = np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]]
    if not len(held):
        return False
    return bool(held.min() < _FIRST_PRINTED or (held == _QUOTE).any() or (held == _BACKSLASH).any())


def _fractions(cells: pa.DoubleArray) -> pa.LargeStringArray:
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
        written = [_encode(_without_type(cell)) for cell in numbers[odd].tolist()]
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


def _between(before: str, cells: Any, after: str) -> Any:
    return pc.binary_join_element_wise(_scalar(before), cells, _scalar(after), _scalar(""))


def _scalar(text: str) -> pa.LargeStringScalar:
    return pa.scalar(text, _TEXT)
