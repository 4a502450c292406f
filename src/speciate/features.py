"""Cached vectors of frozen encoders: each item is embedded once per encoder, whoever asks.

`features/ENCODER/` holds immutable Parquet parts, one per run that had something to compute. Two runs that compute the
same item at once both write it: duplicates are harmless, as an encoder's id fixes the vector.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.models.encoders import Encoder, Vectors
from speciate.workspace.workspace import Folders


def _silent(done: int, total: int) -> None:
    pass


def embed(
    folders: Folders,
    encoder: Encoder,
    ids: Sequence[str],
    media: Sequence[Any],
    progress: Callable[[int, int], None] = _silent,
) -> Vectors:
    """(N, width): what is cached, and the rest computed and cached.

    `ids` are content ids. `progress(done, total)` counts computed items and may raise to stop: what was computed until
    then is kept.
    """
    known = read(folders, encoder, ids)
    missing = {item: place for place, item in enumerate(ids) if item not in known}
    if missing:
        known |= _compute(folders, encoder, missing, media, progress)
    return np.stack([known[item] for item in ids]) if len(ids) else np.zeros((0, encoder.width), np.float32)


def read(folders: Folders, encoder: Encoder, ids: Sequence[str]) -> dict[str, Vectors]:
    """The cached vectors, (width,) each, of those items that have one."""
    wanted = pa.array(list(ids), pa.string())
    found: dict[str, Vectors] = {}
    for path in sorted((folders.features / encoder.id).glob("*.parquet")):
        table = pq.read_table(path)
        table = table.filter(pc.is_in(table["id"], value_set=wanted))
        if table.num_rows:
            vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, encoder.width)
            found.update(zip(table["id"].to_pylist(), vectors, strict=True))
    return found


def _compute(
    folders: Folders,
    encoder: Encoder,
    missing: dict[str, int],
    media: Sequence[Any],
    progress: Callable[[int, int], None],
) -> dict[str, Vectors]:
    items = list(missing)
    computed: dict[str, Vectors] = {}
    try:
        for places, vectors in encoder.embed([media[missing[item]] for item in items]):
            computed.update((items[place], vector) for place, vector in zip(places, vectors, strict=True))
            progress(len(computed), len(items))
    finally:
        if computed:
            _write_part(folders.features / encoder.id, computed, encoder.width)
    return computed


def _write_part(folder: Path, vectors: dict[str, Vectors], width: int) -> None:
    """All of the part or nothing is there, whenever the machine stops."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = pa.array(np.concatenate(list(vectors.values())), pa.float32())
    table = pa.table({"id": list(vectors), "vector": pa.FixedSizeListArray.from_arrays(flat, width)})
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    with temporary.open("wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / f"part-{uuid.uuid4().hex}.parquet")
