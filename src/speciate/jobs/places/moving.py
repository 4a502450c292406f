"""What a run reads, moved into a depot before it is launched: each file once, by its content.

The digest of a file is remembered by where it lies and when it was written, so a second run on the same data reads
nothing of it here and moves no byte. That memory is a cache: the node checks what it reads.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunDocument, write_whole
from speciate.jobs.places.depot import Depot, Entry

_KNOWN = "places/digests.json"
_OUTSIDE = "outside"
_Stamp = tuple[int, int, int]


class Mover:
    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._file = workspace / "cache" / _KNOWN
        self._known: dict[str, tuple[_Stamp, str]] = _read(self._file)
        self._lock = threading.Lock()
        self.moved = 0
        """Bytes, since this process began."""

    def move_out(self, depot: Depot, spec: RunDocument) -> tuple[tuple[Entry, ...], Mapping[str, str]]:
        """The inputs of a run, all of which are in the depot now, and where absolute paths are found below its root.

        Earlier attempts' checkpoints are among them. Raises NOT_FOUND for a file that is gone, and OSError.
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
                inside = os.path.normpath(f"{name}/{os.path.relpath(file, self._workspace / given)}")
                entries[inside] = Entry(inside, *self._put(depot, file))
        write_whole(_made(self._file), json.dumps(self._known))
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
