"""Asks the cage whether a table has the columns that a call names, so that a wrong name is refused at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool

_SERVICE = "speciate.datasets.sources.headers:check_columns"


def check_named_columns(pool: Pool, table: Path, label: str | None, inputs: Sequence[str]) -> None:
    """INVALID where the header of `table` lacks one of them; nothing where it cannot be told at once."""
    columns = [("label", label)] if label not in (None, "folder") else []
    columns += [("inputs", column) for column in inputs]
    if not columns or not table.is_file():
        return
    try:
        pool.ask(_SERVICE, {"path": str(table), "columns": columns}, readable=frozenset((table,)))
    except SpeciateError as error:
        if error.code is not Code.UNAVAILABLE:  # then the job will say it
            raise
