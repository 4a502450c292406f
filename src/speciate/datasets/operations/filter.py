"""Keep the rows that fulfil an SQL condition: exactly those that query_dataset shows for the same `where`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from speciate.datasets.look.sql_cage import VIEW
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.contract import Operation, Others, Outcome, Parameters
from speciate.datasets.operations.foresight import check_sql
from speciate.datasets.versions import Manifest


class FilterParameters(Parameters):
    where: str = Field(description="SQL condition; rows of every quality for which it is true stay.")


def foresee(parameters: FilterParameters, manifest: Manifest, others: Others) -> Manifest:
    check_sql(manifest, _select(parameters))
    return manifest


def apply(rows: pa.Table, parameters: FilterParameters, context: Context) -> Outcome:
    """NULL is not true."""
    kept = context.select(rows, _select(parameters))["id"]
    return Outcome(rows.filter(pc.is_in(rows["id"], kept.combine_chunks())))


def _select(parameters: FilterParameters) -> str:
    return f"SELECT id FROM {VIEW} WHERE (\n{parameters.where}\n)"


FILTER = Operation(
    name="filter",
    what="keep the rows for which an SQL condition is true",
    parameters=FilterParameters,
    foresee=foresee,
    apply=apply,
)
