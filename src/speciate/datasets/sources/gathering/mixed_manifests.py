"""Mixed rows from a table whose columns name files, relative to it, and hold texts: a row is an example.

Which columns are parts is said by `inputs`; else those whose cells name files that are there, and those of long text.
The other columns are labels and whatever else is known of the rows. A part is called as its column.

Nothing but a regular file below the table's folder is a part: no `..`, no hidden folder, no link that leads out, and
never the folder with a person's keys.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets.sources.listing import Listing, SourceFile, modality_of_file
from speciate.datasets.sources.readers.rows import REASON
from speciate.datasets.sources.tables import ask_table
from speciate.datasets.sources.unpacking import Desk
from speciate.datasets.sources.walk import SetAside
from speciate.errors import Code, SpeciateError, closest
from speciate.modalities.mixed.multimodal import PartName
from speciate.settings import config_folder

_SAMPLE = 200
_MOSTLY = 0.5
"""Of the cells that are looked at, so many must name files: others may name some that got lost."""
_LONG_TEXT = 20
"""Characters on average."""
_UNLIKE = re.compile(r"[^\w-]+")


class ManifestRow(NamedTuple):
    number: int
    """In the table, from 1."""
    path: Path
    """Of its first part."""
    parts: dict[PartName, Path]


class Manifested(NamedTuple):
    rows: list[ManifestRow]
    table: pa.Table
    """The other columns, a row for each of `rows`."""
    parts: list[PartName]
    notes: list[str]
    set_aside: list[SetAside]


def manifested(
    file: SourceFile, found: Listing, desk: Desk, inputs: Sequence[str], never: Sequence[str]
) -> Manifested | None:
    """What a table brings together; None where it names no files in its columns, or nothing but labels beside them.

    INVALID where `inputs` names columns of which it lacks some.
    """
    try:
        table = ask_table(desk.pool, file.path, found.reader, readable=found.readable)
    except SpeciateError:
        return None  # whoever reads it as labels says what is wrong with it
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
    return _taken_apart(file, table, folder, [name for name in columns if name in chosen], naming, desk)


def _taken_apart(
    file: SourceFile, table: pa.Table, folder: Path, chosen: Sequence[str], naming: Sequence[str], desk: Desk
) -> Manifested:
    parts: dict[str, PartName] = {}
    for name in chosen:
        parts[name] = _free(_part(name, table[name], folder, is_file=name in naming), parts.values())
    texts = desk.work / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    when = file.path.stat().st_mtime_ns
    cells = {name: table[name].to_pylist() for name in chosen}
    reasons = table[REASON].to_pylist() if REASON in table.column_names else [None] * table.num_rows
    rows: list[ManifestRow] = []
    places: list[int] = []
    aside: list[SetAside] = []
    lost = Counter[str]()
    for place, reason in enumerate(reasons):
        of_row: dict[PartName, Path] = {}
        for name, part in parts.items():
            path = None if reason else _path(cells[name][place], folder)
            if name not in naming:
                path = _written(cells[name][place], texts / f"{place}-{part.own}", when) if not reason else None
            elif path is None and cells[name][place]:
                lost[name] += 1
            if path is not None:
                of_row[part] = path
        if of_row:
            rows.append(ManifestRow(place + 1, next(iter(of_row.values())), of_row))
            places.append(place)
        else:
            aside.append(SetAside(f"{file.name}#{place + 1}", reason or "None of its parts is there."))
    rest = table.drop_columns([name for name in (*chosen, REASON) if name in table.column_names])
    notes = [
        f"{count:,} cells of {name!r} name no file below {folder.name!r}: those parts are missing."
        for name, count in lost.items()
    ]
    return Manifested(rows, rest.take(pa.array(places, pa.int64())), list(parts.values()), notes, aside)


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
            "Call list_options(kind='modality'), and name in inputs the columns that are parts.",
        )
    return PartName(own, counts.most_common(1)[0][0])


def _free(part: PartName, taken: Iterable[PartName]) -> PartName:
    """Columns such as `view (left)` and `view [left]` are two parts: the second is `view_left_2`."""
    names, number, own = {each.own for each in taken}, 1, part.own
    while own in names:
        number += 1
        own = f"{part.own[:36]}_{number}"
    return part._replace(own=own)


def _written(cell: Any, path: Path, when: int) -> Path | None:
    """A text in a file of its own, with the time of its table: by that an attempt after a kill knows it again."""
    if cell is None or not str(cell).strip():
        return None
    path.write_text(str(cell), encoding="utf-8", errors="replace")
    os.utime(path, ns=(when, when))
    return path
