"""A depot in a folder that this machine and the nodes see under one path. Runs work in it. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from speciate.errors import SpeciateError
from speciate.jobs.folder import is_growing, write_whole
from speciate.jobs.places.depot import (
    LOOKED,
    MOST_READ,
    OBJECTS,
    RUNS,
    SENT,
    WHOSE,
    Entry,
    check_taken,
    copy,
    files_left,
    read_sent,
)

_MOVING = ".moving"
_CHUNK = 1 << 20
_HASH_CHARACTERS = 64
_MISSING = (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO)
"""Error numbers for a file that was there and is gone: ELOOP is a link in its place, ENXIO a socket."""


class FolderRoom:
    look_seconds = 1.0

    def __init__(self, path: Path) -> None:
        """A thousand rooms are looked at every other second: what that does joins texts, and no paths."""
        self.path, self.where, self.log = path, str(path), path / "cluster.log"

    def is_there(self) -> bool:
        return self.path.is_dir()

    def has(self, name: str) -> bool:
        return os.path.exists(f"{self.where}/{name}")

    def read(self, name: str) -> bytes | None:
        try:
            with _open_regular(f"{self.where}/{name}") as found:
                if found.size > MOST_READ:
                    raise OSError(errno.EFBIG, "it is too large to be what was written", f"{self.where}/{name}")
                data = os.read(found.descriptor, found.size + 1)
                while more := os.read(found.descriptor, _CHUNK) if len(data) < found.size else b"":
                    data += more
                return data
        except FileNotFoundError:
            return None

    def write(self, name: str, data: str) -> None:
        if name == SENT:
            self.path.mkdir(mode=0o700, exist_ok=True)
        write_whole(self.path / name, data)

    def create(self, name: str, data: str) -> bool:
        """By link(2): the name with its content in one step, on NFS as well.

        A call that NFS repeats because the answer to the first was lost finds the name there: then the link count says
        that it is ours.
        """
        mine = self.path / f"{name}.{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        mine.write_text(data)
        try:
            os.link(mine, self.path / name)
        except FileExistsError:
            return mine.stat().st_nlink == 2
        finally:
            mine.unlink(missing_ok=True)
        return True

    def left(self) -> Iterator[str]:
        return (name.as_posix() for name in files_left(self.path))

    def fetch(self, name: str, target: Path) -> str:
        if not (self.path / name).parent.resolve().is_relative_to(self.path.resolve()):
            raise FileNotFoundError(f"{name} leads out of {self.path}")
        try:
            with (
                _open_regular(f"{self.where}/{name}") as found,
                os.fdopen(found.descriptor, "rb", closefd=False) as reader,
                target.open("xb") as writer,
            ):
                return copy(reader, writer)[0]
        except OSError as error:
            if error.errno in _MISSING:
                raise FileNotFoundError(str(error)) from error
            raise

    def mirror(self, target: Path, beat: int | None) -> None:
        with contextlib.suppress(FileNotFoundError):  # of the folder: it was cleared meanwhile
            for name in os.listdir(self.where):
                if is_growing(name):
                    append_growth(f"{self.where}/{name}", f"{target}/{name}")

    def look_anew(self) -> None:
        """What a mounted disk remembers of a folder, it asks anew once this machine has written there."""
        write_whole(self.path / LOOKED, os.urandom(4).hex())  # in the place of a link, not through it

    def clear(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path)

    def work_folder(self, scratch: Path) -> Path:
        return self.path

    def carry(self, folder: Path, *, last: bool) -> None:
        """It is there already."""


class FolderDepot:
    def __init__(self, root: Path) -> None:
        """`root`: DEPOT/OWNER."""
        self.root = root
        self._objects = root / OBJECTS

    def is_there(self) -> bool:
        return self.root.is_dir()

    def make(self, workspace: str) -> None:
        """A folder that is made in the place of a disk that is not mounted would be a second depot."""
        self.root.mkdir(mode=0o700, exist_ok=True)
        if not (self.root / WHOSE).exists():
            write_whole(self.root / WHOSE, f"{workspace}\n", 0o600)
        for name in (OBJECTS, RUNS):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        (self._objects / _MOVING).mkdir(exist_ok=True)

    def room(self, run_id: str) -> FolderRoom:
        return FolderRoom(self.root / RUNS / run_id)

    def runs(self) -> list[str]:
        return sorted(os.listdir(self.root / RUNS)) if (self.root / RUNS).is_dir() else []

    def object(self, sha256: str) -> Path:
        return self._objects / sha256[:2] / sha256

    def put(self, source: Path, known: str | None = None) -> tuple[str, int]:
        if known is not None and self._has(known, source.stat().st_size):
            return known, 0
        partial = self._objects / _MOVING / os.urandom(8).hex()
        try:
            with source.open("rb") as reader, partial.open("xb") as writer:
                sha256, size = copy(reader, writer)
                writer.flush()
                os.fsync(writer.fileno())
            if self._has(sha256, size):
                return sha256, 0
            partial.chmod(0o444)
            self.object(sha256).parent.mkdir(exist_ok=True)
            partial.replace(self.object(sha256))
            return sha256, size
        finally:
            partial.unlink(missing_ok=True)

    def _has(self, sha256: str, size: int) -> bool:
        try:
            return self.object(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    def take(self, entry: Entry, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.object(entry.sha256).open("rb") as reader, target.open("xb") as writer:
            sha256, _ = copy(reader, writer)
        try:
            check_taken(entry, sha256)
        except SpeciateError:
            target.unlink()
            self.object(entry.sha256).unlink(missing_ok=True)
            raise

    def sweep(self, keep: Collection[str], live: Collection[str]) -> int:
        wanted, freed = set(keep), 0
        for name in self.runs():
            if name not in live:
                self.room(name).clear()
            elif self.room(name).has(SENT):
                wanted |= {each.sha256 for each in read_sent(self.room(name)).inputs}
        for path in self._objects.rglob("*") if self._objects.is_dir() else ():
            if path.is_file() and path.name not in wanted:
                freed += path.stat().st_size
                path.unlink(missing_ok=True)
        return freed

    def objects(self) -> Iterator[str]:
        return (path.name for path in self._objects.rglob("*") if len(path.name) == _HASH_CHARACTERS)


def append_growth(source: str, target: str, most: int = 64 << 20) -> None:
    """Append to `target` what a file that only grows has more; nothing beyond `most` bytes. Raises OSError."""
    try:
        with _open_regular(source) as found:  # opened though little has mostly grown: a mounted disk then asks anew
            have = _size(target)
            end = min(found.size, most)
            while have < end and (chunk := os.pread(found.descriptor, min(_CHUNK, end - have), have)):
                with open(target, "ab") as writer:
                    writer.write(chunk)
                have += len(chunk)
    except OSError as error:
        if error.errno not in _MISSING:
            raise


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


class _Opened:
    """A file that a node wrote, open within `with`."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor, self.size = descriptor, size

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _open_regular(path: str) -> _Opened:
    """Raises OSError, with a number of `_MISSING` for a link or what is no file: a link leads to files of this machine,
    and whoever opens a pipe waits for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EISDIR, "it is no regular file", path)
    return _Opened(descriptor, found.st_size)
