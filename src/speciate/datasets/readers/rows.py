"""Shared code of all readers: rows to a table, bad rows beside the good ones, text encodings, conversations.

Text is UTF-8, or declares its encoding by a byte order mark. Latin-1 and similar encodings cannot be told apart by
their bytes, so they are not guessed: such a line is a bad row, and a file of such lines is refused with the call that
mends it.

A cell with a conversation, a list of messages as data for language models have them, becomes text: a JSON list of
`{"role", "content"}` (modalities/messages.py), or the plain text of a list with a single turn of the assistant.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from speciate.datasets.columns import array
from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import ASSISTANT, is_listed, messages

REASON = "_reason"
"""The column with the reason why a row could not be read; null for other rows."""
LONGEST_TEXT = 1 << 30
"""Bytes of one table of text, after decompression."""
LONGEST_BINARY = 2 << 30
BAD_ROWS_KEPT = 10_000
_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*)?(?<=\d)(\.\d*)?([eE][-+]?\d{1,3})?|[-+]?\.\d+([eE][-+]?\d{1,3})?")
_WHOLE, _LONG = re.compile(r"[-+]?\d{1,15}"), re.compile(r"[-+]?\d{16,}")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
"""Byte order marks -> encodings, in this order: the mark of UTF-32-LE begins with that of UTF-16-LE."""
_WEB_PAGE = re.compile(rb"(?i)\s*<(?:!doctype html|html)\b")
_ONE = {"role", "content"}
_SPOKEN = (_ONE, {"from", "value"})

Row = dict[str, Any]
"""A row of a user's table as it was read: column -> cell, both of any kind that the file's format has."""


def from_rows(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Rows as a table: a column for every key, null if a row lacks it. A conversation is a text."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: array([as_text(row.get(name)) for row in rows]) for name in names})


def is_broken(value: Any) -> bool:
    """Whether it holds a lone surrogate, which JSON can write as `\\ud800` and UTF-8 cannot hold."""
    if isinstance(value, str):
        return not value.isascii() and _LONE_SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(is_broken(part) for part in value.items())
    return isinstance(value, list | tuple) and any(map(is_broken, value))


def with_bad_rows(table: pa.Table, reasons: Sequence[str]) -> pa.Table:
    """The table, its column names made unique, and below it a row for every reason."""
    table = with_unique_names(table)
    if REASON in table.column_names:
        table = table.drop_columns([REASON])
    if not reasons:
        return table
    kept = list(reasons[:BAD_ROWS_KEPT])
    if (more := len(reasons) - len(kept)) > 0:
        kept.append(f"{more:,} further rows could not be read.")
    bad = pa.table({REASON: pa.array(kept, pa.string())})
    return pa.concat_tables([table, bad], promote_options="default") if table.num_columns else bad


def with_unique_names(table: pa.Table) -> pa.Table:
    """The second column of a name becomes `NAME_2`, the third `NAME_3`."""
    names = table.column_names
    if len(set(names)) == len(names):
        return table
    seen, taken, unique = Counter[str](), set(names), []
    for name in names:
        seen[name] += 1
        chosen, number = name, seen[name]
        while seen[name] > 1 and (chosen := f"{name}_{number}") in taken:
            number += 1
        taken.add(chosen)
        unique.append(chosen)
    return table.rename_columns(unique)


def with_numbers(table: pa.Table, but: Sequence[str] = ()) -> pa.Table:
    """Columns of text in which every cell is a number become numbers, for formats without types.

    Not columns in `but`, nor numbers with a leading zero, nor whole numbers with too many digits.
    """
    for place, name in enumerate(table.column_names):
        cells = [cell for cell in table[name].to_pylist() if cell is not None]
        texts = all(isinstance(cell, str) for cell in cells)
        if name in but or not cells or not texts or not all(_NUMBER.fullmatch(cell) for cell in cells):
            continue
        if any(map(_LONG.fullmatch, cells)):
            continue
        numbers = [None if cell is None else float(cell) for cell in table[name].to_pylist()]
        whole = all(_WHOLE.fullmatch(cell) for cell in cells)
        column = pa.array(numbers, pa.float64())
        table = table.set_column(place, name, column.cast(pa.int64()) if whole else column)
    return table


def concatenate(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of several tables; a column whose types differ between them becomes text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        names = dict.fromkeys(name for table in tables for name in table.column_names)
        return pa.table({name: _column(tables, name) for name in names})


def _column(tables: Sequence[pa.Table], name: str) -> pa.Array:
    values = [
        value
        for table in tables
        for value in (table[name].to_pylist() if name in table.column_names else [None] * table.num_rows)
    ]
    return array(values)


def unreadable_error(path: Path, why: str, recovery: str = "Mend the file, then repeat the call.") -> SpeciateError:
    """The file does not fit its format. `why` is in our words; `unread_error` quotes a library."""
    return SpeciateError(Code.INVALID, f"{path.name[:64]!r} cannot be read: {why.rstrip('.')[:300]}.", recovery)


def unread_error(path: Path, error: Exception, recovery: str = "Mend the file, then repeat the call.") -> SpeciateError:
    """The error for a file that a library cannot read. The library's message may quote the file, so it is untrusted."""
    lines = str(error).strip().splitlines() or ["unknown"]
    why = f"{path.name[:64]!r} cannot be read: {type(error).__name__}; untrusted says more."
    return SpeciateError(Code.INVALID, why, recovery, lines[0][:300])


