"""Mixed rows from files: files that are one example together (mixed_layouts.py), or that a table combines, as one
bundle each.

Only for sources declared `multimodal`, bundles and our own exports: a folder of images with a table of captions stays a
dataset of images.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets.gathering.mixed_layouts import (
    GroupedFiles,
    NamedFile,
    Row,
    group_by_folder,
    group_by_key,
    group_files,
    stem,
    suffix,
)
from speciate.datasets.readers.rows import REASON
from speciate.datasets.sources.listing import ExcludedFile, Listing, SourceFile, modality_of_file, shared_folders
from speciate.datasets.sources.own_export import SIDECARS
from speciate.datasets.sources.sandbox_calls import SourceContext, ask_table
from speciate.environment import config_folder
from speciate.errors import Call, Code, SpeciateError, closest
from speciate.modalities.multimodal import MISSING, MULTIMODAL, PartName

_SHARDS = "webdataset"
"""The format of exports whose parts share a key instead of a folder."""
_VOTERS = 25
"""Files of a suffix that are opened to decide its modality."""
_SAMPLE = 200
_MOSTLY = 0.5
"""Share of the sampled cells that must name files: others may name lost files."""
_LONG_TEXT = 20
"""Characters on average."""
_UNLIKE = re.compile(r"[^\w-]+")


class MixedListing(NamedTuple):
    listing: Listing
    tables: list[SourceFile]
    """Those that are no part of an example and made none: they may hold labels."""


def gather(
    found: Listing, tables: Sequence[SourceFile], context: SourceContext, inputs: Sequence[str], never: Sequence[str]
) -> MixedListing:
    """The listing with an entry for each mixed row.

    `inputs`: the wanted parts; none: all. `never`: columns of tables that are no parts. INVALID if no files belong
    together.
    """
    whole = [file for file in found.files if file.name.lower().endswith(MULTIMODAL.suffixes)]
    if whole and len(whole) == len(found.files):
        return MixedListing(found, list(tables))
    for table in tables if found.marker is None else ():
        manifest = read_manifest(table, found, context, inputs, never)
        if manifest is not None:
            return MixedListing(
                _by_manifest(found, table, manifest, context), [each for each in tables if each != table]
            )
    files, tables = _with_parts_among(found, tables)
    named = _named_files(files)
    if found.marker is None:
        rows = group_files(named)
    else:
        rows = group_by_folder(named) if found.marker.format != _SHARDS else group_by_key(named)
    if rows is None or not rows.rows:
        raise SpeciateError(
            Code.INVALID,
            f"No files of {found.source.name!r} belong together as mixed rows: none share their name without the "
            "suffix, none lie in a folder for each example, and no table names files in its columns.",
            "Give files of one example the same name (0001.png, 0001.txt), a folder each, or a table with their paths, "
            "then call create_dataset again; or name the modality that they all have.",
        )
    return MixedListing(_by_rows(found, files, rows, context, inputs), list(tables))


def mixed_rows_hint(found: Listing) -> str:
    """The call that reads media, taken for examples of one modality, as mixed rows.

    Empty unless at least half of the files accompany one of another modality, in two rows or more.
    """
    named = _named_files(found.files)
    if len({file.modality for file in named} - {None}) < 2:
        return ""
    layout = group_files(named)
    rows = [row for row in layout.rows if _is_mixed(row)] if layout else []
    together = sum(len(places) for row in rows for places in row.parts.values())
    if layout is None or len(rows) < 2 or 2 * together < len(named):
        return ""
    modalities = sorted({part.modality for row in rows for part in row.parts})
    return (
        f"{together} of {len(named)} files lie together as {len(rows)} rows of {' and '.join(modalities)} "
        f"({layout.how}): where a row is one example, call create_dataset again with modality={MULTIMODAL.name!r}."
    )


def _is_mixed(row: Row) -> bool:
    """Whether a row has several modalities, and at most two parts of each: more would be a folder of images."""
    counts = Counter(part.modality for part in row.parts)
    return len(counts) > 1 and max(counts.values()) <= 2


def _with_parts_among(found: Listing, tables: Sequence[SourceFile]) -> tuple[list[SourceFile], Sequence[SourceFile]]:
    """Tables that are parts themselves, such as `0001.csv` beside `0001.png`, come to the files."""
    stems = {stem(file.path.name) for file in found.files}
    places = Counter(file.path.name for file in tables if file.path.name not in SIDECARS)
    folders = {file.path.parent for file in found.files}
    own = {
        file for file in tables
        if stem(file.path.name) in stems or (places[file.path.name] > 1 and file.path.parent in folders)
    }  # fmt: skip
    files = sorted([*found.files, *own], key=lambda file: file.name)
    return files, [file for file in tables if file not in own]


def _named_files(files: Sequence[SourceFile]) -> list[NamedFile]:
    """Files as a layout sees them; the modality is that of most files of a suffix."""
    shared = shared_folders(files)
    voters: dict[str, list[SourceFile]] = {}
    for file in files:
        if len(of_suffix := voters.setdefault(suffix(file.path.name), [])) < _VOTERS:
            of_suffix.append(file)
    votes = {
        kind: Counter(name for file in seen if (name := modality_of_file(file.path)) and name != MULTIMODAL.name)
        for kind, seen in voters.items()
    }
    modality = {kind: counts.most_common(1)[0][0] if counts else None for kind, counts in votes.items()}
    return [
        NamedFile(
            place,
            tuple(file.name.split("/")[shared + (file.split is not None) : -1]),
            file.path.name,
            modality[suffix(file.path.name)],
            file.split or "",
        )
        for place, file in enumerate(files)
    ]


def _by_rows(
    found: Listing, files: Sequence[SourceFile], rows: GroupedFiles, context: SourceContext, inputs: Sequence[str]
) -> Listing:
    wanted = _wanted({part for row in rows.rows for part in row.parts}, inputs)
    shared = shared_folders(files)
    made = [_row(files, row, shared) for row in rows.rows]
    examples, lacking = _add_missing_parts(made, wanted, context)
    excluded = [ExcludedFile(files[place].name, "It belongs to no example, as the others lie.") for place in rows.left]
    notes = (f"Mixed rows by {rows.how}: {_join_names(wanted)}.", *_notes(lacking, len(examples)))
    return found._replace(
        files=examples,
        readable=found.readable | {context.work},
        notes=(*found.notes, *notes),
        excluded=[*found.excluded, *excluded],
    )


class _MixedExample(NamedTuple):
    """An example with the files of its parts, before what it lacks is known."""

    file: SourceFile
    parts: dict[PartName, list[tuple[str, Path]]]
    """Name below the part, empty if the part is one file; and the path."""


def _row(files: Sequence[SourceFile], row: Row, shared: int) -> _MixedExample:
    """`shared`: how many leading folders all files have in common."""
    of_it = [files[place] for places in row.parts.values() for place in places]
    first = of_it[0]
    parts = {part: _files_of(files, places) for part, places in row.parts.items()}
    above = first.name.split("/")[: shared + (first.split is not None)]
    path = first.path
    if row.is_folder:
        path = path.parents[len(first.name.split("/")) - len(above) - len(row.key) - 1]
    name = "/".join([*above, *row.key])
    folder = row.key[0] if len(row.key) > 1 else None
    also = (row.key[-1], *(each.name for each in of_it), *(each.path.name for each in of_it))
    return _MixedExample(SourceFile(path, name, first.split, folder, also=tuple(dict.fromkeys(also))), parts)


def _files_of(files: Sequence[SourceFile], places: Sequence[int]) -> list[tuple[str, Path]]:
    paths = [files[place].path for place in places]
    if len(paths) == 1:
        return [("", paths[0])]
    top = Path(os.path.commonpath([path.parent for path in paths]))
    return [(path.relative_to(top).as_posix(), path) for path in paths]


def _by_manifest(found: Listing, table: SourceFile, manifest: ManifestRows, context: SourceContext) -> Listing:
    made = [
        _MixedExample(
            SourceFile(row.path, f"{table.name}#{row.number}", None, None),
            {part: [("", path)] for part, path in row.parts.items()},
        )
        for row in manifest.rows
    ]
    examples, lacking = _add_missing_parts(made, set(manifest.parts), context)
    named = {path for row in manifest.rows for path in row.parts.values()}
    excluded = [
        ExcludedFile(file.name, f"No row of {table.name!r} names it.") for file in found.files if file.path not in named
    ]
    notes = (f"Mixed rows by {table.name!r}: {_join_names(manifest.parts)}.", *manifest.notes)
    return found._replace(
        files=examples,
        readable=found.readable | {context.work, table.path.parent},
        labels=manifest.table,
        notes=(*found.notes, *notes, *_notes(lacking, len(examples))),
        excluded=[*found.excluded, *manifest.excluded, *excluded],
    )


def _add_missing_parts(
    made: Sequence[_MixedExample], wanted: set[PartName], context: SourceContext
) -> tuple[list[SourceFile], Counter[PartName]]:
    """Adds an empty member for each part that others have, and counts them. Rows without parts are left out."""
    nothing = context.work / "nothing"
    context.work.mkdir(parents=True, exist_ok=True)
    nothing.write_bytes(b"")
    os.utime(nothing, ns=(0, 0))  # an attempt after a kill knows its bundles again by the times of their files
    examples, lacking = [], Counter[PartName]()
    for each in made:
        members = [
            (f"{part}/{name}" if name else str(part), path)
            for part, files in each.parts.items()
            if part in wanted
            for name, path in files
        ]
        if not members:
            continue
        missing = sorted(wanted - each.parts.keys())
        lacking.update(missing)
        members += [(f"{MISSING}/{part}", nothing) for part in missing]
        examples.append(each.file._replace(parts=tuple(members)))
    return examples, lacking


def _wanted(parts: set[PartName], inputs: Sequence[str]) -> set[PartName]:
    """The parts that the caller names, or all."""
    names = {part.own: part for part in sorted(parts)}
    for name in inputs:
        if name not in names:
            raise SpeciateError(
                Code.INVALID,
                f"inputs names {name!r}, and the files make the parts {', '.join(names)}; {closest(name, names)}",
                "Call again with inputs of those, or without inputs.",
            )
    return {names[name] for name in inputs} if inputs else parts


def _join_names(parts: set[PartName] | Sequence[PartName]) -> str:
    return ", ".join(part.shown for part in sorted(parts))


def _notes(lacking: Counter[PartName], count: int) -> list[str]:
    return [f"{number:,} of {count:,} rows lack the part {part.own!r}." for part, number in sorted(lacking.items())]


class ManifestRow(NamedTuple):
    number: int
    """In the table, from 1."""
    path: Path
    """Of its first part."""
    parts: dict[PartName, Path]


class ManifestRows(NamedTuple):
    rows: list[ManifestRow]
    table: pa.Table
    """The other columns, a row for each of `rows`."""
    parts: list[PartName]
    notes: list[str]
    excluded: list[ExcludedFile]


def read_manifest(
    file: SourceFile, found: Listing, context: SourceContext, inputs: Sequence[str], never: Sequence[str]
) -> ManifestRows | None:
    """Mixed rows of a table whose columns name files, relative to it, and hold texts: one row is one example.

    `inputs` names the columns that are parts; else they are those whose cells name existing files, and those of long
    text. A part is called as its column. The other columns are labels and whatever else is known of the rows. Only a
    regular file below the table's folder is a part: no `..`, no hidden folder, no link that leads out, and never the
    folder with a person's keys.

    None if the table names no files in its columns, or only labels beside them. INVALID if `inputs` names unknown
    columns.
    """
    try:
        table = ask_table(context.pool, file.path, found.reader, readable=found.readable)
    except SpeciateError:
        return None  # reading it as labels reports the fault
    folder = file.path.parent
    columns = [name for name in table.column_names if name != REASON and name not in never]
    naming = [name for name in columns if _names_files(table[name], folder)]
    if not naming:
        return None
    if inputs:
        if not set(inputs) & set(table.column_names):
            return None
        for name in inputs:
            if name not in columns:
                raise SpeciateError(
                    Code.INVALID,
                    f"inputs names {name!r}, which is no column of {file.name!r} that can be a part; "
                    f"{closest(name, columns)}",
                    "Call again with inputs naming columns of files and texts.",
                )
        chosen = list(inputs)
    else:
        chosen = naming + [name for name in columns if name not in naming and _is_long_text(table[name])]
    if len(chosen) < 2:
        return None
    return _split_into_parts(file, table, folder, [name for name in columns if name in chosen], naming, context)


def _split_into_parts(
    file: SourceFile,
    table: pa.Table,
    folder: Path,
    chosen: Sequence[str],
    naming: Sequence[str],
    context: SourceContext,
) -> ManifestRows:
    parts: dict[str, PartName] = {}
    for name in chosen:
        parts[name] = _free(_part(name, table[name], folder, is_file=name in naming), parts.values())
    texts = context.work / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    when = file.path.stat().st_mtime_ns
    cells = {name: table[name].to_pylist() for name in chosen}
    reasons = table[REASON].to_pylist() if REASON in table.column_names else [None] * table.num_rows
    rows: list[ManifestRow] = []
    places: list[int] = []
    excluded: list[ExcludedFile] = []
    lost = Counter[str]()
    for place, reason in enumerate(reasons):
        of_row: dict[PartName, Path] = {}
        for name, part in parts.items():
            path = None if reason else _path(cells[name][place], folder)
            if name not in naming:
                path = _write_text(cells[name][place], texts / f"{place}-{part.own}", when) if not reason else None
            elif path is None and cells[name][place]:
                lost[name] += 1
            if path is not None:
                of_row[part] = path
        if of_row:
            rows.append(ManifestRow(place + 1, next(iter(of_row.values())), of_row))
            places.append(place)
        else:
            excluded.append(ExcludedFile(f"{file.name}#{place + 1}", reason or "None of its parts is there."))
    rest = table.drop_columns([name for name in (*chosen, REASON) if name in table.column_names])
    notes = [
        f"{count:,} cells of {name!r} name no file below {folder.name!r}: those parts are missing."
        for name, count in lost.items()
    ]
    return ManifestRows(rows, rest.take(pa.array(places, pa.int64())), list(parts.values()), notes, excluded)


def _names_files(column: pa.ChunkedArray, folder: Path) -> bool:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    cells = [cell for cell in column.slice(0, 5 * _SAMPLE).to_pylist() if cell][:_SAMPLE]
    return bool(cells) and sum(_path(cell, folder) is not None for cell in cells) > _MOSTLY * len(cells)


def _is_long_text(column: pa.ChunkedArray) -> bool:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    cells = [cell for cell in column.slice(0, 5 * _SAMPLE).to_pylist() if cell][:_SAMPLE]
    return bool(cells) and sum(map(len, cells)) >= _LONG_TEXT * len(cells)


def _path(cell: Any, folder: Path) -> Path | None:
    """The file below the folder that a cell names."""
    if not isinstance(cell, str) or not cell.strip() or len(cell) > 4096 or "\0" in cell:
        return None
    relative = PurePosixPath(cell.strip())
    if relative.is_absolute() or any(part == ".." or part.startswith(".") for part in relative.parts):
        return None
    try:
        path = folder / relative
        real = path.resolve()
        inside = real.is_relative_to(folder.resolve()) and not real.is_relative_to(config_folder().resolve())
        return path if inside and path.is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _part(name: str, column: pa.ChunkedArray, folder: Path, *, is_file: bool) -> PartName:
    own = _UNLIKE.sub("_", name)[:40].strip("_") or "part"
    if not is_file:
        return PartName(own, "text")
    paths = [path for cell in column.to_pylist()[: 5 * _SAMPLE] if (path := _path(cell, folder))]
    counts = Counter(kind for path in paths[:25] if (kind := modality_of_file(path)))
    if not counts:
        raise SpeciateError(
            Code.INVALID,
            f"The files in column {name!r} are of no modality that there is, such as {paths[0].name!r}.",
            next=[Call("list_options", {"kind": "modality"}, ", and name in inputs the columns that are parts")],
        )
    return PartName(own, counts.most_common(1)[0][0])


def _free(part: PartName, taken: Iterable[PartName]) -> PartName:
    """A free name: columns such as `view (left)` and `view [left]` are two parts, and the second is `view_left_2`."""
    names, number, own = {each.own for each in taken}, 1, part.own
    while own in names:
        number += 1
        own = f"{part.own[:36]}_{number}"
    return part._replace(own=own)


def _write_text(cell: Any, path: Path, when: int) -> Path | None:
    """A text as a file, with the time of its table, so that an attempt after a kill recognises it."""
    if cell is None or not str(cell).strip():
        return None
    path.write_text(str(cell), encoding="utf-8", errors="replace")
    os.utime(path, ns=(when, when))
    return path
