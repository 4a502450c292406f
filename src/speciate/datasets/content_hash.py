"""Content hashes: rows as Parquet files that never change, named by their content, and LtHash over all rows of a
version.

LtHash (1,024 lanes of 16 bits) is an order-free, incremental hash of a multiset. The hash of a version is the lane-wise
sum of the hashes of its rows' digests, so adding or removing rows costs only those rows, and neither order nor history
matters. The version's id is the sha256 of the lanes. Source: Bellare and Micciancio's AdHash; Lewi et al., "Securing
Update Propagation with Homomorphic Hashing" (2019), with its parameters; SHAKE-128 instead of BLAKE2X.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.columns import PROVENANCE
from speciate.workspace.blobs import write_durably

_ROW_GROUP = 122_880
"""DuckDB's own size: as many threads read a file as it has row groups."""
_BATCH = 16_384
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
LANES = 1024
_AT_ONCE = 512
Lanes = npt.NDArray[np.uint16]  # (1024,)


def seal_rows(table: pa.Table, folder: Path) -> Path:
    """The path of the sealed file in `folder`, on disk and read-only on return. The same rows: the same file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=_ROW_GROUP)
    return seal_bytes(buffer.getvalue(), folder)


def seal_bytes(data: bytes, folder: Path) -> Path:
    """As `seal_rows`, for the bytes of a Parquet file."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    if not target.exists():
        write_durably(target, data)
        target.chmod(0o444)
    else:
        os.utime(target)  # it may have been garbage until now: it is as young as what names it
    return target


def row_digests(table: pa.Table) -> Iterator[bytes]:
    """sha256 of each row: content, label, group, split, quality and the user's columns, without provenance.

    Neither an empty cell nor the type of a numeric column changes the digest: both change when rows are added.
    """
    names = [name for name in sorted(table.column_names) if name not in PROVENANCE]
    fractions = {name for name in names if pa.types.is_floating(table.schema.field(name).type)}
    for batch in table.select(names).to_batches(_BATCH):
        columns = [
            _cells_without_types(batch[name].to_pylist()) if name in fractions else batch[name].to_pylist()
            for name in names
        ]
        for cells in zip(*columns, strict=True):
            row = {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}
            yield hashlib.sha256(_encode(row).encode("utf-8", "surrogatepass")).digest()


def _cells_without_types(cells: list[Any]) -> list[Any]:
    return [int(cell) if cell is not None and cell.is_integer() else cell for cell in cells]


def lanes(digests: Iterable[bytes]) -> Lanes:
    """The sum of the lanes of all rows. `digests`: 32 bytes each; a row that occurs twice counts twice."""
    total = np.zeros(LANES, np.uint16)
    rest = iter(digests)
    while some := list(islice(rest, _AT_ONCE)):
        hashed = b"".join(hashlib.shake_128(digest).digest(2 * LANES) for digest in some)
        total += np.frombuffer(hashed, "<u2").reshape(-1, LANES).sum(axis=0, dtype=np.uint16)  # wraps modulo 2**16
    return total


def version_id(total: Lanes) -> str:
    """The sha256 that names a version, the same on machines of any byte order."""
    return hashlib.sha256(pack_lanes(total)).hexdigest()


def pack_lanes(total: Lanes) -> bytes:
    """As it is stored: 2 KiB, little-endian."""
    return total.astype("<u2").tobytes()


def unpack_lanes(data: bytes) -> Lanes:
    return np.frombuffer(data, "<u2").astype(np.uint16)
