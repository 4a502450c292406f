"""Mixed rows from files: files that are one example together (mixed_layouts.py), or that a table combines, as one
bundle each.

Only for sources declared `multimodal`, bundles and our own exports: a folder of images with a table of captions stays a
dataset of images.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.gathering.manifests import MOST_TABLES, ManifestRows, read_manifest
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
from speciate.datasets.readers.rows import concatenate
from speciate.datasets.sources.listing import (
    ExcludedFile,
    Listing,
    SourceFile,
    modality_of_file,
    shared_folders,
    split_of_file,
)
from speciate.datasets.sources.own_export import SIDECARS
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.errors import Code, SpeciateError, closest
from speciate.modalities.multimodal import MISSING, MULTIMODAL, PartName

_SHARDS = "webdataset"
"""The format of exports whose parts share a key instead of a folder."""
_VOTERS = 25
"""Files of a suffix that are opened to decide its modality."""


class MixedListing(NamedTuple):
    listing: Listing
    tables: list[SourceFile]
    """Tables that are no part of an example and made none: they may hold labels."""


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
    if found.marker is None and (manifests := _manifests(found, tables, context, inputs, never)):
        return MixedListing(_by_manifests(found, manifests, context), [t for t in tables if t not in manifests])
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


def _manifests(
    found: Listing, tables: Sequence[SourceFile], context: SourceContext, inputs: Sequence[str], never: Sequence[str]
) -> dict[SourceFile, ManifestRows]:
    """The first table that makes mixed rows and those with the same parts, such as `train.csv` and `test.csv`."""
    made: dict[SourceFile, ManifestRows] = {}
    for table in tables[:MOST_TABLES]:
        try:
            rows = read_manifest(table, found, context, inputs, never)
        except SpeciateError:
            if not made:
                raise
            continue  # it is about other files than the first
        if rows is not None and (not made or set(rows.parts) == set(next(iter(made.values())).parts)):
            made[table] = rows
    return made


def _by_manifests(found: Listing, manifests: Mapping[SourceFile, ManifestRows], context: SourceContext) -> Listing:
    splits = {table: split_of_file(stem(table.path.name)) for table in manifests}
    if len(set(splits.values()) - {None}) < 2:
        splits = dict.fromkeys(manifests)
    made = [
        _MixedExample(
            SourceFile(row.path, f"{table.name}#{row.number}", splits[table], None),
            {part: [("", path)] for part, path in row.parts.items()},
        )
        for table, manifest in manifests.items()
        for row in manifest.rows
    ]
    parts = next(iter(manifests.values())).parts
    examples, lacking = _add_missing_parts(made, set(parts), context)
    named = {path for manifest in manifests.values() for row in manifest.rows for path in row.parts.values()}
    names = ", ".join(repr(table.name) for table in manifests)
    excluded = [
        ExcludedFile(file.name, f"No row of {names} names it.") for file in found.files if file.path not in named
    ]
    notes = (
        f"Mixed rows by {names}: {_join_names(parts)}.",
        *(note for manifest in manifests.values() for note in manifest.notes),
    )
    return found._replace(
        files=examples,
        readable=found.readable | {context.work, *(table.path.parent for table in manifests)},
        labels=concatenate([manifest.table for manifest in manifests.values()]),
        notes=(*found.notes, *notes, *_notes(lacking, len(examples))),
        excluded=[*found.excluded, *(each for m in manifests.values() for each in m.excluded), *excluded],
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
