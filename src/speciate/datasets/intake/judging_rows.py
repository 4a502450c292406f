"""Rows of tables judged as files are (judging.py): every row's medium is admitted once. Runs in a caged process."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.identity import row_keys, sha256
from speciate.datasets.inputs import input_values
from speciate.datasets.intake.judging import LONGEST_REASON
from speciate.modalities import find
from speciate.modalities.contract import DecodeError
from speciate.modalities.tabular import plain

VERDICTS = pa.schema(
    [
        ("content", pa.string()),
        ("fingerprint", pa.string()),
        ("key", pa.string()),
        ("sketch", pa.binary()),
        ("quality", pa.string()),
        ("reason", pa.string()),
        ("fields", pa.string()),
    ]
)
"""sha256 of what a model sees of a row, of its fingerprint and of all its cells; as JSON the further columns that its
modality makes, null where none; the rest as for files."""


def judge_rows(payload: dict[str, Any]) -> dict[str, Any]:
    """{file, modality, inputs} -> {file}: VERDICTS on every row of a Parquet file, as Parquet."""
    table = pq.read_table(payload["file"])
    pq.write_table(judged(table, payload["modality"], payload["inputs"]), "verdicts.parquet")
    return {"file": "verdicts.parquet"}


def judged(table: pa.Table, name: str, inputs: list[str]) -> pa.Table:
    """VERDICTS on every row."""
    modality = find(name)
    rows = []
    for value in input_values(name, inputs, table):
        fingerprint, sketch, quality, reason, fields = None, None, "ok", None, None
        try:
            media = modality.admit(value)
            fingerprint, sketch = sha256(modality.fingerprint(media)), modality.sketch(media)
            fields = modality.row_fields(media)
        except DecodeError as error:
            quality, reason = error.quality, error.detail[:LONGEST_REASON]
        content = sha256(_encode(_plain(value)))
        rows.append((content, fingerprint, sketch, quality, reason, json.dumps(fields) if fields else None))
    names = ("content", "fingerprint", "sketch", "quality", "reason", "fields")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    return pa.table({**columns, "key": row_keys(table)}).select(VERDICTS.names).cast(VERDICTS)


def _plain(value: Any) -> Any:
    """The type of a numeric column makes no other row."""
    if isinstance(value, dict):
        return {name: _plain(cell) for name, cell in value.items()}
    return [_plain(cell) for cell in value] if isinstance(value, list) else plain(value)


_encode = json.JSONEncoder(sort_keys=True, default=str).encode
