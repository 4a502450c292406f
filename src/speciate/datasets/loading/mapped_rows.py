"""Rows of a version in a file that the system maps into memory: read where needed, dropped when memory is short.

Sealed Parquet is compressed and cannot be read row by row, so the columns that a reader wants are unpacked once. The
file has no name from the moment it is mapped: it ends with whoever reads it, however that ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import scan
from speciate.datasets.loading.shuffling import Places
from speciate.datasets.versions import Manifest
from speciate.workspace.workspace import Folders

_BATCH = 16_384
_MEMORY = "256MB"


class Rows(NamedTuple):
    table: pa.Table
    """In no particular order."""
    sorted: Places
    """Where the rows lie in the table, in order of their ids."""

    def take(self, places: Places) -> pa.Table:
        """The rows at these places of the table. Chunk by chunk: Arrow would first make one piece of all text."""
        chunks = self.table.to_batches()
        starts = np.cumsum([0, *(chunk.num_rows for chunk in chunks)])
        order = np.argsort(places, kind="stable")
        ascending = places[order]
        bounds = np.searchsorted(ascending, starts)
        pieces = [
            chunk.take(pa.array(ascending[low:high] - start))
            for chunk, start, low, high in zip(chunks, starts, bounds, bounds[1:], strict=False)
            if high > low
        ]
        found = pa.Table.from_batches(pieces, self.table.schema).combine_chunks()
        return found.take(pa.array(np.argsort(order, kind="stable")))


def mapped(folders: Folders, manifest: Manifest, columns: Sequence[str], splits: Collection[str] | None) -> Rows:
    """The rows of quality ok, of these splits only where they are given; of `columns` those that the version has."""
    query = f"FROM {scan.relation(folders, manifest)}"
    folders.cache.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="rows-", dir=folders.cache) as folder,
        duckdb.connect(":memory:", config={"memory_limit": _MEMORY, "temp_directory": folder}) as connection,
    ):
        there = {row[0] for row in connection.execute(f"DESCRIBE {query}").fetchall()}
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns if name in there)
        wanted = ["quality = 'ok'"]
        if splits is not None:
            wanted.append(f"list_contains([{', '.join(map(scan.quoted, sorted(splits)))}]::VARCHAR[], split)")
        file = Path(folder) / "rows.arrow"
        reader = connection.sql(f"SELECT {names} {query} WHERE {' AND '.join(wanted)}").to_arrow_reader(_BATCH)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    return Rows(table, pc.sort_indices(table, [("id", "ascending")]).to_numpy().astype("int64"))
