"""Labels that lie beside media: which row of a table is about which file, or about which part of it.

The caller names the table, or it is found as a sidecar: a table with a column `file_name` in the folder of the media,
as the folders of Hugging Face have them (`metadata.csv`, one for all or one a folder), or annotations in COCO's format.
A sidecar is used only if it is clear which file each row is about; others are excluded with the reason.

A table may name a file in several rows, each about a part of it: by the columns `window_start` and `window_stop` in the
modality's unit, or by the number of a `frame`.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import WINDOW_START, WINDOW_STOP, clean
from speciate.datasets.readers.formats import table_suffix
from speciate.datasets.readers.rows import REASON, concatenate
from speciate.datasets.sources.listing import ExcludedFile, Listing, SourceFile, split_of_file
from speciate.datasets.sources.sandbox_calls import ask_table
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities import find

_NOT_THERE = "a row names a file that is not there"
_SHOWN = 5
"""Names of such files."""
FRAME, _FRAMES = "frame", "frames"
KEY = "file_name"
_SAMPLE = 200
"""Cells that decide whether a column names files."""
_MOST = 1_000
"""Tables that are read; a dataset in shards has one per shard."""


_NO_KEYS: Mapping[SourceFile, str] = MappingProxyType({})


class LabelsFile(NamedTuple):
    """A labels file, as a caller names it."""

    path: Path
    key: str
    """Column with the path, whole or relative to this file or to the source, or the file's name."""


class OrderedLabels(NamedTuple):
    """Labels in the order of the files."""

    table: pa.Table
    """A row per file, null if none names it."""
    named: list[bool]
    """Whether a row names the file."""
    notes: tuple[str, ...] = ()


class JoinedLabels(NamedTuple):
    table: pa.Table
    renamed: dict[str, str]
    """Columns of the labels that the media have too -> `user_NAME`, their stored names."""


