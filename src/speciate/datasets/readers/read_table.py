"""The formats that are read as tables, and the two services that read foreign bytes: `read_table` and `check_columns`.

A table is parsed and written again as Parquet in the sandbox's own folder, so that nothing outside reads the foreign
file; a row that cannot be read stays, with the reason in `_reason`. `check_columns` reads only the first bytes, so that
a wrong name is refused at the call.
"""

from __future__ import annotations

import gzip
import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.readers.coco import with_listed_objects
from speciate.datasets.readers.delimited import columns_at_least, read_csv, read_tsv
from speciate.datasets.readers.formats import Reader, format_of, parse_reader
from speciate.datasets.readers.parquet import open_arrow
from speciate.datasets.readers.rows import (
    REASON,
    conversations_as_text,
    over_budget_error,
    unreadable_error,
    with_unique_names,
)
from speciate.datasets.readers.time_series import reshape_series
from speciate.datasets.roles import groups
from speciate.errors import Code, SpeciateError, closest
from speciate.jobs.pool import FileAnswer

ROW_BY_ROW = ("csv", "tsv", "jsonl", "parquet", "arrow")
"""Formats whose first rows can be read alone."""
READERS = {
    "csv": "speciate.datasets.readers.delimited:read_csv",
    "tsv": "speciate.datasets.readers.delimited:read_tsv",
    "json": "speciate.datasets.readers.json_records:read_json",
    "jsonl": "speciate.datasets.readers.json_records:read_jsonl",
    "parquet": "speciate.datasets.readers.parquet:read_parquet",
    "arrow": "speciate.datasets.readers.parquet:read_arrow",
    "ts": "speciate.datasets.readers.time_series:read_ts",
    "arff": "speciate.datasets.readers.arff:read_arff",
    "fasta": "speciate.datasets.readers.fasta:read_fasta",
    "sdf": "speciate.datasets.readers.molecules:read_sdf",
    "smi": "speciate.datasets.readers.molecules:read_smiles",
}
"""Format -> "module:function", a function of a path and of the columns whose cells stay as they are written."""
_MOST_COLUMNS = 20_000
_HEAD = 1 << 18
_HEAD_ROWS = 1_000
_SMALL_JSON = 16 << 20
"""Bytes of JSON that is read whole for its first rows."""


class TablePayload(TypedDict):
    """A TableRequest as JSON."""

    path: str
    reader: str
    modality: str
    text: list[str]
    label: str | None
    channels: list[str]
    most_bytes: int | None


class TableAnswer(FileAnswer):
    rows: int
    cut: bool
    """Whether only the first rows were read."""


class HeadRequest(TypedDict):
    path: str


class ColumnsRequest(TypedDict):
    path: str
    columns: Sequence[tuple[str, str]]
    """Role and name of each."""
    group_by: str | None
    file: NotRequired[str]
    """What the message calls the file, else "the source"."""


class TableRequest(NamedTuple):
    """A request of a worker to `read_table`."""

    path: Path
    reader: Reader
    modality: str
    text: tuple[str, ...] = ()
    """Columns whose cells stay as they are written, where the format does not tell numbers from text."""
    label: str | None = None
    """The column with the label of a series."""
    channels: tuple[str, ...] = ()
    """The columns of lists that are the channels of a series; none: all of them."""
    most_bytes: int | None = None
    """Bytes of a file beyond which only its first rows are read, where its format has them apart."""

    def payload(self) -> TablePayload:
        return {
            "path": str(self.path), "reader": str(self.reader), "modality": self.modality, "text": list(self.text),
            "label": self.label, "channels": list(self.channels), "most_bytes": self.most_bytes,
        }  # fmt: skip


def read_table(payload: TablePayload) -> TableAnswer:
    """`TableRequest.payload()` -> {file, rows}: the table as Parquet in this process's own folder.

    INVALID if the file is not of its format at all, REFUSED if it is beyond what a process may read.
    """
    path, reader = Path(payload["path"]), parse_reader(payload["reader"])
    try:
        if reader.layout is None and payload["modality"] != "time-series":
            _check_columns(path, columns_at_least(path, reader.format or format_of(path.name)))
        most = payload.get("most_bytes")
        cut = most is not None and path.stat().st_size > most
        rows = _first_rows(path, payload["text"], reader.format) if cut else _read(path, reader, payload["text"])
        if cut and not rows.num_rows:
            raise over_budget_error(path, "its first rows cannot be read alone", "Name a smaller file.")
        table = reshape_series(rows, reader, payload["modality"], path, payload["label"], payload["channels"])
    except OSError as error:
        raise unreadable_error(path, error.strerror or str(error)) from error
    _check_columns(path, table.num_columns)
    target = Path.cwd() / "table.parquet"
    try:
        pq.write_table(table, target, compression="zstd")
    except OSError as error:
        target.unlink(missing_ok=True)
        raise over_budget_error(
            path, "its table is larger than a process may write", "Split it into several files."
        ) from error
    return {"file": target.name, "rows": table.num_rows, "cut": cut}


