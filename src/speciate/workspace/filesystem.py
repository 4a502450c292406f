"""Whether a folder's filesystem can hold a workspace: what the promises rest on, tried for real where it can be."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.workspace.storage import FULL

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


class Check(NamedTuple):
    name: str
    ok: bool
    what: str


def check_folder(folder: Path) -> list[Check]:
    """Try `folder`, or the nearest one above it that exists. Leaves nothing behind."""
    there = folder.absolute()
    while not there.is_dir():
        there = there.parent
    if not os.access(there, os.W_OK):
        return [Check("writable", False, f"{there} cannot be written by you")]
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
        check = _holds(folder)
    if not check.ok:
        raise SpeciateError(
            Code.REFUSED,
            f"{folder} cannot hold a workspace: {check.what}.",
            "Put the workspace on a local disk (--workspace or SPECIATE_HOME); copy results with `speciate backup`.",
        )


def _holds(folder: Path) -> Check:
    """Whether locks and renames do what is built on them, tried here; what cannot be tried for want of room is said by
    whoever needs the room."""
    probe = folder / f".speciate-probe-{uuid.uuid4().hex[:8]}"
    try:
        locks = _locks(probe)
        return locks if not locks.ok else _renames(probe)
    except OSError as error:
        if error.errno in FULL:
            return Check("locks", True, "not tried: the disk is full")
        return Check("locks", False, f"locks and renames cannot be tried: {error.strerror}")
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


def _is_local(folder: Path) -> Check:
    found = kind(folder)
    if found in _NETWORK:
        return Check("local", False, f"{found} is a network filesystem, whose locks do not hold across machines")
    if found in _RISKS:
        return Check("local", True, _RISKS[found])
    if found.startswith("fuse"):
        return Check("local", True, _FUSE.format(found))
    return Check("local", True, found or "local, as far as the system says")


def _has_space(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    return Check("space", free >= _NEEDED_BYTES, f"{free / 2**30:.1f} GiB free")


def _locks(probe: Path) -> Check:
    """Two descriptors of one file are two owners: the second must be refused."""
    first, second = (os.open(probe, os.O_CREAT | os.O_RDWR) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Check("locks", True, "flock holds")
    except OSError as error:
        return Check("locks", False, f"flock fails: {error.strerror}")
    finally:
        os.close(first)
        os.close(second)
    return Check("locks", False, "flock was granted twice")


def _renames(probe: Path) -> Check:
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
            return Check("rename", True, "not tried: the disk is full")
        return Check("rename", False, f"rename fails: {error.strerror}")
    finally:
        other.unlink(missing_ok=True)
    if (found, kept) != (b"new", b"old"):
        return Check("rename", False, "after a rename another file's content was read")
    return Check("rename", True, "rename replaces")


def _syncs(probe: Path) -> Check:
    started = time.perf_counter()
    try:
        with probe.open("wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Check("fsync", False, f"fsync fails: {error.strerror}")
    return Check("fsync", True, f"fsync takes {1000 * (time.perf_counter() - started):.1f} ms")
