"""Mixed rows from files: those that are one example together (mixed_layouts.py), or that a table brings together
(mixed_manifests.py), as one bundle each; and what a row lacks that others have.

Only for sources that somebody calls `multimodal`, bundles and our own exports: a folder of pictures with a table of
captions stays a dataset of pictures.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.sources.exported import SIDECARS
from speciate.datasets.sources.gathering.mixed_layouts import (
    Grouped,
    Named,
    Row,
    by_folders,
    by_keys,
    grouped,
    stem,
    suffix,
)
from speciate.datasets.sources.gathering.mixed_manifests import Manifested, manifested
from speciate.datasets.sources.listing import Listing, SourceFile, modality_of_file, shared_folders
from speciate.datasets.sources.unpacking import Desk
from speciate.datasets.sources.walk import SetAside
from speciate.errors import Code, SpeciateError, closest
from speciate.modalities.mixed.multimodal import MISSING, MULTIMODAL, PartName

_SHARDS = "webdataset"
"""The format of exports whose parts share a key instead of a folder."""
_VOTERS = 25
"""Files of a suffix that are looked at to tell its modality."""


class Gathered(NamedTuple):
    listing: Listing
    tables: list[SourceFile]
    """Those that are no part of an example and made none: they may hold labels."""


def gather(
    found: Listing, tables: Sequence[SourceFile], desk: Desk, inputs: Sequence[str], never: Sequence[str]
) -> Gathered:
    """The listing with an entry for each mixed row. `inputs`: the parts that are wanted; none: all. `never`: columns of
    tables that are no parts. INVALID where no files belong together."""
    whole = [file for file in found.files if file.name.lower().endswith(MULTIMODAL.suffixes)]
    if whole and len(whole) == len(found.files):
        return Gathered(found, list(tables))
    for table in tables if found.marker is None else ():
        manifest = manifested(table, found, desk, inputs, never)
        if manifest is not None:
            return Gathered(_by_manifest(found, table, manifest, desk), [each for each in tables if each != table])
    files, tables = _with_parts_among(found, tables)
    named = _named(files)
    if found.marker is None:
        rows = grouped(named)
    else:
        rows = by_folders(named) if found.marker.format != _SHARDS else by_keys(named)
    if rows is None or not rows.rows:
        raise SpeciateError(
            Code.INVALID,
            f"No files of {found.source.name!r} belong together as mixed rows: none share their name without the "
            "suffix, none lie in a folder for each example, and no table names files in its columns.",
            "Give files of one example the same name (0001.png, 0001.txt), a folder each, or a table with their paths, "
            "then call create_dataset again; or name the modality that they all have.",
        )
    return Gathered(_by_rows(found, files, rows, desk, inputs), list(tables))


def hint(found: Listing) -> str:
    """Of media that were taken for examples of one modality: the call that reads them as mixed rows, where at least
    half of the files have company of another modality, in two rows or more. Empty where they have not."""
    named = _named(found.files)
    if len({file.modality for file in named} - {None}) < 2:
        return ""
    layout = grouped(named)
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
    """Of several modalities, and of none more than two parts: that would be a folder of pictures and what is said of
    all of them."""
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


def _named(files: Sequence[SourceFile]) -> list[Named]:
    """What a layout must know, the modality by what most files of a suffix look like."""
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
        Named(
            place,
            tuple(file.name.split("/")[shared + (file.split is not None) : -1]),
            file.path.name,
            modality[suffix(file.path.name)],
            file.split or "",
        )
        for place, file in enumerate(files)
    ]


def _by_rows(found: Listing, files: Sequence[SourceFile], rows: Grouped, desk: Desk, inputs: Sequence[str]) -> Listing:
    wanted = _wanted({part for row in rows.rows for part in row.parts}, inputs)
    shared = shared_folders(files)
    made = [_row(files, row, shared) for row in rows.rows]
    examples, lacking = _complete(made, wanted, desk)
    aside = [SetAside(files[place].name, "It belongs to no example, as the others lie.") for place in rows.left]
    notes = (f"Mixed rows by {rows.how}: {_listed(wanted)}.", *_notes(lacking, len(examples)))
    return found._replace(
        files=examples,
        readable=found.readable | {desk.work},
        notes=(*found.notes, *notes),
        set_aside=[*found.set_aside, *aside],
    )


class _Made(NamedTuple):
    """An example with the files of its parts, before what it lacks is known."""

    file: SourceFile
    parts: dict[PartName, list[tuple[str, Path]]]
    """Name below the part, empty where the part is one file; and the path."""


def _row(files: Sequence[SourceFile], row: Row, shared: int) -> _Made:
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
    return _Made(SourceFile(path, name, first.split, folder, also=tuple(dict.fromkeys(also))), parts)


def _files_of(files: Sequence[SourceFile], places: Sequence[int]) -> list[tuple[str, Path]]:
    paths = [files[place].path for place in places]
    if len(paths) == 1:
        return [("", paths[0])]
    top = Path(os.path.commonpath([path.parent for path in paths]))
    return [(path.relative_to(top).as_posix(), path) for path in paths]


def _by_manifest(found: Listing, table: SourceFile, manifest: Manifested, desk: Desk) -> Listing:
    made = [
        _Made(
            SourceFile(row.path, f"{table.name}#{row.number}", None, None),
            {part: [("", path)] for part, path in row.parts.items()},
        )
        for row in manifest.rows
    ]
    examples, lacking = _complete(made, set(manifest.parts), desk)
    named = {path for row in manifest.rows for path in row.parts.values()}
    aside = [
        SetAside(file.name, f"No row of {table.name!r} names it.") for file in found.files if file.path not in named
    ]
    notes = (f"Mixed rows by {table.name!r}: {_listed(manifest.parts)}.", *manifest.notes)
    return found._replace(
        files=examples,
        readable=found.readable | {desk.work, table.path.parent},
        labels=manifest.table,
        notes=(*found.notes, *notes, *_notes(lacking, len(examples))),
        set_aside=[*found.set_aside, *manifest.set_aside, *aside],
    )


def _complete(made: Sequence[_Made], wanted: set[PartName], desk: Desk) -> tuple[list[SourceFile], Counter[PartName]]:
    """With an empty member for each part that others have; how many lack each. Rows without any are left out."""
    nothing = desk.work / "nothing"
    desk.work.mkdir(parents=True, exist_ok=True)
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
    """Those that the caller names, or all."""
    names = {part.own: part for part in sorted(parts)}
    for name in inputs:
        if name not in names:
            raise SpeciateError(
                Code.INVALID,
                f"inputs names {name!r}, and the files make the parts {', '.join(names)}; {closest(name, names)}",
                "Call again with inputs of those, or without inputs.",
            )
    return {names[name] for name in inputs} if inputs else parts


def _listed(parts: set[PartName] | Sequence[PartName]) -> str:
    return ", ".join(part.shown for part in sorted(parts))


def _notes(lacking: Counter[PartName], count: int) -> list[str]:
    return [f"{number:,} of {count:,} rows lack the part {part.own!r}." for part, number in sorted(lacking.items())]
