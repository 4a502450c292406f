"""What a version holds, from the catalog alone; and what differs between two, from their sealed rows."""

from __future__ import annotations

from typing import NamedTuple

from speciate.datasets.versions import Manifest, Version, names, version
from speciate.jobs.pool import Pool
from speciate.refs import DatasetRef
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders

QUALITIES = ("ok", "partial", "refused", "error")
_DIFFERENCE = "speciate.datasets.comparison:compare"


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
    payload = {"old": _files(folders, old), "new": _files(folders, new)}
    return Difference(**pool.ask(_DIFFERENCE, payload))


def _files(folders: Folders, manifest: Manifest) -> list[str]:
    return [str(folders.root / file) for file in manifest.files]
