"""Tables that name files: which of their columns do, how a source with one is meant, and the rows that it makes.

A cell names a file relative to its table. Only a regular file below the table's folder counts: no `..`, no hidden
folder, no link that leads out, and never the folder with a person's keys.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets.columns import clean
from speciate.datasets.readers.formats import Reader
from speciate.datasets.readers.rows import REASON
from speciate.datasets.sources.listing import (
    IN_TABLES,
    ExcludedFile,
    Listing,
    SourceFile,
    modality_of_file,
    name_below,
    named_files,
    with_splits,
)
from speciate.datasets.sources.sandbox_calls import SourceContext, ask_head, ask_table
from speciate.environment import config_folder
from speciate.errors import Call, Code, SpeciateError, closest
from speciate.modalities.multimodal import MULTIMODAL, PartName

_SAMPLE = 200
_MOSTLY = 0.5
"""Share of the sampled cells that must name files: others may name lost files."""
_LONG_TEXT = 20
"""Characters on average."""
MOST_TABLES = 8
"""Most tables of a source whose heads are read to find a manifest; a dataset in shards has more."""
_FIRST, _MOST_COLUMNS = 20, 50
"""Cells that are looked at before a file is looked for; and columns, at most."""
_SUFFIX = re.compile(r"\.\w{1,8}$")
_UNLIKE = re.compile(r"[^\w-]+")
_VOTERS = 25
"""Files that are opened to decide the modality of a column."""
_FOUND = ("caption", "transcription", "transcript", "sentence", "completion", "answer", "response", "output")
"""Columns of texts that a model should find: beside one column of files they make no mixed rows."""
FILE_NAME = "file_name"
"""A column of this name says that the others are labels, as in the folders of Hugging Face."""


class _Folder:
    """The folder of a table; folders below it are looked up once, and not for each cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real, self._keys = os.path.realpath(path), os.path.realpath(config_folder())
        self._known: dict[Path, bool] = {}

    def holds(self, path: Path) -> bool:
        """Whether that is a regular file below the folder. OSError or ValueError if there is none of that name."""
        if (inside := self._known.get(path.parent)) is None:
            inside = self._known[path.parent] = self._is_inside(os.path.realpath(path.parent))
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return self._is_inside(os.path.realpath(path)) and path.is_file()
        return inside and stat.S_ISREG(mode)

    def _is_inside(self, real: str) -> bool:
        return _is_within(real, self._real) and not _is_within(real, self._keys)


class FileColumns(NamedTuple):
    """The columns of a table that a model may see."""

    head: pa.Table
    naming: list[str]
    """Columns whose cells name existing files of a modality."""
    texts: list[str]
    """Long texts."""


class RecognisedManifest(NamedTuple):
    listing: Listing
    tables: list[SourceFile]
    guess: str
    """How the source is understood, and the argument that would change it."""
    naming: Mapping[SourceFile, str] = MappingProxyType({})
    """Table -> its column with the files, where these are the examples."""


def recognise(
    found: Listing,
    tables: Sequence[SourceFile],
    context: SourceContext,
    modality: str,
    inputs: Sequence[str],
    never: Sequence[str],
) -> RecognisedManifest | None:
    """How a source is meant whose tables name files that exist; None if none does.

    Several columns of files, or files and long texts, make mixed rows; one column makes examples of those files, with
    the other columns as labels. `tables`: those that lie among media; `modality`: the caller's, or `auto`. The heads of
    tables decide.
    """
    if modality == MULTIMODAL.name or modality in IN_TABLES:
        return None
    candidates = list(found.files if found.layout == "table" else tables)
    if found.reader._replace(as_is=False) != Reader() or not 0 < len(candidates) <= MOST_TABLES:
        return None
    columns = {table: _columns_of_head(table, found, context, inputs, never) for table in candidates}
    naming = {table: each for table, each in columns.items() if each.naming}
    if not naming:
        return None
    first = next(iter(naming.values()))
    parts = [*first.naming, *first.texts]
    seen = [name for name in parts if name.lower() not in _FOUND]
    if modality == "auto" and len(seen) > 1 and FILE_NAME not in first.naming:
        texts = f" and holds texts in {_join(first.texts)}" if first.texts else ""
        guess = (
            f"A table names files in {_join(first.naming)}{texts}, so each row is one example of {len(parts)} parts. "
            "For fewer parts, call create_dataset again with inputs=[...]; for the table alone, with "
            "modality='tabular'."
        )
        return RecognisedManifest(_of_tables(found, naming, MULTIMODAL.name), list(tables or naming), guess)
    if found.layout != "table":
        return None  # it labels the media beside it
    return _as_media(found, naming, modality, inputs)


