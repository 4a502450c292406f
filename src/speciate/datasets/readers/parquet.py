"""Parquet and Arrow files (both IPC forms), with the class names that Hugging Face `datasets` writes beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.readers.coco import OBJECTS, category_names, with_listed_objects
from speciate.datasets.readers.rows import (
    LONGEST_BINARY,
    over_budget_error,
    unread_error,
    unreadable_error,
    with_bad_rows,
)

_METADATA = b"huggingface"
_FEATHER_1 = b"FEA1"
_HEAD = 4096  # bytes


def read_parquet(path: Path, text: Sequence[str]) -> pa.Table:
    """REFUSED if its footer declares more than 2 GiB."""
    try:
        footer = pq.read_metadata(path)
        declared = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        if declared > LONGEST_BINARY:
            raise _too_large_error(path, declared)
        table, bad = _rows_of_valid_text(pq.ParquetFile(path).read())
        return with_bad_rows(with_class_names(table), bad)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unread_error(path, error, _recovery(path)) from error


def read_arrow(path: Path, text: Sequence[str]) -> pa.Table:
    """The file form (also called Feather) and the stream form. REFUSED if the file has more than 2 GiB."""
    if (size := path.stat().st_size) > LONGEST_BINARY:
        raise _too_large_error(path, size)
    try:
        with open_arrow(path) as reader:
            table = reader.read_all()
        table, bad = _rows_of_valid_text(table)
        return with_bad_rows(with_class_names(table), bad)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unread_error(path, error, _recovery(path)) from error


def open_arrow(path: Path) -> Any:
    """A reader of record batches. ArrowException if it is neither form."""
    source = pa.memory_map(str(path))
    if source.read(len(_FEATHER_1)) == _FEATHER_1:
        raise unreadable_error(path, "the first version of Feather is not read; save it as Parquet")
    source.seek(0)
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


def with_class_names(table: pa.Table) -> pa.Table:
    """Whole numbers that stand for classes become names, if the schema names them; dictionary cells become values."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    for name, classes in class_names(table.schema).items():
        place = table.schema.get_field_index(name)
        if place >= 0 and pa.types.is_integer(table.schema.field(place).type):
            labels = [classes[i] if i is not None and 0 <= i < len(classes) else None for i in table[name].to_pylist()]
            table = table.set_column(place, name, pa.array(labels, pa.string()))
    table = with_listed_objects(table, category_names(features(table.schema).get(OBJECTS)))
    return table.replace_schema_metadata(None)


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> names of its classes."""
    return {
        name: [str(each) for each in feature["names"]]
        for name, feature in features(schema).items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }


def features(schema: pa.Schema) -> Mapping[str, object]:
    """The description of each column by `datasets`; empty if there is none or it is invalid."""
    try:
        found = json.loads((schema.metadata or {}).get(_METADATA, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _rows_of_valid_text(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Rows whose text is UTF-8, and why others are not: a damaged page may pass its checks and hold any bytes.

    ArrowInvalid for other faults: Arrow trusts the file's own description of its buffers, and crashes on a wrong one.
    """
    try:
        table.validate(full=True)
        return table, []
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
    foreign: dict[int, str] = {}
    for field in table.schema:
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            for row, cell in enumerate(table[field.name].cast(pa.large_binary()).to_pylist()):
                if cell is not None and not _is_utf8(cell):
                    foreign.setdefault(row, field.name)
    valid = table.filter(pa.array([row not in foreign for row in range(table.num_rows)]))
    valid.validate(full=True)
    return valid, [f"Row {row + 1}: the cell of {name!r} is not UTF-8." for row, name in foreign.items()]


def _is_utf8(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True


def _recovery(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if b"\0" in head or not _is_utf8(head[: head.rfind(b"\n") + 1] or b"\xff"):
        return "Mend the file, then repeat the call."
    format_ = "jsonl" if head.lstrip().startswith(b"{") else "csv"
    return f"It holds text: repeat the call with reader={format_!r}, or mend the file."


def _too_large_error(path: Path, size: int) -> Exception:
    return over_budget_error(
        path, f"it declares {size:,} bytes, more than {LONGEST_BINARY:,}", "Split it into several files."
    )
