"""What the readers of all formats share: rows to a table, bad rows beside the good ones, and how a file is refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from speciate.datasets.columns import array
from speciate.datasets.sources.readers.conversations import as_text
from speciate.errors import Code, SpeciateError

REASON = "_reason"
"""The column that says why a row could not be read; null where it could."""
LONGEST_TEXT = 1 << 30
"""Bytes of one table of text, after decompression."""
LONGEST_BINARY = 2 << 30
BAD_ROWS_KEPT = 10_000
_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*)?(?<=\d)(\.\d*)?([eE][-+]?\d{1,3})?|[-+]?\.\d+([eE][-+]?\d{1,3})?")
_WHOLE, _LONG = re.compile(r"[-+]?\d{1,15}"), re.compile(r"[-+]?\d{16,}")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def from_rows(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as a table: a column for every key, null where a row lacks it. A conversation is a text."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: array([as_text(row.get(name)) for row in rows]) for name in names})


def is_broken(value: Any) -> bool:
    """Whether it holds a lone surrogate, which JSON can write as `\\ud800` and UTF-8 cannot hold."""
    if isinstance(value, str):
        return not value.isascii() and _LONE_SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(is_broken(part) for part in value.items())
    return isinstance(value, list | tuple) and any(map(is_broken, value))


def with_bad_rows(table: pa.Table, reasons: Sequence[str]) -> pa.Table:
    """The table, its column names made unique, and below it a row for every reason."""
    table = with_unique_names(table)
    if REASON in table.column_names:
        table = table.drop_columns([REASON])
    if not reasons:
        return table
    kept = list(reasons[:BAD_ROWS_KEPT])
    if (more := len(reasons) - len(kept)) > 0:
        kept.append(f"{more:,} further rows could not be read.")
    bad = pa.table({REASON: pa.array(kept, pa.string())})
    return pa.concat_tables([table, bad], promote_options="default") if table.num_columns else bad


def with_unique_names(table: pa.Table) -> pa.Table:
    """The second column of a name becomes `NAME_2`, the third `NAME_3`."""
    names = table.column_names
    if len(set(names)) == len(names):
        return table
    seen, taken, unique = Counter[str](), set(names), []
    for name in names:
        seen[name] += 1
        chosen, number = name, seen[name]
        while seen[name] > 1 and (chosen := f"{name}_{number}") in taken:
            number += 1
        taken.add(chosen)
        unique.append(chosen)
    return table.rename_columns(unique)


def with_numbers(table: pa.Table, but: Sequence[str] = ()) -> pa.Table:
    """Columns of text in which every cell is a number become numbers, of formats that have no types; none of `but`, nor
    those in which a number has a leading zero, or as whole ones more digits than are kept."""
    for place, name in enumerate(table.column_names):
        cells = [cell for cell in table[name].to_pylist() if cell is not None]
        texts = all(isinstance(cell, str) for cell in cells)
        if name in but or not cells or not texts or not all(_NUMBER.fullmatch(cell) for cell in cells):
            continue
        if any(map(_LONG.fullmatch, cells)):
            continue
        numbers = [None if cell is None else float(cell) for cell in table[name].to_pylist()]
        whole = all(_WHOLE.fullmatch(cell) for cell in cells)
        column = pa.array(numbers, pa.float64())
        table = table.set_column(place, name, column.cast(pa.int64()) if whole else column)
    return table


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of several tables; a column whose types differ between them becomes text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        names = dict.fromkeys(name for table in tables for name in table.column_names)
        return pa.table({name: _column(tables, name) for name in names})


def _column(tables: Sequence[pa.Table], name: str) -> pa.Array:
    values = [
        value
        for table in tables
        for value in (table[name].to_pylist() if name in table.column_names else [None] * table.num_rows)
    ]
    return array(values)


def unreadable(path: Path, why: str, recovery: str = "Mend the file, then repeat the call.") -> SpeciateError:
    """The whole file is not what its format asks for. `why` is in our words; `unread` has a library's."""
    return SpeciateError(Code.INVALID, f"{path.name[:64]!r} cannot be read: {why.rstrip('.')[:300]}.", recovery)


def unread(path: Path, error: Exception, recovery: str = "Mend the file, then repeat the call.") -> SpeciateError:
    """The same where a library says why, which may quote the file."""
    said = str(error).strip().splitlines() or ["unknown"]
    why = f"{path.name[:64]!r} cannot be read: {type(error).__name__}; untrusted says more."
    return SpeciateError(Code.INVALID, why, recovery, said[0][:300])


def refused(path: Path, why: str, recovery: str) -> SpeciateError:
    """The file is beyond a budget."""
    return SpeciateError(Code.REFUSED, f"{path.name[:64]!r} is not read: {why}.", recovery)
