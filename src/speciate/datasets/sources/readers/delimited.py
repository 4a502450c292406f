"""CSV and TSV: comma, semicolon or tab, with a header line unless the first line is numbers.

Cells stay what they are: no formula is evaluated, `1,5` is text, and so is a column in which a number has a leading
zero, such as `007`, or of whole numbers too long for 64 bits, which would become others.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.sources.readers.encodings import content, decoded
from speciate.datasets.sources.readers.records import NUMBER, has_open_quotes, records
from speciate.datasets.sources.readers.rows import unread, unreadable, with_bad_rows

_MOST_BYTES = 2**31 - 1  # of one block of the parser
_LONGEST_HEADER = 64 << 20  # bytes
_CODE = re.compile(rb"(?:^|[,;\t\n\"])-?0\d|\d{19}")
"""What may be a leading zero, or a number too long for 64 bits."""


def read_csv(path: Path, text: Sequence[str]) -> pa.Table:
    """Lines with too many or too few cells, with a quote that is not closed, and those that are not UTF-8 are bad rows.
    The second column of a name becomes NAME_2; without a header line they are f0, f1 and so on."""
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
    sound, bad = data, list[str]()
    if decoded(data) is None or has_open_quotes(data):
        sound, bad = _sound(path, data, delimiter)
    table, ragged = _parsed(path, sound, delimiter, text)
    if ragged and sound is data:
        sound, bad = _sound(path, data, delimiter)  # which knows the numbers of lines
        table, ragged = _parsed(path, sound, delimiter, text)
    if _CODE.search(sound) and (codes := _codes(path, sound, delimiter, table)):
        table, ragged = _parsed(path, sound, delimiter, (*text, *codes))
    return with_bad_rows(table, [*bad, *ragged])


def _sound(path: Path, data: bytes, delimiter: str) -> tuple[bytes, list[str]]:
    """The records that stand, and a reason for each that does not.

    INVALID where the header or most rows are not UTF-8: then the whole file has another encoding.
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
        raise unreadable(path, f"not UTF-8, first at line {foreign[0]}; save it as UTF-8")
    if count == 1 and reasons:
        raise unreadable(path, f"its header cannot be read: {reasons[0]}")
    return kept.getvalue(), reasons


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
        raise unread(path, error) from error
    return table, ragged


def _codes(path: Path, data: bytes, delimiter: str, table: pa.Table) -> list[str]:
    """Columns of numbers that would lose leading zeros, or their last digits."""
    numbers = {
        field.name for field in table.schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    }
    written, _ = _parsed(path, data, delimiter, sorted(numbers))
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
    """Whether the first line names columns: it holds something else than numbers, or numbers that count upwards."""
    cells = [cell.strip(' "\r') for cell in _first_line(data).split(delimiter)]
    if not all(NUMBER.fullmatch(cell) for cell in cells):
        return True
    counting = all(cell.isdigit() for cell in cells) and all(int(b) == int(a) + 1 for a, b in pairwise(cells))
    return len(cells) > 1 and counting


def _delimiter(data: bytes) -> str:
    """The one that is most frequent in the first line, outside quotes."""
    line = re.sub(r'"[^"]*"', "", _first_line(data))
    return max(",;\t", key=line.count)


def _first_line(data: bytes) -> str:
    return data[: data.find(b"\n") if b"\n" in data else None].decode(errors="replace")
