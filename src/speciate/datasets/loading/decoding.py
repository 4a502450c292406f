"""Media of a version decoded in sandboxed processes and handed back as plain arrays; timestamps of their frames, too.

They decoded at ingest, but they are still foreign bytes: a worker that trains or evaluates has more rights than a
decoder may have. What leaves the sandbox is a file of raw values beside a list of types and shapes, both checked here.
The file is read, not mapped: a process that was taken over could cut a mapped file short and so end its reader.

A medium is an array, a JSON value, or a dict of media. The file holds the arrays' raw values and the JSON texts, one
after another; a description stands beside it: [dtype, shape] of an array, [null, [bytes]] of JSON, {name: description}
of a dict.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from speciate.environment import cores
from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.pool import FileAnswer, Pool, ServiceAnswer
from speciate.modalities import find
from speciate.modalities.contract import DecodeError, Modality
from speciate.settings import in_force
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders

_SERVICE = "speciate.datasets.loading.decoding:decode_part"
_FIRST_CHUNK, _LONGEST_CHUNK = 16, 512  # items
_CHUNK_BYTES = 16 * 1024 * 1024
"""The aimed size of a decoded chunk, estimated from the chunks before it."""
_PART_BYTES = 64 * 1024 * 1024
"""One part ends after so many decoded bytes; another request fetches the rest of its chunk."""
_SECONDS = 120.0

Size = tuple[int, int]
"""Height and width in pixels."""
_ALIGNED = 64
"""Bytes: every array begins at a multiple of it, so that its values can be used where they lie."""
_TYPES = ("uint8", "int32", "float32")
_DEEPEST = 8
Description = Any
_READ_TIMESTAMPS = "speciate.datasets.loading.decoding:read_timestamps"
_FILES_AT_ONCE = 32  # files
_TIMESTAMPS_SECONDS = 300.0
Timestamps = npt.NDArray[np.float64]
"""(M + 1,) ascending: where each of M units begins in the modality's `window_unit`, and where the last one ends."""


class _MediaSource(TypedDict):
    packs: list[str]
    modality: str
    size: Size | None


class MediaItem(NamedTuple):
    """The medium of example `id`, or its window from `start` up to `stop` in the modality's unit."""

    id: str
    content: str
    start: float | None = None
    stop: float | None = None


class Decoded(NamedTuple):
    """The first media of a chunk, and why the next one could not be decoded, if that ended it."""

    media: list[Any]
    bytes: int
    failure: str | None


