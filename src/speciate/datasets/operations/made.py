"""How what a model or a rule made is told apart from what came in: columns that say who made it, of what, and how.

`made_by`, `made_from` and `how` stand in rows that an operation made; what it only filled in beside an example has
columns of its own, `NAME_made_by` and so on, so that several models can answer the same rows. All of them are the
user's columns: `filter(where="made_by IS NULL")` takes everything away that was made, and no model is shown them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import rename, with_column
from speciate.datasets.operations.contract import refusal
from speciate.datasets.versions import Manifest

MADE_BY, MADE_FROM, HOW = "made_by", "made_from", "how"
"""A model's ref or the name of a rule; the id of the example that it was made from; settings, in words."""
OF_ROWS = (MADE_BY, MADE_FROM, HOW)
WHY = "why_not"
"""Beside a column of answers: why there is none."""


def beside(column: str) -> tuple[str, str, str]:
    """Names of the columns that say of `column` who made it, how, and why not."""
    return f"{column}_{MADE_BY}", f"{column}_{HOW}", f"{column}_{WHY}"


def with_columns(manifest: Manifest, names: Mapping[str, str]) -> Manifest:
    """The manifest with these columns (name -> type). INVALID for one that cannot be the user's, plays a role or that
    SQL could not tell from another."""
    for name in names:
        if rename([name])[name] != name:
            raise refusal(f"{name!r} cannot name a column of yours.", "Call again with another column.")
        if name in manifest.inputs or name == manifest.label:
            role = "an input" if name in manifest.inputs else "where the label comes from"
            raise refusal(f"The column {name!r} is {role}, which cannot be replaced.", "Call again with another one.")
        twin = next((other for other in manifest.columns if other.lower() == name.lower() and other != name), None)
        if twin is not None:
            raise refusal(f"SQL cannot tell {name!r} from the column {twin!r}.", "Call again with another column.")
    return manifest.model_copy(update={"columns": {**manifest.columns, **names}})


def filled(rows: pa.Table, name: str, places: Sequence[int], values: Sequence[object], kind: pa.DataType) -> pa.Table:
    """With values at these places of the column; elsewhere what was there stays, or is null."""
    cells = rows[name].to_pylist() if name in rows.column_names else [None] * rows.num_rows
    if name in rows.column_names and rows.schema.field(name).type != kind:
        kind = pa.string() if any(cell is not None for cell in cells) else kind
    for place, value in zip(places, values, strict=True):
        cells[place] = value
    if pa.types.is_string(kind):
        cells = [None if cell is None else str(cell) for cell in cells]
    return with_column(rows, name, pa.array(cells, kind))


def without_judging(rows: pa.Table) -> tuple[pa.Table, int]:
    """Without the rows that were made from another example and lie where models are judged; how many those were."""
    if MADE_FROM not in rows.column_names or not pa.types.is_string(rows.schema.field(MADE_FROM).type):
        return rows, 0
    of_another = pc.and_(rows[MADE_FROM].is_valid(), pc.not_equal(rows[MADE_FROM], rows["id"]))
    known = pc.is_in(rows[MADE_FROM], rows["id"].combine_chunks())
    judged = pc.is_in(rows["split"], pa.array(["validation", "test"]))
    left = pc.fill_null(pc.and_(pc.and_(of_another, known), judged), False)
    return rows.filter(pc.invert(left)), int(pc.sum(left).as_py() or 0)
