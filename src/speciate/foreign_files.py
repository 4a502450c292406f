"""Files and folders that a caller named: opened without following a link and without waiting, read up to a bound.

A pipe never ends an `open`, a link to /dev/zero never ends a `read`, and a hole of a gigabyte costs as much memory.
So whoever reads what a caller named reads it here: what counts is the descriptor that was opened, whatever lay at the
path before. `check_folder` looks at kinds and sizes alone, for plans; `copy` is for runs: nobody else changes a copy.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

from speciate.errors import Code, SpeciateError

LONGEST_SETTINGS, LONGEST_CODE = 4 << 20, 1 << 20
"""Bytes of a file of settings, which the daemon reads, and of a file of a user's own code."""
LONGEST_TEXT = 64 << 20
"""Bytes of any file of a model that is not its weights."""
MOST_FILES = 2_000
"""Most files at the top of a folder."""
_STEP = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_COPYING = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_AS_FILES = "Copy the folder with `cp -rL FOLDER NEW`, which turns links into files, and name the copy."


class NotAFile(OSError):
    """A link, a pipe, a socket, a device or a folder, where a plain file was expected."""


def open_file(path: Path, folder: int | None = None) -> BufferedReader:
    """A plain file. `path` is followed to its folder; `folder`: the descriptor of that, from `open_folder`.

    Raises NotAFile for all else, FileNotFoundError, or another OSError.
    """
    try:
        descriptor = os.open(path if folder is None else path.name, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENODEV):  # a link, or a socket
            raise NotAFile(error.errno, f"{path.name!r} is no plain file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAFile(errno.EINVAL, f"{path.name!r} is no plain file")
    return open(descriptor, "rb")


def read(path: Path, most: int) -> bytes:
    """Raises as `open_file` does, and ValueError where there are more than `most` bytes."""
    with open_file(path) as file:
        return _bytes(file, path.name, most)


def open_named(path: Path) -> BufferedReader:
    """`open_file`, for a path that was resolved and checked: no link is followed on the way any more."""
    folder = open_folder(path.parent)
    try:
        return open_file(path, folder)
    finally:
        os.close(folder)


def read_named(path: Path, most: int) -> bytes:
    """`read`, for a path that was resolved and checked: no link is followed on the way any more."""
    with open_named(path) as file:
        return _bytes(file, path.name, most)


def read_json(path: Path, most: int = LONGEST_SETTINGS) -> Any:
    """Raises as `read` does, and ValueError for no JSON, or JSON that is nested too deep."""
    try:
        return json.loads(read(path, most))
    except RecursionError as error:
        raise ValueError(f"{path.name!r} is nested too deep") from error


def open_folder(path: Path) -> int:
    """A descriptor of the folder at a path, on the way to which no link is followed. OSError where one is."""
    path = path.absolute()
    folder = os.open(path.anchor, _STEP)
    for name in path.parts[1:]:
        try:
            below = os.open(name, _STEP, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def check_folder(folder: Path) -> None:
    """REFUSED where the top of a folder of weights holds anything but files and folders, or text that is too long.

    One lstat each; nothing is opened. INVALID where the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= MOST_FILES:
                    raise _refusal(folder, f"it has more than {MOST_FILES:,} files", "Name a folder of one model.")
                _check_entry(folder, entry)
    except OSError as error:
        raise unreadable(folder, error) from error


def copy(folder: Path, names: Iterable[str], target: Path) -> None:
    """Copy files of a folder into another one, where they are the same blocks if the disk can do that.

    No link is followed on the way, and a file is as long as it was when it was opened. REFUSED where a file is none, or
    is too long for what is no safetensors file.
    """
    try:
        place = open_folder(folder)
    except OSError as error:
        raise unreadable(folder, error) from error
    try:
        for name in names:
            with _refusing(folder), open_file(folder / name, place) as source, (target / name).open("xb") as file:
                if not name.endswith((".safetensors", ".onnx")):
                    _check_length(folder, name, os.fstat(source.fileno()).st_size)
                _copy(source, file)
    finally:
        os.close(place)


def unreadable(path: Path, error: OSError) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{str(path)!r} cannot be read: {error.strerror or type(error).__name__}.",
        "Call again with another path, without links on the way, that this user may read.",
    )


def _bytes(file: BufferedReader, name: str, most: int) -> bytes:
    if os.fstat(file.fileno()).st_size > most or len(data := file.read(most + 1)) > most:
        raise ValueError(f"{name!r} has more than {most:,} bytes")
    return data


def _check_entry(folder: Path, entry: os.DirEntry[str]) -> None:
    found = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        raise _refusal(folder, f"{entry.name[:100]!r} in it is a link, and links are not followed", _AS_FILES)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        why = f"{entry.name[:100]!r} in it is a pipe, a socket or a device"
        raise _refusal(folder, why, "Remove it, or name another folder.")
    if entry.name.endswith((".json", ".txt", ".model", ".jinja")):
        _check_length(folder, entry.name, found.st_size)


def _check_length(folder: Path, name: str, size: int) -> None:
    if size > LONGEST_TEXT:
        why = f"{name[:100]!r} in it has {size:,} bytes, more than {LONGEST_TEXT:,}"
        raise _refusal(folder, why, "Name the folder of a model as save_pretrained writes it.")


@contextlib.contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except NotAFile as error:
        raise _refusal(folder, f"{error.strerror}: links, pipes and devices are not read", _AS_FILES) from error
    except FileNotFoundError as error:
        raise _refusal(folder, "a file of it went away meanwhile", "Call again once nobody changes it.") from error


def _copy(source: BufferedReader, target: BufferedWriter) -> None:
    left = os.fstat(source.fileno()).st_size
    try:
        while left and (done := os.copy_file_range(source.fileno(), target.fileno(), min(left, 1 << 30))):
            left -= done
    except (OSError, AttributeError) as error:  # AttributeError: not Linux
        if isinstance(error, OSError) and error.errno not in _NO_COPYING:
            raise
        source.seek(0), target.seek(0)
        shutil.copyfileobj(source, target, 1 << 20)


def _refusal(folder: Path, why: str, recovery: str) -> SpeciateError:
    return SpeciateError(Code.REFUSED, f"{str(folder)!r} is not safe to read: {why}.", recovery)
