"""Folders in the workspace's cache that live as long as the process that uses them.

A lock says that one is in use: the system drops it with the process, even after a kill.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from speciate.workspace.lock import is_held

PREFIX = "scratch-"
_LOCK = ".lock"


@contextlib.contextmanager
def scratch_folder(cache: Path) -> Iterator[Path]:
    """A new folder, which is removed in the end."""
    place, descriptor = _locked_folder(cache)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def _locked_folder(cache: Path) -> tuple[Path, int]:
    """Made anew where a daemon that starts removed it before it was locked."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=cache))
        try:
            descriptor = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if not cache.is_dir():
                raise
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if (place / _LOCK).exists():
            return place, descriptor
        os.close(descriptor)


def in_use(folder: Path) -> bool:
    """Whether a process that lives made the folder for itself."""
    return folder.is_dir() and is_held(folder / _LOCK)


def remove_abandoned(cache: Path) -> None:
    """Removes the folders whose process was killed."""
    for folder in cache.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            _remove_abandoned(folder)


def _remove_abandoned(folder: Path) -> None:
    """The lock is the first file in it and held while it goes, so who is about to lock it notices."""
    with contextlib.suppress(OSError):
        folder.rmdir()  # empty: nobody has locked it yet
        return
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # killed while it removed the folder
        shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
