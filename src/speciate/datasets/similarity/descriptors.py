"""Media of a version described in caged processes: what crosses is one file of float32 vectors, never pixels."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from speciate.datasets.inputs import input_values
from speciate.datasets.loading.decoding import cut, decode_item, kept_reader, nonsense, undecodable
from speciate.datasets.loading.loader import items, packs
from speciate.datasets.versions import Manifest
from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities import find
from speciate.modalities.contract import DecodeError
from speciate.modalities.mixed.multimodal import PartName
from speciate.models.encoders import Vectors
from speciate.settings import in_force
from speciate.workspace.workspace import Folders

_SERVICE = "speciate.datasets.similarity.descriptors:describe_part"
_CHUNK = 256  # items
_AHEAD = 2  # chunks per process
_SECONDS = 120.0


def describe(folders: Folders, manifest: Manifest, rows: pa.Table, part: PartName | None = None) -> Iterator[Vectors]:
    """(B, D) at a time, in the order of the rows, by as many processes as there are cores. `part`: of mixed rows.

    INVALID, naming the example, where one cannot be decoded.
    """
    chunks = iter([rows.slice(start, _CHUNK) for start in range(0, rows.num_rows, _CHUNK)])
    workers = min(cores(), -(-rows.num_rows // _CHUNK))
    if not workers:
        return
    pool = Pool(folders, in_force(folders.root), size=workers)
    threads = ThreadPoolExecutor(workers, thread_name_prefix="describe")
    flights: deque[Future[Vectors]] = deque()
    try:
        for chunk in itertools.islice(chunks, workers * _AHEAD):
            flights.append(threads.submit(_ask, pool, folders, manifest, chunk, part))
        while flights:
            yield flights.popleft().result()
            for chunk in itertools.islice(chunks, 1):
                flights.append(threads.submit(_ask, pool, folders, manifest, chunk, part))
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        pool.close()


def describe_part(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: {modality, part, packs, values, items: [[content, start, stop]]} -> {file, width, failure}.

    `values`: what the input columns hold, null where the media are files. The file has a row of float32 numbers for
    each of the first of the items; it ends before one that cannot be decoded.
    """
    kind, values, part = find(payload["modality"]), payload["values"], payload["part"]
    reader = None if values is not None else kept_reader(tuple(payload["packs"]))
    vectors, failure = [], None
    for place, (content, start, stop) in enumerate(payload["items"]):
        try:
            if reader is None:
                media = cut(kind.name, kind.admit(values[place]), start, stop)
            else:
                media = decode_item(kind, reader.get(content), start, stop)
            vectors.append(kind.features(media) if part is None else _of_part(media, part))
        except (DecodeError, SpeciateError) as error:
            failure = error.message if isinstance(error, SpeciateError) else str(error)
            break
    path = Path.cwd() / "described"
    path.write_bytes(np.asarray(vectors, np.float32).tobytes())
    return {"file": path.name, "width": len(vectors[0]) if vectors else 0, "failure": failure}


def _of_part(media: dict[str, Any], part: str) -> Any:
    if media.get(part) is None:
        raise DecodeError("error", f"It has no part {part!r}.")
    return find(part.rpartition(".")[2]).features(media[part])


def _ask(pool: Pool, folders: Folders, manifest: Manifest, rows: pa.Table, part: PartName | None) -> Vectors:
    wanted = items(rows)
    payload = {
        "modality": manifest.modality,
        "part": None if part is None else str(part),
        "packs": [str(pack) for pack in packs(folders, manifest)],
        "values": input_values(manifest.modality, manifest.inputs, rows) if manifest.inputs else None,
        "items": [(item.content, item.start, item.stop) for item in wanted],
    }

    def read(path: Path, answer: dict[str, Any]) -> Vectors:
        """Checked: it comes from a process that met foreign bytes."""
        width, data = answer["width"], path.read_bytes()
        if not isinstance(width, int) or width < 0 or len(data) % max(4 * width, 1) or (data and not width):
            raise nonsense()
        vectors = np.frombuffer(data, np.float32).reshape(-1, width) if width else np.zeros((0, 0), np.float32)
        if answer["failure"] is not None and len(vectors) < len(wanted):
            raise undecodable(wanted[len(vectors)].id, str(answer["failure"]))
        if len(vectors) != len(wanted) or not np.isfinite(vectors).all():
            raise nonsense()
        return vectors

    try:
        return pool.ask_for_file(_SERVICE, payload, read, _SECONDS)
    except SpeciateError as error:
        if error.code != Code.UNAVAILABLE:
            raise
        return pool.ask_for_file(_SERVICE, payload, read, _SECONDS)  # it may have died of what another medium did to it
