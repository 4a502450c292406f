"""A table of labels beside media: which row is about which file, and the columns it brings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import clean
from speciate.datasets.sources.listing import SourceFile
from speciate.datasets.sources.readers.rows import REASON
from speciate.errors import Code, SpeciateError

_NOT_THERE = "a row names a file that is not there"
_SHOWN = 5
"""Names of such files."""


class LabelsFile(NamedTuple):
    """What a caller names as labels."""

    path: Path
    key: str
    """Column with the path relative to this file or to the source, or the file's name."""


class Beside(NamedTuple):
    """Labels, brought into the order of the files."""

    table: pa.Table
    """A row per file, null where none names it."""
    named: list[bool]
    """Whether a row names the file."""
    notes: tuple[str, ...] = ()


class Joined(NamedTuple):
    table: pa.Table
    renamed: dict[str, str]
    """Columns of the labels that the media have too -> `user_NAME`, as which they stand beside those."""


def beside(table: pa.Table, key: str, files: Sequence[SourceFile], labels: Path) -> Beside:
    """The rows of a labels file in the order of the media. INVALID where a row may be about several files.

    Rows that could not be read, or that name no file, are counted in the notes.
    """
    if key not in table.column_names:
        raise SpeciateError(
            Code.INVALID,
            f"labels.key names {key!r}; the file has the columns {', '.join(table.column_names[:20])}.",
            "Call again with a key of those.",
        )
    table, reasons = _without_bad_rows(table)
    keys = table[key].to_pylist()
    rows = _rows(keys)
    places = _places(rows, files, labels)
    if nameless := len(keys) - len(rows):
        reasons["a row names no file"] += nameless
    used = set(places)
    unused = [repr(clean(name)) for name, place in rows.items() if place not in used]
    if unused:
        reasons[_NOT_THERE] += len(unused)
    notes = tuple(
        f"{labels.name!r}: {reason.rstrip('.')}"
        + (f", {count:,} times" if count > 1 else "")
        + (f": {', '.join(unused[:_SHOWN])}{' ...' if count > _SHOWN else ''}." if reason == _NOT_THERE else ".")
        for reason, count in reasons.items()
    )
    return Beside(table.take(pa.array(places, pa.int64())), [place is not None for place in places], notes)


def join(media: pa.Table, labels: pa.Table) -> Joined:
    """The media's own columns and those of the labels, which have a row per medium in the same order.

    A column in which both say the same is one column: exports name the size and the like of media, too.
    """
    own = set(media.column_names)
    same = {name for name in labels.column_names if name in own and _agree(media[name], labels[name])}
    renamed = {name: f"user_{name}" for name in labels.column_names if name in own - same}
    for name in labels.column_names:
        if name not in same:
            media = media.append_column(renamed.get(name, name), labels[name])
    return Joined(media, renamed)


def _agree(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    """Whether no row has two different values, and some row has two."""
    pairs = [(x, y) for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True) if x is not None and y is not None]
    return bool(pairs) and all(x == y for x, y in pairs)


def _without_bad_rows(table: pa.Table) -> tuple[pa.Table, Counter[str]]:
    if REASON not in table.column_names:
        return table, Counter()
    reasons = Counter(reason for reason in table[REASON].to_pylist() if reason is not None)
    return table.filter(pc.is_null(table[REASON])).drop_columns([REASON]), reasons


def _rows(keys: Sequence[Any]) -> dict[str, int]:
    """Key -> place of its row; a blank one names nothing."""
    known = [None if key is None or not str(key).strip() else os.path.normpath(str(key)) for key in keys]
    if twice := [key for key, count in Counter(known).items() if key is not None and count > 1]:
        raise _ambiguous(f"{len(twice)} key(s) stand in several rows of the labels file, such as {clean(twice[0])!r}")
    return {key: place for place, key in enumerate(known) if key is not None}


def _places(rows: dict[str, int], files: Sequence[SourceFile], labels: Path) -> list[int | None]:
    """The row of each file: what names its whole path first, then what names it without folders, then the stem; and
    for files that no row names, the row of what they are part of, which may be about several."""
    found: dict[str, str] = {}
    for spell in (
        lambda file: _whole(file, labels),
        lambda file: file.also,
        lambda file: [file.path.name],
        _stems,
    ):
        left = rows.keys() - set(found.values())
        now = {file.name: key for file in files if file.name not in found for key in spell(file) if key in left}
        key, count = next(iter(Counter(now.values()).most_common(1)), ("", 0))
        if count > 1:
            raise _ambiguous(f"The key {clean(key)!r} of the labels file names {count} files")
        found |= now
    for file in files:
        if file.name not in found and (key := next((key for key in file.within if key in rows), None)) is not None:
            found[file.name] = key
    return [rows[found[file.name]] if file.name in found else None for file in files]


def _whole(file: SourceFile, labels: Path) -> Iterator[str]:
    """Its path below the source, then relative to the labels file: of two that match, the latter stands."""
    yield file.name
    yield os.path.relpath(file.path, labels.parent)


def _stems(file: SourceFile) -> Iterator[str]:
    """`scan.nii` and `scan` of `scan.nii.gz`."""
    yield file.path.stem
    if file.path.suffix.lower() == ".gz":
        yield Path(file.path.stem).stem


def _ambiguous(what: str) -> SpeciateError:
    return SpeciateError(Code.INVALID, f"{what}.", "Give each file one row, with its path below the source as the key.")
