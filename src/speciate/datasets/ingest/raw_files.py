"""Reads the bytes of a source's files without looking into them; several files as one bundle if an example has
several."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.sources.listing import SourceFile
from speciate.modalities.bundles import bundle

LONGEST_FILE = 512 * 1024 * 1024
"""Bytes of one example; more is refused unread."""
_NUMBERED = re.compile(r"\d{5}\.\w+")
GONE = "The file no longer existed when it was read."


class FileState(NamedTuple):
    """Size and time of a file, by which it is known to be unchanged; -1 if it does not exist."""

    size: int
    mtime_ns: int


class RawFile(NamedTuple):
    """`data` and its `sha256` are None if it was not read; then `quality` and `reason` say why."""

    state: FileState
    data: bytes | None
    sha256: str | None
    quality: str = "ok"
    reason: str | None = None


def file_state(file: SourceFile) -> FileState:
    """State of a file; for several files the sum of their sizes and the latest change."""
    return (
        _combine_states([_state_of_path(path) for _, path in file.parts]) if file.parts else _state_of_path(file.path)
    )


def read_raw(file: SourceFile, below: Collection[str]) -> RawFile:
    """`below`: resolved folders or files. Nothing outside them is read, wherever a path leads by now."""
    if not file.parts:
        return _read(file.path, below)
    members: dict[str, bytes] = {}
    state: list[FileState] = []
    for name, path in file.parts:
        raw = _read(path, below)
        state.append(raw.state)
        if raw.data is None:
            return raw._replace(
                state=file_state(file), reason=f"{raw.reason} It is {name!r} of {len(file.parts)} files."
            )
        members[name] = raw.data
        if (size := sum(each.size for each in state)) > LONGEST_FILE:
            reason = f"Its files have {size:,} bytes and more together, more than {LONGEST_FILE:,}."
            return RawFile(file_state(file), None, None, "refused", reason)
    data = bundle(members)
    return RawFile(_combine_states(state), data, hashlib.sha256(data).hexdigest())


def by_source_names(reason: str | None, file: SourceFile) -> str | None:
    """A reason with the source's names of an example's files.

    Bundles number files that have names, and a decoder's message quotes the numbered names, which mean nothing to the
    user.
    """
    if reason is None or not file.parts:
        return reason
    called = _source_names({name: path for name, path in file.parts if _NUMBERED.fullmatch(name)})
    if not called:
        return reason
    names = "|".join(map(re.escape, sorted(called, key=len, reverse=True)))
    return re.sub(rf"'?(?<![\w./-])({names})(?![\w/-])'?", lambda found: repr(called[found[1]]), reason)


def _source_names(paths: dict[str, Path]) -> dict[str, str]:
    """Name in the bundle -> name of the file, with its folder where two have the same."""
    times = Counter(path.name for path in paths.values())
    return {
        name: path.name if times[path.name] == 1 else f"{path.parent.name}/{path.name}" for name, path in paths.items()
    }


def _state_of_path(path: Path) -> FileState:
    try:
        found = os.stat(path)
    except OSError:
        return FileState(-1, -1)
    return FileState(found.st_size, found.st_mtime_ns)


def _combine_states(state: Sequence[FileState]) -> FileState:
    return FileState(sum(each.size for each in state), max(each.mtime_ns for each in state))


def _read(path: Path, below: Collection[str]) -> RawFile:
    state = FileState(-1, -1)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with io.FileIO(descriptor) as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or not _is_below(_real(descriptor, path), below):
                return RawFile(state, None, None, "refused", "The path leads out of the source.")
            state = FileState(found.st_size, found.st_mtime_ns)
            if state.size > LONGEST_FILE:
                reason = f"The file has {state.size:,} bytes, more than {LONGEST_FILE:,}."
                return RawFile(state, None, None, "refused", reason)
            data = file.readall() or b""
    except FileNotFoundError:
        return RawFile(state, None, None, "error", GONE)
    except OSError as error:
        return RawFile(state, None, None, "error", f"The file cannot be read: {error.strerror}.")
    return RawFile(state, data, hashlib.sha256(data).hexdigest())


def _real(descriptor: int, path: Path) -> str:
    """Where an open file lies, without links."""
    if sys.platform == "linux":
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return os.path.realpath(path)


def _is_below(real: str, folders: Collection[str]) -> bool:
    return any(real == folder or real.startswith(f"{folder}/") for folder in folders)
