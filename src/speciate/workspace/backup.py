"""Copies of the catalog, made through SQL alone, and of a whole workspace.

The owner of a catalog must not open its file by other means (closing any descriptor drops DuckDB's lock), so both kinds
of copy are statements of the open database, each a consistent snapshot: Parquet files in `backups/` by itself, hourly
and after each move of an alias or change of a consent; a catalog beside copies of the sealed files on demand. Caches,
logs and earlier backups are left out of the latter. Neither waits for runs: what a live run has not sealed is not in
the copy.

How long: the newest 12, the last of each of the newest 14 days, and those that know what the catalog lost. A purge cuts
that short: as soon as something was forgotten, a new copy is made and every older one is deleted, and so are the
catalogs that a repair kept before (repair.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb

from speciate.errors import Code, SpeciateError
from speciate.workspace import catalog_identity, repair
from speciate.workspace.blobs import make_folder, sync_folder, sync_tree
from speciate.workspace.database import Database, Event, Transaction
from speciate.workspace.workspace import Workspace

_KEPT_NEWEST, _KEPT_DAYS = 12, 14
_FIRST_SECONDS = 60.0
"""After its start a daemon does not save sooner, unless something is urgent."""
_COPIED = (
    "settings.toml",
    catalog_identity.ANCHOR,
    "blobs",
    "packs",
    "datasets",
    "features",
    "models",
    "predictions",
    "evaluations",
    "runs",
    "logged",
)
_URGENT = {
    "alias.moved", "canary.set", "canary.ended", "data.forgotten", "consent.changed", "key.changed", "policy.changed",
    "token.changed",
}  # fmt: skip
_SOON = {"data.sent"}
"""A row of the audit as well, but one for each run that sends rows: a backup within a minute has all of them."""
_SOON_SECONDS = 60.0
_STAMP, _SECOND = "%Y%m%dT%H%M%SZ", timedelta(seconds=1)
SUMS = "sha256.json"
"""File in each automatic backup: name of a file -> sha256."""
_KEPT = "kept_backups"
_GET = "SELECT value FROM meta WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_log = logging.getLogger(__name__)


class Backup(NamedTuple):
    path: str
    files: int
    bytes: int


def save_catalog(database: Database, folder: Path, now: float) -> Path:
    """Write the whole catalog as Parquet into a new folder of `folder`, named by time and newest event."""
    if (target := folder / f"auto-{_stamp(now, [])}-{database.last_seq}").exists():
        return target
    target = folder / f"auto-{_stamp(now, automatic_backups(folder))}-{database.last_seq}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    database.read(f"EXPORT DATABASE {quoted(partial)} (FORMAT parquet)")
    sums = {path.name: file_sum(path) for path in sorted(partial.iterdir())}
    (partial / SUMS).write_text(json.dumps(sums, indent=1))
    sync_tree(partial)
    partial.rename(target)
    sync_folder(folder)
    return target


def _stamp(now: float, saved: Sequence[Path]) -> str:
    """The time, or a second after the newest backup where the clock went back: names must sort as backups came."""
    moment = datetime.fromtimestamp(max(0.0, now), UTC)
    with contextlib.suppress(IndexError, ValueError):
        moment = max(moment, datetime.strptime(saved[-1].name.split("-")[1], _STAMP).replace(tzinfo=UTC) + _SECOND)
    return moment.strftime(_STAMP)


def file_sum(path: Path) -> str:
    """sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged_file_in(backup: Path) -> str | None:
    """The file of an automatic backup that is not as it was written; None where all are, or where it is from before
    backups said what they hold."""
    try:
        sums: dict[str, str] = json.loads((backup / SUMS).read_bytes())
        return next((name for name, known in sums.items() if file_sum(backup / name) != known), None)
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        return None if missing == SUMS else missing
    except (ValueError, AttributeError, OSError):
        return SUMS


def automatic_backups(folder: Path) -> list[Path]:
    """What `save_catalog` made, oldest first."""
    return sorted(path for path in folder.glob("auto-*") if (path / "load.sql").exists())


def made_at(backup: Path) -> float:
    """Seconds since the epoch, from its name; 0 for another's name."""
    try:
        stamp = datetime.strptime(backup.name.split("-")[1], _STAMP)
    except (IndexError, ValueError):
        return 0.0
    return stamp.replace(tzinfo=UTC).timestamp()


def superseded_backups(names: Sequence[str]) -> list[str]:
    """Which backups may go: all but the newest 12 and the last of each of the newest 14 days. Oldest first, both."""
    days = {name.split("-")[1][:8]: name for name in names}  # a later one of the same day replaces the earlier
    kept = set(names[-_KEPT_NEWEST:]) | {days[day] for day in sorted(days)[-_KEPT_DAYS:]}
    return [name for name in names if name not in kept]


def keep_backups(tx: Transaction, names: Collection[str]) -> None:
    """Leave these automatic backups however old they become: they alone know something. Until it is said anew."""
    if names or tx.execute(_GET, [_KEPT]):
        tx.execute(_PUT, [_KEPT, json.dumps(sorted(names))])


