"""Whether a file still is what was written: a disk that flips a byte must not become a wrong answer.

Two kinds of immutable files. What is named by its content (sealed rows, blobs) is compared with its name. Other Parquet
carries a seal between its rows and its footer, where readers of the format do not look: the sha256 of all else in it,
and the first half of that of the footer alone.

    PAR1 | rows | "SPSEAL01" sha256 (32 bytes) sha256 (16) | footer | its length | PAR1

A whole file is read for that, so each is checked once in a process's life, and again when its size or time of writing
changes: what flips later under a process that has read it is found by the next process, or by `speciate verify --all`.
Files of before there were seals are taken as they are.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from speciate.errors import Code, SpeciateError

if TYPE_CHECKING:  # who only looks at a workspace starts without it
    import pyarrow as pa


DAMAGED_FOLDER = "damaged"
"""Where `speciate verify --all --quarantine` moves damaged parts of logs and caches to, below the workspace."""
_MAGIC = b"SPSEAL01"
_FLIPPED = 2
"""Bytes of a seal's beginning that may differ for it to count as a damaged seal, and not as none."""
_ALL_BYTES, _FOOTER_BYTES = 32, 16
_SEAL_BYTES = len(_MAGIC) + _ALL_BYTES + _FOOTER_BYTES
_TAIL_BYTES = 8
"""The footer's length and PAR1."""
_CHUNK = 1 << 20
_NAMED = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_KEPT = 100_000
_RESTORE = "Restore the file from a backup of the workspace; `speciate verify --all` names everything that is damaged."


def write_table(table: pa.Table, file: IO[bytes], **options: Any) -> None:
    """Write Parquet with its seal into an empty file that was opened for reading and writing."""
    import pyarrow.parquet as pq

    pq.write_table(table, file, **options)
    size = file.seek(0, os.SEEK_END)
    start = _footer(file, size)
    file.seek(start)
    footer = file.read(size - start)
    digest = _digest(file, start, footer)
    file.seek(start)
    file.write(_MAGIC + digest + _short(footer) + footer)
    file.flush()


def check(path: Path, lost: str, recovery: str = _RESTORE) -> None:
    """Refuse a damaged file: DAMAGED names it, says what is lost with it, and what to do."""
    found = path.stat()
    try:
        _check_cached(str(path), found.st_ino, found.st_size, found.st_mtime_ns)
    except _DamagedFile as wrong:
        raise damaged_error(path, str(wrong), lost, recovery) from None


def check_footer(path: Path, lost: str, recovery: str = _RESTORE) -> None:
    """`check`, of what the footer says alone: cheap, for a file whose rows are not read."""
    with path.open("rb") as file:
        seal = _seal_of(file)
        if seal is None:
            return
        start = _footer(file, file.seek(0, os.SEEK_END))
        file.seek(start)
        if _short(file.read()) != seal[_ALL_BYTES:]:
            raise damaged_error(path, "its footer is not what was written", lost, recovery)


def read_table(path: Path, lost: str, recovery: str = _RESTORE, **options: Any) -> pa.Table:
    """The table, after `check`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check(path, lost, recovery)
    try:
        return pq.read_table(path, **options)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise damaged_error(path, "it cannot be read as Parquet", lost, recovery) from error


def damaged_error(path: Path, why: str, lost: str, recovery: str = _RESTORE) -> SpeciateError:
    """The one error for a file that is not what was written."""
    return SpeciateError(Code.DAMAGED, f"{path} is damaged: {why}. {lost}", recovery)


def examine(path: Path) -> str | None:
    """What is wrong with a file, in words; None where it is as it was written, or where nothing is known of that.
    Reads all of it, each time."""
    if path.suffix == ".parquet":
        return _examine_parquet(path)
    return _compare(path, path.name) if _NAMED.fullmatch(path.name) else None


def has_own_checksum(path: Path) -> bool:
    """Whether a Parquet file says what it should be, by its name or by a seal."""
    if _NAMED.fullmatch(path.stem):
        return True
    with path.open("rb") as file:
        return _seal_of(file) is not None


@lru_cache(maxsize=_KEPT)
def _check_cached(path: str, inode: int, size: int, written: int) -> bool:
    """Remembered for each file as it lies there. Raises _Wrong, which is not remembered: it may be restored."""
    if (why := examine(Path(path))) is not None:
        raise _DamagedFile(why)
    return True


class _DamagedFile(Exception):
    """Says what is wrong with a file."""


def _examine_parquet(path: Path) -> str | None:
    with path.open("rb") as file:
        seal = _seal_of(file)
        if seal is not None:
            start = _footer(file, file.seek(0, os.SEEK_END))
            file.seek(start)
            footer = file.read()
            same = _digest(file, start - _SEAL_BYTES, footer) + _short(footer) == seal
            return None if same else "its sha256 is not the one in it"
    if _NAMED.fullmatch(path.stem):
        return _compare(path, path.stem)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return "it cannot be read as Parquet"
    return None


def _compare(path: Path, name: str) -> str | None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found.startswith(name):
        return None
    return f"its content has sha256 {found[:16]}..., it should be {name[:16]}..."


def _seal_of(file: IO[bytes]) -> bytes | None:
    """None where there is none; nothing, which no digest is, where its beginning was changed."""
    size = file.seek(0, os.SEEK_END)
    start = _footer(file, size)
    if start < _SEAL_BYTES:
        return None
    file.seek(start - _SEAL_BYTES)
    seal = file.read(_SEAL_BYTES)
    same = sum(mine == theirs for mine, theirs in zip(seal, _MAGIC, strict=False))
    if same == len(_MAGIC):
        return seal[len(_MAGIC) :]
    return b"" if same >= len(_MAGIC) - _FLIPPED else None


def _footer(file: IO[bytes], size: int) -> int:
    """Where the footer begins; -1 where the end of the file does not say."""
    if size < _TAIL_BYTES:
        return -1
    file.seek(size - _TAIL_BYTES)
    (length,) = struct.unpack("<I", file.read(4))
    start = size - _TAIL_BYTES - length
    return start if start >= 0 else -1


def _short(footer: bytes) -> bytes:
    return hashlib.sha256(footer).digest()[:_FOOTER_BYTES]


def _digest(file: IO[bytes], end: int, footer: bytes) -> bytes:
    """The sha256 of the first `end` bytes and the footer."""
    digest, left = hashlib.sha256(), end
    file.seek(0)
    while left:
        block = file.read(min(_CHUNK, left))
        if not block:
            break
        digest.update(block)
        left -= len(block)
    digest.update(footer)
    return digest.digest()
