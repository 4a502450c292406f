"""A suite is its rows: the examples that an evaluation judged, by their content. Pure.

Each judged row is 16 bytes: a key of its medium, in whichever dataset it lies, and a digest of what the judgement rests
on (medium, window, reference, group). What else a judgement read of the rows (answers of the system in use, columns
that gates slice by) is kept beside, as further facets. Ids, names of datasets, provenance and columns that nobody
judged by do not count, so a copy of a dataset under another name is the same suite. Rows are a multiset: one of two
equal rows that is taken away is missed.

A suite goes on while rows join it. Whoever takes away or changes a row that was judged makes another suite.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, START, STOP
from speciate.evaluation.reports.report import SuiteChange
from speciate.use_cases import COLUMN

WIDTH = 16
"""Bytes of a judged row: 8 of its key, 8 of its digest. To hide a lost row one needs a second preimage of both."""
ROWS = ""
"""The facet that every suite has: its rows. The others are named after what else was read of them: `column:rules` are
answers, `read:site` is a column that the judgement itself needs."""
READ = "read:"
LEAST_OVERLAP = 0.01
"""Share of a suite's rows that another must have judged to count as a look: single texts or cells recur by accident."""
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str, sort_keys=True).encode

HIDDEN_IDENTITY = (CONTENT, KEY, FINGERPRINT, START, STOP)
"""Columns that say what example a row is."""
FILE = "judged_rows.parquet"
"""In the outputs of a run: each facet's rows."""
Packed = npt.NDArray[np.void]  # (N,) of WIDTH bytes each, sorted


class JudgedSuite(NamedTuple):
    """What an evaluation judges by: its rows, and what columns of answers say of them (facet -> rows)."""

    facets: Mapping[str, Packed]
    target: str | None = None
    """The column of references; None where they lie in the media."""

    @property
    def rows(self) -> Packed:
        return self.facets[ROWS]


def pack(table: pa.Table, target: str | None, *, optional: bool = False) -> Packed:
    """The rows of a version's table that can be judged. `target`: the column of references; None where they lie in the
    media, so that every row counts. A row without a reference is not judged, unless that is `optional`."""
    rows = preimages(table, target, optional=optional)
    return _packed(_half(row.example) + _half(row.judged) for row in rows)


class RowPreimage(NamedTuple):
    """What the digests of a judged row are of."""

    id: str
    example: str
    """What example it is, whatever it is called: the hash of its medium."""
    judged: str
    """JSON: medium, window, reference, group."""


def preimages(table: pa.Table, target: str | None, *, optional: bool = False) -> Iterator[RowPreimage]:
    """The preimages of each row that can be judged. `pack` keeps the first 8 bytes of the sha256 of both texts."""
    references = table[target].to_pylist() if target else [None] * table.num_rows
    ids = table["id"].to_pylist() if "id" in table.column_names else [""] * table.num_rows
    columns = (ids, _media(table), _windows(table), references, table["group_key"].to_pylist())
    for row, medium, window, reference, group in zip(*columns, strict=True):
        if target is None or optional or not _is_empty(reference):
            yield RowPreimage(str(row), medium, _encode([medium, window, _plain(reference), group]))


def pack_cells(table: pa.Table, column: str) -> Packed:
    """What a column says of each row: answers of the system in use, or the slice that a row belongs to."""
    cells = table[column].to_pylist()
    return _packed(
        _half(medium) + _half(_encode([medium, window, _plain(cell)]))
        for medium, window, cell in zip(_media(table), _windows(table), cells, strict=True)
    )


def contents(table: pa.Table, column: str) -> list[str]:
    """What each row is by a hidden column of hashes, with its window; its id where that cell is empty."""
    known = zip(table[column].to_pylist(), table["id"].to_pylist(), _windows(table), strict=True)
    return [_encode([name, window] if name else [None, row]) for name, row, window in known]


def columns_of(available: Iterable[str], *wanted: str | None) -> list[str]:
    """The columns of a version that `pack` reads, of those that it has."""
    names = set(available)
    read = ("id", "group_key", *HIDDEN_IDENTITY, *(each for each in wanted if each))
    return [name for name in dict.fromkeys(read) if name in names]


def compare(before: Packed, now: Packed, since: str = "") -> SuiteChange:
    """What became of the rows of `before`, as multisets."""
    counts = _count(before, now)
    lost, came = np.maximum(counts.before - counts.now, 0), np.maximum(counts.now - counts.before, 0)
    by_key = np.minimum(np.bincount(counts.keys, lost), np.bincount(counts.keys, came))
    changed = int(by_key.sum())
    return SuiteChange(
        judged=len(before),
        missing=int(lost.sum()) - changed,
        changed=changed,
        joined=int(came.sum()) - changed,
        since=since,
    )


