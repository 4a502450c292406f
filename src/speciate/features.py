"""Cached vectors: each item is embedded once per extractor, whoever asks.

`features/EXTRACTOR/` (the `cache` of an encoder) holds immutable Parquet parts, sorted by key: `key`, `content` (the
sha256 at the beginning of the key, by which a purge finds it) and `vector`, whose float32 numbers lie in one binary
value, since that reads fifteen times as fast as a list. Two runs that compute the same item at once both write it:
duplicates are harmless, as an extractor's id fixes the vector. `merge` makes few large parts of many small ones.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.errors import Code, SpeciateError
from speciate.models.encoders import Encoder, Vectors
from speciate.workspace import integrity
from speciate.workspace.workspace import Folders

_PART_BYTES = 256 * 1024 * 1024
"""Merged parts grow no larger: one is read whole."""
_BATCH = 4096  # rows
_TRIES = 5
_log = logging.getLogger(__name__)

Known = npt.NDArray[np.bool_]
Keys: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray
Answer = TypeVar("Answer")


class CachedVectors(NamedTuple):
    """`known` (N,): which of the keys have a vector; `vectors` (K, width): those of the known ones, in order."""

    known: Known
    vectors: Vectors


def _no_progress(done: int, total: int) -> None:
    pass


def embed(
    folders: Folders,
    encoder: Encoder,
    ids: Sequence[str],
    media: Sequence[Any],
    progress: Callable[[int, int], None] = _no_progress,
) -> Vectors:
    """(N, width): what is cached, and the rest computed and cached.

    `ids`: of the items. The keys of the cache are made of them and of the media themselves: no vector rests on an id
    alone. `progress(done, total)` counts computed items and may raise to stop: what was computed until then is kept.
    """
    found = np.zeros((len(ids), encoder.width), np.float32)
    keys = [vector_key(each, medium) for each, medium in zip(ids, media, strict=True)]
    cached = read(folders, encoder.cache, keys)
    if cached.known.any():
        found[cached.known] = cached.vectors
    missing = {keys[place]: place for place in np.flatnonzero(~cached.known).tolist()}
    computed: list[int] = []
    first = list(missing.values())
    wanted = [media[place] for place in first]
    try:  # no name for the batches: an error that is handled would hold them, and the threads that compute them
        for places, vectors in encoder.embed(wanted) if wanted else ():  # asked for none it would be loaded
            chosen = [first[place] for place in places]
            if vectors.shape != (len(chosen), encoder.width) or not np.isfinite(vectors).all():
                raise SpeciateError(
                    Code.INVALID,
                    f"The model {encoder.id!r} gave vectors of another shape, or with numbers that are not finite.",
                    "Use another model; nothing of these vectors was kept.",
                )
            found[chosen] = vectors
            computed += chosen
            progress(len(computed), len(first))
    finally:
        if computed:
            write(folders, encoder.cache, [keys[place] for place in computed], found[computed])
    for place in np.flatnonzero(~cached.known).tolist():
        found[place] = found[missing[keys[place]]]  # an item that occurs twice
    return found


def vector_key(name: str, medium: Any) -> str:
    """`ID:DIGEST`, the key of an example's medium in caches: the same example may show more or fewer of its columns to
    another model."""
    return f"{name}:{media_digest(medium)}"


def media_digest(medium: Any) -> str:
    """32 hex digits of the sha256 of a medium as it is decoded."""
    return _sha256(medium)[:32]


def _sha256(medium: Any) -> str:
    """The sha256 of an array's type, shape and values, of a dict's names and parts, or of the text of a value."""
    if isinstance(medium, np.ndarray):
        found = hashlib.sha256(f"{medium.dtype} {medium.shape} ".encode())
        found.update(np.ascontiguousarray(medium).data)
        return found.hexdigest()
    if isinstance(medium, dict) and any(isinstance(part, np.ndarray | dict) for part in medium.values()):
        content = "".join(f"{name} {_sha256(part)}\n" for name, part in medium.items())
    else:
        content = repr(medium)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def known(folders: Folders, extractor: str, keys: Keys) -> Known:
    """(N,) which of the keys have a vector."""
    return _retry_while_merged(lambda: _lookup(_parts(folders, extractor), keys)[0] >= 0)


def read(folders: Folders, extractor: str, keys: Keys) -> CachedVectors:
    """The cached vectors of those keys that have one; of no width where nothing is cached at all."""
    return _retry_while_merged(lambda: _read(_parts(folders, extractor), keys))


def check(folders: Folders, extractor: str) -> None:
    """Compares the parts with their digests, which `read` does not do again: for a thread beside other reading."""
    _parts(folders, extractor)


def write(folders: Folders, extractor: str, keys: Keys, vectors: Vectors) -> None:
    """A new part with these (N, width); all of it or nothing is there, whenever the machine stops."""
    folder = folders.features / extractor
    folder.mkdir(parents=True, exist_ok=True)
    _seal(folder, _strings(keys), vectors)


def adopt(folders: Folders, extractor: str, source: Path, wanted: Keys) -> int:
    """Take in the vectors of the keys that are wanted from the parts in the folder `source`, which another machine
    wrote; how many. Raises DAMAGED or INVALID for what is no part, and takes in nothing of what comes after it."""
    taken, keys = 0, _strings(wanted)
    width = next(map(_width, _parts(folders, extractor)), None)
    target = folders.features / extractor
    target.mkdir(parents=True, exist_ok=True)
    for part in sorted(source.glob("part-*.parquet")):
        integrity.check(part, "Its vectors are computed again.")
        found = _read_foreign(part, width)
        if found is None:
            raise SpeciateError(
                Code.INVALID, f"{part.name} that came back holds no vectors.", "Call control_job(action='retry')."
            )
        names, vectors = found
        width, mine = vectors.shape[1], np.asarray(pc.is_in(names, value_set=keys))
        if mine.any():
            _seal(target, names.filter(pa.array(mine)), vectors[mine])
            taken += int(mine.sum())
        part.unlink()
    return taken


def _read_foreign(part: Path, width: int | None) -> tuple[pa.Array, Vectors] | None:
    """Keys and vectors of a part of which nothing is taken for granted; None where it is none, or of another width.
    It is looked at before it is read: what is packed may unpack to more than there is memory."""
    try:
        with pq.ParquetFile(part) as file:
            schema, about = file.schema_arrow, file.metadata
            if schema.names != ["key", "content", "vector"] or not pa.types.is_fixed_size_binary(schema.types[2]):
                return None
            groups = [about.row_group(place) for place in range(about.num_row_groups)]
            columns = [group.column(place) for group in groups for place in range(group.num_columns)]
            size = schema.types[2].byte_width
            if (
                schema.types[0] != pa.string()
                or size % 4
                or width not in (None, size // 4)
                or not 0 < about.num_rows * size <= part.stat().st_size
                or any(column.compression != "UNCOMPRESSED" or column.has_dictionary_page for column in columns)
            ):
                return None
            table = file.read(["key", "vector"], use_threads=False)
    except (pa.ArrowException, OSError):
        return None
    keys, vectors = table["key"].combine_chunks(), table["vector"].combine_chunks()
    if keys.null_count or vectors.null_count or not np.isfinite(numbers := _numbers(vectors)).all():
        return None
    return keys, numbers


def merge(folders: Folders, extractor: str) -> None:
    """Join small parts, each key once. Others may read and write meanwhile; a second merge waits for the first."""
    folder = folders.features / extractor
    if not folder.is_dir():
        return
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for several in _groups(_part_files(folders, extractor)):
            group = [part for part in several if _is_whole(part)]
            if not group:
                continue
            tables = [pq.read_table(part) for part in group]
            keys = pa.chunked_array([chunk for table in tables for chunk in table["key"].chunks]).combine_chunks()
            vectors = np.concatenate([_numbers(table["vector"].combine_chunks()) for table in tables])
            first = np.sort(np.unique(np.asarray(keys.dictionary_encode().indices), return_index=True)[1])
            _seal(folder, keys.take(pa.array(first)), vectors[first])
            for part in group:
                part.unlink(missing_ok=True)


def _read(parts: Sequence[Path], keys: Keys) -> CachedVectors:
    row, starts = _lookup(parts, keys)
    found = row >= 0
    order = np.argsort(row[found], kind="stable")
    place = row[found][order]  # ascending, as the parts are read
    vectors = np.empty((len(place), _width(parts[0]) if parts else 0), np.float32)
    for part, start, end in zip(parts, starts, starts[1:], strict=False):
        if not np.diff(np.searchsorted(place, [start, end])):
            continue
        for batch in _batches(part):
            here = slice(*np.searchsorted(place, [start, start + len(batch)]))
            rows = place[here] - start
            every = len(rows) == len(batch) and np.array_equal(rows, np.arange(len(batch)))
            vectors[order[here]] = batch if every else batch[rows]
            start += len(batch)  # noqa: PLW2901 - the first row of the next batch
    return CachedVectors(found, vectors)


def _batches(part: Path) -> Iterator[Vectors]:
    """(B, width) at a time: what is read whole costs more in fresh memory than in reading."""
    with pq.ParquetFile(part, memory_map=True) as file:
        for batch in file.iter_batches(_BATCH, columns=["vector"], use_threads=False):
            yield _numbers(batch["vector"])


def _lookup(parts: Sequence[Path], keys: Keys) -> tuple[npt.NDArray[np.int64], list[int]]:
    """(N,) which row of all parts together each key has, -1 where none; and where each part begins, then the end."""
    columns = [pq.read_table(part, columns=["key"])["key"] for part in parts]
    starts = np.cumsum([0, *(len(column) for column in columns)])
    there = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    row = pc.index_in(_strings(keys), value_set=there.combine_chunks())
    return np.asarray(pc.fill_null(row, -1)).astype(np.int64), starts.tolist()


def _numbers(column: pa.FixedSizeBinaryArray) -> Vectors:
    """(N, width), to read only: it is the column's memory."""
    width = column.type.byte_width // 4
    data = np.frombuffer(column.buffers()[1] or b"", np.float32)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)


