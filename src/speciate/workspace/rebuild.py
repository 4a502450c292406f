"""A catalog again, where the old one is lost, is not the right one, or cannot be opened.

The fuller source wins: a catalog that opens and has all that the newest backup has (after its torn log was cut) is
kept; otherwise the newest automatic backup that can be read becomes the catalog. What loses is moved aside, never
deleted: the old catalog, and backups that the new one does not continue from. What came after the backup is lost here;
jobs that had started come back from their run folders (jobs/recovery.py). Killed at any moment, it may be run again.

The new catalog notes the time of which it knows nothing (repair.py): files from then are no garbage.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import duckdb

from speciate.errors import Code, SpeciateError
from speciate.faults import fault
from speciate.workspace import catalog_identity, compaction, filesystem, repair
from speciate.workspace.backup import automatic_backups, damaged_file_in, quoted
from speciate.workspace.clock import Clock, SystemClock
from speciate.workspace.repair import salvage_catalog
from speciate.workspace.schema import migrate
from speciate.workspace.workspace import Folders

_TABLES = "SELECT table_name FROM duckdb_tables() ORDER BY table_name"
_LOST = "what changed after it: use cases, aliases, audit, approvals, consents, answers and jobs that had not started"
_IDENTITY = "SELECT value FROM meta WHERE key = 'identity'"
_REWRITE = "SELECT value FROM meta WHERE key = ?"
_GIVE_IDENTITY = "INSERT INTO meta VALUES ('identity', ?) ON CONFLICT DO NOTHING"
_NEWEST = "SELECT coalesce(max(seq), 0) FROM events"
_SAY = "INSERT INTO events VALUES (?, ?, 'workspace:catalog', ?, '{}')"


class RebuildReport(NamedTuple):
    source: str
    rows: dict[str, int]
    """Number of rows, by table."""
    kept: Path | None
    """Where the files of the old catalog lie."""
    lost: tuple[str, ...]
    """What could not be restored, a sentence each."""


class _ImportResult(NamedTuple):
    source: Path | None
    """The backup that was imported; None: there is none."""
    failed: list[str]
    """Names of fuller backups that cannot be read."""


def rebuild_catalog(root: Path, clock: Clock | None = None) -> RebuildReport:
    """Leave an openable catalog of the present schema. The caller holds the workspace's lock.

    Raises SpeciateError NEWER_SCHEMA or UNAVAILABLE for a catalog that another version or another process owns.
    """
    folders, now = Folders(root), (clock or SystemClock()).now()
    folders.make()
    if folders.catalog.exists() and folders.catalog.stat().st_size:
        try:
            kept = salvage_catalog(folders.catalog)
            migrate(folders.catalog, partial(catalog_identity.refuse_useless, root))
            check_blocks(folders.catalog)
        except SpeciateError as error:
            if error.code in {Code.NEWER_SCHEMA, Code.UNAVAILABLE}:
                raise
        else:
            gone = _keep_what_opens(folders, now, torn=kept is not None)
            return RebuildReport("the catalog itself, which opens", _count(folders.catalog), kept, gone)
    anchor = catalog_identity.read_anchor(root)
    made = folders.catalog.with_name("catalog.rebuilding.duckdb")
    imported = _import_newest(made, folders.backups, anchor.identity if anchor else None)
    migrate(made)
    new = _begin(made, anchor, now)
    kept = _move_aside(folders, imported.source, new.events)
    fault("rebuild_before_replace")
    made.replace(folders.catalog)
    fault("rebuild_after_replace")
    catalog_identity.write_anchor(root, new)
    repair.settle_repairs(folders.backups, new.events, clean=True)
    missing = [f"backup {name}: it cannot be read" for name in imported.failed]
    missing.append(_LOST if imported.source else "everything that only the catalog knew: there is no backup")
    source = imported.source.name if imported.source else "nothing"
    return RebuildReport(source, _count(folders.catalog), kept, tuple(missing))


def check_blocks(catalog: Path) -> None:
    """Read every block of every table: DuckDB compares each with its checksum only then. Raises DAMAGED."""
    try:
        with duckdb.connect(str(catalog)) as connection:
            for (name,) in connection.execute(_TABLES).fetchall():
                connection.execute(f'SELECT count(hash(row)) FROM "{name}" AS row').fetchall()
    except duckdb.Error as error:
        if (refusal := filesystem.explain(error, catalog.parent)) is not None:
            raise refusal from error
        raise


def _keep_what_opens(folders: Folders, now: float, *, torn: bool) -> tuple[str, ...]:
    """Notes where the catalog had come further once, or its log was just cut. Returns what is lost, a sentence each."""
    anchor = catalog_identity.read_anchor(folders.root)
    with duckdb.connect(str(folders.catalog)) as connection:
        read = catalog_identity.reader_of(connection)
        events, identity = int(read(_NEWEST, [])[0][0]), read(_IDENTITY, [])
        shorter = anchor is not None and events < anchor.events
        if torn or shorter:
            repair.note_gap(read, now)
        clean = not read(_REWRITE, [compaction.COMPACTION_KEY])
    if anchor and identity and shorter:
        catalog_identity.write_anchor(folders.root, catalog_identity.Anchor(str(identity[0][0]), events))
    repair.settle_repairs(folders.backups, events, clean=clean)
    if anchor and shorter:
        return (f"what happened after event {events}: the catalog had come to {anchor.events}, and no backup has it",)
    return ()


def _import_newest(target: Path, folder: Path, identity: str | None) -> _ImportResult:
    """Import the fullest readable backup of this identity into `target`, a new file; where there is none, none."""
    failed: list[str] = []
    with duckdb.connect() as memory:
        backups = list(catalog_identity.readable_backups(catalog_identity.reader_of(memory), folder, identity))
    known = {each.path for each in backups}
    for backup in backups:
        _remove(target)
        if damaged_file_in(backup.path) is not None:
            failed.append(backup.path.name)
            continue
        try:
            with duckdb.connect(str(target)) as connection:
                connection.execute(f"IMPORT DATABASE {quoted(backup.path)}")
                connection.execute("CHECKPOINT")
        except duckdb.Error:
            failed.append(backup.path.name)
            continue
        damaged = [path.name for path in _newer_backups(folder, backup.path) if path not in known]
        return _ImportResult(backup.path, sorted({*failed, *damaged}))
    _remove(target)
    return _ImportResult(
        None, sorted({*failed, *(path.name for path in automatic_backups(folder) if path not in known)})
    )


def _begin(made: Path, anchor: catalog_identity.Anchor | None, now: float) -> catalog_identity.Anchor:
    """The catalog gets its identity, its gap, and the event that says where it began."""
    with duckdb.connect(str(made)) as connection:
        read = catalog_identity.reader_of(connection)
        repair.note_gap(read, now)
        events = int(read(_NEWEST, [])[0][0]) + 1
        connection.execute(_SAY, [events, now, catalog_identity.REBUILT])
        connection.execute(_GIVE_IDENTITY, [anchor.identity if anchor else secrets.token_hex(16)])
        connection.execute("CHECKPOINT")
        return catalog_identity.Anchor(str(read(_IDENTITY, [])[0][0]), events)


def _move_aside(folders: Folders, source: Path | None, events: int) -> Path | None:
    """Move the old catalog with its log, and backups beyond the source, which would contradict the new one, into a new
    folder of `backups/`; None where there is nothing to move. `events`: of the new one."""
    old = [path for path in (folders.catalog, _log_of(folders.catalog)) if path.exists()]
    old += _newer_backups(folders.backups, source)
    if not old:
        return None
    number = 1
    while (folder := folders.backups / f"replaced-{number}").exists():
        number += 1
    folder.mkdir()
    repair.note_events(folder, events)
    for path in old:
        path.rename(folder / path.name)
    return folder


def _newer_backups(folder: Path, source: Path | None) -> Sequence[Path]:
    """Automatic backups with more events than this one."""
    last = catalog_identity.events_of(source) if source else 0
    return [path for path in automatic_backups(folder) if catalog_identity.events_of(path) > last]


def _remove(catalog: Path) -> None:
    for leftover in (catalog, _log_of(catalog)):
        leftover.unlink(missing_ok=True)


def _count(catalog: Path) -> dict[str, int]:
    with duckdb.connect(str(catalog)) as connection:
        names = [name for (name,) in connection.execute(_TABLES).fetchall()]
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchall()[0][0] for name in names}


def _log_of(catalog: Path) -> Path:
    return catalog.with_name(catalog.name + ".wal")
