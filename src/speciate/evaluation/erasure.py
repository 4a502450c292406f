"""Examples out of the answers of an evaluation. Its report, which counts and averages, stays as it was."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.evaluation.evaluate import FILES

PURGED = "[purged]"


def forget_examples(folder: Path, ids: Collection[str], labels: Sequence[str]) -> bool:
    """Rewrite the tables of `folder` without these examples; whether it had any. Doing it again changes nothing.

    `labels`: those that no other example has; where a model answers one elsewhere, the answer stays and its name goes.
    """
    found = False
    for name in FILES:
        path = folder / name
        if not path.exists():
            continue
        table = pq.read_table(path)
        gone = pc.is_in(table["example"], value_set=pa.array(sorted(ids), pa.string()))
        if pc.any(gone).as_py():
            found = True
            _replace(path, _unnamed(table.filter(pc.invert(gone)), labels))
    return found


def _unnamed(table: pa.Table, labels: Sequence[str]) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and field.name != "example":
            column = table[field.name]
            for label in labels:
                column = pc.replace_substring(column, pattern=label, replacement=PURGED)
            table = table.set_column(place, field, column)
    return table


def _replace(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
