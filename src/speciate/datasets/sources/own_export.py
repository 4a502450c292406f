"""Our own exports as sources: a small file at the top of one gives the role of each column, so that a version comes
back without further arguments. The caller's arguments override it.

The file is as foreign as any other: it is parsed in the sandbox, and a role counts only if its column exists.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciate.datasets.columns import (
    FINGERPRINT,
    KEY,
    ORIGIN,
    SKETCH,
    START,
    STOP,
    WINDOW_START,
    WINDOW_STOP,
    with_column,
)
from speciate.datasets.identity import sha256
from speciate.datasets.sources.listing import SourceFile
from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities import find as find_modality
from speciate.modalities import table as modalities

MARKER = "speciate.json"
SIDECARS = ("metadata.csv", "metadata.parquet")
"""Files beside the media of an export; no medium has such a name."""
_LONGEST = 4 << 20
"""Bytes: it names every column of text."""
_READ = "speciate.datasets.sources.own_export:read_marker"
_ESCAPED = r"^'('*[=+\-@\t\r])"


class MarkerRequest(TypedDict):
    path: str


class MarkerAnswer(TypedDict):
    marker: object
    """As the file has it: an object, null if it holds none."""


class MarkedRoles(TypedDict, total=False):
    """Roles that a marker names and whose columns exist."""

    label: str
    group_by: str
    inputs: tuple[str, ...]


class Marker(BaseModel):
    model_config = ConfigDict(frozen=True)
    format: str
    again: str
    """The folder below the export that holds the rows; `.` where that is the export."""
    modality: str
    files: bool = False
    """Whether every file but those called SIDECARS is an example, whatever its suffix."""
    label: str | None = None
    group_by: str | None = None
    inputs: tuple[str, ...] = ()
    windows: bool = False
    """Whether rows are windows of media that are here whole."""
    texts: tuple[str, ...] = Field((), max_length=20_000)
    """Columns of text, for formats that do not tell `7` from 7."""
    escaped: bool = False
    """Whether cells that a spreadsheet would run begin with one more apostrophe."""

    def roles(self, columns: Collection[str]) -> MarkedRoles:
        """The roles of columns that exist."""
        found: MarkedRoles = {}
        if self.label and self.label in columns:
            found["label"] = self.label
        if self.group_by and self.group_by in columns:
            found["group_by"] = self.group_by
        if self.inputs and set(self.inputs) <= set(columns):
            found["inputs"] = self.inputs
        return found

    def as_exported(self, table: pa.Table, key: str | None = None) -> pa.Table:
        """The cells as they were before the export; `key`: the column that names media, of which each gets one row."""
        table = unescape_cells(table) if self.escaped else table
        return merge_windows(table, key, find_modality(self.modality).window_unit) if self.windows and key else table


class Export(NamedTuple):
    marker: Marker
    files: list[SourceFile]
    """What lies below its `again`, with names below that."""


def read_marker(payload: MarkerRequest) -> MarkerAnswer:
    """The service: the object in it. Runs in a sandboxed process."""
    try:
        with Path(payload["path"]).open("rb") as file:
            found = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        found = None
    return {"marker": found if isinstance(found, dict) else None}


def find_export(files: Iterable[SourceFile], pool: Pool, readable: frozenset[Path]) -> Export | None:
    """The export that `files` are; None without a marker at their top, or if it is not ours."""
    files = list(files)
    path = min((file.name for file in files if file.path.name == MARKER), key=lambda name: name.count("/"), default="")
    top = path.removesuffix(MARKER)
    if not path or any(not file.name.startswith(top) for file in files):
        return None
    place = next(file.path for file in files if file.name == path)
    try:
        answer = pool.ask(_READ, MarkerRequest(path=str(place)), readable=readable)
        marker = Marker.model_validate(answer["marker"])
    except (SpeciateError, ValidationError):
        return None
    if marker.modality not in modalities():
        return None
    below = top if marker.again == "." else f"{top}{marker.again}/"
    inside = [
        file._replace(name=file.name.removeprefix(below))
        for file in files
        if file.name.startswith(below) and file.name not in (path, f"{top}set_aside.csv")
    ]
    return Export(marker, inside) if inside else None


def unescape_cells(table: pa.Table) -> pa.Table:
    """The cells as they were before they were escaped for spreadsheets."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(place, field.name, pc.replace_substring_regex(table[field.name], _ESCAPED, r"\1"))
    return table


def merge_windows(table: pa.Table, key: str, unit: str | None) -> pa.Table:
    """One row per medium instead of rows that are its windows: without the bounds and the length."""
    if key not in table.column_names or pc.count_distinct(table[key]).as_py() == table.num_rows:
        return table
    first = pa.array([*{name: place for place, name in reversed(list(enumerate(table[key].to_pylist())))}.values()])
    table = table.take(first.cast(pa.int64()).sort())
    return table.drop_columns([name for name in (WINDOW_START, WINDOW_STOP, unit) if name in table.column_names])


def with_windows(rows: pa.Table, unit: str | None) -> pa.Table:
    """Rows of media with the columns `window_start` and `window_stop` become windows of their medium again."""
    if not {WINDOW_START, WINDOW_STOP} <= set(rows.column_names):
        return rows
    start, stop = (rows[name].cast(pa.float64()) for name in (WINDOW_START, WINDOW_STOP))
    bounds = list(zip(start.to_pylist(), stop.to_pylist(), strict=True))
    cut = pc.and_(pc.is_valid(start), pc.is_valid(rows[KEY]))
    rows = with_column(rows, ORIGIN, pc.if_else(cut, rows[KEY], pa.scalar(None, pa.string())))
    for name in (FINGERPRINT, KEY):
        renewed = [
            f"{cell}[{begin!r}:{end!r}]" for cell, (begin, end) in zip(rows[name].to_pylist(), bounds, strict=True)
        ]
        rows = with_column(rows, name, pc.if_else(cut, pa.array(map(sha256, renewed), pa.string()), rows[name]))
    rows = with_column(rows, SKETCH, pc.if_else(cut, pa.scalar(None, pa.binary()), rows[SKETCH]))
    for name, column in ((START, start), (STOP, stop), (WINDOW_START, start), (WINDOW_STOP, stop)):
        rows = with_column(rows, name, column)
    written = f"user_{unit}"
    if unit is not None and {unit, written} <= set(rows.column_names):  # of the window; that of the medium is another
        rows = with_column(rows, unit, rows[written].cast(rows[unit].type)).drop_columns([written])
    return rows
