"""Whether a filesystem can hold a workspace, tried for real where possible, and what a disk's errors mean.

`explain` turns an OSError or a DuckDB error into words for a person: full, over quota, file too large, read-only,
failing, or a changed catalog. Libraries wrap the system's errors in their own (DuckDB, Arrow, safetensors), so the
chain of an error is searched and, if it has no number, the text of these libraries; no other text counts. Standard
library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speciate.errors import Code, SpeciateError

_NETWORK = {
    "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "9p", "afs", "coda", "ceph", "glusterfs", "lustre", "gpfs",
    "beegfs", "pvfs2", "orangefs", "ocfs2", "gfs2", "davfs", "vboxsf", "prl_fs", "fuse.sshfs", "fuse.s3fs",
    "fuse.rclone", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.gcsfuse", "fuse.goofys", "fuse.blobfuse",
    "fuse.blobfuse2", "fuse.mount-s3", "fuse.davfs", "fuse.juicefs", "fuse.JuiceFS", "fuse.seaweedfs", "fuse.mfs",
    "fuse.lizardfs", "fuse.curlftpfs", "fuse.smbnetfs", "fuse.vmhgfs-fuse",
}  # fmt: skip
_RISKS = {
    "overlay": "overlay, as in a container: what is written goes with the container unless a volume is mounted here",
    "tmpfs": "tmpfs: it is memory, and all of it is gone when the machine stops",
    "ramfs": "ramfs: it is memory, and all of it is gone when the machine stops",
    "virtiofs": "virtiofs, a folder of the host: never open the workspace on the host and in here at once",
}
_FUSE = "{}, a program's filesystem: whether its locks hold across machines nobody here can tell; use it from one alone"
_NEEDED_BYTES = 1 << 30
_LEAST_BYTES = 16 << 20
_SLOW_SECONDS = 0.25


class FilesystemCheck(NamedTuple):
    name: str
    ok: bool
    what: str


def check_folder(folder: Path) -> list[FilesystemCheck]:
    """Try `folder`, or the nearest one above it that exists. Leaves nothing behind."""
    there = folder.absolute()
    while not there.is_dir():
        there = there.parent
    if not os.access(there, os.W_OK):
        return [FilesystemCheck("writable", False, f"{there} cannot be written by you")]
    probe = there / f".speciate-probe-{uuid.uuid4().hex[:8]}"
    try:
        return [_is_local(there), _has_space(there), _locks(probe), _renames(probe), _syncs(probe)]
    finally:
        probe.unlink(missing_ok=True)


def require_local(folder: Path) -> None:
    """Refuse a filesystem on which a lock may be granted to two machines, or to two processes, or on which a file does
    not take another's place. Nothing overrides that: two owners of one catalog would end it."""
    check = _is_local(folder)
    if check.ok and os.access(folder, os.W_OK):
        check = _check_locks_and_renames(folder)
    if not check.ok:
        raise SpeciateError(
            Code.REFUSED,
            f"{folder} cannot hold a workspace: {check.what}.",
            "Put the workspace on a local disk (--workspace or SPECIATE_HOME); copy results with `speciate backup`.",
        )


def _check_locks_and_renames(folder: Path) -> FilesystemCheck:
    """Whether locks and renames do what is built on them, tried here; what cannot be tried for want of room is said by
    whoever needs the room."""
    probe = folder / f".speciate-probe-{uuid.uuid4().hex[:8]}"
    try:
        locks = _locks(probe)
        return locks if not locks.ok else _renames(probe)
    except OSError as error:
        if error.errno in FULL:
            return FilesystemCheck("locks", True, "not tried: the disk is full")
        return FilesystemCheck("locks", False, f"locks and renames cannot be tried: {error.strerror}")
    finally:
        probe.unlink(missing_ok=True)


def require_space(folder: Path, size: int = 0) -> None:
    """Refuse to begin what a nearly full disk would interrupt. `size`: bytes that are going to be written."""
    free, needed = shutil.disk_usage(folder).free, _LEAST_BYTES + size
    if free < needed:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The disk that holds {folder} is full: {free >> 20} MiB are free, and a job needs "
            f"{needed >> 20} to begin.",
            "Free some space, then repeat the same call.",
        )


