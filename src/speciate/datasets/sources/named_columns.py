"""Asks the cage whether a table has the columns that a call names, so that a wrong name is refused at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speciate.datasets.sources.headers import check_pattern
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool

_SERVICE = "speciate.datasets.sources.headers:check_columns"


def check_named_columns(
    pool: Pool, table: Path, label: str | None, inputs: Sequence[str], group_by: str | None = None
) -> None:
    """INVALID where the header of `table` lacks one of them; nothing where it cannot be told at once. `group_by` may be
    a regular expression instead."""
    columns = [("label", label)] if label not in (None, "folder") else []
    columns += [("inputs", column) for column in inputs]
    if not table.is_file():
        check_pattern(group_by)
        return
    if not columns and group_by in (None, "folder"):
        return
    payload = {"path": str(table), "columns": columns, "group_by": group_by}
    try:
        pool.ask(_SERVICE, payload, readable=frozenset((table,)))
    except SpeciateError as error:
        if error.code is not Code.UNAVAILABLE:  # then the job will say it
            raise
