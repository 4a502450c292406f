"""Two tables that share a key as one: the rows of the first with the columns of the second. Pure.

A key joins only if its values name one row each in the second table. Two files of one source are joined without being
asked if exactly one column can be that key; otherwise a warning says how to ask. A column that numbers the rows of both
is no such key: any two tables of about the same length share it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import clean
from speciate.datasets.readers.rows import REASON
from speciate.datasets.sources.labels import join_labels
from speciate.errors import Code, SpeciateError, closest

_ROLES = ("label", "split", REASON)
"""Columns that are never a key."""
_MOSTLY = 0.9
"""Share of the keys of the first table that the second must hold."""
_LEAST = 4
"""Different values of a key, so that two coincidences are none."""
_SHOWN = 5
_EXACT = {16: 2**11, 32: 2**24, 64: 2**53}
"""Bits of a floating-point number -> from where on it does not tell whole numbers apart."""


class NamedTable(NamedTuple):
    """A table with the name of its file below the source."""

    name: str
    table: pa.Table


class JoinedTable(NamedTuple):
    table: pa.Table
    """The rows of the first table, in its order."""
    renamed: dict[str, str]
    """Columns of the second that the first has too -> their names here."""
    notes: tuple[str, ...]
    """Counts of rows without a partner. They quote keys."""


class FoundJoin(NamedTuple):
    """Which of two tables is joined to the other, and by which key."""

    first: int
    second: int
    key: str


def join(first: NamedTable, second: NamedTable, key: str) -> JoinedTable:
    """INVALID if either lacks the key, or if a key names several different rows of the second."""
    for each in (first, second):
        if key not in each.table.column_names:
            raise SpeciateError(
                Code.INVALID,
                f"labels.key names {key!r}, and {each.name[:64]!r} has no such column; "
                f"{closest(key, [name for name in each.table.column_names if name != REASON])}",
                "Call again with a key that both tables have; rename the column in one of them if it differs.",
            )
    rows, unread = _readable(second.table)
    places = rows_by_key(NamedTable(second.name, rows), key)
    wanted = keys_of(first.table[key])
    taken = rows.take(pa.array([places.get(value) if value else None for value in wanted], pa.int64()))
    joined = join_labels(first.table, taken.drop_columns([key]))
    used = set(wanted)
    lacking = [value for value in wanted if value is None or value not in places]
    unused = [value for value in places if value not in used]
    notes = (
        *((f"{unread:,} rows of {second.name!r} could not be read and join nothing.",) if unread else ()),
        *_note(lacking, f"of {len(wanted):,} rows have no row in {second.name!r} with their {clean(key)!r}"),
        *_note(unused, f"rows of {second.name!r} have a {clean(key)!r} that no row here has, and are left out"),
    )
    return JoinedTable(joined.table, joined.renamed, notes)


def _note(keys: Sequence[str | None], what: str) -> tuple[str, ...]:
    if not keys:
        return ()
    shown = ", ".join(repr(clean(key)) for key in keys[:_SHOWN] if key)
    return (f"{len(keys):,} {what}" + (f": {shown}{' ...' if len(keys) > _SHOWN else ''}." if shown else "."),)


def find_join(a: pa.Table, b: pa.Table) -> FoundJoin | None:
    """How two tables of a source belong together; None if no one column is plainly their key.

    Each has columns of its own; the key is filled in every row, names one row each in one of them, and most keys of
    the other are there. What else they share must agree.
    """
    tables = [_readable(table)[0] for table in (a, b)]
    names = [set(table.column_names) for table in tables]
    if not (names[0] - names[1] and names[1] - names[0]):
        return None
    found = [join for key in sorted(names[0] & names[1]) if (join := _join_by(tables, key)) is not None]
    return found[0] if len(found) == 1 else None


def _join_by(tables: Sequence[pa.Table], key: str) -> FoundJoin | None:
    if key.lower() in _ROLES or any(pa.types.is_floating(table[key].type) for table in tables):
        return None
    keys = [_texts(table[key]) for table in tables]
    if any(None in each for each in keys) or all(map(_numbers_rows, keys)):
        return None
    one = [len(set(each)) == len(each) for each in keys]
    second = 1 if one[1] and (not one[0] or _reads_better(tables[0], tables[1])) else 0 if one[0] else None
    if second is None:
        return None
    first = 1 - second
    wanted, there = set(keys[first]), set(keys[second])
    if len(wanted) < _LEAST or len(wanted & there) < _MOSTLY * len(wanted):
        return None
    others = set(tables[0].column_names) & set(tables[1].column_names) - {key}
    places = {value: place for place, value in enumerate(keys[second])}
    taken = pa.array([places.get(value) for value in keys[first] if value], pa.int64())
    if not all(_agree(tables[first][name], tables[second][name].take(taken)) for name in others):
        return None
    return FoundJoin(first, second, key)


def _numbers_rows(keys: Sequence[str | None]) -> bool:
    """Whether they are 0 to n - 1, or 1 to n, in any order."""
    return any(set(keys) == set(map(str, range(start, start + len(keys)))) for start in (0, 1))


def _reads_better(a: pa.Table, b: pa.Table) -> bool:
    """Whether the first of two tables with a row each is the one with the examples: it holds the longer cells."""
    return (a.num_rows, _length(a)) >= (b.num_rows, _length(b))


def _length(table: pa.Table) -> int:
    """Characters and numbers of its longest column, in its first rows."""
    sizes = [sum(len(cell) if isinstance(cell, str | list) else 1 for cell in table[name].slice(0, 200).to_pylist()
                 if cell is not None) for name in table.column_names]  # fmt: skip
    return max(sizes, default=0)


def _agree(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    pairs = zip(_texts(a), _texts(b), strict=True)
    return all(x == y for x, y in pairs if x is not None and y is not None)


def apart_warning(tables: Sequence[NamedTable], root: Path) -> str:
    """A warning if files with different columns became rows of one table, so that each row lacks the others' columns.

    `root`: the source, below which the names are. Empty if the columns of one file include those of the others.
    """
    by_columns: dict[frozenset[str], NamedTable] = {}
    for each in tables:
        by_columns.setdefault(frozenset(each.table.column_names) - {REASON}, each)
    widest = max(by_columns, key=len, default=frozenset())
    if all(columns <= widest for columns in by_columns):
        return ""
    first, *others = sorted(by_columns.values(), key=lambda each: -_length(each.table))
    own = set(first.table.column_names)
    second = max(others, key=lambda each: bool(own & set(each.table.column_names)))
    if 2 * len(own & set(second.table.column_names)) > min(len(own), second.table.num_columns):
        return ""  # files of the same rows, of which some lack a column
    shared = [name for name in first.table.column_names if name in second.table.column_names and name not in _ROLES]
    key = repr(clean(shared[0])) if shared else "a column that both have"
    names = [clean(each.name) for each in (first, second)]
    paths = [str(root / name) if root.is_dir() else name for name in names]
    unpack = "" if root.is_dir() else "unpack the files and "
    return (
        f"Files with different columns became rows of one table, and each row lacks the columns of the other files. If "
        f"rows of {names[1]!r} belong to rows of {names[0]!r}, {unpack}call create_dataset again with "
        f"source={paths[0]!r} and labels={{'path': {paths[1]!r}, 'key': {key}}}."
    )


def _readable(table: pa.Table) -> tuple[pa.Table, int]:
    """The rows that could be read, without reasons; how many could not."""
    if REASON not in table.column_names:
        return table, 0
    rows = table.filter(pc.is_null(table[REASON])).drop_columns([REASON])
    return rows, table.num_rows - rows.num_rows


def rows_by_key(of: NamedTable, key: str) -> dict[str, int]:
    """Key -> its row; rows that are wholly equal count once. INVALID if a key names different rows."""
    name, rows = of
    places: dict[str, int] = {}
    keys = keys_of(rows[key])
    times = Counter(keys)
    several = [place for place, value in enumerate(keys) if value is not None and times[value] > 1]
    taken = rows.take(pa.array(several, pa.int64())).to_pylist()
    cells = {place: _without_nan(row) for place, row in zip(several, taken, strict=True)}
    twice = dict.fromkeys(
        keys[place] for place in several if cells[place] != cells[places.setdefault(str(keys[place]), place)]
    )
    if twice:
        first = next(iter(twice))
        raise SpeciateError(
            Code.INVALID,
            f"{len(twice):,} keys name several different rows of {name[:64]!r}, such as {clean(str(first))!r}: which "
            "row belongs to an example is not known.",
            "Name a key that occurs once in that file, or leave one row for each key there.",
        )
    for place, value in enumerate(keys):
        if value is not None:
            places.setdefault(value, place)
    return places


def _without_nan(cell: Any) -> Any:
    """A cell with None in place of NaN, which is not equal to itself."""
    if isinstance(cell, dict):
        return {name: _without_nan(value) for name, value in cell.items()}
    if isinstance(cell, list):
        return [_without_nan(value) for value in cell]
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def keys_of(column: pa.ChunkedArray) -> list[str | None]:
    """Cells as texts, so that 7, 7.0 and '7' are one key; None if missing.

    INVALID for floating-point numbers so large that neighbouring whole numbers are one of them.
    """
    if pa.types.is_floating(column.type):
        least = _EXACT[column.type.bit_width]
        size = pc.abs(column.cast(pa.float64()))
        large = column.filter(pc.and_(pc.greater_equal(size, least), pc.is_finite(size)))
        if len(large):
            raise SpeciateError(
                Code.INVALID,
                f"{len(large):,} keys are floating-point numbers of {least:,} or more, such as {large[0].as_py():.0f}, "
                "which may stand for several whole numbers: a join could take the wrong row.",
                "Write that column as texts or as whole numbers (int64) from its origin on, without an empty cell, and "
                "call again; or name another key.",
            )
    return _texts(column)


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    return [_key(cell) for cell in column.to_pylist()]


def _key(cell: Any) -> str | None:
    if cell is None or cell != cell:  # noqa: PLR0124 - NaN
        return None
    if isinstance(cell, float) and np.isfinite(cell) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, Decimal):
        return str(int(cell)) if cell == cell.to_integral_value() else format(cell, "f").rstrip("0")
    return str(cell).strip() or None
