"""Which columns a table has, from its first bytes, so that a wrong name is refused at the call. Runs in the cage."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.roles import groups
from speciate.datasets.sources.readers.choice import format_of
from speciate.datasets.sources.readers.columnar import open_arrow
from speciate.datasets.sources.readers.delimited import read_csv, read_tsv
from speciate.datasets.sources.readers.rows import REASON
from speciate.errors import Code, SpeciateError, closest

_HEAD = 1 << 18


def check_columns(payload: dict[str, Any]) -> dict[str, Any]:
    """{path, columns: [[role, name]], group_by} -> {}. INVALID where a column is named that the table certainly has
    not, or `group_by` is neither a column nor a pattern."""
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
                f"{role} names {name!r}, and the source has no such column; {closest(name, names)}",
                f"Call again with {role} naming a column" + (", or 'folder'." if role == "label" else "."),
            )
    return {}


def check_pattern(group_by: str | None) -> None:
    """INVALID where it is no regular expression; whether it is a column, only the rows can tell."""
    try:
        re.compile(group_by or "")
    except re.error as error:
        raise SpeciateError(
            Code.INVALID,
            f"group_by {group_by!r} is no regular expression: {error}.",
            "Call again with a column, 'folder', or a pattern such as '(patient\\d+)'.",
        ) from error


def _columns(path: Path) -> list[str] | None:
    """None where the first bytes do not tell; what is wrong with the file is for the job to say."""
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
