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
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=cache, ignore_cleanup_errors=True) as place:
        descriptor = os.open(Path(place, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(place)
        finally:
            os.close(descriptor)


def in_use(folder: Path) -> bool:
    """Whether a process that lives made the folder for itself."""
    return folder.is_dir() and is_held(folder / _LOCK)


def remove_abandoned(cache: Path) -> None:
    """Removes the folders whose process was killed."""
    for folder in cache.glob(f"{PREFIX}*"):
        if not in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)
