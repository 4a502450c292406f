"""Reads a file that a caller named, after its path was resolved and checked against the roots; or a folder whose files
are one example together, such as a series of slices or a mesh with its materials, as their bundle.

Between the check and the reading somebody may swap a link or a pipe in. So no link is followed any more, in any folder
on the way, and only regular files are read: nothing that could block or has no end.
"""

from __future__ import annotations

import os
from pathlib import Path

from speciate import foreign_files, secrets
from speciate.errors import Code, SpeciateError
from speciate.modalities.bundles import MOST_MEMBERS, bundle


def read(path: Path, most: int, workspace: Path | None = None) -> bytes:
    """The bytes of the file at an absolute path without links, or the bundle of those in the folder; more than `most`
    where they are too many, and then not all of them. `workspace`: whose own files are none of a caller's.

    Raises INVALID where it is neither, cannot be opened without following a link, or is a key or such a file.
    """
    try:
        if path.is_dir():
            return _bundle(path, most, workspace)
        with foreign_files.open_named(path) as file:
            _check_not_own(path, file.fileno(), workspace)
            return file.read(most + 1)
    except foreign_files.NotAFile as error:
        raise _unusable(path, "it is no regular file") from error
    except (OSError, ValueError) as error:
        raise _unusable(path, type(error).__name__) from error


def _bundle(path: Path, most: int, workspace: Path | None) -> bytes:
    """Hidden files are passed over, as in every source."""
    folder = _opened(path)
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        if not names or len(names) > MOST_MEMBERS:
            has = f"{len(names):,}"
            raise _unusable(path, f"a folder of one example has 1 to {MOST_MEMBERS:,} files, and this one {has}")
        members: dict[str, bytes] = {}
        for name in names:
            members[name] = _member(path, folder, name, most, workspace)
            most -= len(members[name])
            if most < 0:
                break
    finally:
        os.close(folder)
    return bundle(members)


def _opened(path: Path) -> int:
    """A folder that can be listed, which what `open_folder` returns may not be."""
    way = foreign_files.open_folder(path)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=way)
    finally:
        os.close(way)


def _member(path: Path, folder: int, name: str, most: int, workspace: Path | None) -> bytes:
    if not name.isprintable():  # nor half a character, which stands for bytes that are no UTF-8
        raise _unusable(path, f"{name!a} is no name for a file of an example")
    try:
        with foreign_files.open_file(path / name, folder) as file:
            _check_not_own(path, file.fileno(), workspace)
            return file.read(most + 1)
    except foreign_files.NotAFile as error:
        why = f"{name!r} in it is no regular file; a folder of one example has no others"
        raise _unusable(path, why) from error


def _check_not_own(path: Path, descriptor: int, workspace: Path | None) -> None:
    """By what was opened: a hard link has another name."""
    info = os.fstat(descriptor)
    if info.st_nlink > 1 and (info.st_dev, info.st_ino) in secrets.inodes(workspace):
        raise _unusable(path, "it leads to a person's keys, or to the workspace's own files")


def _unusable(path: Path, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"{str(path)!r} cannot be read: {why}.", "Call predict again with the path of a file."
    )