def _strings(keys: Keys) -> pa.Array:
    if isinstance(keys, pa.ChunkedArray):
        return keys.combine_chunks()
    return keys if isinstance(keys, pa.Array) else pa.array(list(keys), pa.string())


def _width(part: Path) -> int:
    return int(pq.read_schema(part).field("vector").type.byte_width) // 4


def _seal(folder: Path, keys: pa.Array, vectors: Vectors) -> None:
    order = np.asarray(pc.sort_indices(keys))
    keys = keys.take(pa.array(order))
    rows = np.ascontiguousarray(vectors[order], np.float32)
    kind = pa.binary(4 * rows.shape[1])
    column = pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, pa.py_buffer(rows)])
    content = pc.list_element(pc.split_pattern(keys, ":", max_splits=1), 0)
    table = pa.table({"key": keys, "content": content, "vector": column})
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    with temporary.open("w+b") as file:
        integrity.write_table(table, file, compression="none", use_dictionary=False, write_statistics=False)
        os.fsync(file.fileno())
    temporary.rename(folder / f"part-{uuid.uuid4().hex}.parquet")


def _parts(folders: Folders, extractor: str) -> list[Path]:
    """Parts that are whole: a damaged one goes, and what was in it is computed again."""
    return [part for part in _part_files(folders, extractor) if _is_whole(part)]


def _part_files(folders: Folders, extractor: str) -> list[Path]:
    return sorted((folders.features / extractor).glob("*.parquet"))


def _is_whole(part: Path) -> bool:
    try:
        integrity.check(part, "Its vectors are computed again.")
    except FileNotFoundError:  # merged meanwhile
        return True
    except SpeciateError as error:
        _log.warning("%s", error.message)
        part.unlink(missing_ok=True)
        return False
    return True


def _groups(parts: Sequence[Path]) -> Iterator[list[Path]]:
    """Parts to be joined: the smallest first, as many at a time as one large part holds."""
    group: list[Path] = []
    total = 0
    for size, part in sorted((part.stat().st_size, part) for part in parts):
        if total + size > _PART_BYTES:
            if len(group) > 1:
                yield group
            group, total = [], 0
        group.append(part)
        total += size
    if len(group) > 1:
        yield group


def _retry_while_merged(read: Callable[[], Answer]) -> Answer:
    """Read again if a part vanished meanwhile: a merge or a purge replaced it."""
    for attempt in range(_TRIES):
        try:
            return read()
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError
