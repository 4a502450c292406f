"""Reads a file that a caller named, after its path was resolved and checked against the roots; or a folder whose files
are one example together, such as a series of slices or a mesh with its materials, as their bundle.

Between the check and the reading somebody may swap a link or a pipe in. So no link is followed any more, in any folder
on the way, and only regular files are read: nothing that could block or has no end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from speciate import foreign_files, secrets
from speciate.errors import Code, SpeciateError
from speciate.modalities.bundles import MOST_MEMBERS, bundle

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe would wait for its writer


def read(path: Path, most: int) -> bytes:
    """The bytes of the file at an absolute path without links, or the bundle of those in the folder; more than `most`
    where they are too many, and then not all of them.

    Raises INVALID where it is neither, or cannot be opened without following a link.
    """
    try:
        descriptor = _open(path)
    except (OSError, ValueError) as error:
        raise _unusable(path, type(error).__name__) from error
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            return _bundle(path, descriptor, most)
        if not stat.S_ISREG(kind):
            raise _unusable(path, "it is no regular file")
        _check_no_key(path, descriptor)
        return _bytes(descriptor, most)
    except OSError as error:
        raise _unusable(path, type(error).__name__) from error
    finally:
        os.close(descriptor)


def _bundle(path: Path, folder: int, most: int) -> bytes:
    """Hidden files are passed over, as in every source."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    if not names or len(names) > MOST_MEMBERS:
        raise _unusable(path, f"a folder of one example has 1 to {MOST_MEMBERS:,} files, and this one {len(names):,}")
    members: dict[str, bytes] = {}
    for name in names:
        if not name.isprintable():  # nor half a character, which stands for bytes that are no UTF-8
            raise _unusable(path, f"{name!a} is no name for a file of an example")
        descriptor = os.open(name, _FILE, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unusable(path, f"{name!r} in it is no regular file; a folder of one example has no others")
            _check_no_key(path, descriptor)
            members[name] = _bytes(descriptor, most)
        finally:
            os.close(descriptor)
        most -= len(members[name])
        if most < 0:
            break
    return bundle(members)


def _check_no_key(path: Path, descriptor: int) -> None:
    """By what was opened: a hard link has another name."""
    info = os.fstat(descriptor)
    if info.st_nlink > 1 and (info.st_dev, info.st_ino) in secrets.inodes():
        raise _unusable(path, "it leads to a person's keys")


def _bytes(descriptor: int, most: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(most + 1)


def _open(path: Path) -> int:
    folder = foreign_files.open_folder(path.parent)
    try:
        return os.open(path.name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _unusable(path: Path, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"{str(path)!r} cannot be read: {why}.", "Call predict again with the path of a file."
    )
