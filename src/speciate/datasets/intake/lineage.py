"""What a version goes back to, and what the versions before it held; what is gone says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from speciate.datasets import scan
from speciate.datasets.ancestry import parent
from speciate.datasets.versions import Part, Version
from speciate.refs import dataset_ref
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders


def ancestors(database: Database, found: Version) -> Iterator[Version]:
    """The versions of the same dataset that `found` was made from, one after the other; deleted ones without parts."""
    before: Version | None = found
    while before and before.parents and dataset_ref(before.parents[0]).name == found.manifest.name:
        before = parent(database, before, before.parents[0])
        if before:
            yield before


def rows_ever(folders: Folders, parts: Sequence[Part], columns: Sequence[str]) -> pa.Table | None:
    """What the files of `parts` hold, whatever a version took away again; None where none is there any more."""
    there = {part.file: Part(file=part.file, rows=part.rows) for part in parts}
    tables = [scan.live_rows(folders, part, columns) for part in there.values() if (folders.root / part.file).exists()]
    return pa.concat_tables(tables, promote_options="permissive") if tables else None