def _as_media(
    found: Listing, naming: Mapping[SourceFile, FileColumns], modality: str, inputs: Sequence[str]
) -> RecognisedManifest | None:
    """The files that a column of each table names, as examples labelled by the tables; None if they are of several
    modalities."""
    chosen: dict[SourceFile, str] = {}
    for table, columns in naming.items():
        folder = _Folder(table.path.parent)
        kinds = {name: _modality_of_files(columns.head[name], folder) for name in columns.naming}
        modality = next(iter(kinds.values())) or modality if modality == "auto" else modality
        if (name := next((name for name, kind in kinds.items() if kind == modality), None)) is None:
            return None
        chosen[table] = name
    first = next(iter(chosen.values()))
    guess = (
        f"A table names files in {clean(first)!r}: each is one example of {modality}, and the other columns are about "
        "it. For the table alone, call create_dataset again with modality='tabular'"
    )
    beside = [clean(name) for name in inputs if name != first]
    guess += f"; for mixed rows with {_join(beside)}, with modality='{MULTIMODAL.name}'." if beside else "."
    return RecognisedManifest(_of_tables(found, naming, modality), list(chosen), guess, chosen)


def listed_files(recognised: RecognisedManifest, context: SourceContext) -> Listing:
    """The listing with the files that the tables name, each once. Raises what reading a table raises."""
    found = recognised.listing
    root = found.source if found.source.is_dir() else found.source.parent
    paths: dict[Path, None] = {}
    for table, column in recognised.naming.items():
        cells = ask_table(context.pool, table.path, readable=found.readable, text=[column])[column].to_pylist()
        folder = _Folder(table.path.parent)
        paths |= dict.fromkeys(path for cell in cells if (path := _path(cell, folder)) is not None)
    top = root if all(path.is_relative_to(root) for path in paths) else next(iter(recognised.naming)).path.parent
    files = named_files((path, name_below(top, path)) for path in paths if path.is_relative_to(top))
    return found._replace(source=top, files=with_splits(files, "media"))


def _of_tables(found: Listing, naming: Iterable[SourceFile], modality: str) -> Listing:
    """The listing as one of media; what the tables name may be read."""
    folders = frozenset(table.path.parent for table in naming)
    files = [] if found.layout == "table" else found.files
    return found._replace(layout="media", modality=modality, files=files, readable=found.readable | folders)


def _columns_of_head(
    table: SourceFile, found: Listing, context: SourceContext, inputs: Sequence[str], never: Sequence[str]
) -> FileColumns:
    try:
        head = ask_head(context.pool, table.path, readable=found.readable)
        head = head.select([name for name in head.column_names if _may_matter(head[name])][:_MOST_COLUMNS])
    except SpeciateError:
        return FileColumns(pa.table({}), [], [])  # reading it whole reports the fault
    return _file_columns(head, _Folder(table.path.parent), inputs, never)


def _may_matter(column: pa.ChunkedArray) -> bool:
    """Whether its first cells are texts of which most end like file names, or are long: only those are looked up."""
    if not pa.types.is_string(column.type):
        return False
    cells = [cell for cell in column.slice(0, _FIRST).to_pylist() if cell]
    names = sum(_SUFFIX.search(cell) is not None for cell in cells)
    return bool(cells) and (names > _MOSTLY * len(cells) or sum(map(len, cells)) >= _LONG_TEXT * len(cells))


def _file_columns(table: pa.Table, folder: _Folder, inputs: Sequence[str], never: Sequence[str]) -> FileColumns:
    columns = [name for name in table.column_names if name != REASON and name not in never]
    naming = [name for name in columns if _names_files(table[name], folder)]
    kinds = {name for name in naming if _modality_of_files(table[name], folder)}
    texts = [name for name in columns if name not in naming and name.lower() != "label" and _is_long_text(table[name])]
    naming = [name for name in naming if name in kinds]
    if inputs:
        return FileColumns(table, [name for name in naming if name in inputs], [n for n in texts if n in inputs])
    return FileColumns(table, naming, texts)


