"""Media in the cells of Parquet and Arrow files, written out as files beside a table of the other columns.

Runs in sandboxed processes. A medium is a cell of bytes, or a struct of `bytes` and `path` as Hugging Face `datasets`
writes images and audio.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.readers.formats import format_of
from speciate.datasets.readers.parquet import open_arrow, with_class_names
from speciate.datasets.readers.rows import unread_error, with_unique_names
from speciate.modalities import find, table

METADATA, KEY = "metadata.parquet", "file_name"
_ROWS = 64
"""Rows that are read at a time: media are large."""
_LONGEST = 2**31 - 1
_SAMPLE = 20
_FEATURES = ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh")


class MediaColumnRequest(TypedDict):
    path: str
    modality: str
    """Or `auto`."""


class MediaColumnAnswer(TypedDict):
    column: str | None


class CellsRequest(TypedDict):
    path: str
    column: str
    budget: NotRequired[int]
    """Bytes of all media together; `unpack_into` adds it."""


class UnpackedCells(TypedDict):
    files: list[str]
    excluded: list[tuple[str, str]]
    """Name and reason."""


def media_column(payload: MediaColumnRequest) -> MediaColumnAnswer:
    """The column with the media of a file; null without media."""
    return {"column": _media_column(Path(payload["path"]), payload["modality"])}


def unpack(payload: CellsRequest) -> UnpackedCells:
    """Media as numbered files in this process's own folder, and METADATA with the other columns of those rows and
    KEY."""
    path, column, left = Path(payload["path"]), payload["column"], int(payload["budget"])
    written, excluded, kept = list[str](), list[tuple[str, str]](), list[pa.Table]()
    row, age = 0, path.stat().st_mtime_ns
    try:
        for batch in _batches(path):
            names: list[str | None] = []
            for cell in batch[column].to_pylist():
                row += 1
                data, given = _medium(cell)
                left -= len(data or b"")
                if data is None or left < 0:
                    why = "The disk has no room for it." if left < 0 else "The cell holds no bytes."
                    excluded.append((f"{path.name}#{row}", why))
                    names.append(None)
                    continue
                name = f"{row:08}{_suffix(data, given)}"
                with open(name, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.utime(file.fileno(), ns=(age, age))  # a later attempt knows it for the same file
                names.append(name)
            there = pa.array([name is not None for name in names])
            others = with_class_names(batch.drop_columns([column])).add_column(0, KEY, pa.array(names, pa.string()))
            kept.append(with_unique_names(others).filter(there))
            written += filter(None, names)
    except (pa.ArrowException, OSError) as error:
        if not written:
            raise unread_error(path, error) from error
        excluded.append((path.name, f"It cannot be read beyond row {row}: {str(error).splitlines()[0]}."))
    if kept:
        pq.write_table(pa.concat_tables(kept), METADATA)
    return {"files": written, "excluded": excluded}


def _media_column(path: Path, modality: str) -> str | None:
    """The first column whose cells are media of the modality; of any modality if that is `auto`."""
    try:
        first = next(_batches(path), None)
    except (pa.ArrowException, OSError):
        return None  # reading it as a table reports the fault
    if first is None:
        return None
    for field in first.schema:
        if not _may_hold_media(field.type):
            continue
        cells = [data for cell in first[field.name].to_pylist()[:_SAMPLE] if (data := _medium(cell)[0])]
        if cells and (modality != "auto" or any(_modality_of(data[:4096]) for data in cells)):
            return str(field.name)
    return None


def _may_hold_media(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _medium(cell: Any) -> tuple[bytes | None, str]:
    """The bytes, and their file name."""
    if isinstance(cell, dict):
        return cell.get("bytes"), str(cell.get("path") or "")
    return cell, ""


def _suffix(data: bytes, given: str) -> str:
    """Suffix for a file: that of its given name, else that of the modality that its bytes look like."""
    suffix = PurePosixPath(given.replace("\\", "/")).suffix.lower()
    if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 8:
        return suffix
    name = _modality_of(data[:4096])
    return find(name).suffixes[0] if name else ".bin"


def _modality_of(head: bytes) -> str | None:
    return next((name for name in table() if find(name).sniff(head, "")), None)


def _batches(path: Path) -> Iterator[pa.Table]:
    """A few rows at a time, column names unique, as tables that keep the schema's metadata."""
    if format_of(path.name) == "parquet":
        file = pq.ParquetFile(path, memory_map=True)
        for batch in file.iter_batches(batch_size=_ROWS):
            yield with_unique_names(pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata))
        return
    with open_arrow(path) as reader:
        count = getattr(reader, "num_record_batches", None)
        batches = reader if count is None else map(reader.get_batch, range(count))
        for batch in batches:
            batch.validate(full=True)  # it trusts what the file says of its buffers, and crashes where that is wrong
            for start in range(0, batch.num_rows, _ROWS):
                yield with_unique_names(pa.Table.from_batches([batch.slice(start, _ROWS)]))
