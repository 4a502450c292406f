"""Files that hold many examples, read as tables. All of it meets foreign bytes and runs in a caged process (jobs.pool).

A table is parsed and written again as Parquet in the cage's own folder, so that nothing outside reads the foreign
file; a row that cannot be read stays, with `_reason` saying why.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.sources.readers.choice import Reader, format_of, parse_reader
from speciate.datasets.sources.readers.conversations import told
from speciate.datasets.sources.readers.delimited import columns_at_least
from speciate.datasets.sources.readers.rows import refused, unreadable
from speciate.datasets.sources.readers.series import shaped

READERS = {
    "csv": "speciate.datasets.sources.readers.delimited:read_csv",
    "tsv": "speciate.datasets.sources.readers.delimited:read_tsv",
    "json": "speciate.datasets.sources.readers.json_records:read_json",
    "jsonl": "speciate.datasets.sources.readers.json_records:read_jsonl",
    "parquet": "speciate.datasets.sources.readers.columnar:read_parquet",
    "arrow": "speciate.datasets.sources.readers.columnar:read_arrow",
    "ts": "speciate.datasets.sources.readers.ts:read_ts",
    "arff": "speciate.datasets.sources.readers.arff:read_arff",
    "fasta": "speciate.datasets.sources.readers.fasta:read_fasta",
    "sdf": "speciate.datasets.sources.readers.molecules:read_sdf",
    "smi": "speciate.datasets.sources.readers.molecules:read_smiles",
}
"""Format -> "module:function", a function of a path and of the columns whose cells stay as they are written."""
_MOST_COLUMNS = 20_000


class Question(NamedTuple):
    """What a worker asks of `read_table`."""

    path: Path
    reader: Reader
    modality: str
    text: tuple[str, ...] = ()
    """Columns whose cells stay as they are written, where the format does not tell numbers from text."""
    label: str | None = None
    """The column with the label of a series."""

    def payload(self) -> dict[str, Any]:
        return {
            "path": str(self.path), "reader": str(self.reader), "modality": self.modality, "text": list(self.text),
            "label": self.label,
        }  # fmt: skip


def read_table(payload: dict[str, Any]) -> dict[str, Any]:
    """`Question.payload()` -> {file, rows}: the table as Parquet in this process's own folder.

    INVALID where the file is not of its format at all, REFUSED where it is beyond what a process may read.
    """
    path, reader = Path(payload["path"]), parse_reader(payload["reader"])
    try:
        if reader.layout is None and payload["modality"] != "time-series":
            _check_columns(path, columns_at_least(path, reader.format or format_of(path.name)))
        table = shaped(_read(path, reader, payload["text"]), reader, payload["modality"], path, payload["label"])
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error
    _check_columns(path, table.num_columns)
    target = Path.cwd() / "table.parquet"
    try:
        pq.write_table(table, target, compression="zstd")
    except OSError as error:
        target.unlink(missing_ok=True)
        raise refused(path, "its table is larger than a process may write", "Split it into several files.") from error
    return {"file": target.name, "rows": table.num_rows}


def _check_columns(path: Path, count: int) -> None:
    if count > _MOST_COLUMNS:
        raise refused(
            path,
            f"it has {count:,} columns, more than {_MOST_COLUMNS:,}",
            "Where its columns are the steps of series, call create_dataset with modality='time-series' and "
            "reader='wide'; otherwise keep the columns that matter.",
        )


def _read(path: Path, reader: Reader, text: list[str]) -> pa.Table:
    name = reader.format or format_of(path.name)
    if name is None:
        raise unreadable(path, "its name tells no format of tables; name one as reader")
    module, _, function = READERS[name].partition(":")
    table: pa.Table = getattr(importlib.import_module(module), function)(path, text)
    return told(table)
