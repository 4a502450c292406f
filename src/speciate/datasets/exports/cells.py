"""Rows and cells as text: for CSV, safe in a spreadsheet, and for JSON; and rows as plain values for text formats."""

from __future__ import annotations

import base64
import csv
import datetime
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from speciate.datasets.exports.format import ExportContent, Piece

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""What begins a formula for spreadsheets, as OWASP lists it under CSV injection. Behind apostrophes it is none, but
would be taken for one that was made harmless, and so lose one when it comes back."""
_NUMBER = re.compile(r"[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A formula that is its own value: harmless, and a class may be called `-1`."""
_ROWS = 4096
TEXT = "text"


class CsvFile:
    """A CSV file as RFC 4180 has it: commas, quotes where needed, CRLF; UTF-8."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self.escaped = 0
        """Cells of text that got a leading apostrophe, so that no spreadsheet runs them."""
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)  # CRLF: a lone carriage return in a cell is quoted, too
        self.write([header])

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        self._writer.writerows([self._cell(cell) for cell in row] for row in rows)

    def _cell(self, value: Any) -> str:
        if not isinstance(value, str):
            return _as_text(value)
        if _FORMULA.match(value) and not _NUMBER.fullmatch(value):
            self.escaped += 1
            return f"'{value}"
        return value

    def __enter__(self) -> CsvFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def notes_of_nulls(rows: pa.Table) -> tuple[str, ...]:
    """What a CSV file cannot say of these rows."""
    texts = [column for column in rows.columns if pa.types.is_string(column.type)]
    lost = sum(column.null_count for column in texts)
    if not lost:
        return ()
    return (f"CSV has no NULL: {lost:,} cells of text without a value are empty, and come back as empty texts.",)


def as_json(value: Any) -> str:
    """One line, other alphabets as they are; not a number is null, bytes are base64, dates ISO 8601."""
    return json.dumps(_json_value(value), ensure_ascii=False, allow_nan=False, default=_json_default)


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, bytes | list | dict):
        return as_json(value).strip('"') if isinstance(value, bytes) else as_json(value)
    return _json_default(value)


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    return value


def _json_default(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def text_header(export: ExportContent) -> list[str]:
    """The columns; the text comes first if it lay in a file."""
    text = [export.free(TEXT)] if export.media is not None else []
    return [*text, *export.rows.column_names]


def plain_rows(export: ExportContent, piece: Piece) -> Iterator[list[list[Any]]]:
    """The cells under `text_header`, some thousand rows at a time. Only text media are supported."""
    for start in range(0, piece.rows.num_rows, _ROWS):
        batch = piece.rows.slice(start, _ROWS)
        columns = [column.to_pylist() for column in batch.columns]
        if export.media is not None:
            first = piece.start + start
            columns.insert(0, [text_of_file(export, place) for place in range(first, first + batch.num_rows)])
        yield [list(row) for row in zip(*columns, strict=True)]


def text_of_file(export: ExportContent, place: int) -> str:
    """The content of a text file; it was UTF-8 when it was ingested."""
    assert export.media is not None
    return export.media.read(place).decode("utf-8-sig")