def _join(names: Sequence[str]) -> str:
    return ", ".join(repr(clean(name)) for name in names)


class ManifestRow(NamedTuple):
    number: int
    """Number of the row in the table, from 1."""
    path: Path
    """Path of the row's first part."""
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
    folder = _Folder(file.path.parent)
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
        chosen = [*naming, *_file_columns(table, folder, (), never).texts]
    if len(chosen) < 2:
        return None
    return _split_into_parts(file, table, folder, [name for name in columns if name in chosen], naming, context)


def _split_into_parts(
    file: SourceFile,
    table: pa.Table,
    folder: _Folder,
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
        f"{count:,} cells of {name!r} name no file below {folder.path.name!r}: those parts are missing."
        for name, count in lost.items()
    ]
    return ManifestRows(rows, rest.take(pa.array(places, pa.int64())), list(parts.values()), notes, excluded)


def outside_remark(table: pa.Table, source: Path) -> str:
    """A sentence where a column of a table names files that lie outside of its folder, which are never followed: with
    the call that reads them. Empty where none does. No file is looked for."""
    for name in table.column_names[:_MOST_COLUMNS]:
        column = table[name]
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        cells = [cell for cell in column.slice(0, 5 * _SAMPLE).to_pylist() if cell][:_SAMPLE]
        outside = [cell for cell in cells if _leads_out(cell)]
        if outside and len(outside) > _MOSTLY * len(cells):
            return (
                f"The column {clean(name)!r} names files outside the folder of {clean(source.name)!r}, as by '../': "
                "these are not followed, and the table is read as it is. To read the files, call create_dataset again "
                f"with source='FOLDER OF THE FILES' and labels={{'path': {str(source)!r}, 'key': {clean(name)!r}, "
                "'column': LABEL}, or put the table into their folder."
            )
    return ""


def _leads_out(cell: str) -> bool:
    """Whether a cell is a path with a suffix, to somewhere above its folder or from the root."""
    path = PurePosixPath(cell.strip().replace("\\", "/"))
    return len(cell) <= 4096 and bool(_SUFFIX.search(path.name)) and (path.is_absolute() or ".." in path.parts[:-1])


def _names_files(column: pa.ChunkedArray, folder: _Folder) -> bool:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    cells = [cell for cell in column.slice(0, 5 * _SAMPLE).to_pylist() if cell][:_SAMPLE]
    return bool(cells) and sum(_path(cell, folder) is not None for cell in cells) > _MOSTLY * len(cells)


def _is_long_text(column: pa.ChunkedArray) -> bool:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    cells = [cell for cell in column.slice(0, 5 * _SAMPLE).to_pylist() if cell][:_SAMPLE]
    return bool(cells) and sum(map(len, cells)) >= _LONG_TEXT * len(cells)


def _path(cell: Any, folder: _Folder) -> Path | None:
    """The file below the folder that a cell names."""
    if not isinstance(cell, str) or not cell.strip() or len(cell) > 4096 or "\0" in cell:
        return None
    relative = PurePosixPath(cell.strip())
    if relative.is_absolute() or any(part == ".." or part.startswith(".") for part in relative.parts):
        return None
    try:
        path = folder.path / relative
        return path if folder.holds(path) else None
    except (OSError, ValueError):
        return None


def _is_within(real: str, folder: str) -> bool:
    return real == folder or real.startswith(folder if folder.endswith(os.sep) else folder + os.sep)


def _part(name: str, column: pa.ChunkedArray, folder: _Folder, *, is_file: bool) -> PartName:
    own = _UNLIKE.sub("_", name)[:40].strip("_") or "part"
    if not is_file:
        return PartName(own, "text")
    modality = _modality_of_files(column, folder)
    if modality is None:
        raise SpeciateError(
            Code.INVALID,
            f"The files in column {name!r} are of no modality that there is.",
            next=[Call("list_options", {"kind": "modality"}, ", and name in inputs the columns that are parts")],
        )
    return PartName(own, modality)


def _modality_of_files(column: pa.ChunkedArray, folder: _Folder) -> str | None:
    paths = [path for cell in column.to_pylist()[: 5 * _SAMPLE] if (path := _path(cell, folder))]
    counts = Counter(kind for path in paths[:_VOTERS] if (kind := modality_of_file(path)))
    return counts.most_common(1)[0][0] if counts else None


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
