"""Media of a version decoded in caged processes and handed back as plain arrays.

They decoded at ingest, but they are still foreign bytes: a worker that trains or evaluates has more rights than a
decoder may have. What crosses is a file of raw values beside a list of types and shapes, both checked here.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities import find
from speciate.settings import load
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders

_SERVICE = "speciate.datasets.decoding:decode_part"
_CHUNK = 512
_PART_BYTES = 64 * 1024 * 1024
"""One part ends after so many decoded bytes; the rest of its chunk is asked for again."""
_SECONDS = 120.0
_TYPES = ("uint8", "float32")


def decode_media(folders: Folders, packs: Sequence[Path], modality: str, contents: Sequence[str]) -> list[Any]:
    """The decoded media that lie in `packs` under these digests, in order."""
    chunks = [contents[i : i + _CHUNK] for i in range(0, len(contents), _CHUNK)]
    pool = Pool(folders, load(folders.root), size=min(cores(), max(len(chunks), 1)))
    try:
        with ThreadPoolExecutor(pool.size, thread_name_prefix="decode") as threads:
            parts = threads.map(lambda chunk: list(_decode_chunk(pool, packs, modality, chunk)), chunks)
            return list(itertools.chain.from_iterable(parts))
    finally:
        pool.close()


def decode_here(packs: Sequence[Path], modality: str, contents: Sequence[str]) -> Iterator[Any]:
    """The same in this process, which must be a caged one."""
    decode = find(modality).decode
    with PackReader(packs) as reader:
        for sha256 in contents:
            yield decode(reader.get(sha256))


def decode_part(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: {packs, modality, contents} -> {file, items: [[dtype, shape] or [null, [bytes]]]}.

    Ends early where the part grows long: the items are the first of `contents`.
    """
    path = Path.cwd() / "decoded"
    items: list[tuple[str | None, list[int]]] = []
    with path.open("wb") as file:
        for media in decode_here([Path(pack) for pack in payload["packs"]], payload["modality"], payload["contents"]):
            if isinstance(media, np.ndarray):
                items.append((str(media.dtype), list(media.shape)))
                file.write(np.ascontiguousarray(media).data)
            else:
                text = json.dumps(media).encode()
                items.append((None, [len(text)]))
                file.write(text)
            if file.tell() > _PART_BYTES:
                break
    return {"file": path.name, "items": items}


def _decode_chunk(pool: Pool, packs: Sequence[Path], modality: str, contents: Sequence[str]) -> Iterator[Any]:
    rest = list(contents)
    while rest:
        payload = {"packs": [str(pack) for pack in packs], "modality": modality, "contents": rest}
        part = pool.ask_for_file(_SERVICE, payload, _read, _SECONDS)
        if not part:
            raise _nonsense()
        yield from part
        rest = rest[len(part) :]


def _read(path: Path, answer: dict[str, Any]) -> list[Any]:
    """What `decode_part` wrote, checked: it comes from a process that met foreign bytes."""
    data = path.read_bytes()
    media: list[Any] = []
    offset = 0
    for dtype, shape in answer["items"]:
        if dtype not in (*_TYPES, None) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise _nonsense()
        size = math.prod(shape) * (np.dtype(dtype).itemsize if dtype else 1)
        if offset + size > len(data):
            raise _nonsense()
        piece = data[offset : offset + size]
        media.append(np.frombuffer(piece, dtype).reshape(shape).copy() if dtype else json.loads(piece))
        offset += size
    return media


def _nonsense() -> SpeciateError:
    return SpeciateError(
        Code.INTERNAL,
        "A process that decodes media gave an answer that makes no sense.",
        "Call control_job(action='retry').",
    )
