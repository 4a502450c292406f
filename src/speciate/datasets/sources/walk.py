"""Every file below a folder, and what is no example there, with the reason.

Nothing is opened. A link is followed where it leads to a file inside the folder and nowhere else: it must not widen
what the caller may read. Folders are not followed through links, so that none is walked twice.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from speciate import secrets
from speciate.errors import Code, SpeciateError

MOST_FILES = 5_000_000
_ABOUT = re.compile(
    r"(?i)(readme|licen[sc]e|copying|notice)(\.(md|markdown|mdown|rst|txt|text|html?|pdf|org|adoc|asciidoc|rtf|docx?|odt))?"
)
"""What tells of the data and is none of it: by a text's suffix, for `car/License.png` is a picture of a class."""
_KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


class SetAside(NamedTuple):
    """What is not read. `name` is below the source; bytes in it that are not UTF-8 are written as `\\xff`."""

    name: str
    reason: str


class Walked(NamedTuple):
    files: list[Path]
    """In the order of their names."""
    set_aside: list[SetAside]
    about: list[str] = []  # noqa: RUF012 - never changed
    """READMEs and licences, by the names that SetAside has: no examples, and nothing is wrong with them."""


def walk(folder: Path, workspace: Path | None = None, *, links: bool = True) -> Walked:
    """Hidden files and `__*` folders are passed over in silence; all else is in one of the lists.

    `links`: whether links to files inside are followed. `workspace`: whose own files are left out under any name, as
    keys are; None for a folder that a sandboxed process filled. REFUSED beyond MOST_FILES.
    """
    root = folder.resolve()
    files: list[str] = []
    aside: list[SetAside] = []
    about: list[str] = []
    left = [str(folder)]
    own = secrets.inodes(workspace)
    numbers = {number for _, number in own}  # looked at first, for they cost no stat
    while left:
        here = left.pop()
        try:
            entries = list(os.scandir(here))
        except OSError as error:
            aside.append(SetAside(_shown(here, folder), f"The folder cannot be read: {error.strerror}."))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            reason = _why_not(entry, root, links=links)
            if reason is None and entry.inode() in numbers and (entry.stat().st_dev, entry.inode()) in own:
                reason = "It is a file of a person's keys or of the workspace itself, under another name."
            if reason is not None:
                aside.append(SetAside(_shown(entry.path, folder), reason))
            elif entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("__"):
                    left.append(entry.path)
            elif _ABOUT.fullmatch(entry.name):
                about.append(_shown(entry.path, folder))
            else:
                files.append(entry.path)
        if len(files) > MOST_FILES:
            raise SpeciateError(
                Code.REFUSED, f"{str(folder)!r} holds more than {MOST_FILES:,} files.", "Choose a smaller folder."
            )
    files.sort(key=lambda path: path.split("/"))  # as paths compare, without making them do it
    return Walked([Path(path) for path in files], sorted(aside), sorted(about))


def _why_not(entry: os.DirEntry[str], root: Path, *, links: bool) -> str | None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return "Its name is not UTF-8."
    try:
        if entry.is_symlink():
            return _why_not_link(Path(entry.path), root) if links else "A link."
        if entry.is_dir():
            return None
        if not entry.is_file():
            return f"It is {_KINDS.get(stat.S_IFMT(entry.stat().st_mode), 'no file')}."
        if not os.access(entry.path, os.R_OK):
            return "It may not be read by this user."
    except OSError as error:  # a path beyond what the system takes, or gone already
        return f"It cannot be looked at: {error.strerror}."
    return None


def _why_not_link(path: Path, root: Path) -> str | None:
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        return "A link to nothing."
    except (OSError, RuntimeError):  # Python 3.11 says RuntimeError where links go in a circle
        return "A link that leads in a circle."
    if not target.is_relative_to(root):
        return "A link that leads out of the source."
    if target.is_dir():
        return "A link to a folder."
    if not target.is_file():
        return "A link to what is no file."
    return None if os.access(target, os.R_OK) else "It may not be read by this user."


def _shown(path: str, folder: Path) -> str:
    return os.fsencode(os.path.relpath(path, folder)).decode(errors="backslashreplace")
