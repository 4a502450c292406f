"""The records of delimited text that is not all sound, one after another: which stand, and why the others do not.

A quote that is opened and never closed would swallow every line up to the next quote, wherever that stands. So a cell
goes over several lines only where they are one record by the letter: closed, followed by a delimiter or the end of the
line, and with as many cells as the header has. Otherwise its first line stands alone, and its quotes are characters.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[nN]a[nN]")
_FAR_ATTEMPTS = 10
"""So often a quote that is not closed may be looked for to the end of the file, or many of them would take hours."""
_NEAR = 1000  # lines that are looked through after that
_SWALLOWED = 8
"""A cell over more lines than this, each of which is a whole record, was not meant to be one."""
_QUOTE = b'"'


class Record(NamedTuple):
    data: bytes
    """As it may be parsed; empty where it cannot be."""
    line: int
    """Of its first byte, from 1."""
    fault: str | None


def has_open_quotes(data: bytes) -> bool:
    """Whether a line has an odd number of quotes: a cell goes over its end, or a quote is astray."""
    return _QUOTE in data and any(line.count(_QUOTE) % 2 for line in _Lines(data))


def records(data: bytes, delimiter: str) -> Iterator[Record]:
    """All but empty lines; the first of them is the header, or as wide as one."""
    csv.field_size_limit(max(len(data), 1))
    lines, width, place, far = _Lines(data), 0, 0, _FAR_ATTEMPTS
    while (start := place) < len(lines):
        end = len(lines) if far > 0 else min(len(lines), place + _NEAR)
        for used, count in _by_the_letter(lines, place, end, delimiter):
            if count and ((width and count != width) or _swallows(lines, place, used, delimiter, count)):
                break
            if count:
                width = width or count
                yield _whole(lines.from_to(place, place + used), place + 1)
            place += used
        if place == start:
            far -= 1
            yield _alone(lines[place], place + 1, delimiter, width)
            width = width or len(_cells(lines[place], delimiter))
            place += 1


def _by_the_letter(lines: _Lines, start: int, end: int, delimiter: str) -> Iterator[tuple[int, int]]:
    """Of each record from a line on, the lines and the cells, until one is none; 0 cells are an empty line."""
    reader = csv.reader((_text(lines[i]) for i in range(start, end)), delimiter=delimiter, strict=True)
    before = 0
    with contextlib.suppress(csv.Error):
        for cells in reader:
            yield reader.line_num - before, len(cells)
            before = reader.line_num


def _swallows(lines: _Lines, place: int, used: int, delimiter: str, width: int) -> bool:
    """Whether a record of so many lines is a stray quote and what follows, up to the next."""
    inner = range(place + 1, place + used - 1)
    return width > 1 and len(inner) > _SWALLOWED and all(len(_cells(lines[i], delimiter)) == width for i in inner)


class _Lines:
    """Lines with their ends, without a copy of each."""

    def __init__(self, data: bytes) -> None:
        end = b"\n" if b"\n" in data else b"\r"
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == end[0]) + 1
        self._data = data
        self._bounds = np.unique(np.concatenate([[0], ends, [len(data)]])).astype(np.int64)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, place: int) -> bytes:
        return self.from_to(place, place + 1)

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))

    def from_to(self, start: int, stop: int) -> bytes:
        return self._data[self._bounds[start] : self._bounds[stop]]


def _whole(data: bytes, number: int) -> Record:
    if _is_utf8(data):
        return Record(data, number, None)
    foreign = next(place for place, line in enumerate(_Lines(data), number) if not _is_utf8(line))
    return Record(b"", foreign, f"line {foreign} is not UTF-8")


def _alone(line: bytes, number: int, delimiter: str, width: int) -> Record:
    if not _is_utf8(line):
        return Record(b"", number, f"line {number} is not UTF-8")
    if line.count(_QUOTE) % 2 == 0:
        count = len(_cells(line, delimiter))
        fits = not width or count == width
        return Record(line, number, None) if fits else Record(b"", number, _ragged(number, count, width))
    cells = _text(line.rstrip(b"\r\n")).split(delimiter)
    if (width and len(cells) != width) or any('"' in cell and NUMBER.fullmatch(cell.strip(' "')) for cell in cells):
        return Record(b"", number, f"line {number}: a quote is opened and not closed")
    quoted = ('"' + cell.replace('"', '""') + '"' if '"' in cell else cell for cell in cells)
    return Record(delimiter.join(quoted).encode() + b"\n", number, None)


def _ragged(number: int, count: int, width: int) -> str:
    return f"line {number}: {count} cell{'s' if count != 1 else ''} where the header has {width}"


def _cells(line: bytes, delimiter: str) -> list[str]:
    """Of a line that stands alone, as a lenient parser splits it."""
    text = _text(line.rstrip(b"\r\n"))
    try:
        return next(csv.reader([text], delimiter=delimiter))
    except csv.Error:
        return text.split(delimiter)


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="surrogateescape")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
