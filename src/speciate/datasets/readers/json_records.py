"""JSON and JSONL: objects as rows, whose keys are the columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from speciate.datasets.readers.coco import images, is_coco
from speciate.datasets.readers.label_studio import is_label_studio, labelled_tasks
from speciate.datasets.readers.rows import (
    Row,
    from_rows,
    is_broken,
    over_budget_error,
    read_lines,
    read_text,
    unreadable_error,
    with_bad_rows,
)

KEY, VALUE = "key", "value"
"""Columns of a JSON object that maps keys to labels or to objects."""
_LONGEST = 256 * 1024 * 1024  # as Python objects it is several times as much


def read_jsonl(path: Path, text: Sequence[str]) -> pa.Table:
    """An object per line; any other line is a bad row."""
    rows: list[Row] = []
    bad: list[str] = []
    for number, line in read_lines(path):
        if line is not None and not line.strip():
            continue
        try:
            if line is None:
                raise ValueError("not UTF-8")
            rows.append(as_row(json.loads(line)))
        except (ValueError, RecursionError) as error:
            bad.append(f"Line {number} is not an object of JSON: {error}.")
    return with_bad_rows(from_rows(rows), bad)


def read_json(path: Path, text: Sequence[str]) -> pa.Table:
    """A list of objects, or an object that holds one list of objects, a list per column, a value per key,
    COCO, or the tasks of Label Studio."""
    try:
        data = read_text(path)
        if len(data) > _LONGEST:
            raise over_budget_error(
                path, f"it has {len(data):,} bytes, more than {_LONGEST:,}", "Save it as JSONL or Parquet."
            )
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise unreadable_error(path, f"not JSON: {error}") from error
    if is_coco(found):
        annotated = images(found)
        return with_bad_rows(from_rows(annotated.rows), annotated.reasons)
    rows: list[Row] = []
    bad: list[str] = []
    records = _records(found, path)
    if is_label_studio(records):
        records, bad = labelled_tasks(records)
    for number, value in enumerate(records, 1):
        try:
            rows.append(as_row(value))
        except ValueError as error:
            bad.append(f"Element {number} is {error}.")
    return with_bad_rows(from_rows(rows), bad)


def _records(found: Any, path: Path) -> list[Any]:
    if isinstance(found, list):
        return found
    if not isinstance(found, dict) or not found:
        raise unreadable_error(path, "neither a list of objects nor an object")
    values = list(found.values())
    if all(isinstance(value, dict) for value in values):
        return [{KEY: key, **value} for key, value in found.items()]
    lists = [value for value in values if isinstance(value, list)]
    if len(lists) == 1 and lists[0] and all(isinstance(row, dict) for row in lists[0]):
        return lists[0]
    if len(lists) == len(values) and len(set(map(len, lists))) == 1:
        return [dict(zip(found, row, strict=True)) for row in zip(*lists, strict=True)]
    if not any(isinstance(value, dict | list) for value in values):
        return [{KEY: key, VALUE: value} for key, value in found.items()]
    raise unreadable_error(path, "an object that is neither rows, columns, nor a label per key")


def as_row(value: Any) -> Row:
    """ValueError if it is no object, or holds text that no file can hold."""
    if not isinstance(value, dict):
        raise ValueError("no object")
    if is_broken(value):
        raise ValueError("an object with half a character")
    return value
