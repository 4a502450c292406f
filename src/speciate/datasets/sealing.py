"""Rows as Parquet that never changes again, named by its content; and the digest of each row."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.columns import PROVENANCE
from speciate.workspace.blobs import write_durably

_ROW_GROUP = 122_880
"""DuckDB's own size: as many threads read a file as it has row groups."""
_BATCH = 16_384


def seal(table: pa.Table, folder: Path) -> Path:
    """The path of the sealed file in `folder`, on disk and read-only on return. The same rows: the same file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=_ROW_GROUP)
    return keep(buffer.getvalue(), folder)


def keep(data: bytes, folder: Path) -> Path:
    """As `seal`, for the bytes of a Parquet file."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    if not target.exists():
        write_durably(target, data)
        target.chmod(0o444)
    else:
        os.utime(target)  # it may have been garbage until now: it is as young as what names it
    return target


def digests(table: pa.Table) -> Iterator[bytes]:
    """sha256 of each row: content, label, group, split, quality and the user's columns; not its provenance.

    Neither an empty cell nor the type of a numeric column makes another row: both change when rows are added.
    """
    names = [name for name in sorted(table.column_names) if name not in PROVENANCE]
    fractions = {name for name in names if pa.types.is_floating(table.schema.field(name).type)}
    for batch in table.select(names).to_batches(_BATCH):
        columns = [_plain(batch[name].to_pylist()) if name in fractions else batch[name].to_pylist() for name in names]
        for cells in zip(*columns, strict=True):
            row = {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}
            yield hashlib.sha256(_encode(row).encode("utf-8", "surrogatepass")).digest()


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def _plain(cells: list[Any]) -> list[Any]:
    return [int(cell) if cell is not None and cell.is_integer() else cell for cell in cells]