def over_budget_error(path: Path, why: str, recovery: str) -> SpeciateError:
    """The file is beyond a budget."""
    return SpeciateError(Code.REFUSED, f"{path.name[:64]!r} is not read: {why}.", recovery)


def read_text(path: Path) -> bytes:
    """The whole file without compression and byte order mark, as UTF-8 if the mark declares its encoding.

    REFUSED beyond LONGEST_TEXT, INVALID if the compression or the text after a mark is broken.
    """
    data = _decompress(path) if path.suffix.lower() == ".gz" else _read(path)
    if _WEB_PAGE.match(data[:1024]):
        raise unreadable_error(path, "it is a web page (HTML): the download failed, or asked for a login")
    mark = next((mark for mark in _MARKS if data.startswith(mark)), None)
    if mark is None:
        if data[:200].count(0) > len(data[:200]) // 4:
            raise unreadable_error(
                path, "it holds zero bytes, as UTF-16 without a byte order mark does; save it as UTF-8"
            )
        return data
    if _MARKS[mark] == "utf-8":
        return data[len(mark) :]
    try:
        return data[len(mark) :].decode(_MARKS[mark]).encode()
    except UnicodeDecodeError as error:
        raise unreadable_error(
            path, f"its byte order mark says {_MARKS[mark]}, and {error.reason} at byte {error.start}"
        ) from error


def read_lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Numbered lines without their ends; None for one that is not UTF-8."""
    for number, line in enumerate(io.BytesIO(read_text(path)), 1):
        yield number, decode_line(line.rstrip(b"\r\n"))


def decode_line(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _read(path: Path) -> bytes:
    if (size := path.stat().st_size) > LONGEST_TEXT:
        raise _too_long(path, f"it has {size:,} bytes")
    return path.read_bytes()


def _decompress(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read(LONGEST_TEXT + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise unreadable_error(path, f"its compression is broken: {error}") from error
    if len(data) > LONGEST_TEXT:
        raise _too_long(path, f"it decompresses to more than {LONGEST_TEXT:,} bytes")
    return data


def _too_long(path: Path, why: str) -> Exception:
    return over_budget_error(
        path, f"{why}, and one table of text may have {LONGEST_TEXT:,}", "Split it, or save it as Parquet."
    )


def conversations_as_text(table: pa.Table) -> pa.Table:
    """The table with columns of messages as texts; all others as they are."""
    for place, field in enumerate(table.schema):
        if _holds_messages(field.type):
            cells = [
                cell if isinstance(cell, dict) else _without_empty_fields(cell)
                for cell in table.column(place).to_pylist()
            ]
            table = table.set_column(place, field.name, array([as_text(cell) for cell in cells]))
    return table


def as_text(cell: Any) -> Any:
    """A list of messages as its text, one message of an assistant as its content, any other cell as it is.

    A malformed conversation stays as it was written: admitting the text reports the fault.
    """
    if isinstance(cell, dict) and cell.keys() == _ONE and cell["role"] == ASSISTANT:
        cell = [cell]
    if not is_listed(cell):
        return cell
    try:
        found = messages(cell)
    except ValueError:
        return json.dumps(cell, ensure_ascii=False, default=str)
    if len(found) == 1 and found[0].role == ASSISTANT:
        return found[0].content
    return json.dumps([each.shown() for each in found], ensure_ascii=False)


def _holds_messages(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {field.name for field in kind} == _ONE
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    names = {field.name for field in kind.value_type}
    return any(spoken <= names for spoken in _SPOKEN)


def _without_empty_fields(cell: Any) -> Any:
    """A cell without the fields that Arrow adds because other rows have them; an empty list is no cell."""
    return [{name: value for name, value in (each or {}).items() if value is not None} for each in cell or ()] or None