def overlaps(before: Packed, now: Packed) -> bool:
    """Whether who judged `before` has looked at the rows of `now`, whatever their labels were then."""
    if not len(now) or not len(before):
        return False
    seen = np.isin(_keys(now), _keys(before)).sum()
    return bool(seen >= max(1.0, LEAST_OVERLAP * len(now)))


def share_a_row(before: Packed, now: Packed) -> bool:
    """Whether some row is the same in both, reference and all."""
    counts = _count(before, now)
    return bool(np.minimum(counts.before, counts.now).any())


def suite_id(rows: Packed) -> str:
    return f"suite-{hashlib.sha256(to_bytes(rows)).hexdigest()[:24]}"


def to_bytes(rows: Packed) -> bytes:
    return rows.tobytes()


def from_bytes(data: bytes) -> Packed:
    return np.frombuffer(data, f"V{WIDTH}")


def as_table(suite: JudgedSuite) -> pa.Table:
    facets = sorted(suite.facets)
    return pa.table(
        {"facet": facets, "packed": pa.array([to_bytes(suite.facets[name]) for name in facets], pa.binary())}
    )


def read_file(file: Path, target: str | None) -> JudgedSuite | None:
    """What `as_table` made of a suite; None if the run wrote none."""
    if not file.exists():
        return None
    table = pq.read_table(file)
    facets = zip(table["facet"].to_pylist(), table["packed"].to_pylist(), strict=True)
    return JudgedSuite({name: from_bytes(packed) for name, packed in facets}, target)


def without(rows: Packed, media: Iterable[str]) -> Packed:
    """The rows without those of these media, which are to be forgotten (`_media`)."""
    gone = np.frombuffer(b"".join(sorted({_half(medium) for medium in media})), "<u8")
    return rows[~np.isin(_keys(rows), gone)]


def _media(table: pa.Table) -> list[str]:
    """The hash of each row's medium: which example it is, whatever it is called."""
    columns = [table[name].to_pylist() for name in (CONTENT, KEY, FINGERPRINT, "id") if name in table.column_names]
    return [str(next((cell for cell in cells if cell is not None), "")) for cells in zip(*columns, strict=True)]


def _windows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Which part of its medium each row is: (start, stop), or () where rows are whole media."""
    if START not in table.column_names:
        return [()] * table.num_rows
    return list(zip(table[START].to_pylist(), table[STOP].to_pylist(), strict=True))


def _plain(cell: Any) -> Any:
    """1 and 1.0 are the same, within lists too: a column's type changes when rows join."""
    if isinstance(cell, dict):
        return {name: _plain(part) for name, part in cell.items()}
    if isinstance(cell, list | tuple):
        return [_plain(part) for part in cell]
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _is_empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _half(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[: WIDTH // 2]


def _packed(rows: Iterable[bytes]) -> Packed:
    return from_bytes(b"".join(sorted(rows)))


def _keys(rows: Packed) -> npt.NDArray[np.uint64]:
    """(N,)"""
    return _halves(rows)[:, 0]


def _halves(rows: Packed) -> npt.NDArray[np.uint64]:
    """(N, 2): key and digest of each row."""
    return np.ascontiguousarray(rows).view("<u8").reshape(-1, 2)


class _Counts(NamedTuple):
    """How often each distinct row is among two suites, ordered by key."""

    keys: npt.NDArray[np.int64]
    """(M,) codes from 0, equal for rows of one key."""
    before: npt.NDArray[np.int64]
    now: npt.NDArray[np.int64]


def _count(before: Packed, now: Packed) -> _Counts:
    """One sort of both."""
    halves = np.concatenate([_halves(before), _halves(now)])
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered, is_now = halves[order], order >= len(before)
    begins = np.ones(len(order), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    row = np.cumsum(begins) - 1
    keys = ordered[begins, 0]
    apart = np.zeros(len(keys), np.int64)
    apart[1:] = keys[1:] != keys[:-1]
    return _Counts(
        np.cumsum(apart), np.bincount(row[~is_now], minlength=len(keys)), np.bincount(row[is_now], minlength=len(keys))
    )


def column_facets(names: Sequence[str]) -> list[str]:
    """The names of the models under evaluation that answer from a column, such as `column:rules`."""
    return [name for name in names if name.startswith(COLUMN)]
