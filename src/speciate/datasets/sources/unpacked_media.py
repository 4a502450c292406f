"""Tables whose cells hold media become a listing of those media, labelled by the other columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.sources.listing import Listing, SourceFile, lay_out
from speciate.datasets.sources.readers.choice import Reader, format_of, table_suffix
from speciate.datasets.sources.readers.rows import together
from speciate.datasets.sources.table_media import KEY, METADATA
from speciate.datasets.sources.tables import ask_table
from speciate.datasets.sources.unpacking import Desk, unpack_into
from speciate.datasets.sources.walk import SetAside, walk
from speciate.errors import Code, SpeciateError

_COLUMNS, _UNPACK = (
    "speciate.datasets.sources.table_media:media_columns",
    "speciate.datasets.sources.table_media:unpack",
)
_IN_TABLES = ("text", "tabular", "protein", "time-series")
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
            aside.append(SetAside(file.name, error.message))
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
    if not files or found.modality in _IN_TABLES or found.reader.layout is not None:
        return {}
    payload = {"paths": [str(file.path) for file in files], "modality": found.modality}
    columns: Sequence[str | None] = desk.pool.ask(_COLUMNS, payload, _SECONDS, readable=found.readable)["columns"]
    return {file.name: column for file, column in zip(files, columns, strict=True) if column is not None}