class AutomaticBackups:
    """A thread that saves the catalog when enough time has passed or an alias has moved, if anything changed."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._wake = threading.Event()
        self._stopping = self._soon = self._urgent = False
        saved = automatic_backups(workspace.folders.backups)
        self._saved_seq = _newest_seq(saved)
        self._pause = 60.0 * workspace.settings.backup_minutes
        age = workspace.clock.now() - made_at(saved[-1]) if saved else self._pause
        self._first_pause = min(self._pause, max(_FIRST_SECONDS, self._pause - age))
        self._thread = threading.Thread(target=self._loop, name="backups", daemon=True)

    def start(self) -> None:
        self._workspace.database.listen(self._heard)
        if self._remembering():
            self._wake.set()
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
            self._save_if_possible(only_forgetting=True)  # nobody may come after us for a long time

    def _heard(self, events: Sequence[Event]) -> None:
        urgent, soon = (any(event.type in types for event in events) for types in (_URGENT, _SOON))
        self._urgent |= urgent  # what is urgent stays so, whatever is heard after it
        self._soon |= soon
        if urgent or soon:
            self._wake.set()

    def _loop(self) -> None:
        pause = self._first_pause  # daemons that never live for an hour must make some, too
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            if self._soon:
                self._wait_for_more()
            pause = self._pause
            if self._stopping:
                return
            self._urgent = self._soon = False
            self._save_if_possible()

    def _wait_for_more(self) -> None:
        """Until `_SOON_SECONDS` have passed, or something is urgent."""
        end = time.monotonic() + _SOON_SECONDS
        while not self._urgent and not self._stopping and (left := end - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()

    def _save_if_possible(self, *, only_forgetting: bool = False) -> None:
        try:
            if not only_forgetting or self._remembering():
                self.save()
        except (duckdb.Error, OSError):  # a full disk must not end the thread: the next hour may be better
            _log.exception("the automatic backup failed")

    def save(self) -> Path | None:
        """Save now and delete what is superseded; None where nothing has changed since the last time."""
        folder, database = self._workspace.folders.backups, self._workspace.database
        seq, target = database.last_seq, None
        if seq != self._saved_seq:
            target = save_catalog(database, folder, self._workspace.clock.now())
            self._saved_seq = seq
            kept = database.read_one(_GET, [_KEPT])
            for name in superseded_backups([path.name for path in automatic_backups(folder)]):
                if kept is None or name not in json.loads(kept[0]):
                    shutil.rmtree(folder / name)
        for path in self._remembering():
            shutil.rmtree(path, ignore_errors=True)
        return target

    def _remembering(self) -> list[Path]:
        """Copies of the catalog from before something was forgotten, whole or not."""
        row = self._workspace.database.read_one("SELECT value FROM meta WHERE key = 'forgotten'")
        if row is None:
            return []
        folder, since = self._workspace.folders.backups, int(row[0])
        saved = [path for path in automatic_backups(folder) if _newest_seq([path]) <= since]
        kept = [path for path in repair.repair_folders(folder) if repair.events_at_repair(path) <= since]
        return [*saved, *kept, *folder.glob(".auto-*.partial")]


def back_up(workspace: Workspace, target: Path) -> Backup:
    """Copy the workspace into a new folder, which is itself a workspace, and is marked as a copy: where it is opened,
    its jobs are paused (jobs/recovery.py). Raises REFUSED where something is there.

    The catalog is copied first: every file that it names is sealed by then.
    """
    if target.exists():
        raise SpeciateError(Code.REFUSED, f"{target} exists; a backup overwrites nothing.", "Name a new folder.")
    root = workspace.folders.root.resolve()
    if target.resolve().is_relative_to(root):
        raise SpeciateError(
            Code.REFUSED, f"{target} lies inside the workspace that it would copy.", "Name a folder outside it."
        )
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        make_folder(target.parent, mode=0o700)
        partial.mkdir(mode=0o700)
        _copy_catalog(workspace.database, partial / "catalog.duckdb", root)
        for name in _COPIED:
            _copy(root / name, partial / name)
        sync_tree(partial)
        partial.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise SpeciateError(
            Code.UNAVAILABLE, f"The backup to {target} failed: {error.strerror or error}.", "Choose another place."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    return Backup(str(target), len(sizes), sum(sizes))


_serial = itertools.count()


def _copy_catalog(database: Database, target: Path, original: Path) -> None:
    name = f"backup_{next(_serial)}"
    key, value = catalog_identity.mark_copy(original)
    ((source,),) = database.read("SELECT current_database()")
    database.read(f"ATTACH {quoted(target)} AS {name}")
    try:
        database.read(f'COPY FROM DATABASE "{source}" TO {name}')
        database.read(f"INSERT OR REPLACE INTO {name}.meta VALUES (?, ?)", [key, value])
    except duckdb.Error as error:
        raise SpeciateError(
            Code.UNAVAILABLE, f"The catalog could not be copied: {str(error).splitlines()[0]}", "Free some space."
        ) from error
    finally:
        database.read(f"DETACH {name}")


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a tree. Files that vanish meanwhile belong to live runs or to gc, and are passed over."""
    if source.is_dir():
        target.mkdir(mode=0o700)
        for entry in sorted(os.listdir(source)):
            if not entry.endswith((".partial", ".tmp")):
                _copy(source / entry, target / entry)
    elif source.is_file():
        try:
            shutil.copy2(source, target)
        except FileNotFoundError:
            return


def _newest_seq(saved: Sequence[Path]) -> int:
    return int(saved[-1].name.rpartition("-")[2]) if saved else 0


def quoted(path: Path) -> str:
    """A path as an SQL literal, for statements that take no parameters."""
    return "'" + str(path).replace("'", "''") + "'"
