"""Unix sockets between processes of one user: nobody is spoken to before the kernel said who it is.

Standard library only: the shim starts through it.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path

from speciate import account

LONGEST_PATH = 100
"""Bytes of a socket's path; the system ends at 104 (macOS) or 108."""


class Foreign(OSError):
    """The socket, or who listens there, belongs to somebody else. `owner` is the uid."""

    def __init__(self, path: Path, owner: int) -> None:
        super().__init__(f"{path} belongs to the user with uid {owner}")
        self.owner = owner


def connect(path: Path, owners: Collection[int], timeout: float | None = None) -> socket.socket:
    """A connection to whoever listens at `path`. Raises Foreign where that is none of `owners`, else OSError."""
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode):
        raise FileNotFoundError(f"{path} is no socket")
    if found.st_uid not in owners:
        raise Foreign(path, found.st_uid)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        connection.connect(os.fspath(path))
        if (owner := account.peer(connection).uid) not in owners:
            raise Foreign(path, owner)
    except BaseException:
        connection.close()
        raise
    return connection


def listen(path: Path, backlog: int) -> socket.socket:
    """A socket for this user alone, in the place of a leftover. The caller holds the lock of whoever may be there."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener
