"""Add columns of another dataset to the rows that share a key with it, and the label if it is one of them.

Rows stay as they are: none is added or removed, splits stay, and a joined column is never an input, because the input
of an example is fixed when it is ingested (`create_dataset(labels=...)` joins tables before that). A key must name one
row of the other dataset, as far as the columns go that come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from speciate.datasets.columns import with_column
from speciate.datasets.ingest.draft import INFINITE, MISSING
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import (
    Operation,
    Others,
    Outcome,
    Parameters,
    check_column,
    declare_columns,
    is_number,
    refusal,
    usable_rows,
)
from speciate.datasets.roles import is_infinite, label_column
from speciate.datasets.sources.joined_tables import NamedTable, keys_of, rows_by_key
from speciate.datasets.versions import Manifest

LABEL = "label"


class JoinParameters(Parameters):
    dataset: str = Field(description="name, name@v3 or name@TAG.")
    key: str = Field(description="Column that both have.")
    other_key: str | None = Field(None, description="Its name in the other dataset, if it differs.")
    columns: tuple[str, ...] = Field((), description="Of the other; none: all but the key and those that are here.")
    label: str | None = Field(None, description="Of its columns, the one to learn; 'label': its label.")


def preflight(parameters: JoinParameters, manifest: Manifest, others: Others) -> Manifest:
    other = others[parameters.dataset]
    check_column(manifest, parameters.key)
    check_column(other, parameters.other_key or parameters.key)
    taken = _taken(parameters, manifest, other)
    for name in taken:
        check_column(other, name)
    declared = declare_columns(manifest, {name: other.columns[name] for name in taken if name in other.columns})
    if parameters.label is None:
        return declared
    check_column(other, parameters.label)
    if parameters.label in manifest.inputs:
        raise refusal(f"The column {parameters.label!r} is an input, which a model sees, and cannot be the label.")
    numeric = is_number(other, parameters.label)
    labels = other.labels if parameters.label == LABEL and not numeric else {}
    return declared.model_copy(update={"label": parameters.label, "numeric": numeric, "labels": labels})


def _taken(parameters: JoinParameters, manifest: Manifest, other: Manifest) -> list[str]:
    """The columns of the other dataset that come here. INVALID if a named one is here already."""
    if there := [name for name in parameters.columns if name in manifest.columns]:
        raise refusal(
            f"{manifest.ref} has a column {there[0]!r} already.",
            "Leave it out of columns, or rename it first by a step 'derive' in the other dataset.",
        )
    key = parameters.other_key or parameters.key
    wanted = parameters.columns or [name for name in other.columns if name != key and name not in manifest.columns]
    label = [parameters.label] if parameters.label not in (None, LABEL, *wanted, *manifest.columns) else []
    return [*wanted, *(name for name in label if name is not None)]


class _Audit(TypedDict):
    """Rows, but for `columns`."""

    matched: int
    unmatched: int
    unused: int
    """Rows of the other dataset that no row was joined to."""
    columns: list[str]
    labelled: NotRequired[int]


def apply(rows: pa.Table, parameters: JoinParameters, context: Context) -> Outcome:
    other = context.other(parameters.dataset)
    key = parameters.other_key or parameters.key
    there = other.rows.filter(pc.not_equal(other.rows["quality"], "error"))
    taken = _taken(parameters, context.manifest, other.manifest)
    needed = dict.fromkeys([key, *taken, *([parameters.label] if parameters.label else [])])
    places = rows_by_key(NamedTable(parameters.dataset, there.select(list(needed))), key)
    wanted = keys_of(rows[parameters.key])
    at = pa.array([None if value is None else places.get(value) for value in wanted], pa.int64())
    matched = at.is_valid()
    for name in taken:
        rows = with_column(rows, name, there[name].take(at))
    used = set(wanted)
    audit: _Audit = {
        "matched": pc.sum(matched).as_py() or 0,
        "unmatched": pc.sum(pc.invert(matched)).as_py() or 0,
        "unused": sum(value not in used for value in places),
        "columns": list(taken),
    }
    manifest = preflight(parameters, context.manifest, {parameters.dataset: other.manifest})
    if parameters.label is None:
        return Outcome(rows, audit, manifest=manifest)
    cells = there[parameters.label].take(at).to_pylist()
    found = label_column(cells)
    rows = _with_labels(rows, found.values, cells, numeric=found.numeric)
    audit["labelled"] = sum(value is not None for value in found.values)
    return Outcome(rows, audit, manifest=manifest.model_copy(update={"numeric": found.numeric}))


def _with_labels(rows: pa.Table, values: Sequence[Any], cells: Sequence[Any], *, numeric: bool) -> pa.Table:
    """The rows with these labels; usable rows without one become partial, and rows that lacked one become usable."""
    labels = pa.array(values, pa.float64() if numeric else pa.string())
    reasons = pa.array([INFINITE if is_infinite(cell) else MISSING for cell in cells], pa.string())
    usable = pa.array(usable_rows(rows))
    lacked = pc.fill_null(pc.is_in(rows["reason"].cast(pa.string()), pa.array([MISSING, INFINITE])), False)
    ready = pc.or_(usable, lacked)
    without = pc.and_(ready, labels.is_null())
    now = pc.and_(ready, labels.is_valid())
    quality = pc.if_else(without, "partial", pc.if_else(now, "ok", rows["quality"].cast(pa.string())))
    reason = pc.if_else(
        without, reasons, pc.if_else(now, pa.scalar(None, pa.string()), rows["reason"].cast(pa.string()))
    )
    for name, column in ((LABEL, labels), ("quality", quality), ("reason", reason)):
        rows = with_column(rows, name, column)
    return rows


JOIN = Operation(
    name="join",
    what="add columns, and labels, of another dataset by a key that both have",
    parameters=JoinParameters,
    preflight=preflight,
    apply=apply,
    unchecked="whether a key of the other dataset is there once",
    refers={"dataset": "dataset"},
)
