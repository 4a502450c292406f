"""Media of a version rewritten, one by one, into a new pack: by a service in caged processes, for they are foreign.

A service is a function {packs, contents, ...} -> {file, items}: the file holds the new bytes one after another, and an
item for each of the contents says how many they are (none where it could not be done) and whatever else was found out.
Where a process dies on several, each is asked about alone, and the one at fault has no new bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from speciate.datasets.loading.decoding import nonsense
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.workspace.packs import PackReader, PackWriter

_CHUNK, _CHUNK_BYTES = 32, 16 << 20
"""Most media and bytes per question to a process."""
_SECONDS = 600.0


class Rewritten(NamedTuple):
    content: str | None
    """sha256 of the new bytes, by which the new pack knows them."""
    size: int
    told: dict[str, Any]
    """What the service said of it, which comes from a process that met foreign bytes; empty where it died."""


class Rewriting(NamedTuple):
    pack: Path
    media: dict[str, Rewritten]
    """By the content that was rewritten."""


def rewritten(
    pool: Pool,
    packs: Sequence[Path],
    target: Path,
    service: str,
    payload: Mapping[str, Any],
    contents: Sequence[str],
    progress: Callable[[int, int], None],
) -> Rewriting:
    """`contents`: each once. `target`: the folder of packs. Nothing is left where it raises."""
    media: dict[str, Rewritten] = {}
    about = {**payload, "packs": [str(pack) for pack in packs]}
    with PackReader(packs) as reader:
        chunks = list(_chunks(contents, reader))
    with PackWriter(target) as writer, ThreadPoolExecutor(pool.size, thread_name_prefix="rewrite") as threads:
        for chunk, items in zip(
            chunks, threads.map(lambda each: _ask(pool, service, about, each), chunks), strict=True
        ):
            for content, (data, told) in zip(chunk, items, strict=True):
                media[content] = Rewritten(None if data is None else writer.add(data), len(data or b""), told)
            progress(len(media), len(contents))
        return Rewriting(writer.seal(), media)


def _chunks(contents: Sequence[str], reader: PackReader) -> Iterator[list[str]]:
    chunk, size = list[str](), 0
    for content in contents:
        length = reader.length(content)
        if chunk and (len(chunk) == _CHUNK or size + length > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(content)
        size += length
    if chunk:
        yield chunk


Item = tuple[bytes | None, dict[str, Any]]


def _ask(pool: Pool, service: str, about: dict[str, Any], contents: Sequence[str]) -> list[Item]:
    def read(path: Path, answer: dict[str, Any]) -> list[Item]:
        """Checked: it comes from a process that met foreign bytes."""
        data, items = path.read_bytes(), answer["items"]
        lengths = [item["length"] for item in items]
        if len(items) != len(contents) or sum(length or 0 for length in lengths) != len(data):
            raise nonsense()
        found, start = list[Item](), 0
        for item, length in zip(items, lengths, strict=True):
            told = {name: value for name, value in item.items() if name != "length"}
            found.append((None if length is None else data[start : start + length], told))
            start += length or 0
        return found

    try:
        return pool.ask_for_file(service, {**about, "contents": list(contents)}, read, _SECONDS)
    except SpeciateError as error:
        if error.code != Code.UNAVAILABLE:
            raise
        if len(contents) == 1:
            return [(None, {})]
        return [item for content in contents for item in _ask(pool, service, about, [content])]