def kind(folder: Path) -> str:
    """The type of the filesystem that holds `folder`; empty where the system does not say."""
    try:
        table = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return ""
    return kind_in(table, os.path.realpath(folder))


def kind_in(mountinfo: str, path: str) -> str:
    """The type of the mount that `path` is on: the one with the longest mount point; of equals, the last."""
    best, found = "", ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, right.split()[0]
    return found


def _is_local(folder: Path) -> FilesystemCheck:
    found = kind(folder)
    if found in _NETWORK:
        return FilesystemCheck(
            "local", False, f"{found} is a network filesystem, whose locks do not hold across machines"
        )
    if found in _RISKS:
        return FilesystemCheck("local", True, _RISKS[found])
    if found.startswith("fuse"):
        return FilesystemCheck("local", True, _FUSE.format(found))
    return FilesystemCheck("local", True, found or "local, as far as the system says")


def _has_space(folder: Path) -> FilesystemCheck:
    free = shutil.disk_usage(folder).free
    return FilesystemCheck("space", free >= _NEEDED_BYTES, f"{free / 2**30:.1f} GiB free")


def _locks(probe: Path) -> FilesystemCheck:
    """Two descriptors of one file are two owners: the second must be refused."""
    first, second = (os.open(probe, os.O_CREAT | os.O_RDWR) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return FilesystemCheck("locks", True, "flock holds")
    except OSError as error:
        return FilesystemCheck("locks", False, f"flock fails: {error.strerror}")
    finally:
        os.close(first)
        os.close(second)
    return FilesystemCheck("locks", False, "flock was granted twice")


def _renames(probe: Path) -> FilesystemCheck:
    """A file takes the place of another one, whole, under a reader that keeps the old one. That it does so at once for
    everybody cannot be tried."""
    other = probe.with_name(probe.name + ".new")
    try:
        probe.write_bytes(b"old")
        with probe.open("rb") as reader:
            other.write_bytes(b"new")
            other.replace(probe)
            kept = reader.read()
        found = probe.read_bytes()
    except OSError as error:
        if error.errno in FULL:
            return FilesystemCheck("rename", True, "not tried: the disk is full")
        return FilesystemCheck("rename", False, f"rename fails: {error.strerror}")
    finally:
        other.unlink(missing_ok=True)
    if (found, kept) != (b"new", b"old"):
        return FilesystemCheck("rename", False, "after a rename another file's content was read")
    return FilesystemCheck("rename", True, "rename replaces")


def _syncs(probe: Path) -> FilesystemCheck:
    started = time.perf_counter()
    try:
        with probe.open("wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return FilesystemCheck("fsync", False, f"fsync fails: {error.strerror}")
    took = time.perf_counter() - started
    slow = ": a slow disk; each change waits for it, so calls and starts take seconds" if took > _SLOW_SECONDS else ""
    return FilesystemCheck("fsync", True, f"fsync takes {1000 * took:.1f} ms{slow}")


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Free space mends these."""
PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN})
"""These may be gone at the next try."""
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
"""Libraries whose error texts are believed: others may quote what a user wrote."""
_QUOTED = re.compile(r'"(/[^"]+)"')


class DiskRefusal(NamedTuple):
    """What the disk refused, and about which file, as far as the error says."""

    number: int
    path: str | None


def find_refusal(error: BaseException) -> DiskRefusal | None:
    """The first refusal of a disk in an error's chain of causes; None where there is none."""
    for each in _chain(error):
        if (number := _number(each)) is not None:
            return DiskRefusal(number, _path(each))
    return None


def explain(error: BaseException, workspace: Path | None = None, needed: int | None = None) -> SpeciateError | None:
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
    found = find_refusal(error)
    if found is None:
        return None
    where = _where(found.path, workspace)
    wanted = f" At least {_amount(needed)} are needed." if needed else ""
    sentence, recovery = _WORDS[found.number]
    room = _free(found.path, workspace) if found.number == errno.ENOSPC else ""
    limit = f" of {_amount(_file_limit())}" if found.number == errno.EFBIG and _file_limit() is not None else ""
    return SpeciateError(
        Code.UNAVAILABLE,
        sentence.format(where=where, room=room, limit=limit) + wanted,
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
