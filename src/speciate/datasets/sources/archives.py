"""Archives unpacked member by member; runs in a sandboxed process, whose own folder is all that it can write.

A member is refused, with its reason, if its path leads out, if it is a link or no file, encrypted, damaged, has the
name of another, or looks like a bomb; the others do not suffer.
"""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NotRequired, TypedDict

from speciate.errors import Code, SpeciateError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
MOST_MEMBERS = 1_000_000
LONGEST_MEMBER = 1 << 30  # bytes; a sandboxed process writes no longer file
_HIGHEST_RATIO = 200
"""Highest ratio of unpacked to packed bytes. Beyond it what is longer than _HARMLESS counts as a bomb; deflate reaches
1,000."""
_HARMLESS = 64 << 20
_BLOCK = 1 << 20
_REASONS_KEPT = 10_000
NO_ROOM = "The disk has no room for it."
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError, OSError,
)  # fmt: skip
"""What the libraries raise for damaged archives, among them OSError of bz2 and gzip."""


class Member(NamedTuple):
    name: str
    declared: int
    """Bytes."""
    packed: int | None
    """Bytes in the archive, where it says so."""
    refusal: str | None
    """Why it must not be unpacked, from its header."""
    content: Any
    """A function without arguments that opens it."""


class ArchiveRequest(TypedDict):
    path: str
    budget: NotRequired[int]
    """Bytes that the members may have together; `unpack_into` adds it."""


class UnpackedArchive(TypedDict):
    members: int
    excluded: list[tuple[str, str]]
    """Name and reason."""


def archive_suffix(name: str) -> str:
    """The archive ending of a name, as it is written there; empty for other files."""
    lower = name.lower()
    if not lower.endswith(ARCHIVES):
        return ""
    found = next(suffix for suffix in ARCHIVES if lower.endswith(suffix))
    return name[len(name) - len(found) :]


def unpack(payload: ArchiveRequest) -> UnpackedArchive:
    """The members as files below this process's own folder.

    INVALID if it is no archive or nothing in it can be unpacked.
    """
    path, unpacking = Path(payload["path"]), _Unpacking(Path.cwd(), payload["budget"], Path(payload["path"]))
    try:
        for member in _zip(path) if _is_zip(path) else _tar(path):
            if not unpacking.unpack(member):
                break
    except _BROKEN as error:
        if not unpacking.members:
            raise SpeciateError(
                Code.INVALID,
                f"{path.name!r} cannot be unpacked: {_error_text(error)}.",
                "Make the archive again, then call create_dataset again.",
            ) from error
        unpacking.excluded.append((path.name, f"Damaged after {unpacking.members} members: {_error_text(error)}."))
    excluded = unpacking.excluded[:_REASONS_KEPT]
    if (more := len(unpacking.excluded) - len(excluded)) > 0:
        excluded.append((path.name, f"{more:,} further members were excluded."))
    return {"members": unpacking.members, "excluded": excluded}


