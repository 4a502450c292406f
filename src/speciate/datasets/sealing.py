"""Writes rows as Parquet that never changes again, named by its content."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

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
