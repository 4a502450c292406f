"""Log maintenance: seals segments that nobody appends to any more, and drops answers that are too old or too many.

    python -m speciate.predictions.maintenance WORKSPACE [USE_CASE ...]

Each step may be killed and repeated: a part names the segments that it holds, so a segment that is still there is
known to be in it; a part that is rewritten is replaced whole. Runs in a process of its own, for the daemon and for
deployments that live without one.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speciate.environment import clean_environment
from speciate.predictions import prediction_ids, reading
from speciate.predictions.log_files import (
    ANSWERS,
    FEEDBACK,
    DroppedAnswers,
    LogFolder,
    all_logs,
    read_footer,
    read_part,
    sealed_segments,
)
from speciate.settings import Log, load
from speciate.workspace import integrity
from speciate.workspace.blobs import sync_folder
from speciate.workspace.clock import Elapsed, SystemClock
from speciate.workspace.workspace import Folders

if TYPE_CHECKING:
    import pyarrow as pa


_MB = 1 << 20
_DAY = 86_400_000  # ms
_GRACE_SECONDS = 600.0
"""A file is written a moment before the line that names it."""
PART_BYTES = 64 << 20
"""Most bytes of lines that become one part: all of them are in memory at once."""
LOOK_SECONDS = 60.0
_LEAST_SECONDS = 6 * 3600.0
"""Expired answers go within so long, also if there is nothing to seal."""
_log = logging.getLogger(__name__)


def maintain(folder: LogFolder, settings: Log, now: float, old: float | None = None) -> None:
    """All of it, once. Does nothing where another process does it already. `old`: what was given before is older than
    the retention, however the clock was set since; default: by `now`."""
    with folder.maintained(wait=False) as mine:
        if mine:
            seal_segments(folder)
            drop_expired(folder, reading.retention_start(now, settings.retention_days) if old is None else old)
            enforce_quota(folder, int(settings.quota_mb * _MB), now)
            delete_unreferenced_files(folder, now)


def seal_segments(folder: LogFolder) -> list[Path]:
    """Closed segments become parts: one for each day, or several where a day has much."""
    done = sealed_segments(folder.all_parts())
    waiting = []
    for path in folder.closed_segments():
        if path.name in done:
            path.unlink(missing_ok=True)  # a kill came between its part and this
        else:
            waiting.append(path)
    made = []
    for segments in _group_by_day(waiting):
        found = reading.read_segments(segments)
        metadata = {
            "segments": json.dumps([path.name for path in segments]),
            "missed": found.missed,
            "torn": found.torn,
        }
        name = folder.parts / segments[0].stem
        if found.feedback:  # first: the segments count as held once the answers' part is there
            write_part(Path(f"{name}{FEEDBACK}"), reading.table(found.feedback, FEEDBACK), {})
        rows = reading.table(found.answers, ANSWERS).sort_by("id")
        write_part(Path(f"{name}{ANSWERS}"), rows, metadata)
        made.append(Path(f"{name}{ANSWERS}"))
        for path in segments:
            path.unlink(missing_ok=True)
    return made


def _group_by_day(segments: Sequence[Path]) -> list[list[Path]]:
    """Segments of a day, as far as they fit into one part. In order of their names."""
    found: list[list[Path]] = []
    day, room = -1, 0
    for path in segments:
        own, size = int(path.name.partition("-")[0]) // _DAY, path.stat().st_size
        if own != day or size > room:
            found.append([])
            day, room = own, PART_BYTES
        found[-1].append(path)
        room -= size
    return found


def drop_expired(folder: LogFolder, since: float) -> None:
    """Drop answers given before `since`, and feedback on them. Of a part without such rows only the footer is read."""
    floor = prediction_ids.first_after(since)
    for kind, column in ((ANSWERS, "id"), (FEEDBACK, "prediction")):
        for path in folder.all_parts(kind):
            if read_footer(path).least >= floor:
                continue
            keep_rows(path, kind, lambda rows, column=column: [each >= floor for each in rows[column].to_pylist()])  # type: ignore[misc]


def keep_rows(path: Path, kind: str, selected: Callable[[pa.Table], Sequence[bool]]) -> int:
    """Rewrite a part with the chosen rows alone; how many went. One that holds none any more goes, unless it tells of
    segments that are still there."""
    import pyarrow as pa

    rows = read_part(path)
    mask = list(selected(rows))
    if all(mask):
        return 0
    left = rows.filter(pa.array(mask, pa.bool_()))
    metadata = {name.decode(): value.decode() for name, value in (rows.schema.metadata or {}).items()}
    waiting = any((path.parent.parent / "lines" / name).exists() for name in json.loads(metadata.get("segments", "[]")))
    if left.num_rows or waiting or int(metadata.get("missed", 0)):
        write_part(path, left, metadata)
    else:
        path.unlink()
    return int(rows.num_rows - left.num_rows)


def rewrite_part(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Put other cells into a part; nothing happens where they are the same."""
    before = read_part(path)
    after = change(before)
    if not after.equals(before):
        metadata = {name.decode(): value.decode() for name, value in (before.schema.metadata or {}).items()}
        write_part(path, after, metadata)


