"""Opens a catalog whose log was torn by a crash, and loses only what was never whole.

DuckDB refuses a log with an entry whose checksum is wrong, but where an entry's length is wrong it takes the rest for
an unfinished write and drops it without a word. So the lengths are followed here first. Where they do not lead to the
end of the log, or DuckDB refuses it, both files are copied aside before anything else, and a refused log is cut at the
entry that DuckDB names. A log is never deleted.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb

from speciate.errors import Code, SpeciateError
from speciate.workspace import aside

_POSITION = re.compile(r"byte position (\d+)")


def salvage(catalog: Path) -> Path | None:
    """Make the catalog openable. Returns the folder with the untouched copies where the log was not whole; also where
    somebody was killed after cutting it: what follows from that (the gap, the anchor) is the caller's, who says that it
    is done by `aside.settle`."""
    log = catalog.with_name(catalog.name + ".wal")
    before = aside.unfinished(catalog.parent / "backups")
    if not log.exists():
        return before
    kept = None if is_whole(log.read_bytes()) else _set_aside(catalog, log)
    while True:
        try:
            duckdb.connect(str(catalog)).close()
            return kept or before
        except duckdb.Error as error:
            if "Could not set lock" in str(error):
                return kept or before  # another process has it open: whoever opens it for real says so
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


def is_whole(log: bytes) -> bool:
    """Whether the lengths of a log's entries lead exactly to its end.

    A log is a short serialized header, which ends with ff ff, then entries of length and checksum (8 bytes each, little
    endian) and content. Checksums are DuckDB's to check.
    """
    position = next((end for end in range(2, _LONGEST_HEADER) if _begins_entry(log, end)), None)
    while position is not None and position + _PREFIX <= len(log):
        position += _PREFIX + _length(log, position)
    return position == len(log)


_LONGEST_HEADER, _PREFIX = 64, 16


def _begins_entry(log: bytes, position: int) -> bool:
    if log[position - 2 : position] != b"\xff\xff" or position + _PREFIX > len(log):
        return False
    return position + _PREFIX + _length(log, position) <= len(log)


def _length(log: bytes, position: int) -> int:
    return int.from_bytes(log[position : position + 8], "little")


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
