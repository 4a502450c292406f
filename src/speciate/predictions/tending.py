"""Looks after the log of one use case: seals what nobody appends to any more, and drops what is too old or too much.

    python -m speciate.predictions.tending WORKSPACE [USE_CASE]

Each step may be killed and repeated: a part names the segments that it holds, so a segment that is still there is
known to be in it; a part that is rewritten is replaced whole. Runs in a process of its own, for the daemon and for a
slot that lives without one.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate.predictions import identity, reading
from speciate.predictions.folder import ANSWERS, FEEDBACK, Dropped, LogFolder, all_logs
from speciate.settings import Log, load
from speciate.workspace.blobs import sync_folder
from speciate.workspace.workspace import Folders

if TYPE_CHECKING:
    import pyarrow as pa

_MB = 1 << 20
_DAY = 86_400_000  # ms
_GRACE_SECONDS = 600.0
"""A file is written a moment before the line that names it."""


def tend(folder: LogFolder, settings: Log, now: float) -> None:
    """All of it, once. Does nothing where another process does it already."""
    with folder.tended(wait=False) as mine:
        if mine:
            seal(folder)
            forget_old(folder, reading.since_of(now, settings.retention_days))
            bound(folder, int(settings.quota_mb * _MB), now)
            collect(folder, now)


def seal(folder: LogFolder) -> list[Path]:
    """Closed segments become parts, one for each day."""
    done = reading.covered(folder.all_parts())
    days: dict[int, list[Path]] = {}
    for path in folder.closed_segments():
        if path.name in done:
            path.unlink(missing_ok=True)  # a kill came between its part and this
        else:
            days.setdefault(int(path.name.partition("-")[0]) // _DAY, []).append(path)
    made = []
    for _, segments in sorted(days.items()):
        found = reading.lines(segments)
        told = {"segments": json.dumps([path.name for path in segments]), "missed": found.missed, "torn": found.torn}
        name = folder.parts / segments[0].stem
        if found.feedback:  # first: the segments count as held once the answers' part is there
            write(Path(f"{name}{FEEDBACK}"), reading.table(found.feedback, FEEDBACK), {})
        rows = reading.table(found.answers, ANSWERS).sort_by("id")
        write(Path(f"{name}{ANSWERS}"), rows, told)
        made.append(Path(f"{name}{ANSWERS}"))
        for path in segments:
            path.unlink(missing_ok=True)
    return made


def forget_old(folder: LogFolder, since: float) -> None:
    """Answers that were given before, and what was said of them."""
    floor = identity.first_after(since)
    for kind, column in ((ANSWERS, "id"), (FEEDBACK, "prediction")):
        for path in folder.all_parts(kind):
            keep(path, kind, lambda rows, column=column: [each >= floor for each in rows[column].to_pylist()])  # type: ignore[misc]


def keep(path: Path, kind: str, chosen: Callable[[pa.Table], Sequence[bool]]) -> int:
    """Rewrite a part with the chosen rows alone; how many went. One that holds none any more goes, unless it tells of
    segments that are still there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(path, partitioning=None)
    mask = list(chosen(rows))
    if all(mask):
        return 0
    left = rows.filter(pa.array(mask, pa.bool_()))
    told = {name.decode(): value.decode() for name, value in (rows.schema.metadata or {}).items()}
    waiting = any((path.parent.parent / "lines" / name).exists() for name in json.loads(told.get("segments", "[]")))
    if left.num_rows or waiting or int(told.get("missed", 0)):
        write(path, left, told)
    else:
        path.unlink()
    return int(rows.num_rows - left.num_rows)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Put other cells into a part; nothing happens where they are the same."""
    import pyarrow.parquet as pq

    before = pq.read_table(path, partitioning=None)
    after = change(before)
    if not after.equals(before):
        told = {name.decode(): value.decode() for name, value in (before.schema.metadata or {}).items()}
        write(path, after, told)


def bound(folder: LogFolder, quota: int, now: float) -> None:
    """Drop the oldest parts, and with them their files, until the rest fits."""
    import pyarrow.parquet as pq

    for path in folder.all_parts():
        if folder.size().bytes <= quota:
            return
        rows = pq.read_table(path, columns=["id", "at"], partitioning=None)
        before = folder.dropped()
        newest = max(rows["at"].to_pylist(), default=0.0)
        folder.note_dropped(Dropped(until=max(before.until, newest), answers=before.answers + rows.num_rows))
        path.unlink()
        gone = set(rows["id"].to_pylist())
        for each in folder.all_parts(FEEDBACK):
            keep(each, FEEDBACK, lambda said, gone=gone: [one not in gone for one in said["prediction"].to_pylist()])  # type: ignore[misc]
        collect(folder, now)


def collect(folder: LogFolder, now: float, *, grace: float = _GRACE_SECONDS) -> None:
    """Delete files that no answer names any more."""
    for path in [*folder.segments.glob("*.tmp"), *folder.path.glob("**/.*.partial")]:  # of writers that were killed
        if path.stat().st_mtime < now - max(grace, _GRACE_SECONDS):
            path.unlink(missing_ok=True)
    there = [path for path in folder.media.glob("??/*") if path.stat().st_mtime < now - grace]
    if not there:
        return
    listed = reading.answers(folder, columns=["media"])["media"].to_pylist()
    named = {sha256 for each in listed for sha256 in each or ()}
    for path in there:
        if path.name not in named:
            path.unlink(missing_ok=True)


def write(target: Path, rows: pa.Table, told: dict[str, Any]) -> None:
    """Whole or not at all, and on the disk when this returns."""
    import pyarrow.parquet as pq

    metadata = {name: str(value) for name, value in told.items()}
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            pq.write_table(rows.replace_schema_metadata(metadata), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def main(root: str, use_case: str | None = None) -> int:
    os.nice(10)
    settings = load(Path(root)).log
    for folder in all_logs(Folders(Path(root))):
        if use_case is None or folder.use_case == use_case:
            folder.create()
            tend(folder, settings.of(folder.use_case), time.time())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
