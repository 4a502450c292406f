"""A catalog again, where the old one is lost or cannot be opened: from the newest automatic backup that can be read.

A catalog that opens, after its torn log was cut, is itself the newest truth and is kept. Otherwise the old files are
moved aside, never deleted. What came after the backup is lost here; jobs that had started come back from their run
folders (jobs/recover.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb

from speciate.errors import Code, SpeciateError
from speciate.workspace import storage
from speciate.workspace.backup import automatic_backups, quoted, wrong_in
from speciate.workspace.migrations import migrate
from speciate.workspace.salvage import salvage
from speciate.workspace.workspace import Folders

_TABLES = "SELECT table_name FROM duckdb_tables() ORDER BY table_name"
_LOST = "what changed after it: use cases, aliases, audit, approvals, consents, answers and jobs that had not started"


class Rebuilt(NamedTuple):
    source: str
    rows: dict[str, int]
    """By table."""
    kept: Path | None
    """Where the files of the old catalog lie."""
    lost: tuple[str, ...]
    """What could not be restored, a sentence each."""


def rebuild_catalog(root: Path) -> Rebuilt:
    """Leave an openable catalog of the present schema. The caller holds the workspace's lock.

    Raises SpeciateError NEWER_SCHEMA or UNAVAILABLE for a catalog that another version or another process owns.
    """
    folders = Folders(root)
    folders.make()
    if folders.catalog.exists():
        try:
            kept = salvage(folders.catalog)
            migrate(folders.catalog)
            check_blocks(folders.catalog)
        except SpeciateError as error:
            if error.code in {Code.NEWER_SCHEMA, Code.UNAVAILABLE}:
                raise
        else:
            return Rebuilt("the catalog itself, which opens", _count(folders.catalog), kept, ())
    kept = _set_aside(folders)
    backups = automatic_backups(folders.backups)[::-1]
    source, unreadable = _import_newest(folders.catalog, backups)
    migrate(folders.catalog)
    lost = [f"backup {name}: it cannot be read" for name in unreadable]
    lost.append(_LOST if source else "everything that only the catalog knew: there is no backup")
    return Rebuilt(source or "nothing", _count(folders.catalog), kept, tuple(lost))


def check_blocks(catalog: Path) -> None:
    """Read every block of every table: DuckDB compares each with its checksum only then. Raises DAMAGED."""
    try:
        with duckdb.connect(str(catalog)) as connection:
            for (name,) in connection.execute(_TABLES).fetchall():
                connection.execute(f'SELECT count(hash(row)) FROM "{name}" AS row').fetchall()
    except duckdb.Error as error:
        if (said := storage.explained(error, catalog.parent)) is not None:
            raise said from error
        raise


def _import_newest(catalog: Path, backups: Sequence[Path]) -> tuple[str, list[str]]:
    """Import the first of `backups` that can be read; its name, and the names of those that cannot."""
    unreadable: list[str] = []
    for backup in backups:
        partial = catalog.with_name("catalog.rebuilding.duckdb")
        for leftover in (partial, _log_of(partial)):
            leftover.unlink(missing_ok=True)
        if wrong_in(backup) is not None:
            unreadable.append(backup.name)
            continue
        try:
            with duckdb.connect(str(partial)) as connection:
                connection.execute(f"IMPORT DATABASE {quoted(backup)}")
                connection.execute("CHECKPOINT")
        except duckdb.Error:
            unreadable.append(backup.name)
            continue
        partial.replace(catalog)
        return backup.name, unreadable
    return "", unreadable


def _set_aside(folders: Folders) -> Path | None:
    """Move the old catalog and its log into a new folder of `backups/`; None where there is none."""
    old = [path for path in (folders.catalog, _log_of(folders.catalog)) if path.exists()]
    if not old:
        return None
    number = 1
    while (folder := folders.backups / f"replaced-{number}").exists():
        number += 1
    folder.mkdir()
    for path in old:
        path.rename(folder / path.name)
    return folder


def _count(catalog: Path) -> dict[str, int]:
    with duckdb.connect(str(catalog)) as connection:
        names = [name for (name,) in connection.execute(_TABLES).fetchall()]
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchall()[0][0] for name in names}


def _log_of(catalog: Path) -> Path:
    return catalog.with_name(catalog.name + ".wal")