def read_head(payload: HeadRequest) -> FileAnswer:
    """{path} -> {file}: the first rows of a table as Parquet; none where only the whole file tells."""
    path = Path(payload["path"])
    table = _first_rows(path, [])
    pq.write_table(with_unique_names(table).slice(0, _HEAD_ROWS), "table.parquet", compression="zstd")
    return {"file": "table.parquet"}


def _first_rows(path: Path, text: list[str], format_name: str | None = None) -> pa.Table:
    try:
        match name := format_name or format_of(path.name):
            case "parquet":
                first = next(pq.ParquetFile(path).iter_batches(_HEAD_ROWS), None)
                return pa.table({}) if first is None else pa.Table.from_batches([first])
            case "arrow":
                with open_arrow(path) as reader:
                    first = next(iter(_batches(reader)), None)
                    return pa.table({}) if first is None else pa.Table.from_batches([first.slice(0, _HEAD_ROWS)])
            case "json" if path.stat().st_size <= _SMALL_JSON:
                return _read(path, Reader("json"), text)
            case "csv" | "tsv" | "jsonl":
                return _read(_head(path), Reader(name), text)
    except (OSError, EOFError, pa.ArrowException):
        pass
    return pa.table({})


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    """The record batches of a reader of either form of Arrow."""
    count = getattr(reader, "num_record_batches", None)
    return iter(reader) if count is None else map(reader.get_batch, range(count))


def _check_columns(path: Path, count: int) -> None:
    if count > _MOST_COLUMNS:
        raise over_budget_error(
            path,
            f"it has {count:,} columns, more than {_MOST_COLUMNS:,}",
            "If its columns are the steps of series, call create_dataset with modality='time-series' and "
            "reader='wide'; otherwise keep the columns that matter.",
        )


def _read(path: Path, reader: Reader, text: list[str]) -> pa.Table:
    name = reader.format or format_of(path.name)
    if name is None:
        raise unreadable_error(path, "its name tells no format of tables; name one as reader")
    module, _, function = READERS[name].partition(":")
    table: pa.Table = getattr(importlib.import_module(module), function)(path, text)
    return with_listed_objects(conversations_as_text(table))


def check_columns(payload: ColumnsRequest) -> dict[str, object]:
    """Answers nothing. INVALID if a named column is certainly missing, or `group_by` is neither a column nor a
    pattern."""
    names = _columns(Path(payload["path"]))
    if names is not None:
        names = [name for name in names if name != REASON]  # ours
    if names is None:
        check_pattern(payload["group_by"])
    else:
        groups(payload["group_by"], pa.table({name: pa.nulls(0) for name in names}), [])
    for role, name in payload["columns"]:
        if names is not None and name not in names:
            raise SpeciateError(
                Code.INVALID,
                f"{role} names {name!r}, and {payload.get('file') or 'the source'} has no such column; "
                f"{closest(name, names)}",
                f"Call again with {role} naming a column" + (", or 'folder'." if role == "label" else "."),
            )
    return {}


def check_pattern(group_by: str | None) -> None:
    """INVALID if it is no regular expression; only the rows can tell whether it is a column."""
    try:
        re.compile(group_by or "")
    except re.error as error:
        raise SpeciateError(
            Code.INVALID,
            f"group_by {group_by!r} is no regular expression: {error}.",
            "Call again with a column, 'folder', or a pattern such as '(patient\\d+)'.",
        ) from error


def _columns(path: Path) -> list[str] | None:
    """None if the first bytes do not tell; the job reports what is wrong with the file."""
    try:
        match format_of(path.name):
            case "parquet":
                return list(pq.read_schema(path).names)
            case "arrow":
                with open_arrow(path) as reader:
                    return list(reader.schema.names)
            case "csv":
                return list(read_csv(_head(path), []).column_names)
            case "tsv":
                return list(read_tsv(_head(path), []).column_names)
    except (SpeciateError, OSError, EOFError, pa.ArrowException):
        pass
    return None


def _head(path: Path) -> Path:
    """The first whole lines as a file of this process's own."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        data = file.read(_HEAD)
    target = Path.cwd() / "head"
    target.write_bytes(data[: data.rfind(b"\n") + 1] if len(data) == _HEAD else data)
    return target
