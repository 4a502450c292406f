"""Rows as Parquet that never changes again, named by its content; and the digest of each row."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.columns import FINGERPRINT, KEY
from speciate.workspace.blobs import write_durably


def seal(table: pa.Table, folder: Path) -> Path:
    """The path of the sealed file in `folder`, on disk and read-only on return. The same rows: the same file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    if not target.exists():
        write_durably(target, data)
        target.chmod(0o444)
    return target


def digests(table: pa.Table) -> list[bytes]:
    """sha256 of each row: content, label, group, split, quality and the user's columns; not its id or provenance."""
    left_out = ("id", "reason", "source", FINGERPRINT, KEY)
    rows = table.select([name for name in table.column_names if name not in left_out]).to_pylist()
    return [hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).digest() for row in rows]
