"""Two operations by SQL. `filter` keeps the rows that fulfil a condition; `derive` computes a column from the others.

`filter` keeps exactly the rows that query_dataset shows for the same `where`. `derive` computes the column for rows of
every quality. It never becomes an input, and no input can be replaced: an example's input is fixed at ingest.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from speciate.datasets.columns import with_column
from speciate.datasets.inspect.sql_sandbox import VIEW
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import (
    Operation,
    Others,
    Outcome,
    Parameters,
    check_sql,
    declare_columns,
    refusal,
)
from speciate.datasets.versions import Manifest


class FilterParameters(Parameters):
    where: str = Field(description="SQL condition; rows of every quality for which it is true stay.")


def preflight_filter(parameters: FilterParameters, manifest: Manifest, others: Others) -> Manifest:
    check_sql(manifest, _filter_sql(parameters))
    return manifest


def apply_filter(rows: pa.Table, parameters: FilterParameters, context: Context) -> Outcome:
    """NULL is not true."""
    kept = context.select(rows, _filter_sql(parameters))["id"]
    return Outcome(rows.filter(pc.is_in(rows["id"], kept.combine_chunks())), only_removes=True)


def _filter_sql(parameters: FilterParameters) -> str:
    return f"SELECT id FROM {VIEW} WHERE (\n{parameters.where}\n)"


class DeriveParameters(Parameters):
    column: str = Field(description="New, or one of yours to replace.")
    sql: str = Field(description="One expression over the columns, such as width * height.")


def preflight_derive(parameters: DeriveParameters, manifest: Manifest, others: Others) -> Manifest:
    declared = declare_columns(manifest, {parameters.column: ""})  # its type shows when it runs
    check_sql(manifest, _derive_sql(parameters))
    return declared


def apply_derive(rows: pa.Table, parameters: DeriveParameters, context: Context) -> Outcome:
    found = context.select(rows, _derive_sql(parameters)).sort_by("id")
    if found.num_columns != 2 or not found["id"].equals(rows["id"]):
        raise refusal(
            f"{parameters.sql[:200]!r} is not one expression that gives each row a value.",
            "Call again with one, such as width * height; for aggregates use a window: avg(x) OVER (PARTITION BY y).",
        )
    return Outcome(with_column(rows, parameters.column, _stored_type(found[1])))


def _derive_sql(parameters: DeriveParameters) -> str:
    return f'SELECT id, (\n{parameters.sql}\n) AS "value" FROM {VIEW}'


def _stored_type(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Casts to the few types that columns have: sums of whole numbers come as decimals, short ones in 32 bits."""
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
    preflight=preflight_derive,
    apply=apply_derive,
    unchecked="whether the SQL gives each row one value and fails on none",
)


FILTER = Operation(
    name="filter",
    what="keep the rows for which an SQL condition is true",
    parameters=FilterParameters,
    preflight=preflight_filter,
    apply=apply_filter,
    unchecked="whether the SQL fails on a row, and that usable rows are left",
)