class Decoder:
    """Decodes media of one version in `workers` sandboxed processes, which live until `close`.

    `ahead`: how many chunks per process are decoded or wait to be fetched. `size`: images are resized in the sandbox to
    this height and width.
    """

    def __init__(
        self,
        folders: Folders,
        packs: Sequence[Path],
        modality: str,
        *,
        workers: int | None = None,
        ahead: int = 2,
        size: Size | None = None,
    ) -> None:
        workers = workers or cores()
        self._about = _MediaSource(packs=[str(pack) for pack in packs], modality=modality, size=size)
        self._pool = Pool(folders, in_force(folders.root), size=workers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._most, self._length = workers * ahead, _FIRST_CHUNK

    def decode(self, items: Iterable[MediaItem]) -> Generator[Any]:
        """The media, in order; items are taken as they are needed.

        INVALID, naming the example, if one does not decode; UNAVAILABLE, naming the chunk, if a process died on it
        twice.
        """
        rest = iter(items)
        futures: deque[Future[list[Any]]] = deque()

        def submit_chunks() -> None:
            while len(futures) < self._most and (chunk := list(itertools.islice(rest, self._length))):
                futures.append(self._threads.submit(self._decode_chunk, chunk))

        try:
            submit_chunks()
            while futures:
                media = futures.popleft().result()
                submit_chunks()  # before the consumer gets to work on these
                yield from media
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.close()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode_chunk(self, chunk: list[MediaItem]) -> list[Any]:
        turns = _by_content(chunk)
        rest = [chunk[turn] for turn in turns]
        media: list[Any] = [None] * len(chunk)
        done = 0
        while rest:
            part = self._ask(rest)
            for turn, medium in zip(turns[done:], part.media, strict=False):
                media[turn] = medium
            done, rest = done + len(part.media), rest[len(part.media) :]
            if part.failure is not None and rest:
                raise undecodable_error(rest[0].id, part.failure)
            if not part.media:
                raise invalid_answer_error()
            self._length = max(1, min(_LONGEST_CHUNK, _CHUNK_BYTES * len(part.media) // max(part.bytes, 1)))
        return media

    def _ask(self, items: list[MediaItem], *, again: bool = True) -> Decoded:
        """`again`: ask once more if the process died, because an earlier medium may have broken it."""
        payload: PartRequest = {**self._about, "items": [(item.content, item.start, item.stop) for item in items]}
        try:
            part = self._pool.ask_for_file(_SERVICE, payload, _read, _SECONDS)
        except SpeciateError as error:
            if error.code != Code.UNAVAILABLE:
                raise
            if again:
                return self._ask(items, again=False)
            raise SpeciateError(error.code, f"{error.message} {_which(items)}", error.recovery) from error
        if len(part.media) > len(items):
            raise invalid_answer_error()
        return part


def decode_media(folders: Folders, packs: Sequence[Path], modality: str, items: Sequence[MediaItem]) -> list[Any]:
    """The decoded media that lie in `packs`, in order."""
    turns = _by_content(items)
    media: list[Any] = [None] * len(items)
    with Decoder(folders, packs, modality, workers=min(cores(), max(len(items) // _FIRST_CHUNK, 1))) as decoder:
        for turn, medium in zip(turns, decoder.decode(items[turn] for turn in turns), strict=True):
            media[turn] = medium
    return media


def _by_content(items: Sequence[MediaItem]) -> list[int]:
    """An order in which windows of one medium follow each other, so that it is decoded once for all of them."""
    return sorted(range(len(items)), key=lambda place: (items[place].content, items[place].start or 0.0))


def decode_here(packs: Sequence[Path], modality: str, items: Iterable[MediaItem]) -> Iterator[Any]:
    """`decode_media` in this process, which must be sandboxed."""
    kind = find(modality)
    with PackReader(packs) as reader:
        for item in items:
            yield decode_item(kind, reader.get(item.content), item.start, item.stop)


def decode_item(kind: Modality[Any], data: bytes, start: float | None, stop: float | None) -> Any:
    """The window of a file; the whole if it has no bounds."""
    return kind.decode(data) if start is None or stop is None else kind.decode_window(data, start, stop)


def cut_window(modality: str, media: Any, start: float | None, stop: float | None) -> Any:
    """The window of a medium; the whole if it has no bounds."""
    return media if start is None or stop is None else find(modality).window(media, start, stop)


class PartRequest(_MediaSource):
    items: Sequence[tuple[str, float | None, float | None]]
    """Content, start and stop of each."""


class DecodedPart(FileAnswer):
    items: list[Description]
    failure: str | None
    """Why it ended before the last of the items."""


def decode_part(payload: PartRequest) -> DecodedPart:
    """The service. The answer has a description for each of the first requested items: it ends early if it grows long,
    and before an item that does not decode.
    """
    path = Path.cwd() / "decoded"
    made: list[Description] = []
    failure = None
    reader, kind = cached_reader(tuple(payload["packs"])), find(payload["modality"])
    media_of = _CachedWindows(kind)
    with path.open("wb") as file:
        for content, start, stop in payload["items"]:
            try:
                media = media_of(reader, content, start, stop)
            except (DecodeError, SpeciateError) as error:
                failure = error.message if isinstance(error, SpeciateError) else str(error)
                break
            if payload["size"]:
                media = _resize(media, payload["size"])
            made.append(write_media(media, file))
            if file.tell() > _PART_BYTES:
                break
    return {"file": path.name, "items": made, "failure": failure}


class _CachedWindows:
    """Keeps the whole medium from one window to the next, because windows of one medium follow each other.

    Unless parts of files of this modality can be read without the rest.
    """

    def __init__(self, kind: Modality[Any]) -> None:
        self._kind, self._whole, self._whose = kind, None, ""
        self._in_parts = type(kind).decode_window is not Modality.decode_window

    def __call__(self, reader: PackReader, content: str, start: float | None, stop: float | None) -> Any:
        if self._in_parts:
            return decode_item(self._kind, reader.get(content), start, stop)
        if content != self._whose:
            self._whole, self._whose = self._kind.decode(reader.get(content)), content
        return cut_window(self._kind.name, self._whole, start, stop)


@lru_cache(maxsize=1)
def cached_reader(packs: tuple[str, ...]) -> PackReader:
    """Kept from one chunk to the next: the index of a large pack takes longer to read than a chunk to decode."""
    return PackReader([Path(pack) for pack in packs])


def _resize(image: Any, size: Size) -> Any:
    """Bilinear, over all pixels that a smaller pixel covers, as torchvision's Resize."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _read(path: Path, answer: ServiceAnswer) -> Decoded:
    """The answer of `decode_part`, checked: it comes from a process that met foreign bytes."""
    data = np.empty(path.stat().st_size, np.uint8)
    with path.open("rb", buffering=0) as file:
        if file.readinto(data.data) != len(data):
            raise invalid_answer_error()
    reader = MediaReader(data)
    try:
        media = [reader.read(description) for description in answer["items"]]
    except (TypeError, ValueError) as error:
        raise invalid_answer_error() from error
    failure = answer["failure"]
    return Decoded(media, reader.offset, None if failure is None else str(failure))


def undecodable_error(example: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The medium of example {example!r} can no longer be decoded: {why}",
        "Restore the packs from a backup of the workspace, or create the dataset again from its source.",
    )


def _which(items: list[MediaItem]) -> str:
    if len(items) == 1:
        return f"It was decoding example {items[0].id!r}, the second time."
    return f"It was decoding {len(items)} examples, {items[0].id!r} to {items[-1].id!r}, the second time."


def invalid_answer_error() -> SpeciateError:
    return SpeciateError(
        Code.INTERNAL,
        "A process that decodes media gave an invalid answer.",
        next=[Call("control_job", {"action": "retry"})],
    )


def write_media(media: Any, file: BinaryIO) -> Description:
    """Appends a medium; its description is JSON."""
    if isinstance(media, dict) and any(isinstance(part, np.ndarray | dict) for part in media.values()):
        return {name: write_media(part, file) for name, part in media.items()}
    file.write(bytes(-file.tell() % _ALIGNED))
    if isinstance(media, np.ndarray):
        file.write(np.ascontiguousarray(media).data)
        return str(media.dtype), list(media.shape)
    text = json.dumps(media).encode()
    file.write(text)
    return None, [len(text)]


class MediaReader:
    """Reads media from `data` (N,) uint8 in the order in which they were written. ValueError if they do not fit.

    The arrays share the one buffer: copy an array that is kept for long.
    """

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self._data, self.offset = data, 0

    def read(self, description: Description, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise ValueError("parts within parts")
        if isinstance(description, dict):
            return {str(name): self.read(part, depth + 1) for name, part in description.items()}
        dtype, shape = description
        if dtype not in (*_TYPES, None) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError("neither an array nor JSON")
        self.offset += -self.offset % _ALIGNED
        size = math.prod(shape) * (np.dtype(dtype).itemsize if dtype else 1)
        if self.offset + size > len(self._data):
            raise ValueError("longer than what was written")
        piece = self._data[self.offset : self.offset + size]
        self.offset += size
        return piece.view(dtype).reshape(shape) if dtype else json.loads(piece.tobytes())


def ask_for_timestamps(
    pool: Pool, packs: Sequence[Path], modality: str, contents: Sequence[str], unit: str
) -> Iterator[Timestamps]:
    """The timestamps of each file that `contents` names in `packs`, in order. INVALID if one cannot be read."""
    chunks = [contents[start : start + _FILES_AT_ONCE] for start in range(0, len(contents), _FILES_AT_ONCE)]
    paths = [str(pack) for pack in packs]

    def ask(chunk: Sequence[str]) -> list[Timestamps]:
        return _ask_for_timestamps(
            pool, TimestampsRequest(modality=modality, packs=paths, unit=unit, contents=list(chunk))
        )

    with ThreadPoolExecutor(pool.size, thread_name_prefix="timestamps") as threads:
        for found in threads.map(ask, chunks):
            yield from found


class TimestampsRequest(TypedDict):
    packs: list[str]
    modality: str
    unit: str
    contents: list[str]


class TimestampsAnswer(FileAnswer):
    counts: list[int]
    failure: str | None
    """Why it ended before the last of the contents."""


def read_timestamps(payload: TimestampsRequest) -> TimestampsAnswer:
    """The service. The file has the timestamps of the first contents, one after another; it ends before a file that
    cannot be read."""
    kind, reader = find(payload["modality"]), cached_reader(tuple(payload["packs"]))
    path, counts, failure = Path.cwd() / "timestamps", list[int](), None
    with path.open("wb") as file:
        for content in payload["contents"]:
            try:
                found = np.asarray(kind.marks(reader.get(content), payload["unit"]), "<f8")
            except (DecodeError, SpeciateError) as error:
                failure = error.message if isinstance(error, SpeciateError) else str(error)
                break
            file.write(found.tobytes())
            counts.append(len(found))
    return {"file": path.name, "counts": counts, "failure": failure}


def _ask_for_timestamps(pool: Pool, request: TimestampsRequest) -> list[Timestamps]:
    def read(path: Path, answer: ServiceAnswer) -> list[Timestamps]:
        """Checked: it comes from a process that met foreign bytes."""
        data, counts, contents = path.read_bytes(), answer["counts"], request["contents"]
        if answer["failure"] is not None and len(counts) < len(contents):
            raise SpeciateError(
                Code.INVALID,
                f"A file cannot be read any more: {answer['failure']}",
                "Restore the packs from a backup of the workspace, or create the dataset again from its source.",
            )
        if len(counts) != len(contents) or min(counts) < 2 or 8 * sum(counts) != len(data):
            raise invalid_answer_error()
        found = np.split(np.frombuffer(data, "<f8"), np.cumsum(counts)[:-1])
        if not all(np.isfinite(each).all() and (np.diff(each) > 0).all() for each in found):
            raise invalid_answer_error()
        return found

    return pool.ask_for_file(_READ_TIMESTAMPS, request, read, _TIMESTAMPS_SECONDS)
