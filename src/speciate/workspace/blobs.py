"""Content-addressed files: a blob's name is the sha256 of its bytes, so writing twice is writing once.

Small media go into packs (packs.py) instead: a file each would cost an inode and an fsync per example.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from speciate.errors import Code, SpeciateError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """The folder `blobs/`: `ab/abcd...` for each content. Safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Where the blob lies, or would."""
        if not _DIGEST.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not a sha256 in lower-case hexadecimal")
        return self._folder / sha256[:2] / sha256

    def put(self, data: bytes) -> str:
        """Store `data`, on disk when this returns; the sha256 that names it."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.path(sha256)
        if not target.exists():
            make_folder(target.parent)
            write_durably(target, data)
        else:
            os.utime(target)  # it may have been garbage until now: it is as young as what names it
            sync_folder(target.parent)  # who put it there may have been killed before that
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes, checked against their name. NOT_FOUND where there are none, DAMAGED where they were."""
        try:
            data = self.path(sha256).read_bytes()
        except FileNotFoundError:
            raise SpeciateError(
                Code.NOT_FOUND, f"There is no blob {sha256}.", "Run `speciate rebuild` to see what is missing."
            ) from None
        check_digest(data, sha256, self.path(sha256))
        return data

    def __contains__(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def __iter__(self) -> Iterator[str]:
        for folder in sorted(self._folder.glob("??")):
            yield from sorted(path.name for path in folder.iterdir() if _DIGEST.fullmatch(path.name))


def check_digest(data: bytes, sha256: str, path: Path) -> None:
    """Refuse bytes that are not what their name says: the disk, or somebody, changed them."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise SpeciateError(
            Code.DAMAGED,
            f"{path} is damaged: its content has sha256 {found[:16]}..., it should be {sha256[:16]}...",
            "Restore the file from a backup of the workspace, or create the dataset again from its source; "
            "`speciate verify --all` names everything that is damaged.",
        )


def write_durably(target: Path, data: bytes) -> None:
    """All of `data` or nothing is at `target` whenever the machine stops, and it is all there on return."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


_named: set[tuple[str, int]] = set()
"""Path and inode of folders whose names are known to be on the disk."""


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it, where it is not there; its name is on the disk when this returns.

    Also where it is there: who made it may have been killed before the sync. A process does that once for each.
    """
    if made := not folder.is_dir():
        if not folder.parent.exists():
            make_folder(folder.parent, mode)
        folder.mkdir(mode=mode, exist_ok=True)
    key = str(folder), folder.stat().st_ino
    if made or key not in _named:  # one that is made where another was may get its inode
        with contextlib.suppress(PermissionError):  # a folder above the workspace that only its owner may list
            sync_folder(folder.parent)
        _named.add(key)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: fsync of a file does not cover its entry in the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make a folder's files durable, and the names in it and in each folder below it."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    sync_folder(folder)