def member_path(name: str) -> PurePosixPath | str:
    """The path of a member below the folder, or why it must not be there."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or "\0" in name:
        return "It has no name."
    if parts[0].startswith("/") or parts[0][1:2] == ":":
        return "Its path is absolute."
    if ".." in parts:
        return "Its path leads out."
    try:
        if any(len(part.encode()) > 255 for part in parts) or len(name.encode()) > 2048:
            return "Its name is too long."
    except UnicodeEncodeError:
        return "Its name is not UTF-8."
    return PurePosixPath(*parts)


class _Unpacking:
    """Unpacked and excluded members so far."""

    def __init__(self, folder: Path, budget: int, archive: Path) -> None:
        self.members, self.excluded = 0, list[tuple[str, str]]()
        self._folder, self._left = folder, budget
        self._most = max(_HARMLESS, _HIGHEST_RATIO * archive.stat().st_size)  # bytes of all members
        self._age = archive.stat().st_mtime_ns
        self._taken = dict[str, str]()  # folded name -> name
        self._archive = archive

    def unpack(self, member: Member) -> bool:
        """Unpack a member or exclude it; False if nothing more may be unpacked."""
        target = member_path(member.name)
        if isinstance(target, PurePosixPath) and any(part.startswith((".", "__")) for part in target.parts):
            return True  # hidden, as in a folder
        reason = target if isinstance(target, str) else self._refusal(member, target)
        if reason is None:
            assert isinstance(target, PurePosixPath)
            reason = self._write(member, self._folder / target)
        name = member.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        if reason is not None:
            self.excluded.append((name, reason))
        else:
            self.members += 1
        if self.members >= MOST_MEMBERS or len(self.excluded) >= MOST_MEMBERS:
            self.excluded.insert(0, (self._archive.name, f"More than {MOST_MEMBERS:,} members; the rest is not read."))
            return False
        return True

    def _refusal(self, member: Member, target: PurePosixPath) -> str | None:
        if member.refusal is not None:
            return member.refusal
        if member.declared > LONGEST_MEMBER:
            return f"It declares {member.declared:,} bytes, more than {LONGEST_MEMBER:,}."
        if member.declared > _HARMLESS and member.packed and member.declared > _HIGHEST_RATIO * member.packed:
            return f"It declares {member.declared:,} bytes from {member.packed:,}: a bomb."
        other = self._taken.setdefault(str(target).casefold(), str(target))
        if other != str(target):
            return f"It has the name of {other!r}, but for case."
        return "Another member has its name." if (self._folder / target).exists() else None

    def _write(self, member: Member, path: Path) -> str | None:
        """Why the member is refused, after removing what was written of it; None if it is whole."""
        written, most = 0, min(self._left, self._most, LONGEST_MEMBER)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.content() as source, path.open("xb") as target:
                while (block := source.read(_BLOCK)) and written <= min(most, max(member.declared, _HARMLESS)):
                    written += target.write(block)
                # As old as its archive: a later attempt, which unpacks it again, knows it for the same file. By its
                # descriptor, for the sandbox refuses to set the times of a path.
                target.flush()
                os.utime(target.fileno(), ns=(self._age, self._age))
        except _BROKEN as error:
            reason = f"It cannot be unpacked: {_error_text(error)}."
        else:
            if not block:
                self._left, self._most = self._left - written, self._most - written
                return None
            reason = (
                f"It is longer than the {member.declared:,} bytes that it declares."
                if written > member.declared
                else NO_ROOM
                if written > self._left
                else "The archive unpacks to so much more than it holds that it counts as a bomb."
            )
        with suppress(FileNotFoundError, NotADirectoryError):  # the latter if its folder is a file
            path.unlink()
        return reason


def _is_zip(path: Path) -> bool:
    """Whether a file is a zip by its content, whatever its name; a zip is recognised by its end, and a tar may end in a
    zip member."""
    return zipfile.is_zipfile(path) and not tarfile.is_tarfile(path)


def _zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith("/"):
                yield Member(
                    _zip_name(info),
                    info.file_size,
                    info.compress_size,
                    _zip_refusal(info),
                    lambda info=info: archive.open(info),
                )


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Names without the flag of UTF-8 are cp437 by the format; most of those that are not ASCII are UTF-8."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def _zip_refusal(info: zipfile.ZipInfo) -> str | None:
    mode = info.external_attr >> 16
    if info.flag_bits & 1:
        return "It is encrypted."
    if stat.S_ISLNK(mode):
        return "It is a link."
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "It is no file."
    return None


def _tar(path: Path) -> Iterator[Member]:
    with tarfile.open(path, errorlevel=2) as archive:
        for info in archive:
            if not info.isdir():
                refusal = (
                    "It is a link." if info.issym() or info.islnk() else None if info.isfile() else "It is no file."
                )
                yield Member(info.name, info.size, None, refusal, lambda info=info: archive.extractfile(info))
                archive.members = []  # type: ignore[attr-defined]  # not in its types; it keeps every header otherwise


def _error_text(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:200].rstrip(".")