def enforce_quota(folder: LogFolder, quota: int, now: float) -> None:
    """Drop the oldest parts, and with them their files, until the rest fits."""
    for path in folder.all_parts():
        if folder.size().bytes <= quota:
            return
        rows = read_part(path, columns=["id", "at"])
        before = folder.dropped()
        newest = max(rows["at"].to_pylist(), default=0.0)
        folder.note_dropped(DroppedAnswers(until=max(before.until, newest), answers=before.answers + rows.num_rows))
        path.unlink()
        gone = set(rows["id"].to_pylist())
        for each in folder.all_parts(FEEDBACK):
            keep_rows(
                each,
                FEEDBACK,
                lambda said, gone=gone: [one not in gone for one in said["prediction"].to_pylist()],  # type: ignore[misc]
            )
        delete_unreferenced_files(folder, now)


def delete_unreferenced_files(folder: LogFolder, now: float, *, grace: float = _GRACE_SECONDS) -> None:
    """Delete files that no answer names any more."""
    import pyarrow.compute as pc

    for path in [*folder.segments.glob("*.tmp"), *folder.path.glob("**/.*.partial")]:  # of writers that were killed
        if path.stat().st_mtime < now - max(grace, _GRACE_SECONDS):
            path.unlink(missing_ok=True)
    there = [path for path in folder.media.glob("??/*") if path.stat().st_mtime < now - grace]
    if not there:
        return
    named = set(pc.unique(pc.list_flatten(reading.answers(folder, columns=["media"])["media"])).to_pylist())
    for path in there:
        if path.name not in named:
            path.unlink(missing_ok=True)


def write_part(target: Path, rows: pa.Table, metadata: Mapping[str, object]) -> None:
    """Whole or not at all, and on the disk when this returns."""
    metadata = {name: str(value) for name, value in metadata.items()}
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "x+b", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            integrity.write_table(rows.replace_schema_metadata(metadata), file, compression="zstd")
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def main(root: str, *use_cases: str) -> int:
    """The logs of these use cases, or all. 1 where one of them could not be maintained: the others were."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings, status = load(Path(root)).log, 0
    elapsed = Elapsed(Path(root), SystemClock())
    for folder in all_logs(Folders(Path(root))):
        if not use_cases or folder.use_case in use_cases:
            try:
                folder.create()
                own = settings.of(folder.use_case)
                maintain(folder, own, time.time(), elapsed.cutoff(86_400.0 * own.retention_days))
            except Exception:  # noqa: BLE001 - one damaged part, say, is no reason to let the other logs grow
                _log.exception("the log of %s could not be maintained", folder.use_case)
                status = 1
    return status


if __name__ == "__main__":
    os.nice(10)  # not in main(): whoever calls that in a process of its own keeps its priority
    sys.exit(main(*sys.argv[1:]))


class LogMaintenance:
    """Maintains `logs` now and then, in a process of its own: neither a deployment nor the daemon waits for it.

    A deployment maintains its own log, for it may live without a daemon; the daemon maintains all, also of deployments
    that are gone. The second of both finds the log locked and does nothing.
    """

    def __init__(self, root: Path, logs: Callable[[], Sequence[LogFolder]], seconds: float = LOOK_SECONDS) -> None:
        self._root, self._logs, self._seconds = root, logs, seconds
        self._ending = threading.Event()
        self._last = -_LEAST_SECONDS
        self._thread = threading.Thread(target=self._keep, name="log-maintenance", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """A process at work continues; it may be killed at any time as well."""
        self._ending.set()

    def _keep(self) -> None:
        while not self._ending.wait(self._seconds):
            try:
                self.look()
            except OSError:
                _log.exception("the logs could not be maintained")

    def look(self) -> None:
        """One pass: a process for those logs where there is something to do, and now and then for all."""
        now = time.monotonic()
        everything = now - self._last >= _LEAST_SECONDS
        due = [log.use_case for log in self._logs() if log.path.exists() and (everything or log.closed_segments())]
        if everything:
            self._last = now
        if due:
            command = [sys.executable, "-P", "-m", "speciate.predictions.maintenance", str(self._root), *due]
            subprocess.run(command, env=clean_environment(), stdin=subprocess.DEVNULL, check=False)
