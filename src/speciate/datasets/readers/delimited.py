"""CSV and TSV: comma, semicolon or tab, with a header line unless the first line is numbers.

Cells keep their values: no formula is evaluated, `1,5` is text, and so is a column in which a number has a leading
zero, such as `007`, or of whole numbers too long for 64 bits.

A quote that is opened and never closed would swallow every line up to the next quote. So a cell spans several lines
only if they form one valid record: closed, followed by a delimiter or the end of the line, and with as many cells as
the header. Otherwise its first line stands alone, and its quotes are characters.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.readers.rows import (
    REASON,
    decode_line,
    read_text,
    unread_error,
    unreadable_error,
    with_bad_rows,
)

_MOST_BYTES = 2**31 - 1  # of one block of the parser
_LONGEST_HEADER = 64 << 20  # bytes
_CODE = re.compile(rb"(?:^|[,;\t\n\"])-?0\d|\d{19}")
"""Matches a possible leading zero, or a number too long for 64 bits."""
NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[nN]a[nN]")
_FAR_ATTEMPTS = 10
"""How often an open quote is searched to the end of the file; more would take hours."""
_NEAR = 1000  # lines that are searched after that
_SWALLOWED = 8
"""A cell over more lines than this, each of which is a whole record, was not meant to be one."""
_QUOTE = b'"'


def read_csv(path: Path, text: Sequence[str]) -> pa.Table:
    """Lines with too many or too few cells, with a quote that is not closed, and those that are not UTF-8 are bad rows.
    The second column of a name becomes NAME_2; without a header line they are f0, f1 and so on. A first cell that every
    line has and the header has not is a name of the row, as R writes it, and left out."""
    data = read_text(path)
    return _read(path, data, _delimiter(data), text)


def read_tsv(path: Path, text: Sequence[str]) -> pa.Table:
    return _read(path, read_text(path), "\t", text)


def columns_at_least(path: Path, format_: str | None) -> int:
    """How many columns the first line of an uncompressed CSV or TSV names, before it is parsed; 0 for all else."""
    if format_ not in ("csv", "tsv"):
        return 0
    with path.open("rb") as file:
        line = file.readline(_LONGEST_HEADER)
    return max(map(line.count, (b",", b";", b"\t"))) + 1


def _read(path: Path, data: bytes, delimiter: str, text: Sequence[str]) -> pa.Table:
    if _may_name_rows(data, delimiter):
        named = _read_records(path, delimiter.encode() + data, delimiter, text)
        if REASON not in named.column_names:
            return named.remove_column(0)
    return _read_records(path, data, delimiter, text)


def _may_name_rows(data: bytes, delimiter: str) -> bool:
    """Whether the second line has one cell more than the header, as R writes names of rows. They are no column: numbers
    that count the rows would give away the label of a sorted table. `1,5` under a single name is a decimal comma."""
    begin = data[: _second_line_ends(data)].decode(errors="replace")
    csv.field_size_limit(len(begin) + 1)
    try:
        widths = [len(cells) for cells in csv.reader(begin.splitlines(), delimiter=delimiter)]
    except csv.Error:
        return False
    return len(widths) == 2 and widths[0] > 1 and widths[1] == widths[0] + 1 and _has_header(data, delimiter)


def _second_line_ends(data: bytes) -> int:
    first = data.find(b"\n")
    second = data.find(b"\n", first + 1)
    return second if 0 <= first < second else len(data)


def _read_records(path: Path, data: bytes, delimiter: str, text: Sequence[str]) -> pa.Table:
    valid, bad = data, list[str]()
    if decode_line(data) is None or has_open_quotes(data):
        valid, bad = _valid_records(path, data, delimiter)
    table, ragged = _parse_records(path, valid, delimiter, text)
    if ragged and valid is data:
        valid, bad = _valid_records(path, data, delimiter)  # which knows the numbers of lines
        table, ragged = _parse_records(path, valid, delimiter, text)
    if _CODE.search(valid) and (codes := _columns_of_codes(path, valid, delimiter, table)):
        table, ragged = _parse_records(path, valid, delimiter, (*text, *codes))
    return with_bad_rows(table, [*bad, *ragged])


def _valid_records(path: Path, data: bytes, delimiter: str) -> tuple[bytes, list[str]]:
    """The valid records, and a reason for each other one.

    INVALID if the header or most rows are not UTF-8: then the whole file has another encoding.
    """
    kept, reasons, count, foreign = io.BytesIO(), [], 0, list[int]()
    for count, record in enumerate(records(data, delimiter), 1):
        if record.fault is None:
            kept.write(record.data if record.data.endswith((b"\n", b"\r")) else record.data + b"\n")
            continue
        reasons.append(record.fault)
        foreign += [record.line] if record.fault.endswith("is not UTF-8") else []
        if count == 1:
            break
    if foreign and (count == 1 or 2 * len(foreign) > count - 1):
        raise unreadable_error(path, f"not UTF-8, first at line {foreign[0]}; save it as UTF-8")
    if count == 1 and reasons:
        raise unreadable_error(path, f"its header cannot be read: {reasons[0]}")
    return kept.getvalue(), reasons


def _parse_records(path: Path, data: bytes, delimiter: str, text: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """The table and a reason for every line that does not fit its header."""
    from pyarrow import csv as arrow_csv

    ragged: list[str] = []

    def keep(row: Any) -> str:
        ragged.append(f"{row.actual_columns} cells where the header has {row.expected_columns}.")
        return "skip"

    # One block: the type of a column follows from all of its cells, and one cell may be as long as the file.
    block = min(len(data) + 1, _MOST_BYTES)
    try:
        table = arrow_csv.read_csv(
            io.BytesIO(data),
            read_options=arrow_csv.ReadOptions(
                block_size=block, autogenerate_column_names=not _has_header(data, delimiter)
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep
            ),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(text, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise unread_error(path, error) from error
    return table, ragged


def _columns_of_codes(path: Path, data: bytes, delimiter: str, table: pa.Table) -> list[str]:
    """Columns of numbers that would lose leading zeros, or their last digits."""
    numbers = {
        field.name for field in table.schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    }
    written, _ = _parse_records(path, data, delimiter, sorted(numbers))
    return [
        name
        for name, cells in zip(written.column_names, written.columns, strict=True)
        if name in numbers
        and (
            _any(cells, r"^-?0\d")
            or (pa.types.is_floating(table.schema.field(name).type) and _any(cells, r"^[-+]?\d{19,}$")
                and not _any(cells, r"[^-+\d]"))
        )
    ]  # fmt: skip


def _any(cells: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(cells, pattern)).as_py())


def _has_header(data: bytes, delimiter: str) -> bool:
    """Whether the first line names columns: it holds anything but numbers, or numbers that count upwards."""
    cells = [cell.strip(' "\r') for cell in _first_line(data).split(delimiter)]
    if not all(NUMBER.fullmatch(cell) for cell in cells):
        return True
    counting = all(cell.isdigit() for cell in cells) and all(int(b) == int(a) + 1 for a, b in pairwise(cells))
    return len(cells) > 1 and counting


def _delimiter(data: bytes) -> str:
    """The most frequent delimiter of the first line, outside quotes."""
    line = re.sub(r'"[^"]*"', "", _first_line(data))
    return max(",;\t", key=line.count)


def _first_line(data: bytes) -> str:
    return data[: data.find(b"\n") if b"\n" in data else None].decode(errors="replace")


class Record(NamedTuple):
    data: bytes
    """Bytes of the record as they may be parsed; empty if they cannot be."""
    line: int
    """Number of the line of its first byte, from 1."""
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
        for used, count in _parse_strictly(lines, place, end, delimiter):
            if count and ((width and count != width) or _swallows(lines, place, used, delimiter, count)):
                break
            if count:
                width = width or count
                yield _record(lines.from_to(place, place + used), place + 1)
            place += used
        if place == start:
            far -= 1
            yield _record_of_line(lines[place], place + 1, delimiter, width)
            width = width or len(_cells(lines[place], delimiter))
            place += 1


def _parse_strictly(lines: _Lines, start: int, end: int, delimiter: str) -> Iterator[tuple[int, int]]:
    """The lines and cells of each record from a line on, until one is invalid; 0 cells are an empty line."""
    reader = csv.reader((_text(lines[i]) for i in range(start, end)), delimiter=delimiter, strict=True)
    before = 0
    with contextlib.suppress(csv.Error):
        for cells in reader:
            yield reader.line_num - before, len(cells)
            before = reader.line_num


def _swallows(lines: _Lines, place: int, used: int, delimiter: str, width: int) -> bool:
    """Whether a record of so many lines is a stray quote and the lines up to the next quote."""
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


def _record(data: bytes, number: int) -> Record:
    if _is_utf8(data):
        return Record(data, number, None)
    foreign = next(place for place, line in enumerate(_Lines(data), number) if not _is_utf8(line))
    return Record(b"", foreign, f"line {foreign} is not UTF-8")


def _record_of_line(line: bytes, number: int, delimiter: str, width: int) -> Record:
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
    """The cells of a line that stands alone, as a lenient parser splits it."""
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
