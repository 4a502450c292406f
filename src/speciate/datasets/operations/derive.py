"""A column computed from the others by one SQL expression, for rows of every quality.

It never becomes an input, and no input can be replaced: what a model sees of an example is fixed when that comes in.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from speciate.datasets.columns import rename, with_column
from speciate.datasets.look.sql_cage import VIEW
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.contract import Operation, Others, Outcome, Parameters, refusal
from speciate.datasets.operations.foresight import check_sql
from speciate.datasets.versions import Manifest


class DeriveParameters(Parameters):
    column: str = Field(description="New, or one of yours to replace.")
    sql: str = Field(description="One expression over the columns, such as width * height.")


def foresee(parameters: DeriveParameters, manifest: Manifest, others: Others) -> Manifest:
    name = parameters.column
    if rename([name])[name] != name:
        raise refusal(f"{name!r} cannot name a column of yours.", "Call again with another column.")
    if name in manifest.inputs or name == manifest.label:
        role = "an input" if name in manifest.inputs else "where the label comes from"
        raise refusal(f"The column {name!r} is {role}, which cannot be replaced.", "Call again with another column.")
    twin = next((other for other in manifest.columns if other.lower() == name.lower() and other != name), None)
    if twin is not None:
        raise refusal(f"SQL cannot tell {name!r} from the column {twin!r}.", "Call again with another column.")
    check_sql(manifest, _select(parameters))
    return manifest.model_copy(update={"columns": {**manifest.columns, name: ""}})  # its type shows when it runs


def apply(rows: pa.Table, parameters: DeriveParameters, context: Context) -> Outcome:
    found = context.select(rows, _select(parameters)).sort_by("id")
    if found.num_columns != 2 or not found["id"].equals(rows["id"]):
        raise refusal(
            f"{parameters.sql[:200]!r} is not one expression that gives each row a value.",
            "Call again with one, such as width * height; for aggregates use a window: avg(x) OVER (PARTITION BY y).",
        )
    return Outcome(with_column(rows, parameters.column, _plain(found[1])))


def _select(parameters: DeriveParameters) -> str:
    return f'SELECT id, (\n{parameters.sql}\n) AS "value" FROM {VIEW}'


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of the few types that columns have: sums of whole numbers come as decimals, short ones in 32 bits."""
    kind = values.type
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0 and _fits(values)):
        return values.cast(pa.int64())
    if pa.types.is_decimal(kind) or pa.types.is_floating(kind):
        return values.cast(pa.float64())
    if pa.types.is_null(kind) or pa.types.is_large_string(kind):
        return values.cast(pa.string())
    return values


def _fits(values: pa.ChunkedArray) -> bool:
    greatest = pc.max(pc.abs(values)).as_py()
    return greatest is None or greatest < 2**63


DERIVE = Operation(
    name="derive",
    what="add a column computed by an SQL expression",
    parameters=DeriveParameters,
    foresee=foresee,
    apply=apply,
)
