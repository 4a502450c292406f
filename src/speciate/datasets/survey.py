"""Every item of a source with what was found out about it, read in caged processes.

An item whose process dies (a crash of the decoder, memory beyond the limit) is found by asking again one by one, and
becomes an error with that reason; the others do not suffer from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.columns import array
from speciate.datasets.reading import REASON, from_rows
from speciate.datasets.sources import TABLES, Listing, SourceFile, normal_split
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool

_CHUNK = 64
"""Media per question to a process."""
_MEDIA_SECONDS, _TABLE_SECONDS = 120.0, 600.0
_READ_MEDIA, _READ_TABLE = "speciate.datasets.reading:read_media", "speciate.datasets.reading:read_table"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Survey:
    """Lists are parallel: one entry per item, in the order of the source."""

    modality: str
    """`auto`: the cells must tell."""
    table: pa.Table
    """The user's columns."""
    sources: list[str]
    """Path below the source, for rows of a table with `#` and the row's number."""
    splits: list[str | None]
    folders: list[str | None]
    qualities: list[str]
    reasons: list[str | None]
    contents: list[str | None]
    """Media: sha256 of the file. Tables: None."""
    fingerprints: list[str | None]
    paths: list[Path]
    """Media: the files. Tables: empty."""


def survey_media(found: Listing, pool: Pool, progress: Progress) -> Survey:
    """Every file is one item."""
    files = found.files
    chunks = [files[i : i + _CHUNK] for i in range(0, len(files), _CHUNK)]
    items: list[dict[str, Any]] = []
    with ThreadPoolExecutor(pool.size, thread_name_prefix="ingest") as threads:
        for answer in threads.map(lambda chunk: _ask_media(pool, found, chunk), chunks):
            items += answer
            progress(len(items), len(files))
    fields = [item["fields"] | {"bytes": item.get("bytes")} for item in items]
    return Survey(
        modality=found.modality,
        table=from_rows(fields),
        sources=[file.name for file in files],
        splits=[file.split for file in files],
        folders=[file.folder for file in files],
        qualities=[item["quality"] for item in items],
        reasons=[item["reason"] for item in items],
        contents=[item["sha256"] for item in items],
        fingerprints=[item["fingerprint"] for item in items],
        paths=[file.path for file in files],
    )


def _ask_media(pool: Pool, found: Listing, files: Sequence[SourceFile]) -> list[dict[str, Any]]:
    payload = {"modality": found.modality, "files": [str(file.path) for file in files]}
    try:
        answer = pool.ask(_READ_MEDIA, payload, _MEDIA_SECONDS, readable=frozenset((found.source,)))
    except SpeciateError as error:
        if error.code is Code.UNAVAILABLE and len(files) > 1:
            return [item for file in files for item in _ask_media(pool, found, [file])]
        reason = f"The decoder failed on this file: {error.message}"
        failed: dict[str, Any] = {
            "quality": "error",
            "reason": reason,
            "fields": {},
            "sha256": None,
            "fingerprint": None,
        }
        return [failed for _ in files]
    items: list[dict[str, Any]] = answer["items"]
    return items


def survey_tables(found: Listing, pool: Pool, progress: Progress) -> Survey:
    """Every row of every file is one item. A file that cannot be read at all is one item of quality error."""
    files = found.files
    tables: list[pa.Table] = []
    with ThreadPoolExecutor(pool.size, thread_name_prefix="ingest") as threads:
        for table in threads.map(lambda file: _ask_table(pool, found.source, file, alone=len(files) == 1), files):
            tables.append(table)
            progress(len(tables), len(files))
    places = [
        (file, f"{file.name}#{row}")
        for file, table in zip(files, tables, strict=True)
        for row in range(1, table.num_rows + 1)
    ]
    return _survey_rows(
        _together(tables),
        modality=found.modality,
        sources=[source for _, source in places],
        splits=[file.split for file, _ in places],
        folders=[file.folder for file, _ in places],
    )


def survey_rows(rows: list[dict[str, Any]], modality: str) -> Survey:
    """Rows that came with the call."""
    count = len(rows)
    return _survey_rows(
        from_rows(rows),
        modality=modality,
        sources=[f"rows#{i}" for i in range(1, count + 1)],
        splits=[None] * count,
        folders=[None] * count,
    )


def _survey_rows(
    table: pa.Table, modality: str, sources: list[str], splits: list[str | None], folders: list[str | None]
) -> Survey:
    reasons: list[str | None] = [None] * table.num_rows
    if REASON in table.column_names:
        reasons = table[REASON].to_pylist()
        table = table.drop_columns([REASON])
    if "split" in table.column_names:
        splits = [normal_split(name) or split for name, split in zip(table["split"].to_pylist(), splits, strict=True)]
        table = table.drop_columns(["split"])
    nothing: list[str | None] = [None] * table.num_rows
    return Survey(
        modality=modality,
        table=table,
        sources=sources,
        splits=splits,
        folders=folders,
        qualities=["ok" if reason is None else "error" for reason in reasons],
        reasons=reasons,
        contents=nothing,
        fingerprints=list(nothing),
        paths=[],
    )


def _read_parquet(path: Path, answer: dict[str, Any]) -> pa.Table:
    return pq.read_table(path)


def ask_table(pool: Pool, path: Path, text: Sequence[str] = ()) -> pa.Table:
    """A table file, read in the cage; columns of `text` as they are written, so that `007` stays `007`."""
    return _ask_table(pool, path, SourceFile(path, path.name, None, None), alone=True, text=text)


def _ask_table(pool: Pool, source: Path, file: SourceFile, *, alone: bool, text: Sequence[str] = ()) -> pa.Table:
    payload = {"path": str(file.path), "format": TABLES[file.path.suffix.lower()], "text": list(text)}
    try:
        return pool.ask_for_file(_READ_TABLE, payload, _read_parquet, _TABLE_SECONDS, readable=frozenset((source,)))
    except SpeciateError as error:
        if alone:
            raise
        return pa.table({REASON: pa.array([error.message], pa.string())})


def _together(tables: list[pa.Table]) -> pa.Table:
    """One table; a column whose types differ between files becomes text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        names = dict.fromkeys(name for table in tables for name in table.column_names)
        return pa.table({name: _column(tables, name) for name in names})


def _column(tables: list[pa.Table], name: str) -> pa.Array:
    values = [
        value
        for table in tables
        for value in (table[name].to_pylist() if name in table.column_names else [None] * table.num_rows)
    ]
    return array(values)
