"""Opens a catalog whose log was torn by a crash, and loses only what was never whole.

DuckDB drops an incomplete tail by itself, but refuses a log with a damaged entry. Such a log is never deleted: both
files are copied aside and the copy is cut at the entry that DuckDB names.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb

from speciate.errors import Code, SpeciateError

_POSITION = re.compile(r"byte position (\d+)")


def salvage(catalog: Path) -> Path | None:
    """Make the catalog openable. Returns the folder with the untouched copies where the log had to be cut."""
    log = catalog.with_name(catalog.name + ".wal")
    if not log.exists():
        return None
    kept: Path | None = None
    while True:
        try:
            duckdb.connect(str(catalog)).close()
            return kept
        except duckdb.Error as error:
            if "Could not set lock" in str(error):
                return kept  # another process has it open: whoever opens it for real says so
            match = _POSITION.search(str(error))
            if "WAL" not in str(error) or not match or not log.exists():
                raise _beyond_repair(catalog, error) from error
            position = int(match[1])
            if kept is None:
                kept = _set_aside(catalog, log)
            elif position >= log.stat().st_size:
                raise _beyond_repair(catalog, error) from error
            with log.open("r+b") as file:
                file.truncate(position)


def _set_aside(catalog: Path, log: Path) -> Path:
    number = 1
    while (folder := catalog.parent / "backups" / f"torn-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    for path in (catalog, log):
        if path.exists():
            shutil.copy2(path, folder / path.name)
    return folder


def _beyond_repair(catalog: Path, error: duckdb.Error) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{catalog} cannot be opened as a catalog: {str(error).splitlines()[0]}",
        "Run `speciate rebuild`; it keeps the old files.",
    )
