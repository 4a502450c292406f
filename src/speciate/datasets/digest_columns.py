"""Columns of sha256 digests in hexadecimal: made of texts, compared and drawn from, without an object for each row."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_BYTES = 32
_LETTERS = 2 * _BYTES
_AT_ONCE = 1 << 16
"""Rows."""
_HEX = np.frombuffer(b"".join(f"{byte:02x}".encode() for byte in range(256)), np.uint16)
"""(256,): the two letters of each byte."""
_NONE = 255
_VALUES = np.full(256, _NONE, np.uint8)
"""(256,): the value of each letter."""
_VALUES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_VALUES[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)
_ASCII = 0x80
_SHIFTS = np.arange(60, -4, -4, dtype=np.uint64)

Places = npt.NDArray[np.int64]


def sha256_of(texts: pa.LargeStringArray) -> npt.NDArray[np.uint8]:
    """(N, 32) digests of the texts, none of which is null."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1].tolist()
    held = memoryview(data or b"")
    digests = b"".join([hashlib.sha256(held[start:end]).digest() for start, end in pairwise(ends)])
    return np.frombuffer(digests, np.uint8).reshape(-1, _BYTES)


def hexadecimal(digests: npt.NDArray[np.uint8]) -> pa.StringArray:
    """(N, 32) -> (N,)"""
    offsets = np.arange(len(digests) + 1, dtype=np.int32) * np.int32(_LETTERS)
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(offsets), pa.py_buffer(_HEX[digests]))


def first_bits(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint64] | None:
    """(N,) the first 64 bits of each digest; None where a cell is null or no digest."""
    found = list[npt.NDArray[np.uint64]]()
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        if chunk.null_count or not (pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type)):
            return None
        for start in range(0, len(chunk), _AT_ONCE):
            bits = _bits(chunk.slice(start, _AT_ONCE))
            if bits is None:
                return None
            found.append(bits)
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


def _bits(chunk: pa.Array) -> npt.NDArray[np.uint64] | None:
    _, offsets, data = chunk.buffers()
    width = np.int32 if pa.types.is_string(chunk.type) else np.int64
    ends = np.frombuffer(offsets, width)[chunk.offset : chunk.offset + len(chunk) + 1]
    if (np.diff(ends) != _LETTERS).any():
        return None
    letters = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].reshape(-1, _LETTERS)
    values = _VALUES[letters[:, : len(_SHIFTS)]]
    if (values == _NONE).any() or letters.max(initial=0) >= _ASCII:
        return None
    return np.asarray(np.bitwise_or.reduce(values.astype(np.uint64) << _SHIFTS, axis=1))


def repeated(column: pa.ChunkedArray | pa.Array) -> Places:
    """Ascending places outside of which no cell equals another one. Of digests these are the few whose first bits
    another one shares; of other columns all that are not null."""
    bits = first_bits(column)
    if bits is None:
        return np.flatnonzero(np.asarray(column.is_valid()))
    order = np.argsort(bits)
    after = np.flatnonzero(bits[order[1:]] == bits[order[:-1]])  # the next one is equal
    return np.unique(order[np.concatenate([after, after + 1])])


def codes(column: pa.ChunkedArray | pa.Array) -> Places:
    """(N,) equal numbers for equal cells, -1 for null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(pc.fill_null(array.dictionary_encode().indices.cast(pa.int64()), -1))
