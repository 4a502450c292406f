"""The text of a table file as UTF-8, where its encoding is certain: it says so by a byte order mark, or is UTF-8.

Latin-1 and its kin cannot be told apart by their bytes, so they are not guessed: such a line is a bad row, and a file
of such lines is refused with the call that mends it.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from speciate.datasets.sources.readers.rows import LONGEST_TEXT, refused, unreadable

_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
"""In this order: the mark of UTF-32-LE begins with that of UTF-16-LE."""


def content(path: Path) -> bytes:
    """The whole file without compression and byte order mark, as UTF-8 wherever the mark says what it is.

    REFUSED beyond LONGEST_TEXT, INVALID where the compression or the text after a mark is broken.
    """
    data = _unpacked(path) if path.suffix.lower() == ".gz" else _read(path)
    mark = next((mark for mark in _MARKS if data.startswith(mark)), None)
    if mark is None:
        if data[:200].count(0) > len(data[:200]) // 4:
            raise unreadable(path, "it holds zero bytes, as UTF-16 without a byte order mark does; save it as UTF-8")
        return data
    if _MARKS[mark] == "utf-8":
        return data[len(mark) :]
    try:
        return data[len(mark) :].decode(_MARKS[mark]).encode()
    except UnicodeDecodeError as error:
        raise unreadable(path, f"its mark says {_MARKS[mark]}, and {error.reason} at byte {error.start}") from error


def lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Numbered lines without their ends; None for one that is not UTF-8."""
    for number, line in enumerate(io.BytesIO(content(path)), 1):
        yield number, decoded(line.rstrip(b"\r\n"))


def decoded(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _read(path: Path) -> bytes:
    if (size := path.stat().st_size) > LONGEST_TEXT:
        raise _too_long(path, f"it has {size:,} bytes")
    return path.read_bytes()


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read(LONGEST_TEXT + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise unreadable(path, f"its compression is broken: {error}") from error
    if len(data) > LONGEST_TEXT:
        raise _too_long(path, f"it decompresses to more than {LONGEST_TEXT:,} bytes")
    return data


def _too_long(path: Path, why: str) -> Exception:
    return refused(path, f"{why}, and one table of text may have {LONGEST_TEXT:,}", "Split it, or save it as Parquet.")
