"""When two rows are the same example, whatever roles their columns play in the versions that hold them.

`input_values` gives the input of rows whose medium lies in their cells. similarity/near_duplicates.py finds what is
nearly the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY
from speciate.datasets.digest_columns import hexadecimal, sha256_of
from speciate.datasets.row_json import pair_rows
from speciate.datasets.versions import Manifest
from speciate.modalities import find
from speciate.modalities.contract import DecodeError


def row_keys(table: pa.Table) -> pa.StringArray:
    """sha256 of all cells of each row. Roles, empty columns and the type of a column do not change it."""
    return hexadecimal(sha256_of(pair_rows(table)))


def fingerprint(modality: str, value: Any) -> str:
    """sha256 of the fingerprint of the medium in a cell; DecodeError if there is no medium."""
    kind = find(modality)
    return sha256(kind.fingerprint(kind.admit(value)))


def known_rows(rows: pa.Table, version: Manifest, learned: pa.Table, learned_version: Manifest) -> pa.Array:
    """(N,) bool: which of `rows`, from `version`, are among those that a model learned from."""
    pairs = [(rows[name], learned[name]) for name in (KEY, CONTENT, FINGERPRINT) if _in_both(name, rows, learned)]
    inputs = learned_version.inputs
    if inputs and inputs != version.inputs and set(inputs) <= set(rows.column_names):
        pairs.append((_input_fingerprints(learned_version, rows), _input_fingerprints(learned_version, learned)))
    known = pa.array([False] * rows.num_rows)
    for mine, theirs in pairs:
        known = pc.or_(known, pc.is_in(mine, value_set=pa.array(theirs.to_pylist(), mine.type), skip_nulls=True))
    return known


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _input_fingerprints(version: Manifest, rows: pa.Table) -> pa.Array:
    """Fingerprints of the model's input in each row of `version`; null if there is none."""
    found: list[str | None] = []
    for value in input_values(version.modality, version.inputs, rows):
        try:
            found.append(fingerprint(version.modality, value))
        except DecodeError:
            found.append(None)
    return pa.array(found, pa.string())


def _in_both(name: str, rows: pa.Table, learned: pa.Table) -> bool:
    return name in rows.column_names and name in learned.column_names


def input_values(modality: str, inputs: Sequence[str], table: pa.Table) -> list[Any]:
    """The input columns of each row, as the modality admits them: several texts become one, a line each."""
    if modality == "tabular":
        rows: list[Any] = table.select(list(inputs)).to_pylist()
        return rows
    if len(inputs) == 1:
        return list(table[inputs[0]].to_pylist())
    columns = [table[name].to_pylist() for name in inputs]
    if modality == "time-series":
        return [list(channels) for channels in zip(*columns, strict=True)]
    return ["\n".join(str(cell) for cell in cells if cell is not None) for cells in zip(*columns, strict=True)]
