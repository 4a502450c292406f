"""Many small blobs in one file: a run appends, seals once, and from then on the pack never changes.

A pack is two files that share a name: `PACK.pack`, the bytes one after another, and `PACK.parquet`, its index
(`sha256` string in ascending order, `offset` and `length` int64, in bytes). The name comes from the content, so that
a run which is repeated seals the same pack again. The index appears last: without it there is no pack, only a
leftover that `gc` may delete.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from speciate.errors import Code, SpeciateError
from speciate.workspace import integrity
from speciate.workspace.blobs import check_digest, make_folder, sync_folder

_SCHEMA = pa.schema([("sha256", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])


_BUFFER = 1 << 20
"""Bytes that are written at once: many blobs are small."""


class Entry(NamedTuple):
    offset: int
    length: int


class PackWriter:
    """Appends blobs to a new pack in `folder`, for one run. Not thread-safe.

    with PackWriter(folders.packs) as writer:
        sha256 = writer.add(data)
        pack = writer.seal()
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = folder
        self._partial = folder / f".pack-{os.getpid()}-{os.urandom(6).hex()}.partial"
        self._file = self._partial.open("xb", buffering=_BUFFER)
        self._entries: dict[str, Entry] = {}
        self._size = 0

    def add(self, data: bytes, sha256: str | None = None) -> str:
        """Append `data` unless it is there already; the sha256 that names it, which a caller may have computed."""
        sha256 = sha256 or hashlib.sha256(data).hexdigest()
        if sha256 not in self._entries:
            self._file.write(data)
            self._entries[sha256] = Entry(self._size, len(data))
            self._size += len(data)
        return sha256

    def seal(self) -> Path:
        """Make the pack durable and immutable; the path of its `.pack` file. Nothing can be added afterwards."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name = hashlib.sha256("".join(self._entries).encode()).hexdigest()[:32]  # digests in order fix every byte
        target = self._folder / f"{name}.pack"
        os.chmod(self._partial, 0o444)
        self._partial.replace(target)
        sync_folder(self._folder)
        self._write_index(index_path(target))
        return target

    def _write_index(self, target: Path) -> None:
        digests = sorted(self._entries)
        entries = [self._entries[digest] for digest in digests]
        table = pa.table(
            {"sha256": digests, "offset": [e.offset for e in entries], "length": [e.length for e in entries]},
            schema=_SCHEMA,
        )
        temporary = self._partial.with_suffix(".index")
        with temporary.open("x+b") as file:
            integrity.write_table(table, file, compression="zstd")
            os.fsync(file.fileno())
        os.chmod(temporary, 0o444)
        temporary.replace(target)
        sync_folder(self._folder)

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)


def index_path(pack: Path) -> Path:
    return pack.with_suffix(".parquet")


_LOST = "With it, the media in its pack cannot be found."
_RECOVERY = "Restore it from a backup of the workspace, or create the dataset again from its source."


class _OpenPack:
    def __init__(self, path: Path) -> None:
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise _missing(path) from error
        try:
            index = integrity.read_table(index_path(path), _LOST, _RECOVERY, schema=_SCHEMA)
        except FileNotFoundError as error:
            os.close(self.descriptor)
            raise _missing(path) from error
        except SpeciateError:
            os.close(self.descriptor)
            raise
        self.path = path
        self.digests = np.array(index["sha256"].to_pylist(), dtype="S64")
        self.offsets, self.lengths = index["offset"].to_numpy(), index["length"].to_numpy()

    def find(self, sha256: str) -> Entry | None:
        place = int(np.searchsorted(self.digests, sha256.encode()))
        if place < len(self.digests) and self.digests[place] == sha256.encode():
            return Entry(int(self.offsets[place]), int(self.lengths[place]))
        return None


def _missing(path: Path) -> SpeciateError:
    return SpeciateError(
        Code.NOT_FOUND,
        f"The pack {path.name} or its index is missing from {path.parent}.",
        "Restore it from a backup of the workspace, or create the dataset again from its source.",
    )


class Pack(_OpenPack):
    """One sealed pack, to be read whole."""

    @property
    def count(self) -> int:
        return len(self.digests)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Each blob with the sha256 that it should have."""
        for digest, offset, length in zip(self.digests, self.offsets, self.lengths, strict=True):
            yield digest.decode(), os.pread(self.descriptor, int(length), int(offset))

    def __enter__(self) -> Pack:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def open_pack(path: Path) -> Pack:
    """NOT_FOUND where it or its index is missing, DAMAGED where the index is."""
    return Pack(path)


class PackReader:
    """Reads from any number of sealed packs. Thread-safe: every read names its own position."""

    def __init__(self, packs: Iterable[Path]) -> None:
        self._packs = [_OpenPack(path) for path in packs]

    def get(self, sha256: str) -> bytes:
        """The bytes, checked against their name. NOT_FOUND where no pack holds them, DAMAGED where all that do are."""
        damage: SpeciateError | None = None
        for pack in self._packs:
            if entry := pack.find(sha256):
                data = os.pread(pack.descriptor, entry.length, entry.offset)
                try:
                    check_digest(data, sha256, pack.path)
                except SpeciateError as error:
                    damage = error
                    continue
                return data
        if damage is not None:
            raise damage
        raise SpeciateError(
            Code.NOT_FOUND,
            f"No pack of {len(self._packs)} holds {sha256}.",
            "Restore the packs from a backup of the workspace, or create the dataset again from its source.",
        )

    def length(self, sha256: str) -> int:
        """Length of a blob in bytes; 0 where no pack holds it."""
        return next((entry.length for pack in self._packs if (entry := pack.find(sha256))), 0)

    def __contains__(self, sha256: str) -> bool:
        return any(pack.find(sha256) for pack in self._packs)

    def close(self) -> None:
        for pack in self._packs:
            os.close(pack.descriptor)
        self._packs = []

    def __enter__(self) -> PackReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
