"""Reads a file that a caller named, after its path was resolved and checked against the roots.

Between the check and the reading somebody may swap a link or a pipe in. So no link is followed any more, in any folder
on the way, and only a regular file is read: nothing that could block or has no end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from speciate.errors import Code, SpeciateError

_STEP = os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe would wait for its writer


def read(path: Path, most: int) -> bytes:
    """The bytes of the file at an absolute path without links, one more than `most` at most.

    Raises INVALID where it is no regular file, or cannot be opened without following a link.
    """
    try:
        descriptor = _open(path)
    except (OSError, ValueError) as error:
        raise _unusable(path, type(error).__name__) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unusable(path, "it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most + 1)
    except OSError as error:
        raise _unusable(path, type(error).__name__) from error
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    folder = os.open(path.anchor, _STEP)
    try:
        for name in path.parts[1:-1]:
            below = os.open(name, _STEP, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(path.name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _unusable(path: Path, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"{str(path)!r} cannot be read: {why}.", "Call predict again with the path of a file."
    )