def order_labels(table: pa.Table, key: str, files: Sequence[SourceFile], labels: Path) -> OrderedLabels:
    """The rows of a labels file in the order of the media. INVALID if a row may be about several files.

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
    return OrderedLabels(table.take(pa.array(places, pa.int64())), [place is not None for place in places], notes)


def join_labels(media: pa.Table, labels: pa.Table) -> JoinedLabels:
    """The media's own columns and those of the labels, which have a row per medium in the same order.

    A column in which both agree becomes one column: exports name the size and the like of media, too.
    """
    own = set(media.column_names)
    same = {name for name in labels.column_names if name in own and _agree(media[name], labels[name])}
    renamed = {name: f"user_{name}" for name in labels.column_names if name in own - same}
    for name in labels.column_names:
        if name not in same:
            media = media.append_column(renamed.get(name, name), labels[name])
    return JoinedLabels(media, renamed)


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
    """Key -> position of its row; a blank key names nothing."""
    known = [None if key is None or not str(key).strip() else os.path.normpath(str(key)) for key in keys]
    if twice := [key for key, count in Counter(known).items() if key is not None and count > 1]:
        raise _ambiguous(f"{len(twice)} key(s) stand in several rows of the labels file, such as {clean(twice[0])!r}")
    return {key: place for place, key in enumerate(known) if key is not None}


def _places(rows: dict[str, int], files: Sequence[SourceFile], labels: Path) -> list[int | None]:
    """The row of each file: a key with its whole path first, then one without folders, then the stem.

    A file that no row names takes the row of its group, such as its study, which may be about several.
    """
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
    """Names of a file in a table: its whole path, its path below the source, then relative to the labels file; the last
    wins. A cell is compared with files of the source and never followed."""
    yield os.path.abspath(file.path)
    yield file.name
    yield os.path.relpath(file.path, labels.parent)


def _stems(file: SourceFile) -> Iterator[str]:
    """`scan.nii` and `scan` of `scan.nii.gz`."""
    yield file.path.stem
    if file.path.suffix.lower() == ".gz":
        yield Path(file.path.stem).stem


def _ambiguous(what: str) -> SpeciateError:
    return SpeciateError(Code.INVALID, f"{what}.", "Give each file one row, with its path below the source as the key.")


class ExcerptLabels(NamedTuple):
    """A row per part, in the order of the files; a file that no row names has one without a label."""

    table: pa.Table
    """A row per part, in the order of the files; one without a label for a file that no row names."""
    about: tuple[int, ...]
    """Which file each row is about."""
    notes: tuple[str, ...]


def are_excerpts(table: pa.Table, modality: str) -> bool:
    """Whether rows of labels are about parts of media."""
    kind, columns = find(modality), set(table.column_names)
    by_frame = FRAME in columns and _FRAMES in kind.mark_units
    return kind.window_unit is not None and (by_frame or {WINDOW_START, WINDOW_STOP} <= columns)


def match_excerpts(table: pa.Table, key: str, files: Sequence[SourceFile], labels: Path) -> ExcerptLabels:
    """The rows of a labels file by the files that they name. INVALID if a row may be about several files."""
    bad = table.filter(pc.is_valid(table[REASON])) if REASON in table.column_names else table.slice(0, 0)
    valid = table.filter(pc.is_null(table[REASON])) if REASON in table.column_names else table
    rows: dict[str, list[int]] = defaultdict(list)
    for place, cell in enumerate(valid[key].to_pylist() if key in valid.column_names else ()):
        if cell is not None:
            rows[os.path.normpath(str(cell))].append(place)
    once = valid.take(pa.array([places[0] for places in rows.values()], pa.int64()))
    found = order_labels(pa.concat_tables([once, bad]), key, files, labels)
    order: list[int | None] = []
    about: list[int] = []
    for file, cell in enumerate(found.table[key].to_pylist()):
        places: list[int | None] = [None] if cell is None else [*rows[os.path.normpath(str(cell))]]
        order += places
        about += [file] * len(places)
    kept = valid.drop_columns([REASON]) if REASON in valid.column_names else valid
    return ExcerptLabels(kept.take(pa.array(order, pa.int64())), tuple(about), found.notes)


class _Sidecar(NamedTuple):
    file: SourceFile
    places: list[int]
    """Places of the media that it names."""
    table: pa.Table
    """A row for each of these."""
    notes: tuple[str, ...]


def with_sidecars(
    found: Listing, tables: Sequence[SourceFile], pool: Pool, keys: Mapping[SourceFile, str] = _NO_KEYS
) -> Listing:
    """The listing of media with the labels that `tables`, which lie among them, hold.

    `keys`: table -> its column with the files, where it is known.
    """
    used: list[_Sidecar] = []
    excluded = list(found.excluded)
    taken: dict[int, str] = {}
    for file in tables[:_MOST]:
        sidecar = _read_sidecar(found, file, pool, keys.get(file))
        if isinstance(sidecar, ExcludedFile):
            excluded.append(sidecar)
        elif twice := [taken[place] for place in sidecar.places if place in taken]:
            excluded.append(ExcludedFile(file.name, f"It labels files that {twice[0]!r} labels already."))
        else:
            used.append(sidecar)
            taken |= dict.fromkeys(sidecar.places, file.name)
    excluded += [ExcludedFile(file.name, f"Only {_MOST} tables beside media are read.") for file in tables[_MOST:]]
    found = found._replace(excluded=excluded, notes=(*found.notes, *(note for each in used for note in each.notes)))
    if not used:
        return found
    rows = concatenate([_with_split(each, used) for each in used])
    order: list[int | None] = [None] * len(found.files)
    for row, place in enumerate(place for each in used for place in each.places):
        order[place] = row
    return found._replace(labels=rows.take(pa.array(order, pa.int64())))


def _read_sidecar(found: Listing, file: SourceFile, pool: Pool, key: str | None) -> _Sidecar | ExcludedFile:
    """The labels of a table for the media in its folder or, if none lie there, for all. `key`: its column with the
    files, if it is known."""
    notes: tuple[str, ...] = ()
    try:
        texts = found.marker.texts if found.marker else ()
        table = ask_table(pool, file.path, readable=found.readable, text=[key or KEY, *texts])
        if found.marker is not None:
            table = found.marker.as_exported(table, KEY)
        below = [i for i, each in enumerate(found.files) if each.path.is_relative_to(file.path.parent)]
        near = below or list(range(len(found.files)))
        files = [found.files[i] for i in near]
        key = key or (KEY if KEY in table.column_names else None)
        if key is None and (key := _naming_column(table, files, file.path)) is not None:
            notes = (f"{file.name!r}: the column {clean(key)!r} names the files, so the others are their labels.",)
        if key is None:
            return ExcludedFile(file.name, f"A table beside media without a column {KEY!r}: name it in `labels`.")
        labels = order_labels(table, key, files, file.path)
    except SpeciateError as error:
        if error.code in (Code.INVALID, Code.REFUSED, Code.UNAVAILABLE):
            return ExcludedFile(file.name, f"A table beside media that is not used: {error.whole}")
        raise
    places = [i for i, named in zip(near, labels.named, strict=True) if named]
    if not places:
        return ExcludedFile(file.name, f"A table beside media whose {key!r} names none of them.")
    named = labels.table.filter(pa.array(labels.named)).drop_columns([key])
    return _Sidecar(file, places, named, (*notes, *labels.notes))


def _naming_column(table: pa.Table, files: Sequence[SourceFile], labels: Path) -> str | None:
    """The one column most of whose cells are paths or names of the files; None if there are none or several."""
    names = {name for file in files for name in (file.path.name, file.name, *_whole(file, labels))}
    naming = []
    for field in table.schema:
        if field.name == REASON or not pa.types.is_string(field.type):
            continue
        cells = [cell for cell in table[field.name].slice(0, 5 * _SAMPLE).to_pylist() if cell][:_SAMPLE]
        if cells and 2 * sum(os.path.normpath(cell) in names for cell in cells) > len(cells):
            naming.append(field.name)
    return naming[0] if len(naming) == 1 else None


def _with_split(sidecar: _Sidecar, all_: Sequence[_Sidecar]) -> pa.Table:
    """The split from the names of sidecars (`instances_train2017.json`), if the sidecars hold none."""
    if "split" in sidecar.table.column_names or len({_split_of_name(each.file.path) for each in all_} - {None}) < 2:
        return sidecar.table
    return sidecar.table.append_column(
        "split", pa.array([_split_of_name(sidecar.file.path)] * sidecar.table.num_rows, pa.string())
    )


def _split_of_name(path: Path) -> str | None:
    return split_of_file(path.name.removesuffix(table_suffix(path.name)))
