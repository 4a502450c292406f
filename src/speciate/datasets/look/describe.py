"""What a version holds, from the catalog alone; and what differs between two, from their sealed rows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

from speciate.datasets.columns import QUALITIES
from speciate.datasets.versions import Manifest, Version, version
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.refs import DatasetRef
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders

_CHART = "speciate.datasets.look.charts:draw"
_DIFFERENCE = "speciate.datasets.look.comparison:compare"


class Difference(NamedTuple):
    """Examples by id: only in one of the two, or in both with another label, split, group or cell."""

    added: int
    removed: int
    changed: int
    label_moves: list[tuple[str | None, str | None, int]]
    """Before, after, how many; most frequent first, at most 50."""


class Chart(NamedTuple):
    """`png`, or None and in `missing` why there is none."""

    png: bytes | None
    missing: str = ""


def newest_versions(database: Database, chosen: Sequence[str]) -> list[Version]:
    """The newest version of each of these datasets."""
    return [version(database, DatasetRef(name)) for name in chosen]


def charts(pool: Pool, folders: Folders, manifest: Manifest) -> Chart:
    """Quality, labels by split and the spread of numbers. A picture is the least of a description: where it comes too
    late, as on a busy machine, that is said in its place. What time does not mend is raised."""
    payload = {"root": str(folders.root), "manifest": manifest.model_dump(mode="json")}
    try:
        return Chart(base64.b64decode(pool.ask(_CHART, payload)["png"]))
    except SpeciateError as error:
        if error.code is not Code.UNAVAILABLE:
            raise
        why = f"The chart was not drawn: {error.message} All else is complete; call again for the chart."
        return Chart(None, why)


def quality(found: Version) -> dict[str, int]:
    return {name: found.report.get(name, 0) for name in QUALITIES}


def usable(found: Version) -> int:
    """How many examples are ok or partial."""
    return sum(quality(found)[name] for name in ("ok", "partial"))


def difference(pool: Pool, folders: Folders, old: Manifest, new: Manifest) -> Difference:
    """What `new` has and has not beside `old`."""
    payload = {
        "root": str(folders.root),
        "old": old.model_dump(mode="json"),
        "new": new.model_dump(mode="json"),
    }
    return Difference(**pool.ask(_DIFFERENCE, payload))
