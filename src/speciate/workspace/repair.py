"""Repair of a catalog whose log was torn by a crash: what was never whole is lost, and nothing else.

DuckDB refuses a log with an entry whose checksum is wrong, but where an entry's length is wrong it takes the rest for
an unfinished write and drops it without a word. So the lengths are followed here first. Where they do not lead to the
end of the log, or DuckDB refuses it, both files are copied aside before anything else, and a refused log is cut at the
entry that DuckDB names. A log is never deleted.

What a repair keeps lies in `backups/torn-N` (here) and `backups/replaced-N` (rebuild.py). Each says in a file of its
own how far the catalog had come when the repair was done: a purge deletes those from before it, and no later ones. By
events and not by times, since clocks are set. The times of which a catalog knows nothing are gaps in it: garbage
collection never deletes files that were written in a gap.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from speciate.errors import Code, SpeciateError
from speciate.workspace.blobs import sync_folder, write_durably

_POSITION = re.compile(r"byte position (\d+)")


def salvage_catalog(catalog: Path) -> Path | None:
    """Make the catalog openable. Returns the folder with the untouched copies where the log was not whole; also where
    somebody was killed after cutting it: what follows from that (the gap, the anchor) is the caller's, who says that it
    is done by `settle_repairs`."""
    log = catalog.with_name(catalog.name + ".wal")
    before = find_unfinished(catalog.parent / "backups")
    if not log.exists():
        return before
    kept = None if is_whole(log.read_bytes()) else _copy_aside(catalog, log)
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
                kept = _copy_aside(catalog, log)
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


def _copy_aside(catalog: Path, log: Path) -> Path:
    number = 1
    while (folder := catalog.parent / "backups" / f"torn-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    for path in (catalog, log):
        if path.exists():
            copy = folder / path.name
            shutil.copy2(path, copy)
            with copy.open("rb") as file:
                os.fsync(file.fileno())
    for each in (folder, folder.parent, catalog.parent):  # the log is cut next: what is cut off is here alone then
        sync_folder(each)
    return folder


def _beyond_repair(catalog: Path, error: duckdb.Error) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{catalog} cannot be opened as a catalog: {str(error).splitlines()[0]}",
        "Run `speciate rebuild`; it keeps the old files.",
    )


_NOTE = "event"


def repair_folders(backups: Path) -> list[Path]:
    return sorted(path for kind in ("torn", "replaced") for path in backups.glob(f"{kind}-*") if path.is_dir())


def events_at_repair(folder: Path) -> int:
    """The number of the catalog's newest event when the repair was done; 0 where it is not said."""
    return _read_events(folder) or 0


def note_events(folder: Path, events: int) -> None:
    write_durably(folder / _NOTE, str(events).encode())


def find_unfinished(backups: Path) -> Path | None:
    """The newest folder of a log that was cut by somebody who was killed before `settle`; None without one."""
    torn = [path for path in repair_folders(backups) if path.name.startswith("torn-") and _read_events(path) is None]
    return max(torn, key=lambda path: path.stat().st_mtime_ns, default=None)


def settle_repairs(backups: Path, events: int, *, clean: bool) -> None:
    """Say of what lies there that it is from before now, when the catalog has so many events. `clean`: the catalog's
    file, of which torn folders hold a copy, has no cells any more that somebody wanted forgotten (compaction.py)."""
    for folder in repair_folders(backups):
        known = _read_events(folder)
        if known is None and folder.name.startswith("torn-"):
            note_events(folder, events if clean else 0)
        elif known is not None and known > events:  # numbers are given anew after a repair
            note_events(folder, events)


def _read_events(folder: Path) -> int | None:
    try:
        return int((folder / _NOTE).read_text())
    except (OSError, ValueError):
        return None


GRACE_SECONDS = 24 * 3600.0
"""The least age at which an unnamed file may be deleted: a run seals files long before a version names them."""
_KEY = "gaps"
_GET = "SELECT value FROM meta WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_KNOWN_UNTIL = f"""
SELECT least(
    (SELECT max(stamp) FROM events) - {GRACE_SECONDS},
    (SELECT min(created) FROM jobs WHERE state <> 'succeeded')
)
"""
"""Whatever was written before it and is not named was garbage then already: by the rule of privacy/gc.py."""

Execute = Callable[[str, Sequence[object]], Sequence[tuple[Any, ...]]]


def note_gap(execute: Execute, until: float) -> None:
    """Add the gap from the catalog's last knowledge until `until` (seconds since the epoch).

    A file that was written in a gap may be named by rows that were lost, so garbage collection never deletes it.
    """
    known = execute(_KNOWN_UNTIL, [])[0][0]
    since = 0.0 if known is None else min(float(known), until)
    execute(_PUT, [_KEY, json.dumps([*read_gaps(execute), (since, until)])])


def read_gaps(execute: Execute) -> list[tuple[float, float]]:
    """Oldest first, both ends included."""
    rows = execute(_GET, [_KEY])
    return [(float(since), float(until)) for since, until in json.loads(rows[0][0])] if rows else []
