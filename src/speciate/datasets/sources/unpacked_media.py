"""Tables whose cells hold media become a listing of those media, labelled by the other columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.sources.listing import IN_TABLES, Listing, SourceFile, lay_out
from speciate.datasets.sources.readers.choice import Reader, format_of, table_suffix
from speciate.datasets.sources.readers.rows import together
from speciate.datasets.sources.table_media import KEY, METADATA
from speciate.datasets.sources.tables import ask_table
from speciate.datasets.sources.unpacking import Desk, unpack_into
from speciate.datasets.sources.walk import SetAside, walk
from speciate.errors import Code, SpeciateError

_COLUMN = "speciate.datasets.sources.table_media:media_column"
_UNPACK = "speciate.datasets.sources.table_media:unpack"
_SECONDS = 300.0


def with_media_of_tables(found: Listing, desk: Desk) -> Listing:
    """The listing itself where no table holds media of its modality."""
    columns = _media_columns(found, desk)
    if not columns:
        return found
    aside = [
        SetAside(file.name, "A table without media; others here hold media.")
        for file in found.files
        if file.name not in columns
    ]
    media: list[SourceFile] = []
    labels: list[pa.Table] = []
    readable = set(found.readable)
    for number, file in enumerate(file for file in found.files if file.name in columns):
        target = desk.work / f"table-{number:04}"
        payload = {"path": str(file.path), "column": columns[file.name]}
        try:
            answer = unpack_into(target, _UNPACK, payload, readable=found.readable, desk=desk)
            table = ask_table(desk.pool, target / METADATA, readable=[target])
        except SpeciateError as error:
            aside.append(SetAside(file.name, error.whole))
            continue
        written = {path.name for path in walk(target, links=False).files if path.parent == target}
        table = table.filter(pc.is_in(table[KEY], pa.array(sorted(written), pa.string())))
        prefix = file.name.removesuffix(table_suffix(file.name))
        media += [
            SourceFile(target / name, f"{prefix}/{name}", file.split, file.folder) for name in table[KEY].to_pylist()
        ]
        labels.append(table.drop_columns([KEY]))
        aside += [SetAside(str(name), str(reason)) for name, reason in answer["set_aside"]]
        readable.add(target)
    if not media:
        name, reason = aside[0]
        raise SpeciateError(
            Code.INVALID,
            f"No table holds a medium that can be read; {name!r}: {reason}",
            "Mend the tables first.",
        )
    modality = lay_out(found.source, media, found.modality, Reader()).listing.modality
    return found._replace(
        layout="media",
        modality=modality,
        files=media,
        readable=frozenset(readable),
        labels=together(labels),
        set_aside=[*found.set_aside, *aside],
    )


def _media_columns(found: Listing, desk: Desk) -> dict[str, str]:
    """Name of a table -> the column of its media."""
    files = [file for file in found.files if format_of(file.path.name) in ("parquet", "arrow")]
    if not files or found.modality in IN_TABLES or found.reader.layout is not None:
        return {}
    columns = {file.name: _media_column(file.path, found, desk) for file in files}
    return {name: column for name, column in columns.items() if column is not None}


def _media_column(path: Path, found: Listing, desk: Desk) -> str | None:
    """None also where the file is damaged: reading it as a table says what is wrong."""
    payload = {"path": str(path), "modality": found.modality}
    try:
        column: str | None = desk.pool.ask(_COLUMN, payload, _SECONDS, readable=found.readable)["column"]
    except SpeciateError as error:
        if error.code in (Code.INTERNAL, Code.UNAVAILABLE):  # a defect or the end of the process, by this file
            return None
        raise
    return column
