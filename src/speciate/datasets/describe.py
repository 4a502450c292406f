"""What a version holds, from the catalog alone; and what differs between two, from their sealed rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.sealing import digests
from speciate.datasets.versions import Manifest, Version, names, version
from speciate.jobs.pool import Pool
from speciate.refs import DatasetRef
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders

QUALITIES = ("ok", "partial", "refused", "error")
_DIFFERENCE = "speciate.datasets.describe:compare"


class Difference(NamedTuple):
    """Examples by id: only in one of the two, or in both with another label, split, group or cell."""

    added: int
    removed: int
    changed: int


def newest_versions(database: Database) -> list[Version]:
    """The newest version of every dataset, by name."""
    return [version(database, DatasetRef(name)) for name in names(database)]


def quality(found: Version) -> dict[str, int]:
    return {name: found.report.get(name, 0) for name in QUALITIES}


def usable(found: Version) -> int:
    """How many examples are ok or partial."""
    return sum(quality(found)[name] for name in ("ok", "partial"))


def difference(pool: Pool, folders: Folders, old: Manifest, new: Manifest) -> Difference:
    """What `new` has and has not beside `old`."""
    payload = {side: [str(folders.root / file) for file in manifest.files] for side, manifest in
               (("old", old), ("new", new))}  # fmt: skip
    return Difference(**pool.ask(_DIFFERENCE, payload))


def compare(payload: dict[str, Any]) -> dict[str, Any]:
    """The service behind `difference`: {old: [file], new: [file]} -> counts."""
    old, new = _digests(payload["old"]), _digests(payload["new"])
    both = old.keys() & new.keys()
    return {
        "added": len(new.keys() - both),
        "removed": len(old.keys() - both),
        "changed": sum(old[key] != new[key] for key in both),
    }


def _digests(files: list[str]) -> dict[str, bytes]:
    table = pa.concat_tables([pq.read_table(Path(file)) for file in files], promote_options="permissive")
    return dict(zip(table["id"].to_pylist(), digests(table), strict=True))
