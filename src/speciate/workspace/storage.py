"""What a disk says no with, in words: full, over quota, too large a file, read-only, failing, or a changed catalog.

Libraries wrap the system's errors in their own (DuckDB, Arrow, safetensors), so the chain of an error is looked through
and, where it has no number, its text. Nothing is concluded from any other text. Standard library only.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speciate.errors import Code, SpeciateError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What room mends."""
PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN})
"""What may be gone at the next try."""
_TEXTS = {
    errno.ENOSPC: ("No space left on device", "os error 28"),
    errno.EDQUOT: ("Disk quota exceeded", "os error 122"),
    errno.EFBIG: ("File too large", "os error 27"),
    errno.EROFS: ("Read-only file system", "os error 30"),
    errno.EIO: ("Input/output error", "os error 5)"),
    errno.ESTALE: ("Stale file handle", "os error 116"),
    errno.ENOTCONN: ("Transport endpoint is not connected", "os error 107"),
}
_LIBRARIES = ("duckdb", "pyarrow", "safetensors", "safetensors_rust")
"""Whose texts are believed: others may quote what a user wrote."""
_QUOTED = re.compile(r'"(/[^"]+)"')


class Refusal(NamedTuple):
    """What the disk refused, and about which file, as far as the error says."""

    number: int
    path: str | None


def refusal(error: BaseException) -> Refusal | None:
    """The first refusal of a disk in an error's chain of causes; None where there is none."""
    for each in _chain(error):
        if (number := _number(each)) is not None:
            return Refusal(number, _path(each))
    return None


def explained(error: BaseException, workspace: Path | None = None, needed: int | None = None) -> SpeciateError | None:
    """The error for whoever called, where a disk is to blame. `needed`: bytes that were to be written, where known.

    UNAVAILABLE for all of them: once the disk is mended, the same call succeeds.
    """
    if any(_is_corrupt(each) for each in _chain(error)):
        return SpeciateError(
            Code.DAMAGED,
            f"The catalog of {_where(None, workspace)} is damaged: a block of catalog.duckdb is not what was written.",
            "Run `speciate stop`, then `speciate rebuild`: it keeps the old file, takes the newest backup and the run "
            "folders, and says what it could not restore.",
        )
    found = refusal(error)
    if found is None:
        return None
    where = _where(found.path, workspace)
    wanted = f" At least {_amount(needed)} are needed." if needed else ""
    said, recovery = _WORDS[found.number]
    room = _free(found.path, workspace) if found.number == errno.ENOSPC else ""
    limit = f" of {_amount(_file_limit())}" if found.number == errno.EFBIG and _file_limit() is not None else ""
    return SpeciateError(
        Code.UNAVAILABLE,
        said.format(where=where, room=room, limit=limit) + wanted,
        recovery,
        foreign=f"{os.strerror(found.number)}: {found.path}" if found.path else "",
    )


_GC = "manage_data(action='gc', dry_run=true) shows what speciate could delete"
_WORDS = {
    errno.ENOSPC: (
        "The disk that holds {where} is full{room}, so nothing was changed.",
        f"Free some space ({_GC}), then repeat the same call.",
    ),
    errno.EDQUOT: (
        "Your disk quota where {where} lies is used up, so nothing was changed.",
        f"Free some space ({_GC}) or have the quota raised, then repeat the same call.",
    ),
    errno.EFBIG: (
        "A file of {where} would be larger than this account or filesystem allows{limit}, so nothing was changed.",
        "Raise the limit (`ulimit -f`, or a filesystem without one), restart the daemon (`speciate stop`), then repeat "
        "the same call.",
    ),
    errno.EROFS: (
        "The filesystem that holds {where} is mounted read-only, so nothing was changed.",
        "The system does that after faults of a disk: look at `dmesg`, mount it for writing, then repeat the call.",
    ),
    errno.EIO: (
        "The disk that holds {where} fails to read or write.",
        "Look at `dmesg`; copy the workspace with `speciate backup` while it can be read, then run "
        "`speciate verify --all`.",
    ),
    errno.ESTALE: (
        "The filesystem that holds {where} lost a file that was open (stale handle), as network filesystems do.",
        "Put the workspace on a local disk; `speciate doctor` says what it lies on. Then repeat the same call.",
    ),
    errno.ENOTCONN: (
        "The filesystem that holds {where} is no longer connected, as when a FUSE or network mount ended.",
        "Mount it again, then repeat the same call.",
    ),
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen, each = set[int](), error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__  # type: ignore[assignment]  # None ends it


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _TEXTS else None
    if isinstance(error, OSError) or _library(error) in _LIBRARIES:
        text = str(error)
        return next((number for number, texts in _TEXTS.items() if any(each in text for each in texts)), None)
    return None


def _is_corrupt(error: BaseException) -> bool:
    return _library(error) == "duckdb" and "Corrupt database file" in str(error)


def _library(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0].lstrip("_")


def _path(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.filename is not None:
        return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    match = _QUOTED.search(str(error))
    return match[1] if match else None


def _where(path: str | None, workspace: Path | None) -> str:
    if path is not None and workspace is not None and not Path(path).is_relative_to(workspace):
        return str(Path(path).parent)
    return f"the workspace {workspace}" if workspace is not None else "it" if path is None else str(Path(path).parent)


def _free(path: str | None, workspace: Path | None) -> str:
    place = Path(path).parent if path is not None else workspace
    try:
        found = os.statvfs(place) if place is not None else None
    except OSError:
        return ""
    if found is None:
        return ""
    if found.f_files and not found.f_favail:
        return " (it has no inodes left: too many files)"
    return f" ({_amount(found.f_bavail * found.f_frsize)} are free)"


def _file_limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft


def _amount(count: int | None) -> str:
    size = float(count or 0)
    for unit in ("bytes", "kB", "MB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GB"
