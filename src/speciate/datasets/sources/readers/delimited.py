"""CSV and TSV: comma, semicolon or tab, with a header line unless the first line is numbers.

Cells stay what they are: no formula is evaluated, `1,5` is text, and so is a column in which a number has a leading
zero, such as `007`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.sources.readers.encodings import content, decoded
from speciate.datasets.sources.readers.rows import unreadable, with_bad_rows

_MOST_BYTES = 2**31 - 1  # of one block of the parser
_LONGEST_HEADER = 64 << 20  # bytes
_LEADING_ZERO = re.compile(rb"(?:^|[,;\t\n\"])-?0\d")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[nN]a[nN]")


def read_csv(path: Path, text: Sequence[str]) -> pa.Table:
    """Lines with too many or too few cells, and those that are not UTF-8, are kept as bad rows. The second column of
    a name becomes NAME_2; without a header line they are f0, f1 and so on."""
    data = content(path)
    return _read(path, data, _delimiter(data), text)


def read_tsv(path: Path, text: Sequence[str]) -> pa.Table:
    return _read(path, content(path), "\t", text)


def columns_at_least(path: Path, format_: str | None) -> int:
    """How many columns the first line of an uncompressed CSV or TSV names, before it is parsed; 0 for all else."""
    if format_ not in ("csv", "tsv"):
        return 0
    with path.open("rb") as file:
        line = file.readline(_LONGEST_HEADER)
    return max(map(line.count, (b",", b";", b"\t"))) + 1


def _read(path: Path, data: bytes, delimiter: str, text: Sequence[str]) -> pa.Table:
    kept, bad = _without_foreign_bytes(path, data, delimiter)
    table, ragged = _parsed(path, kept, delimiter, text)
    if _LEADING_ZERO.search(kept) and (codes := _codes(path, kept, delimiter, table)):
        table, ragged = _parsed(path, kept, delimiter, (*text, *codes))
    return with_bad_rows(table, [*bad, *ragged])


def _parsed(path: Path, data: bytes, delimiter: str, text: Sequence[str]) -> tuple[pa.Table, list[str]]:
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
        raise unreadable(path, str(error)) from error
    return table, ragged


def _codes(path: Path, data: bytes, delimiter: str, table: pa.Table) -> list[str]:
    """Columns of numbers that would lose leading zeros."""
    numbers = {
        field.name for field in table.schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    }
    written, _ = _parsed(path, data, delimiter, sorted(numbers))
    return [
        name
        for name, cells in zip(written.column_names, written.columns, strict=True)
        if name in numbers and pc.any(pc.match_substring_regex(cells, r"^-?0\d")).as_py()
    ]


def _without_foreign_bytes(path: Path, data: bytes, delimiter: str) -> tuple[bytes, list[str]]:
    """All of it where it is UTF-8; else its rows that are, and a reason for each that is not.

    INVALID where the header or most rows are not UTF-8: then the whole file has another encoding.
    """
    if decoded(data) is not None:
        return data, []
    kept, reasons, rows, first = io.BytesIO(), [], 0, 0
    try:
        for rows, lines in enumerate(_records(data, delimiter)):
            foreign = next((number for number, line in lines if decoded(line) is None), None)
            if foreign is None:
                kept.writelines(line for _, line in lines)
                continue
            first = first or foreign
            if rows == 0:
                break
            reasons.append(f"line {foreign} is not UTF-8")
    except csv.Error as error:
        raise unreadable(path, f"not UTF-8, and {error}; save it as UTF-8") from error
    if rows == 0 or 2 * len(reasons) > rows:
        raise unreadable(path, f"not UTF-8, first at line {first}; save it as UTF-8")
    return kept.getvalue(), reasons


def _records(data: bytes, delimiter: str) -> Iterator[list[tuple[int, bytes]]]:
    """The numbered lines of each record; a quoted cell may go over several."""
    csv.field_size_limit(max(len(data), 1))
    lines: list[tuple[int, bytes]] = []

    def text() -> Iterator[str]:
        for number, line in enumerate(io.BytesIO(data), 1):
            lines.append((number, line))
            yield line.decode("utf-8", errors="surrogateescape")

    for _ in csv.reader(text(), delimiter=delimiter):
        yield lines.copy()
        lines.clear()


def _has_header(data: bytes, delimiter: str) -> bool:
    """Whether the first line names columns: it holds something else than numbers, or numbers that count upwards."""
    cells = [cell.strip(' "\r') for cell in _first_line(data).split(delimiter)]
    if not all(_NUMBER.fullmatch(cell) for cell in cells):
        return True
    counting = all(cell.isdigit() for cell in cells) and all(int(b) == int(a) + 1 for a, b in pairwise(cells))
    return len(cells) > 1 and counting


def _delimiter(data: bytes) -> str:
    """The one that is most frequent in the first line, outside quotes."""
    line = re.sub(r'"[^"]*"', "", _first_line(data))
    return max(",;\t", key=line.count)


def _first_line(data: bytes) -> str:
    return data[: data.find(b"\n") if b"\n" in data else None].decode(errors="replace")
