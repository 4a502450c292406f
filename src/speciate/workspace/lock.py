"""The one lock of a workspace: who holds it owns the catalog.

A `flock` on `daemon.lock`, which the kernel frees at the holder's death. The file is never unlinked: a process that
locked an unlinked file and one that locked its successor would both believe that they had won. Standard library
only, for it is taken before anything heavy is imported.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.workspace import filesystem

_OURS = {"catalog.duckdb", "identity.json", "settings.toml", "daemon.lock", "daemon.log", "runs", "backups"}


class LockHeldError(Exception):
    """Another process holds the lock."""


class Lock:
    """Taken at construction, free at the process's end.

    Raises Held where another process has it, and SpeciateError where the folder cannot be a workspace.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "daemon.lock"
        _check_ours(root)
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable_error(root, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise LockHeldError(str(root)) from None
        except OSError as error:
            raise unusable_error(root, error) from error

    def intact(self) -> bool:
        """Whether the locked file is still the one that others would lock: if not, somebody replaced the workspace."""
        try:
            there = self._path.stat()
        except OSError:
            return False
        mine = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def release(self) -> None:
        os.close(self._descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file. Asked by a shared lock, so that those who ask are no holders."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def unusable_error(root: Path, error: OSError) -> SpeciateError:
    """The error for a folder that the system does not let us use."""
    if (refusal := filesystem.explain(error, root)) is not None:
        return refusal
    return SpeciateError(
        Code.UNAVAILABLE,
        f"The workspace {root} cannot be used: {error.strerror or error}.",
        "Run `speciate doctor`, or point --workspace at a folder of yours.",
    )


def _check_ours(root: Path) -> None:
    """Refuse a folder full of something else: a workspace is never spread over somebody's project by a slip."""
    try:
        names = {path.name for path in root.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable_error(root, error) from error
    if names and not names & _OURS:
        raise SpeciateError(
            Code.REFUSED,
            f"{root} is not a workspace: it holds other things, such as {min(names)!r}.",
            "Point --workspace at a new or empty folder, or at a workspace.",
        )
