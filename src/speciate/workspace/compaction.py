"""A catalog without what was deleted from it: DuckDB leaves deleted and replaced cells in the file until something
overwrites them, CHECKPOINT or not (measured), so only another file is free of them.

Who forgets something leaves a note in `meta`; the file is rewritten when its owner lets go of it, or, where that was
killed, when the next one opens it. The note names a run folder that goes in the same step: the one that could not
delete itself.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import duckdb

from speciate.workspace.blobs import sync_folder
from speciate.workspace.database import Database, Transaction

COMPACTION_KEY = "rewrite"
"""Key in `meta` under which a rewrite of the catalog is requested."""
_log = logging.getLogger(__name__)


def request_compaction(tx: Transaction, run: str) -> None:
    """Have the catalog rewritten, and the folder of this run deleted, before or when it is opened next."""
    tx.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [COMPACTION_KEY, run])


def requested_by(database: Database) -> str | None:
    row = database.read_one("SELECT value FROM meta WHERE key = ?", [COMPACTION_KEY])
    return None if row is None else str(row[0])


def compact(catalog: Path, run: str) -> bool:
    """Copy every row into a new file and put it in the old one's place; nobody may have the catalog open.

    All or nothing, whenever the machine stops. False where it could not be done (a full disk): the note stays.
    """
    partial = catalog.with_name("catalog.rewritten.partial")
    try:
        for leftover in (partial, _log_of(partial)):
            leftover.unlink(missing_ok=True)
        with duckdb.connect(str(catalog)) as connection:
            connection.execute("CHECKPOINT")
            ((source,),) = connection.execute("SELECT current_database()").fetchall()
            connection.execute(f"ATTACH {_quote_path(partial)} AS rewritten")
            connection.execute(f'COPY FROM DATABASE "{source}" TO rewritten')
            connection.execute("DELETE FROM rewritten.meta WHERE key = ?", [COMPACTION_KEY])
            connection.execute("CHECKPOINT rewritten")
            connection.execute("DETACH rewritten")
        shutil.rmtree(catalog.parent / "runs" / run, ignore_errors=True)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(catalog)  # its log was folded in and deleted when the connection closed
        sync_folder(catalog.parent)
    except (duckdb.Error, OSError):
        _log.exception("the catalog could not be rewritten; it is tried again when it is opened next")
        return False
    return True


def _log_of(catalog: Path) -> Path:
    return catalog.with_name(catalog.name + ".wal")


def _quote_path(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
