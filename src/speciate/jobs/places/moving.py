"""What a run reads, moved into a depot before it is launched: each file once, by its content.

The digest of a file is remembered by where it lies and when it was written, so a second run on the same data reads
nothing of it here and moves no byte. That memory is a cache: the node checks what it reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from speciate import secrets
from speciate.errors import Code, SpeciateError
from speciate.jobs.egress import Permit
from speciate.jobs.folder import RunDocument, write_whole
from speciate.jobs.places.depot import Depot, Entry

_KNOWN = "places/digests.json"
_OUTSIDE, _SOURCES = "outside", "sources"
_Stamp = tuple[int, int, int]


class Mover:
    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._file = workspace / "cache" / _KNOWN
        self._known: dict[str, tuple[_Stamp, str]] = _read(self._file)
        self._lock = threading.Lock()
        self.moved = 0
        """Bytes, since this process began."""

    def move_out(self, depot: Depot, spec: RunDocument, permit: Permit) -> tuple[tuple[Entry, ...], Mapping[str, str]]:
        """The inputs of a run, all of which are in the depot now, and where absolute paths are found below its root.

        Earlier attempts' checkpoints are among them. Raises NOT_FOUND for a file that is gone, REFUSED for one of a
        dataset that `permit` does not name or of `sources` that is none of the caller's data any more, and OSError.
        """
        moved = {str(self._workspace): ""}
        entries: dict[str, Entry] = {}
        earlier = [os.path.relpath(path, self._workspace) for path in spec.get("resume_from", ())]
        for given in (*spec.get("inputs", ()), *(f"{each}/checkpoints" for each in earlier)):
            name = given
            if given in moved:
                continue
            if os.path.isabs(given):
                name = f"{_OUTSIDE}/{len(moved)}/{os.path.basename(given)}"
                moved[given] = name
            for file in _files(self._workspace / given, optional=given.endswith("/checkpoints")):
                permit.check_files([os.path.relpath(file, self._workspace)])
                inside = os.path.normpath(f"{name}/{os.path.relpath(file, self._workspace / given)}")
                entries[inside] = Entry(inside, *self._put(depot, file))
        write_whole(_made(self._file), json.dumps(self._known))
        own = secrets.inodes(self._workspace)
        for given in spec.get("sources", ()):
            moved[given] = f"{_SOURCES}{given}"  # paths relate as before: a table of labels names files by that
            for file in _source_files(Path(given)):
                with _opened(file, given, own) as opened:
                    sha256, size = depot.put(opened)
                    self.moved += size
                    entries[f"{_SOURCES}{file}"] = Entry(f"{_SOURCES}{file}", sha256, opened.stat().st_size)
        return tuple(entries.values()), moved

    def _put(self, depot: Depot, file: Path) -> tuple[str, int]:
        stamp, kept = _stamp(file), self._known.get(str(file))
        known = kept[1] if kept is not None and kept[0] == stamp else None
        sha256, moved = depot.put(file, known)
        self.moved += moved
        self._known[str(file)] = stamp, sha256
        return sha256, stamp[1]

    def wanted(self) -> set[str]:
        """Digests of files that are still as they were when they were moved; the others are forgotten."""
        there = {}
        for name, (stamp, sha256) in self._known.items():
            try:
                if _stamp(Path(name)) == stamp:
                    there[name] = stamp, sha256
            except OSError:
                continue
        self._known = there
        return {sha256 for _, sha256 in there.values()}


def _files(path: Path, *, optional: bool) -> Iterator[Path]:
    """A file, or all below a folder; links are followed, as by whoever would read them here."""
    if path.is_dir():
        for here, _, names in os.walk(path):
            yield from (Path(here) / name for name in sorted(names))
    elif path.exists():
        yield path
    elif not optional:
        raise SpeciateError(
            Code.NOT_FOUND, f"{path} is not there any more, and the run reads it.", "Call control_job(action='retry')."
        )


def _source_files(path: Path) -> Iterator[Path]:
    """A file, or those below a folder that are not hidden."""
    if not path.is_dir():
        yield path
    for here, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from (Path(here) / name for name in sorted(names) if not name.startswith("."))


@contextlib.contextmanager
def _opened(file: Path, source: str, own: Collection[tuple[int, int]]) -> Iterator[Path]:
    """A path by which the very file that was checked is read. `own`: device and inode of keys and of our own files."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found, linked = os.fstat(descriptor), Path(f"/proc/self/fd/{descriptor}")
        opened = linked if linked.exists() else file
        real = os.path.realpath(opened)
        within = real == source or real.startswith(f"{source}/")
        if not stat.S_ISREG(found.st_mode) or not within or (found.st_dev, found.st_ino) in own:
            raise SpeciateError(
                Code.REFUSED,
                f"{file.name!r} of the source is no plain file of it any more, so it is not moved.",
                "Call control_job(action='cancel'), then make the same call again: it is read on this machine.",
            )
        yield opened
    finally:
        os.close(descriptor)


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _read(file: Path) -> dict[str, tuple[_Stamp, str]]:
    try:
        return {
            name: ((stamp[0], stamp[1], stamp[2]), sha256)
            for name, (stamp, sha256) in json.loads(file.read_text()).items()
        }
    except (OSError, ValueError, TypeError, IndexError, AttributeError):
        return {}
